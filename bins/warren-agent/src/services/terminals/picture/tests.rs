use super::*;
use proptest::prelude::*;

const SIZE: (u16, u16) = (20, 6);

fn drawn(bytes: &[u8]) -> Picture {
    let mut picture = Picture::new(SIZE);
    picture.take(bytes);
    picture
}

/// All that can be seen and asked of a picture, for a comparison.
fn seen(picture: &Picture) -> String {
    let screen = picture.model.screen();
    let grid = |screen: &vt100::Screen| {
        let rows: Vec<String> = screen.rows_formatted(0, SIZE.0).collect();
        rows.join("\n")
    };
    let mut behind = copy(screen);
    behind.process(b"\x1b[?47l");
    let mut saved = copy(screen);
    saved.process(b"\x1b8");
    // Beyond the last column and what was written there is erased: the place itself is near enough.
    let place = |screen: &vt100::Screen| {
        let (row, column) = screen.cursor_position();
        let erased =
            screen.cell(row, SIZE.0 - 1).is_some_and(|c| !c.has_contents() && !c.is_wide_continuation());
        (row, if erased { column.min(SIZE.0 - 1) } else { column })
    };
    let history: Vec<&str> = picture.model.callbacks().lines.iter().map(|line| &*line.text).collect();
    format!(
        "{}\nbehind:\n{}\nat {:?}, saved {:?}, alternate {}\n{:?}\n{:?}\n{:?}\n{}",
        grid(screen),
        grid(behind.screen()),
        place(screen),
        place(saved.screen()),
        screen.alternate_screen(),
        screen.attributes_formatted(),
        screen.input_mode_formatted(),
        picture.scan.kept,
        history.join("\n"),
    )
}

/// A terminal that was made the same by a picture's bytes.
fn again(picture: &Picture) -> Picture {
    drawn(&picture.bytes())
}

#[test]
fn an_editor_on_the_alternate_screen_and_the_shell_behind_it_come_back() {
    let mut typed = String::new();
    for n in 0..30 {
        typed += &format!("\x1b[3{}mline {n}\x1b[m\r\n", n % 8);
    }
    typed += "$ vim\x1b[?2004h\x1b[?1049h\x1b[2J\x1b[1;5r\x1b[3;4H\x1b[7m-- INSERT --\x1b[?1h\x1b=\x1b[?1002;1006h";
    let picture = drawn(typed.as_bytes());
    let again = again(&picture);
    similar(&picture, &again);
    assert!(seen(&picture).contains("INSERT"));
    let left = |mut picture: Picture| {
        picture.take(b"\x1b[r\x1b[?1049l\r\n$ ");
        picture
    };
    let (picture, again) = (left(picture), left(again));
    similar(&picture, &again);
    assert_eq!(picture.model.screen().contents(), "line 26\nline 27\nline 28\nline 29\n$ vim\n$ ");
    assert_eq!(picture.model.callbacks().lines.len(), 26);
}

fn similar(a: &Picture, b: &Picture) {
    assert_eq!(seen(a), seen(b));
}

#[test]
fn wide_and_combining_characters_and_drawings_come_back() {
    let picture = drawn("日本語テキスト e\u{301}\r\n\x1b(0lqqk\x1b(B 界".as_bytes());
    similar(&picture, &again(&picture));
    assert_eq!(picture.model.screen().contents(), "日本語テキスト e\u{301}\n┌──┐ 界");
}

#[test]
fn a_visitor_never_comes_between_the_parts_of_a_sequence() {
    let bytes = "a\x1b[31mé\x1b]2;title\x07日\x1b(0q".as_bytes();
    for cut in 0..bytes.len() {
        let mut picture = Picture::new(SIZE);
        let mut shown = picture.take(&bytes[..cut]);
        // Whoever comes here is shown the picture, and then what comes.
        let mut late = again(&picture);
        let rest = picture.take(&bytes[cut..]);
        late.take(&rest);
        similar(&picture, &late);
        shown.extend_from_slice(&rest);
        assert_eq!(shown, bytes, "whoever was there before is shown all of it");
    }
}

#[test]
fn a_cursor_that_was_saved_beyond_the_last_column_comes_back_there() {
    let picture = drawn("\x1b[20Gé\x1b7\x1b[3;3H".as_bytes());
    let mut again = again(&picture);
    similar(&picture, &again);
    again.take(b"\x1b8x");
    assert_eq!(again.model.screen().cursor_position(), (1, 1));
}

#[test]
fn scrollback_is_bounded_and_can_be_forgotten() {
    let mut picture = Picture::new((200, 6));
    for n in 0..20_000 {
        picture.take(format!("{n} {}\r\n", "x".repeat(150)).as_bytes());
    }
    assert!(picture.model.callbacks().bytes <= HISTORY_BYTES);
    assert!(picture.model.callbacks().lines.len() > 1_000);
    let bytes = picture.bytes();
    assert!(bytes.len() < HISTORY_BYTES + (64 << 10), "{}", bytes.len());
    picture.take(b"\x1b[3J");
    assert_eq!(picture.model.callbacks().lines.len(), 0);
}

#[test]
fn a_long_string_is_shown_before_its_end_and_nobody_comes_in_its_middle() {
    let mut picture = Picture::new(SIZE);
    picture.take(b"\x1bPq");
    assert!(picture.is_whole(), "it waits to be shown");
    let shown = picture.take(&vec![b'#'; TAIL_MAX + 1]);
    assert_eq!((shown.len(), picture.is_whole()), (TAIL_MAX + 4, false));
    picture.take(b"\x1b\\");
    assert!(picture.is_whole());
}

/// What programs write: text of all kinds, and the sequences that move, erase, scroll and switch.
fn writing() -> impl Strategy<Value = String> {
    let text = prop::sample::select(vec![
        "a",
        "word ",
        "x\r\n",
        "\r\n",
        "\n",
        "\r",
        "\t",
        "\x08",
        "日",
        "é",
        "e\u{301}",
        "lqk",
        "long text that wraps ",
    ])
    .prop_map(str::to_owned);
    let number = 0u16..25;
    let moves = (number.clone(), number, prop::sample::select(vec!['H', 'A', 'B', 'C', 'D', 'G', 'd']))
        .prop_map(|(a, b, end)| if end == 'H' { format!("\x1b[{a};{b}H") } else { format!("\x1b[{a}{end}") });
    let edits = (0u16..4, prop::sample::select(vec!['J', 'K', 'L', 'M', 'P', '@', 'X', 'S', 'T']))
        .prop_map(|(n, end)| format!("\x1b[{n}{end}"));
    let colours = (0u16..110).prop_map(|n| format!("\x1b[{n}m"));
    let margins = (1u16..4, 4u16..7).prop_map(|(top, bottom)| format!("\x1b[{top};{bottom}r"));
    let others = prop::sample::select(vec![
        "\x1b[r",
        "\x1b7",
        "\x1b8",
        "\x1b[?1049h",
        "\x1b[?1049l",
        "\x1b[?25l",
        "\x1b[?25h",
        "\x1b[?1h",
        "\x1b[?2004h",
        "\x1b[?1004h",
        "\x1b[?1000h",
        "\x1b[?1006h",
        "\x1b(0",
        "\x1b(B",
        "\x0e",
        "\x0f",
        "\x1b)0",
        "\x1b[4h",
        "\x1b[4l",
        "\x1b[?7l",
        "\x1b[?7h",
        "\x1b]0;t\x07",
        "\x1b=",
        "\x1b>",
        "\x1bM",
        "\x1b[2 q",
        "\x1b[38;2;1;2;3m",
        "\x1b[m",
    ])
    .prop_map(str::to_owned);
    let piece = prop_oneof![4 => text, 2 => moves, 1 => edits, 1 => colours, 1 => margins, 3 => others];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_programs_write_a_late_visitor_sees_the_same(bytes in writing()) {
        let picture = drawn(bytes.as_bytes());
        let again = again(&picture);
        prop_assert_eq!(seen(&picture), seen(&again));
    }

    #[test]
    fn hostile_output_never_panics(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'?')], 0..400),
        sizes in prop::collection::vec((1u16..40, 1u16..12), 0..4),
    ) {
        let mut picture = Picture::new(SIZE);
        for (n, piece) in bytes.chunks(100).enumerate() {
            picture.take(piece);
            if let Some(size) = sizes.get(n) {
                picture.resize(*size);
            }
            let bytes = picture.bytes();
            drawn(&bytes);
        }
    }
}

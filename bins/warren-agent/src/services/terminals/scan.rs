//! What programs write to a terminal, taken apart into text and sequences: for what the screen's model does not know.
//!
//! The model ([`vt100`]) keeps the cells. Here is kept what else an empty terminal must be told to become like this one:
//! character sets, margins, further modes, the title. Text in the set of line drawings is translated for the model, which
//! has only one set. And here it is known where a sequence ends, so that no visitor's terminal ever begins in its middle.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Bytes of a sequence that are kept: longer ones are passed on, and nothing is learnt from them. A title has a few dozen.
const SEQUENCE_MAX: usize = 4 << 10;
/// Bytes of a string (a picture in sixels, a clipboard) that may come without an end. Beyond that it is taken for one.
const STRING_MAX: usize = 16 << 20;
/// Bytes of a title that are kept.
const TITLE_MAX: usize = 256;
/// Private modes that the model does not keep and that outlive a program's screenful: wrapping, colours reversed, the
/// cursor's blinking, the keypad, mouse and focus reports. With what each is in a fresh terminal.
const MODES: &[(u16, bool)] = &[
    (5, false),
    (7, true),
    (12, false),
    (45, false),
    (66, false),
    (1004, false),
    (1007, false),
    (1015, false),
    (1016, false),
    (2031, false),
];
/// Insertion and new-line mode, as they are in a fresh terminal.
const ANSI_MODES: &[(u16, bool)] = &[(4, false), (20, false)];

/// What the scanner has found of note, besides what it keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Note {
    /// The scrollback is to be forgotten.
    Forget,
}

/// The scanner.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Scan {
    state: State,
    sequence: Vec<u8>,
    /// Bytes of a string so far.
    string: usize,
    /// Bytes that a character of UTF-8 still lacks.
    lacks: u8,
    /// What was learnt.
    pub(super) kept: Kept,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    Csi,
    /// OSC, DCS and their like, until BEL or ST.
    String,
    /// An escape inside a string: perhaps its end.
    StringEscape,
}

/// What a terminal must be told besides its cells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Kept {
    /// Whether G0 and G1 are line drawings.
    drawings: [bool; 2],
    /// Whether G1 is in use.
    shifted: bool,
    /// Top and bottom of the region that scrolls, from 1, if it is not the whole screen.
    pub(super) margins: Option<(u16, u16)>,
    /// Whether positions count from the margins' top.
    pub(super) origin: bool,
    private: BTreeMap<u16, bool>,
    ansi: BTreeMap<u16, bool>,
    title: String,
}

impl Scan {
    /// Whether the last byte was the last of a character or a sequence.
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self.state, State::Ground) && self.lacks == 0
    }

    /// How many of these bytes are text that the model takes as it is, if they begin so.
    pub(super) fn plain(&self, bytes: &[u8]) -> usize {
        if !self.is_whole() || self.kept.drawings[usize::from(self.kept.shifted)] {
            return 0;
        }
        bytes.iter().take_while(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')).count()
    }

    /// Takes a byte in: puts what the model shall be fed into `model`, and says what is of note.
    pub(super) fn take(&mut self, byte: u8, model: &mut Vec<u8>) -> Option<Note> {
        let mut note = None;
        self.byte(byte, model, &mut note);
        note
    }

    fn byte(&mut self, byte: u8, model: &mut Vec<u8>, note: &mut Option<Note>) {
        match (self.state, byte) {
            // Cancelled: what was begun means nothing.
            (State::Escape | State::Csi, 0x18 | 0x1a) => self.over(),
            (State::String | State::StringEscape, 0x18 | 0x1a) => self.over(),
            (State::Ground, 0x1b) => {
                // A character that is not complete never will be.
                self.lacks = 0;
                self.begin(State::Escape);
            }
            (State::Ground, _) => self.text(byte, model),
            (State::Escape | State::Csi, 0x1b) => self.begin(State::Escape),
            // Controls inside a sequence are obeyed as if they stood before it.
            (State::Escape | State::Csi, 0x00..=0x1f) => self.control(byte, model),
            (State::Escape, b'[') if self.sequence.is_empty() => {
                self.sequence.push(byte);
                self.state = State::Csi;
            }
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') if self.sequence.is_empty() => {
                self.sequence.push(byte);
                self.state = State::String;
                self.string = 0;
            }
            (State::Escape, 0x20..=0x2f) | (State::Csi, 0x20..=0x3f) => self.keep(byte),
            (State::Escape, 0x30..=0x7e) => {
                self.keep(byte);
                self.escape(model, note);
                self.over();
            }
            (State::Csi, 0x40..=0x7e) => {
                self.keep(byte);
                self.csi(model, note);
                self.over();
            }
            (State::Escape | State::Csi, _) => {}
            (State::String, 0x07) => self.string(),
            (State::String, 0x1b) => self.state = State::StringEscape,
            (State::StringEscape, b'\\') => self.string(),
            // It was another sequence's beginning, and the end of the string.
            (State::StringEscape, _) => {
                self.string();
                self.begin(State::Escape);
                self.byte(byte, model, note);
            }
            (State::String, _) => {
                self.keep(byte);
                self.string += 1;
                if self.string > STRING_MAX {
                    self.over();
                }
            }
        }
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.sequence.clear();
    }

    fn over(&mut self) {
        self.begin(State::Ground);
        if self.sequence.capacity() > 256 {
            self.sequence = Vec::new();
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.sequence.len() <= SEQUENCE_MAX {
            self.sequence.push(byte);
        }
    }

    fn text(&mut self, byte: u8, model: &mut Vec<u8>) {
        match byte {
            0x00..=0x1f => {
                self.lacks = 0;
                self.control(byte, model);
            }
            0x20..=0x7e => {
                self.lacks = 0;
                match self.kept.drawing(byte) {
                    Some(drawn) => model.extend_from_slice(drawn.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => model.push(byte),
                }
            }
            _ => {
                self.lacks = match byte {
                    0xc2..=0xdf => 1,
                    0xe0..=0xef => 2,
                    0xf0..=0xf4 => 3,
                    0x80..=0xbf => self.lacks.saturating_sub(1),
                    _ => 0,
                };
                model.push(byte);
            }
        }
    }

    fn control(&mut self, byte: u8, model: &mut Vec<u8>) {
        match byte {
            0x0e => self.kept.shifted = true,
            0x0f => self.kept.shifted = false,
            _ => model.push(byte),
        }
    }

    fn pass(&self, model: &mut Vec<u8>) {
        // A longer one would be an argument list that no terminal takes.
        if self.sequence.len() <= SEQUENCE_MAX {
            model.push(0x1b);
            model.extend_from_slice(&self.sequence);
        }
    }

    fn escape(&mut self, model: &mut Vec<u8>, note: &mut Option<Note>) {
        match self.sequence.as_slice() {
            [b'(' | b')', set] => {
                let slot = usize::from(self.sequence[0] == b')');
                self.kept.drawings[slot] = *set == b'0';
                return;
            }
            b"c" => {
                self.kept = Kept::default();
                *note = Some(Note::Forget);
            }
            // Next line, and line feed as a sequence: the model knows them as controls.
            b"E" => return model.extend_from_slice(b"\r\n"),
            b"D" => return model.push(b'\n'),
            _ => {}
        }
        self.pass(model);
    }

    fn csi(&mut self, model: &mut Vec<u8>, note: &mut Option<Note>) {
        let Some((last, held)) = self.sequence.get(1..).and_then(<[u8]>::split_last) else { return };
        match (held, last) {
            ([b'?', numbers @ ..], b'h' | b'l') => {
                let (numbers, on) = (parameters(numbers), *last == b'h');
                for number in numbers {
                    self.private_mode(number, on, model);
                }
                return;
            }
            (numbers, b'h' | b'l') if numbers.iter().all(|b| matches!(b, b'0'..=b'9' | b';')) => {
                for number in parameters(numbers) {
                    set(&mut self.kept.ansi, ANSI_MODES, number, *last == b'h');
                }
            }
            (numbers, b'r') if numbers.iter().all(|b| matches!(b, b'0'..=b'9' | b';')) => {
                let numbers = parameters(numbers);
                let of = |n: usize| numbers.get(n).copied().unwrap_or(0);
                self.kept.margins = match (of(0).max(1), of(1)) {
                    (1, 0) => None,
                    margins => Some(margins),
                };
            }
            (b"3", b'J') => *note = Some(Note::Forget),
            // A soft reset: the cells stay.
            (b"!", b'p') => {
                let title = std::mem::take(&mut self.kept.title);
                self.kept = Kept { title, ..Kept::default() };
                return model.extend_from_slice(b"\x1b[?25h\x1b[?1l\x1b[?6l\x1b>\x1b[r\x1b[m");
            }
            // Save and restore, under another name.
            ([], b's') => return model.extend_from_slice(b"\x1b7"),
            ([], b'u') => return model.extend_from_slice(b"\x1b8"),
            _ => {}
        }
        self.pass(model);
    }

    fn private_mode(&mut self, number: u16, on: bool, model: &mut Vec<u8>) {
        let end = if on { 'h' } else { 'l' };
        match (number, on) {
            // Other names for what the model knows.
            (1047, _) => model.extend_from_slice(format!("\x1b[?47{end}").as_bytes()),
            (1048, true) => model.extend_from_slice(b"\x1b7"),
            (1048, false) => model.extend_from_slice(b"\x1b8"),
            _ => {
                if number == 6 {
                    self.kept.origin = on;
                }
                set(&mut self.kept.private, MODES, number, on);
                model.extend_from_slice(format!("\x1b[?{number}{end}").as_bytes());
            }
        }
    }

    /// A string has ended.
    fn string(&mut self) {
        if let [b']', b'0' | b'2', b';', title @ ..] = self.sequence.as_slice() {
            let title: String = String::from_utf8_lossy(title).chars().filter(|c| !c.is_control()).collect();
            let end = (0..=TITLE_MAX.min(title.len())).rev().find(|n| title.is_char_boundary(*n));
            self.kept.title = title[..end.unwrap_or(0)].to_owned();
        }
        self.over();
    }

    /// The terminal has another size: what scrolls is the whole screen again.
    pub(super) fn resized(&mut self) {
        self.kept.margins = None;
    }
}

impl Kept {
    /// What a fresh terminal must be told after all that is drawn.
    pub(super) fn sequences(&self) -> String {
        let mut out = String::new();
        let sets = [("\x1b(0", self.drawings[0]), ("\x1b)0", self.drawings[1]), ("\x0e", self.shifted)];
        for (sequence, _) in sets.iter().filter(|(_, on)| *on) {
            out.push_str(sequence);
        }
        for (number, on) in &self.private {
            let _ = write!(out, "\x1b[?{number}{}", if *on { 'h' } else { 'l' });
        }
        for (number, on) in &self.ansi {
            let _ = write!(out, "\x1b[{number}{}", if *on { 'h' } else { 'l' });
        }
        if !self.title.is_empty() {
            let _ = write!(out, "\x1b]2;{}\x07", self.title);
        }
        out
    }

    /// The character that this byte stands for, if the set in use is line drawings.
    fn drawing(&self, byte: u8) -> Option<char> {
        /// From `_` to `~`.
        const DRAWINGS: [char; 32] = [
            ' ', '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─',
            '⎼', '⎽', '├', '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
        ];
        if !self.drawings[usize::from(self.shifted)] {
            return None;
        }
        DRAWINGS.get(usize::from(byte).checked_sub(usize::from(b'_'))?).copied()
    }
}

/// Notes a mode, if it is one that is kept and differs from a fresh terminal's.
fn set(modes: &mut BTreeMap<u16, bool>, known: &[(u16, bool)], number: u16, on: bool) {
    if let Some((_, fresh)) = known.iter().find(|(known, _)| *known == number) {
        if on == *fresh {
            modes.remove(&number);
        } else {
            modes.insert(number, on);
        }
    }
}

/// The numbers between semicolons; what is none counts as 0. No terminal takes more than a few.
fn parameters(text: &[u8]) -> Vec<u16> {
    let number = |part: &[u8]| str::from_utf8(part).ok().and_then(|part| part.parse().ok()).unwrap_or(0);
    text.split(|b| *b == b';').take(32).map(number).collect()
}

/// Whether all that came is a terminal's own answer to a program's question, or its word on its focus, as opposed to
/// what a person typed. Of several terminals that see the same screen, only one may answer.
pub(super) fn is_report(mut bytes: &[u8]) -> bool {
    if bytes.is_empty() {
        return false;
    }
    while !bytes.is_empty() {
        match report(bytes) {
            Some(length) => bytes = &bytes[length..],
            None => return false,
        }
    }
    true
}

/// The length of the report that these bytes begin with.
fn report(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0x1b, b'[', rest @ ..] => {
            let end =
                rest.iter().position(|b| !matches!(b, b'0'..=b'9' | b';' | b'?' | b'>' | b'=' | b'$'))?;
            let answers = match rest[end] {
                // Attributes, modes, sizes, positions (which need two numbers to be no key).
                b'c' | b'y' | b't' | b'n' => end > 0,
                b'R' => rest[..end].contains(&b';') && !rest.starts_with(b"1;"),
                b'I' | b'O' => end == 0,
                _ => false,
            };
            answers.then_some(2 + end + 1)
        }
        [0x1b, b']' | b'P', ..] => {
            let bell = bytes.iter().position(|b| *b == 0x07).map(|n| n + 1);
            let st = bytes.windows(2).position(|pair| pair == b"\x1b\\").map(|n| n + 2);
            bell.into_iter().chain(st).min()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(bytes: &[u8]) -> (Scan, String) {
        let (mut scan, mut model) = (Scan::default(), Vec::new());
        bytes.iter().for_each(|byte| _ = scan.take(*byte, &mut model));
        (scan, String::from_utf8_lossy(&model).into_owned())
    }

    #[test]
    fn line_drawings_reach_the_model_as_what_they_show() {
        let (scan, model) = scanned(b"ab\x1b(0lqk\x1b(Bab \x1b)0\x0ex~\x0fx");
        assert_eq!(model, "ab┌─┐ab │·x");
        assert_eq!(scan.kept.sequences(), "\x1b)0");
    }

    #[test]
    fn modes_margins_and_titles_are_kept_until_a_reset() {
        let bytes = b"\x1b[?1004;7l\x1b[?1004h\x1b[4h\x1b[5;20r\x1b]0;caf\xc3\xa9\x07";
        let (mut scan, model) = scanned(bytes);
        assert_eq!(scan.kept.sequences(), "\x1b[?7l\x1b[?1004h\x1b[4h\x1b]2;café\x07");
        assert_eq!(scan.kept.margins, Some((5, 20)));
        assert_eq!(model, "\x1b[?1004l\x1b[?7l\x1b[?1004h\x1b[4h\x1b[5;20r");
        let mut notes = |bytes: &[u8]| bytes.iter().filter_map(|b| scan.take(*b, &mut Vec::new())).count();
        assert_eq!((notes(b"\x1bc"), notes(b"\x1b[3J\x1b[2J")), (1, 1));
        assert_eq!(scan.kept, Kept::default());
    }

    #[test]
    fn it_is_known_where_a_character_and_a_sequence_end() {
        for (bytes, whole) in [
            (&b"abc"[..], true),
            (b"\xe7\x95", false),
            (b"\xe7\x95\x8c", true),
            (b"\xf0\x9f\x98", false),
            (b"\xf0\x9fx", true),
            (b"\x1b", false),
            (b"\x1b[31", false),
            (b"\x1b[31m", true),
            (b"\x1b]2;a", false),
            (b"\x1b]2;a\x1b", false),
            (b"\x1b]2;a\x1b\\", true),
            (b"\x1bPq#0", false),
            (b"\x1bPq#0\x18", true),
            (b"\x1b[3\x1b(", false),
            (b"\x1b[3\x1b(B", true),
        ] {
            assert_eq!(scanned(bytes).0.is_whole(), whole, "{bytes:?}");
        }
        let mut endless = b"\x1bP".to_vec();
        endless.resize(STRING_MAX + 10, b'x');
        assert!(scanned(&endless).0.is_whole(), "an endless string is given up");
    }

    #[test]
    fn answers_of_terminals_are_told_from_what_people_type() {
        for bytes in [
            &b"\x1b[?62;22c"[..],
            b"\x1b[>0;276;0c",
            b"\x1b[24;80R",
            b"\x1b[0n",
            b"\x1b[I",
            b"\x1b[O",
            b"\x1b]11;rgb:0000/0000/0000\x07",
            b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\\x1b[?1;2c",
            b"\x1bP1+r\x1b\\",
            b"\x1b[?2026;2$y",
        ] {
            assert!(is_report(bytes), "{bytes:?}");
        }
        for bytes in [
            &b""[..],
            b"a",
            b"\x1b",
            b"\x1b[A",
            b"\x1b[1;5C",
            b"\x1b[1;2R",
            b"\x1bOP",
            b"\x1b[200~x",
            b"\x1b[<0;1;2M",
        ] {
            assert!(!is_report(bytes), "{bytes:?}");
        }
    }
}

//! What a terminal shows and remembers, and the bytes that make an empty one show and remember the same.

use super::scan::{Note, Scan};
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::num::NonZeroU16;
use vt100::capture::{BasicFormattedCaptureState, RowContents};

/// Lines of scrollback kept: what a person scrolls back through.
const LINES_MAX: usize = 5_000;
/// Bytes that these lines may cost, so that a thousand terminals full of the longest lines cost a bounded sum.
const HISTORY_BYTES: usize = 256 << 10;
/// What a line costs besides its text.
const LINE_COST: usize = 40;
/// Bytes of a sequence that may wait for its end before they are shown as they are.
const TAIL_MAX: usize = 64 << 10;

/// A terminal's picture.
pub(super) struct Picture {
    model: vt100::Parser<History>,
    scan: Scan,
    /// What came after the last whole character or sequence.
    tail: Vec<u8>,
    fed: Vec<u8>,
}

/// The lines that have left the top of the screen.
#[derive(Clone, Default)]
struct History {
    lines: VecDeque<Line>,
    bytes: usize,
}

#[derive(Clone)]
struct Line {
    text: Box<str>,
    /// Whether the next line goes on with it.
    wrapped: bool,
}

impl Picture {
    /// An empty terminal.
    pub(super) fn new((columns, rows): (u16, u16)) -> Self {
        let model = vt100::Parser::new_with_callbacks(side(rows), side(columns), 0, History::default());
        Self { model, scan: Scan::default(), tail: Vec::new(), fed: Vec::new() }
    }

    /// Takes in what programs have written, and gives what visitors shall be shown of it: all of it, but a sequence or a
    /// character not before it is complete, so that a visitor who comes between its parts is not shown its rest.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = std::mem::take(&mut self.tail);
        let mut whole = 0;
        self.fed.clear();
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            let plain = self.scan.plain(rest);
            if plain > 0 {
                let run;
                (run, rest) = rest.split_at(plain);
                self.fed.extend_from_slice(run);
                shown.extend_from_slice(run);
                whole = shown.len();
                continue;
            }
            rest = after;
            let note = self.scan.take(*byte, &mut self.fed);
            shown.push(*byte);
            if self.scan.is_whole() {
                whole = shown.len();
            }
            if note == Some(Note::Forget) {
                // What came before it must be remembered first.
                self.feed();
                *self.model.callbacks_mut() = History::default();
            }
        }
        self.feed();
        if shown.len() - whole <= TAIL_MAX {
            self.tail = shown.split_off(whole);
        }
        shown
    }

    fn feed(&mut self) {
        self.model.process(&self.fed);
        self.fed.clear();
    }

    /// Whether a visitor may come in now: else the rest of a long sequence would be shown as text.
    pub(super) fn is_whole(&self) -> bool {
        self.scan.is_whole() || !self.tail.is_empty()
    }

    /// Another size. Lines are cut or filled up; programs that fill the screen draw it anew.
    pub(super) fn resize(&mut self, (columns, rows): (u16, u16)) {
        self.model.set_size(side(rows), side(columns));
        self.scan.resized();
        // The model keeps its margins where the terminals of visitors begin anew.
        self.keep_cursor(|model| model.process(b"\x1b[r"));
    }

    /// Does what moves the cursor, and moves it back.
    fn keep_cursor(&mut self, work: impl FnOnce(&mut vt100::Parser<History>)) {
        if self.scan.kept.origin {
            return;
        }
        let (row, column) = self.model.screen().cursor_position();
        work(&mut self.model);
        self.model.process(goto(row, column).as_bytes());
    }

    /// The bytes that make an empty terminal of the same size show and remember the same.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let screen = self.model.screen();
        // Whatever a terminal is in the middle of, it is no more.
        let mut out = String::from("\x18\x1bc");
        self.history(&mut out);
        if screen.alternate_screen() {
            let mut behind = copy(screen);
            behind.process(b"\x1b[?47l");
            out.push_str(&behind.screen().contents_formatted());
            // Switching over saves the cursor: it is to be where it was saved.
            behind.process(b"\x1b8");
            out.push_str(&placed(behind.screen()));
            out.push_str("\x1b[?1049h");
        }
        out.push_str(&screen.contents_formatted());
        let mut saved = copy(screen);
        saved.process(b"\x1b8");
        out.push_str(&placed(saved.screen()));
        out.push_str("\x1b7");
        if let Some((top, bottom)) = self.scan.kept.margins {
            let _ = write!(out, "\x1b[{top};{bottom}r");
        }
        out.push_str(&cursor(screen));
        if self.scan.kept.origin {
            let (row, column) = screen.cursor_position();
            let top = self.scan.kept.margins.map_or(0, |(top, _)| top - 1);
            out.push_str("\x1b[?6h");
            out.push_str(&goto(row.saturating_sub(top), column));
        }
        out.push_str(&screen.attributes_formatted());
        out.push_str(&screen.input_mode_formatted());
        out.push_str(&self.scan.kept.sequences());
        out.into_bytes()
    }

    /// The scrollback, so that its last line is just above the top of the screen.
    fn history(&self, out: &mut String) {
        let lines = &self.model.callbacks().lines;
        for (n, line) in lines.iter().enumerate() {
            out.push_str("\x1b[m");
            out.push_str(&line.text);
            // Whatever stands after it now need not be what it went on with.
            let goes_on = line.wrapped && lines.get(n + 1).is_some_and(|next| !next.text.is_empty());
            if !goes_on {
                out.push_str("\x1b[m\r\n");
            }
        }
        if !lines.is_empty() {
            let (rows, _) = self.model.screen().size();
            out.push_str(&"\n".repeat(usize::from(rows.get()) - 1));
        }
    }
}

/// A model of its own in the same state.
fn copy(screen: &vt100::Screen) -> vt100::Parser {
    let (rows, columns) = screen.size();
    let mut copy = vt100::Parser::new(rows, columns, 0);
    *copy.screen_mut() = screen.clone();
    copy
}

/// The cursor, even if it waits beyond the last column to go on in the next line, and how it writes.
fn placed(screen: &vt100::Screen) -> String {
    cursor(screen) + &screen.attributes_formatted()
}

/// The cursor. Neither margins nor what was saved before disturb it or are disturbed, as the model's own way would.
fn cursor(screen: &vt100::Screen) -> String {
    let (row, column) = screen.cursor_position();
    let last = screen.size().1.get() - 1;
    if column <= last {
        return goto(row, column);
    }
    // It waits there only after something was written in the last column: that is written again.
    let wide = screen.cell(row, last).is_some_and(vt100::Cell::is_wide_continuation);
    let at = last.saturating_sub(u16::from(wide));
    let written = screen.cell(row, at).is_some_and(vt100::Cell::has_contents);
    let text = screen.rows_formatted(at, last + 1 - at).nth(row.into()).filter(|_| written);
    goto(row, at) + "\x1b[m" + &text.unwrap_or_default()
}

fn goto(row: u16, column: u16) -> String {
    format!("\x1b[{};{}H", row.saturating_add(1), column.saturating_add(1))
}

const fn side(n: u16) -> NonZeroU16 {
    match NonZeroU16::new(n) {
        Some(n) => n,
        None => NonZeroU16::MIN,
    }
}

impl vt100::Callbacks for History {
    fn on_scroll(&mut self, contents: RowContents<'_>, alternate_screen: bool) {
        if alternate_screen {
            return;
        }
        let mut state = BasicFormattedCaptureState::new();
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = contents.write_formatted_basic(&mut text, &mut state);
        // What comes next tells whether this line has ended: then it begins with a new line.
        let mut first = First::default();
        let _ = contents.write_formatted_basic(&mut first, &mut state);
        self.bytes += text.len() + LINE_COST;
        self.lines.push_back(Line { text: text.into(), wrapped: first.0 != Some('\n') });
        while self.bytes > HISTORY_BYTES || self.lines.len() > LINES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.text.len() + LINE_COST;
        }
    }
}

/// The first character of what is written; the rest is refused.
#[derive(Default)]
struct First(Option<char>);

impl fmt::Write for First {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.or_else(|| text.chars().next());
        if self.0.is_some() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;

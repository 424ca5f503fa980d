//! Results: tables for people, JSON for programs. Results go to stdout, everything else to stderr.

use crate::error::{CliError, Exit};
use crate::plain;
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// The form of a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON document, with units in the names of its keys
    Json,
}

/// Whether what is no result is JSON as well.
static JSON: AtomicBool = AtomicBool::new(false);

/// Notes in which form this process answers, and whether its log was asked for.
pub(crate) fn begin(format: Format, log_wanted: bool) {
    JSON.store(format == Format::Json, Ordering::Relaxed);
    LOG_WANTED.store(log_wanted, Ordering::Relaxed);
}

/// Whether what is no result is JSON as well.
pub(crate) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Whether a person asked for the log.
static LOG_WANTED: AtomicBool = AtomicBool::new(false);
/// Whether standard error is another program's now.
static LENT: AtomicBool = AtomicBool::new(false);
/// Whether the terminal is in raw mode, where a new line does not begin at the left.
static RAW: AtomicBool = AtomicBool::new(false);

/// Standard error is a program's in a workspace, until this is dropped: the log is silent unless it was asked for.
pub(crate) struct Lent(());

impl Lent {
    pub(crate) fn begin() -> Self {
        LENT.store(true, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        LENT.store(false, Ordering::Relaxed);
    }
}

/// The terminal is in raw mode from now on, or no longer.
pub(crate) fn raw(is_raw: bool) {
    RAW.store(is_raw, Ordering::Relaxed);
}

/// Where the log goes: to standard error, while it is ours or the log was asked for.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if LENT.load(Ordering::Relaxed) && !LOG_WANTED.load(Ordering::Relaxed) {
            return Ok(bytes.len());
        }
        if RAW.load(Ordering::Relaxed) {
            let lines = String::from_utf8_lossy(bytes).replace('\n', "\r\n");
            return Notes.write_all(lines.as_bytes()).map(|()| bytes.len());
        }
        Notes.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Notes.flush()
    }
}

/// Writes a line of the result. A closed pipe ends the command quietly, as `head` expects; a full disk does not, since
/// what is there looks like a result.
pub(crate) fn line(text: impl AsRef<str>) {
    put(&plain::lines(text.as_ref()));
}

/// Writes a line of the result with a mark before it: `✔` in green, `✘` in red, plain where there is no colour.
pub(crate) fn marked(good: bool, text: &str) {
    put(&format!("{} {}", mark(good), plain::lines(text)));
}

fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    let error = unwritable(&error);
    note(said(&error));
    std::process::exit(error.exit as i32);
}

/// The error of a standard output that takes no more.
pub(crate) fn unwritable(error: &std::io::Error) -> CliError {
    CliError::new(Exit::Failed, "OUTPUT_UNWRITABLE", format!("can't write standard output: {error}"))
        .hint("make room where it goes, or send it elsewhere")
}

/// An error, in the form that this process answers in.
pub(crate) fn said(error: &CliError) -> String {
    let text = if is_json() { error.json() } else { error.text() };
    text.trim_end().to_owned()
}

/// Writes a line that is not the result.
pub(crate) fn note(text: impl AsRef<str>) {
    // In one piece, or the line below would be drawn between them.
    let _ = Notes.write_all(format!("{}\n", plain::lines(text.as_ref())).as_bytes());
}

/// The line that is drawn anew in place, below all others; empty if there is none.
static STATUS: Mutex<String> = Mutex::new(String::new());
/// Back to the line's beginning, which is then empty.
const CLEAR: &str = "\r\u{1b}[2K";

/// Whether a line can be drawn anew in place: on a terminal that knows how.
pub(crate) fn has_status() -> bool {
    std::io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|t| t != "dumb")
}

/// Draws the line anew. It is cut to the terminal's width, since a second line would stay.
pub(crate) fn status(text: &str) {
    let columns =
        rustix::termios::tcgetwinsize(std::io::stderr()).map_or(80, |size| usize::from(size.ws_col));
    let text: String = plain::line(text).chars().take(columns.max(2) - 1).collect();
    let mut status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = write!(std::io::stderr().lock(), "{CLEAR}{text}");
    *status = text;
}

/// Leaves the line as it is, and goes on below it.
pub(crate) fn end_status() {
    let mut status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::mem::take(&mut *status).is_empty() {
        let _ = writeln!(std::io::stderr().lock());
    }
}

/// Standard error, above the line that is drawn anew.
pub(crate) struct Notes;

impl Write for Notes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let status = STATUS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = std::io::stderr().lock();
        if status.is_empty() {
            return out.write(bytes);
        }
        out.write_all(CLEAR.as_bytes())?;
        out.write_all(bytes)?;
        if bytes.ends_with(b"\n") {
            out.write_all(status.as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Writes a warning, in the form that errors take.
pub(crate) fn warning(code: &str, message: &str) {
    if is_json() {
        note(serde_json::json!({ "warning": { "code": code, "message": message } }).to_string());
    } else {
        note(format!("warning: {message}"));
    }
}

/// Says what has happened, in the form that errors take.
pub(crate) fn news(code: &str, message: &str) {
    if is_json() {
        note(serde_json::json!({ "note": { "code": code, "message": message } }).to_string());
    } else {
        note(message);
    }
}

/// Writes a value as JSON.
pub(crate) fn json(value: &impl Serialize) {
    line(serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Says what was done: in words on standard error, or as a document where one was asked for.
pub(crate) fn done(document: &impl Serialize, words: impl AsRef<str>) {
    if is_json() { json(document) } else { note(words) }
}

/// A table: two spaces between columns, no lines.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let plain = |row: &Vec<String>| row.iter().map(|cell| plain::line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let format = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.trim_end().to_string()
    };
    let mut lines = vec![format(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| format(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// Whether what goes there may have colours: on a terminal, unless `NO_COLOR` says otherwise.
pub(crate) fn may_colour(there: &impl IsTerminal) -> bool {
    there.is_terminal()
        && warren_settings::wants_colours()
        && std::env::var("TERM").is_ok_and(|t| t != "dumb")
}

fn mark(good: bool) -> &'static str {
    match (good, may_colour(&std::io::stdout())) {
        (true, true) => "\u{1b}[32m✔\u{1b}[0m",
        (true, false) => "✔",
        (false, true) => "\u{1b}[31m✘\u{1b}[0m",
        (false, false) => "✘",
    }
}

/// A latency for people: `22ms`, below ten milliseconds `0.8ms`.
pub(crate) fn latency(micros: u64) -> String {
    if micros < 10_000 {
        format!("{}.{}ms", micros / 1_000, micros % 1_000 / 100)
    } else {
        format!("{}ms", (micros + 500) / 1_000)
    }
}

/// An amount of data for people: `340 KiB`, below ten of a unit `1.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let Some(at) = (0..UNITS.len()).rev().find(|&at| bytes >> (10 * (at + 1)) > 0) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10) >> (10 * (at + 1));
    match tenths {
        0..100 => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[at]),
        _ => format!("{} {}", tenths / 10, UNITS[at]),
    }
}

/// How long ago a moment of the API (RFC 3339, UTC) was, for people; the text itself if it is no such moment.
pub(crate) fn ago(moment: &str, now: SystemTime) -> String {
    let Some(then) = unix_seconds(moment) else { return moment.to_owned() };
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    match now.saturating_sub(then) {
        0..10 => "now".into(),
        s @ 10..60 => format!("{s}s ago"),
        s @ 60..3_600 => format!("{}m ago", s / 60),
        s @ 3_600..86_400 => format!("{}h ago", s / 3_600),
        s => format!("{}d ago", s / 86_400),
    }
}

/// Seconds since 1970 of `2026-11-25T23:10:28.123Z`.
fn unix_seconds(moment: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| moment.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !moment.ends_with('Z') || year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from 1 March of year 0 of the Gregorian calendar, whose leap day then comes last in the year.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let since_1970 = days.checked_sub(719_468)?;
    Some(since_1970 * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn tables_align_without_trailing_space() {
        let rows = vec![vec!["dev".into(), "connected".into()], vec!["très-long".into(), "-".into()]];
        insta::assert_snapshot!(table(&["NAME", "STATUS"], &rows), @r"
        NAME       STATUS
        dev        connected
        très-long  -
        ");
    }

    #[test]
    fn latencies_and_ages_read_well() {
        assert_eq!(latency(840), "0.8ms");
        assert_eq!(latency(9_990), "9.9ms");
        assert_eq!(latency(21_600), "22ms");
        let amounts = [0, 1_023, 1_024, 348_160, 1_258_291, 10 << 30, u64::MAX].map(bytes);
        assert_eq!(amounts, ["0 B", "1023 B", "1.0 KiB", "340 KiB", "1.1 MiB", "10 GiB", "16383 PiB"]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_112_228); // 2025-11-25T23:10:28Z
        assert_eq!(ago("2025-11-25T23:10:28.123Z", now), "now");
        assert_eq!(ago("2025-11-25T23:09:20Z", now), "1m ago");
        assert_eq!(ago("2025-11-22T20:00:00Z", now), "3d ago");
        assert_eq!(ago("2024-02-29T00:00:00Z", now), "635d ago");
        assert_eq!(ago("yesterday", now), "yesterday");
    }
}

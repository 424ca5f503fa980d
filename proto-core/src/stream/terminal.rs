//! A terminal that outlives its visitors: what follows [`Header::Terminal`](super::Header::Terminal), and what is told of
//! all of them.
//!
//! Both ways carry frames as in [`super::exec`]. The opener sends [`Ask`]s; the acceptor begins with [`Told::Ready`] or
//! [`Told::Problem`]. Then comes, as output, all that makes an empty terminal what the session's is (its scrollback, both
//! screens, the cursor, the modes), and after that what its programs write. A visitor who reads too slowly may miss some of
//! that: then the whole picture comes again, beginning with a reset (`ESC c`). [`Told::End`] comes last, after all output.
//!
//! Output has a window: the acceptor sends [`CREDIT`] bytes of it, and as many more as the opener says by [`Ask::Shown`]
//! have been shown. So nothing piles up between a program that writes much and a screen that shows little, whoever stands
//! between them, and Ctrl-C is soon seen to work. Input needs none: a terminal's program takes it or loses it.

use super::exec::{BadFrame, End, FRAME_MAX, HEAD_LEN, Head};
use crate::time::Duration;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Bytes of output that may be under way to a visitor's screen: 10 MB/s over 25 ms, 1 MB/s to the far end of the world.
pub const CREDIT: u32 = 256 << 10;
/// Bytes of output in one frame: small enough that a keystroke's echo does not wait behind much of another's.
pub const OUTPUT_MAX: usize = 32 << 10;
/// Characters of a session's name: a UUID's, and room for others' ways of writing one.
pub const NAME_MAX: usize = 64;
/// Characters of a command's name that are told.
pub const COMMAND_MAX: usize = 256;
/// Sessions in an answer; far more than an agent keeps.
pub const SESSIONS_MAX: usize = 4_096;
/// Bytes of an answer that an asker reads: what the caps above come to, several times.
pub const ANSWER_MAX: usize = 8 << 20;
/// Columns that a terminal may have: a wall of screens, and a bound for what its picture costs.
pub const COLUMNS_MAX: u16 = 1_000;
/// Rows that a terminal may have.
pub const ROWS_MAX: u16 = 500;

/// How long the opener may be silent; it says [`Ask::Alive`] several times within that. A visitor who is gone without a
/// word holds up nobody longer.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The pause between two signs of life.
pub const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Whether this is a name that a session may have.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// How a visitor finds the terminal.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ready {
    /// Whether it was made for this visitor.
    #[serde(default)]
    pub created: bool,
    /// The session as it is, this visitor counted in.
    pub session: Session,
}

/// A session.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub id: String,
    /// What runs there.
    #[serde(default)]
    pub command: String,
    /// When it began, in milliseconds of unix time.
    #[serde(default)]
    pub started_ms: i64,
    /// When a visitor last came, typed or left, in milliseconds of unix time.
    #[serde(default)]
    pub active_ms: i64,
    /// Its width in characters.
    #[serde(default)]
    pub columns: u16,
    /// Its height in characters.
    #[serde(default)]
    pub rows: u16,
    /// Who sees it now.
    #[serde(default)]
    pub viewers: u32,
    /// Whether its program has ended; the last screen is still there.
    #[serde(default)]
    pub ended: bool,
}

/// The answer to [`Header::Sessions`](super::Header::Sessions).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sessions {
    /// The oldest first.
    #[serde(default)]
    pub sessions: Vec<Session>,
}

/// The answer to [`Header::EndSession`](super::Header::EndSession).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ended {
    /// Whether there was one of that name.
    #[serde(default)]
    pub found: bool,
}

/// Why there is no terminal.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Problem {
    /// A code that programs may rely on: see [`code`].
    pub code: String,
    /// A sentence for a person.
    #[serde(default)]
    pub message: String,
}

/// The codes of [`Problem`].
pub mod code {
    /// The session's name will not do.
    pub const BAD_NAME: &str = "BAD_SESSION";
    /// The agent has as many sessions, or this one as many viewers, as there may be.
    pub const TOO_MANY: &str = "TOO_MANY_SESSIONS";
    /// Only watching was asked for, and there is nothing to watch.
    pub const NO_SESSION: &str = "NO_SESSION";
    /// The program could not be started.
    pub const NOT_STARTED: &str = "NOT_STARTED";
}

/// What the opener sends.
#[derive(Clone, PartialEq, Eq)]
pub enum Ask<'a> {
    /// What was typed or pasted.
    Input(&'a [u8]),
    /// The opener's window has another size now, in characters.
    Resize {
        /// Its width.
        columns: u16,
        /// Its height.
        rows: u16,
    },
    /// So many bytes of output more have been shown.
    Shown(u32),
    /// The opener is still there.
    Alive,
    /// A kind that this build does not know.
    Unknown,
}

/// What the acceptor sends.
#[derive(Clone, PartialEq, Eq)]
pub enum Told<'a> {
    /// The terminal is there.
    Ready(Ready),
    /// There is none, and no more will come.
    Problem(Problem),
    /// What is to be shown.
    Output(&'a [u8]),
    /// So many see it now.
    Viewers(u32),
    /// It has another size now, in characters.
    Resized {
        /// Its width.
        columns: u16,
        /// Its height.
        rows: u16,
    },
    /// Its program has ended, and all that it wrote has been sent.
    End(End),
    /// A kind that this build does not know.
    Unknown,
}

const INPUT: u8 = 0x03;
const ALIVE: u8 = 0x08;
const WINDOW: u8 = 0x11;
const SHOWN: u8 = 0x12;
const OUTPUT: u8 = 0x81;
const END: u8 = 0x84;
const READY: u8 = 0x91;
const PROBLEM: u8 = 0x92;
const VIEWERS: u8 = 0x93;
const RESIZED: u8 = 0x94;

impl<'a> Ask<'a> {
    /// The frame's bytes. What it holds must be at most [`FRAME_MAX`] long.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Input(bytes) => frame(INPUT, bytes),
            Self::Resize { columns, rows } => {
                frame(WINDOW, [columns.to_be_bytes(), rows.to_be_bytes()].as_flattened())
            }
            Self::Shown(more) => frame(SHOWN, &more.to_be_bytes()),
            Self::Alive | Self::Unknown => frame(ALIVE, &[]),
        }
    }

    /// The meaning of a frame.
    ///
    /// # Errors
    /// If it holds something else than its kind says.
    pub fn parse(kind: u8, held: &'a [u8]) -> Result<Self, BadFrame> {
        let malformed = BadFrame::Malformed(kind);
        Ok(match kind {
            INPUT => Self::Input(held),
            WINDOW => {
                let [a, b, c, d] = *held.first_chunk().ok_or(malformed)?;
                Self::Resize { columns: u16::from_be_bytes([a, b]), rows: u16::from_be_bytes([c, d]) }
            }
            SHOWN => Self::Shown(u32::from_be_bytes(*held.first_chunk().ok_or(malformed)?)),
            ALIVE => Self::Alive,
            _ => Self::Unknown,
        })
    }
}

impl<'a> Told<'a> {
    /// The frame's bytes. What it holds must be at most [`FRAME_MAX`] long.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ready(ready) => frame(READY, &json(ready)),
            Self::Problem(problem) => frame(PROBLEM, &json(problem)),
            Self::Output(bytes) => frame(OUTPUT, bytes),
            Self::Viewers(count) => frame(VIEWERS, &count.to_be_bytes()),
            Self::Resized { columns, rows } => {
                frame(RESIZED, [columns.to_be_bytes(), rows.to_be_bytes()].as_flattened())
            }
            Self::End(end) => frame(END, &json(end)),
            Self::Unknown => Vec::new(),
        }
    }

    /// The meaning of a frame.
    ///
    /// # Errors
    /// If it holds something else than its kind says.
    pub fn parse(kind: u8, held: &'a [u8]) -> Result<Self, BadFrame> {
        let malformed = BadFrame::Malformed(kind);
        Ok(match kind {
            READY => Self::Ready(serde_json::from_slice(held).map_err(|_| malformed)?),
            PROBLEM => Self::Problem(serde_json::from_slice(held).map_err(|_| malformed)?),
            OUTPUT => Self::Output(held),
            VIEWERS => Self::Viewers(u32::from_be_bytes(*held.first_chunk().ok_or(malformed)?)),
            RESIZED => {
                let [a, b, c, d] = *held.first_chunk().ok_or(malformed)?;
                Self::Resized { columns: u16::from_be_bytes([a, b]), rows: u16::from_be_bytes([c, d]) }
            }
            END => Self::End(serde_json::from_slice(held).map_err(|_| malformed)?),
            _ => Self::Unknown,
        })
    }
}

/// A size that a terminal may have, nearest to what was asked for; the usual one if nothing was.
#[must_use]
pub fn fitted(columns: u16, rows: u16) -> (u16, u16) {
    if columns == 0 || rows == 0 {
        return (80, 24);
    }
    (columns.min(COLUMNS_MAX), rows.min(ROWS_MAX))
}

fn frame(kind: u8, held: &[u8]) -> Vec<u8> {
    let held = held.get(..FRAME_MAX).unwrap_or(held);
    let mut out = Vec::with_capacity(HEAD_LEN + held.len());
    out.extend_from_slice(&Head { kind, length: held.len() }.encode());
    out.extend_from_slice(held);
    out
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // These types have only string keys and no failing serializers.
    serde_json::to_vec(value).unwrap_or_default()
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What is typed may be a password.
            Self::Input(bytes) => write!(f, "Input({} bytes)", bytes.len()),
            Self::Resize { columns, rows } => write!(f, "Resize({columns}x{rows})"),
            Self::Shown(more) => write!(f, "Shown({more})"),
            Self::Alive => f.write_str("Alive"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

impl fmt::Debug for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(ready) => write!(f, "Ready({ready:?})"),
            Self::Problem(problem) => write!(f, "Problem({problem:?})"),
            Self::Output(bytes) => write!(f, "Output({} bytes)", bytes.len()),
            Self::Viewers(count) => write!(f, "Viewers({count})"),
            Self::Resized { columns, rows } => write!(f, "Resized({columns}x{rows})"),
            Self::End(end) => write!(f, "End({end:?})"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sessions() -> impl Strategy<Value = Session> {
        let text = ("[a-z0-9-]{1,36}", ".*");
        (text, any::<(i64, i64)>(), any::<(u16, u16)>(), any::<u32>(), any::<bool>()).prop_map(
            |((id, command), (started_ms, active_ms), (columns, rows), viewers, ended)| Session {
                id,
                command,
                started_ms,
                active_ms,
                columns,
                rows,
                viewers,
                ended,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_told_reads_as_it_was_written(
            session in sessions(),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            (count, columns, rows, created) in any::<(u32, u16, u16, bool)>(),
        ) {
            let problem = Problem { code: code::TOO_MANY.into(), message: session.command.clone() };
            for told in [
                Told::Ready(Ready { created, session }),
                Told::Problem(problem),
                Told::Output(&bytes),
                Told::Viewers(count),
                Told::Resized { columns, rows },
                Told::End(End { status: 3, signal: Some("HUP".into()) }),
            ] {
                let frame = told.encode();
                let head = Head::decode(&frame).unwrap().unwrap();
                prop_assert_eq!(head.length, frame.len() - HEAD_LEN);
                prop_assert_eq!(Told::parse(head.kind, &frame[HEAD_LEN..]), Ok(told));
            }
        }

        #[test]
        fn hostile_frames_never_panic(kind in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Ask::parse(kind, &bytes), Told::parse(kind, &bytes));
        }

        #[test]
        fn any_size_becomes_one_that_can_be(columns in any::<u16>(), rows in any::<u16>()) {
            let (columns, rows) = fitted(columns, rows);
            prop_assert!((1..=COLUMNS_MAX).contains(&columns) && (1..=ROWS_MAX).contains(&rows));
        }

        #[test]
        fn what_is_asked_reads_as_it_was_written(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            (columns, rows, more) in any::<(u16, u16, u32)>(),
        ) {
            for ask in [Ask::Input(&bytes), Ask::Resize { columns, rows }, Ask::Shown(more), Ask::Alive] {
                let frame = ask.encode();
                let head = Head::decode(&frame).unwrap().unwrap();
                prop_assert_eq!(Ask::parse(head.kind, &frame[HEAD_LEN..]), Ok(ask));
                prop_assert_eq!(Told::parse(head.kind, &frame[HEAD_LEN..]), Ok(Told::Unknown));
            }
        }
    }

    #[test]
    fn names_are_short_and_plain() {
        for name in ["0198e5a4-7c1b-7def-8123-456789abcdef", "a", "A_9"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "../x", "a b", "ü", &"x".repeat(NAME_MAX + 1)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn newer_builds_are_understood() {
        let ready = br#"{"created":true,"session":{"id":"a","mood":"good"},"new":1}"#;
        let session = Session { id: "a".into(), ..Session::default() };
        assert_eq!(Told::parse(READY, ready), Ok(Told::Ready(Ready { created: true, session })));
        assert_eq!(Told::parse(0x70, b"?"), Ok(Told::Unknown));
    }
}

//! A program in the workspace, with its input, output and errors: what follows [`Header::Exec`](super::Header::Exec).
//!
//! Both ways carry frames: a kind (one byte), a length (u32, big-endian, at most [`FRAME_MAX`]) and that many bytes. The
//! opener's first flight says all that is needed to start: [`Ask::Command`], if it is not the login shell, then
//! [`Ask::Start`]. The acceptor ends with [`Told::End`], after all that the program wrote. Frames of a kind that this
//! build does not know are skipped.
//!
//! Input has a window of its own, so that a program that reads nothing never stands before a signal or a new size: the
//! opener may send [`INPUT_ROOM`] bytes of it, and as many more as it is told by [`Told::Room`]. Output needs none: who
//! does not read it lets the stream itself hold the program back.

use core::fmt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes before what a frame holds.
pub const HEAD_LEN: usize = 5;
/// Bytes that a frame may hold: the longest command that Linux takes (128 KiB), twice.
pub const FRAME_MAX: usize = 256 << 10;
/// Bytes of input or output that are put in one frame: what a pipe holds.
pub const DATA_MAX: usize = 64 << 10;
/// Bytes of input that may be on their way or unread at first: a gigabit per second over 32 ms.
pub const INPUT_ROOM: u32 = 4 << 20;

/// What a program is started with.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Start {
    /// Variables for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// The terminal that it gets, if it gets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
    /// If the opener's SSH agent may be used: what connections to it are to name in
    /// [`Header::Reverse`](super::Header::Reverse).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u32>,
}

/// A terminal.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Terminal {
    /// Its kind, as in `TERM`.
    #[serde(default)]
    pub kind: String,
    /// Its size.
    #[serde(default)]
    pub size: Size,
    /// How it behaves: opcodes of RFC 4254, section 8, with their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modes: Vec<(u8, u32)>,
}

/// The size of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Size {
    /// In characters.
    #[serde(default)]
    pub columns: u32,
    /// In characters.
    #[serde(default)]
    pub rows: u32,
    /// In pixels; 0 if it is not known.
    #[serde(default)]
    pub width: u32,
    /// In pixels; 0 if it is not known.
    #[serde(default)]
    pub height: u32,
}

/// How a program ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct End {
    /// Its status, as a shell counts: 128 and the number of the signal that ended it, 126 or 127 if it was not started.
    #[serde(default)]
    pub status: u8,
    /// The signal that ended it, without `SIG`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// One of the two streams that a program writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Output {
    /// Its standard output.
    Standard = 1,
    /// Its standard error.
    Errors = 2,
}

impl Output {
    /// The kind of the frames that carry it.
    #[must_use]
    pub const fn kind(self) -> u8 {
        match self {
            Self::Standard => OUTPUT,
            Self::Errors => ERRORS,
        }
    }
}

/// What the opener sends.
#[derive(Clone, PartialEq, Eq)]
pub enum Ask<'a> {
    /// A command for the user's shell. Without it, it is the shell itself, as a login.
    Command(&'a [u8]),
    /// All is said: start it.
    Start(Start),
    /// Input.
    Input(&'a [u8]),
    /// There is no more input.
    InputEnd,
    /// The terminal has another size now.
    Resize(Size),
    /// A signal for the program, by its name without `SIG`.
    Signal(&'a str),
    /// Nobody reads this output any more.
    Unwanted(Output),
    /// The opener is still there.
    Alive,
    /// A kind that this build does not know.
    Unknown,
}

/// What the acceptor sends.
#[derive(Clone, PartialEq, Eq)]
pub enum Told<'a> {
    /// What the program wrote to its standard output, or to its terminal.
    Output(&'a [u8]),
    /// What it wrote to its standard error.
    Errors(&'a [u8]),
    /// So many bytes of input more may be sent.
    Room(u32),
    /// It has ended, and all that it wrote has been sent.
    End(End),
    /// A kind that this build does not know.
    Unknown,
}

/// A frame that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadFrame {
    /// Longer than [`FRAME_MAX`].
    #[error("a frame has {0} bytes, more than the {FRAME_MAX} allowed")]
    TooLong(usize),
    /// What it holds is not what its kind says.
    #[error("a frame of kind {0} holds something else")]
    Malformed(u8),
}

/// What stands before the bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What the bytes are.
    pub kind: u8,
    /// How many they are.
    pub length: usize,
}

impl Head {
    /// The head as it is sent. No length is beyond [`FRAME_MAX`].
    #[must_use]
    pub fn encode(self) -> [u8; HEAD_LEN] {
        let [a, b, c, d] = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        [self.kind, a, b, c, d]
    }

    /// Reads the head at the front of `bytes`; none if more are needed.
    ///
    /// # Errors
    /// If no frame is as long. More bytes will not help.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let Some(([kind, length @ ..], _)) = bytes.split_first_chunk::<HEAD_LEN>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > FRAME_MAX {
            return Err(BadFrame::TooLong(length));
        }
        Ok(Some(Self { kind: *kind, length }))
    }
}

const COMMAND: u8 = 0x01;
const START: u8 = 0x02;
const INPUT: u8 = 0x03;
const INPUT_END: u8 = 0x04;
const RESIZE: u8 = 0x05;
const SIGNAL: u8 = 0x06;
const UNWANTED: u8 = 0x07;
const ALIVE: u8 = 0x08;
const OUTPUT: u8 = 0x81;
const ERRORS: u8 = 0x82;
const ROOM: u8 = 0x83;
const END: u8 = 0x84;

impl<'a> Ask<'a> {
    /// The frame's bytes. What it holds must be at most [`FRAME_MAX`] long.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Command(text) => frame(COMMAND, text),
            Self::Start(start) => frame(START, &json(start)),
            Self::Input(bytes) => frame(INPUT, bytes),
            Self::InputEnd => frame(INPUT_END, &[]),
            Self::Resize(Size { columns, rows, width, height }) => {
                let fields = [columns, rows, width, height].map(|field| field.to_be_bytes());
                frame(RESIZE, fields.as_flattened())
            }
            Self::Signal(name) => frame(SIGNAL, name.as_bytes()),
            Self::Unwanted(output) => frame(UNWANTED, &[*output as u8]),
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
            COMMAND => Self::Command(held),
            START => Self::Start(serde_json::from_slice(held).map_err(|_| malformed)?),
            INPUT => Self::Input(held),
            INPUT_END => Self::InputEnd,
            RESIZE => {
                let (fields, _) = held.as_chunks::<4>();
                let [columns, rows, width, height] = *fields.first_chunk::<4>().ok_or(malformed)?;
                let [columns, rows, width, height] = [columns, rows, width, height].map(u32::from_be_bytes);
                Self::Resize(Size { columns, rows, width, height })
            }
            SIGNAL => Self::Signal(core::str::from_utf8(held).map_err(|_| malformed)?),
            UNWANTED => match held {
                [1, ..] => Self::Unwanted(Output::Standard),
                [2, ..] => Self::Unwanted(Output::Errors),
                _ => return Err(malformed),
            },
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
            Self::Output(bytes) => frame(OUTPUT, bytes),
            Self::Errors(bytes) => frame(ERRORS, bytes),
            Self::Room(more) => frame(ROOM, &more.to_be_bytes()),
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
            OUTPUT => Self::Output(held),
            ERRORS => Self::Errors(held),
            ROOM => Self::Room(u32::from_be_bytes(*held.first_chunk().ok_or(malformed)?)),
            END => Self::End(serde_json::from_slice(held).map_err(|_| malformed)?),
            _ => Self::Unknown,
        })
    }
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
            Self::Command(text) => write!(f, "Command({} bytes)", text.len()),
            // Variables may hold secrets.
            Self::Start(start) => write!(f, "Start({} variables)", start.variables.len()),
            Self::Input(bytes) => write!(f, "Input({} bytes)", bytes.len()),
            Self::InputEnd => f.write_str("InputEnd"),
            Self::Resize(size) => write!(f, "Resize({size:?})"),
            Self::Signal(name) => write!(f, "Signal({name})"),
            Self::Unwanted(output) => write!(f, "Unwanted({output:?})"),
            Self::Alive => f.write_str("Alive"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

impl fmt::Debug for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(bytes) => write!(f, "Output({} bytes)", bytes.len()),
            Self::Errors(bytes) => write!(f, "Errors({} bytes)", bytes.len()),
            Self::Room(more) => write!(f, "Room({more})"),
            Self::End(end) => write!(f, "End({end:?})"),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes() -> impl Strategy<Value = Size> {
        (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>())
            .prop_map(|(columns, rows, width, height)| Size { columns, rows, width, height })
    }

    fn starts() -> impl Strategy<Value = Start> {
        let modes = prop::collection::vec((any::<u8>(), any::<u32>()), 0..60);
        let terminal = (".*", sizes(), modes).prop_map(|(kind, size, modes)| Terminal { kind, size, modes });
        let variables = prop::collection::btree_map(".*", ".*", 0..5);
        (variables, prop::option::of(terminal), any::<Option<u32>>())
            .prop_map(|(variables, terminal, keys)| Start { variables, terminal, keys })
    }

    /// A frame's kind and what it holds.
    fn taken_apart(frame: &[u8]) -> (u8, &[u8]) {
        let head = Head::decode(frame).unwrap().unwrap();
        let held = &frame[HEAD_LEN..];
        assert_eq!(head.length, held.len());
        (head.kind, held)
    }

    proptest! {
        #[test]
        fn what_is_asked_reads_as_it_was_written(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            name in ".*",
            start in starts(),
            size in sizes(),
        ) {
            for ask in [
                Ask::Command(&bytes),
                Ask::Start(start),
                Ask::Input(&bytes),
                Ask::InputEnd,
                Ask::Resize(size),
                Ask::Signal(&name),
                Ask::Unwanted(Output::Standard),
                Ask::Unwanted(Output::Errors),
                Ask::Alive,
            ] {
                let frame = ask.encode();
                let (kind, held) = taken_apart(&frame);
                prop_assert_eq!(Ask::parse(kind, held), Ok(ask.clone()));
                prop_assert_eq!(Told::parse(kind, held), Ok(Told::Unknown), "the other way knows none of them");
            }
        }

        #[test]
        fn what_is_told_reads_as_it_was_written(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            more in any::<u32>(),
            status in any::<u8>(),
            signal in prop::option::of("[A-Z0-9@a-z]{0,20}"),
        ) {
            let end = End { status, signal };
            for told in [Told::Output(&bytes), Told::Errors(&bytes), Told::Room(more), Told::End(end)] {
                let frame = told.encode();
                let (kind, held) = taken_apart(&frame);
                prop_assert_eq!(Told::parse(kind, held), Ok(told.clone()));
                prop_assert_eq!(Ask::parse(kind, held), Ok(Ask::Unknown), "the other way knows none of them");
            }
        }

        #[test]
        fn hostile_frames_never_panic(kind in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::decode(&bytes);
            let _ = Ask::parse(kind, &bytes);
            let _ = Told::parse(kind, &bytes);
        }
    }

    #[test]
    fn frames_longer_than_allowed_are_no_frames() {
        assert_eq!(Head::decode(&[3, 0, 4, 0, 1]), Err(BadFrame::TooLong(FRAME_MAX + 1)));
        assert_eq!(Head::decode(&[3, 0, 4, 0, 0]), Ok(Some(Head { kind: 3, length: FRAME_MAX })));
        assert_eq!(Head::decode(&[3, 0, 4, 0]), Ok(None));
        assert_eq!(Ask::Input(&vec![0; FRAME_MAX + 1]).encode().len(), HEAD_LEN + FRAME_MAX);
    }

    #[test]
    fn older_and_newer_builds_are_understood() {
        assert_eq!(Ask::parse(START, b"{\"colour\":\"red\"}"), Ok(Ask::Start(Start::default())));
        assert_eq!(
            Told::parse(END, b"{\"status\":7,\"new\":[]}")
                .map(|t| matches!(t, Told::End(e) if e.status == 7)),
            Ok(true)
        );
        assert_eq!(Ask::parse(0x70, b"?"), Ok(Ask::Unknown));
        assert_eq!(Ask::parse(UNWANTED, &[3]), Err(BadFrame::Malformed(UNWANTED)));
        assert_eq!(Ask::parse(RESIZE, &[0; 15]), Err(BadFrame::Malformed(RESIZE)));
    }
}

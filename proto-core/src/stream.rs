//! Streams inside a tunnel: what each begins with, and how the pieces of one are put in order.
//!
//! A stream begins with a header that says what it is for: a length (u16, big-endian) and that many bytes of
//! JSON, `{"service": "tcp", ...}`. What follows is the service's own. Unknown fields are ignored; an unknown
//! service is answered by a reset with [`CODE_UNKNOWN_SERVICE`].

use crate::limits::STREAM_HEADER_MAX;
use core::net::{IpAddr, SocketAddr};
use serde::{Deserialize, Serialize};

pub mod exec;
pub mod ports;
pub mod reassembly;
pub mod report;
pub mod terminal;
pub mod udp;

/// Reset or stop code: nothing special, the stream is not wanted any more.
pub const CODE_CANCELLED: u32 = 0;
/// Reset code: the header is malformed or longer than [`STREAM_HEADER_MAX`].
pub const CODE_BAD_HEADER: u32 = 1;
/// Reset code: this node does not offer the service.
pub const CODE_UNKNOWN_SERVICE: u32 = 2;
/// Reset code: what lies behind the service (a TCP connection, for example) was reset or refused.
pub const CODE_REFUSED: u32 = 3;
/// Stop code: the stream's pieces arrive in a way that cannot be kept in order within bounds.
pub const CODE_TOO_FRAGMENTED: u32 = 4;

/// What a stream is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "service", rename_all = "snake_case")]
pub enum Header {
    /// Every byte comes back.
    Ping,
    /// Bulk data in one or both directions, to measure.
    Speedtest {
        /// Whether the opener sends; else the acceptor does.
        #[serde(default)]
        upload: bool,
        /// For how long the sender sends, in milliseconds; 0: until the opener ends the stream.
        #[serde(default)]
        duration_ms: u64,
        /// The acceptor of an upload is to tell each second what has come so far; else once, at the end. It counts for
        /// `duration_ms` from the first byte on, if that is not 0, and tells bytes and microseconds (u64, big-endian).
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        tell: bool,
    },
    /// A TCP connection to an address as seen from the acceptor. It answers with one byte, a [`TcpAnswer`].
    Tcp {
        /// Where to; an unspecified address means the acceptor's own host.
        to: SocketAddr,
    },
    /// The SSH protocol (RFC 4251), the acceptor being the server. Who the opener is was settled by the tunnel, so the
    /// server lets in whoever asks, by any method or none.
    Ssh {
        /// The workspace's name as the opener knows it, for the programs that run there; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        workspace: String,
    },
    /// A program of the acceptor's: see [`exec`].
    Exec {
        /// The workspace's name as the opener knows it, for the programs that run there; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        workspace: String,
    },
    /// A terminal that outlives its visitors: see [`terminal`]. It is joined if it exists, else made.
    Terminal {
        /// Its name, a UUID of the opener's choice.
        session: String,
        /// The opener's window, in characters.
        #[serde(default)]
        columns: u16,
        /// As above.
        #[serde(default)]
        rows: u16,
        /// Whether the opener only watches: it neither types nor decides the size.
        #[serde(default)]
        watch: bool,
        /// The workspace's name as the opener knows it, for the programs that run there; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        workspace: String,
    },
    /// Which terminals are there? Answered by a [`terminal::Sessions`] document.
    Sessions,
    /// Ends a terminal and its programs. Answered by a [`terminal::Ended`] document.
    EndSession {
        /// Its name.
        session: String,
    },
    /// Which TCP ports do programs listen on? Answered by a [`ports::Ports`] document.
    Ports,
    /// A connection to a Unix socket of the acceptor's host, answered like [`Header::Tcp`].
    Unix {
        /// The socket's path.
        path: String,
    },
    /// UDP to an address as seen from the acceptor: see [`udp`].
    Udp {
        /// Where to; an unspecified address means the acceptor's own host.
        to: SocketAddr,
        /// The number of the flow in [`udp::FlowTag`], another for each stream of this opener.
        flow: u32,
    },
    /// The acceptor listens for as long as this stream lasts, and opens a stream ([`Header::Reverse`]) for each
    /// connection. It answers with a [`ListenAnswer`].
    Listen {
        /// Where.
        at: ListenAt,
        /// What the connections' streams are to name.
        listener: u32,
    },
    /// A connection that came where [`Header::Listen`] asked, answered like [`Header::Tcp`].
    Reverse {
        /// As the listener's stream named it.
        listener: u32,
    },
    /// How is the acceptor? Answered by a [`report::Report`] document.
    Report,
    /// A service that this build does not know.
    #[serde(other)]
    Unknown,
}

/// Where to listen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenAt {
    /// A TCP port of a loopback address, of both if none is named.
    Port {
        /// The address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bind: Option<IpAddr>,
        /// The port; 0 for any that is free.
        port: u16,
    },
    /// A Unix socket.
    Path(String),
}

/// What became of [`Header::Listen`]: a length and JSON, as a header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum ListenAnswer {
    /// It listens.
    Listening {
        /// The addresses, or the path.
        #[serde(default)]
        at: Vec<String>,
        /// The port; 0 for a path.
        #[serde(default)]
        port: u16,
    },
    /// Another program listens there.
    InUse,
    /// The acceptor may not listen there.
    Forbidden,
    /// It cannot, for another reason.
    Failed {
        /// The reason, in words for a person.
        #[serde(default)]
        why: String,
    },
    /// An answer that this build does not know.
    #[serde(other)]
    Unknown,
}

impl ListenAnswer {
    /// The answer as it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads the answer off the front of a stream, as [`Header::decode`] does.
    ///
    /// # Errors
    /// If it is too long or not an answer.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeaderError> {
        decode(bytes)
    }
}

/// What became of a TCP connection that was asked for by [`Header::Tcp`]: the first byte that comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u8)]
pub enum TcpAnswer {
    /// It is there; what follows is its data.
    #[error("connected")]
    Connected = 0,
    /// Nobody listens there.
    #[error("the workspace refused it: nothing listens there")]
    Refused = 1,
    /// There is no way to that address.
    #[error("the workspace has no way to that address")]
    Unreachable = 2,
    /// Nobody answered.
    #[error("nobody answered the workspace there")]
    TimedOut = 3,
    /// Something else, or an answer that this build does not know.
    #[error("the workspace could not connect")]
    Failed = 4,
    /// There is no such Unix socket.
    #[error("the workspace has no such socket")]
    Missing = 5,
    /// The acceptor may not use the Unix socket.
    #[error("the workspace's agent may not use that socket")]
    Forbidden = 6,
}

impl TcpAnswer {
    /// The answer of this byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Connected,
            1 => Self::Refused,
            2 => Self::Unreachable,
            3 => Self::TimedOut,
            5 => Self::Missing,
            6 => Self::Forbidden,
            _ => Self::Failed,
        }
    }
}

/// Why a header could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Longer than [`STREAM_HEADER_MAX`].
    #[error("the stream header has {0} bytes, more than the {STREAM_HEADER_MAX} allowed")]
    TooLong(usize),
    /// Not the JSON expected.
    #[error("not a stream header: {0}")]
    Json(String),
}

impl Header {
    /// The header as a stream begins with it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads the header off the front of a stream: none if more bytes are needed, else the header and how many
    /// bytes it took.
    ///
    /// # Errors
    /// If it is too long or not a header. More bytes will not help.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeaderError> {
        decode(bytes)
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // These types have only string keys and no failing serializers, so this cannot fail, and they are short.
    let json = serde_json::to_vec(value).unwrap_or_default();
    let mut out = u16::try_from(json.len()).unwrap_or(0).to_be_bytes().to_vec();
    out.extend_from_slice(&json);
    out
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<Option<(T, usize)>, HeaderError> {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > STREAM_HEADER_MAX {
        return Err(HeaderError::TooLong(length));
    }
    let Some(json) = rest.get(..length) else { return Ok(None) };
    let value = serde_json::from_slice(json).map_err(|e| HeaderError::Json(e.to_string()))?;
    Ok(Some((value, 2 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_read_as_they_were_written_whatever_follows() {
        for header in [
            Header::Ping,
            Header::Speedtest { upload: true, duration_ms: 5_000, tell: true },
            Header::Tcp { to: "127.0.0.1:22".parse().unwrap() },
            Header::Ssh { workspace: "dev".into() },
            Header::Ssh { workspace: String::new() },
            Header::Exec { workspace: "dev".into() },
            Header::Terminal {
                session: "a".into(),
                columns: 80,
                rows: 24,
                watch: true,
                workspace: "dev".into(),
            },
            Header::Sessions,
            Header::EndSession { session: "a".into() },
            Header::Ports,
            Header::Unix { path: "/run/db.sock".into() },
            Header::Udp { to: "0.0.0.0:53".parse().unwrap(), flow: 7 },
            Header::Listen { at: ListenAt::Port { bind: None, port: 80 }, listener: 1 },
            Header::Listen { at: ListenAt::Path("/tmp/x".into()), listener: 2 },
            Header::Reverse { listener: 2 },
            Header::Report,
        ] {
            let mut bytes = header.encode();
            let length = bytes.len();
            assert_eq!(Header::decode(&bytes[..length - 1]), Ok(None));
            bytes.extend_from_slice(b"the service's own");
            assert_eq!(Header::decode(&bytes), Ok(Some((header, length))));
        }
    }

    #[test]
    fn unknown_services_and_fields_are_no_error() {
        let read = |json: &str| {
            let mut bytes = u16::try_from(json.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend_from_slice(json.as_bytes());
            Header::decode(&bytes).map(|read| read.map(|(header, _)| header))
        };
        assert_eq!(read(r#"{"service":"teleport","to":7}"#), Ok(Some(Header::Unknown)));
        assert_eq!(read(r#"{"service":"ping","new":true}"#), Ok(Some(Header::Ping)));
        assert_eq!(read(r#"{"service":"ssh"}"#), Ok(Some(Header::Ssh { workspace: String::new() })));
        assert!(matches!(read("[]"), Err(HeaderError::Json(_))));
        assert_eq!(Header::decode(&[0xff, 0xff]), Err(HeaderError::TooLong(0xffff)));
        let answer = br#"{"answer":"postponed"}"#;
        let bytes = [&[0, answer.len() as u8], &answer[..]].concat();
        assert_eq!(ListenAnswer::decode(&bytes), Ok(Some((ListenAnswer::Unknown, bytes.len()))));
    }

    #[test]
    fn answers_of_listeners_read_as_they_were_written() {
        for answer in [
            ListenAnswer::Listening { at: vec!["127.0.0.1:80".into()], port: 80 },
            ListenAnswer::InUse,
            ListenAnswer::Forbidden,
            ListenAnswer::Failed { why: "no such folder".into() },
        ] {
            let bytes = answer.encode();
            assert_eq!(ListenAnswer::decode(&bytes), Ok(Some((answer, bytes.len()))));
        }
    }

    proptest! {
        #[test]
        fn hostile_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::decode(&bytes);
        }
    }
}

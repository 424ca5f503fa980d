//! Streams and datagrams inside the tunnel: QUIC without cryptography of its own, since every packet of it is
//! sealed by WireGuard.

mod config;
mod controller;
mod flow;
mod link;
mod noop_crypto;
mod quic;

pub(crate) use config::{PAYLOAD_MAX, QuicConfig};
pub(crate) use link::Room;
pub(crate) use quic::{INNER_PORT, Mux, MuxEvent};

/// Why a stream did not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StreamError {
    /// Nothing now; an event tells when it is worth another try.
    #[error("not now")]
    Blocked,
    /// The node has no tunnel to this peer.
    #[error("there is no tunnel to this peer")]
    NoPeer,
    /// As many streams are open as the peer permits.
    #[error("too many streams are open to this peer")]
    TooMany,
    /// The peer abandoned its half, with this code.
    #[error("the peer reset the stream (code {0})")]
    Reset(u64),
    /// The peer reads no more of ours, with this code.
    #[error("the peer stopped reading the stream (code {0})")]
    Stopped(u64),
    /// The connection is over: the peer restarted, left, or broke the protocol.
    #[error("the tunnel's connection was lost")]
    Lost,
    /// This half was finished, reset, stopped or released before, or there is no such stream.
    #[error("the stream is closed")]
    Closed,
    /// More than one datagram can hold.
    #[error("the datagram is too long")]
    TooLong,
}

impl StreamError {
    /// The error that a read or a write of a stream failed with.
    #[must_use]
    pub fn of(error: &std::io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

//! DERP: the frames between a node and a relay (Tailscale's protocol, version 2).
//!
//! A frame is `type:u8 ‖ length:u32 ‖ payload[length]`, big-endian, the length without these five bytes. Frames
//! of unknown type are skipped, payloads longer than known are legal where the protocol says so.
//!
//! | to read | use |
//! | --- | --- |
//! | frames in a buffer of one's own (the hot path) | [`decode`], [`peek`] |
//! | a stream that comes in pieces (machines) | [`Decoder`] |
//! | the sealed greetings | [`ClientInfo`], [`ServerInfo`] |

mod decoder;
mod frame;
mod login;

pub use decoder::{Decoder, Frames};
pub use frame::{Frame, GoneReason, PresentFlags, forward_header, packet_header};
pub use login::{ClientInfo, LoginError, MeshKey, ServerInfo};

use crate::limits;

/// Bytes before a frame's payload.
pub const FRAME_HEADER_LEN: usize = 5;
/// The most bytes of a relayed packet.
pub const PACKET_MAX: usize = 65_536;
/// What a relay's greeting begins with: "DERP🔑".
pub const MAGIC: [u8; 8] = [0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91];
/// The protocol's version.
pub const VERSION: i64 = 2;
/// Bytes of a key in a frame.
const KEY_LEN: usize = 32;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// The relay's first word.
    ServerKey = 0x01,
    /// The node's first word.
    ClientInfo = 0x02,
    /// The relay's answer to it.
    ServerInfo = 0x03,
    /// A packet to relay.
    SendPacket = 0x04,
    /// A relayed packet.
    RecvPacket = 0x05,
    /// The relay lives.
    KeepAlive = 0x06,
    /// Whether this relay is the node's home.
    NotePreferred = 0x07,
    /// A peer is not, or no longer, at this relay.
    PeerGone = 0x08,
    /// A peer is at this relay (mesh).
    PeerPresent = 0x09,
    /// A packet from relay to relay (mesh).
    ForwardPacket = 0x0a,
    /// Asks for word of all peers (mesh).
    WatchConns = 0x10,
    /// Asks to throw a peer out (mesh).
    ClosePeer = 0x11,
    /// Asks for a pong.
    Ping = 0x12,
    /// The answer to a ping.
    Pong = 0x13,
    /// The relay tells of a problem with this connection.
    Health = 0x14,
    /// The relay is about to restart.
    Restarting = 0x15,
}

impl FrameKind {
    const ALL: [Self; 16] = [
        Self::ServerKey,
        Self::ClientInfo,
        Self::ServerInfo,
        Self::SendPacket,
        Self::RecvPacket,
        Self::KeepAlive,
        Self::NotePreferred,
        Self::PeerGone,
        Self::PeerPresent,
        Self::ForwardPacket,
        Self::WatchConns,
        Self::ClosePeer,
        Self::Ping,
        Self::Pong,
        Self::Health,
        Self::Restarting,
    ];

    /// The kind of this number, if it is known.
    #[must_use]
    pub fn from_u8(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The most bytes of payload that a frame of this kind may have; a longer one ends the connection.
    #[must_use]
    pub const fn payload_max(self) -> usize {
        match self {
            Self::ServerKey => 1_024,
            Self::ClientInfo => limits::DERP_CLIENT_INFO_MAX,
            Self::SendPacket | Self::RecvPacket => KEY_LEN + PACKET_MAX,
            Self::ForwardPacket => 2 * KEY_LEN + PACKET_MAX,
            Self::ServerInfo => limits::DERP_SERVER_INFO_MAX,
            Self::KeepAlive
            | Self::NotePreferred
            | Self::PeerGone
            | Self::PeerPresent
            | Self::WatchConns
            | Self::ClosePeer
            | Self::Ping
            | Self::Pong
            | Self::Health
            | Self::Restarting => limits::DERP_CONTROL_FRAME_MAX,
        }
    }
}

/// The first five bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The type's number, known or not.
    pub kind: u8,
    /// Bytes of the payload.
    pub payload: u32,
}

impl Header {
    /// Bytes of the whole frame.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        FRAME_HEADER_LEN + self.payload as usize
    }

    /// Whether the frame is of a known kind. The others are skipped without being kept, however long.
    #[must_use]
    pub fn is_known(&self) -> bool {
        FrameKind::from_u8(self.kind).is_some()
    }

    /// Checks the length against its kind's cap.
    ///
    /// # Errors
    /// [`DerpError::TooLong`].
    pub fn check(&self) -> Result<(), DerpError> {
        match FrameKind::from_u8(self.kind) {
            Some(kind) if self.payload as usize > kind.payload_max() => {
                Err(DerpError::TooLong { kind: self.kind, payload: self.payload })
            }
            _ => Ok(()),
        }
    }

    /// As [`Header::check`], at a relay: what only a relay sends may not be longer than what a node may send, so that
    /// thousands of hostile nodes cost less.
    ///
    /// # Errors
    /// [`DerpError::TooLong`].
    pub fn check_from_node(&self) -> Result<(), DerpError> {
        self.check()?;
        if self.is_known() && self.payload as usize > NODE_PAYLOAD_MAX {
            return Err(DerpError::TooLong { kind: self.kind, payload: self.payload });
        }
        Ok(())
    }
}

/// The most bytes of payload of a known frame that a node sends.
const NODE_PAYLOAD_MAX: usize = FrameKind::ForwardPacket.payload_max();

/// Why a stream cannot be DERP. The connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DerpError {
    /// A frame longer than its kind may be.
    #[error("a DERP frame of type {kind:#04x} announces {payload} bytes, more than such a frame may have")]
    TooLong {
        /// The type's number.
        kind: u8,
        /// The announced length.
        payload: u32,
    },
}

/// The header of the frame at the start of `bytes`, once its five bytes are there.
#[must_use]
pub fn peek(bytes: &[u8]) -> Option<Header> {
    let ([kind, length @ ..], _) = super::split::<FRAME_HEADER_LEN>(bytes)?;
    Some(Header { kind: *kind, payload: u32::from_be_bytes(*length) })
}

/// The frame at the start of `bytes` and the bytes it takes, or `None` until it is there whole. A frame of
/// unknown kind may be longer than any buffer: see [`peek`] and [`Header::is_known`].
///
/// # Errors
/// If the frame is longer than its kind may be.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, DerpError> {
    let Some(header) = peek(bytes) else { return Ok(None) };
    header.check()?;
    let Some(payload) = bytes.get(FRAME_HEADER_LEN..header.frame_len()) else { return Ok(None) };
    Ok(Some((Frame::parse(header.kind, payload), header.frame_len())))
}

#[cfg(test)]
mod tests;

//! The frames themselves.

use super::{FRAME_HEADER_LEN, FrameKind, KEY_LEN, MAGIC};
use crate::key::NodePublic;
use crate::time::Duration;
use crate::wire::disco::{emit_address, parse_address};
use crate::wire::split;
use core::fmt;
use core::net::SocketAddr;

/// A frame, seen in the bytes it came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// The relay's first word.
    ServerKey {
        /// The relay's key, to seal the greeting for.
        key: NodePublic,
    },
    /// The node's first word.
    ClientInfo {
        /// Who the node is; proven by opening the box.
        key: NodePublic,
        /// A [`super::ClientInfo`], sealed.
        sealed: &'a [u8],
    },
    /// The relay's answer.
    ServerInfo {
        /// A [`super::ServerInfo`], sealed.
        sealed: &'a [u8],
    },
    /// A packet to relay.
    SendPacket {
        /// To whom.
        to: NodePublic,
        /// The packet, perhaps empty.
        bytes: &'a [u8],
    },
    /// A relayed packet.
    RecvPacket {
        /// From whom; the relay has seen the sender prove its key.
        from: NodePublic,
        /// The packet, perhaps empty.
        bytes: &'a [u8],
    },
    /// The relay lives. Not answered.
    KeepAlive,
    /// Whether this relay is the node's home.
    NotePreferred(bool),
    /// A peer is not, or no longer, at this relay.
    PeerGone {
        /// Who.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// A peer is at this relay (mesh).
    PeerPresent {
        /// Who.
        peer: NodePublic,
        /// From where it is connected; old relays do not say.
        address: Option<SocketAddr>,
        /// What kind of client it is.
        flags: PresentFlags,
    },
    /// A packet from relay to relay (mesh).
    ForwardPacket {
        /// Who sent it.
        from: NodePublic,
        /// For whom it is.
        to: NodePublic,
        /// The packet.
        bytes: &'a [u8],
    },
    /// Asks for word of all peers (mesh).
    WatchConns,
    /// Asks to throw a peer out (mesh).
    ClosePeer {
        /// Whom.
        peer: NodePublic,
    },
    /// Asks for a pong with the same eight bytes.
    Ping([u8; 8]),
    /// The answer to a ping.
    Pong([u8; 8]),
    /// A problem with this connection, in words; empty when it is over.
    Health {
        /// The words; cut where they stop being UTF-8.
        problem: &'a str,
    },
    /// The relay is about to restart.
    Restarting {
        /// Wait this long before connecting again.
        reconnect_in: Duration,
        /// Then try for this long.
        try_for: Duration,
    },
    /// A known kind with a payload that it cannot have. A client drops it, a relay closes the connection.
    Malformed {
        /// The kind.
        kind: FrameKind,
    },
    /// An unknown kind: skipped.
    Unknown {
        /// The type's number.
        kind: u8,
        /// The payload.
        bytes: &'a [u8],
    },
}

/// Why a peer is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GoneReason {
    /// It disconnected from this region.
    Disconnected,
    /// It was not here when a packet came for it.
    NotHere,
    /// A reason that this build does not know.
    Other(u8),
}

impl GoneReason {
    const fn from_u8(byte: u8) -> Self {
        match byte {
            0 => Self::Disconnected,
            1 => Self::NotHere,
            other => Self::Other(other),
        }
    }

    const fn to_u8(self) -> u8 {
        match self {
            Self::Disconnected => 0,
            Self::NotHere => 1,
            Self::Other(byte) => byte,
        }
    }
}

/// What kind of client a present peer is; several bits may be set, and none by an old relay.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct PresentFlags(pub u8);

impl PresentFlags {
    /// An ordinary node.
    pub const REGULAR: Self = Self(0x01);
    /// Another relay of the mesh.
    pub const MESH: Self = Self(0x02);
    /// A prober.
    pub const PROBER: Self = Self(0x04);
    /// A node that is not connected to the first node of its region.
    pub const NOT_IDEAL: Self = Self(0x08);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Debug for PresentFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentFlags({:#04x})", self.0)
    }
}

/// The first 37 bytes of a frame that sends (`SendPacket`) or delivers (`RecvPacket`) a packet of `len` bytes:
/// for the hot path, which writes the packet itself right after it.
#[must_use]
pub fn packet_header(kind: FrameKind, peer: &NodePublic, len: usize) -> [u8; FRAME_HEADER_LEN + KEY_LEN] {
    let mut out = [0; FRAME_HEADER_LEN + KEY_LEN];
    out[0] = kind as u8;
    out[1..5].copy_from_slice(&((KEY_LEN + len) as u32).to_be_bytes());
    out[5..].copy_from_slice(&peer.0);
    out
}

/// The first 69 bytes of a ForwardPacket frame with a packet of `len` bytes: for the hot path, as
/// [`packet_header`].
#[must_use]
pub fn forward_header(
    from: &NodePublic,
    to: &NodePublic,
    len: usize,
) -> [u8; FRAME_HEADER_LEN + 2 * KEY_LEN] {
    let mut out = [0; FRAME_HEADER_LEN + 2 * KEY_LEN];
    out[0] = FrameKind::ForwardPacket as u8;
    out[1..5].copy_from_slice(&((2 * KEY_LEN + len) as u32).to_be_bytes());
    out[5..5 + KEY_LEN].copy_from_slice(&from.0);
    out[5 + KEY_LEN..].copy_from_slice(&to.0);
    out
}

impl<'a> Frame<'a> {
    /// Reads the payload of a frame whose type has this number.
    #[must_use]
    pub fn parse(kind: u8, payload: &'a [u8]) -> Self {
        match FrameKind::from_u8(kind) {
            None => Self::Unknown { kind, bytes: payload },
            Some(kind) => Self::parse_known(kind, payload).unwrap_or(Self::Malformed { kind }),
        }
    }

    fn parse_known(kind: FrameKind, payload: &'a [u8]) -> Option<Self> {
        Some(match kind {
            FrameKind::ServerKey => {
                let (key, _later) = key(payload.strip_prefix(&MAGIC)?)?;
                Self::ServerKey { key }
            }
            FrameKind::ClientInfo => {
                let (key, sealed) = key(payload)?;
                Self::ClientInfo { key, sealed }
            }
            FrameKind::ServerInfo => Self::ServerInfo { sealed: payload },
            FrameKind::SendPacket => {
                let (to, bytes) = key(payload)?;
                Self::SendPacket { to, bytes }
            }
            FrameKind::RecvPacket => {
                let (from, bytes) = key(payload)?;
                Self::RecvPacket { from, bytes }
            }
            FrameKind::KeepAlive => Self::KeepAlive,
            FrameKind::NotePreferred => match payload {
                [byte] => Self::NotePreferred(*byte != 0),
                _ => return None,
            },
            FrameKind::PeerGone => {
                let (peer, rest) = key(payload)?;
                Self::PeerGone { peer, reason: GoneReason::from_u8(rest.first().copied().unwrap_or(0)) }
            }
            FrameKind::PeerPresent => Self::parse_present(payload)?,
            FrameKind::ForwardPacket => {
                let (from, rest) = key(payload)?;
                let (to, bytes) = key(rest)?;
                Self::ForwardPacket { from, to, bytes }
            }
            FrameKind::WatchConns => return payload.is_empty().then_some(Self::WatchConns),
            FrameKind::ClosePeer => match key(payload)? {
                (peer, []) => Self::ClosePeer { peer },
                _ => return None,
            },
            FrameKind::Ping if payload.len() > crate::limits::DERP_PING_MAX => return None,
            FrameKind::Ping => Self::Ping(*payload.first_chunk()?),
            FrameKind::Pong => Self::Pong(*payload.first_chunk()?),
            FrameKind::Health => Self::Health { problem: valid_utf8(payload) },
            FrameKind::Restarting => {
                let (wait, rest) = split::<4>(payload)?;
                let (tries, _later) = split::<4>(rest)?;
                Self::Restarting { reconnect_in: millis(*wait), try_for: millis(*tries) }
            }
        })
    }

    /// The key alone, or with address and port, or with flags too; more may follow.
    fn parse_present(payload: &'a [u8]) -> Option<Self> {
        let (peer, rest) = key(payload)?;
        let (address, flags) = match split::<18>(rest) {
            Some((address, rest)) => (Some(parse_address(address)), rest.first().copied().unwrap_or(0)),
            None => (None, 0),
        };
        Some(Self::PeerPresent { peer, address, flags: PresentFlags(flags) })
    }

    /// The number of its type.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        let kind = match self {
            Self::ServerKey { .. } => FrameKind::ServerKey,
            Self::ClientInfo { .. } => FrameKind::ClientInfo,
            Self::ServerInfo { .. } => FrameKind::ServerInfo,
            Self::SendPacket { .. } => FrameKind::SendPacket,
            Self::RecvPacket { .. } => FrameKind::RecvPacket,
            Self::KeepAlive => FrameKind::KeepAlive,
            Self::NotePreferred(_) => FrameKind::NotePreferred,
            Self::PeerGone { .. } => FrameKind::PeerGone,
            Self::PeerPresent { .. } => FrameKind::PeerPresent,
            Self::ForwardPacket { .. } => FrameKind::ForwardPacket,
            Self::WatchConns => FrameKind::WatchConns,
            Self::ClosePeer { .. } => FrameKind::ClosePeer,
            Self::Ping(_) => FrameKind::Ping,
            Self::Pong(_) => FrameKind::Pong,
            Self::Health { .. } => FrameKind::Health,
            Self::Restarting { .. } => FrameKind::Restarting,
            Self::Malformed { kind } => *kind,
            Self::Unknown { kind, .. } => return *kind,
        };
        kind as u8
    }

    /// Appends the frame, header and all. [`Frame::Malformed`] has no bytes and appends none.
    pub fn emit(&self, out: &mut Vec<u8>) {
        if let Self::Malformed { .. } = self {
            return;
        }
        let start = out.len();
        out.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        self.emit_payload(out);
        let length = (out.len() - start - FRAME_HEADER_LEN) as u32;
        out[start + 1..start + FRAME_HEADER_LEN].copy_from_slice(&length.to_be_bytes());
    }

    /// The frame's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.emit(&mut out);
        out
    }

    fn emit_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::ServerKey { key } => {
                out.extend_from_slice(&MAGIC);
                out.extend_from_slice(&key.0);
            }
            Self::ClientInfo { key, sealed: bytes }
            | Self::SendPacket { to: key, bytes }
            | Self::RecvPacket { from: key, bytes } => {
                out.extend_from_slice(&key.0);
                out.extend_from_slice(bytes);
            }
            Self::ServerInfo { sealed: bytes } | Self::Unknown { bytes, .. } => out.extend_from_slice(bytes),
            Self::KeepAlive | Self::WatchConns | Self::Malformed { .. } => {}
            Self::NotePreferred(preferred) => out.push(u8::from(*preferred)),
            Self::PeerGone { peer, reason } => {
                out.extend_from_slice(&peer.0);
                out.push(reason.to_u8());
            }
            Self::PeerPresent { peer, address, flags } => {
                out.extend_from_slice(&peer.0);
                if let Some(address) = address {
                    emit_address(*address, out);
                    out.push(flags.0);
                }
            }
            Self::ForwardPacket { from, to, bytes } => {
                out.extend_from_slice(&from.0);
                out.extend_from_slice(&to.0);
                out.extend_from_slice(bytes);
            }
            Self::ClosePeer { peer } => out.extend_from_slice(&peer.0),
            Self::Ping(data) | Self::Pong(data) => out.extend_from_slice(data),
            Self::Health { problem } => out.extend_from_slice(problem.as_bytes()),
            Self::Restarting { reconnect_in, try_for } => {
                for duration in [reconnect_in, try_for] {
                    let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
                    out.extend_from_slice(&millis.to_be_bytes());
                }
            }
        }
    }
}

fn key(bytes: &[u8]) -> Option<(NodePublic, &[u8])> {
    let (key, rest) = split::<KEY_LEN>(bytes)?;
    Some((NodePublic(*key), rest))
}

const fn millis(bytes: [u8; 4]) -> Duration {
    Duration::from_millis(u32::from_be_bytes(bytes) as u64)
}

fn valid_utf8(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => core::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(),
    }
}

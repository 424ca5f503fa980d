//! Disco: the sealed words by which two nodes find a path (Tailscale's protocol, byte for byte).
//!
//! An envelope is `magic[6] ‖ sender's disco key[32] ‖ nonce[24] ‖ tag[16] ‖ ciphertext`, a NaCl box between
//! the two disco keys; inside, `type ‖ version ‖ payload`. Longer payloads than known are legal, so that the
//! protocol can grow. Types from 0x80 up are Warren's own and go only to nodes that announced them.

use super::split;
use crate::key::{DiscoPublic, NONCE_LEN, NodePublic, SharedBox, TAG_LEN};
use crate::limits;
use crate::nat::predict::Shape;
use crate::seed::Rng;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod guess;
mod shape;

/// What every disco datagram begins with: "TS💬".
pub const MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];
/// Bytes before the nonce: the magic and the sender's key.
pub const HEADER_LEN: usize = MAGIC.len() + 32;
/// The least bytes that a relay or a queue takes for disco: header and nonce.
pub const ENVELOPE_MIN: usize = HEADER_LEN + NONCE_LEN;
/// The least bytes that can open: header, nonce, tag, type and version.
pub const SEALED_MIN: usize = ENVELOPE_MIN + TAG_LEN + 2;

/// The address that stands for "through the relay of the region whose number is the port" in a pong.
pub const RELAY_MAGIC_IP: Ipv4Addr = Ipv4Addr::new(127, 3, 3, 40);

const PING: u8 = 0x01;
const PONG: u8 = 0x02;
const CALL_ME_MAYBE: u8 = 0x03;
const OPENED: u8 = 0x80;
const SHAPE: u8 = 0x81;
const GUESS: u8 = 0x82;
/// Bytes of an address on the wire: IPv6, or IPv4 mapped into it, and a port.
const ADDRESS_LEN: usize = 18;

/// Whether a datagram on a UDP socket is for disco.
#[must_use]
pub fn looks_like(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_LEN && bytes.starts_with(&MAGIC)
}

/// Whether a relayed packet is disco rather than data: decides its queue and whether its sender is told that
/// the other side is not there.
#[must_use]
pub fn looks_like_relayed(bytes: &[u8]) -> bool {
    bytes.len() >= ENVELOPE_MIN && bytes.starts_with(&MAGIC)
}

/// Names one ping, so that its pong can be told from any other; random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub [u8; 12]);

impl TxId {
    /// A new one.
    #[must_use]
    pub fn generate(rng: &mut Rng) -> Self {
        Self(rng.bytes())
    }
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tx:{}", &crate::key::hex(&self.0)[..8])
    }
}

/// A disco message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// "Do you hear me on this path?"
    Ping {
        /// Comes back in the pong.
        tx: TxId,
        /// The sender's node key, a hint that nothing proves.
        node_key: Option<NodePublic>,
        /// Zero bytes after it, to probe a path's packet size. Without a node key at most 31 are sent, since 32
        /// would read as a key.
        padding: usize,
    },
    /// "Yes, and this is where you came from."
    Pong {
        /// The ping's.
        tx: TxId,
        /// The ping's source address as seen here; through a relay [`RELAY_MAGIC_IP`] and the region.
        source: SocketAddr,
    },
    /// "Please ping me at these addresses." Sent through a relay.
    CallMeMaybe {
        /// The addresses, the likeliest first; no more than [`limits::CALL_ME_MAYBE_MAX`] are read or sent.
        endpoints: Vec<SocketAddr>,
    },
    /// Warren's own, sent through a relay: "my low-TTL openers for this round are out, so your probes will
    /// meet an open door." Later fields may follow it and are ignored.
    Opened {
        /// The sender's round of punching; grows with each call-me-maybe.
        round: u32,
    },
    /// Warren's own, sent through a relay: what the sender's network is like, so that both choose the same way to meet.
    Shape(Shape),
    /// Warren's own, sent through a relay: a step of port guessing.
    Guess(GuessWord),
}

/// What two sides say to each other when ports are guessed; the one whose port is known better tries, the other opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuessWord {
    /// "Which port will you have towards me?"
    Ask,
    /// "This one, probably."
    Here {
        /// The port.
        port: u16,
    },
    /// "Many ports of my NAT let you in now: try them."
    Open {
        /// Those that my NAT has just taken, in their order.
        ports: Vec<u16>,
    },
}

/// Why a datagram is not a disco message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiscoError {
    /// It does not open with these keys.
    #[error("the box does not open with these keys")]
    Sealed,
    /// Shorter than its type needs.
    #[error("the message is cut short")]
    Short,
    /// A type that this build does not know.
    #[error("unknown disco type {0:#04x}")]
    UnknownType(u8),
}

/// A view of a sealed datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope<'a> {
    /// Who claims to have sent it. Only opening proves it.
    pub sender: DiscoPublic,
    /// `nonce ‖ tag ‖ ciphertext`.
    sealed: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// The envelope, if the bytes have the form of one.
    #[must_use]
    pub fn new_checked(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < SEALED_MIN {
            return None;
        }
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (sender, sealed) = split::<32>(rest)?;
        Some(Self { sender: DiscoPublic(*sender), sealed })
    }

    /// Opens and reads it.
    ///
    /// # Errors
    /// If it was not sealed by these keys, or holds no message known here.
    pub fn open(&self, shared: &SharedBox) -> Result<Message, DiscoError> {
        Message::parse(&shared.open(self.sealed).ok_or(DiscoError::Sealed)?)
    }
}

impl Message {
    /// Reads the plaintext of an envelope.
    ///
    /// # Errors
    /// If it is cut short or of an unknown type.
    pub fn parse(plain: &[u8]) -> Result<Self, DiscoError> {
        let ([kind, version], payload) = split::<2>(plain).ok_or(DiscoError::Short)?;
        match *kind {
            PING => parse_ping(payload).ok_or(DiscoError::Short),
            PONG => parse_pong(payload).ok_or(DiscoError::Short),
            CALL_ME_MAYBE => Ok(Self::CallMeMaybe { endpoints: parse_endpoints(*version, payload) }),
            OPENED => {
                let (round, _later) = split::<4>(payload).ok_or(DiscoError::Short)?;
                Ok(Self::Opened { round: u32::from_be_bytes(*round) })
            }
            SHAPE => shape::parse(payload).map(Self::Shape).ok_or(DiscoError::Short),
            GUESS => guess::parse(payload).map(Self::Guess).ok_or(DiscoError::Short),
            other => Err(DiscoError::UnknownType(other)),
        }
    }

    /// Appends the plaintext.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ping { tx, node_key, padding } => {
                out.extend_from_slice(&[PING, 0]);
                out.extend_from_slice(&tx.0);
                let padding = match node_key {
                    Some(key) => {
                        out.extend_from_slice(&key.0);
                        *padding
                    }
                    None => (*padding).min(31),
                };
                out.resize(out.len() + padding.min(limits::DISCO_PADDING_MAX), 0);
            }
            Self::Pong { tx, source } => {
                out.extend_from_slice(&[PONG, 0]);
                out.extend_from_slice(&tx.0);
                emit_address(*source, out);
            }
            Self::CallMeMaybe { endpoints } => {
                out.extend_from_slice(&[CALL_ME_MAYBE, 0]);
                for endpoint in endpoints.iter().take(limits::CALL_ME_MAYBE_MAX) {
                    emit_address(*endpoint, out);
                }
            }
            Self::Opened { round } => {
                out.extend_from_slice(&[OPENED, 0]);
                out.extend_from_slice(&round.to_be_bytes());
            }
            Self::Shape(shape) => {
                out.extend_from_slice(&[SHAPE, 0]);
                shape::emit(shape, out);
            }
            Self::Guess(word) => {
                out.extend_from_slice(&[GUESS, 0]);
                guess::emit(word, out);
            }
        }
    }

    /// The datagram: this message sealed by `from`'s key (whose secret half made `shared`).
    #[must_use]
    pub fn seal(&self, from: DiscoPublic, shared: &SharedBox, rng: &mut Rng) -> Vec<u8> {
        self.seal_with(from, shared, rng.bytes())
    }

    fn seal_with(&self, from: DiscoPublic, shared: &SharedBox, nonce: [u8; NONCE_LEN]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(64);
        self.emit(&mut plain);
        let mut out = Vec::with_capacity(ENVELOPE_MIN + TAG_LEN + plain.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&from.0);
        shared.seal_with(&plain, nonce, &mut out);
        out
    }
}

fn parse_ping(payload: &[u8]) -> Option<Message> {
    let (tx, rest) = split::<12>(payload)?;
    let (node_key, padding) = match split::<32>(rest) {
        Some((key, padding)) => (Some(NodePublic(*key)), padding.len()),
        None => (None, rest.len()),
    };
    Some(Message::Ping { tx: TxId(*tx), node_key, padding })
}

fn parse_pong(payload: &[u8]) -> Option<Message> {
    let (tx, rest) = split::<12>(payload)?;
    let (address, _later) = split::<ADDRESS_LEN>(rest)?;
    Some(Message::Pong { tx: TxId(*tx), source: parse_address(address) })
}

/// The list of a call-me-maybe. As in Tailscale, one of another version or of an odd length is empty.
fn parse_endpoints(version: u8, payload: &[u8]) -> Vec<SocketAddr> {
    let (addresses, rest) = payload.as_chunks::<ADDRESS_LEN>();
    if version != 0 || !rest.is_empty() {
        return Vec::new();
    }
    addresses.iter().take(limits::CALL_ME_MAYBE_MAX).map(parse_address).collect()
}

pub(super) fn parse_address(bytes: &[u8; ADDRESS_LEN]) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[..16]);
    let ip = Ipv6Addr::from(ip);
    let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
    SocketAddr::new(ip, u16::from_be_bytes([bytes[16], bytes[17]]))
}

pub(super) fn emit_address(address: SocketAddr, out: &mut Vec<u8>) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&address.port().to_be_bytes());
}

#[cfg(test)]
mod tests;

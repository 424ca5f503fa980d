//! STUN Binding, the part of RFC 8489 by which a node learns its own address from outside.
//!
//! Our requests carry `SOFTWARE tailnode` and a fingerprint, without which Tailscale's servers stay silent;
//! our server answers every Binding request, in at most 64 bytes, since some clients read no more. What RFC 5780 adds
//! has a room of its own.

use super::split;
use crate::seed::Rng;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod change;

pub use change::{CHANGE_REQUEST_LEN, Change, Place, Places, Reply, reply, request_changed};

/// Bytes of a header (RFC 8489, section 5).
pub const HEADER_LEN: usize = 20;
/// The magic cookie.
pub const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Bytes of our request: header, SOFTWARE and FINGERPRINT.
pub const REQUEST_LEN: usize = 40;
/// The most bytes of an answer of ours.
pub const ANSWER_MAX: usize = 64;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const MAPPED_ADDRESS: u16 = 0x0001;
const RESPONSE_ADDRESS: u16 = 0x0002;
const CHANGE_REQUEST: u16 = 0x0003;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const RESPONSE_PORT: u16 = 0x0027;
/// XOR-MAPPED-ADDRESS as some servers wrote it before RFC 5389.
const XOR_MAPPED_ADDRESS_OLD: u16 = 0x8020;
const SOFTWARE: u16 = 0x8022;
const FINGERPRINT: u16 = 0x8028;

const FAMILY_V4: u8 = 1;
const FAMILY_V6: u8 = 2;
/// What a fingerprint's checksum is combined with (RFC 8489, section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// What a request must name itself so that Tailscale's servers answer.
const SOFTWARE_NAME: &[u8; 8] = b"tailnode";

/// Whether a datagram on a node's UDP socket is a STUN Binding message. Asks for the cookie and a 1 in the
/// second byte, so that no WireGuard message is ever swallowed.
#[must_use]
pub fn looks_like(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER_LEN && bytes[0] & 0xc0 == 0 && bytes[1] == 0x01 && bytes[4..8] == COOKIE
}

/// Names one request; random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

impl TransactionId {
    /// A new one.
    #[must_use]
    pub fn generate(rng: &mut Rng) -> Self {
        Self(rng.bytes())
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stun:{}", &crate::key::hex(&self.0)[..8])
    }
}

/// Why a datagram is not the STUN message wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StunError {
    /// Cut short, or lengths that do not fit.
    #[error("the STUN message is cut short or its lengths do not fit")]
    Malformed,
    /// Without the magic cookie.
    #[error("not a STUN message: it lacks the magic cookie")]
    Cookie,
    /// Another class or method, our own request thrown back by a NAT for example.
    #[error("not a STUN Binding response but type {0:#06x}")]
    Type(u16),
    /// The server refused.
    #[error("the STUN server answered with error {0}")]
    Refused(u16),
    /// No address of a known family in it.
    #[error("the STUN response holds no address")]
    NoAddress,
}

/// A view of a STUN message whose lengths fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    attributes: &'a [u8],
}

/// An attribute of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attribute<'a> {
    /// Its type.
    pub kind: u16,
    /// Its value without padding.
    pub value: &'a [u8],
    /// Where in the message it begins.
    offset: usize,
}

impl<'a> Packet<'a> {
    /// The message, if its header and every attribute fit. Bytes beyond the header's length are left out.
    ///
    /// # Errors
    /// [`StunError::Malformed`].
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, StunError> {
        let (header, rest) = split::<HEADER_LEN>(bytes).ok_or(StunError::Malformed)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let attributes = rest.get(..length).ok_or(StunError::Malformed)?;
        if header[0] & 0xc0 != 0 {
            return Err(StunError::Malformed);
        }
        let packet = Self { header, attributes };
        let covered = packet
            .attributes()
            .last()
            .map_or(0, |last| last.offset - HEADER_LEN + 4 + padded(last.value.len()));
        // The last attribute's padding may be missing: some servers do not count it.
        if covered < length { Err(StunError::Malformed) } else { Ok(packet) }
    }

    /// Class and method.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Whether it has the magic cookie, as all but the oldest clients' messages have.
    #[must_use]
    pub fn has_cookie(&self) -> bool {
        self.header[4..8] == COOKIE
    }

    /// The transaction's name.
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.header[8..]);
        TransactionId(id)
    }

    /// The attributes in order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let all = self.attributes;
        let mut at = 0;
        core::iter::from_fn(move || {
            let (header, rest) = split::<4>(all.get(at..)?)?;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let value = rest.get(..length)?;
            let offset = HEADER_LEN + at;
            at += 4 + padded(length);
            Some(Attribute { kind: u16::from_be_bytes([header[0], header[1]]), value, offset })
        })
    }
}

/// Our Binding request.
#[must_use]
pub fn request(transaction: TransactionId) -> [u8; REQUEST_LEN] {
    let mut out = [0; REQUEST_LEN];
    out[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
    out[3] = (REQUEST_LEN - HEADER_LEN) as u8;
    out[4..8].copy_from_slice(&COOKIE);
    out[8..20].copy_from_slice(&transaction.0);
    out[20..22].copy_from_slice(&SOFTWARE.to_be_bytes());
    out[23] = SOFTWARE_NAME.len() as u8;
    out[24..32].copy_from_slice(SOFTWARE_NAME);
    let check = fingerprint(&out[..32]);
    out[32..34].copy_from_slice(&FINGERPRINT.to_be_bytes());
    out[35] = 4;
    out[36..].copy_from_slice(&check.to_be_bytes());
    out
}

/// What a Binding response says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Response {
    /// The request's.
    pub transaction: TransactionId,
    /// Our address as the server sees it.
    pub mapped: SocketAddr,
}

impl Response {
    /// Reads a Binding response. It does not tell whether we asked: match the transaction.
    ///
    /// # Errors
    /// If it is not one, or the server refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, StunError> {
        let packet = Packet::new_checked(bytes)?;
        if !packet.has_cookie() {
            return Err(StunError::Cookie);
        }
        match packet.kind() {
            BINDING_SUCCESS => {}
            BINDING_ERROR => return Err(StunError::Refused(error_code(&packet).unwrap_or(0))),
            other => return Err(StunError::Type(other)),
        }
        let xor = |kind| kind == XOR_MAPPED_ADDRESS || kind == XOR_MAPPED_ADDRESS_OLD;
        let modern =
            packet.attributes().filter(|a| xor(a.kind)).find_map(|a| address(a.value, Some(&packet)));
        let old =
            || packet.attributes().filter(|a| a.kind == MAPPED_ADDRESS).find_map(|a| address(a.value, None));
        let mapped = modern.or_else(old).ok_or(StunError::NoAddress)?;
        Ok(Self { transaction: packet.transaction(), mapped })
    }

    /// The response's bytes: XOR-MAPPED-ADDRESS and nothing else.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&COOKIE);
        id[4..].copy_from_slice(&self.transaction.0);
        let (kind, value) = mapped_attribute(&id, self.mapped, true);
        message(BINDING_SUCCESS, &id, &[(kind, &value)])
    }
}

/// [`reply`] of a server that has one socket.
#[must_use]
pub fn answer(bytes: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    reply(bytes, from, None).map(|reply| reply.bytes)
}

/// The attribute that tells somebody how they are seen.
fn mapped_attribute(id: &[u8; 16], mapped: SocketAddr, xor: bool) -> (u16, Vec<u8>) {
    let mut value = address_value(mapped);
    if xor {
        xor_address(&mut value, id);
    }
    (if xor { XOR_MAPPED_ADDRESS } else { MAPPED_ADDRESS }, value)
}

/// An address as an attribute's value, not xored.
fn address_value(address: SocketAddr) -> Vec<u8> {
    let ip = address.ip().to_canonical();
    let mut value = vec![0, if ip.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 }];
    value.extend_from_slice(&address.port().to_be_bytes());
    match ip {
        IpAddr::V4(ip) => value.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => value.extend_from_slice(&ip.octets()),
    }
    value
}

/// Error 420, "unknown attribute" (RFC 8489, section 6.3.1).
fn refusal(id: &[u8; 16], attribute: u16) -> Vec<u8> {
    message(
        BINDING_ERROR,
        id,
        &[(ERROR_CODE, &[0, 0, 4, 20]), (UNKNOWN_ATTRIBUTES, &attribute.to_be_bytes())],
    )
}

fn message(kind: u16, id: &[u8; 16], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ANSWER_MAX);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(id);
    for (kind, value) in attributes {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    let length = (out.len() - HEADER_LEN) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// The address in an attribute's value; xored if the packet whose identifier it is xored with is given.
fn address(value: &[u8], xored_in: Option<&Packet<'_>>) -> Option<SocketAddr> {
    let mut value = value.get(..value.len().min(20))?.to_vec();
    if let Some(packet) = xored_in {
        let (_, id) = packet.header.split_last_chunk::<16>()?;
        xor_address(&mut value, id);
    }
    let (head, ip) = split::<4>(&value)?;
    let port = u16::from_be_bytes([head[2], head[3]]);
    let ip = match head[1] {
        FAMILY_V4 => IpAddr::V4(Ipv4Addr::from(*ip.first_chunk::<4>()?)),
        FAMILY_V6 => IpAddr::V6(Ipv6Addr::from(*ip.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

/// Combines port and address with cookie and transaction (RFC 8489, section 14.2), both ways alike.
fn xor_address(value: &mut [u8], id: &[u8; 16]) {
    value.iter_mut().skip(2).take(2).zip(id).for_each(|(byte, mask)| *byte ^= mask);
    value.iter_mut().skip(4).zip(id).for_each(|(byte, mask)| *byte ^= mask);
}

fn error_code(packet: &Packet<'_>) -> Option<u16> {
    let value = packet.attributes().find(|a| a.kind == ERROR_CODE)?.value;
    let (head, _reason) = split::<4>(value)?;
    Some(u16::from(head[2] & 7) * 100 + u16::from(head[3]))
}

/// Whether the message has no fingerprint, or a right one.
fn fingerprint_holds(packet: &Packet<'_>, bytes: &[u8]) -> bool {
    packet.attributes().find(|a| a.kind == FINGERPRINT).is_none_or(|a| {
        let expected = bytes.get(..a.offset).map(fingerprint);
        expected.is_some_and(|sum| a.value == sum.to_be_bytes())
    })
}

fn fingerprint(bytes: &[u8]) -> u32 {
    crc32(bytes) ^ FINGERPRINT_XOR
}

/// CRC-32 (ISO 3309), bit by bit: 32 bytes a request do not want a table.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests;

//! RFC 5780: where a STUN server may answer from besides the address it was asked at, by which a client learns how
//! the NAT before it filters.
//!
//! A changed answer goes to whoever asked and nowhere else, one for one, and is no longer than a plain one may be: it
//! helps nobody to reach or flood a third party.

use super::{
    ANSWER_MAX, Attribute, BINDING_REQUEST, BINDING_SUCCESS, COOKIE, FINGERPRINT, HEADER_LEN, Packet,
};
use super::{CHANGE_REQUEST, RESPONSE_ADDRESS, RESPONSE_PORT, SOFTWARE, SOFTWARE_NAME, TransactionId};
use super::{address, address_value, fingerprint, fingerprint_holds, mapped_attribute, message, refusal};
use core::net::{IpAddr, SocketAddr};

/// Where the answer was sent from (RFC 5780, section 7.3).
pub(super) const RESPONSE_ORIGIN: u16 = 0x802b;
/// The server's other address (RFC 5780, section 7.4).
pub(super) const OTHER_ADDRESS: u16 = 0x802c;

/// The port of the server's other socket. RFC 5780 has no word for it where there is no second address. Ours, from the
/// end of the range that whoever does not know it passes over (RFC 8489, section 18.3).
pub(super) const SECOND_PORT: u16 = 0xff57;

const CHANGE_ADDRESS_FLAG: u8 = 4;
const CHANGE_PORT_FLAG: u8 = 2;

/// Bytes of our request for a changed answer.
pub const CHANGE_REQUEST_LEN: usize = 48;

/// What of its address a server is asked to change for the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Change {
    /// The address.
    pub address: bool,
    /// The port.
    pub port: bool,
}

impl Change {
    /// Both.
    pub const BOTH: Self = Self { address: true, port: true };
    /// The port alone.
    pub const PORT: Self = Self { address: false, port: true };

    /// What a CHANGE-REQUEST's value asks for; none if it is not one that we know.
    fn of(value: &[u8]) -> Option<Self> {
        let flags = match value {
            [0, 0, 0, flags] if flags & !(CHANGE_ADDRESS_FLAG | CHANGE_PORT_FLAG) == 0 => *flags,
            _ => return None,
        };
        Some(Self { address: flags & CHANGE_ADDRESS_FLAG != 0, port: flags & CHANGE_PORT_FLAG != 0 })
    }

    const fn flags(self) -> u8 {
        (if self.address { CHANGE_ADDRESS_FLAG } else { 0 }) | (if self.port { CHANGE_PORT_FLAG } else { 0 })
    }
}

/// Where a request was received, and from where else the server can answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The address that the request came to.
    pub origin: SocketAddr,
    /// Another address of this machine, if it may be used.
    pub other_ip: Option<IpAddr>,
    /// The port of its other socket, if it has one.
    pub other_port: Option<u16>,
}

impl Place {
    /// Where an answer with this change is sent from; none if this server cannot.
    #[must_use]
    pub fn changed(&self, change: Change) -> Option<SocketAddr> {
        let ip = if change.address { self.other_ip? } else { self.origin.ip() };
        let port = if change.port { self.other_port? } else { self.origin.port() };
        Some(SocketAddr::new(ip, port))
    }
}

/// A server's answer, and what of its address to send it from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The message.
    pub bytes: Vec<u8>,
    /// From where, as seen from where the request came to.
    pub change: Change,
}

/// Our server's answer to a datagram from `from` that came to `place`; none to what is not a Binding request or has
/// a wrong fingerprint. The answer goes to `from` alone.
///
/// A request without the cookie (RFC 3489) is answered with MAPPED-ADDRESS. One that wants the answer from an address
/// that we don't have, or sent to another one, is refused with error 420 instead of being answered from here, which
/// would make the client believe that its NAT lets strangers in. The client of RFC 3489's authors believes so of any
/// answer, an error too: without the cookie there is none.
#[must_use]
pub fn reply(bytes: &[u8], from: SocketAddr, place: Option<&Place>) -> Option<Reply> {
    let packet = Packet::new_checked(bytes).ok()?;
    if packet.kind() != BINDING_REQUEST || !fingerprint_holds(&packet, bytes) {
        return None;
    }
    let (_, id) = packet.header.split_last_chunk::<16>()?;
    let refuse = |attribute: u16| {
        let plain = |bytes| Reply { bytes, change: Change::default() };
        packet.has_cookie().then(|| plain(refusal(id, attribute)))
    };
    if let Some(elsewhere) = packet.attributes().find(|a| [RESPONSE_ADDRESS, RESPONSE_PORT].contains(&a.kind))
    {
        return refuse(elsewhere.kind);
    }
    let wanted = packet.attributes().find(|a| a.kind == CHANGE_REQUEST);
    let change = match wanted.map(|a| Change::of(a.value)) {
        None => Change::default(),
        Some(Some(change)) => change,
        Some(None) => return refuse(CHANGE_REQUEST),
    };
    let mut attributes = vec![mapped_attribute(id, from, packet.has_cookie())];
    match place {
        Some(place) => {
            let Some(origin) = place.changed(change) else { return refuse(CHANGE_REQUEST) };
            let room = packet.has_cookie() && from.ip().to_canonical().is_ipv4();
            if let Some(port) = place.other_port.filter(|_| room) {
                attributes.push((RESPONSE_ORIGIN, address_value(origin)));
                attributes.push(match place.changed(Change::BOTH) {
                    Some(other) => (OTHER_ADDRESS, address_value(other)),
                    None => (SECOND_PORT, [port.to_be_bytes(), [0; 2]].concat()),
                });
            }
        }
        None if change != Change::default() => return refuse(CHANGE_REQUEST),
        None => {}
    }
    let attributes: Vec<(u16, &[u8])> = attributes.iter().map(|(kind, value)| (*kind, &value[..])).collect();
    let bytes = message(BINDING_SUCCESS, id, &attributes);
    debug_assert!(bytes.len() <= ANSWER_MAX, "an answer of {} bytes", bytes.len());
    Some(Reply { bytes, change })
}

/// Our Binding request for an answer from elsewhere.
#[must_use]
pub fn request_changed(transaction: TransactionId, change: Change) -> [u8; CHANGE_REQUEST_LEN] {
    let mut out = [0; CHANGE_REQUEST_LEN];
    out[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
    out[3] = (CHANGE_REQUEST_LEN - HEADER_LEN) as u8;
    out[4..8].copy_from_slice(&COOKIE);
    out[8..20].copy_from_slice(&transaction.0);
    out[20..22].copy_from_slice(&SOFTWARE.to_be_bytes());
    out[23] = SOFTWARE_NAME.len() as u8;
    out[24..32].copy_from_slice(SOFTWARE_NAME);
    out[32..34].copy_from_slice(&CHANGE_REQUEST.to_be_bytes());
    out[35] = 4;
    out[39] = change.flags();
    let check = fingerprint(&out[..40]);
    out[40..42].copy_from_slice(&FINGERPRINT.to_be_bytes());
    out[43] = 4;
    out[44..].copy_from_slice(&check.to_be_bytes());
    out
}

/// What an answer tells of the server's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Places {
    /// Where it says that it sent the answer from: it knows CHANGE-REQUEST.
    pub origin: Option<SocketAddr>,
    /// Where it can be found besides, with another address and another port.
    pub other: Option<SocketAddr>,
    /// The port of its other socket.
    pub second_port: Option<u16>,
}

impl Places {
    /// Reads what a Binding response says; nothing from one that says nothing.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let Ok(packet) = Packet::new_checked(bytes) else { return Self::default() };
        let find = |kind: u16| packet.attributes().find(|a: &Attribute<'_>| a.kind == kind);
        let told = |kind: u16| find(kind).and_then(|a| address(a.value, None));
        let other = told(OTHER_ADDRESS);
        let second = find(SECOND_PORT).and_then(|a| Some(u16::from_be_bytes(*a.value.first_chunk::<2>()?)));
        let second_port = other.map(|other| other.port()).or(second).filter(|port| *port != 0);
        Self { origin: told(RESPONSE_ORIGIN), other, second_port }
    }
}

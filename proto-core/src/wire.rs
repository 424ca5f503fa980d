//! What bytes mean. Every reader here is total: hostile bytes give an error or nothing, never a panic.

pub mod api;
pub mod control;
pub mod derp;
pub mod disco;
pub mod stun;
pub mod verify;

/// What a datagram on a node's UDP socket is, by its looks alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A STUN Binding message with the magic cookie.
    Stun,
    /// A disco message.
    Disco,
    /// A WireGuard message.
    WireGuard,
    /// None of these.
    Unknown,
}

/// Bytes of a WireGuard handshake initiation, type 1 (whitepaper, 5.4.2).
const WG_INITIATION: usize = 148;
/// Bytes of a WireGuard handshake response, type 2 (5.4.3).
const WG_RESPONSE: usize = 92;
/// Bytes of a WireGuard cookie reply, type 3 (5.4.7).
const WG_COOKIE: usize = 64;
/// The least bytes of a WireGuard data message, type 4 (5.4.6): header and tag, a keepalive.
const WG_DATA_MIN: usize = 32;

/// Tells the protocols on one UDP socket apart.
///
/// They cannot be mistaken: STUN has its cookie at 4..8, where a WireGuard handshake has a random index, and
/// a 1 in its second byte (every message sent here is a Binding), where WireGuard has a reserved 0.
#[must_use]
pub fn classify(bytes: &[u8]) -> Kind {
    if stun::looks_like(bytes) {
        return Kind::Stun;
    }
    if disco::looks_like(bytes) {
        return Kind::Disco;
    }
    let wireguard = match bytes {
        [1, 0, 0, 0, ..] => bytes.len() == WG_INITIATION,
        [2, 0, 0, 0, ..] => bytes.len() == WG_RESPONSE,
        [3, 0, 0, 0, ..] => bytes.len() == WG_COOKIE,
        [4, 0, 0, 0, ..] => bytes.len() >= WG_DATA_MIN,
        _ => false,
    };
    if wireguard { Kind::WireGuard } else { Kind::Unknown }
}

/// The first `N` bytes and the rest.
fn split<const N: usize>(bytes: &[u8]) -> Option<(&[u8; N], &[u8])> {
    bytes.split_first_chunk()
}

#[cfg(test)]
mod tests;

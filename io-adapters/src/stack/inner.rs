//! The packet inside the tunnel: IPv6, UDP and then QUIC, so that ordinary WireGuard filtering still applies.
//!
//! The UDP checksum is zero, which RFC 6935 permits for tunnelled UDP whose integrity something else protects:
//! here the tunnel's AEAD does, and a checksum would cost 6 % of a core's throughput.

use crate::streams::INNER_PORT;
use core::net::Ipv6Addr;

/// Bytes before the QUIC packet.
pub(super) const HEADER_LEN: usize = IPV6_LEN + UDP_LEN;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;

/// The headers of a packet from `source` to `destination`, but for the lengths.
pub(super) fn template(source: Ipv6Addr, destination: Ipv6Addr) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[0] = 0x60;
    out[6] = UDP;
    out[7] = HOP_LIMIT;
    out[8..24].copy_from_slice(&source.octets());
    out[24..40].copy_from_slice(&destination.octets());
    out[40..42].copy_from_slice(&INNER_PORT.to_be_bytes());
    out[42..44].copy_from_slice(&INNER_PORT.to_be_bytes());
    out
}

/// Puts the lengths into a header for `payload` bytes of QUIC.
pub(super) fn set_len(header: &mut [u8], payload: usize) {
    let length = u16::try_from(UDP_LEN + payload).unwrap_or(u16::MAX).to_be_bytes();
    header[4..6].copy_from_slice(&length);
    header[44..46].copy_from_slice(&length);
}

/// Checks an inner packet against the header that `template` gives for its direction: the bytes of QUIC in it, or
/// why it is none of ours. The source is thereby known to be the peer that sealed it.
pub(super) fn check(packet: &[u8], expected: &[u8; HEADER_LEN]) -> Result<usize, &'static str> {
    let Some(header) = packet.first_chunk::<HEADER_LEN>() else { return Err("too short") };
    if header[0] >> 4 != 6 || header[6] != UDP {
        return Err("not UDP over IPv6");
    }
    if header[8..24] != expected[8..24] {
        return Err("the source is not the sealing peer");
    }
    if header[24..40] != expected[24..40] {
        return Err("the destination is not this node");
    }
    if header[40..44] != expected[40..44] {
        return Err("not the streams' port");
    }
    let payload = packet.len() - HEADER_LEN;
    let length = u16::try_from(UDP_LEN + payload).map_err(|_| "too long")?.to_be_bytes();
    if header[4..6] != length || header[44..46] != length {
        return Err("the lengths disagree");
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_matters_is_checked() {
        let (a, b) = (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
        let expected = template(a, b);
        let mut packet = expected.to_vec();
        packet.extend_from_slice(b"quic");
        set_len(&mut packet, 4);
        assert_eq!(check(&packet, &expected), Ok(4));
        for (at, why) in [
            (0, "not UDP over IPv6"),
            (6, "not UDP over IPv6"),
            (23, "the source is not the sealing peer"),
            (39, "the destination is not this node"),
            (41, "not the streams' port"),
            (43, "not the streams' port"),
            (5, "the lengths disagree"),
            (45, "the lengths disagree"),
        ] {
            let mut broken = packet.clone();
            broken[at] ^= 0x10;
            assert_eq!(check(&broken, &expected), Err(why), "byte {at}");
        }
        assert_eq!(check(&packet[..47], &expected), Err("too short"));
        assert_eq!(check(&packet[..50], &expected), Err("the lengths disagree"));
    }
}

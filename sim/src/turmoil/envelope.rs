//! What travels between an inside host and its gateway: a datagram with the addresses and the hop limit that
//! a real packet has in its headers.

use std::net::{IpAddr, SocketAddr};

/// A datagram with its headers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// Hops left.
    pub ttl: u8,
    /// Payload.
    pub bytes: Vec<u8>,
}

impl Envelope {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.ttl];
        put(&mut out, self.src);
        put(&mut out, self.dst);
        out.extend_from_slice(&self.bytes);
        out
    }

    /// Reads one; none if it is broken.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (ttl, rest) = bytes.split_first()?;
        let (src, rest) = take(rest)?;
        let (dst, rest) = take(rest)?;
        Some(Self { src, dst, ttl: *ttl, bytes: rest.to_vec() })
    }
}

/// The bytes of an address: family, address, port.
pub fn put(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Reads an address off the front.
#[must_use]
pub fn take(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (family, rest) = bytes.split_first()?;
    let (ip, rest) = match family {
        4 => rest.split_first_chunk::<4>().map(|(b, rest)| (IpAddr::from(*b), rest))?,
        6 => rest.split_first_chunk::<16>().map(|(b, rest)| (IpAddr::from(*b), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_read_as_they_were_written_and_broken_ones_not_at_all() {
        for (src, dst) in [("192.168.1.2:7", "[2001:db8::1]:65535"), ("[::1]:1", "203.0.113.9:3478")] {
            let envelope = Envelope {
                src: src.parse().unwrap(),
                dst: dst.parse().unwrap(),
                ttl: 5,
                bytes: vec![1, 2, 3],
            };
            let bytes = envelope.encode();
            assert_eq!(Envelope::decode(&bytes), Some(envelope));
            assert!((0..bytes.len() - 3).all(|len| Envelope::decode(&bytes[..len]).is_none()));
        }
    }
}

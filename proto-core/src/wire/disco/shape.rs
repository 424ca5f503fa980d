//! A [`Shape`] in bytes: `UDP ‖ mapping ‖ dependence ‖ allocation ‖ step or size[2] ‖ IPv4 address[4] ‖ port[2]`, and
//! what later versions add.
//!
//! UDP is 0 unknown, 1 passes, 2 blocked; mapping 0 unknown, 1 none, 2 independent, 3 varies; dependence 1 on the
//! address, 2 on the port too; allocation 1 preserving, 2 sequential, 3 from a block, 4 random. Other numbers read as
//! unknown. The address is zero if there is none.

use crate::nat::predict::Shape;
use crate::nat::{Allocation, Dependence, Mapping};
use crate::wire::split;
use core::net::Ipv4Addr;

pub(super) fn parse(payload: &[u8]) -> Option<Shape> {
    let ([udp, mapping, dependence, allocation], rest) = split::<4>(payload)?;
    let (number, rest) = split::<2>(rest)?;
    let (address, rest) = split::<4>(rest)?;
    let (port, _later) = split::<2>(rest)?;
    let number = u16::from_be_bytes(*number);
    Some(Shape {
        udp: match udp {
            1 => Some(true),
            2 => Some(false),
            _ => None,
        },
        mapping: match mapping {
            1 => Mapping::None,
            2 => Mapping::Independent,
            3 => Mapping::Varies,
            _ => Mapping::Unknown,
        },
        dependence: match dependence {
            1 => Some(Dependence::Address),
            2 => Some(Dependence::AddressAndPort),
            _ => None,
        },
        allocation: match allocation {
            1 => Some(Allocation::Preserving),
            2 => Some(Allocation::Sequential(number)),
            3 => Some(Allocation::Block(number)),
            4 => Some(Allocation::Random),
            _ => None,
        },
        address: Some(Ipv4Addr::from(*address)).filter(|ip| !ip.is_unspecified()),
        port: u16::from_be_bytes(*port),
    })
}

pub(super) fn emit(shape: &Shape, out: &mut Vec<u8>) {
    let (allocation, number) = match shape.allocation {
        None => (0, 0),
        Some(Allocation::Preserving) => (1, 0),
        Some(Allocation::Sequential(step)) => (2, step),
        Some(Allocation::Block(size)) => (3, size),
        Some(Allocation::Random) => (4, 0),
    };
    out.push(match shape.udp {
        None => 0,
        Some(true) => 1,
        Some(false) => 2,
    });
    out.push(match shape.mapping {
        Mapping::Unknown => 0,
        Mapping::None => 1,
        Mapping::Independent => 2,
        Mapping::Varies => 3,
    });
    out.push(match shape.dependence {
        None => 0,
        Some(Dependence::Address) => 1,
        Some(Dependence::AddressAndPort) => 2,
    });
    out.push(allocation);
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&shape.address.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    out.extend_from_slice(&shape.port.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_survives_the_wire_and_broken_ones_are_none() {
        let shape = Shape {
            udp: Some(true),
            mapping: Mapping::Varies,
            dependence: Some(Dependence::AddressAndPort),
            allocation: Some(Allocation::Sequential(2)),
            address: Some(Ipv4Addr::new(203, 0, 113, 9)),
            port: 65_535,
        };
        let mut bytes = Vec::new();
        emit(&shape, &mut bytes);
        assert_eq!(bytes, [1, 3, 2, 2, 0, 2, 203, 0, 113, 9, 255, 255]);
        assert_eq!(parse(&bytes), Some(shape));
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), None);
        }
        bytes.extend_from_slice(b"later");
        assert_eq!(parse(&bytes).map(|shape| shape.port), Some(65_535));
        assert_eq!(parse(&[9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0]), Some(Shape::default()));
    }
}

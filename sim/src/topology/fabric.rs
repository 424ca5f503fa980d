//! How a datagram travels: one segment at a time, rewritten by the NATs between them.

use super::{Fate, HostId, NatId, Owner, PortId, Topology};
use crate::nat::{Protocol, Verdict};
use proto_core::time::Time;
use std::net::SocketAddr;

/// The hop limit of ordinary packets.
pub const TTL: u8 = 64;

/// A datagram under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Its source address at this point.
    pub src: SocketAddr,
    /// Its destination at this point.
    pub dst: SocketAddr,
    /// Hops left.
    pub ttl: u8,
    /// The host that sent it, which no header tells.
    pub origin: HostId,
    /// The destination that this host wrote, before any NAT took another for it.
    pub meant: SocketAddr,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// A packet that will arrive at a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flight {
    /// When.
    pub at: Time,
    /// Where.
    pub port: PortId,
    /// What.
    pub packet: Packet,
}

/// What a packet that arrived at a port comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arrived {
    /// It is at its host.
    Host(HostId, Packet),
    /// A NAT has taken it on.
    Forwarded,
    /// It is gone.
    Gone(Fate),
}

impl Topology {
    /// A host sends a datagram from its port; `flights` takes what will arrive.
    ///
    /// # Errors
    /// If it is lost at once, and why.
    pub fn transmit(
        &mut self,
        now: Time,
        from: PortId,
        packet: Packet,
        flights: &mut Vec<Flight>,
    ) -> Result<(), Fate> {
        let port = self.next_port(from, packet.dst.ip()).ok_or(Fate::NoRoute)?;
        if self.is_partitioned(from, port) {
            return Err(Fate::Partition);
        }
        let hops = self.segments[self.ports[from.0].segment.0].hops;
        let ttl = packet.ttl.checked_sub(hops).filter(|ttl| *ttl > 0).ok_or(Fate::Ttl)?;
        let packet = Packet { ttl, ..packet };
        let len = packet.bytes.len();
        let up = self.ports[from.0].up.pass(now, len).map_err(Fate::Link)?;
        let first = self.descend(up.at, port, len);
        let second = up.again.and_then(|at| self.descend(at, port, len).ok());
        for at in second.into_iter().flatten().flatten() {
            flights.push(Flight { at, port, packet: packet.clone() });
        }
        let [at, again] = first?;
        if let Some(at) = again {
            flights.push(Flight { at, port, packet: packet.clone() });
        }
        if let Some(at) = at {
            flights.push(Flight { at, port, packet });
        }
        Ok(())
    }

    /// A packet arrives at a port.
    pub fn arrive(&mut self, now: Time, port: PortId, packet: Packet, flights: &mut Vec<Flight>) -> Arrived {
        match self.ports[port.0].owner {
            Owner::Host(host) if self.hosts[host.0].port == Some(port) => Arrived::Host(host, packet),
            Owner::Host(_) => Arrived::Gone(Fate::Deaf),
            Owner::Inside(nat) => self.go_out(now, nat, packet, flights),
            Owner::Outside(nat) => self.come_in(now, nat, packet, flights),
        }
    }

    fn descend(&mut self, now: Time, port: PortId, len: usize) -> Result<[Option<Time>; 2], Fate> {
        let down = self.ports[port.0].down.pass(now, len).map_err(Fate::Link)?;
        Ok([Some(down.at), down.again])
    }

    fn go_out(&mut self, now: Time, nat: NatId, packet: Packet, flights: &mut Vec<Flight>) -> Arrived {
        let Some(ttl) = packet.ttl.checked_sub(1).filter(|ttl| *ttl > 0) else {
            return Arrived::Gone(Fate::Ttl);
        };
        let b = &mut self.nats[nat.0];
        let (inside, outside) = (b.inside, b.outside);
        let (port, src, dst) = match b.nat.outbound(now, Protocol::Udp, (packet.src, packet.dst), true) {
            Verdict::Forward { src, dst } => (outside, src, dst),
            Verdict::Hairpin { src, dst } => (inside, src, dst),
            Verdict::Drop(reason) => return Arrived::Gone(Fate::Nat(reason)),
            Verdict::Reject => return Arrived::Gone(Fate::Rejected),
        };
        self.pass_on(now, port, Packet { src, dst, ttl, ..packet }, flights)
    }

    fn come_in(&mut self, now: Time, nat: NatId, packet: Packet, flights: &mut Vec<Flight>) -> Arrived {
        let Some(ttl) = packet.ttl.checked_sub(1).filter(|ttl| *ttl > 0) else {
            return Arrived::Gone(Fate::Ttl);
        };
        let b = &mut self.nats[nat.0];
        let inside = b.inside;
        match b.nat.inbound(now, Protocol::Udp, packet.src, packet.dst) {
            Verdict::Forward { src, dst } | Verdict::Hairpin { src, dst } => {
                self.pass_on(now, inside, Packet { src, dst, ttl, ..packet }, flights)
            }
            Verdict::Drop(reason) => Arrived::Gone(Fate::Nat(reason)),
            Verdict::Reject => Arrived::Gone(Fate::Rejected),
        }
    }

    fn pass_on(&mut self, now: Time, port: PortId, packet: Packet, flights: &mut Vec<Flight>) -> Arrived {
        match self.transmit(now, port, packet, flights) {
            Ok(()) => Arrived::Forwarded,
            Err(fate) => Arrived::Gone(fate),
        }
    }
}

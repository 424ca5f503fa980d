//! Datagrams: from a process onto the network, off it, and lost on the way.

use super::node::{LINK, PORT};
use super::queue::Event;
use super::server::STUN_PORT;
use super::{Process, World};
use crate::topology::fabric::{Packet, TTL};
use crate::topology::{Fate, HostId};
use crate::trace::Happening;
use proto_core::wire::{Kind, classify, stun};
use std::net::SocketAddr;

impl World {
    pub(super) fn launch(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            self.schedule(flight.at, Event::Flight(flight));
        }
    }

    pub(super) fn gone(&mut self, origin: HostId, kind: Kind, len: usize, fate: Fate) {
        *self.fates.entry(fate).or_insert(0) += 1;
        let numbers = [origin.0 as u64, fate_number(fate), kind_number(kind), len as u64];
        self.trace.note(self.now, Happening::Dropped, numbers, || {
            format!("{:?} of {} bytes from {origin:?}: {fate:?}", kind, len)
        });
    }

    pub(super) fn datagram(&mut self, id: HostId, mut packet: Packet) {
        let kind = classify(&packet.bytes);
        let numbers = [packet.origin.0 as u64, id.0 as u64, kind_number(kind), packet.bytes.len() as u64];
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::Arrived, numbers, || {
            format!("{name} from {}: {kind:?}, {} bytes", packet.src, packet.bytes.len())
        });
        self.checks.heard(self.now, id, packet.src, packet.origin);
        match &mut self.hosts[id.0].process {
            Process::Node(node) if packet.dst.port() == PORT => {
                let local = node.local(self.now);
                node.stack.datagram(LINK, packet.src, &mut packet.bytes, local);
                node.stack.end_of_batch(local);
                self.drive(id);
            }
            Process::Server(_) if packet.dst.port() == STUN_PORT => {
                if let Some(answer) = stun::answer(&packet.bytes, packet.src) {
                    self.send(id, (packet.dst, packet.src), &answer, None);
                    self.launch();
                }
            }
            _ => self.gone(packet.origin, kind, packet.bytes.len(), Fate::Deaf),
        }
    }

    pub(super) fn send(
        &mut self,
        id: HostId,
        (src, dst): (SocketAddr, SocketAddr),
        bytes: &[u8],
        ttl: Option<u8>,
    ) {
        let kind = classify(bytes);
        self.checks.sent(self.now, id, kind, bytes);
        let numbers = [id.0 as u64, u64::from(dst.port()), kind_number(kind), bytes.len() as u64];
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::Sent, numbers, || {
            let ttl = ttl.map_or(String::new(), |ttl| format!(", ttl {ttl}"));
            format!("{name} to {dst}: {kind:?}, {} bytes{ttl}", bytes.len())
        });
        let Some(port) = self.net.port_of(id) else { return self.gone(id, kind, bytes.len(), Fate::NoRoute) };
        let packet = Packet { src, dst, ttl: ttl.unwrap_or(TTL), origin: id, bytes: bytes.to_vec() };
        if let Err(fate) = self.net.transmit(self.now, port, packet, &mut self.flights) {
            self.gone(id, kind, bytes.len(), fate);
        }
    }

    pub(super) fn send_from_node(&mut self, id: HostId, to: SocketAddr, bytes: &[u8], ttl: Option<u8>) {
        let Some(address) = self.net.address(id) else { return };
        if to.is_ipv6() {
            // These worlds have no IPv6.
            return;
        }
        self.send(id, (SocketAddr::new(address, PORT), to), bytes, ttl);
    }
}

const fn kind_number(kind: Kind) -> u64 {
    match kind {
        Kind::Stun => 1,
        Kind::Disco => 2,
        Kind::WireGuard => 3,
        Kind::Unknown => 4,
    }
}

fn fate_number(fate: Fate) -> u64 {
    match fate {
        Fate::Link(lost) => 10 + lost as u64,
        Fate::Nat(reason) => 20 + reason as u64,
        Fate::Rejected => 40,
        Fate::NoRoute => 41,
        Fate::Ttl => 42,
        Fate::Partition => 43,
        Fate::Deaf => 44,
    }
}

//! Datagrams: from a process onto the network, off it, and lost on the way.

use super::node::port_of;
use super::queue::Event;
use super::server::{STUN_OTHER_PORT, STUN_PORT};
use super::{Process, SERVER, SERVER_SECOND, World};
use crate::step::Role;
use crate::topology::fabric::{Packet, TTL};
use crate::topology::{Fate, HostId};
use crate::trace::Happening;
use proto_core::id::LinkId;
use proto_core::machine::Input;
use proto_core::wire::stun::{self, Place};
use proto_core::wire::{Kind, classify};
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
        self.checks.heard(self.now, (id, packet.src), (packet.origin, packet.meant));
        if let Some(place) = self.stun(id, packet.dst) {
            self.answer(id, &packet, &place);
            return;
        }
        match &mut self.hosts[id.0].process {
            Process::Node(node) if node.link_at(packet.dst.port()).is_some() => {
                let Some(link) = node.link_at(packet.dst.port()) else { return };
                let local = node.local(self.now);
                node.stack.datagram(link, packet.src, &mut packet.bytes, local);
                node.stack.end_of_batch(local);
                self.drive(id);
            }
            _ => self.gone(packet.origin, kind, packet.bytes.len(), Fate::Deaf),
        }
    }

    /// What a datagram to `dst` that reaches `id` finds of a STUN server: the coordinator's has two addresses, that of
    /// the second relay one.
    fn stun(&self, id: HostId, dst: SocketAddr) -> Option<Place> {
        let server = self.roles.get(&Role::Server).copied()?;
        let machine = if id == self.second { server } else { id };
        let serves = matches!(self.hosts[machine.0].process, Process::Server(_));
        let other_port = match dst.port() {
            STUN_PORT => STUN_OTHER_PORT,
            STUN_OTHER_PORT => STUN_PORT,
            _ => return None,
        };
        let other_ip = (machine == server).then_some(if id == server { SERVER_SECOND } else { SERVER.2 });
        serves.then_some(Place { origin: dst, other_ip, other_port: Some(other_port) })
    }

    fn answer(&mut self, id: HostId, packet: &Packet, place: &Place) {
        let Some(reply) = stun::reply(&packet.bytes, packet.src, Some(place)) else { return };
        let Some(src) = place.changed(reply.change) else { return };
        let from = match self.roles.get(&Role::Server) {
            Some(server) if reply.change.address && id == *server => self.second,
            Some(server) if reply.change.address => *server,
            _ => id,
        };
        self.send(from, (src, packet.src), &reply.bytes, None);
        self.launch();
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
        let (ttl, bytes) = (ttl.unwrap_or(TTL), bytes.to_vec());
        let packet = Packet { src, dst, ttl, origin: id, meant: dst, bytes };
        let len = packet.bytes.len();
        if let Err(fate) = self.net.transmit(self.now, port, packet, &mut self.flights) {
            self.gone(id, kind, len, fate);
        }
    }

    pub(super) fn send_from_node(
        &mut self,
        id: HostId,
        link: LinkId,
        (to, ttl): (SocketAddr, Option<u8>),
        bytes: &[u8],
    ) {
        let Some(address) = self.net.address(id) else { return };
        if to.is_ipv6() {
            // These worlds have no IPv6.
            return;
        }
        if self.unrouted.contains(&(id, to.ip())) {
            self.bite("no route", 1);
            self.gone(id, classify(bytes), bytes.len(), Fate::NoRoute);
            let number = self.hosts[id.0].number;
            return self.schedule(self.now, Event::Unreachable(id, number, (link, to)));
        }
        self.send(id, (SocketAddr::new(address, port_of(link)), to), bytes, ttl);
    }

    /// The kernel tells a process that its datagram could not leave.
    pub(super) fn unreachable(&mut self, id: HostId, number: u64, link: LinkId, to: SocketAddr) {
        let host = &mut self.hosts[id.0];
        if let (Process::Node(node), true) = (&mut host.process, host.number == number) {
            let local = node.local(self.now);
            node.stack.handle(Input::Unreachable { link, to }, local);
            self.drive(id);
        }
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

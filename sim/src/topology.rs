//! Who is connected to what: segments, hosts, NATs between segments, and the networks that have a name.
//!
//! A segment is a broadcast domain: packets to an address on it go there, all others to its gateway, and
//! without one to nowhere. Nothing is reachable just because it exists: two private networks may use the same
//! addresses. How datagrams and TCP segments travel is [`fabric`]'s and [`route`]'s business.

use crate::nat::{DropReason, Nat, NatProfile};
use crate::netem::{Direction, LinkProfile, Lost};
use crate::oracle::Side;
use proto_core::seed::Seed;
use proto_core::time::Duration;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

pub mod fabric;
mod named;
pub mod route;

pub use named::{Meeting, Network, Place};

/// A segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SegmentId(pub usize);
/// A host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostId(pub usize);
/// A NAT or firewall.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NatId(pub usize);
/// Where a host or NAT is plugged into a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PortId(pub usize);

/// Why a datagram did not arrive.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// A link lost it.
    Link(Lost),
    /// A NAT dropped it.
    Nat(DropReason),
    /// A NAT or host rejected it.
    Rejected,
    /// Nobody has the address, and there is no way out.
    NoRoute,
    /// Its hop limit ran out.
    Ttl,
    /// A partition stopped it.
    Partition,
    /// The host is off, or has no such socket.
    Deaf,
}

/// What is plugged in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A host.
    Host(HostId),
    /// A NAT's inside.
    Inside(NatId),
    /// A NAT's outside.
    Outside(NatId),
}

#[derive(Debug)]
struct Segment {
    name: String,
    on_link: BTreeMap<IpAddr, PortId>,
    gateway: Option<PortId>,
    /// Routers that a packet across this segment passes: what an opener with a low hop limit dies of.
    hops: u8,
    /// Hosts reach the gateway alone (client isolation of a wireless network).
    isolated: bool,
}

#[derive(Debug)]
struct Port {
    segment: SegmentId,
    address: IpAddr,
    owner: Owner,
    up: Direction,
    down: Direction,
}

#[derive(Debug)]
struct NatBox {
    nat: Nat,
    inside: PortId,
    outside: PortId,
}

#[derive(Debug)]
struct HostPlace {
    name: String,
    port: Option<PortId>,
}

/// A network of networks.
#[derive(Debug)]
pub struct Topology {
    seed: Seed,
    segments: Vec<Segment>,
    ports: Vec<Port>,
    nats: Vec<NatBox>,
    hosts: Vec<HostPlace>,
    /// Pairs of ports between which nothing passes, one way, and how much each has stopped.
    partitions: BTreeMap<(PortId, PortId), u64>,
    names: BTreeMap<String, IpAddr>,
}

impl Topology {
    /// Nothing.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self {
            seed: seed.fork("topology"),
            segments: Vec::new(),
            ports: Vec::new(),
            nats: Vec::new(),
            hosts: Vec::new(),
            partitions: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// A new segment that packets cross by `hops` routers.
    pub fn segment(&mut self, name: &str, hops: u8) -> SegmentId {
        self.segments.push(Segment {
            name: name.into(),
            on_link: BTreeMap::new(),
            gateway: None,
            hops,
            isolated: false,
        });
        SegmentId(self.segments.len() - 1)
    }

    /// Keeps the hosts of a segment apart: they reach the gateway alone.
    pub fn isolate(&mut self, segment: SegmentId) {
        self.segments[segment.0].isolated = true;
    }

    /// A new host, not plugged in.
    pub fn host(&mut self, name: &str) -> HostId {
        self.hosts.push(HostPlace { name: name.into(), port: None });
        HostId(self.hosts.len() - 1)
    }

    /// Plugs a host in (again, elsewhere), over links that behave so both ways.
    pub fn plug(&mut self, host: HostId, segment: SegmentId, address: IpAddr, link: LinkProfile) {
        self.unplug(host);
        let port = self.port(segment, address, Owner::Host(host), link);
        self.hosts[host.0].port = Some(port);
    }

    /// Unplugs a host: what is under way to it is lost.
    pub fn unplug(&mut self, host: HostId) {
        if let Some(port) = self.hosts[host.0].port.take() {
            let Port { segment, address, .. } = self.ports[port.0];
            self.segments[segment.0].on_link.remove(&address);
        }
    }

    /// Puts a NAT between `inside`, whose gateway it becomes with the address `gateway`, and `outside`.
    pub fn nat(
        &mut self,
        profile: NatProfile,
        (inside, gateway): (SegmentId, IpAddr),
        (outside, address): (SegmentId, IpAddr),
        link: LinkProfile,
    ) -> NatId {
        let id = NatId(self.nats.len());
        let seed = self.seed.fork(&format!("nat/{}", id.0));
        let inside_port = self.port(inside, gateway, Owner::Inside(id), LinkProfile::clean(Duration::ZERO));
        let outside_port = self.port(outside, address, Owner::Outside(id), link);
        self.segments[inside.0].gateway = Some(inside_port);
        let nat = Nat::new(profile, address, &seed);
        self.nats.push(NatBox { nat, inside: inside_port, outside: outside_port });
        id
    }

    /// Has a firewall stand in the outside for an address behind it.
    pub fn stand_in(&mut self, firewall: NatId, address: IpAddr) {
        let port = self.nats[firewall.0].outside;
        let segment = self.ports[port.0].segment;
        self.segments[segment.0].on_link.insert(address, port);
    }

    /// Gives a host name an address.
    pub fn name(&mut self, name: &str, address: IpAddr) {
        self.names.insert(name.into(), address);
    }

    /// What the resolver answers.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Vec<IpAddr> {
        if let Ok(address) = name.parse() {
            return vec![address];
        }
        self.names.get(name).copied().into_iter().collect()
    }

    /// A host's address on the segment it is plugged into.
    #[must_use]
    pub fn address(&self, host: HostId) -> Option<IpAddr> {
        self.hosts[host.0].port.map(|port| self.ports[port.0].address)
    }

    /// A host's name.
    #[must_use]
    pub fn host_name(&self, host: HostId) -> &str {
        &self.hosts[host.0].name
    }

    /// Hosts, plugged in or not.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The NATs.
    pub fn nats(&self) -> impl Iterator<Item = (NatId, &Nat)> {
        self.nats.iter().enumerate().map(|(n, b)| (NatId(n), &b.nat))
    }

    /// A NAT.
    #[must_use]
    pub fn nat_of(&self, id: NatId) -> &Nat {
        &self.nats[id.0].nat
    }

    /// A NAT, to reboot it.
    pub fn nat_mut(&mut self, id: NatId) -> &mut Nat {
        &mut self.nats[id.0].nat
    }

    /// The NATs in front of a host, nearest first.
    #[must_use]
    pub fn nats_of(&self, host: HostId) -> Vec<NatId> {
        let mut found = Vec::new();
        let mut segment = self.hosts[host.0].port.map(|port| self.ports[port.0].segment);
        while let Some(gateway) = segment.and_then(|s| self.segments[s.0].gateway) {
            let Owner::Inside(nat) = self.ports[gateway.0].owner else { break };
            found.push(nat);
            segment = Some(self.ports[self.nats[nat.0].outside.0].segment);
        }
        found
    }

    /// What the oracle needs to know of a host.
    #[must_use]
    pub fn side(&self, host: HostId) -> Side {
        Side::behind(self.nats_of(host).iter().map(|id| self.nats[id.0].nat.profile()))
    }

    /// Gives a host's outermost NAT another outside address; it forgets everything. Answers how many mappings that cost.
    pub fn readdress(&mut self, host: HostId, address: IpAddr) -> Option<usize> {
        let NatId(nat) = *self.nats_of(host).last()?;
        let outside = self.nats[nat].outside;
        let Port { segment, address: before, .. } = self.ports[outside.0];
        let on_link = &mut self.segments[segment.0].on_link;
        on_link.remove(&before);
        on_link.insert(address, outside);
        self.ports[outside.0].address = address;
        let lost = self.nats[nat].nat.mappings();
        self.nats[nat].nat.reboot(Some(address));
        Some(lost)
    }

    /// Where a host meets the internet: its own port, or the outside of its outermost NAT.
    #[must_use]
    pub fn edge(&self, host: HostId) -> Option<PortId> {
        match self.nats_of(host).last() {
            Some(nat) => Some(self.nats[nat.0].outside),
            None => self.hosts[host.0].port,
        }
    }

    /// A host's own port.
    #[must_use]
    pub fn port_of(&self, host: HostId) -> Option<PortId> {
        self.hosts[host.0].port
    }

    /// The two directions of a port: towards the segment and from it.
    pub fn links(&mut self, port: PortId) -> (&mut Direction, &mut Direction) {
        let port = &mut self.ports[port.0];
        (&mut port.up, &mut port.down)
    }

    /// All directions of all links.
    pub fn directions(&self) -> impl Iterator<Item = &Direction> {
        self.ports.iter().flat_map(|port| [&port.up, &port.down])
    }

    /// Stops everything that goes from one port to another on their segment, or no longer.
    pub fn partition(&mut self, from: PortId, to: PortId, on: bool) {
        if on {
            self.partitions.entry((from, to)).or_insert(0);
        } else {
            self.partitions.remove(&(from, to));
        }
    }

    /// What a partition in force has stopped.
    #[must_use]
    pub fn stopped(&self, from: PortId, to: PortId) -> Option<u64> {
        self.partitions.get(&(from, to)).copied()
    }

    fn port(&mut self, segment: SegmentId, address: IpAddr, owner: Owner, link: LinkProfile) -> PortId {
        let id = PortId(self.ports.len());
        let seed = self.seed.fork(&format!("port/{}", id.0));
        self.ports.push(Port {
            segment,
            address,
            owner,
            up: Direction::new(link, &seed.fork("up")),
            down: Direction::new(link, &seed.fork("down")),
        });
        self.segments[segment.0].on_link.insert(address, id);
        id
    }

    /// Where a packet to `to` goes on `from`'s segment.
    fn next_port(&self, from: PortId, to: IpAddr) -> Option<PortId> {
        let segment = &self.segments[self.ports[from.0].segment.0];
        let port = segment.on_link.get(&to).copied().or(segment.gateway).filter(|port| *port != from)?;
        let between_hosts = |a: Owner, b: Owner| matches!((a, b), (Owner::Host(_), Owner::Host(_)));
        let apart = segment.isolated && between_hosts(self.ports[from.0].owner, self.ports[port.0].owner);
        if apart { segment.gateway } else { Some(port) }
    }

    /// Counts a packet against the partition between two ports, if there is one.
    fn is_partitioned(&mut self, from: PortId, to: PortId) -> bool {
        match self.partitions.get_mut(&(from, to)) {
            Some(count) => {
                *count += 1;
                true
            }
            None => false,
        }
    }

    /// The name of a port's segment and its address, for a trace.
    #[must_use]
    pub fn describe(&self, port: PortId) -> String {
        let port = &self.ports[port.0];
        format!("{}@{}", port.address, self.segments[port.segment.0].name)
    }
}

/// An IPv4 address.
pub(crate) const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

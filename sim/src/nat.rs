//! NATs and firewalls as pure state machines: RFC 4787's vocabulary for UDP, RFC 5382's for TCP, and what
//! Linux's connection tracking does besides.
//!
//! A [`Nat`] has an inside and one address outside. It is asked about one packet at a time and answers with
//! a [`Verdict`]; time is an argument. Nested NATs are several of these in a row, nothing more.

use proto_core::seed::{Rng, Seed};
use proto_core::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

mod profile;
pub use profile::{
    Allocation, Dependence, FilterScope, Hairpin, MidStream, NatProfile, Protocol, TcpRules, UdpRules,
    Unsolicited,
};

/// Remote endpoints that one inside endpoint may have filter entries for; a table of its own in real ones.
const FILTERS_MAX: usize = 4_096;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on with these addresses, to the other side.
    Forward {
        /// Its source now.
        src: SocketAddr,
        /// Its destination now.
        dst: SocketAddr,
    },
    /// It turns round and goes back inside with these addresses.
    Hairpin {
        /// Its source now.
        src: SocketAddr,
        /// Its destination now.
        dst: SocketAddr,
    },
    /// Silence.
    Drop(DropReason),
    /// An ICMP error (UDP) or a reset (TCP) goes back to the sender.
    Reject,
}

/// Why a NAT dropped a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DropReason {
    /// No mapping has this external port.
    NoMapping,
    /// A mapping has it, but its filter does not let this sender in.
    Filtered,
    /// Unsolicited, and now in the connection table: the poison of Linux routers.
    Tracked,
    /// This NAT does not turn packets round.
    Hairpin,
    /// UDP (or this port of it) is not allowed out.
    Blocked,
    /// No free port or table entry.
    TableFull,
    /// A TCP segment in the middle of a connection that the table does not know (any more).
    MidStream,
}

/// What a NAT has done, so that a test can demand that its kind was really at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NatCounters {
    /// Packets that went out.
    pub outbound: u64,
    /// Of those, UDP packets that went out with another source than they came with.
    pub translated: u64,
    /// Packets that came in through a mapping.
    pub inbound: u64,
    /// Packets turned round.
    pub hairpinned: u64,
    /// Packets that the filter kept out.
    pub filtered: u64,
    /// Of those, packets from an address that may come in, but not from that port.
    pub filtered_port: u64,
    /// Packets to no mapping.
    pub unmapped: u64,
    /// UDP packets that were not allowed out.
    pub blocked: u64,
    /// Unsolicited packets that entered the connection table.
    pub tracked: u64,
    /// Flows whose port was changed because of such an entry.
    pub poisoned: u64,
    /// Mappings made.
    pub mapped: u64,
    /// Mappings that ran out of time.
    pub expired: u64,
    /// Packets refused for want of a port or entry.
    pub full: u64,
}

/// What a mapping is found by from inside: `remote` is none, the address with port 0, or the endpoint,
/// as the mapping depends on nothing, the address, or both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    protocol: Protocol,
    inside: SocketAddr,
    remote: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    last: Time,
    answered: bool,
}

#[derive(Clone, Debug)]
struct Mapping {
    key: Key,
    external: u16,
    entry: Entry,
}

/// Who an inside endpoint (or one of its mappings) has sent to: what the filter lets back in.
type Filter = BTreeMap<SocketAddr, Entry>;

/// A NAT.
#[derive(Debug)]
pub struct Nat {
    profile: NatProfile,
    outside: IpAddr,
    rng: Rng,
    next_id: u64,
    next_port: u16,
    mappings: BTreeMap<u64, Mapping>,
    by_key: BTreeMap<Key, u64>,
    by_port: BTreeMap<(Protocol, u16), BTreeSet<u64>>,
    /// By mapping, or by inside endpoint: see [`FilterScope`].
    filters: BTreeMap<FilterKey, Filter>,
    /// Entries of the router's own for unsolicited packets: (external port, remote) -> last seen.
    tracked: BTreeMap<(u16, SocketAddr), Time>,
    blocks: BTreeMap<IpAddr, u16>,
    counters: NatCounters,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum FilterKey {
    Mapping(u64),
    Endpoint(Protocol, SocketAddr),
}

impl Nat {
    /// A NAT that shows its inside as `outside`.
    #[must_use]
    pub fn new(profile: NatProfile, outside: IpAddr, seed: &Seed) -> Self {
        let mut rng = seed.fork("nat").rng();
        let next_port = profile::PORTS.start + u16::try_from(rng.range(0..16_000)).unwrap_or(0);
        Self {
            profile,
            outside,
            rng,
            next_id: 0,
            next_port,
            mappings: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_port: BTreeMap::new(),
            filters: BTreeMap::new(),
            tracked: BTreeMap::new(),
            blocks: BTreeMap::new(),
            counters: NatCounters::default(),
        }
    }

    /// The address outside.
    #[must_use]
    pub const fn outside(&self) -> IpAddr {
        self.outside
    }

    /// How it behaves.
    #[must_use]
    pub const fn profile(&self) -> &NatProfile {
        &self.profile
    }

    /// What it has done.
    #[must_use]
    pub const fn counters(&self) -> &NatCounters {
        &self.counters
    }

    /// Mappings alive or not yet cleared away.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// The external ports of its UDP mappings.
    pub fn udp_ports(&self) -> impl Iterator<Item = u16> {
        self.by_port.keys().filter(|(protocol, _)| *protocol == Protocol::Udp).map(|(_, port)| *port)
    }

    /// Forgets everything, as after a power cut; with another outside address if one is given.
    pub fn reboot(&mut self, outside: Option<IpAddr>) {
        self.mappings.clear();
        self.by_key.clear();
        self.by_port.clear();
        self.filters.clear();
        self.tracked.clear();
        self.blocks.clear();
        if let Some(outside) = outside {
            self.outside = outside;
        }
    }

    /// A packet from inside. `opening` says of a TCP segment that it is a SYN; of UDP it means nothing.
    pub fn outbound(
        &mut self,
        now: Time,
        protocol: Protocol,
        (src, dst): (SocketAddr, SocketAddr),
        opening: bool,
    ) -> Verdict {
        if protocol == Protocol::Udp && !self.profile.udp.allows(dst.port()) {
            self.counters.blocked += 1;
            return Verdict::Drop(DropReason::Blocked);
        }
        if protocol == Protocol::Tcp && !opening && !self.knows(now, src, dst) {
            match self.profile.tcp.mid_stream {
                MidStream::PickUp => {}
                MidStream::Silence => return Verdict::Drop(DropReason::MidStream),
                MidStream::Reset => return Verdict::Reject,
            }
        }
        let Some(id) = self.map(now, protocol, src, dst) else {
            self.counters.full += 1;
            return Verdict::Drop(DropReason::TableFull);
        };
        let external = self.external(id, src);
        if self.profile.translate && dst.ip() == self.outside {
            return self.hairpin(now, protocol, (src, external, dst));
        }
        self.counters.outbound += 1;
        self.counters.translated += u64::from(protocol == Protocol::Udp && external != src);
        Verdict::Forward { src: external, dst }
    }

    /// A packet from outside to this NAT's address (or, for a firewall that rewrites nothing, to a host
    /// behind it).
    pub fn inbound(&mut self, now: Time, protocol: Protocol, src: SocketAddr, dst: SocketAddr) -> Verdict {
        match self.admit(now, protocol, src, dst) {
            Ok(inside) => {
                self.counters.inbound += 1;
                Verdict::Forward { src, dst: inside }
            }
            Err(reason) => self.unsolicited(now, protocol, (src, dst), reason),
        }
    }

    /// The TCP connection of `inside` to `remote` is over: its entry goes.
    pub fn closed(&mut self, inside: SocketAddr, remote: SocketAddr) {
        let ids: Vec<u64> = self
            .mappings
            .iter()
            .filter(|(_, m)| {
                m.key.protocol == Protocol::Tcp && m.key.inside == inside && m.key.remote == Some(remote)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// Clears away what has run out of time.
    pub fn expire(&mut self, now: Time) {
        let dead: Vec<u64> = self
            .mappings
            .iter()
            .filter(|(_, m)| !self.alive(now, m.key.protocol, m.entry))
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.counters.expired += 1;
            self.remove(id);
        }
        let ttl = self.profile.ttl_new;
        self.tracked.retain(|_, last| now.since(*last) < ttl);
        let profile = self.profile;
        self.filters.retain(|key, filter| {
            if let FilterKey::Endpoint(protocol, _) = key {
                filter.retain(|_, entry| alive(&profile, now, *protocol, *entry));
            }
            !filter.is_empty()
        });
    }

    fn alive(&self, now: Time, protocol: Protocol, entry: Entry) -> bool {
        alive(&self.profile, now, protocol, entry)
    }

    /// Whether a mapping for a TCP connection is there.
    fn knows(&mut self, now: Time, src: SocketAddr, dst: SocketAddr) -> bool {
        self.find(now, Protocol::Tcp, src, dst).is_some()
    }

    fn find(&mut self, now: Time, protocol: Protocol, src: SocketAddr, dst: SocketAddr) -> Option<u64> {
        // A flow whose port an entry of the router's own has taken is on its own, whatever the profile says.
        let own = Key { protocol, inside: src, remote: Some(dst) };
        let usual = Key { protocol, inside: src, remote: self.dependence(protocol).of(dst) };
        for key in [own, usual] {
            let Some(&id) = self.by_key.get(&key) else { continue };
            if self.mappings.get(&id).is_some_and(|m| self.alive(now, protocol, m.entry)) {
                return Some(id);
            }
            self.counters.expired += 1;
            self.remove(id);
        }
        None
    }

    /// TCP connections are tracked one by one: that is what their timers and resets are about.
    const fn dependence(&self, protocol: Protocol) -> Dependence {
        match protocol {
            Protocol::Udp => self.profile.mapping,
            Protocol::Tcp => Dependence::AddressAndPort,
        }
    }

    /// The mapping of a packet from inside, found or made, with its filter and time noted.
    fn map(&mut self, now: Time, protocol: Protocol, src: SocketAddr, dst: SocketAddr) -> Option<u64> {
        let mut found = self.find(now, protocol, src, dst);
        let mut remote = self.dependence(protocol).of(dst);
        if let Some(id) = found
            && self.is_tracked(now, self.mappings[&id].external, dst)
        {
            // The tuple belongs to the router itself: this flow gets another port.
            found = None;
            remote = Some(dst);
        }
        let id = match found {
            Some(id) => id,
            None => self.make(now, Key { protocol, inside: src, remote }, dst)?,
        };
        let mapping = self.mappings.get_mut(&id)?;
        mapping.entry.last = now;
        let key = self.filter_key(id, protocol, src);
        let filter = self.filters.entry(key).or_default();
        if filter.len() >= FILTERS_MAX && !filter.contains_key(&dst) {
            return None;
        }
        filter.entry(dst).or_insert(Entry { last: now, answered: false }).last = now;
        Some(id)
    }

    fn make(&mut self, now: Time, key: Key, dst: SocketAddr) -> Option<u64> {
        if self.mappings.len() >= self.profile.max_mappings {
            self.expire(now);
            if self.mappings.len() >= self.profile.max_mappings {
                return None;
            }
        }
        let external = if self.profile.translate { self.allocate(now, key, dst)? } else { key.inside.port() };
        let id = self.next_id;
        self.next_id += 1;
        self.counters.mapped += 1;
        self.mappings.insert(id, Mapping { key, external, entry: Entry { last: now, answered: false } });
        self.by_key.insert(key, id);
        self.by_port.entry((key.protocol, external)).or_default().insert(id);
        Some(id)
    }

    fn remove(&mut self, id: u64) {
        let Some(mapping) = self.mappings.remove(&id) else { return };
        self.by_key.remove(&mapping.key);
        self.filters.remove(&FilterKey::Mapping(id));
        let port = (mapping.key.protocol, mapping.external);
        if let Some(ids) = self.by_port.get_mut(&port) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_port.remove(&port);
            }
        }
    }

    fn external(&self, id: u64, src: SocketAddr) -> SocketAddr {
        if self.profile.translate { SocketAddr::new(self.outside, self.mappings[&id].external) } else { src }
    }

    const fn filter_key(&self, id: u64, protocol: Protocol, inside: SocketAddr) -> FilterKey {
        match self.profile.filter_scope {
            FilterScope::Mapping => FilterKey::Mapping(id),
            FilterScope::Endpoint => FilterKey::Endpoint(protocol, inside),
        }
    }

    /// Whom a packet from outside is for, or why nobody.
    fn admit(
        &mut self,
        now: Time,
        protocol: Protocol,
        src: SocketAddr,
        dst: SocketAddr,
    ) -> Result<SocketAddr, DropReason> {
        let ids: Vec<u64> = self
            .by_port
            .get(&(protocol, dst.port()))
            .map(|ids| ids.iter().copied().collect())
            .unwrap_or_default();
        let mut reason = DropReason::NoMapping;
        let mut other_port = false;
        for id in ids {
            let mapping = &self.mappings[&id];
            let inside = mapping.key.inside;
            if !self.alive(now, protocol, mapping.entry) {
                self.counters.expired += 1;
                self.remove(id);
                continue;
            }
            if !self.profile.translate && inside.ip() != dst.ip() {
                continue;
            }
            let key = self.filter_key(id, protocol, inside);
            if !self.passes(now, protocol, key, src) {
                reason = DropReason::Filtered;
                other_port |= self.knows_address(now, protocol, key, src);
                continue;
            }
            self.note_inbound(now, id, key, src);
            return Ok(inside);
        }
        self.counters.filtered_port += u64::from(other_port);
        Err(reason)
    }

    fn knows_address(&self, now: Time, protocol: Protocol, key: FilterKey, src: SocketAddr) -> bool {
        let alive = |entry: &Entry| self.alive(now, protocol, *entry);
        let sent_to = |filter: &Filter| filter.iter().any(|(to, entry)| to.ip() == src.ip() && alive(entry));
        self.filters.get(&key).is_some_and(sent_to)
    }

    fn passes(&self, now: Time, protocol: Protocol, key: FilterKey, src: SocketAddr) -> bool {
        let filtering = match protocol {
            Protocol::Udp => self.profile.filtering,
            Protocol::Tcp => Dependence::AddressAndPort,
        };
        match filtering {
            Dependence::Independent => true,
            Dependence::Address => self.knows_address(now, protocol, key, src),
            Dependence::AddressAndPort => {
                let entry = self.filters.get(&key).and_then(|filter| filter.get(&src));
                entry.is_some_and(|entry| self.alive(now, protocol, *entry))
            }
        }
    }

    fn note_inbound(&mut self, now: Time, id: u64, key: FilterKey, src: SocketAddr) {
        let refresh = self.profile.refresh_inbound;
        let note = |entry: &mut Entry| {
            entry.answered = true;
            if refresh {
                entry.last = now;
            }
        };
        if let Some(mapping) = self.mappings.get_mut(&id) {
            note(&mut mapping.entry);
        }
        if let Some(entry) = self.filters.get_mut(&key).and_then(|f| f.get_mut(&src)) {
            note(entry);
        }
    }

    fn is_tracked(&self, now: Time, external: u16, remote: SocketAddr) -> bool {
        self.tracked.get(&(external, remote)).is_some_and(|last| now.since(*last) < self.profile.ttl_new)
    }

    fn unsolicited(
        &mut self,
        now: Time,
        protocol: Protocol,
        (src, dst): (SocketAddr, SocketAddr),
        reason: DropReason,
    ) -> Verdict {
        if reason == DropReason::Filtered {
            self.counters.filtered += 1;
        } else {
            self.counters.unmapped += 1;
        }
        match self.profile.unsolicited {
            Unsolicited::Drop => Verdict::Drop(reason),
            Unsolicited::Reject => Verdict::Reject,
            Unsolicited::AcceptAndTrack if protocol == Protocol::Tcp => Verdict::Reject,
            Unsolicited::AcceptAndTrack => {
                if self.tracked.len() < self.profile.max_mappings {
                    self.tracked.insert((dst.port(), src), now);
                    self.counters.tracked += 1;
                }
                Verdict::Drop(DropReason::Tracked)
            }
        }
    }

    fn hairpin(
        &mut self,
        now: Time,
        protocol: Protocol,
        (src, external, dst): (SocketAddr, SocketAddr, SocketAddr),
    ) -> Verdict {
        if self.profile.hairpin == Hairpin::Off {
            return Verdict::Drop(DropReason::Hairpin);
        }
        match self.admit(now, protocol, external, dst) {
            Ok(inside) => {
                self.counters.hairpinned += 1;
                let src = if self.profile.hairpin == Hairpin::Internal { src } else { external };
                Verdict::Hairpin { src, dst: inside }
            }
            Err(reason) => self.unsolicited(now, protocol, (external, dst), reason),
        }
    }

    fn allocate(&mut self, now: Time, key: Key, dst: SocketAddr) -> Option<u16> {
        let wanted = key.inside.port();
        let spare = match self.profile.allocation {
            Allocation::Preserve => {
                if self.is_free(now, wanted, key, dst) {
                    return Some(wanted);
                }
                if self.is_tracked(now, wanted, dst) {
                    self.counters.poisoned += 1;
                }
                None
            }
            Allocation::Random => None,
            Allocation::Contiguous => Some((self.next_port, profile::PORTS.end - self.next_port)),
            Allocation::Block(size) => {
                // Carriers' equipment takes any of a block, rather than one after the other.
                let first = self.block(key.inside.ip(), size)?;
                let at = u16::try_from(self.rng.range(0..size.into())).unwrap_or(0);
                let mut ports = (at..size).chain(0..at).map(|n| first + n);
                return ports.find(|port| self.is_free(now, *port, key, dst));
            }
        };
        if let Some((first, count)) = spare {
            let port = (0..count).map(|n| first + n).find(|port| self.suits(now, *port, key, dst))?;
            self.next_port = if port + 1 >= profile::PORTS.end { profile::PORTS.start } else { port + 1 };
            return Some(port);
        }
        // Enough draws that a table which is not nearly full always finds one.
        (0..256).find_map(|_| {
            let port =
                u16::try_from(self.rng.range(profile::PORTS.start.into()..profile::PORTS.end.into())).ok()?;
            self.suits(now, port, key, dst).then_some(port)
        })
    }

    /// The first port of an inside address's block (carrier NATs give each customer one).
    fn block(&mut self, inside: IpAddr, size: u16) -> Option<u16> {
        if let Some(first) = self.blocks.get(&inside) {
            return Some(*first);
        }
        let count =
            (profile::PORTS.end - profile::PORTS.start).checked_div(size).filter(|count| *count > 0)?;
        let at = u16::try_from(self.rng.range(0..count.into())).unwrap_or(0);
        let mut all = (at..count).chain(0..at).map(|n| profile::PORTS.start + n * size);
        let first = all.find(|first| self.blocks.values().all(|taken| taken != first))?;
        self.blocks.insert(inside, first);
        Some(first)
    }

    fn suits(&self, now: Time, port: u16, key: Key, dst: SocketAddr) -> bool {
        (!self.profile.parity || port % 2 == key.inside.port() % 2) && self.is_free(now, port, key, dst)
    }

    /// Whether `port` can be a new mapping's. With port overloading (connection tracking) only the whole
    /// tuple must be unique.
    fn is_free(&self, now: Time, port: u16, key: Key, dst: SocketAddr) -> bool {
        if key.protocol == Protocol::Udp && self.is_tracked(now, port, dst) {
            return false;
        }
        let Some(ids) = self.by_port.get(&(key.protocol, port)) else { return true };
        let overload = self.profile.overload || key.protocol == Protocol::Tcp;
        ids.iter().filter_map(|id| self.mappings.get(id)).all(|other| {
            !self.alive(now, key.protocol, other.entry)
                || overload
                    && other.key.remote.is_some()
                    && other.key.remote != Some(dst)
                    && key.remote.is_some()
        })
    }
}

fn alive(profile: &NatProfile, now: Time, protocol: Protocol, entry: Entry) -> bool {
    let ttl: Duration = match (protocol, entry.answered) {
        (Protocol::Udp, false) => profile.ttl_new,
        (Protocol::Udp, true) => profile.ttl_stream,
        (Protocol::Tcp, false) => profile.tcp.transitory,
        (Protocol::Tcp, true) => profile.tcp.idle,
    };
    now.since(entry.last) < ttl
}

#[cfg(test)]
mod tests;

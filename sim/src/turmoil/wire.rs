//! What all hosts of a lab share outside the simulated network: the trace, the counters and the switches that
//! a scenario turns. It carries no packets.

use crate::trace::{Happening, Trace};
use proto_core::time::{Duration, Time};
use proto_core::wire::{Kind, classify};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by all hosts. Clones are the same one.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<State>>);

struct State {
    trace: Trace,
    names: BTreeMap<String, IpAddr>,
    partitions: BTreeSet<(IpAddr, IpAddr)>,
    paused: BTreeSet<IpAddr>,
    /// Who knows no way to whom.
    unrouted: BTreeSet<(IpAddr, IpAddr)>,
    translating: BTreeSet<IpAddr>,
    counters: Counters,
    violations: Vec<String>,
}

/// What happened in a lab, so that a test can demand that its faults were at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Datagrams sent by hosts.
    pub sent: u64,
    /// Datagrams received by hosts.
    pub received: u64,
    /// Datagrams that a NAT rewrote on their way out.
    pub translated: u64,
    /// Gateways that rewrote any.
    pub translating: u64,
    /// Datagrams that a NAT dropped.
    pub nat_drops: u64,
    /// UDP that was not allowed out.
    pub blocked: u64,
    /// Datagrams that a NAT turned round.
    pub hairpinned: u64,
    /// Datagrams that stayed on their LAN.
    pub local: u64,
    /// Datagrams whose hop limit ran out.
    pub expired: u64,
    /// Datagrams that a link lost.
    pub lost: u64,
    /// Datagrams that a link carried twice.
    pub duplicated: u64,
    /// Datagrams that a link held back beyond its latency.
    pub delayed: u64,
    /// Datagrams and TCP writes into a partition.
    pub partitioned: u64,
    /// Datagrams that their own host had no way for.
    pub unrouted: u64,
    /// Reads that a paused splice held back.
    pub held: u64,
    /// Connections spliced.
    pub spliced: u64,
    /// Bytes that passed over TCP.
    pub tcp_bytes: u64,
    /// Times that a gateway began.
    pub gateways: u64,
    /// Times that a node began.
    pub nodes: u64,
    /// Times that a server or a relay began.
    pub servers: u64,
    /// Packets that the relays handed on: the server's, the second one.
    pub carried: [u64; 2],
    /// Who is connected to them, when last looked at.
    pub connected: [u64; 2],
    /// Who was connected to a relay when its process ended.
    pub cut_off: u64,
    /// Packets that relays sent on to others of their mesh.
    pub sent_on: u64,
    /// Clients of a relay that heard that it is about to stop.
    pub drained: u64,
    /// Logins of keys that were connected already.
    pub duplicates: u64,
}

impl Wire {
    /// A new one; with a text trace if `text`.
    #[must_use]
    pub fn new(text: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            trace: Trace::new(text),
            names: BTreeMap::new(),
            partitions: BTreeSet::new(),
            paused: BTreeSet::new(),
            unrouted: BTreeSet::new(),
            translating: BTreeSet::new(),
            counters: Counters::default(),
            violations: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host knows no way to an address any more, or knows one again.
    pub fn unroute(&self, host: IpAddr, to: IpAddr, on: bool) {
        let unrouted = &mut self.lock().unrouted;
        if on {
            unrouted.insert((host, to))
        } else {
            unrouted.remove(&(host, to))
        };
    }

    /// Whether a host knows a way to an address; if not, that is counted.
    #[must_use]
    pub fn has_route(&self, host: IpAddr, to: IpAddr) -> bool {
        let mut state = self.lock();
        let none = state.unrouted.contains(&(host, to));
        state.counters.unrouted += u64::from(none);
        !none
    }

    /// Gives a name an address.
    pub fn name(&self, name: &str, address: IpAddr) {
        self.lock().names.insert(name.into(), address);
    }

    /// The address of a name or literal.
    #[must_use]
    pub fn resolve(&self, name: &str) -> Option<IpAddr> {
        name.parse().ok().or_else(|| self.lock().names.get(name).copied())
    }

    /// Counts something.
    pub fn count(&self, what: impl FnOnce(&mut Counters)) {
        what(&mut self.lock().counters);
    }

    /// The counts.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.lock().counters
    }

    /// The trace's hash and how much it holds.
    #[must_use]
    pub fn hash(&self) -> (u64, u64) {
        let state = self.lock();
        (state.trace.hash(), state.trace.count())
    }

    /// The last lines of a text trace.
    #[must_use]
    pub fn tail(&self, n: usize) -> String {
        self.lock().trace.tail(n).join("\n")
    }

    /// Something must never happen and did.
    pub fn violate(&self, what: &str) {
        self.lock().violations.push(format!("{} {what}", now()));
    }

    /// What must never happen and did.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// A datagram was sent or received by a host.
    pub fn datagram(&self, sent: bool, (from, to): (IpAddr, IpAddr), bytes: &[u8]) {
        let mut state = self.lock();
        let what = if sent { Happening::Sent } else { Happening::Arrived };
        if sent {
            state.counters.sent += 1;
        } else {
            state.counters.received += 1;
        }
        let kind = classify(bytes);
        let number = match kind {
            Kind::Stun => 1,
            Kind::Disco => 2,
            Kind::WireGuard => 3,
            Kind::Unknown => 4,
        };
        let len = bytes.len();
        state.trace.note(now(), what, [number_of(from), number_of(to), number, len as u64], || {
            format!("{from} to {to}: {kind:?}, {len} bytes")
        });
        drop(state);
        self.look(bytes);
    }

    /// Bytes of a TCP connection were written by a host.
    pub fn stream(&self, from: IpAddr, to: IpAddr, bytes: &[u8]) {
        let mut state = self.lock();
        state.counters.tcp_bytes += bytes.len() as u64;
        let len = bytes.len();
        let numbers = [number_of(from), number_of(to), 9, len as u64];
        state.trace.note(now(), Happening::StreamBytes, numbers, || format!("{from} to {to}: {len} bytes"));
        drop(state);
        self.look(bytes);
    }

    /// A node said something, or a step of the scenario was taken.
    pub fn said(&self, who: &str, number: u64, what: impl FnOnce() -> String) {
        let mut state = self.lock();
        state.trace.note(now(), Happening::Said, [number, 0, 0, 0], || format!("{who}: {}", what()));
    }

    fn look(&self, bytes: &[u8]) {
        if bytes.windows(16).any(|w| w == crate::world::echo::MARK) {
            self.violate("plaintext on a wire");
        }
    }

    /// Nothing passes from `from` to `to`, or again; only for the count, turmoil does the work.
    pub fn partition(&self, from: IpAddr, to: IpAddr, on: bool) {
        let mut state = self.lock();
        if on {
            state.partitions.insert((from, to));
        } else {
            state.partitions.remove(&(from, to));
        }
    }

    /// Something is sent from `from` to `to`: counted if a partition stops it.
    pub fn crossing(&self, from: IpAddr, to: IpAddr) {
        let mut state = self.lock();
        if state.partitions.contains(&(from, to)) {
            state.counters.partitioned += 1;
        }
    }

    /// A gateway rewrote a datagram on its way out.
    pub fn translated(&self, gateway: IpAddr) {
        let mut state = self.lock();
        state.counters.translated += 1;
        state.counters.translating += u64::from(state.translating.insert(gateway));
    }

    /// A gateway's splices stand still, bytes waiting, or go on.
    pub fn pause(&self, gateway: IpAddr, on: bool) {
        let mut state = self.lock();
        if on {
            state.paused.insert(gateway);
        } else {
            state.paused.remove(&gateway);
        }
    }

    /// Whether they stand still.
    #[must_use]
    pub fn is_paused(&self, gateway: IpAddr) -> bool {
        self.lock().paused.contains(&gateway)
    }
}

/// The simulated time.
#[must_use]
pub fn now() -> Time {
    let elapsed = turmoil::sim_elapsed().unwrap_or(Duration::ZERO);
    Time::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

fn number_of(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64 ^ u128::from(ip) as u64,
    }
}

//! What must hold after every step, whatever the plan: nothing reaches the wrong identity, no plaintext is on
//! a wire, probes and memory are bounded, no route is direct without proof.

use crate::topology::HostId;
use crate::world::echo::MARK;
use proto_core::time::{Duration, Time};
use proto_core::wire::Kind;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Probes (STUN and disco) that one host may send within any second: 500 of port guesses, besides a punch, which sends
/// at most a burst to each of 64 candidates, and netcheck's few requests to each of its servers.
pub const PROBES_PER_SECOND: usize = 600;
/// How old what proves a path may be when a route over it begins.
pub const PROOF_AGE: Duration = Duration::from_secs(10);
/// Events waiting in a world of a handful of hosts.
pub const QUEUE_MAX: usize = 200_000;
/// Bytes waiting on stream senders' sides in such a world.
pub const STREAM_BYTES_MAX: usize = 64 << 20;
/// Wake-ups of one host at one moment before it counts as a busy loop.
pub const WAKES_MAX: u32 = 200;
/// Violations kept.
const KEPT: usize = 32;

/// The checks of one world.
#[derive(Debug, Default)]
pub struct Checks {
    violations: Vec<String>,
    probes: BTreeMap<HostId, VecDeque<Time>>,
    /// Datagrams that a host has put on the wire.
    datagrams: BTreeMap<HostId, BTreeMap<Kind, u64>>,
    /// When a host last received something from an address, and who really sent it.
    heard: BTreeMap<(HostId, SocketAddr), (HostId, Time)>,
    /// When a packet of a host to an address last arrived anywhere, and at whom.
    reached: BTreeMap<(HostId, SocketAddr), (HostId, Time)>,
    /// When a host last received something of another, wherever from.
    answered: BTreeMap<(HostId, HostId), Time>,
    wakes: BTreeMap<HostId, (Time, u32)>,
    /// The most probes of one host within a second.
    pub most_probes: usize,
    /// How often each check has looked.
    pub looked: u64,
}

impl Checks {
    /// What was violated, the first first.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// How many datagrams a host has put on the wire, by kind.
    #[must_use]
    pub fn datagrams(&self, host: HostId) -> BTreeMap<Kind, u64> {
        self.datagrams.get(&host).cloned().unwrap_or_default()
    }

    /// Something must not have happened.
    pub fn violate(&mut self, now: Time, what: impl std::fmt::Display) {
        if self.violations.len() < KEPT {
            self.violations.push(format!("{now} {what}"));
        }
    }

    /// A host puts a datagram on the wire.
    pub fn sent(&mut self, now: Time, host: HostId, kind: Kind, bytes: &[u8]) {
        self.wire(now, bytes);
        *self.datagrams.entry(host).or_default().entry(kind).or_default() += 1;
        if !matches!(kind, Kind::Stun | Kind::Disco) {
            return;
        }
        let probes = self.probes.entry(host).or_default();
        while probes.front().is_some_and(|at| now.since(*at) >= Duration::from_secs(1)) {
            probes.pop_front();
        }
        probes.push_back(now);
        self.most_probes = self.most_probes.max(probes.len());
        if probes.len() == PROBES_PER_SECOND + 1 {
            self.violate(
                now,
                format_args!("{host:?} sent more than {PROBES_PER_SECOND} probes within a second"),
            );
        }
    }

    /// Bytes are on a wire, of a datagram or a stream.
    pub fn wire(&mut self, now: Time, bytes: &[u8]) {
        self.looked += 1;
        if contains(bytes, &MARK) {
            self.violate(now, "plaintext on a wire");
        }
    }

    /// A host has received a datagram from `from`, which `origin` sent to the address `meant`.
    pub fn heard(
        &mut self,
        now: Time,
        (host, from): (HostId, SocketAddr),
        (origin, meant): (HostId, SocketAddr),
    ) {
        self.heard.insert((host, from), (origin, now));
        self.reached.insert((origin, meant), (host, now));
        self.answered.insert((host, origin), now);
    }

    /// Whether a packet to `addr` has reached `peer` lately, and `peer` was heard since. A NAT that takes another port
    /// for each destination shows the answer from there, and the address that was asked is the path all the same.
    fn round_trip(&self, now: Time, (host, peer): (HostId, HostId), addr: SocketAddr) -> bool {
        let reached = self.reached.get(&(host, addr)).filter(|(who, _)| *who == peer);
        let answered = self.answered.get(&(host, peer));
        reached.zip(answered).is_some_and(|((_, at), back)| now.since(*at) <= PROOF_AGE && back > at)
    }

    /// A host's route to `peer` becomes direct, to `addr`.
    pub fn direct(&mut self, now: Time, (host, peer): (HostId, HostId), addr: SocketAddr) {
        self.looked += 1;
        match self.heard.get(&(host, addr)).copied() {
            Some((origin, at)) if origin == peer && now.since(at) <= PROOF_AGE => {}
            _ if self.round_trip(now, (host, peer), addr) => {}
            heard => self.violate(
                now,
                format_args!("{host:?} goes direct to {peer:?} at {addr} without proof (heard {heard:?})"),
            ),
        }
    }

    /// A host is woken by its deadline.
    pub fn woken(&mut self, now: Time, host: HostId, why: &'static str) {
        let (at, count) = self.wakes.entry(host).or_insert((now, 0));
        if *at == now {
            *count += 1;
        } else {
            (*at, *count) = (now, 1);
        }
        if *count == WAKES_MAX {
            self.violate(now, format_args!("{host:?} is woken again and again at one moment for \"{why}\""));
        }
    }

    /// Whether a host is stuck at this moment: waking it again would never end.
    #[must_use]
    pub fn is_stuck(&self, now: Time, host: HostId) -> bool {
        self.wakes.get(&host).is_some_and(|(at, count)| *at == now && *count >= WAKES_MAX)
    }

    /// What waits in the world.
    pub fn memory(&mut self, now: Time, events: usize, stream_bytes: usize) {
        if events > QUEUE_MAX {
            self.violate(now, format_args!("{events} events wait"));
        }
        if stream_bytes > STREAM_BYTES_MAX {
            self.violate(now, format_args!("{stream_bytes} bytes wait on streams"));
        }
    }
}

/// Whether `bytes` contain `mark`.
fn contains(bytes: &[u8], mark: &[u8; 16]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| *b == mark[0]) {
        rest = &rest[at..];
        if rest.starts_with(mark) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Time = Time::from_secs(5);
    const A: HostId = HostId(0);
    const B: HostId = HostId(1);
    const ELSEWHERE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)), 9);

    #[test]
    fn plaintext_is_found_wherever_it_lies() {
        let mut checks = Checks::default();
        checks.wire(T, b"WARREN PLAINTEX");
        checks.wire(T, b"WWARREN PLAIN TEXT");
        assert!(checks.violations().is_empty());
        checks.wire(T, b"xWWARREN PLAINTEXTx");
        assert_eq!(checks.violations(), ["5.000000s plaintext on a wire"]);
    }

    #[test]
    fn a_direct_route_needs_a_recent_packet_of_that_very_peer() {
        let addr = SocketAddr::from(([203, 0, 113, 2], 7));
        let verdict = |heard: Option<(HostId, u64)>| {
            let mut checks = Checks::default();
            if let Some((origin, at)) = heard {
                checks.heard(Time::from_secs(at), (A, addr), (origin, ELSEWHERE));
            }
            checks.direct(T, (A, B), addr);
            checks.violations().is_empty()
        };
        assert!(verdict(Some((B, 4))));
        assert!(!verdict(Some((A, 4))));
        assert!(!verdict(None));
    }

    #[test]
    fn an_answer_from_elsewhere_proves_the_address_that_was_asked() {
        let asked = SocketAddr::from(([203, 0, 113, 2], 7));
        let verdict = |reached: HostId, answer: u64| {
            let mut checks = Checks::default();
            checks.heard(Time::from_secs(3), (reached, ELSEWHERE), (A, asked));
            checks.heard(Time::from_secs(answer), (A, ELSEWHERE), (B, ELSEWHERE));
            checks.direct(T, (A, B), asked);
            checks.violations().is_empty()
        };
        assert!(verdict(B, 4));
        assert!(!verdict(B, 2), "heard before it can have been asked");
        assert!(!verdict(HostId(2), 4), "somebody else was asked");
    }

    #[test]
    fn probes_are_counted_within_a_second() {
        let mut checks = Checks::default();
        for n in 0..2_000 {
            checks.sent(Time::from_millis(4 * n), A, Kind::Disco, b"");
        }
        assert!(checks.violations().is_empty() && checks.most_probes == 250, "{}", checks.most_probes);
        for _ in 0..PROBES_PER_SECOND {
            checks.sent(Time::from_secs(100), A, Kind::Stun, b"");
            checks.sent(Time::from_secs(100), A, Kind::WireGuard, b"");
        }
        assert!(checks.violations().is_empty());
        checks.sent(Time::from_secs(100), A, Kind::Stun, b"");
        assert_eq!(checks.violations().len(), 1);
    }
}

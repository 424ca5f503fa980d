//! The addresses that a peer might be reached at: where we know them from, what came of probing them, and
//! which of them may be probed at once.

use super::path::Quality;
use super::story::{Outcome, Tried};
use crate::id::LinkId;
use crate::limits;
use crate::time::{Duration, Time};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;

/// How we know a candidate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// The coordinator told us the peer's endpoints.
    Coordinator,
    /// The peer told us itself, through a relay (call-me-maybe).
    CallMeMaybe,
    /// A packet of the peer came from there (peer-reflexive).
    Reflexive,
    /// The peer's router leads this port to it, whoever sends to it.
    Mapped,
}

/// One address of the peer.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// How we know it.
    pub(super) source: Source,
    /// The socket that the peer was last heard on from there.
    pub(super) link: Option<LinkId>,
    /// When the peer was last heard from there.
    pub(super) heard: Option<Time>,
    /// Probes sent in this attempt.
    pub(super) probes: u32,
    /// Those since the attempt was last refreshed: they set the pace.
    pub(super) paced: u32,
    /// When the latest probe left.
    pub(super) probed: Option<Time>,
    /// When the next probe of this attempt is due.
    pub(super) next: Option<Time>,
    /// When the latest opener left.
    pub(super) opened: Option<Time>,
    /// When it last answered, and its smoothed round trip.
    pub(super) answer: Option<(Time, Duration)>,
    /// It passed probes but no data: not to be used before this.
    pub(super) benched: Option<Time>,
}

impl Candidate {
    const fn new(source: Source) -> Self {
        Self {
            source,
            link: None,
            heard: None,
            probes: 0,
            paced: 0,
            probed: None,
            next: None,
            opened: None,
            answer: None,
            benched: None,
        }
    }

    /// Takes an answer's round trip in: the first one as it is, later ones smoothed by a quarter, so that
    /// one late answer does not move the choice.
    pub(super) fn answered(&mut self, rtt: Duration, now: Time) -> Duration {
        let smooth = match self.answer {
            Some((at, old)) if now.since(at) < limits::ANSWER_FRESH => (old * 3 + rtt) / 4,
            _ => rtt,
        };
        self.answer = Some((now, smooth));
        self.heard = Some(now);
        smooth
    }

    /// Whether the first packet must come from the peer's side, or its NAT might take another port for good. A router
    /// that leads a port inside does not mistake packets to it for its own.
    pub(super) fn needs_opener(&self, addr: &SocketAddr) -> bool {
        self.source != Source::Mapped && needs_opener(addr)
    }

    /// Whether it may carry data at `now` as far as we know.
    pub(super) fn usable(&self, now: Time) -> bool {
        self.benched.is_none_or(|until| until <= now)
    }

    fn outcome(&self, has_socket: bool, since: Time) -> Outcome {
        match (self.answer, self.heard) {
            (Some((at, rtt)), _) if at >= since => Outcome::Answered(rtt),
            (_, Some(at)) if at >= since => Outcome::HeardOnly,
            _ if !has_socket => Outcome::NoSocket,
            _ if self.probes == 0 => Outcome::Skipped,
            _ => Outcome::Silent,
        }
    }
}

/// All addresses of the peer, never more than [`limits::CANDIDATES_MAX`].
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates(BTreeMap<SocketAddr, Candidate>);

impl Candidates {
    /// Takes a list of this source in: new ones are added, those of the same source that are not in it any
    /// more and were not heard lately are dropped. Answers whether something new came.
    pub(super) fn replace(&mut self, source: Source, list: &[SocketAddr], now: Time) -> bool {
        let list: Vec<SocketAddr> =
            list.iter().map(canonical).filter(usable).take(limits::CANDIDATES_MAX).collect();
        self.0.retain(|addr, c| {
            c.source != source
                || list.contains(addr)
                || c.heard.is_some_and(|at| now.since(at) < limits::CANDIDATE_MEMORY)
        });
        let mut new = false;
        for addr in list {
            match self.0.get_mut(&addr) {
                // The peer's own word is the fresher one; what was heard stays known as such.
                Some(c) if c.source == Source::Coordinator => c.source = source,
                Some(_) => {}
                None => new |= self.add(addr, source, now),
            }
        }
        new
    }

    /// Takes in that the peer's router leads this address to it, or that none does any more.
    pub(super) fn mapped(&mut self, addr: Option<SocketAddr>, now: Time) {
        let addr = addr.as_ref().map(canonical).filter(usable);
        for (other, c) in &mut self.0 {
            if c.source == Source::Mapped && Some(*other) != addr {
                c.source = Source::Coordinator;
            }
        }
        if let Some(addr) = addr
            && (self.0.contains_key(&addr) || self.add(addr, Source::Mapped, now))
            && let Some(c) = self.0.get_mut(&addr)
        {
            c.source = Source::Mapped;
        }
    }

    /// Remembers that the peer was heard from `addr` on `link`. Answers whether the address is new.
    pub(super) fn heard(&mut self, addr: SocketAddr, link: LinkId, now: Time) -> bool {
        let new = !self.0.contains_key(&addr) && self.add(addr, Source::Reflexive, now);
        if let Some(c) = self.0.get_mut(&addr) {
            c.link = Some(link);
            c.heard = Some(now);
        }
        new
    }

    fn add(&mut self, addr: SocketAddr, source: Source, now: Time) -> bool {
        let learned = source == Source::Reflexive;
        let most = if learned { limits::LEARNED_MAX } else { limits::CANDIDATES_MAX - limits::LEARNED_MAX };
        let alike = self.0.values().filter(|c| (c.source == Source::Reflexive) == learned).count();
        if alike >= most && !self.evict(learned, now) {
            return false;
        }
        self.0.insert(addr, Candidate::new(source));
        true
    }

    /// Makes room among those learned from packets or among those told: the one heard longest ago goes,
    /// unless all answered lately. Packets never displace what was told.
    fn evict(&mut self, learned: bool, now: Time) -> bool {
        let worst = self
            .0
            .iter()
            .filter(|(_, c)| (c.source == Source::Reflexive) == learned)
            .filter(|(_, c)| c.answer.is_none_or(|(at, _)| now.since(at) > limits::CANDIDATE_MEMORY))
            .min_by_key(|(_, c)| c.heard)
            .map(|(addr, _)| *addr);
        worst.is_some_and(|addr| self.0.remove(&addr).is_some())
    }

    pub(super) fn get(&self, addr: &SocketAddr) -> Option<&Candidate> {
        self.0.get(addr)
    }

    pub(super) fn get_mut(&mut self, addr: &SocketAddr) -> Option<&mut Candidate> {
        self.0.get_mut(addr)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&SocketAddr, &Candidate)> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&SocketAddr, &mut Candidate)> {
        self.0.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets everything, for a peer that started anew.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The addresses, the likeliest first: those that answered, those heard from, near ones, the rest.
    pub(super) fn ranked(&self) -> Vec<SocketAddr> {
        let mut list: Vec<_> = self.0.iter().collect();
        list.sort_by_key(|(addr, c)| {
            (
                core::cmp::Reverse(c.answer.map(|(at, _)| at)),
                core::cmp::Reverse(c.heard),
                core::cmp::Reverse(Quality::points(addr.ip())),
                c.source != Source::Mapped,
                c.source == Source::Coordinator,
                **addr,
            )
        });
        list.into_iter().map(|(addr, _)| *addr).collect()
    }

    /// What was tried since `since` and what came of it.
    pub(super) fn tried(&self, since: Time, has_socket: impl Fn(&SocketAddr) -> bool) -> Vec<Tried> {
        self.ranked()
            .into_iter()
            .filter_map(|addr| {
                let c = self.0.get(&addr)?;
                let outcome = c.outcome(has_socket(&addr), since);
                Some(Tried { addr, source: c.source, probes: c.probes, outcome })
            })
            .collect()
    }
}

/// IPv4-mapped IPv6 addresses as what they are.
pub(super) fn canonical(addr: &SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Whether a datagram can be sent there at all. IPv6 link-local addresses need an interface, which no
/// message carries.
fn usable(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let link_local_v6 = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !link_local_v6 && !broadcast
}

/// Whether a NAT that remaps ports for good may sit before `addr`, so that the first packet must come from
/// the inside: a public IPv4 address. Private, loopback and carrier-shared ones are met without a NAT
/// between or not at all; IPv6 has firewalls, which an early packet does not upset.
pub(super) fn needs_opener(addr: &SocketAddr) -> bool {
    let IpAddr::V4(ip) = addr.ip() else { return false };
    let [a, b, ..] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_public_ipv4_needs_an_opener() {
        for near in
            ["127.0.0.1:1", "10.1.2.3:1", "172.20.0.1:1", "192.168.9.9:1", "169.254.1.1:1", "100.64.0.1:1"]
        {
            assert!(!needs_opener(&addr(near)), "{near}");
        }
        for far in ["8.8.8.8:1", "100.128.0.1:1", "172.32.0.1:1"] {
            assert!(needs_opener(&addr(far)), "{far}");
        }
        assert!(!needs_opener(&addr("[2001:db8::1]:1")));
    }

    #[test]
    fn addresses_that_lead_nowhere_are_not_taken_in() {
        let mut all = Candidates::default();
        let list: Vec<_> =
            ["0.0.0.0:9", "10.0.0.1:0", "224.0.0.1:9", "[fe80::1]:9", "255.255.255.255:9", "[::]:9"]
                .map(addr)
                .into();
        assert!(!all.replace(Source::Coordinator, &list, Time::ZERO));
        assert!(all.replace(Source::CallMeMaybe, &[addr("[::ffff:10.0.0.1]:9")], Time::ZERO));
        assert_eq!(all.ranked(), [addr("10.0.0.1:9")]);
    }

    #[test]
    fn a_mapped_port_is_probed_without_an_opener_as_long_as_it_is_one() {
        let mut all = Candidates::default();
        let far = addr("203.0.113.7:9");
        all.replace(Source::Coordinator, &[far], Time::ZERO);
        assert!(all.get(&far).unwrap().needs_opener(&far));
        all.mapped(Some(far), Time::ZERO);
        all.replace(Source::CallMeMaybe, &[far], Time::ZERO);
        assert!(!all.get(&far).unwrap().needs_opener(&far));
        all.mapped(None, Time::ZERO);
        assert!(all.get(&far).unwrap().needs_opener(&far));
        all.mapped(Some(addr("203.0.113.7:10")), Time::ZERO);
        assert_eq!(all.ranked(), [addr("203.0.113.7:10"), far]);
    }

    #[test]
    fn a_new_list_replaces_its_own_source_only_and_spares_what_was_heard() {
        let mut all = Candidates::default();
        let now = Time::from_secs(1);
        all.replace(Source::Coordinator, &[addr("10.0.0.1:9"), addr("10.0.0.2:9")], now);
        all.replace(Source::CallMeMaybe, &[addr("10.0.0.3:9"), addr("10.0.0.4:9")], now);
        all.heard(addr("10.0.0.4:9"), LinkId(1), now);
        all.replace(Source::CallMeMaybe, &[], now + Duration::from_secs(1));
        assert_eq!(all.ranked(), [addr("10.0.0.4:9"), addr("10.0.0.1:9"), addr("10.0.0.2:9")]);
    }

    #[test]
    fn strangers_never_displace_what_was_told_nor_grow_without_bound() {
        let mut all = Candidates::default();
        let now = Time::from_secs(1);
        let told: Vec<_> = (0..200).map(|i| addr(&format!("10.0.0.1:{}", i + 1))).collect();
        all.replace(Source::Coordinator, &told, now);
        let kept = all.len();
        for port in 1..500 {
            all.heard(addr(&format!("10.9.9.9:{port}")), LinkId(0), now + Duration::from_millis(port));
        }
        assert_eq!((kept, all.len()), (limits::CANDIDATES_MAX - limits::LEARNED_MAX, limits::CANDIDATES_MAX));
        assert!(all.get(&addr("10.9.9.9:499")).is_some() && all.get(&addr("10.9.9.9:1")).is_none());
        assert!(all.replace(Source::CallMeMaybe, &[addr("10.8.8.8:8")], now));
        assert_eq!(all.len(), limits::CANDIDATES_MAX);
    }
}

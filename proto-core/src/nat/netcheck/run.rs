//! One run of the netcheck: what was asked, what came back, when it is over.

use crate::id::{LinkId, RegionId};
use crate::limits;
use crate::nat::classify::Observation;
use crate::nat::home::Latencies;
use crate::nat::netcheck::filtering::Offer;
use crate::nat::plan::{Family, Plan, Probe};
use crate::time::{Time, earliest};
use crate::wire::stun::{Places, TransactionId};
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A request on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) region: RegionId,
    pub(super) link: LinkId,
    pub(super) server: SocketAddr,
    pub(super) at: Time,
}

/// A request whose time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Due {
    pub(super) region: RegionId,
    pub(super) family: Family,
    /// Index into the region's servers.
    pub(super) server: usize,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) started: Time,
    pub(super) full: bool,
    sets: BTreeMap<(RegionId, Family), VecDeque<Probe>>,
    sent: BTreeMap<TransactionId, Sent>,
    /// Requests that wait for their server's name.
    pub(super) unresolved: Vec<Due>,
    /// Names asked for in this run.
    pub(super) asked: BTreeSet<String>,
    pub(super) seen: Vec<Observation>,
    pub(super) latencies: [Latencies; 2],
    offer: Option<Offer>,
    enough: usize,
    stop: Option<Time>,
}

impl Run {
    pub(super) fn new(plan: Plan, full: bool, now: Time) -> Self {
        let regions: BTreeSet<_> = plan.keys().map(|(region, _)| *region).collect();
        Self {
            started: now,
            full,
            sets: plan.into_iter().map(|(key, probes)| (key, probes.into())).collect(),
            sent: BTreeMap::new(),
            unresolved: Vec::new(),
            asked: BTreeSet::new(),
            seen: Vec::new(),
            latencies: Default::default(),
            offer: None,
            enough: limits::STUN_ENOUGH.min(regions.len()),
            stop: None,
        }
    }

    /// Takes the next request whose time has come. `mapping_known` says that a further IPv4 answer of a
    /// measured region would teach nothing.
    pub(super) fn due(&mut self, mapping_known: bool, now: Time) -> Option<Due> {
        loop {
            let (key, probe) = self
                .sets
                .iter()
                .filter_map(|(key, probes)| Some((*key, *probes.front()?)))
                .filter(|(_, probe)| self.started + probe.after <= now)
                .min_by_key(|(key, probe)| (probe.after, *key))?;
            let (region, family) = key;
            if !self.helps(region, family, mapping_known) {
                self.sets.remove(&key);
                continue;
            }
            let silent = self.sent.len() < limits::STUN_REQUESTS_MAX && self.seen.is_empty();
            let set = self.sets.entry(key).or_default();
            set.pop_front();
            if set.is_empty() && silent {
                // Nothing at all has come back: keep trying, ever more slowly, rather than call UDP blocked.
                let after = (probe.after * 2).max(limits::STUN_RETRY * 4);
                set.push_back(Probe { server: probe.server + 1, after });
            }
            return Some(Due { region, family, server: probe.server });
        }
    }

    fn helps(&self, region: RegionId, family: Family, mapping_known: bool) -> bool {
        let measured = self.latencies.iter().any(|l| l.contains_key(&region));
        match family {
            Family::V4 => !measured || !mapping_known,
            Family::V6 => !measured || self.latencies[1].is_empty(),
        }
    }

    pub(super) fn sent(&mut self, tx: TransactionId, sent: Sent) {
        if self.sent.len() < limits::STUN_REQUESTS_MAX {
            self.sent.insert(tx, sent);
        }
    }

    /// Takes an answer; gives what it answered, or nothing if it is not ours.
    pub(super) fn answer(&mut self, tx: &TransactionId, mapped: SocketAddr, now: Time) -> Option<Sent> {
        let sent = self.sent.remove(tx)?;
        let family = Family::of(sent.server.ip());
        let latencies = &mut self.latencies[family as usize];
        let latency = now.since(sent.at);
        let known = latencies.entry(sent.region).or_insert(latency);
        *known = latency.min(*known);
        self.seen.push(Observation { link: sent.link, server: sent.server, mapped });
        self.sets.remove(&(sent.region, family));
        self.unresolved.retain(|due| (due.region, due.family) != (sent.region, family));
        let measured = self.sample();
        if measured.len() >= self.enough && self.stop.is_none() {
            let slowest = measured.values().max().copied().unwrap_or_default();
            let patience = if self.full { slowest * 2 } else { slowest };
            self.stop = Some(now + patience.max(limits::STUN_PATIENCE));
        }
        Some(sent)
    }

    /// What the server that answered `sent` told of its addresses. The offer of one with two addresses is the best.
    pub(super) fn offered(&mut self, sent: &Sent, mapped: SocketAddr, places: Places, now: Time) {
        let better = |old: &Offer| old.other.is_none() && places.other.is_some();
        let offers = places.origin.or(places.other).is_some() && sent.server.is_ipv4() && mapped.is_ipv4();
        if offers && self.offer.as_ref().is_none_or(better) {
            let seen = Observation { link: sent.link, server: sent.server, mapped };
            let round_trip = now.since(sent.at);
            let Places { other, second_port, .. } = places;
            self.offer = Some(Offer { seen, other, second_port, round_trip, preserved: false });
        }
    }

    /// A server that can answer from where we have never sent anything.
    pub(super) fn offer(&self) -> Option<Offer> {
        let mut offer = self.offer?;
        let asked = || self.sent.values().map(|s| s.server).chain(self.seen.iter().map(|o| o.server));
        let server = offer.seen.server;
        if asked().any(|to| to != server && to.ip() == server.ip()) {
            return None;
        }
        offer.other = offer.other.filter(|other| asked().all(|to| to.ip() != other.ip()));
        Some(offer)
    }

    /// The shortest round trip of each region measured.
    pub(super) fn sample(&self) -> Latencies {
        let mut all = self.latencies[0].clone();
        for (region, latency) in &self.latencies[1] {
            let known = all.entry(*region).or_insert(*latency);
            *known = (*known).min(*latency);
        }
        all
    }

    /// Whether anything was asked.
    pub(super) fn asked_anything(&self) -> bool {
        !self.sent.is_empty() || !self.seen.is_empty()
    }

    pub(super) fn over(&self, now: Time) -> bool {
        self.sets.is_empty() || now >= self.end().0
    }

    fn end(&self) -> (Time, &'static str) {
        let latest = self.started + limits::STUN_PHASE;
        match self.stop {
            Some(stop) if stop < latest => (stop, "netcheck has enough answers"),
            _ => (latest, "netcheck ends"),
        }
    }

    pub(super) fn deadline(&self) -> (Time, &'static str) {
        if self.sets.is_empty() {
            return (self.started, "netcheck ends");
        }
        let next = self.sets.values().filter_map(|probes| Some(self.started + probes.front()?.after)).min();
        earliest(Some(self.end()), next.map(|at| (at, "netcheck request")))
            .unwrap_or((self.end().0, "netcheck ends"))
    }
}

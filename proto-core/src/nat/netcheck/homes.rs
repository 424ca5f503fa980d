//! The home relay as the world lets it be: the one that somebody chose, else the nearest by measurement, but never
//! one that cannot be reached while another can.
//!
//! A chosen region is home from the start. While it is away, the home is what it would be without the choice, the
//! chosen region is kept warm so that its return is noticed, and home returns once it has been up for
//! [`limits::HOME_RETURN`].

use crate::id::RegionId;
use crate::limits;
use crate::nat::home::{HomeSelector, Latencies};
use crate::relay_map::RelayMap;
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the relays, and the home chosen from it.
#[derive(Debug, Default)]
pub(super) struct Homes {
    selector: HomeSelector,
    /// The regions that the map allows as homes, and the chosen one.
    eligible: BTreeSet<RegionId>,
    /// The first of these alone.
    allowed: BTreeSet<RegionId>,
    /// The region that somebody chose, if the map has it.
    chosen: Option<RegionId>,
    relays: BTreeMap<RegionId, Relay>,
    /// Since when the home is wanted and not up.
    waiting: Option<Time>,
    controlled: bool,
    /// Whether peers have learned of the home.
    announced: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Relay {
    up: bool,
    /// Since when it has been up, if it is.
    since: Time,
    /// It was tried and failed, and has not been up since.
    failed: bool,
    strikes: u32,
    shunned_until: Option<Time>,
    /// It has said that it is about to stop, and has not come up since.
    leaving: bool,
    /// It does not answer, while another one does.
    silent: bool,
}

impl Homes {
    pub(super) const fn current(&self) -> Option<RegionId> {
        self.selector.current()
    }

    /// The region to keep connected besides home: the chosen one if it is not home, else the nearest other one.
    pub(super) fn warm(&self, latencies: &Latencies, now: Time) -> Option<RegionId> {
        if let Some(chosen) = self.chosen.filter(|chosen| Some(*chosen) != self.current()) {
            return Some(chosen);
        }
        self.alternatives(now).min_by_key(|r| (latencies.get(r).copied().unwrap_or(Duration::MAX), *r))
    }

    pub(super) fn set_map(&mut self, map: &RelayMap, now: Time) {
        let pick = |fit: fn(&crate::relay_map::RelayRegion) -> bool| {
            map.regions.iter().filter(move |(_, r)| fit(r)).map(|(id, _)| *id).take(limits::STUN_REGIONS_MAX)
        };
        self.allowed = pick(|r| r.can_be_home()).collect();
        if self.allowed.is_empty() {
            // Better a home that the map advises against than none: nobody could reach us.
            self.allowed = pick(|r| r.has_relay()).collect();
        }
        self.chosen = self.chosen.filter(|r| map.regions.get(r).is_some_and(|r| r.has_relay()));
        self.eligible = self.allowed.iter().copied().chain(self.chosen).collect();
        // A home that the map does not name any more, but works still, is left once another is up.
        let old = self.current().filter(|home| self.is_dropped(*home) && self.up(*home));
        self.relays.retain(|region, _| map.regions.contains_key(region) || old == Some(*region));
        self.selector.set_scores(self.eligible.iter().map(|r| (*r, map.score_permille(*r))).collect());
        if old.is_none() && self.current().is_none_or(|home| !self.eligible.contains(&home)) {
            let first = self.chosen.or_else(|| self.best_alternative(&Latencies::new(), now));
            self.selector.provisional(first);
        }
        self.watch(now);
    }

    /// Somebody chose a region, or nobody does any more. Say it before the map that has the region.
    pub(super) fn choose(&mut self, chosen: Option<RegionId>, now: Time) {
        if self.chosen == chosen {
            return;
        }
        self.chosen = chosen;
        self.eligible = self.allowed.iter().copied().chain(chosen).collect();
        if chosen.is_some() && !self.announced {
            self.selector.provisional(chosen);
        }
        self.watch(now);
    }

    pub(super) fn relay(&mut self, region: RegionId, up: bool, now: Time) {
        if self.relays.len() >= limits::REGIONS_HEARD_MAX && !self.relays.contains_key(&region) {
            return;
        }
        let relay = self.relays.entry(region).or_default();
        let since = if relay.up { relay.since } else { now };
        *relay =
            if up { Relay { up, since, ..Relay::default() } } else { Relay { up, failed: true, ..*relay } };
        if up {
            self.selector.heard(region, now);
        }
        self.watch(now);
    }

    /// A region's relay is about to stop.
    pub(super) fn leaving(&mut self, region: RegionId, now: Time) {
        if let Some(relay) = self.relays.get_mut(&region) {
            relay.leaving = true;
            relay.shunned_until = Some(now + limits::HOME_SHUN);
        }
    }

    /// A region's relay does not answer, while another one does; or it is heard again.
    pub(super) fn silent(&mut self, region: RegionId, silent: bool, now: Time) {
        if let Some(relay) = self.relays.get_mut(&region).filter(|relay| relay.silent != silent) {
            relay.silent = silent;
            relay.since = now;
            relay.shunned_until = Some(now + limits::HOME_SHUN);
        }
    }

    pub(super) fn heard(&mut self, region: RegionId, now: Time) {
        self.selector.heard(region, now);
    }

    pub(super) fn controlled(&mut self, controlled: bool) {
        self.controlled = controlled;
        self.announced |= controlled;
    }

    /// A run that began at `started` measured `sample`.
    pub(super) fn measured(&mut self, sample: &Latencies, started: Time, now: Time) {
        let usable = |r: &RegionId| self.eligible.contains(r) && !self.shunned(*r, now);
        let sample: Latencies = sample.iter().filter(|(r, _)| usable(r)).map(|(r, l)| (*r, *l)).collect();
        let judged = self.selector.judge(sample, started, now);
        if self.current().is_some() && self.current() == self.chosen {
            // What was measured counts once the chosen region is away.
            return;
        }
        let fallback = self.best_alternative(&Latencies::new(), now);
        self.selector.settle(judged, self.free(), fallback);
        self.watch(now);
    }

    pub(super) fn network_changed(&mut self, now: Time) {
        self.selector.forget();
        for relay in self.relays.values_mut() {
            *relay = Relay { up: relay.up, since: relay.since, ..Relay::default() };
        }
        self.waiting = None;
        self.watch(now);
    }

    /// Moves away from a home that cannot be reached, if it is time, and from one that is about to stop, is silent or
    /// not in the map any more, once another is up: peers are told of the new home, so it must be possible to reach
    /// us there.
    pub(super) fn tick(&mut self, latencies: &Latencies, now: Time) {
        if self.current().is_some_and(|home| self.is_dropped(home) && !self.up(home)) {
            let next = self.best_alternative(latencies, now);
            self.selector.provisional(next);
            self.watch(now);
        }
        let unfit = |r: &Relay| r.leaving || r.silent;
        let leaving = |region| self.relays.get(&region).is_some_and(unfit) || self.is_dropped(region);
        if self.current().is_some_and(leaving) && self.free() {
            let others = self.eligible.iter().copied().filter(|r| self.up(*r) && !leaving(*r));
            if let Some(next) =
                others.min_by_key(|r| (latencies.get(r).copied().unwrap_or(Duration::MAX), *r))
            {
                self.selector.move_to(next);
                self.watch(now);
            }
        }
        if let Some((chosen, _)) = self.returns().filter(|(_, at)| *at <= now) {
            self.selector.move_to(chosen);
            self.watch(now);
        }
        let (Some(home), Some(due)) = (self.current(), self.away()) else { return };
        if due > now {
            return;
        }
        let relay = self.relays.entry(home).or_default();
        relay.shunned_until = Some(now + limits::HOME_SHUN * (1 << relay.strikes.min(3)));
        relay.strikes += 1;
        if let Some(next) = self.best_alternative(latencies, now) {
            self.selector.move_to(next);
        }
        if Some(home) == self.chosen {
            // What comes after is a stopgap: the next measurement may replace it freely.
            self.selector.provisional(self.selector.current());
        }
        self.waiting = None;
        self.watch(now);
    }

    /// When [`Homes::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Time> {
        let returns = self.returns().map(|(_, at)| at);
        self.away().map_or(returns, |away| Some(returns.map_or(away, |at| at.min(away))))
    }

    /// The chosen region and when home returns to it, if it is up and not home.
    fn returns(&self) -> Option<(RegionId, Time)> {
        let chosen = self.chosen.filter(|chosen| Some(*chosen) != self.current() && self.free())?;
        let relay = self.relays.get(&chosen).filter(|relay| relay.up && !relay.leaving && !relay.silent)?;
        Some((chosen, relay.since + limits::HOME_RETURN))
    }

    /// When home moves away from a relay that is not up.
    fn away(&self) -> Option<Time> {
        let (home, since) = (self.current()?, self.waiting?);
        if !self.free() {
            return None;
        }
        let failed = self.relays.get(&home).is_some_and(|r| r.failed);
        let mut others = self.eligible.iter().filter(|r| **r != home);
        if failed {
            let free_at = |r| self.relays.get(r).and_then(|r| r.shunned_until).unwrap_or(Time::ZERO);
            others.map(free_at).min().map(|free| free.max(since + limits::HOME_DOWN_GRACE))
        } else {
            others.any(|r| self.up(*r)).then(|| since + limits::HOME_UP_PATIENCE)
        }
    }

    /// Whether a region cannot be home, while others can.
    fn is_dropped(&self, region: RegionId) -> bool {
        !self.eligible.is_empty() && !self.eligible.contains(&region)
    }

    /// Whether the home may move: peers can learn of it, or have not learned of any yet.
    const fn free(&self) -> bool {
        self.controlled || !self.announced
    }

    fn watch(&mut self, now: Time) {
        self.waiting = match self.current() {
            Some(home) if !self.up(home) => self.waiting.or(Some(now)),
            _ => None,
        };
    }

    fn up(&self, region: RegionId) -> bool {
        self.relays.get(&region).is_some_and(|r| r.up)
    }

    fn shunned(&self, region: RegionId, now: Time) -> bool {
        self.relays.get(&region).is_some_and(|r| r.shunned_until.is_some_and(|until| now < until))
    }

    fn alternatives(&self, now: Time) -> impl Iterator<Item = RegionId> + '_ {
        let home = self.current();
        self.eligible.iter().copied().filter(move |r| Some(*r) != home && !self.shunned(*r, now))
    }

    fn best_alternative(&self, latencies: &Latencies, now: Time) -> Option<RegionId> {
        self.alternatives(now)
            .min_by_key(|r| (!self.up(*r), latencies.get(r).copied().unwrap_or(Duration::MAX), *r))
    }
}

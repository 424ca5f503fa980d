//! Which relay is home: the nearest, with enough reluctance that jitter never moves it.

use crate::id::RegionId;
use crate::limits;
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, VecDeque};

/// Round trips to regions, as one run measured them.
pub type Latencies = BTreeMap<RegionId, Duration>;

/// Chooses the home region from what runs measured. Ties go to the lower number.
#[derive(Debug, Default)]
pub struct HomeSelector {
    current: Option<RegionId>,
    measured: bool,
    history: VecDeque<(Time, Latencies)>,
    scores: BTreeMap<RegionId, u32>,
    heard: BTreeMap<RegionId, Time>,
}

impl HomeSelector {
    /// The home, if there is one.
    #[must_use]
    pub const fn current(&self) -> Option<RegionId> {
        self.current
    }

    /// Sets the home without a measurement; the next one may move it freely.
    pub fn provisional(&mut self, home: Option<RegionId>) {
        self.current = home;
        self.measured = false;
    }

    /// Moves the home for a reason other than a measurement, which then has to be clearly better.
    pub fn move_to(&mut self, home: RegionId) {
        self.current = Some(home);
        self.measured = true;
    }

    /// Factors for a region's latency, in thousandths; zero is ignored.
    pub fn set_scores(&mut self, scores: BTreeMap<RegionId, u32>) {
        self.scores = scores;
    }

    /// Forgets what was measured: the network is another one.
    pub fn forget(&mut self) {
        self.history.clear();
        self.measured = false;
    }

    /// A relay of `region` said something.
    pub fn heard(&mut self, region: RegionId, now: Time) {
        if self.heard.len() >= limits::REGIONS_HEARD_MAX && !self.heard.contains_key(&region) {
            self.heard.pop_first();
        }
        self.heard.insert(region, now);
    }

    /// Judges a run that began at `started`: the region that it speaks for, or none if it measured nothing
    /// and the old home has been silent too. The caller decides with [`HomeSelector::settle`].
    pub fn judge(&mut self, sample: Latencies, started: Time, now: Time) -> Option<RegionId> {
        self.history.retain(|(at, _)| now.since(*at) <= limits::HOME_HISTORY);
        while self.history.len() >= limits::HOME_HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back((now, sample.clone()));
        let best = sample.keys().filter_map(|region| Some((self.best(*region)?, *region))).min();
        let old = self.current.filter(|old| self.measured || sample.contains_key(old));
        let (Some((best, region)), Some(old)) = (best, old) else {
            return best.map(|(_, region)| region).or_else(|| self.lingering(now));
        };
        let old_now = sample.get(&old).map_or(Duration::ZERO, |latency| self.scored(old, *latency));
        let accessible = !old_now.is_zero() || self.heard_since(old, started, now);
        let near = old_now.saturating_sub(best) < limits::HOME_HYSTERESIS;
        let similar = best > old_now / 3 * 2;
        Some(if accessible && (near || similar) { old } else { region })
    }

    /// Makes a judgement the home. While peers cannot learn of a move (`controlled` is false), an old home
    /// stays. With no judgement the old home stays, or `fallback` becomes it.
    pub fn settle(&mut self, judged: Option<RegionId>, controlled: bool, fallback: Option<RegionId>) {
        if let (Some(_), false, true) = (self.current, controlled, self.measured) {
            return;
        }
        match judged {
            Some(region) => self.move_to(region),
            None => self.current = self.current.or(fallback),
        }
    }

    fn best(&self, region: RegionId) -> Option<Duration> {
        self.history.iter().filter_map(|(_, run)| run.get(&region)).min().map(|l| self.scored(region, *l))
    }

    fn scored(&self, region: RegionId, latency: Duration) -> Duration {
        match self.scores.get(&region) {
            Some(score) if *score > 0 => latency * *score / 1_000,
            _ => latency,
        }
    }

    fn heard_since(&self, region: RegionId, started: Time, now: Time) -> bool {
        self.heard.get(&region).is_some_and(|at| *at >= started || now.since(*at) <= limits::HOME_HEARD)
    }

    fn lingering(&self, now: Time) -> Option<RegionId> {
        self.current.filter(|home| {
            self.heard.get(home).is_some_and(|at| now.since(*at) <= limits::HOME_WITHOUT_SAMPLE)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R1: RegionId = RegionId(1);
    const R2: RegionId = RegionId(2);
    const R3: RegionId = RegionId(3);

    /// Runs one report after another, each `(at, [(region, latency in ms)])`, and gives the homes.
    fn homes(selector: &mut HomeSelector, runs: &[(u64, &[(RegionId, u64)])]) -> Vec<Option<u64>> {
        runs.iter()
            .map(|(at, sample)| {
                let now = Time::from_secs(*at);
                let sample = sample.iter().map(|(r, ms)| (*r, Duration::from_millis(*ms))).collect();
                let judged = selector.judge(sample, now, now);
                selector.settle(judged, true, None);
                judged.map(|r| r.0)
            })
            .collect()
    }

    fn fresh(runs: &[(u64, &[(RegionId, u64)])]) -> Vec<Option<u64>> {
        homes(&mut HomeSelector::default(), runs)
    }

    #[test]
    fn the_best_of_recent_runs_is_home() {
        let mut selector = HomeSelector::default();
        let runs: [(u64, &[(RegionId, u64)]); 5] = [
            (0, &[(R1, 2_000), (R2, 3_000)]),
            (1, &[(R1, 4_000), (R2, 3_000)]),
            (2, &[(R2, 3_000)]),
            (3, &[(R1, 4_000), (R2, 3_000)]),
            (603, &[(R3, 2_000)]),
        ];
        assert_eq!(homes(&mut selector, &runs), [1, 1, 2, 1, 3].map(Some));
        assert_eq!(selector.history.len(), 1);
    }

    #[test]
    fn a_home_moves_only_for_a_clear_gain() {
        for (first, second, home) in [
            ((4_000, 5_000), (4_000, 3_000), 1),
            ((4, 5), (4, 1), 1),
            ((4_000, 5_000), (4_000, 1_000), 2),
            ((34, 35), (34, 23), 1),
            ((34, 35), (34, 22), 2),
        ] {
            let runs: [(u64, &[(RegionId, u64)]); 2] =
                [(0, &[(R1, first.0), (R2, first.1)]), (2, &[(R1, second.0), (R2, second.1)])];
            assert_eq!(fresh(&runs), [Some(1), Some(home)], "{first:?} then {second:?}");
        }
    }

    #[test]
    fn scores_weigh_and_nonsense_is_ignored() {
        for (score, sample, home) in
            [(667, (10_000, 8_000), 1), (667, (100_000, 10_000), 2), (0, (10_000, 8_000), 2)]
        {
            let mut selector = HomeSelector::default();
            selector.set_scores(BTreeMap::from([(R1, score)]));
            let runs: [(u64, &[(RegionId, u64)]); 1] = [(0, &[(R1, sample.0), (R2, sample.1)])];
            assert_eq!(homes(&mut selector, &runs), [Some(home)]);
        }
    }

    #[test]
    fn a_home_that_was_heard_lately_stays_though_unmeasured() {
        for (heard, home) in [(15, 1), (10, 2)] {
            let mut selector = HomeSelector::default();
            homes(&mut selector, &[(0, &[(R1, 4), (R2, 5)])]);
            selector.heard(R1, Time::from_secs(heard));
            assert_eq!(homes(&mut selector, &[(20, &[(R2, 100)])]), [Some(home)], "heard at {heard}");
        }
    }

    #[test]
    fn a_provisional_home_that_was_heard_gives_way_unless_it_is_near() {
        for (sample, home) in [(&[(R2, 5)][..], 2), (&[(R1, 12), (R2, 5)], 1), (&[(R1, 300), (R2, 5)], 2)] {
            let mut selector = HomeSelector::default();
            selector.provisional(Some(R1));
            selector.heard(R1, Time::from_secs(1));
            assert_eq!(homes(&mut selector, &[(1, sample)]), [Some(home)], "{sample:?}");
        }
    }

    #[test]
    fn empty_runs_keep_a_home_that_spoke_within_two_minutes() {
        let mut selector = HomeSelector::default();
        homes(&mut selector, &[(0, &[(R1, 2)])]);
        selector.heard(R1, Time::from_secs(0));
        let empty: Vec<(u64, &[(RegionId, u64)])> =
            [20, 40, 60, 80, 119, 121].map(|at| (at, &[][..])).to_vec();
        assert_eq!(homes(&mut selector, &empty), [Some(1), Some(1), Some(1), Some(1), Some(1), None]);
    }

    #[test]
    fn equal_regions_tie_to_the_lower_number() {
        assert_eq!(fresh(&[(0, &[(R3, 7), (R2, 7)])]), [Some(2)]);
    }

    #[test]
    fn the_home_decision_table_holds() {
        let fallback = Some(RegionId(31));
        for (old, judged, controlled, home) in [
            (1, 21, true, 21),
            (1, 21, false, 1),
            (0, 21, false, 21),
            (0, 0, false, 31),
            (1, 0, true, 1),
            (0, 0, true, 31),
        ] {
            let some = |n: u64| (n > 0).then_some(RegionId(n));
            let mut selector = HomeSelector { current: some(old), measured: true, ..HomeSelector::default() };
            selector.settle(some(judged), controlled, fallback);
            assert_eq!(selector.current(), some(home), "{old} {judged} {controlled}");
        }
    }
}

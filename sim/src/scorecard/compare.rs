//! A scorecard against the last one kept: what has become worse.

use super::{Card, Cell};

/// By how much a time may grow before it counts: a reordering of draws moves a percentile of few worlds so far.
const TIME_GROWS: f64 = 1.25;
/// And this much besides, in milliseconds.
const TIME_SLACK_MS: f64 = 50.0;
/// By how much a share may fall.
const SHARE_SLACK: f64 = 0.051;
/// By how much probes may grow, in the same way.
const PROBES_GROW: f64 = 1.5;
const PROBES_SLACK: f64 = 20.0;

/// What is worse in `now` than in `kept`, a sentence each.
#[must_use]
pub fn regressions(kept: &Card, now: &Card) -> Vec<String> {
    let mut worse = Vec::new();
    for old in &kept.cells {
        let same = |cell: &&Cell| cell.a == old.a && cell.b == old.b && cell.loss == old.loss;
        match now.cells.iter().find(same) {
            Some(new) => worse.extend(cell(old, new)),
            None => worse.push(format!("{}+{}: not measured any more", old.a, old.b)),
        }
    }
    worse
}

fn cell(old: &Cell, new: &Cell) -> Vec<String> {
    let mut worse = Vec::new();
    let mut say = |what: &str, old_is: f64, new_is: f64, bad: bool| {
        if bad {
            worse.push(format!("{}+{}: {what} was {old_is:.2}, is {new_is:.2}", old.a, old.b));
        }
    };
    for (what, old, new) in [
        ("share direct", old.direct_share, new.direct_share),
        ("share of right verdicts", old.verdict_right_share, new.verdict_right_share),
    ] {
        say(what, old, new, new < old - SHARE_SLACK);
    }
    if let (Some(old), Some(new)) = (old.time_to_direct_ms, new.time_to_direct_ms) {
        for (what, old, new) in
            [("ms to direct, p50", old.p50, new.p50), ("ms to direct, p95", old.p95, new.p95)]
        {
            say(what, old, new, new > old * TIME_GROWS + TIME_SLACK_MS);
        }
    }
    let (before, after) = (old.probes.p99 as f64, new.probes.p99 as f64);
    say("probes, p99", before, after, after > before * PROBES_GROW + PROBES_SLACK);
    worse
}

#[cfg(test)]
mod tests {
    use super::super::{Counts, Times};
    use super::*;

    fn card(direct: f64, p95: f64, right: f64, probes: u64) -> Card {
        let cell = Cell {
            a: "open".into(),
            b: "linux".into(),
            loss: 0.0,
            seeds: 10,
            possible: true,
            direct_share: direct,
            time_to_direct_ms: Some(Times { p50: 100.0, p95, p99: p95 }),
            probes: Counts { p50: 1, p99: probes },
            verdict_right_share: right,
            verdict_right_within_3s_share: None,
            violated: 0,
        };
        Card { rtt_ms: 50, cells: vec![cell], population: None, faults: vec![] }
    }

    #[test]
    fn what_became_worse_is_told_and_nothing_else() {
        let kept = card(1.0, 200.0, 1.0, 10);
        assert!(regressions(&kept, &kept).is_empty());
        assert!(regressions(&kept, &card(1.0, 100.0, 1.0, 5)).is_empty());
        for worse in [
            card(0.9, 200.0, 1.0, 10),
            card(1.0, 400.0, 1.0, 10),
            card(1.0, 200.0, 0.8, 10),
            card(1.0, 200.0, 1.0, 99),
        ] {
            assert_eq!(regressions(&kept, &worse).len(), 1, "{worse:?}");
        }
        let gone = Card { cells: vec![], ..kept.clone() };
        assert_eq!(regressions(&kept, &gone), ["open+linux: not measured any more"]);
    }
}

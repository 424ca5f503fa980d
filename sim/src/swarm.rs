//! The swarm: worlds whose networks, links and faults the seed draws. While faults come nothing may happen that
//! never must; some time after the last is mended both ends are connected, directly wherever the oracle says so.

use crate::oracle::Outcome;
use crate::world::{Verdict, World};
use plan::draw;
use proto_core::seed::Seed;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub mod plan;

/// What its scenarios are called: `sim replay --scenario swarm --seed N` plays one again.
pub const NAME: &str = "swarm";
/// Failures that are kept with their whole story.
const STORIES: usize = 20;

/// The first seed that a commit draws, so that each tries worlds that nobody has seen, and can be asked for them again.
#[must_use]
pub fn seed_of(commit: &str) -> u64 {
    // Beyond those that everybody tries, and short enough to type.
    Seed::from_u64(0).fork("swarm of a commit").fork(commit).rng().range(1 << 20..1 << 32)
}

/// How many worlds a swarm plays.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The first seed.
    pub first: u64,
    /// So many seeds.
    pub seeds: u64,
    /// No new world after this moment.
    pub end: Option<Instant>,
}

/// What came of a swarm.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Worlds played.
    pub worlds: u64,
    /// Worlds with the way their ends were connected at the end, and whether the oracle expected that.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How much each kind of fault has touched.
    pub bites: BTreeMap<&'static str, u64>,
    /// Worlds that have reached a rare state.
    pub marks: BTreeMap<&'static str, u64>,
    /// How many failed.
    pub failed: u64,
    /// The first failures: the seed, what is wrong, and how to play it again.
    pub failures: Vec<(u64, String)>,
}

/// Plays worlds on all processors.
#[must_use]
pub fn run(size: Size) -> Report {
    let next = AtomicU64::new(0);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= size.seeds || size.end.is_some_and(|end| Instant::now() >= end) {
                        break;
                    }
                    let verdict = World::new(draw(size.first.wrapping_add(n)), false).run();
                    if let Ok(mut report) = report.lock() {
                        report.add(&verdict);
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_default();
    report.failures.sort();
    report
}

/// Whether nothing happened that never must, and both ends are connected as the oracle expects.
///
/// # Errors
/// What is wrong.
pub fn check(verdict: &Verdict) -> Result<(), String> {
    verdict.violations.none()?;
    let direct = verdict.expected == Some(Outcome::Direct);
    if verdict.direct != [Some(direct); 2] {
        return Err(format!(
            "expected {:?} at both ends, client and agent are {:?}",
            verdict.expected, verdict.direct
        ));
    }
    if verdict.echo.answered == 0 {
        return Err("no echo came back".into());
    }
    Ok(())
}

impl Report {
    fn add(&mut self, verdict: &Verdict) {
        self.worlds += 1;
        let outcome = match verdict.direct {
            [Some(true), Some(true)] => "direct",
            [Some(false), Some(false)] => "relayed",
            _ => "neither",
        };
        *self.outcomes.entry(outcome).or_default() += 1;
        for (what, count) in &verdict.bites {
            *self.bites.entry(what).or_default() += count;
        }
        for mark in verdict.marks.keys() {
            *self.marks.entry(mark).or_default() += 1;
        }
        if let Err(why) = check(verdict) {
            self.failed += 1;
            if self.failures.len() < STORIES {
                self.failures.push((verdict.seed, format!("{why}; {}", verdict.replay)));
            }
        }
    }
}

//! Which pairs of networks go direct, how fast, at what cost, and whether `explain` is right about them: many worlds
//! for each pair, as a table, JSON and a page.

use crate::nat::FilterScope;
use crate::netem::LinkProfile;
use crate::oracle::{self, Outcome};
use crate::step::{Role, Scenario};
use crate::topology::Network;
use crate::world::World;
use crate::world::measure::{Measured, Said};
use proto_core::explain::{Reason, Side};
use proto_core::time::{Duration, Time};
use serde::{Deserialize, Serialize};

mod catalogue;
mod compare;
pub mod faults;
mod page;
mod population;
pub mod storm;
mod workers;

pub use catalogue::{Profile, all, find, named, small};
pub use compare::regressions;
pub use page::page;
pub use population::{Population, weigh};

/// From an end to the internet's middle and to a server: a round trip of 50 ms between any two.
const HALF_WAY: Duration = Duration::from_micros(12_500);
/// When the tunnel is asked for: both netchecks are done by then.
const TUNNEL_AT: Time = Time::from_secs(5);
/// How long a pair has to go direct.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is to be measured of a pair.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The client's network.
    pub a: Profile,
    /// The agent's.
    pub b: Profile,
    /// Packets of a million that one way between the two ends loses.
    pub loss_ppm: u32,
    /// Worlds.
    pub seeds: u64,
}

/// Percentiles of a time in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Times {
    /// Half took no longer.
    pub p50: f64,
    /// 95 of a hundred took no longer.
    pub p95: f64,
    /// 99 of a hundred took no longer.
    pub p99: f64,
}

/// Percentiles of a count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Half needed no more.
    pub p50: u64,
    /// 99 of a hundred needed no more.
    pub p99: u64,
}

/// What came of a pair of networks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The client's network.
    pub a: String,
    /// The agent's.
    pub b: String,
    /// The share of packets that one way between the two loses.
    pub loss: f64,
    /// Worlds.
    pub seeds: u64,
    /// Whether the oracle says that a direct path exists.
    pub possible: bool,
    /// The share of worlds in which both ends went direct.
    pub direct_share: f64,
    /// From the coordinator's word until both ends sent directly, of the worlds that got there.
    pub time_to_direct_ms: Option<Times>,
    /// Disco datagrams of both ends until then, or until the end.
    pub probes: Counts,
    /// The share of verdicts, of both ends, that name the true reason and the true side.
    pub verdict_right_share: f64,
    /// The same after three seconds, of the worlds that were not direct by then.
    pub verdict_right_within_3s_share: Option<f64>,
    /// Worlds in which something happened that must never happen.
    #[serde(default)]
    pub violated: u64,
}

/// A scorecard.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Card {
    /// The round trip between the two ends, and between each and a server.
    pub rtt_ms: u64,
    /// The pairs.
    pub cells: Vec<Cell>,
    /// The share of pairs of people and workspaces that go direct, by assumed shares of networks.
    pub population: Option<Population>,
    /// What faults do to a session, if that was measured.
    #[serde(default)]
    pub faults: Vec<faults::Outcome>,
}

impl Card {
    /// Measures these pairs on all processors.
    #[must_use]
    pub fn measure(pairs: &[Pair]) -> Self {
        let cells = workers::run(pairs, cell);
        Self { rtt_ms: 4 * HALF_WAY.as_millis() as u64, population: weigh(&cells), cells, faults: Vec::new() }
    }

    /// The share of verdicts that are right, over all cells.
    #[must_use]
    pub fn verdicts_right(&self) -> f64 {
        let sum: f64 = self.cells.iter().map(|cell| cell.verdict_right_share).sum();
        sum / self.cells.len().max(1) as f64
    }
}

/// Every unordered pair of these networks.
#[must_use]
pub fn pairs(profiles: &[Profile], loss_ppm: u32, seeds: u64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (n, a) in profiles.iter().enumerate() {
        for b in &profiles[n..] {
            pairs.push(Pair { a: a.clone(), b: b.clone(), loss_ppm, seeds });
        }
    }
    pairs
}

/// Two links make one way: what passes both is the square of what passes one.
fn link(loss_ppm: u32) -> LinkProfile {
    let passes = (1.0 - f64::from(loss_ppm.min(1_000_000)) / 1e6).sqrt();
    LinkProfile { loss_ppm: ((1.0 - passes) * 1e6).round() as u32, ..LinkProfile::clean(HALF_WAY) }
}

fn scenario(pair: &Pair, seed: u64) -> Scenario {
    let mut scenario = Scenario::pair(seed, Network::Open, Network::Open);
    scenario.name = format!("{}+{}", pair.a.name, pair.b.name);
    scenario.layers = Some([pair.a.layers.clone(), pair.b.layers.clone()]);
    scenario.links = [link(pair.loss_ppm); 3];
    scenario.tunnel_at = TUNNEL_AT;
    scenario.until = TUNNEL_AT + PATIENCE;
    // Two STUN servers, or nobody could see what a mapping depends on.
    scenario.relays(&[Role::Server, Role::Relay])
}

fn cell(pair: &Pair) -> Cell {
    let worlds: Vec<Measured> = (0..pair.seeds).map(|seed| World::measure(scenario(pair, seed))).collect();
    let sides = [&pair.a, &pair.b].map(|profile| oracle::Side::behind(&profile.layers));
    let possible = oracle::either(sides[0], sides[1], FilterScope::Mapping) == Outcome::Direct;
    let mut times: Vec<f64> =
        worlds.iter().filter_map(|w| w.direct_after).map(|t| t.as_micros() as f64 / 1e3).collect();
    times.sort_by(f64::total_cmp);
    let mut probes: Vec<u64> = worlds.iter().map(|w| w.probes).collect();
    probes.sort_unstable();
    let right = |direct: bool, said: &[Said; 2]| {
        (0..2).filter(|end| said[*end] == Some(truth(sides, *end, direct))).count() as f64 / 2.0
    };
    let of =
        |rights: Vec<f64>| (!rights.is_empty()).then(|| rights.iter().sum::<f64>() / rights.len() as f64);
    let late: Vec<f64> =
        worlds.iter().filter(|w| w.early != [None; 2] && !possible).map(|w| right(false, &w.early)).collect();
    Cell {
        a: pair.a.name.clone(),
        b: pair.b.name.clone(),
        loss: f64::from(pair.loss_ppm) / 1e6,
        seeds: pair.seeds,
        possible,
        direct_share: times.len() as f64 / pair.seeds.max(1) as f64,
        time_to_direct_ms: (!times.is_empty()).then(|| Times {
            p50: *at(&times, 50),
            p95: *at(&times, 95),
            p99: *at(&times, 99),
        }),
        probes: Counts { p50: *at(&probes, 50), p99: *at(&probes, 99) },
        verdict_right_share: of(worlds
            .iter()
            .map(|w| right(w.direct_after.is_some() || possible, &w.said))
            .collect())
        .unwrap_or(0.0),
        verdict_right_within_3s_share: of(late),
        violated: worlds.iter().filter(|w| !w.violations.is_empty()).count() as u64,
    }
}

/// The smallest value that this many of a hundred do not exceed.
fn at<T>(sorted: &[T], percent: usize) -> &T {
    &sorted[(sorted.len() * percent).div_ceil(100).clamp(1, sorted.len()) - 1]
}

/// Why the pair is as it is, as an end that knew everything would say.
fn truth(sides: [oracle::Side; 2], end: usize, direct: bool) -> (Reason, Side) {
    if direct {
        return (Reason::Direct, Side::Between);
    }
    let (ours, theirs) = (sides[end], sides[1 - end]);
    let of = |what: fn(oracle::Side) -> bool| match (what(ours), what(theirs)) {
        (true, true) => Some(Side::Both),
        (true, false) => Some(Side::Ours),
        (false, true) => Some(Side::Theirs),
        (false, false) => None,
    };
    if let Some(side) = of(|side| !side.udp) {
        return (Reason::UdpBlocked, side);
    }
    let hard = of(|side| side.mapping != crate::nat::Dependence::Independent);
    (Reason::HardNat, hard.unwrap_or(Side::Between))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!((*at(&values, 50), *at(&values, 95), *at(&values, 99)), (50, 95, 99));
        assert_eq!((*at(&[7], 50), *at(&[7, 9], 99)), (7, 9));
    }

    #[test]
    fn two_links_lose_what_one_way_is_said_to() {
        for ppm in [0, 20_000, 50_000, 100_000, 200_000] {
            let passes = 1.0 - f64::from(link(ppm).loss_ppm) / 1e6;
            let lost = 1.0 - passes * passes;
            assert!((lost - f64::from(ppm) / 1e6).abs() < 0.000_002, "{ppm}: {lost}");
        }
    }
}

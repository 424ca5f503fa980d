//! What faults do to a session: for each kind the gap that the application sees, over many worlds.

use super::storm::{self, Stormed};
use super::{HALF_WAY, at, link, workers};
use crate::nat::Allocation;
use crate::netem::LinkProfile;
use crate::step::{Role, Scenario, Step};
use crate::topology::Network;
use crate::world::World;
use crate::world::survive::Survived;
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use serde::{Deserialize, Serialize};

/// Both netchecks are over by then, and pairs that can be direct are.
const SETTLED: Time = Time::from_secs(12);
/// The same for an application that is idle: it speaks for the second time within the spread.
const SETTLED_IDLE: Time = Time::from_secs(32);
/// Within this long after it the fault comes: it meets every phase of what is periodic.
const SPREAD: Duration = Duration::from_secs(6);
/// How long a world goes on after its fault.
const AFTER: Duration = Duration::from_secs(20);
/// Between two echoes of an application that is idle: data counts as use of a path for 30 s.
const IDLE: Duration = Duration::from_secs(35);
const IDLE_AFTER: Duration = Duration::from_secs(35 + 20);
/// Between two echoes: the grain of a gap.
const ECHO: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// A world of a day costs as much as many of the others: one for so many of those.
const SEEDS_A_DAY: u64 = 10;
/// A storm of 10,000 nodes costs as much as a hundred worlds of two, and tells of as many nodes.
const SEEDS_A_STORM: u64 = 30;
/// Without a network, while a node moves to another one.
const HANDOVER: Duration = Duration::from_millis(100);
/// A direct path is gone for so long before it heals.
const BROKEN: Duration = Duration::from_secs(8);
/// A relay that drains stops so much later.
const DRAINING: Duration = Duration::from_secs(10);

/// Nodes that come back to one restarted server.
const STORM_NODES: usize = 10_000;

/// What the names of their scenarios begin with.
pub const PREFIX: &str = "fault-";

/// A kind of fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name in the scorecard.
    pub name: &'static str,
    /// What counts that it touched something.
    bite: &'static str,
    networks: [Network; 2],
    /// How the client's home NAT chooses ports.
    ports: Allocation,
    /// Packets of a million that one way between the two ends loses.
    loss_ppm: u32,
    /// What happens how long after the fault's moment.
    steps: fn() -> Vec<(Duration, Step)>,
    /// From the fault's moment until what it broke is whole again.
    over: Duration,
    /// Between two echoes. If that is long, what counts is how long the slowest took.
    pace: Duration,
    /// How long its worlds go on afterwards.
    after: Duration,
    /// Whether the time that counts is the one until both ends are direct, and not the gap.
    until_direct: bool,
    /// The longest gap at p99, where there is a promise.
    pub bound: Option<Duration>,
}

use Network::{PortRestricted, Symmetric};

const NOW: Duration = Duration::ZERO;

const fn fault(name: &'static str, bite: &'static str, steps: fn() -> Vec<(Duration, Step)>) -> Fault {
    let networks = [PortRestricted, PortRestricted];
    let ports = Allocation::Preserve;
    Fault {
        name,
        bite,
        networks,
        ports,
        loss_ppm: 0,
        steps,
        over: NOW,
        pace: ECHO,
        after: AFTER,
        until_direct: false,
        bound: None,
    }
}

impl Fault {
    const fn relayed(self) -> Self {
        Self { networks: [Symmetric, Symmetric], ..self }
    }

    const fn within_ms(self, bound: u64) -> Self {
        Self { bound: Some(Duration::from_millis(bound)), ..self }
    }
}

fn apart(on: bool, after: Duration) -> Vec<(Duration, Step)> {
    let part = |from, to| (after, Step::Partition { from, to, on });
    vec![part(Role::Client, Role::Agent), part(Role::Agent, Role::Client)]
}

fn roam(who: Role, after: Duration) -> (Duration, Step) {
    (after, Step::Roam(who, PortRestricted, HANDOVER))
}

/// Every kind, with the bound that the gap's p99 is to keep.
pub const FAULTS: &[Fault] = &[
    fault("direct-blackhole", "partition", || apart(true, NOW)).within_ms(1_000),
    Fault {
        pace: IDLE,
        after: IDLE_AFTER,
        ..fault("direct-blackhole-idle", "partition", || apart(true, NOW))
    }
    .within_ms(3_000),
    fault("direct-blackhole-one-way", "partition", || apart(true, NOW)[..1].to_vec()).within_ms(1_000),
    fault("link-down", "no route", || {
        vec![(NOW, Step::Unroute { who: Role::Client, to: Role::Agent, on: true })]
    })
    .within_ms(50 + 50),
    fault("link-down-both-ways", "no route", || {
        [vec![(NOW, Step::Unroute { who: Role::Client, to: Role::Agent, on: true })], apart(true, NOW)]
            .concat()
    })
    .within_ms(2 * 50 + 50),
    fault("relay-kill", "stop", || vec![(NOW, Step::Stop(Role::Relay))]).relayed().within_ms(1_000),
    fault("relay-blackhole", "cut", || vec![(NOW, Step::Cut { who: Role::Relay, up: true, down: true })])
        .relayed()
        .within_ms(2_000),
    fault("relay-drain", "drain", || {
        vec![(NOW, Step::Drain(Role::Relay)), (DRAINING, Step::Stop(Role::Relay))]
    })
    .relayed()
    .within_ms(50 + 50),
    fault("roam-one", "roam", || vec![roam(Role::Client, NOW)]).within_ms(2_000),
    fault("roam-both", "roam", || vec![roam(Role::Client, NOW), roam(Role::Agent, NOW)]).within_ms(3_000),
    fault("nat-reboot", "nat reboot", || vec![(NOW, Step::RebootNat(Role::Client))]).within_ms(2_000),
    Fault {
        ports: Allocation::Random,
        ..fault("nat-reboot-new-ports", "nat reboot", || vec![(NOW, Step::RebootNat(Role::Client))])
    }
    .within_ms(2_000),
    Fault {
        over: BROKEN,
        until_direct: true,
        ..fault("heal", "partition", || [apart(true, NOW), apart(false, BROKEN)].concat())
    }
    .within_ms(5_000),
    fault("server-gone", "stop", || {
        let away = Duration::from_secs(10);
        vec![(NOW, Step::Stop(Role::Server)), roam(Role::Client, away), roam(Role::Agent, away)]
    })
    .within_ms(3_000),
    Fault { loss_ppm: 300_000, ..fault("loss", "loss", Vec::new) },
];

/// Faults that last a day, at a packet a second.
pub const DAYS: &[Fault] = &[
    Fault {
        pace: SECOND,
        after: DAY,
        ..fault("server-gone-day", "stop", || {
            let noon = Duration::from_secs(12 * 3_600);
            vec![(NOW, Step::Stop(Role::Server)), roam(Role::Client, noon), roam(Role::Agent, noon)]
        })
    }
    .within_ms(3_000),
    Fault { pace: SECOND, after: DAY, loss_ppm: 50_000, ..fault("loss-day", "loss", Vec::new) },
];

/// What came of a kind of fault.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub fault: String,
    /// Worlds.
    pub seeds: u64,
    /// The longest time without an answer after the fault; for `heal` the time until both ends were direct again.
    pub gap_ms: Gap,
    /// What the p99 is to keep.
    pub bound_ms: Option<f64>,
    /// From the fault, or its end, until both ends were direct, at p99 of the worlds that were by the end.
    pub direct_ms: Option<f64>,
    /// The share of worlds that were direct again.
    pub direct_share: f64,
    /// The most times that a world's client changed between direct and relayed.
    #[serde(default)]
    pub switches: u64,
    /// Worlds whose session broke, or was silent at the end.
    pub lost: u64,
    /// What the fault touched, in all worlds.
    pub bites: u64,
    /// Worlds in which something happened that never must.
    pub violated: u64,
}

/// Percentiles of a gap in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// Half were no longer.
    pub p50: f64,
    /// 99 of a hundred were no longer.
    pub p99: f64,
}

/// Measures every kind of fault in this many worlds each, on all processors.
#[must_use]
pub fn measure(seeds: u64) -> Vec<Outcome> {
    if seeds == 0 {
        return Vec::new();
    }
    let rows = each(FAULTS, seeds).into_iter().chain(storms((seeds / SEEDS_A_STORM).max(1)));
    rows.chain(each(DAYS, (seeds / SEEDS_A_DAY).max(1))).collect()
}

/// Measures each of these in so many worlds; none of them in no world.
#[must_use]
pub fn each(faults: &[Fault], seeds: u64) -> Vec<Outcome> {
    if seeds == 0 {
        return Vec::new();
    }
    let jobs: Vec<(&Fault, u64)> =
        faults.iter().flat_map(|f| (0..seeds).map(move |seed| (f, seed))).collect();
    let survived = workers::run(&jobs, |(fault, seed)| fault.run(*seed));
    let chunks = survived.chunks(usize::try_from(seeds).unwrap_or(usize::MAX).max(1));
    faults.iter().zip(chunks).map(|(fault, worlds)| fault.outcome(worlds)).collect()
}

/// All nodes of a server come back to it at once: how long until nearly all are, and what others wait meanwhile.
#[must_use]
pub fn storms(seeds: u64) -> [Outcome; 2] {
    let jobs: Vec<u64> = (0..seeds).collect();
    let storms = workers::run(&jobs, |seed| storm::run(*seed, STORM_NODES));
    let sorted = |times: Vec<Duration>| {
        let mut times: Vec<f64> = times.into_iter().map(|time| time.as_micros() as f64 / 1e3).collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let nearly_all = |s: &Stormed| s.back.get(STORM_NODES * 95 / 100 - 1).copied().unwrap_or(storm::AFTER);
    let back = sorted(storms.iter().map(nearly_all).collect());
    let requests = sorted(storms.iter().flat_map(|s| s.requests.iter().copied()).collect());
    let outcome = |fault: &str, times: &[f64], bound: f64| Outcome {
        fault: fault.to_owned(),
        seeds,
        gap_ms: Gap { p50: *at(times, 50), p99: *at(times, 99) },
        bound_ms: Some(bound),
        direct_ms: None,
        direct_share: 0.0,
        switches: 0,
        lost: storms.iter().filter(|s| s.never > 0).count() as u64,
        bites: storms.iter().map(|s| s.logins).sum(),
        violated: 0,
    };
    [outcome("storm", &back, 10_000.0), outcome("storm-requests-of-others", &requests, 500.0)]
}

impl Fault {
    /// Its world, the moment of the fault, and the moment when what it broke is whole again.
    #[must_use]
    pub fn scenario(&self, seed: u64) -> (Scenario, Time, Time) {
        let mut rng = Seed::from_u64(seed).fork("fault").rng();
        let spread = u64::try_from(SPREAD.as_micros()).unwrap_or(u64::MAX);
        let settled = if self.pace == IDLE { SETTLED_IDLE } else { SETTLED };
        let moment = settled + Duration::from_micros(rng.range(0..spread));
        let mut scenario =
            Scenario::pair(seed, self.networks[0], self.networks[1]).named(&format!("{PREFIX}{}", self.name));
        // The client's, the agent's, and the servers', which no loss between the two concerns.
        scenario.links = [link(self.loss_ppm), link(self.loss_ppm), LinkProfile::clean(HALF_WAY)];
        let [client, agent] = &mut scenario.nat_layers();
        if self.networks[0] == PortRestricted {
            client.iter_mut().for_each(|nat| nat.allocation = self.ports);
        }
        scenario.layers = Some([client.clone(), agent.clone()]);
        scenario.echo = self.pace;
        scenario.relays = &[Role::Relay, Role::Server];
        scenario.steps = (self.steps)().into_iter().map(|(after, step)| (moment + after, step)).collect();
        let over = moment + self.over;
        scenario.until = over + self.after;
        (scenario, moment, over)
    }

    fn run(&self, seed: u64) -> Survived {
        let (scenario, moment, over) = self.scenario(seed);
        World::survive(scenario, moment, over)
    }

    fn outcome(&self, worlds: &[Survived]) -> Outcome {
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        let sorted = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times
        };
        let direct = sorted(worlds.iter().filter_map(|w| w.direct_after).map(ms).collect());
        let gaps = sorted(
            worlds
                .iter()
                .map(|w| match self {
                    Self { until_direct: true, .. } => w.direct_after.unwrap_or(AFTER),
                    Self { pace, .. } if *pace > ECHO => w.slowest,
                    _ => w.gap,
                })
                .map(ms)
                .collect(),
        );
        let bite = |w: &Survived| w.bites.get(self.bite).copied().unwrap_or(0);
        Outcome {
            fault: self.name.to_owned(),
            seeds: worlds.len() as u64,
            gap_ms: Gap { p50: *at(&gaps, 50), p99: *at(&gaps, 99) },
            bound_ms: self.bound.map(ms),
            direct_ms: (!direct.is_empty()).then(|| *at(&direct, 99)),
            switches: worlds.iter().map(|w| w.switches).max().unwrap_or(0),
            direct_share: direct.len() as f64 / worlds.len() as f64,
            lost: worlds.iter().filter(|w| w.lost).count() as u64,
            bites: worlds.iter().map(bite).sum(),
            violated: worlds.iter().filter(|w| w.violations.none().is_err()).count() as u64,
        }
    }
}

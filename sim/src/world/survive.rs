//! One fault, measured: how long the application went without an answer, and how soon the pair was direct again.

use super::measure::LOOK;
use super::{Process, World, verdict};
use crate::step::{Role, Scenario};
use crate::verdict::Violations;
use proto_core::time::{Duration, Time};
use std::collections::BTreeMap;

/// Silence at the end of a world that is no pause between two echoes.
const QUIET: Duration = Duration::from_secs(10);

/// What a fault did to one world.
#[derive(Clone, Debug)]
pub struct Survived {
    /// The longest time without an answer, from the fault to the end.
    pub gap: Duration,
    /// The longest that one echo took to come back, from the fault to the end.
    pub slowest: Duration,
    /// Whether a stream broke, or nothing came any more at the end.
    pub lost: bool,
    /// From the fault, or from its end where it has one, until both ends sent directly for good; none if that never came.
    pub direct_after: Option<Duration>,
    /// How often the client changed between direct and relayed.
    pub switches: u64,
    /// What the faults have touched.
    pub bites: BTreeMap<&'static str, u64>,
    /// What must never happen and did.
    pub violations: Violations,
}

impl World {
    /// Runs a scenario to its end and measures what the client's echoes see from `fault` on; `over` is when what the
    /// fault broke is whole again, or `fault`.
    #[must_use]
    pub fn survive(scenario: Scenario, fault: Time, over: Time) -> Survived {
        let until = scenario.until;
        let silence = scenario.echo * 4 + QUIET;
        let mut world = Self::new(scenario, false);
        world.run_until(fault);
        let (switches, flows) =
            world.node(Role::Client).map_or((0, 0), |node| (node.switches, node.app.stats.lost_flows));
        if let Some(id) = world.roles.get(&Role::Client).copied()
            && let Process::Node(node) = &mut world.hosts[id.0].process
        {
            let now = node.local(fault);
            node.app.mark(now);
        }
        let mut direct_since = None;
        while world.now < until {
            world.run_until((world.now + LOOK).min(until));
            direct_since = world.both_direct().then(|| direct_since.unwrap_or(world.now));
        }
        let client = world.node(Role::Client);
        let stats = client.map(|node| node.app.stats).unwrap_or_default();
        let silent = client
            .is_none_or(|node| stats.last.is_none_or(|last| node.local(world.now).since(last) > silence));
        let ending = client.map_or(Duration::ZERO, |node| {
            stats.last.map_or(until.since(fault), |last| node.local(world.now).since(last))
        });
        let switches = client.map_or(0, |node| node.switches) - switches;
        let verdict = verdict::judge(world);
        Survived {
            gap: stats.gap.max(ending),
            slowest: stats.slowest,
            lost: silent || stats.lost_flows > flows,
            direct_after: direct_since.map(|since: Time| since.since(over)),
            switches,
            bites: verdict.bites,
            violations: verdict.violations,
        }
    }
}

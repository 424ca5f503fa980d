//! The lab's scenarios: what happens, and what must come of it.

use super::lab::{self, Act, LabPlan, LabVerdict, Spot};
use crate::nat::{Allocation, Hairpin, NatProfile};
use crate::netem::LinkProfile;
use crate::topology::{Meeting, Network};
use proto_core::time::{Duration, Time};

use Network::{CgnatPortRestricted, CgnatSymmetric, FullCone, PortRestricted, Symmetric, UdpBlocked};
use Spot::{Agent, AgentEdge, ClientEdge, Server};

/// A scenario.
#[derive(Clone, Copy)]
pub struct LabScenario {
    /// Its name.
    pub name: &'static str,
    /// What happens, for a seed.
    pub plan: fn(u64) -> LabPlan,
    /// What must come of it.
    pub check: fn(&LabVerdict) -> Result<(), String>,
}

/// The scenarios.
pub const ALL: &[LabScenario] = &[
    LabScenario {
        name: "direct-behind-port-restricted",
        plan: |s| LabPlan::pair(s, PortRestricted, PortRestricted),
        check: |v| {
            demand(v.all(true, 10, 20), "both ends are direct from 10 s on")?;
            demand(v.gap(5, 20) < ms(600), "no gap")
        },
    },
    LabScenario {
        name: "relay-behind-symmetric",
        plan: |s| LabPlan::pair(s, Symmetric, Symmetric),
        check: |v| {
            demand(v.all(false, 1, 20), "both ends are relayed all the time")?;
            demand(v.counters.nat_drops > 0, "the NATs dropped probes")?;
            demand(v.gap(5, 20) < ms(600), "no gap")
        },
    },
    LabScenario {
        name: "udp-blocked",
        plan: |s| LabPlan::pair(s, UdpBlocked, PortRestricted),
        check: |v| {
            demand(v.counters.blocked > 0, "UDP was blocked")?;
            demand(v.all(false, 1, 20), "both ends are relayed all the time")?;
            demand(v.gap(5, 20) < ms(600), "no gap")
        },
    },
    LabScenario {
        name: "carrier-nat",
        plan: |s| LabPlan::pair(s, CgnatPortRestricted, CgnatPortRestricted),
        check: |v| demand(v.all(true, 10, 20), "both ends are direct from 10 s on"),
    },
    LabScenario {
        name: "carrier-nat-symmetric",
        plan: |s| LabPlan::pair(s, CgnatSymmetric, PortRestricted),
        check: |v| demand(v.all(false, 1, 20), "both ends are relayed all the time"),
    },
    LabScenario {
        name: "server-partition-during-transfer",
        plan: |s| {
            let mut plan = LabPlan::pair(s, PortRestricted, PortRestricted).until(45);
            plan.frames = (8_000, Duration::from_millis(50));
            let part = |plan: LabPlan, at, on| {
                plan.act(at, Act::Partition(ClientEdge, Server, on))
                    .act(at, Act::Partition(AgentEdge, Server, on))
            };
            part(part(plan, 10, true), 30, false)
        },
        check: |v| {
            demand(v.counters.partitioned > 0, "the partition stopped something")?;
            demand(v.all(true, 11, 29), "the direct path stays while the server is away")?;
            demand(v.gap(8, 45) < ms(1_500), "data goes on")
        },
    },
    LabScenario {
        name: "relay-partition-and-return",
        plan: |s| {
            LabPlan::pair(s, Symmetric, Symmetric)
                .until(60)
                .act(10, Act::Partition(ClientEdge, Server, true))
                .act(25, Act::Partition(ClientEdge, Server, false))
        },
        check: |v| {
            demand(v.counters.partitioned > 0, "the partition stopped something")?;
            demand(v.between(14, 24).is_empty(), "nothing passes without a relay")?;
            demand(v.gap(45, 60) < ms(1_000), "data flows again")
        },
    },
    LabScenario {
        name: "agent-restart",
        plan: |s| LabPlan::pair(s, PortRestricted, PortRestricted).until(45).act(12, Act::Bounce(Agent)),
        check: |v| {
            demand(v.counters.nodes == 3, "the agent began twice")?;
            demand(v.gap(30, 45) < ms(600), "data flows again")?;
            demand(v.all(true, 38, 45), "directly")
        },
    },
    LabScenario {
        name: "asymmetric-partition",
        plan: |s| {
            LabPlan::pair(s, PortRestricted, PortRestricted)
                .until(60)
                .act(12, Act::OneWay(ClientEdge, AgentEdge, true))
                .act(35, Act::OneWay(ClientEdge, AgentEdge, false))
        },
        check: |v| {
            demand(v.counters.partitioned > 0, "the partition stopped something")?;
            demand(v.gap(12, 60) < ms(6_000), "the relay takes over")?;
            demand(v.gap(22, 34) < ms(1_000), "and carries")?;
            demand(v.all(true, 52, 60), "direct again after it has healed")
        },
    },
    LabScenario {
        name: "direct-path-partition",
        plan: |s| {
            LabPlan::pair(s, PortRestricted, PortRestricted)
                .until(60)
                .act(12, Act::Partition(ClientEdge, AgentEdge, true))
                .act(35, Act::Partition(ClientEdge, AgentEdge, false))
        },
        check: |v| {
            demand(v.counters.partitioned > 0, "the partition stopped something")?;
            demand(v.gap(12, 60) < ms(6_000), "the relay takes over")?;
            demand(v.all(false, 22, 34), "both ends are relayed meanwhile")?;
            demand(v.all(true, 52, 60), "direct again after it has healed")
        },
    },
    LabScenario {
        name: "nat-reboot",
        plan: |s| LabPlan::pair(s, PortRestricted, PortRestricted).until(45).act(12, Act::Bounce(ClientEdge)),
        check: |v| {
            demand(v.counters.gateways == 3, "a gateway began twice")?;
            demand(v.gap(12, 45) < ms(8_000), "data flows again")?;
            demand(v.all(true, 35, 45), "directly")
        },
    },
    LabScenario {
        name: "nat-reboot-new-ports",
        plan: |s| {
            let mut plan = LabPlan::pair(s, PortRestricted, PortRestricted).until(45);
            let random = NatProfile { allocation: Allocation::Random, ..NatProfile::port_restricted() };
            plan.layers = Some([vec![random], vec![NatProfile::port_restricted()]]);
            plan.act(12, Act::Bounce(ClientEdge))
        },
        check: |v| {
            demand(v.counters.gateways == 3, "a gateway began twice")?;
            demand(v.gap(12, 45) < ms(8_000), "data flows again")?;
            demand(v.all(true, 35, 45), "directly")
        },
    },
    LabScenario {
        name: "hairpin",
        plan: |s| LabPlan::pair(s, FullCone, FullCone).meeting(Meeting::SameCarrier(Hairpin::External)),
        check: |v| {
            demand(v.counters.hairpinned > 0, "packets were turned round")?;
            demand(v.all(true, 10, 20), "both ends are direct from 10 s on")
        },
    },
    LabScenario {
        name: "no-hairpin",
        plan: |s| LabPlan::pair(s, FullCone, FullCone).meeting(Meeting::SameCarrier(Hairpin::Off)),
        check: |v| {
            demand(v.counters.nat_drops > 0, "packets were not turned round")?;
            demand(v.all(false, 1, 20), "both ends are relayed all the time")
        },
    },
    LabScenario {
        name: "same-lan",
        plan: |s| LabPlan::pair(s, PortRestricted, PortRestricted).meeting(Meeting::SameLan),
        check: |v| {
            demand(v.counters.local > 0, "packets stayed on the LAN")?;
            demand(v.all(true, 10, 20), "both ends are direct from 10 s on")
        },
    },
    LabScenario {
        name: "relay-stalls",
        plan: |s| {
            LabPlan::pair(s, Symmetric, Symmetric)
                .until(30)
                .act(12, Act::Pause(ClientEdge, true))
                .act(14, Act::Pause(ClientEdge, false))
        },
        check: |v| {
            demand(v.counters.held > 0, "bytes were held")?;
            demand(v.gap(18, 30) < ms(1_000), "data flows again")
        },
    },
    LabScenario {
        name: "server-restart",
        plan: |s| LabPlan::pair(s, Symmetric, PortRestricted).until(45).act(12, Act::Bounce(Server)),
        check: |v| demand(v.gap(25, 45) < ms(1_000), "data flows again through the new relay process"),
    },
    LabScenario {
        name: "home-relay-lost",
        plan: |s| {
            let mut plan = LabPlan::pair(s, Symmetric, Symmetric).until(60);
            plan.second_relay = true;
            plan.act(15, Act::Partition(ClientEdge, Server, true))
                .act(15, Act::Partition(AgentEdge, Server, true))
        },
        check: |v| {
            demand(v.counters.partitioned > 0, "the partition stopped something")?;
            demand(v.gap(40, 60) < ms(1_000), "data flows through the other relay")
        },
    },
    LabScenario {
        name: "lossy-links",
        plan: |s| {
            let mut plan = LabPlan::pair(s, PortRestricted, PortRestricted).until(40);
            let link = LinkProfile::clean(Duration::ZERO).losing(30);
            plan.link = LinkProfile { duplicate_ppm: 20_000, jitter: Duration::from_millis(5), ..link };
            plan
        },
        check: |v| {
            demand(v.counters.lost > 0, "packets were lost")?;
            demand(v.all(true, 30, 40), "both ends are direct in the end")?;
            demand(v.gap(5, 40) < ms(3_000), "no long gap")
        },
    },
];

/// Runs a scenario and checks what came of it.
///
/// # Errors
/// What went wrong, and how to replay it.
pub fn run(scenario: &LabScenario, seed: u64, text: bool) -> Result<LabVerdict, String> {
    let replay =
        format!("replay: cargo run -p sim -- lab --seed {seed} --trace --scenario {}", scenario.name);
    let verdict = lab::run(&(scenario.plan)(seed), text).map_err(|why| format!("{why}\n{replay}"))?;
    match check(scenario, &verdict) {
        Ok(()) => Ok(verdict),
        Err(why) => Err(format!("{why}\n{}\n  {verdict}\n{replay}", verdict.tail)),
    }
}

/// What every scenario demands, and then its own.
///
/// # Errors
/// What is wrong.
fn check(scenario: &LabScenario, verdict: &LabVerdict) -> Result<(), String> {
    if let Some(first) = verdict.violations.first() {
        return Err(format!("violated: {first}"));
    }
    demand(!verdict.echoes.is_empty(), "data passed at all")?;
    let first = verdict.echoes.first().map_or(Time::ZERO, |e| e.back);
    demand(first < Time::from_secs(3), "data passed within 3 s")?;
    (scenario.check)(verdict)
}

fn demand(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("it does not hold that {what}")) }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

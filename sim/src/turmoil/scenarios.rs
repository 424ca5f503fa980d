//! The lab's scenarios: what happens, and what must come of it.

use super::lab::{self, Act, LabPlan, Spot};
use super::verdict::LabVerdict;
use crate::nat::{Allocation, Hairpin, NatProfile};
use crate::netem::LinkProfile;
use crate::topology::{Meeting, Network};
use crate::verdict::Replay;
use proto_core::time::{Duration, Time};
use std::ops::Range;

use Network::{CgnatPortRestricted, CgnatSymmetric, FullCone, PortRestricted, Symmetric, UdpBlocked};
use Spot::{Agent, AgentEdge, ClientEdge, Relay, Server};

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
    lab("direct-behind-port-restricted", homes, |v| {
        translate(v, 2)?;
        goes(v, true, 10..20)?;
        flows(v, 5..20, 600)
    }),
    lab("relay-behind-symmetric", symmetric, |v| {
        translate(v, 2)?;
        goes(v, false, 1..20)?;
        some(v.counters.nat_drops, "the NATs dropped probes")?;
        flows(v, 5..20, 600)
    }),
    lab(
        "udp-blocked",
        |s| LabPlan::pair(s, UdpBlocked, PortRestricted),
        |v| {
            some(v.counters.blocked, "UDP was blocked")?;
            goes(v, false, 1..20)?;
            flows(v, 5..20, 600)
        },
    ),
    lab(
        "carrier-nat",
        |s| LabPlan::pair(s, CgnatPortRestricted, CgnatPortRestricted),
        |v| {
            translate(v, 4)?;
            goes(v, true, 10..20)
        },
    ),
    lab(
        "carrier-nat-symmetric",
        |s| LabPlan::pair(s, CgnatSymmetric, PortRestricted),
        |v| {
            translate(v, 3)?;
            some(v.counters.nat_drops, "the NATs dropped probes")?;
            // The home's port is the same for all, so it guesses the other's.
            goes(v, true, 12..20)
        },
    ),
    lab(
        "server-partition-during-transfer",
        |s| {
            let mut plan = homes(s).until(45);
            plan.frames = (8_000, ms(50));
            apart(plan, &[(ClientEdge, Server), (AgentEdge, Server)], 10..30)
        },
        |v| {
            parted(v)?;
            // The direct path stays while the server is away.
            goes(v, true, 11..29)?;
            flows(v, 8..45, 1_500)
        },
    ),
    lab(
        "relay-partition-and-return",
        |s| apart(symmetric(s).until(60), &[(ClientEdge, Server)], 10..25),
        |v| {
            parted(v)?;
            demand(v.between(14, 24).is_empty(), "nothing passes without a relay")?;
            flows(v, 45..60, 1_000)
        },
    ),
    lab(
        "agent-restart",
        |s| homes(s).until(45).act(12, Act::Bounce(Agent)),
        |v| {
            demand(v.counters.nodes == 3, "the agent began twice")?;
            flows(v, 30..45, 600)?;
            goes(v, true, 38..45)
        },
    ),
    lab(
        "agent-crash",
        |s| homes(s).until(45).act(12, Act::Crash(Agent)).act(22, Act::Bounce(Agent)),
        |v| {
            demand(v.counters.nodes == 3, "the agent began twice")?;
            flows(v, 5..12, 600)?;
            demand(v.between(13, 22).is_empty(), "nobody answers for a dead agent")?;
            flows(v, 30..45, 600)?;
            goes(v, true, 38..45)
        },
    ),
    lab(
        "asymmetric-partition",
        |s| {
            let part = |on| Act::OneWay(ClientEdge, AgentEdge, on);
            homes(s).until(60).act(12, part(true)).act(35, part(false))
        },
        |v| {
            detours(v)?;
            flows(v, 22..34, 1_000)
        },
    ),
    lab(
        "direct-path-partition",
        |s| apart(homes(s).until(60), &[(ClientEdge, AgentEdge)], 12..35),
        |v| {
            detours(v)?;
            goes(v, false, 22..34)
        },
    ),
    lab(
        "no-route",
        |s| homes(s).until(40).act(12, Act::Unroute(AgentEdge, true)).act(25, Act::Unroute(AgentEdge, false)),
        |v| {
            some(v.counters.unrouted, "the client's host refused datagrams")?;
            flows(v, 12..40, 500)?;
            goes(v, true, 35..40)
        },
    ),
    lab(
        "server-gone",
        |s| {
            let plan = homes(s).until(45).relays(&[Relay, Server]).act(12, Act::Crash(Server));
            // Without its coordinator the pair still finds to the other relay, and back.
            apart(plan, &[(ClientEdge, AgentEdge)], 20..30)
        },
        |v| {
            parted(v)?;
            flows(v, 5..45, 1_000)?;
            goes(v, false, 25..29)?;
            goes(v, true, 40..45)
        },
    ),
    lab("nat-reboot", |s| homes(s).until(45).act(12, Act::Bounce(ClientEdge)), punched_anew),
    lab(
        "nat-reboot-new-ports",
        |s| {
            let mut plan = homes(s).until(45).act(12, Act::Bounce(ClientEdge));
            let random = NatProfile { allocation: Allocation::Random, ..NatProfile::port_restricted() };
            plan.layers = Some([vec![random], vec![NatProfile::port_restricted()]]);
            plan
        },
        punched_anew,
    ),
    lab(
        "hairpin",
        |s| LabPlan::pair(s, FullCone, FullCone).meeting(Meeting::SameCarrier(Hairpin::External)),
        |v| {
            some(v.counters.hairpinned, "packets were turned round")?;
            goes(v, true, 10..20)
        },
    ),
    lab(
        "no-hairpin",
        |s| LabPlan::pair(s, FullCone, FullCone).meeting(Meeting::SameCarrier(Hairpin::Off)),
        |v| {
            some(v.counters.nat_drops, "packets were not turned round")?;
            goes(v, false, 1..20)
        },
    ),
    lab(
        "same-lan",
        |s| homes(s).meeting(Meeting::SameLan),
        |v| {
            some(v.counters.local, "packets stayed on the LAN")?;
            goes(v, true, 10..20)
        },
    ),
    lab(
        "relay-stalls",
        |s| {
            let pause = |on| Act::Pause(ClientEdge, on);
            symmetric(s).until(30).act(12, pause(true)).act(14, pause(false))
        },
        |v| {
            some(v.counters.held, "bytes were held")?;
            flows(v, 18..30, 1_000)
        },
    ),
    lab(
        "server-restart",
        |s| LabPlan::pair(s, Symmetric, PortRestricted).until(45).act(12, Act::Bounce(Server)),
        |v| {
            demand(v.counters.servers == 2, "the server began twice")?;
            // Through the new relay process.
            flows(v, 25..45, 1_000)
        },
    ),
    lab(
        "home-relay-lost",
        |s| {
            // Both are equally near, so that the lower number is home.
            let plan = symmetric(s).until(60).relays(&[Server, Relay]);
            plan.act(15, Act::Partition(ClientEdge, Relay, true))
                .act(15, Act::Partition(AgentEdge, Relay, true))
        },
        |v| {
            parted(v)?;
            carry(v)?;
            // Through the other relay.
            flows(v, 5..60, 10_000)?;
            flows(v, 25..60, 1_000)
        },
    ),
    lab(
        "relay-restart",
        |s| symmetric(s).until(30).relays(&[Relay]).act(12, Act::Bounce(Relay)),
        |v| {
            demand(v.counters.servers == 3, "the relay began twice")?;
            demand(v.counters.cut_off == 2, "both nodes were connected to it")?;
            flows(v, 5..30, 2_500)
        },
    ),
    lab(
        "relay-drain",
        |s| {
            // Home is the relay that was there first.
            symmetric(s)
                .until(40)
                .relays(&[Relay])
                .act(8, Act::Map(&[Relay, Server]))
                .act(14, Act::Drain(Relay))
                .act(20, Act::Bounce(Relay))
        },
        |v| {
            demand(v.counters.drained == 2, "both nodes heard that it is about to stop")?;
            demand(v.counters.cut_off == 0, "nobody was there any more when it stopped")?;
            carry(v)?;
            goes(v, false, 5..40)?;
            flows(v, 5..40, 400)
        },
    ),
    lab(
        "map-change",
        |s| symmetric(s).until(40).relays(&[Relay]).act(12, Act::Map(&[Server])).act(25, Act::Map(&[Relay])),
        |v| {
            carry(v)?;
            goes(v, false, 5..40)?;
            flows(v, 5..40, 400)
        },
    ),
    lab(
        "mesh-partition",
        |s| {
            // The client cannot reach the region's first relay and goes to the second; the agent is at the first. Then
            // the relays lose one another. A connection that the client had lost would stay at the relay: turmoil's TCP
            // has no `TCP_USER_TIMEOUT`, as production has. The first lane loses one.
            let mut plan = symmetric(s).until(75).relays(&[Relay, Server]);
            plan.mesh = true;
            apart(apart(plan, &[(ClientEdge, Relay)], 0..70), &[(Server, Relay)], 30..45)
        },
        |v| {
            parted(v)?;
            carry(v)?;
            demand(v.counters.sent_on > 100, "the relays sent on for one another")?;
            flows(v, 12..30, 1_000)?;
            demand(v.between(36, 44).is_empty(), "nothing passes while the mesh is parted")?;
            flows(v, 57..70, 1_000)
        },
    ),
    lab(
        "duplicate-agent",
        |s| {
            // The relay still believes in the old connection when the new process logs in.
            apart(symmetric(s).until(45), &[(AgentEdge, Server)], 12..14).act(13, Act::Bounce(Agent))
        },
        |v| {
            parted(v)?;
            some(v.counters.duplicates, "a key was connected twice")?;
            flows(v, 30..45, 1_000)
        },
    ),
    lab(
        "lossy-links",
        |s| {
            let mut plan = homes(s).until(40);
            let link = LinkProfile::clean(Duration::ZERO).losing(30);
            plan.link = LinkProfile { duplicate_ppm: 20_000, jitter: ms(5), ..link };
            plan
        },
        |v| {
            some(v.counters.lost, "packets were lost")?;
            some(v.counters.duplicated, "packets arrived twice")?;
            some(v.counters.delayed, "packets were delayed")?;
            goes(v, true, 30..40)?;
            flows(v, 5..40, 3_000)
        },
    ),
];

const fn lab(
    name: &'static str,
    plan: fn(u64) -> LabPlan,
    check: fn(&LabVerdict) -> Result<(), String>,
) -> LabScenario {
    LabScenario { name, plan, check }
}

/// Two homes that can be punched through.
fn homes(seed: u64) -> LabPlan {
    LabPlan::pair(seed, PortRestricted, PortRestricted)
}

/// Two homes that cannot.
fn symmetric(seed: u64) -> LabPlan {
    LabPlan::pair(seed, Symmetric, Symmetric)
}

/// Parts each of these pairs, both ways, for these seconds.
fn apart(mut plan: LabPlan, pairs: &[(Spot, Spot)], secs: Range<u64>) -> LabPlan {
    for (at, on) in [(secs.start, true), (secs.end, false)] {
        for (a, b) in pairs {
            plan = plan.act(at, Act::Partition(*a, *b, on));
        }
    }
    plan
}

/// All packets of both ends go so within these seconds.
fn goes(v: &LabVerdict, direct: bool, secs: Range<u64>) -> Result<(), String> {
    let how = if direct { "direct" } else { "relayed" };
    demand(v.all(direct, secs.start, secs.end), &format!("both ends are {how} in the seconds {secs:?}"))
}

/// No gap within these seconds is so long.
fn flows(v: &LabVerdict, secs: Range<u64>, most: u64) -> Result<(), String> {
    let gap = v.gap(secs.start, secs.end);
    demand(
        gap < ms(most),
        &format!("data flows in the seconds {secs:?} without a gap of {most} ms ({gap:?})"),
    )
}

fn some(count: u64, what: &str) -> Result<(), String> {
    demand(count > 0, what)
}

/// So many gateways rewrote packets: the networks are what their names say.
fn translate(v: &LabVerdict, gateways: u64) -> Result<(), String> {
    demand(v.counters.translating == gateways, &format!("{gateways} gateways translate"))
}

fn parted(v: &LabVerdict) -> Result<(), String> {
    some(v.counters.partitioned, "the partition stopped something")
}

/// Both relays had packets of the pair.
fn carry(v: &LabVerdict) -> Result<(), String> {
    demand(v.counters.carried.iter().all(|packets| *packets > 20), "both relays carried packets")
}

/// The direct path is gone from 12 s to 35 s: the relay takes over, and gives back.
fn detours(v: &LabVerdict) -> Result<(), String> {
    parted(v)?;
    flows(v, 12..60, 6_000)?;
    goes(v, true, 52..60)
}

/// The client's gateway began anew at 12 s.
fn punched_anew(v: &LabVerdict) -> Result<(), String> {
    demand(v.counters.gateways == 3, "a gateway began twice")?;
    flows(v, 12..45, 8_000)?;
    goes(v, true, 35..45)
}

/// Runs a scenario and checks what came of it.
///
/// # Errors
/// What went wrong, and how to replay it.
pub fn run(scenario: &LabScenario, seed: u64, text: bool) -> Result<LabVerdict, String> {
    judge(scenario.name, &(scenario.plan)(seed), text, scenario.check)
}

/// Runs a plan and checks what every scenario demands, and then its own.
pub(super) fn judge(
    name: &str,
    plan: &LabPlan,
    text: bool,
    check: impl Fn(&LabVerdict) -> Result<(), String>,
) -> Result<LabVerdict, String> {
    let replay = Replay { command: "lab --trace", scenario: name.into(), seed: plan.seed };
    let verdict = lab::run(plan, text).map_err(|why| format!("{why}\n{replay}"))?;
    match sound(&verdict).and_then(|()| check(&verdict)) {
        Ok(()) => Ok(verdict),
        Err(why) => Err(format!("{why}\n{}\n  {verdict}\n{replay}", verdict.tail)),
    }
}

/// What every scenario demands.
fn sound(verdict: &LabVerdict) -> Result<(), String> {
    verdict.violations.none()?;
    demand(!verdict.echoes.is_empty(), "data passed at all")?;
    let first = verdict.echoes.first().map_or(Time::ZERO, |e| e.back);
    demand(first < Time::from_secs(3), "data passed within 3 s")
}

pub(super) fn demand(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("it does not hold that {what}")) }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

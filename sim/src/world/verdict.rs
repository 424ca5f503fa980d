//! What a run came to.

use super::World;
use super::echo::EchoStats;
use super::tcp::TcpCounters;
use crate::nat::{Nat, NatCounters};
use crate::netem::LinkCounters;
use crate::oracle::{self, Outcome};
use crate::step::{Role, Step};
use crate::topology::{Fate, Meeting};
use crate::trace::Trace;
use crate::verdict::{Replay, Violations};
use proto_core::nat::Report;
use proto_core::time::Duration;
use proto_core::wire::Kind;
use std::collections::BTreeMap;
use std::fmt;

/// What a run came to.
#[derive(Debug)]
pub struct Verdict {
    /// The scenario's name.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// What happened, and its hash.
    pub trace: Trace,
    /// What must never happen and did.
    pub violations: Violations,
    /// What the oracle says of the two networks; none where it has no word (shared networks,
    /// tunnels that end).
    pub expected: Option<Outcome>,
    /// Whether the client's and the agent's routes are direct at the end; none if there is none.
    pub direct: [Option<bool>; 2],
    /// Whether they ever were.
    pub ever_direct: [bool; 2],
    /// From the coordinator's word to a direct route, the client's.
    pub time_to_direct: Option<Duration>,
    /// Times that the client's route changed between direct and relayed.
    pub switches: u64,
    /// The client's echoes.
    pub echo: EchoStats,
    /// Bytes of the client's transfer that the agent has read.
    pub received: u64,
    /// Datagrams that did not arrive, and why.
    pub fates: BTreeMap<Fate, u64>,
    /// How much each kind of fault has touched.
    pub bites: BTreeMap<&'static str, u64>,
    /// Rare states that were reached, and how often.
    pub marks: BTreeMap<&'static str, u64>,
    /// What the NATs did, summed.
    pub nats: NatCounters,
    /// What the client's and the agent's own NATs did, each side summed.
    pub sides: [NatCounters; 2],
    /// What the client and the agent know of their networks; none of one that is off.
    pub reports: [Option<Report>; 2],
    /// NATs that translated packets.
    pub translating: usize,
    /// What the links did, summed.
    pub links: LinkCounters,
    /// What the streams did.
    pub tcp: TcpCounters,
    /// Bytes that the servers wrote to streams.
    pub relayed: u64,
    /// Datagrams that the client and the agent put on the wire, by kind.
    pub sent: [BTreeMap<Kind, u64>; 2],
    /// The most probes of one host within a second.
    pub most_probes: usize,
    /// The command that shows the run in full.
    pub replay: Replay,
}

impl Verdict {
    /// Whether both ends came to what the oracle expects and nothing was violated.
    ///
    /// # Errors
    /// What is wrong, and how to replay it.
    pub fn check(&self) -> Result<(), String> {
        let fail = |what: String| Err(format!("{what}\n{self}"));
        self.violations.none().or_else(fail)?;
        let Some(expected) = self.expected else { return Ok(()) };
        let direct = expected == Outcome::Direct;
        if self.direct != [Some(direct); 2] {
            return fail(format!(
                "expected {expected:?} at both ends, client and agent are {:?}",
                self.direct
            ));
        }
        if !direct && self.ever_direct != [false; 2] {
            return fail("a pair that can only be relayed was direct once".into());
        }
        Ok(())
    }

    /// As [`Verdict::check`], and the echoes must have come back: all but the `missing` latest.
    ///
    /// # Errors
    /// What is wrong, and how to replay it.
    pub fn check_echo(&self, missing: u64) -> Result<(), String> {
        self.check()?;
        if self.echo.sent == 0 || self.echo.answered + missing < self.echo.sent {
            return Err(format!("{} of {} echoes came back\n{self}", self.echo.answered, self.echo.sent));
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = |direct: Option<bool>| match direct {
            Some(true) => "direct",
            Some(false) => "relayed",
            None => "nowhere",
        };
        writeln!(f, "{} seed {}", self.name, self.seed)?;
        writeln!(
            f,
            "  client {}, agent {}, expected {:?}",
            way(self.direct[0]),
            way(self.direct[1]),
            self.expected
        )?;
        writeln!(f, "  time to direct {:?}, {} switches", self.time_to_direct, self.switches)?;
        writeln!(f, "  {:?}, agent received {} bytes", self.echo, self.received)?;
        writeln!(f, "  lost {:?}", self.fates)?;
        writeln!(f, "  faults {:?}", self.bites)?;
        writeln!(f, "  {:?}", self.nats)?;
        writeln!(f, "  {:?}", self.links)?;
        writeln!(
            f,
            "  {:?}, servers wrote {} bytes, at most {} probes/s",
            self.tcp, self.relayed, self.most_probes
        )?;
        write!(f, "{}", self.violations)?;
        writeln!(f, "  trace hash {:016x}", self.trace.hash())?;
        write!(f, "  {}", self.replay)
    }
}

pub(super) fn judge(mut world: World) -> Verdict {
    let (client, agent) = (world.roles[&Role::Client], world.roles[&Role::Agent]);
    let ended = world.scenario.steps.iter().fold(false, |ended, (_, step)| match step {
        Step::Withdraw | Step::CloseTunnel => true,
        Step::OpenTunnel => false,
        _ => ended,
    });
    let expected = (world.scenario.meeting == Meeting::Internet && !ended).then(|| {
        let scope = crate::nat::FilterScope::Mapping;
        oracle::either(world.net.side(client), world.net.side(agent), scope)
    });
    let keys = [Role::Client, Role::Agent].map(|role| world.node(role).map(super::Node::key));
    let direct = |role, peer: usize| world.node(role)?.is_direct(&keys[peer]?);
    let direct = [direct(Role::Client, 1), direct(Role::Agent, 0)];
    let ever = |role| world.node(role).is_some_and(|n| n.ever_direct);
    let ever_direct = [ever(Role::Client), ever(Role::Agent)];
    let (mut echo, mut time_to_direct, mut switches) = (EchoStats::default(), None, 0);
    if let Some(node) = world.node(Role::Client) {
        echo = node.echoes(world.now);
        switches = node.switches;
        time_to_direct = node.direct_at.zip(node.peer_up_at).map(|(direct, up)| direct.since(up));
    }
    let received = world.node(Role::Agent).map_or(0, |n| n.app.stats.transferred);
    count_bites(&mut world);
    for role in [Role::Client, Role::Agent] {
        let left = world.node(role).map_or(0, super::Node::left_sockets);
        if left > 0 {
            world.checks.violate(world.now, format_args!("{left} sockets of {role:?} outlived its peers"));
        }
    }
    Verdict {
        name: world.scenario.name.clone(),
        seed: world.scenario.seed,
        violations: Violations(world.checks.violations().to_vec()),
        expected,
        direct,
        ever_direct,
        time_to_direct,
        switches,
        echo,
        received,
        nats: sum_nats(world.net.nats().map(|(_, nat)| nat)),
        sides: [client, agent]
            .map(|host| sum_nats(world.net.nats_of(host).into_iter().map(|id| world.net.nat_of(id)))),
        reports: [Role::Client, Role::Agent]
            .map(|role| world.node(role).map(|node| node.stack.node().status().report)),
        translating: world.net.nats().filter(|(_, nat)| nat.counters().translated > 0).count(),
        links: sum_links(&world),
        tcp: world.tcp.counters,
        relayed: world.relayed,
        sent: [client, agent].map(|host| world.checks.datagrams(host)),
        most_probes: world.checks.most_probes,
        replay: Replay {
            command: "replay",
            scenario: world.scenario.name.clone(),
            seed: world.scenario.seed,
        },
        fates: world.fates,
        bites: world.bites,
        marks: world.marks,
        trace: world.trace,
    }
}

fn count_bites(world: &mut World) {
    for who in [Role::Server, Role::Relay] {
        world.retire(who);
    }
    let links = sum_links(world);
    for (what, count) in [
        ("loss", links.lost),
        ("cut", links.stopped),
        ("duplicate", links.duplicated),
        ("reorder", links.reordered),
        ("queue", links.queue_drops),
        ("jitter", links.jittered),
        ("rate", links.queued),
    ] {
        if count > 0 {
            world.bite(what, count);
        }
    }
    let open = [
        (Role::Client, Role::Agent),
        (Role::Client, Role::Server),
        (Role::Agent, Role::Server),
        (Role::Client, Role::Relay),
        (Role::Agent, Role::Relay),
        (Role::Server, Role::Relay),
    ];
    let edge = |world: &World, role| world.roles.get(&role).and_then(|id| world.net.edge(*id));
    let mut stopped = 0;
    for (a, b) in open.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
        if let (Some(a), Some(b)) = (edge(world, a), edge(world, b)) {
            stopped += world.net.stopped(a, b).unwrap_or(0);
        }
    }
    if stopped > 0 {
        world.bite("partition", stopped);
    }
}

fn sum_nats<'a>(nats: impl Iterator<Item = &'a Nat>) -> NatCounters {
    let mut sum = NatCounters::default();
    for nat in nats {
        let c = nat.counters();
        sum.outbound += c.outbound;
        sum.translated += c.translated;
        sum.inbound += c.inbound;
        sum.hairpinned += c.hairpinned;
        sum.filtered += c.filtered;
        sum.filtered_port += c.filtered_port;
        sum.unmapped += c.unmapped;
        sum.blocked += c.blocked;
        sum.tracked += c.tracked;
        sum.poisoned += c.poisoned;
        sum.mapped += c.mapped;
        sum.expired += c.expired;
        sum.full += c.full;
    }
    sum
}

fn sum_links(world: &World) -> LinkCounters {
    let mut sum = LinkCounters::default();
    for direction in world.net.directions() {
        let c = direction.counters();
        sum.carried += c.carried;
        sum.bytes += c.bytes;
        sum.lost += c.lost;
        sum.queue_drops += c.queue_drops;
        sum.too_long += c.too_long;
        sum.stopped += c.stopped;
        sum.duplicated += c.duplicated;
        sum.reordered += c.reordered;
        sum.jittered += c.jittered;
        sum.queued += c.queued;
    }
    sum
}

//! What a seed draws: networks, links, relays, and the faults, frozen as the steps of a scenario.

use crate::netem::{Burst, LinkProfile};
use crate::step::{Role, Scenario, Step};
use crate::topology::Network;
use proto_core::seed::{Rng, Seed};
use proto_core::time::{Duration, Time};

/// The first fault comes after this much: even a tunnel that is still being made has to bear it.
const FIRST: Duration = Duration::from_secs(1);
/// All faults begin before this moment.
const LAST_BEGINS: Time = Time::from_secs(25);
/// The longest that one fault lasts before it is mended.
const LONGEST: Duration = Duration::from_secs(8);
/// The most faults in a world.
const FAULTS_MAX: u64 = 4;
/// A storm on a link: every tenth packet begins a burst in which nine of ten are lost, of five on the average.
const STORMY: Burst = Burst { enter_ppm: 100_000, leave_ppm: 200_000, loss_ppm: 900_000 };
/// So much slower is a link that goes another way.
const SLOWER: Duration = Duration::from_millis(250);
/// What passes a tunnel in a tunnel: less than a full packet of ours, more than a probe.
const NARROW: usize = 1_200;
/// After the last mend everybody must be connected within so long: three rounds of the slowest repetition, a
/// netcheck each 20 s, as a moved node may need one to learn its address and the peer one to learn of it.
pub const RECOVERY: Duration = Duration::from_secs(60);

/// The same where full packets did not pass: a path that carries none is left alone for a minute.
pub const RECOVERY_OF_FULL: Duration = Duration::from_secs(75);

/// What counts that each kind of fault has touched something. None may stay at nothing over many worlds, or it was no
/// fault.
pub const BITES: &[&str] = &[
    "partition",
    "cut",
    "nat reboot",
    "restart",
    "power",
    "roam",
    "drain",
    "loss",
    "jitter",
    "duplicate",
    "reorder",
    "loss burst",
    "latency step",
    "mtu drop",
    "address change",
    "clock jump",
];

/// The world that this seed stands for.
#[must_use]
pub fn draw(seed: u64) -> Scenario {
    let mut rng = Seed::from_u64(seed).fork("swarm").rng();
    let [client, agent] = [network(&mut rng), network(&mut rng)];
    let mut scenario = Scenario::pair(seed, client, agent).named(super::NAME);
    scenario.insists = true;
    scenario.links = [(); 3].map(|()| link(&mut rng));
    scenario.relays = if rng.permille(700) { &[Role::Relay, Role::Server] } else { &[Role::Server] };
    scenario.echo = Duration::from_millis(rng.range(50..1_000));
    scenario.transfer = if rng.permille(200) { rng.range(1..256 << 10) } else { 0 };
    for _ in 0..rng.range(0..FAULTS_MAX + 1) {
        fault(&mut rng, &mut scenario);
    }
    scenario.steps.sort_by_key(|(at, _)| *at);
    let narrow =
        scenario.steps.iter().any(|(_, step)| matches!(step, Step::Link(_, link) if link.mtu == NARROW));
    scenario.until = healed(&scenario) + if narrow { RECOVERY_OF_FULL } else { RECOVERY };
    scenario
}

/// When the last fault of a scenario is over.
#[must_use]
pub fn healed(scenario: &Scenario) -> Time {
    let over = |(at, step): &(Time, Step)| match step {
        Step::Roam(_, _, dead) => *at + *dead,
        _ => *at,
    };
    scenario.steps.iter().map(over).max().unwrap_or(Time::ZERO)
}

fn network(rng: &mut Rng) -> Network {
    pick(rng, &Network::ALL)
}

fn pick<T: Copy>(rng: &mut Rng, among: &[T]) -> T {
    among[usize::try_from(rng.range(0..among.len() as u64)).unwrap_or(0)]
}

fn link(rng: &mut Rng) -> LinkProfile {
    let latency = Duration::from_micros(rng.range(1_000..60_000));
    let mut link = LinkProfile::clean(latency);
    if rng.permille(500) {
        link.jitter = Duration::from_micros(rng.range(0..20_000));
    }
    if rng.permille(250) {
        link.loss_ppm = u32::try_from(rng.range(0..20_000)).unwrap_or(0);
    }
    if rng.permille(150) {
        (link.duplicate_ppm, link.reorder_ppm) = (10_000, 20_000);
    }
    link
}

fn fault(rng: &mut Rng, scenario: &mut Scenario) {
    let first = u64::try_from(FIRST.as_micros()).unwrap_or(0);
    let at = Time::from_micros(rng.range(first..LAST_BEGINS.as_micros()));
    let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(0);
    let mended = at + Duration::from_micros(rng.range(10_000..longest));
    let end = pick(rng, &[Role::Client, Role::Agent]);
    let other = if end == Role::Client { Role::Agent } else { Role::Client };
    let servers = scenario.relays;
    let server = pick(rng, servers);
    let part = |from, to, on| Step::Partition { from, to, on };
    let cut = |who, up, down| Step::Cut { who, up, down };
    let own = scenario.links[usize::from(end == Role::Agent)];
    let worse = |worse| vec![(at, Step::Link(end, worse)), (mended, Step::Link(end, own))];
    let steps: Vec<(Time, Step)> = match rng.range(0..20) {
        0 => vec![(at, part(end, other, true)), (mended, part(end, other, false))],
        1 => [(at, true), (mended, false)]
            .into_iter()
            .flat_map(|(at, on)| [(at, part(end, other, on)), (at, part(other, end, on))])
            .collect(),
        2 => vec![(at, part(end, server, true)), (mended, part(end, server, false))],
        3 => vec![(at, cut(end, true, true)), (mended, cut(end, false, false))],
        4 => vec![(at, cut(server, true, true)), (mended, cut(server, false, false))],
        5 => vec![(at, Step::RebootNat(end))],
        6 => vec![(at, Step::Restart(server))],
        7 => vec![(at, Step::PowerOff(server)), (mended, Step::PowerOn(server))],
        9 => vec![(at, cut(end, true, false)), (mended, cut(end, false, false))],
        10 => vec![(at, cut(end, false, true)), (mended, cut(end, false, false))],
        11 => vec![(at, part(server, end, true)), (mended, part(server, end, false))],
        // A client that starts anew comes under another name, which an agent that was away meanwhile may be told before
        // the old one: not drawn until that is mended.
        12 => vec![(at, Step::Restart(Role::Agent))],
        13 => vec![(at, Step::PowerOff(Role::Agent)), (mended, Step::PowerOn(Role::Agent))],
        14 => worse(LinkProfile { burst: Some(STORMY), ..own }),
        15 => worse(LinkProfile { latency: own.latency + SLOWER, ..own }),
        16 => worse(LinkProfile { mtu: NARROW, ..own }),
        17 => vec![(at, Step::Readdress(end))],
        18 => vec![(at, Step::ClockJump(end, mended.since(at) * 60))],
        8 => vec![(at, Step::Roam(end, network(rng), mended.since(at)))],
        _ => vec![(at, Step::Drain(server)), (mended, Step::Restart(server))],
    };
    scenario.steps.extend(steps);
}

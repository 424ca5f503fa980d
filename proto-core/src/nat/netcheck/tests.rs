use super::*;
use crate::machine::Transmit;
use crate::machine::laws::Subject;
use std::collections::BTreeSet;

const V4: LinkId = LinkId(4);
const V6: LinkId = LinkId(6);

/// A map of regions with one node each, at 198.51.100.<id> and 2001:db8:1::<id>.
fn map(ids: &[u64]) -> RelayMap {
    let regions = ids.iter().map(|id| {
        let node = RelayNode {
            name: format!("{id}a"),
            region: RegionId(*id),
            host: format!("r{id}.example"),
            ipv4_text: format!("198.51.100.{id}"),
            ipv6_text: format!("2001:db8:1::{id}"),
            ..RelayNode::default()
        };
        let region = RelayRegion { id: RegionId(*id), nodes: vec![node], ..RelayRegion::default() };
        (RegionId(*id), region)
    });
    RelayMap { regions: regions.collect(), ..RelayMap::default() }
}

type Network = fn(&Transmit) -> Option<(u64, String)>;

/// A host behind a network: what each request becomes, `(delay in ms, mapped address)`, or nothing.
struct World {
    netcheck: Netcheck,
    now: Time,
    network: Network,
    flying: BTreeMap<(Time, u64), (LinkId, Vec<u8>)>,
    sent: Vec<(Time, SocketAddr)>,
    asked: Vec<String>,
    reports: Vec<Report>,
}

impl World {
    fn new(network: Network) -> Self {
        Self {
            netcheck: Netcheck::new(Seed::from_u64(1), Time::ZERO),
            now: Time::ZERO,
            network,
            flying: BTreeMap::new(),
            sent: Vec::new(),
            asked: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// A host with one IPv4 address and the socket for it.
    fn v4(network: Network) -> Self {
        let mut world = Self::new(network);
        world.tell(NetcheckCommand::Interfaces(vec!["10.0.0.5".parse().unwrap()]));
        world.input(Input::LinkUp { link: V4, address: "0.0.0.0:7000".parse().unwrap() });
        world
    }

    fn input(&mut self, input: Input<'_, NetcheckCommand>) {
        self.netcheck.handle(input, self.now);
        while let Some(output) = self.netcheck.poll() {
            match output {
                Output::Transmit(transmit) => {
                    self.sent.push((self.now, transmit.to));
                    if let Some((delay, mapped)) = (self.network)(&transmit) {
                        let answer = stun::answer(&transmit.bytes, mapped.parse().unwrap()).unwrap();
                        let at = (self.now + Duration::from_millis(delay), self.sent.len() as u64);
                        self.flying.insert(at, (transmit.link, answer));
                    }
                }
                Output::Resolve { name } => self.asked.push(name),
                Output::Event(report) => self.reports.push(report),
                other => panic!("{other:?}"),
            }
        }
    }

    fn tell(&mut self, command: NetcheckCommand) {
        self.input(Input::Command(command));
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        for turn in 0.. {
            assert!(turn < 100_000, "time stands still at {:?}", self.now);
            let arrival = self.flying.keys().next().copied();
            let wake = self.netcheck.deadline().map(|(at, _)| at).filter(|at| *at <= end);
            match arrival.filter(|(at, _)| *at <= end && wake.is_none_or(|wake| *at <= wake)) {
                Some(key) => {
                    let (link, bytes) = self.flying.remove(&key).unwrap();
                    self.now = key.0;
                    self.input(Input::Datagram {
                        link,
                        from: "192.0.2.1:3478".parse().unwrap(),
                        bytes: &bytes,
                    });
                }
                None => match wake {
                    Some(wake) => {
                        self.now = self.now.max(wake);
                        self.input(Input::Deadline);
                    }
                    None => break,
                },
            }
        }
        self.now = end;
    }

    fn last(&self) -> &Report {
        self.reports.last().expect("a report")
    }
}

fn region_of(to: SocketAddr) -> u64 {
    match to.ip() {
        IpAddr::V4(a) => a.octets()[3].into(),
        IpAddr::V6(a) => a.segments()[7].into(),
    }
}

/// Full cone: always the same mapping; region r answers after 10 r milliseconds.
const CONE: Network = |transmit| Some((10 * region_of(transmit.to), "203.0.113.9:61000".into()));

/// Symmetric: the mapping's port depends on the server.
const SYMMETRIC: Network = |transmit| {
    let region = region_of(transmit.to);
    Some((10 * region, format!("203.0.113.9:{}", 61_000 + region)))
};

const BLOCKED: Network = |_| None;

#[test]
fn the_seven_laws_hold() {
    let machine = |seed: Seed| {
        let mut netcheck = Netcheck::new(seed, Time::ZERO);
        netcheck.handle(Input::LinkUp { link: V4, address: "0.0.0.0:7000".parse().unwrap() }, Time::ZERO);
        netcheck
    };
    Subject::new(machine)
        .commands(|rng| {
            let region = RegionId(rng.range(1..6));
            let mut some = map(&[region.0, rng.range(1..9), 9]);
            if rng.permille(300) {
                some.regions.get_mut(&RegionId(9)).unwrap().nodes[0].ipv4_text.clear();
            }
            match rng.range(0..12) {
                11 => NetcheckCommand::Choose(rng.permille(700).then_some(region)),
                9 => NetcheckCommand::Leaving(region),
                10 => NetcheckCommand::Silent { region, silent: rng.permille(500) },
                0 | 1 => NetcheckCommand::Map(some),
                2 => NetcheckCommand::Interfaces(vec![[10, 0, 0, rng.range(1..4) as u8].into()]),
                3 => NetcheckCommand::Active(rng.permille(700)),
                4 => NetcheckCommand::Controlled(rng.permille(700)),
                5 => NetcheckCommand::Relay { region, up: rng.permille(500) },
                6 => NetcheckCommand::Heard(region),
                7 => NetcheckCommand::Check,
                _ => NetcheckCommand::NetworkChanged,
            }
        })
        .size(200_000, |netcheck| format!("{netcheck:?}").len())
        .check(100);
}

#[test]
fn a_home_is_there_before_anything_is_measured() {
    let mut world = World::v4(CONE);
    world.tell(NetcheckCommand::Map(map(&[7, 3, 5])));
    assert_eq!((world.last().home, world.last().udp), (Some(RegionId(3)), None));
    assert_eq!(world.now, Time::ZERO);
}

#[test]
fn the_first_answer_is_told_at_once_and_the_run_ends_when_enough_have_come() {
    let mut world = World::v4(CONE);
    world.tell(NetcheckCommand::Map(map(&[1, 2, 3, 4, 90])));
    world.run(10);
    assert_eq!(world.last().reflexive[0].address.to_string(), "203.0.113.9:61000");
    assert_eq!((world.last().udp, world.last().mapping), (Some(true), Mapping::Unknown));
    assert!(!world.last().complete);
    world.run(2_000);
    assert!(world.last().complete);
    insta::assert_snapshot!(show(world.last()), @r"
    udp Some(true), v4 true, v6 false, mapping Independent, home Some(region1), warm Some(region2)
    203.0.113.9:61000 on link4, seen 4
    region1: v4 Some(10ms), v6 None
    region2: v4 Some(20ms), v6 None
    region3: v4 Some(30ms), v6 None
    region4: v4 Some(40ms), v6 None
    ");
    // Three regions came within 30 ms; twice that is the patience for the fourth, and the far one is left out.
    assert_eq!(world.last().at, Time::from_millis(90));
}

#[test]
fn a_symmetric_nat_is_known_by_its_second_answer() {
    let mut world = World::v4(SYMMETRIC);
    world.tell(NetcheckCommand::Map(map(&[1, 2])));
    world.run(1_000);
    insta::assert_snapshot!(show(world.last()), @r"
    udp Some(true), v4 true, v6 false, mapping Varies, home Some(region1), warm Some(region2)
    203.0.113.9:61001 on link4, seen 1
    region1: v4 Some(10ms), v6 None
    region2: v4 Some(20ms), v6 None
    ");
}

#[test]
fn a_home_that_leaves_the_map_is_home_until_another_is_up_or_it_is_gone() {
    let dropped = || {
        let mut world = World::v4(BLOCKED);
        world.tell(NetcheckCommand::Map(map(&[2])));
        world.tell(NetcheckCommand::Relay { region: RegionId(2), up: true });
        world.tell(NetcheckCommand::Controlled(true));
        world.tell(NetcheckCommand::Map(map(&[1])));
        assert_eq!((world.last().home, world.last().warm), (Some(RegionId(2)), Some(RegionId(1))));
        world
    };
    let mut world = dropped();
    world.tell(NetcheckCommand::Relay { region: RegionId(1), up: true });
    assert_eq!(world.last().home, Some(RegionId(1)));
    let mut world = dropped();
    world.tell(NetcheckCommand::Relay { region: RegionId(2), up: false });
    assert_eq!(world.last().home, Some(RegionId(1)));
}

#[test]
fn blocked_udp_is_told_after_three_seconds_and_a_home_stands_all_the_same() {
    let mut world = World::v4(BLOCKED);
    world.tell(NetcheckCommand::Map(map(&[2, 3])));
    world.run(2_999);
    assert_eq!(world.last().udp, None);
    world.run(2);
    assert_eq!((world.last().udp, world.last().home), (Some(false), Some(RegionId(2))));
    world.run(3_600_000);
    let runs = world.reports.iter().filter(|r| r.udp == Some(false)).count();
    assert_eq!(runs, 1 + limits::NETCHECK_IDLE_RETRIES as usize, "no peer needs it: it stops trying");
    assert_eq!(world.netcheck.deadline(), None);
}

#[test]
fn lost_requests_are_repeated_until_something_comes() {
    let mut world = World::v4(BLOCKED);
    world.tell(NetcheckCommand::Map(map(&[1])));
    world.run(2_900);
    let at: Vec<_> = world.sent.iter().map(|(at, _)| at.as_micros() / 1_000).collect();
    assert_eq!(at, [0, 100, 200, 400, 800, 1_600]);
}

#[test]
fn a_host_of_both_families_learns_both_addresses() {
    let mut world = World::v4(|t: &Transmit| {
        Some((10, if t.link == V6 { "[2001:db8::5]:7006" } else { "203.0.113.9:61000" }.into()))
    });
    world
        .tell(NetcheckCommand::Interfaces(vec!["10.0.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap()]));
    world.input(Input::LinkUp { link: V6, address: "[::]:7006".parse().unwrap() });
    world.tell(NetcheckCommand::Map(map(&[1, 2])));
    world.run(1_000);
    insta::assert_snapshot!(show(world.last()), @r"
    udp Some(true), v4 true, v6 true, mapping Independent, home Some(region1), warm Some(region2)
    203.0.113.9:61000 on link4, seen 2
    [2001:db8::5]:7006 on link6, seen 2
    region1: v4 Some(10ms), v6 Some(10ms)
    region2: v4 Some(10ms), v6 Some(10ms)
    ");
}

#[test]
fn the_check_repeats_every_20_to_26_seconds_while_there_are_peers() {
    let mut world = World::v4(CONE);
    world.tell(NetcheckCommand::Map(map(&[1, 2, 3, 4])));
    world.run(60_000);
    assert_eq!(world.netcheck.deadline(), None);
    world.tell(NetcheckCommand::Active(true));
    world.run(600_000);
    let starts: Vec<_> = world.sent.iter().filter(|(_, to)| region_of(*to) == 1).map(|(at, _)| *at).collect();
    let gaps: Vec<_> = starts[1..].windows(2).map(|w| w[1].since(w[0]).as_millis()).collect();
    assert!(gaps.len() > 20 && gaps.iter().all(|gap| (20_000..=26_200).contains(gap)), "{gaps:?}");
    let far = world.sent.iter().filter(|(_, to)| region_of(*to) == 4).count();
    assert!((2..=4).contains(&far), "only full runs ask the fourth region: {far}");
}

#[test]
fn a_dead_home_yields_to_a_live_region_and_not_while_peers_cannot_learn_of_it() {
    let mut world = World::v4(CONE);
    world.tell(NetcheckCommand::Map(map(&[1, 5, 6])));
    world.tell(NetcheckCommand::Controlled(true));
    world.run(1_000);
    assert_eq!((world.last().home, world.last().warm), (Some(RegionId(1)), Some(RegionId(5))));
    for region in [1, 6] {
        world.tell(NetcheckCommand::Relay { region: RegionId(region), up: true });
    }
    world.tell(NetcheckCommand::Controlled(false));
    world.tell(NetcheckCommand::Relay { region: RegionId(1), up: false });
    world.run(60_000);
    assert_eq!(world.last().home, Some(RegionId(1)));
    world.tell(NetcheckCommand::Controlled(true));
    world.run(1);
    assert_eq!(world.last().home, Some(RegionId(6)), "the one that is connected, though 5 is nearer");
    world.tell(NetcheckCommand::Check);
    world.run(1_000);
    assert_eq!(world.last().home, Some(RegionId(6)), "a relay that failed is not chosen for its latency");
    world.tell(NetcheckCommand::Relay { region: RegionId(1), up: true });
    world.tell(NetcheckCommand::Check);
    world.run(1_000);
    assert_eq!(world.last().home, Some(RegionId(1)), "it came back and is nearer by far");
}

#[test]
fn a_home_that_never_comes_up_yields_to_one_that_does() {
    let mut world = World::v4(BLOCKED);
    world.tell(NetcheckCommand::Map(map(&[1, 2])));
    world.tell(NetcheckCommand::Relay { region: RegionId(2), up: true });
    world.run(1_400);
    assert_eq!(world.last().home, Some(RegionId(1)));
    world.run(200);
    assert_eq!(world.last().home, Some(RegionId(2)));
}

#[test]
fn a_lonely_relay_stays_home_though_it_is_down() {
    let mut world = World::v4(CONE);
    world.tell(NetcheckCommand::Map(map(&[1])));
    world.tell(NetcheckCommand::Controlled(true));
    world.tell(NetcheckCommand::Relay { region: RegionId(1), up: false });
    world.run(100_000);
    assert_eq!(world.last().home, Some(RegionId(1)));
    assert_eq!(world.netcheck.deadline(), None);
}

#[test]
fn names_are_resolved_once_a_run_and_an_old_answer_serves_when_the_resolver_is_dead() {
    let mut named = map(&[1]);
    let node = &mut named.regions.get_mut(&RegionId(1)).unwrap().nodes[0];
    node.ipv4_text.clear();
    node.ipv6_text.clear();
    let mut world = World::v4(|_: &Transmit| Some((10, "203.0.113.9:61000".into())));
    world.tell(NetcheckCommand::Map(named));
    world.run(150);
    assert_eq!((world.asked.len(), world.sent.len()), (1, 0));
    world.input(Input::Resolved { name: "r1.example", addresses: &["198.51.100.1".parse().unwrap()] });
    world.run(50);
    assert_eq!(world.last().udp, Some(true));
    let before = world.sent.len();
    world.tell(NetcheckCommand::Check);
    world.input(Input::Resolved { name: "r1.example", addresses: &[] });
    world.run(1);
    assert_eq!((world.asked.len(), world.sent.len()), (2, before + 1));
}

#[test]
fn another_network_forgets_what_the_old_one_taught() {
    let mut world = World::v4(CONE);
    world.tell(NetcheckCommand::Map(map(&[1, 2])));
    world.run(1_000);
    assert_eq!(world.last().mapping, Mapping::Independent);
    world.tell(NetcheckCommand::NetworkChanged);
    world.run(1);
    assert_eq!(world.netcheck.report().mapping, Mapping::Unknown);
    assert_eq!(world.netcheck.known.len(), 0);
}

#[test]
fn a_nat_that_restarted_leaves_one_address_and_not_two() {
    let mut world = World::v4(CONE);
    world.tell(NetcheckCommand::Map(map(&[1, 2])));
    world.run(1_000);
    world.network = |t| Some((10 * region_of(t.to), "203.0.113.9:62000".into()));
    world.tell(NetcheckCommand::Check);
    world.run(1_000);
    let addresses: Vec<_> = world.last().reflexive.iter().map(|r| r.address.port()).collect();
    assert_eq!(addresses, [62_000]);
}

/// A host that knows three regions, 1 the nearest, whose coordinator hears it; `chosen` was chosen.
fn chosen(chosen: u64) -> World {
    let mut world = World::v4(CONE);
    world.tell(NetcheckCommand::Choose(Some(RegionId(chosen))));
    world.tell(NetcheckCommand::Map(map(&[1, 5, 9])));
    world.tell(NetcheckCommand::Controlled(true));
    world
}

fn relay(world: &mut World, region: u64, up: bool) {
    world.tell(NetcheckCommand::Relay { region: RegionId(region), up });
}

#[test]
fn a_chosen_region_is_home_from_the_start_however_far_it_is() {
    let mut world = chosen(9);
    let homes = |world: &World| world.reports.iter().filter_map(|r| r.home).collect::<BTreeSet<_>>();
    relay(&mut world, 9, true);
    relay(&mut world, 1, true);
    for _ in 0..5 {
        world.tell(NetcheckCommand::Check);
        world.run(30_000);
    }
    assert_eq!(homes(&world), [RegionId(9)].into());
    assert_eq!(world.last().warm, Some(RegionId(1)), "the nearest is ready to take over");
    assert!(world.last().latencies.len() == 3, "it is measured all the same");
}

#[test]
fn a_chosen_region_that_is_away_is_replaced_by_the_nearest_until_it_is_back() {
    let mut world = chosen(9);
    world.run(1_000);
    for region in [1, 5, 9] {
        relay(&mut world, region, true);
    }
    relay(&mut world, 9, false);
    world.run(499);
    assert_eq!(world.last().home, Some(RegionId(9)), "it may come back at once");
    world.run(1);
    assert_eq!((world.last().home, world.last().warm), (Some(RegionId(1)), Some(RegionId(9))));
    world.tell(NetcheckCommand::Check);
    world.run(200_000);
    assert_eq!((world.last().home, world.last().warm), (Some(RegionId(1)), Some(RegionId(9))));
    // It comes and goes: home stays where it is.
    for _ in 0..5 {
        relay(&mut world, 9, true);
        world.run(2_900);
        relay(&mut world, 9, false);
        world.run(100);
    }
    assert_eq!(world.last().home, Some(RegionId(1)));
    relay(&mut world, 9, true);
    world.run(2_999);
    assert_eq!(world.last().home, Some(RegionId(1)));
    world.run(1);
    assert_eq!((world.last().home, world.last().warm), (Some(RegionId(9)), Some(RegionId(1))));
    world.tell(NetcheckCommand::Check);
    world.run(5_000);
    assert_eq!((world.last().home, world.netcheck.deadline()), (Some(RegionId(9)), None));
}

#[test]
fn a_chosen_region_that_never_comes_up_is_replaced_and_taken_when_it_does() {
    let mut world = chosen(9);
    relay(&mut world, 5, true);
    world.run(1_600);
    assert_eq!(world.last().home, Some(RegionId(5)), "the one that is up");
    relay(&mut world, 1, true);
    world.tell(NetcheckCommand::Check);
    world.run(1_000);
    assert_eq!(world.last().home, Some(RegionId(1)), "it was a stopgap: the nearest is as good as chosen");
    relay(&mut world, 9, true);
    world.run(3_000);
    assert_eq!(world.last().home, Some(RegionId(9)));
}

#[test]
fn a_chosen_region_that_drains_is_left_and_taken_again() {
    let mut world = chosen(9);
    for region in [1, 9] {
        relay(&mut world, region, true);
    }
    world.run(1_000);
    world.tell(NetcheckCommand::Leaving(RegionId(9)));
    world.run(10_000);
    assert_eq!(world.last().home, Some(RegionId(1)));
    relay(&mut world, 9, false);
    world.run(1_000);
    relay(&mut world, 9, true);
    world.run(3_000);
    assert_eq!(world.last().home, Some(RegionId(9)), "it is another process now");
}

#[test]
fn a_home_that_falls_silent_is_left_and_may_come_back() {
    let mut world = chosen(9);
    for region in [1, 9] {
        relay(&mut world, region, true);
    }
    world.run(1_000);
    assert_eq!(world.last().home, Some(RegionId(9)));
    world.tell(NetcheckCommand::Silent { region: RegionId(9), silent: true });
    world.run(100);
    assert_eq!(world.last().home, Some(RegionId(1)), "at once");
    world.run(10_000);
    assert_eq!(world.last().home, Some(RegionId(1)), "as long as it is silent");
    world.tell(NetcheckCommand::Silent { region: RegionId(9), silent: false });
    world.run(1_000);
    assert_eq!(world.last().home, Some(RegionId(1)), "not at the first sign of life");
    world.run(3_000);
    assert_eq!(world.last().home, Some(RegionId(9)));
}

#[test]
fn a_choice_holds_against_the_maps_advice_and_waits_for_a_map_that_has_it() {
    let mut world = World::v4(CONE);
    world.tell(NetcheckCommand::Map(map(&[1, 5])));
    world.tell(NetcheckCommand::Controlled(true));
    relay(&mut world, 1, true);
    world.run(1_000);
    assert_eq!(world.last().home, Some(RegionId(1)));
    let mut later = map(&[1, 5, 9]);
    later.regions.get_mut(&RegionId(9)).unwrap().no_measure_no_home = true;
    world.tell(NetcheckCommand::Choose(Some(RegionId(9))));
    world.tell(NetcheckCommand::Map(later));
    assert_eq!((world.last().home, world.last().warm), (Some(RegionId(1)), Some(RegionId(9))));
    relay(&mut world, 9, true);
    world.run(3_000);
    assert_eq!(world.last().home, Some(RegionId(9)));
    // A map without it: home moves, and the choice is none any more.
    world.tell(NetcheckCommand::Choose(None));
    world.tell(NetcheckCommand::Map(map(&[1, 5])));
    world.run(1_000);
    assert_eq!(world.last().home, Some(RegionId(1)));
}

#[test]
fn while_peers_cannot_learn_of_it_a_home_does_not_return_to_the_chosen_region() {
    let mut world = chosen(9);
    relay(&mut world, 1, true);
    world.run(2_000);
    assert_eq!(world.last().home, Some(RegionId(1)));
    world.tell(NetcheckCommand::Controlled(false));
    relay(&mut world, 9, true);
    world.run(60_000);
    assert_eq!(world.last().home, Some(RegionId(1)));
    world.tell(NetcheckCommand::Controlled(true));
    world.run(1);
    assert_eq!(world.last().home, Some(RegionId(9)));
}

/// A host in Amsterdam and Tailscale's own map: every region answers after twenty milliseconds for each degree that
/// it is away.
#[test]
fn the_nearest_region_of_tailscales_map_is_home_and_a_score_or_a_choice_moves_it() {
    let map = RelayMap::parse(include_bytes!("../../../testdata/tailscale_default_map.json")).unwrap();
    let network: Network = |transmit| {
        let map = RelayMap::parse(include_bytes!("../../../testdata/tailscale_default_map.json")).unwrap();
        let region = map
            .regions
            .values()
            .find(|r| r.nodes.iter().any(|n| n.addresses(&[]).contains(&transmit.to.ip())))?;
        let (north, east) = (region.latitude?.to_f64() - 52.37, region.longitude?.to_f64() - 4.89);
        Some(((2.0 + 20.0 * north.hypot(east)) as u64, "203.0.113.9:61000".into()))
    };
    let home = |map: &RelayMap, choice: Option<&str>| {
        let mut world = World::v4(network);
        world.tell(NetcheckCommand::Choose(choice.map(|said| map.region_called(said).unwrap())));
        world.tell(NetcheckCommand::Map(map.clone()));
        world.tell(NetcheckCommand::Controlled(true));
        world.run(5_000);
        assert!(world.last().complete && world.last().latencies.len() >= 3, "the nearest are enough");
        world.last().home.map(|home| map.label(home))
    };
    assert_eq!(home(&map, None).as_deref(), Some("ams"));
    assert_eq!(home(&map, Some("Honolulu")).as_deref(), Some("hnl"));
    let mut scored = map;
    let score = [(RegionId(14), crate::relay_map::Millionths::nearest(100.0))].into();
    scored.home_params = Some(crate::relay_map::HomeParams { region_score: score });
    assert_eq!(home(&scored, None).as_deref(), Some("par"), "Amsterdam counts a hundredfold");
}

fn show(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut out = format!(
        "udp {:?}, v4 {}, v6 {}, mapping {:?}, home {:?}, warm {:?}\n",
        report.udp, report.ipv4, report.ipv6, report.mapping, report.home, report.warm
    );
    for r in &report.reflexive {
        let _ = writeln!(out, "{} on {:?}, seen {}", r.address, r.link, r.seen);
    }
    for (region, latency) in &report.latencies {
        let _ = writeln!(out, "{region:?}: v4 {:?}, v6 {:?}", latency.v4, latency.v6);
    }
    out
}

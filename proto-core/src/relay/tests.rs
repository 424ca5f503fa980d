//! Pools and relays together: login, packets, failover, return.

mod world;

use super::*;
use crate::id::{RegionId, StreamId};
use crate::limits;
use crate::machine::Input;
use crate::machine::laws::{OwnedInput, Subject};
use crate::route::{Activity, Direction, Via};
use crate::seed::Seed;
use crate::time::{Duration, Time};
use crate::wire::derp::{Frame, ServerInfo};
use world::{ONE, TWO, World, key, map, secret};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn packets_cross_a_relay_in_both_directions() {
    let mut world = World::new(2);
    assert_eq!(world.heard(0), ["1 up"]);
    assert_eq!(world.dialled(), ["a.example", "a.example"], "the first relay, not the STUN server");
    world.send(0, ONE, 1, b"hello");
    world.send(1, ONE, 0, b"hello yourself");
    assert_eq!(world.heard(1), ["1 up", "1 from 0: hello"]);
    assert_eq!(world.heard(0), ["1 from 1: hello yourself"]);
    assert_eq!(world.relays["a.example"].server().connections(), (2, 2), "both call it home");
}

#[test]
fn a_packet_for_another_region_waits_until_it_is_connected() {
    let mut world = World::new(2);
    world.tell(1, PoolCommand::Home(TWO));
    world.heard(1);
    world.send(0, TWO, 1, b"first");
    assert_eq!(world.heard(1), ["2 from 0: first"]);
    assert_eq!(world.heard(0), ["1 up", "2 up"]);
    assert_eq!(world.relays["c.example"].server().connections(), (2, 1), "a home for one of them");
}

#[test]
fn a_relay_that_refuses_says_why() {
    let mut world = World::new(1);
    let full = RelayServerConfig { connections_max: 0, ..RelayServerConfig::new(secret(102)) };
    world.relays.insert("c.example".to_owned(), RelayHub::new(full, Seed::from_u64(202), world.now));
    world.heard(0);
    world.tell(0, PoolCommand::Want(TWO));
    assert_eq!(
        world.heard(0),
        ["2 down: c.example: the relay refused this node: it has no room for more clients"]
    );
    world.advance(60 * SECOND);
    assert!(world.heard(0).is_empty(), "it is said once");
}

#[test]
fn a_region_that_is_neither_home_nor_used_is_left() {
    let mut world = World::new(1);
    world.tell(0, PoolCommand::Want(TWO));
    world.heard(0);
    world.advance(59 * SECOND);
    let activity =
        Activity { peer: key(1), via: Via::Relay(TWO), direction: Direction::Sent, packets: 1, bytes: 100 };
    world.input(0, Input::Activity(activity));
    world.advance(59 * SECOND);
    assert!(world.heard(0).is_empty());
    world.advance(2 * SECOND);
    assert_eq!(world.heard(0), ["2 down: not used any more"]);
    world.advance(3_600 * SECOND);
    assert!(world.heard(0).is_empty(), "the home stays");
    assert_eq!(world.clients[0].pool.up().collect::<Vec<_>>(), [ONE]);
}

#[test]
fn a_warm_region_stays() {
    let mut world = World::new(1);
    world.tell(0, PoolCommand::Warm(TWO));
    world.advance(300 * SECOND);
    assert_eq!(world.clients[0].pool.up().collect::<Vec<_>>(), [ONE, TWO]);
    world.tell(0, PoolCommand::Warm(RegionId(0)));
    world.advance(61 * SECOND);
    assert_eq!(world.clients[0].pool.up().collect::<Vec<_>>(), [ONE]);
}

#[test]
fn the_next_relay_of_a_region_is_taken_when_the_first_fails() {
    let mut world = World::new(0);
    world.down.insert("a.example".into());
    let config = PoolConfig { identity: secret(0), streams: 0..1 << 20 };
    let pool = RelayPool::new(config, Seed::from_u64(3), world.now);
    world.clients.push(world::Client { pool, events: Vec::new(), streams: Default::default() });
    world.tell(0, PoolCommand::SetMap(map()));
    world.tell(0, PoolCommand::Home(ONE));
    assert_eq!(world.dialled(), ["a.example", "b.example"]);
    assert_eq!(world.heard(0), ["1 up"]);
    world.down.insert("b.example".into());
    world.crash("b.example");
    world.advance(60 * SECOND);
    assert_eq!(world.heard(0), ["1 down: crash", "1 down: b.example: connection refused"]);
    assert!(world.dialled().len() < 40, "not hammered");
    world.down.clear();
    world.advance(limits::RECONNECT_MAX);
    assert_eq!(world.heard(0), ["1 up"]);
}

#[test]
fn a_dead_relay_is_noticed_by_its_silence_and_sooner_when_something_was_sent() {
    let mut world = World::new(1);
    world.heard(0);
    world.silent.insert("a.example".into());
    world.advance(limits::RELAY_PING + limits::RELAY_PONG + SECOND);
    assert_eq!(world.heard(0), ["1 down: the relay does not answer any more"]);
    world.advance(10 * SECOND);
    assert_eq!(world.heard(0), ["1 up"], "by the other relay of the region");
    world.silent.insert("b.example".into());
    world.send(0, ONE, 1, b"hello?");
    world.advance(limits::RELAY_PING_UNANSWERED + limits::RELAY_PONG);
    assert_eq!(world.heard(0), ["1 down: the relay does not answer any more"]);
}

#[test]
fn a_relay_that_falls_silent_beside_one_that_answers_is_told_of_soon() {
    let mut world = World::new(1);
    world.tell(0, PoolCommand::Warm(TWO));
    world.heard(0);
    world.silent.insert("a.example".into());
    world.send(0, ONE, 1, b"hello?");
    world.advance(limits::RELAY_PING_UNANSWERED + limits::RELAY_SILENT);
    assert_eq!(world.heard(0), ["1 is silent: true"]);
    world.silent.clear();
    world.tell(0, PoolCommand::Check);
    assert_eq!(world.heard(0), ["1 is silent: false"], "its answer counts");
    world.advance(limits::RELAY_PONG);
    assert_eq!(world.heard(0), [""; 0]);
    // Where both are silent it is us, and nothing is told but what is found dead.
    world.silent.extend(["a.example".into(), "c.example".into()]);
    world.send(0, ONE, 1, b"hello?");
    world.advance(limits::RELAY_PING_UNANSWERED + limits::RELAY_SILENT + SECOND);
    assert_eq!(world.heard(0), [""; 0]);
}

#[test]
fn data_that_arrives_is_a_sign_of_life_and_spares_pings() {
    let mut world = World::new(1);
    for _ in 0..100 {
        world.advance(10 * SECOND);
        let activity = Activity {
            peer: key(1),
            via: Via::Relay(ONE),
            direction: Direction::Received,
            packets: 1,
            bytes: 100,
        };
        world.input(0, Input::Activity(activity));
    }
    assert_eq!(world.relays["a.example"].server().counters().pings, 0);
    world.advance(60 * SECOND);
    assert!(world.relays["a.example"].server().counters().pings > 0);
}

#[test]
fn a_changed_network_makes_a_new_connection_before_the_old_one_goes() {
    let mut world = World::new(2);
    world.heard(0);
    world.heard(1);
    let before = world.clients[0].pool.stream(ONE);
    world.tell(0, PoolCommand::Kick);
    assert_ne!(world.clients[0].pool.stream(ONE), before);
    assert_eq!(world.heard(0), ["1 up"], "without a moment of being down");
    assert_eq!(world.clients[0].streams.len(), 2, "the old one is read for a moment");
    world.send(1, ONE, 0, b"to the new one");
    assert_eq!(world.heard(0), ["1 from 1: to the new one"]);
    world.advance(2 * SECOND);
    assert_eq!(world.clients[0].streams.len(), 1);
    assert!(world.heard(1).is_empty(), "nobody is told that the peer was gone");
}

#[test]
fn a_kick_without_a_network_keeps_the_old_connection_while_it_works() {
    let mut world = World::new(1);
    world.heard(0);
    world.down.extend(["a.example".to_owned(), "b.example".to_owned()]);
    world.tell(0, PoolCommand::Kick);
    world.advance(100 * SECOND);
    assert!(world.heard(0).is_empty());
    world.silent.insert("a.example".into());
    world.tell(0, PoolCommand::Kick);
    world.advance(limits::RELAY_PONG_AFTER_KICK);
    assert_eq!(world.heard(0), ["1 down: the relay does not answer any more"]);
}

#[test]
fn a_relay_that_drains_is_left_without_losing_a_packet() {
    let mut world = World::new(2);
    world.heard(0);
    world.heard(1);
    world.order("a.example", ServerCommand::Drain(2 * SECOND));
    // The next process takes over; here the same relay goes on.
    for n in 0..40_u32 {
        world.send(0, ONE, 1, n.to_string().as_bytes());
        world.advance(Duration::from_millis(100));
    }
    let (first, second) = (world.heard(0), world.heard(1));
    assert_eq!(first, ["1 up"]);
    let packets: Vec<_> = second.into_iter().filter(|word| word != "1 up").collect();
    assert_eq!(packets, (0..40).map(|n| format!("1 from 0: {n}")).collect::<Vec<_>>());
}

#[test]
fn a_region_whose_only_relay_drains_is_left_once_it_is_not_used_any_more() {
    let mut world = World::new(1);
    world.tell(0, PoolCommand::Warm(TWO));
    world.heard(0);
    world.order("c.example", ServerCommand::Drain(SECOND));
    world.down.insert("c.example".into());
    assert_eq!(world.heard(0), ["2 is about to stop"]);
    world.advance(10 * SECOND);
    assert!(world.heard(0).is_empty(), "it stays as long as it is wanted");
    world.tell(0, PoolCommand::Warm(RegionId(0)));
    world.advance(2 * SECOND);
    let activity = Activity {
        peer: key(1),
        via: Via::Relay(TWO),
        direction: Direction::Received,
        packets: 1,
        bytes: 100,
    };
    world.input(0, Input::Activity(activity));
    world.advance(2 * SECOND);
    assert!(world.heard(0).is_empty(), "and as long as somebody uses it");
    world.advance(SECOND);
    assert_eq!(world.heard(0), ["2 down: not used any more"]);
}

#[test]
fn a_dead_resolver_delays_no_failover() {
    let mut world = World::new(1);
    world.down.insert("a.example".into());
    world.crash("a.example");
    world.advance(SECOND);
    assert_eq!(world.heard(0), ["1 up", "1 down: crash", "1 up"]);
    world.dns_is_dead = true;
    world.crash("b.example");
    world.advance(SECOND);
    assert_eq!(world.heard(0), ["1 down: crash", "1 up"]);
}

#[test]
fn a_name_that_does_not_resolve_is_given_up_in_time() {
    let mut world = World::new(1);
    world.dns_is_dead = true;
    world.tell(0, PoolCommand::Want(TWO));
    world.advance(limits::RESOLVE_TIMEOUT);
    assert_eq!(world.heard(0), ["1 up", "2 down: c.example: the name could not be resolved in time"]);
}

#[test]
fn a_new_map_keeps_what_did_not_change_and_leaves_what_is_gone() {
    let mut world = World::new(1);
    world.tell(0, PoolCommand::Want(TWO));
    world.heard(0);
    world.dialled();
    let mut changed = map();
    changed.regions.get_mut(&ONE).unwrap().name = "Elsewhere".into();
    changed.regions.remove(&TWO);
    world.tell(0, PoolCommand::SetMap(changed.clone()));
    world.advance(limits::RELAY_LEAVE - SECOND);
    assert!(world.heard(0).is_empty(), "peers may still send there");
    world.advance(SECOND);
    assert_eq!(world.heard(0), ["2 down: the region is not in the relay map any more"]);
    assert!(world.dialled().is_empty(), "a new name is no new relay");
    changed.regions.get_mut(&ONE).unwrap().nodes.remove(1);
    world.tell(0, PoolCommand::SetMap(changed));
    assert_eq!(world.dialled(), ["b.example"]);
    assert_eq!(world.heard(0), ["1 up"]);
    world.tell(0, PoolCommand::Want(RegionId(77)));
    assert_eq!(world.heard(0), ["77 down: the relay map has no region 77"]);
}

#[test]
fn a_region_that_comes_back_into_the_map_was_never_left() {
    let mut world = World::new(1);
    world.tell(0, PoolCommand::Want(TWO));
    world.heard(0);
    world.dialled();
    let mut changed = map();
    changed.regions.remove(&TWO);
    world.tell(0, PoolCommand::SetMap(changed));
    world.advance(SECOND);
    world.tell(0, PoolCommand::SetMap(map()));
    world.advance(limits::RELAY_LEAVE);
    assert!(world.heard(0).is_empty() && world.dialled().is_empty());
}

#[test]
fn without_any_region_all_are_left_at_once() {
    let mut world = World::new(1);
    world.heard(0);
    world.tell(0, PoolCommand::SetMap(crate::relay_map::RelayMap::default()));
    assert_eq!(
        world.heard(0).first().map(String::as_str),
        Some("1 down: the region is not in the relay map any more")
    );
}

#[test]
fn a_relay_that_left_the_map_is_left_though_its_successor_comes_up_late() {
    let mut world = World::new(1);
    world.heard(0);
    world.dialled();
    world.down.insert("b.example".into());
    let mut changed = map();
    changed.regions.get_mut(&ONE).unwrap().nodes.remove(1);
    world.tell(0, PoolCommand::SetMap(changed));
    assert_eq!(world.dialled(), ["b.example"]);
    assert!(world.heard(0).is_empty(), "the old relay serves on");
    world.down.remove("b.example");
    world.advance(20 * SECOND);
    assert_eq!(world.dialled(), ["b.example"]);
    assert_eq!(world.heard(0), ["1 up"]);
}

#[test]
fn many_regions_are_not_connected_at_once() {
    let mut world = World::new(1);
    let mut many = map();
    for n in 10..100 {
        let region = crate::relay_map::RelayRegion { id: RegionId(n), ..many.regions[&TWO].clone() };
        many.regions.insert(RegionId(n), region);
    }
    world.tell(0, PoolCommand::SetMap(many));
    for n in 10..100 {
        world.tell(0, PoolCommand::Want(RegionId(n)));
        world.advance(Duration::from_millis(10));
    }
    let up: Vec<_> = world.clients[0].pool.up().collect();
    assert_eq!(up.len(), limits::RELAY_LINKS_MAX);
    assert!(up.contains(&ONE) && up.contains(&RegionId(99)) && !up.contains(&RegionId(10)));
}

#[test]
fn relays_that_crash_again_and_again_are_found_again_each_time() {
    let mut world = World::new(2);
    let mut rng = Seed::from_u64(77).rng();
    for _ in 0..100 {
        let host = ["a.example", "b.example"][rng.range(0..2) as usize];
        world.crash(host);
        world.advance(Duration::from_millis(rng.range(0..30_000)));
    }
    world.advance(20 * SECOND);
    for (from, to) in [(0, 1), (1, 0)] {
        world.heard(to);
        world.send(from, ONE, to as u64, b"still there");
        assert_eq!(world.heard(to), [format!("1 from {from}: still there")]);
    }
}

#[test]
fn the_pool_keeps_the_seven_laws() {
    Subject::new(|seed| {
        RelayPool::new(PoolConfig { identity: secret(0), streams: 0..1 << 20 }, seed, Time::ZERO)
    })
    .commands(|rng| {
        let region = RegionId(rng.range(0..4));
        let command = match rng.range(0..10) {
            8 => PoolCommand::Spread(SECOND * rng.range(0..9) as u32),
            0 => PoolCommand::SetMap(map()),
            1 => PoolCommand::SetMap(crate::relay_map::RelayMap::default()),
            2 => PoolCommand::Home(region),
            3 => PoolCommand::Warm(region),
            4 => PoolCommand::Want(region),
            5 => PoolCommand::Send { region, to: key(1), bytes: vec![1; rng.range(0..100) as usize] },
            6 => PoolCommand::Kick,
            7 => PoolCommand::WebSockets(rng.permille(500)),
            _ => PoolCommand::Check,
        };
        // A new command does not compile here until it is drawn above.
        match command {
            PoolCommand::SetMap(_) | PoolCommand::Home(_) | PoolCommand::Warm(_) | PoolCommand::Want(_) => {}
            PoolCommand::Send { .. }
            | PoolCommand::Spread(_)
            | PoolCommand::Kick
            | PoolCommand::Check
            | PoolCommand::WebSockets(_) => {}
        }
        command
    })
    .inputs(|rng| {
        let stream = StreamId((rng.range(0..6) << 12) + rng.range(0..3));
        word_of_a_relay(stream, rng)
    })
    .size(2 << 20, |pool| format!("{pool:?}").len())
    .check(40);
}

#[test]
fn a_link_alone_keeps_them_too() {
    let region = |n: u64| crate::relay_map::RelayRegion { id: ONE, ..map().regions[&RegionId(n)].clone() };
    Subject::new(|seed| {
        let config = LinkConfig { identity: secret(0), region: region(1), streams: 0..16, mesh: None };
        RelayLink::new(config, seed, Time::ZERO)
    })
    .commands(|rng| {
        let command = match rng.range(0..14) {
            12 => LinkCommand::Ask,
            13 => LinkCommand::Spread(SECOND * rng.range(0..9) as u32),
            0..4 => LinkCommand::Connect,
            4 => LinkCommand::Close,
            5 => LinkCommand::Preferred(rng.permille(500)),
            6 | 7 => LinkCommand::Send { to: key(1), bytes: vec![1; rng.range(0..100) as usize] },
            8 => LinkCommand::Kick,
            9 => LinkCommand::Check,
            _ => LinkCommand::Region(region(rng.range(1..3))),
        };
        // A new command does not compile here until it is drawn above.
        match command {
            LinkCommand::Connect | LinkCommand::Close | LinkCommand::Preferred(_) | LinkCommand::Ask => {}
            LinkCommand::Spread(_) => {}
            LinkCommand::Send { .. } | LinkCommand::Kick | LinkCommand::Check | LinkCommand::Region(_) => {}
        }
        command
    })
    .inputs(|rng| word_of_a_relay(StreamId(rng.range(0..6)), rng))
    .size(1 << 20, |link| format!("{link:?}").len())
    .check(60);
}

/// What the relay of key 100 may say to the client of key 0.
fn word_of_a_relay<C>(stream: StreamId, rng: &mut crate::seed::Rng) -> OwnedInput<C> {
    let relay = secret(100);
    let bytes = match rng.range(0..7) {
        0 | 1 => Frame::ServerKey { key: relay.public() }.to_bytes(),
        2 | 3 => {
            let mut info = Vec::new();
            ServerInfo::default().emit(&relay.shared(&key(0)), rng, &mut info);
            info
        }
        4 => Frame::Restarting { reconnect_in: SECOND, try_for: SECOND }.to_bytes(),
        5 => Frame::Pong([0; 8]).to_bytes(),
        _ => Frame::RecvPacket { from: key(1), bytes: b"x" }.to_bytes(),
    };
    OwnedInput::StreamBytes { stream, bytes }
}

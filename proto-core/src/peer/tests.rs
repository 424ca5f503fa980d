//! Two peers against each other.

mod guesses;
mod laws;
mod world;

use self::world::{Before, REGION, World, most_in_a_second};
use super::*;
use crate::wire::disco::{Envelope, Message, TxId};
use proptest::prelude::*;

const NATS: [Before; 4] = [Before::Nothing, Before::Restricted, Before::Poisonable, Before::Symmetric];

/// Whether a pair can go direct at all.
fn possible(pair: [Before; 2]) -> bool {
    let hard = |b| b == Before::Symmetric;
    let strict = |b| matches!(b, Before::Restricted | Before::Poisonable | Before::Symmetric);
    !(pair.contains(&Before::Blocked)
        || (hard(pair[0]) && strict(pair[1]))
        || (hard(pair[1]) && strict(pair[0])))
}

#[test]
fn every_pair_of_networks_goes_direct_exactly_if_it_can() {
    for a in NATS.into_iter().chain([Before::Blocked]) {
        for b in NATS.into_iter().chain([Before::Blocked]) {
            for seed in 0..10 {
                let mut w = World::new(seed, [a, b]);
                w.run(8_000);
                assert_eq!(w.both_direct(), possible([a, b]), "{a:?} {b:?} seed {seed}");
                if !possible([a, b]) {
                    let relayed = w.sides.iter().all(|s| s.peer.route().primary == Some(Via::Relay(REGION)));
                    assert!(relayed, "{a:?} {b:?} stays usable");
                }
            }
        }
    }
}

#[test]
fn becoming_direct_takes_a_word_and_a_round_trip() {
    let (open, home, hard) = (Before::Nothing, Before::Restricted, Before::Symmetric);
    for pair in [[home; 2], [Before::Poisonable; 2], [open, home], [open, hard]] {
        let mut w = World::new(3, pair);
        w.run(1_000);
        // The word through the relay 25 ms, the round trip 20 ms, jitter up to 3 ms a leg.
        let at = w.direct_at().unwrap();
        assert!(at < Time::from_millis(70), "{pair:?}: {at}");
    }
}

/// Two on one host: nobody needs an opener there, and no relay is up yet.
fn on_loopback() -> World {
    let mut w = World::silent(3, [Before::Nothing; 2]);
    w.delay = Duration::from_micros(50);
    w.jitter = 10;
    for i in 0..2 {
        w.sides[i].bound = format!("127.0.0.1:{}", 1_000 + i).parse().unwrap();
        w.sides[i].public = w.sides[i].bound;
    }
    w
}

/// Side `i` learns where the other one is, and has a socket.
fn meet(w: &mut World, i: usize) {
    let mut info = w.sides[i].peer.info().clone();
    info.endpoints = vec![w.sides[1 - i].bound];
    w.command(i, PeerCommand::Info(info));
    let address = w.sides[i].bound;
    w.input(i, Input::LinkUp { link: world::LINK, address });
}

#[test]
fn on_one_network_no_word_is_waited_for() {
    let mut w = on_loopback();
    for i in 0..2 {
        meet(&mut w, i);
    }
    w.run(100);
    assert!(w.direct_at().unwrap() < Time::from_millis(1), "{:?}", w.direct_at());
}

#[test]
fn whoever_knows_the_other_first_waits_for_no_pause() {
    let mut w = on_loopback();
    // What the first one sends is lost on the other, who does not know it yet.
    w.cut[0] = true;
    meet(&mut w, 0);
    assert!(!w.sides[0].sent.is_empty());
    w.run(5);
    w.cut[0] = false;
    meet(&mut w, 1);
    w.run(1);
    assert!(w.both_direct(), "{:?}", w.sides.each_ref().map(|s| s.direct));
}

#[test]
fn one_side_that_starts_late_is_no_obstacle() {
    for late in [0, 1] {
        for pause in [50, 900, 3_000, 12_000] {
            let mut w = World::silent(5, [Before::Poisonable; 2]);
            w.start(1 - late);
            w.run(pause);
            w.start(late);
            w.run(3_000);
            assert!(w.both_direct(), "{pause} ms");
        }
    }
}

#[test]
fn a_peer_that_does_not_know_opened_is_probed_at_once() {
    let mut w = World::silent(3, [Before::Restricted; 2]);
    for i in 0..2 {
        let mut info = w.sides[i].peer.info().clone();
        info.features.clear();
        w.command(i, PeerCommand::Info(info));
        w.start(i);
    }
    w.run(1_000);
    assert!(w.direct_at().unwrap() < Time::from_millis(150), "{:?}", w.direct_at());
}

#[test]
fn lost_words_cost_time_but_not_the_path() {
    for seed in 0..20 {
        let mut w = World::new(seed, [Before::Restricted; 2]);
        w.deaf_words = 500;
        w.run(12_000);
        assert!(w.direct_at().is_some(), "seed {seed}");
    }
    let mut w = World::silent(3, [Before::Restricted; 2]);
    w.deaf_words = 1_000;
    w.start(0);
    w.start(1);
    w.run(30_000);
    assert!(w.direct_at().is_some(), "a relay that carries no words at all");
}

#[test]
fn open_ack_punch_survives_loss_on_routers_that_early_packets_spoil() {
    let mut failed = Vec::new();
    for seed in 0..200 {
        let mut w = World::silent(seed, [Before::Poisonable; 2]);
        w.loss = 100;
        w.start(0);
        w.run(seed % 40);
        w.start(1);
        w.run(6_000);
        if !w.both_direct() {
            failed.push(seed);
        }
    }
    assert_eq!(failed, [0_u64; 0]);
}

#[test]
fn a_blackholed_path_gives_way_to_the_relay_and_comes_back() {
    for seed in 0..20 {
        let mut w = World::new(seed, [Before::Restricted; 2]);
        w.data = [true, true];
        w.run(5_000);
        assert!(w.both_direct());
        let fault = w.now;
        w.cut = [true, true];
        w.run(10_000);
        for i in 0..2 {
            assert!(w.gap(i, fault) < Duration::from_millis(1_500), "seed {seed}: {:?}", w.gap(i, fault));
            assert_eq!(w.sides[i].peer.route().primary, Some(Via::Relay(REGION)));
        }
        w.cut = [false, false];
        w.run(5_000);
        assert!(w.both_direct(), "seed {seed}");
    }
}

#[test]
fn a_path_that_carries_one_way_only_is_left_within_the_bound() {
    for cut in [[true, false], [false, true]] {
        let mut w = World::new(1, [Before::Restricted; 2]);
        w.data = [true, true];
        w.run(5_000);
        let fault = w.now;
        w.cut = cut;
        w.run(20_000);
        for i in 0..2 {
            assert!(w.gap(i, fault) <= Duration::from_millis(3_500), "{:?}", w.gap(i, fault));
            let primaries: BTreeSet<_> =
                w.sides[i].routes.iter().filter(|(at, _)| *at > fault).map(|(_, r)| r.primary).collect();
            assert_eq!(
                primaries.len(),
                1 + usize::from(primaries.iter().any(|p| p.is_some_and(|v| v.is_direct())))
            );
        }
    }
}

#[test]
fn a_path_that_passes_probes_but_no_data_is_left() {
    let mut w = World::new(1, [Before::Restricted; 2]);
    w.run(2_000);
    assert!(w.both_direct());
    let fault = w.now;
    w.narrow = true;
    w.data = [true, true];
    w.run(20_000);
    for i in 0..2 {
        assert_eq!(w.sides[i].peer.route().primary, Some(Via::Relay(REGION)));
        assert!(w.gap(i, fault) <= Duration::from_millis(2_000), "{:?}", w.gap(i, fault));
        let lost = w.sides[i].stories.iter().filter(|(_, s)| matches!(s, PathStory::Lost { .. })).count();
        assert_eq!(lost, 1, "{:?}", w.sides[i].stories);
    }
}

#[test]
fn a_rebooted_nat_is_punched_anew() {
    let mut w = World::new(1, [Before::Restricted, Before::Nothing]);
    w.data = [true, true];
    w.run(5_000);
    w.reboot_nat(0);
    w.run(6_000);
    assert!(w.both_direct());
}

#[test]
fn loss_is_no_outage() {
    for seed in 0..10 {
        let mut w = World::new(seed, [Before::Restricted; 2]);
        w.run(3_000);
        w.loss = 200;
        w.data = [true, true];
        w.run(120_000);
        for side in &w.sides {
            let lost = side.stories.iter().filter(|(_, s)| matches!(s, PathStory::Lost { .. })).count();
            assert_eq!(lost, 0, "seed {seed}: {:?}", side.stories);
        }
    }
}

#[test]
fn without_a_relay_a_silent_path_is_kept_for_a_while() {
    let mut w = World::new(1, [Before::Restricted; 2]);
    w.data = [true, true];
    w.run(3_000);
    for i in 0..2 {
        w.command(i, PeerCommand::Relay { region: REGION, up: false });
    }
    w.cut = [true, true];
    w.run(20_000);
    assert!(w.both_direct());
    w.cut = [false, false];
    let healed = w.now;
    w.run(3_000);
    assert!(w.gap(0, healed) < Duration::from_millis(200), "{:?}", w.gap(0, healed));
}

#[test]
fn an_idle_pair_falls_silent_and_wakes_at_once() {
    let mut w = World::new(1, [Before::Restricted; 2]);
    w.run(60_000);
    assert!(w.both_direct());
    let before = w.sides[0].sent.len();
    w.run(3_600_000);
    assert_eq!(w.sides[0].sent.len(), before);
    assert_eq!(w.sides[0].peer.deadline(), None);
    // The first packet after the rest goes both ways.
    assert!(w.sides[0].peer.route().duplicate.is_some());
    w.command(0, PeerCommand::Engaged(true));
    w.run(1_000);
    assert_eq!(w.sides[0].peer.route().duplicate, None);
}

#[test]
fn a_pair_that_cannot_go_direct_tries_ever_more_rarely() {
    let mut w = World::new(1, [Before::Symmetric; 2]);
    w.command(0, PeerCommand::Engaged(true));
    w.run(600_000);
    let attempts: Vec<_> =
        w.sides[0].stories.iter().filter(|(_, s)| matches!(s, PathStory::Punching { .. })).collect();
    assert!((10..40).contains(&attempts.len()), "{}", attempts.len());
    let late = w.sides[0].sent.iter().filter(|at| **at > Time::from_secs(300)).count();
    assert!(late < 300, "{late}");
}

#[test]
fn a_restarted_peer_is_another_one() {
    let mut w = World::new(1, [Before::Restricted; 2]);
    w.run(2_000);
    let mut info = w.sides[0].peer.info().clone();
    info.boot_id += 1;
    w.command(0, PeerCommand::Info(info));
    assert_eq!(w.sides[0].peer.route().primary, Some(Via::Relay(REGION)));
    w.run(2_000);
    assert!(w.both_direct());
}

#[test]
fn a_closed_socket_ends_the_path_at_once_and_another_takes_over() {
    let mut w = World::new(1, [Before::Nothing; 2]);
    w.run(2_000);
    w.input(0, Input::LinkDown { link: world::LINK });
    assert_eq!(w.sides[0].peer.route().primary, Some(Via::Relay(REGION)));
    let address = w.sides[0].bound;
    w.input(0, Input::LinkUp { link: world::LINK, address });
    w.run(2_000);
    assert!(w.both_direct());
}

#[test]
fn where_direct_paths_are_forbidden_nothing_is_probed_or_answered() {
    let mut w = World::silent(1, [Before::Nothing; 2]);
    let (config, info) = (w.sides[0].peer.config.clone(), w.sides[0].peer.info().clone());
    w.sides[0].peer = Peer::new(PeerConfig { direct: false, ..config }, info, Seed::from_u64(1), Time::ZERO);
    w.start(0);
    w.start(1);
    w.run(20_000);
    assert!(w.sides[0].sent.is_empty() && w.sides[0].words.is_empty());
    assert!(w.sides.iter().all(|s| s.peer.route().primary == Some(Via::Relay(REGION))));
}

#[test]
fn only_the_peers_own_words_count() {
    let mut w = World::new(1, [Before::Nothing; 2]);
    let foreign = DiscoSecret::generate(&Seed::from_u64(77));
    let us = w.sides[0].peer.config.disco.public();
    let ping = Message::Ping { tx: TxId([1; 12]), node_key: Some(w.sides[1].key), padding: 0 };
    let forged = ping.seal(foreign.public(), &foreign.shared(&us), &mut Seed::from_u64(1).rng());
    let before = w.sides[0].sent.len();
    w.input(0, Input::Datagram { link: world::LINK, from: "203.0.113.9:9".parse().unwrap(), bytes: &forged });
    assert_eq!(w.sides[0].sent.len(), before);
    // The right keys, but another node's name in it.
    let secret = w.sides[1].peer.config.disco.clone();
    let ping = Message::Ping { tx: TxId([2; 12]), node_key: Some(w.sides[0].key), padding: 0 };
    let named = ping.seal(secret.public(), &secret.shared(&us), &mut Seed::from_u64(1).rng());
    w.input(0, Input::Datagram { link: world::LINK, from: "203.0.113.9:9".parse().unwrap(), bytes: &named });
    assert_eq!(w.sides[0].sent.len(), before);
}

#[test]
fn a_call_is_not_answered_with_a_call() {
    let mut w = World::silent(1, [Before::Restricted; 2]);
    let (secret, us) = (w.sides[1].peer.config.disco.clone(), w.sides[0].peer.config.disco.public());
    w.start(0);
    w.run(500);
    let shared = secret.shared(&us);
    let call = Message::CallMeMaybe { endpoints: vec!["198.51.2.1:7".parse().unwrap()] };
    let bytes = call.seal(secret.public(), &shared, &mut Seed::from_u64(1).rng());
    let peer = &mut w.sides[0].peer;
    peer.handle(Input::Command(PeerCommand::Relayed { region: REGION, bytes }), w.now);
    let said: Vec<_> = std::iter::from_fn(|| peer.poll())
        .filter_map(|output| match output {
            Output::Event(PeerEvent::Relay { bytes, .. }) => {
                Envelope::new_checked(&bytes)?.open(&shared).ok()
            }
            _ => None,
        })
        .collect();
    assert!(matches!(said[..], [Message::Opened { .. }]), "{said:?}");
}

#[test]
fn of_many_addresses_the_one_that_answers_is_found_at_once() {
    let mut w = World::silent(1, [Before::Restricted; 2]);
    let mut info = w.sides[0].peer.info().clone();
    let dead = (1..=40).map(|n| format!("10.9.0.{n}:9").parse().unwrap());
    info.endpoints.splice(0..0, dead);
    w.command(0, PeerCommand::Info(info));
    w.start(0);
    w.start(1);
    w.run(500);
    assert!(w.direct_at().unwrap() < Time::from_millis(150), "{:?}", w.direct_at());
}

#[test]
fn a_ping_from_an_unknown_address_is_answered_and_asked_back_even_at_rest() {
    let mut w = World::silent(1, [Before::Nothing; 2]);
    w.run(60_000);
    let address = w.sides[0].bound;
    w.input(0, Input::LinkUp { link: world::LINK, address });
    assert_eq!(w.sides[0].sent.len(), 0);
    let (secret, us) = (w.sides[1].peer.config.disco.clone(), w.sides[0].peer.config.disco.public());
    let ping = Message::Ping { tx: TxId([4; 12]), node_key: Some(w.sides[1].key), padding: 0 };
    let bytes = ping.seal(secret.public(), &secret.shared(&us), &mut Seed::from_u64(1).rng());
    w.input(
        0,
        Input::Datagram { link: world::LINK, from: "[2001:db8::9]:9".parse().unwrap(), bytes: &bytes },
    );
    // Both on the socket that it came in on.
    assert_eq!(w.sides[0].sent.len(), 2);
}

#[test]
fn a_repeated_datagram_is_answered_once() {
    let mut w = World::new(1, [Before::Nothing; 2]);
    w.run(1_000);
    let us = w.sides[0].peer.config.disco.public();
    let secret = w.sides[1].peer.config.disco.clone();
    let ping = Message::Ping { tx: TxId([3; 12]), node_key: None, padding: 0 };
    let bytes = ping.seal(secret.public(), &secret.shared(&us), &mut Seed::from_u64(1).rng());
    let from = w.sides[1].bound;
    let before = w.sides[0].sent.len();
    for _ in 0..5 {
        w.input(0, Input::Datagram { link: world::LINK, from, bytes: &bytes });
    }
    assert_eq!(w.sides[0].sent.len(), before + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens, a peer never sends more than its budgets allow in any second: probes, heartbeats
    /// and answers over UDP, words through the relay.
    #[test]
    fn nothing_makes_a_storm(
        seed in 0_u64..1_000,
        pair in (0_usize..4, 0_usize..4),
        steps in proptest::collection::vec((0_u8..9, 0_u64..400), 1..60),
    ) {
        let mut w = World::new(seed, [NATS[pair.0], NATS[pair.1]]);
        let many: Vec<SocketAddr> = (1..=64).map(|n| format!("203.0.113.{n}:9").parse().unwrap()).collect();
        for (step, pause) in steps {
            let side = usize::from(step % 2);
            match step {
                0 | 1 => w.command(side, PeerCommand::NetworkChanged),
                2 | 3 => w.data[side] = !w.data[side],
                4 => w.cut[0] = !w.cut[0],
                5 => w.loss = 300,
                6 => w.command(side, PeerCommand::Endpoints(many[..(pause as usize % 64)].to_vec())),
                7 => w.reboot_nat(side),
                _ => {
                    let mut info = w.sides[side].peer.info().clone();
                    info.endpoints = many[..(pause as usize % 64)].to_vec();
                    w.command(side, PeerCommand::Info(info));
                }
            }
            w.run(pause);
        }
        for side in &w.sides {
            let bound = limits::PROBE_BURST + limits::PROBE_RATE + limits::ANSWER_BURST + limits::ANSWER_RATE + 10;
            prop_assert!(most_in_a_second(&side.sent) <= bound as usize);
            prop_assert!(most_in_a_second(&side.words) <= (limits::WORD_BURST + limits::WORD_RATE) as usize);
        }
    }
}

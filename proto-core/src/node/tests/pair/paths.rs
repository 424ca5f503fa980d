//! How two nodes find a path to one another, keep it and come back to it.

use super::*;

#[test]
fn two_nodes_find_each_other_by_relay_first_and_then_directly() {
    let mut pair = Pair::started(true, true);
    pair.run(3_000);
    insta::assert_snapshot!(pair.log(CLIENT), @r"
    1040: peer agent up
    1090: relay 1
    1090: initiate
    1125: direct 198.51.100.2:7000
    ");
    let agent = pair.log(AGENT).replace(&pair.sides[CLIENT].node.status().id.unwrap().0, "[client]");
    insta::assert_snapshot!(agent, @r"
    1040: peer [client] up
    1060: relay 1
    1120: direct 198.51.100.1:7000
    ");
    pair.talk(1_000);
    assert!(pair.ways().into_iter().all(direct), "{:?}", pair.ways());
    let verdict = &pair.sides[CLIENT].node.status().peers[0].verdict;
    assert_eq!(verdict.to_string(), "direct to 198.51.100.2:7000, found after 85 ms");
}

#[test]
fn where_udp_is_blocked_the_relay_carries_both_ways() {
    let mut pair = Pair::started(true, false);
    pair.talk(10_000);
    assert_eq!(pair.ways(), [Some(Via::Relay(RegionId(1))); 2]);
    let status = pair.sides[CLIENT].node.status();
    assert_eq!(status.report.udp, Some(false));
    assert_eq!(
        status.peers[0].verdict.to_string(),
        "relayed: either network lets no UDP through (allow outgoing UDP in its firewall)"
    );
}

#[test]
fn a_coordinator_that_forbids_direct_paths_keeps_everything_on_the_relay() {
    let mut pair = Pair::started(false, true);
    pair.talk(10_000);
    assert_eq!(pair.ways(), [Some(Via::Relay(RegionId(1))); 2]);
    assert_eq!(pair.sides[AGENT].node.status().endpoints, []);
}

#[test]
fn a_direct_path_that_breaks_falls_back_to_the_relay_and_returns() {
    let mut pair = Pair::started(true, true);
    let peer = pair.sides[AGENT].node.key();
    pair.talk(2_000);
    pair.tell(CLIENT, NodeCommand::Engaged { peer, engaged: true });
    pair.talk(2_000);
    pair.udp = false;
    pair.talk(10_000);
    assert_eq!(pair.ways(), [Some(Via::Relay(RegionId(1))); 2]);
    pair.udp = true;
    pair.talk(60_000);
    assert!(pair.ways().into_iter().all(direct), "{:?}\n{}", pair.ways(), pair.log(CLIENT));
}

#[test]
fn a_relay_that_dies_is_replaced_by_the_other() {
    let mut pair = Pair::started(true, false);
    pair.talk(10_000);
    pair.relay_down(1, true);
    pair.talk(10_000);
    assert_eq!(pair.ways(), [Some(Via::Relay(RegionId(2))); 2], "{}", pair.log(CLIENT));
    for side in &pair.sides {
        assert_eq!(side.node.status().home, Some(RegionId(2)));
    }
}

/// A relayed pair whose relay drains; the other relay can be reached from `late` milliseconds later on.
fn drained(late: u64) -> Pair {
    let mut pair = Pair::started(true, false);
    pair.talk(10_000);
    assert_eq!(pair.ways(), [Some(Via::Relay(RegionId(1))); 2]);
    if late > 0 {
        pair.relay_down(2, true);
        pair.run(20_000);
    }
    pair.sides.iter_mut().for_each(|side| side.received.clear());
    let drain = crate::relay::ServerCommand::Drain(Duration::from_secs(1));
    pair.relay(1, Input::Command(drain));
    // Nobody new is let in; those who are there may stay.
    pair.down.insert(1);
    for n in 0..2_000 {
        if n * 10 == late {
            pair.relay_down(2, false);
        }
        pair.run(10);
        pair.wire_guard(CLIENT, &data());
        pair.wire_guard(AGENT, &data());
    }
    pair.run(1_000);
    pair
}

#[test]
fn a_relay_that_drains_is_left_for_the_other_without_a_packet_lost() {
    for late in [0, 8_000] {
        let pair = drained(late);
        assert_eq!(pair.ways(), [Some(Via::Relay(RegionId(2))); 2], "{}", pair.log(CLIENT));
        for side in &pair.sides {
            assert_eq!(side.received.len(), 2_000, "with {late} ms: {}", side.log.join("\n"));
            assert_eq!(side.node.status().home, Some(RegionId(2)));
        }
        assert_eq!(pair.hubs[&1].server().connections(), (0, 0), "all have moved");
        assert!(!pair.log(CLIENT).contains("no way"), "{}", pair.log(CLIENT));
    }
}

#[test]
fn the_tunnel_goes_on_without_the_coordinator() {
    let mut pair = Pair::started(true, true);
    pair.talk(2_000);
    let control: Vec<_> =
        pair.wires.streams.iter().filter(|(_, w)| w.2 == Server::Coordinator).map(|(f, _)| *f).collect();
    control.into_iter().for_each(|far| pair.hang_up(far));
    pair.sides.iter_mut().for_each(|side| side.received.clear());
    pair.talk(1_000);
    assert!(pair.ways().into_iter().all(direct), "{:?}", pair.ways());
    assert!(!pair.log(CLIENT).contains("down"), "{}", pair.log(CLIENT));
}

#[test]
fn equal_seeds_give_equal_worlds() {
    let run = || {
        let mut pair = Pair::started(true, true);
        pair.talk(5_000);
        (pair.log(CLIENT), pair.log(AGENT), pair.sent)
    };
    assert_eq!(run(), run());
}

#[test]
fn the_coordinator_is_told_of_the_path_by_the_end_that_asked_and_not_of_silence() {
    let mut pair = Pair::started(true, true);
    pair.talk(30_000);
    assert!(pair.paths.iter().all(|(_, peer, _)| peer.0 == "agent"), "{:?}", pair.paths);
    assert!((4..=8).contains(&pair.paths.len()), "{:?}", pair.paths);
    let apart = pair.paths.windows(2).map(|two| two[1].0.since(two[0].0));
    assert!(apart.min() >= Some(limits::PATH_REPORT_EVERY), "{:?}", pair.paths);
    let (_, _, last) = pair.paths.last().unwrap();
    assert_eq!(last.address, Some("198.51.100.2:7000".parse().unwrap()));
    assert!(last.latency_us.is_some() && last.sent_bytes > 0 && last.received_bytes > 0, "{last:?}");
    assert!(last.sentence.starts_with("direct to 198.51.100.2:7000"), "{last:?}");

    pair.run(10_000);
    pair.paths.clear();
    pair.run(60_000);
    let quiet = pair.paths.len();
    assert!(quiet <= 6, "a quiet tunnel says little: {:?}", pair.paths);
}

#[test]
fn a_path_that_breaks_is_told_and_why_it_is_relayed() {
    let mut pair = Pair::started(true, false);
    pair.talk(10_000);
    let (_, _, last) = pair.paths.last().unwrap();
    assert_eq!((last.address, last.relay), (None, Some(RegionId(1))));
    assert_eq!(last.side, "both");
    assert_eq!(last.remedy.as_deref(), Some("allow outgoing UDP in its firewall"));
}

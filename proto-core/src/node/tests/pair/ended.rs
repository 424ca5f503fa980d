//! A process that was killed is told from one that is out of reach.

use super::*;

impl Pair {
    /// The streams of a node to servers of this kind.
    fn streams(&self, n: usize, kind: impl Fn(Server) -> bool) -> Vec<StreamId> {
        let all = self.wires.streams.iter();
        all.filter(|(_, wire)| wire.0 == n && kind(wire.2)).map(|(far, _)| *far).collect()
    }

    /// Kills a node's process: its kernel closes what it had open.
    fn kill(&mut self, n: usize) {
        self.dead.insert(n);
        self.streams(n, |_| true).into_iter().for_each(|far| self.hang_up(far));
    }

    /// When a node's peer went down, since a moment.
    fn ended(&self, n: usize, since: Time) -> Option<Duration> {
        let line = self.sides[n].log.iter().find(|line| line.contains("peer down: it has ended"))?;
        let at: u64 = line.split(':').next()?.parse().ok()?;
        Some(Time::from_millis(at).since(since))
    }
}

/// A pair in use for a while, directly or by a relay.
fn used(udp: bool) -> Pair {
    let mut pair = Pair::started(true, udp);
    let peer = pair.sides[AGENT].node.key();
    pair.talk(1_000);
    pair.tell(CLIENT, NodeCommand::Engaged { peer, engaged: true });
    pair.talk(9_000);
    pair
}

#[test]
fn a_peer_that_was_killed_has_ended_within_three_seconds() {
    for udp in [true, false] {
        let mut pair = used(udp);
        let killed = pair.now;
        pair.kill(AGENT);
        pair.run(3_000);
        assert!(pair.ended(CLIENT, killed).is_some(), "udp {udp}: {}", pair.log(CLIENT));
        pair.run(60_000);
        assert_eq!(pair.sides[CLIENT].node.status().peers.len(), 0);
    }
}

#[test]
fn a_client_that_was_killed_is_let_go_without_haste() {
    let mut pair = used(true);
    let killed = pair.now;
    pair.kill(CLIENT);
    pair.run(14_000);
    let after = pair.ended(AGENT, killed);
    assert!(after.is_some_and(|after| after >= limits::CLOSED_CLIENT), "{after:?} {}", pair.log(AGENT));
}

#[test]
fn a_peer_whose_connection_alone_broke_goes_on() {
    for udp in [true, false] {
        let mut pair = used(udp);
        let began = pair.now;
        // Nobody lets it in again for a while, and nothing is said inside the tunnel.
        for _ in 0..100 {
            let control = pair.streams(AGENT, |server| server == Server::Coordinator);
            control.into_iter().for_each(|far| pair.hang_up(far));
            pair.run(100);
        }
        assert_eq!(pair.ended(CLIENT, began), None, "udp {udp}: {}", pair.log(CLIENT));
    }
}

#[test]
fn a_network_that_fails_for_ten_seconds_ends_nobody() {
    let mut pair = used(true);
    let began = pair.now;
    pair.udp = false;
    // What its relays and its server say is lost, and no end of a connection is told.
    pair.dead.insert(AGENT);
    pair.run(10_000);
    pair.dead.remove(&AGENT);
    pair.udp = true;
    pair.talk(20_000);
    assert_eq!(pair.ended(CLIENT, began), None, "{}", pair.log(CLIENT));
    assert!(pair.ways().into_iter().all(|way| way.is_some()), "{:?}", pair.ways());
}

#[test]
fn a_server_that_stops_ends_nobody() {
    let mut pair = used(false);
    let began = pair.now;
    // It says goodbye to the agent first, and goes with its relay. The client hears of the agent, then of the end.
    let control = pair.streams(AGENT, |server| server == Server::Coordinator);
    control.into_iter().for_each(|far| pair.hang_up(far));
    pair.run(500);
    let all = [CLIENT, AGENT].map(|n| pair.streams(n, |server| server == Server::Coordinator)).concat();
    all.into_iter().for_each(|far| pair.hang_up(far));
    pair.relay_down(1, true);
    pair.relay_down(2, true);
    pair.run(3_000);
    pair.relay_down(1, false);
    pair.relay_down(2, false);
    pair.talk(30_000);
    assert_eq!(pair.ended(CLIENT, began), None, "{}", pair.log(CLIENT));
    assert!(pair.ways().into_iter().all(|way| way.is_some()), "{:?}", pair.ways());
}

#[test]
fn a_peer_without_a_network_has_not_ended_though_a_router_closes_its_connection() {
    let mut pair = used(true);
    let began = pair.now;
    pair.udp = false;
    pair.dead.insert(AGENT);
    // Its path falls silent, which takes a while, before anybody says that its connection is closed.
    pair.talk(5_000);
    let control = pair.streams(AGENT, |server| server == Server::Coordinator);
    control.into_iter().for_each(|far| pair.hang_up(far));
    pair.talk(6_000);
    assert_eq!(pair.ended(CLIENT, began), None, "{}", pair.log(CLIENT));
}

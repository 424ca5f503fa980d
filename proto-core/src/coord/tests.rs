//! Sessions and a coordinator together, then each alone with a hostile other side.

mod alone;
mod world;

use super::*;
use crate::id::StreamId;
use crate::seed::Seed;
use crate::time::Duration;
use crate::wire::control::{PathReport, ToServer, VERSION};
use world::{World, id};

const ALL: [&str; 3] = ["ann", "bob", "agent"];

#[test]
fn both_ends_of_a_tunnel_learn_of_each_other_and_are_ready() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    assert_eq!(world.heard("ann"), ["up", "peer agent home 1 endpoints 1"]);
    assert_eq!(world.heard("agent"), ["up", "peer client home 1 endpoints 1"]);
    let ann = world.id_of("ann");
    world.say("agent", SessionCommand::Ready(ann));
    assert_eq!(world.heard("ann"), ["ready agent"]);
    assert_eq!(world.heard("bob"), ["up"]);
}

#[test]
fn updates_go_along_tunnels_only_and_only_when_something_changed() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.hush();
    world.move_home("agent", 2);
    world.repeat("agent");
    assert_eq!(world.heard("ann"), ["peer agent home 2 endpoints 1"]);
    assert_eq!(world.coordinator.counters().unchanged, 1);
    assert!(world.heard("bob").is_empty());
    assert!(world.heard("agent").is_empty());
}

#[test]
fn a_broken_connection_loses_nobody() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    let (before, welcomed) = (world.id_of("ann"), world.coordinator.counters().welcomed);
    world.hush();
    world.cut("ann");
    assert_eq!(world.heard("agent"), ["lost client: closed"]);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.heard("ann"), ["down: cut", "up", "peer agent home 1 endpoints 1"]);
    assert_eq!(world.heard("agent"), ["peer client home 1 endpoints 1"]);
    assert_eq!(world.id_of("ann"), before, "the resume token keeps the name");
    let counters = world.coordinator.counters();
    assert_eq!((counters.welcomed - welcomed, counters.resumed), (1, 1));
}

#[test]
fn a_connection_that_timed_out_was_not_closed_by_the_other_end() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.hush();
    let stream = world.stream_of("agent");
    world.order(CoordinatorCommand::Broken { stream });
    assert_eq!(world.heard("ann"), ["lost agent"]);
}

#[test]
fn the_owner_hears_of_a_node_that_came_back_unchanged() {
    let mut world = World::new(&ALL);
    let changed = |world: &World| {
        world
            .told
            .iter()
            .filter(|e| matches!(e, CoordinatorEvent::Changed { node } if node.id == id("agent")))
            .count()
    };
    let before = changed(&world);
    world.cut("agent");
    world.advance(Duration::from_secs(1));
    assert_eq!(changed(&world), before + 1);
    world.repeat("agent");
    assert_eq!(changed(&world), before + 1, "but only once a connection");
}

#[test]
fn a_restarted_coordinator_with_the_same_key_gives_the_same_names() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    let before = world.id_of("ann");
    world.coordinator = Coordinator::new(world::config(), Seed::from_u64(99), world.now);
    world.cut_all();
    world.hush();
    world.advance(Duration::from_secs(2));
    assert_eq!(world.id_of("ann"), before);
    assert_eq!(world.heard("ann"), ["up", "peer agent home 1 endpoints 1"]);
    assert_eq!(world.heard("agent"), ["up", "peer client home 1 endpoints 1"]);
    world.advance(Duration::from_secs(10));
    assert!(world.heard("ann").is_empty(), "everybody was mentioned again, so nobody is lost");
}

#[test]
fn a_peer_not_mentioned_after_a_reconnection_is_lost_but_not_gone() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.coordinator = Coordinator::new(world::config(), Seed::from_u64(99), world.now);
    world.nodes.get_mut("agent").unwrap().unplugged = true;
    world.cut("agent");
    world.cut("ann");
    world.heard("ann");
    world.advance(Duration::from_secs(10));
    assert_eq!(world.heard("ann"), ["up", "lost agent"]);
}

#[test]
fn a_goodbye_makes_peers_forget_at_once() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.hush();
    world.say("ann", SessionCommand::Stop);
    assert_eq!(world.heard("agent"), ["gone client: the node has left"]);
    assert_eq!(world.coordinator.online().count(), 2);
    world.advance(Duration::from_secs(60));
    assert!(world.heard("ann").is_empty());
}

#[test]
fn an_agent_that_said_goodbye_is_found_again_when_it_returns() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.say("agent", SessionCommand::Stop);
    world.hush();
    world.say("agent", SessionCommand::Start);
    assert_eq!(world.heard("ann"), ["peer agent home 1 endpoints 1"]);
}

#[test]
fn a_peer_that_left_while_a_node_was_away_is_told_as_gone_on_its_return() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.nodes.get_mut("agent").unwrap().unplugged = true;
    world.cut("agent");
    world.say("ann", SessionCommand::Stop);
    world.heard("agent");
    world.nodes.get_mut("agent").unwrap().unplugged = false;
    world.advance(Duration::from_secs(20));
    assert!(world.heard("agent").contains(&"gone client: left while this node was not connected".to_owned()));
}

#[test]
fn an_agent_may_not_open_tunnels_and_a_client_only_what_its_owner_allows() {
    let mut world = World::new(&ALL);
    world.forbidden.insert(id("agent"));
    world.hush();
    world.open("agent", "ann");
    world.open("ann", "agent");
    assert_eq!(world.heard("agent"), ["refused ann: FORBIDDEN an agent does not open tunnels"]);
    assert_eq!(world.heard("ann"), ["refused agent: FORBIDDEN you may not"]);
    world.cut("ann");
    world.advance(Duration::from_secs(1));
    assert_eq!(world.heard("ann"), ["down: cut", "up"], "it is not asked for again");
}

#[test]
fn the_newer_of_two_connections_of_one_identity_stays() {
    let mut world = World::new(&["agent"]);
    let stream = StreamId(9);
    world.heard("agent");
    let principal = Principal::Agent { id: id("agent") };
    world.order(CoordinatorCommand::Admit { stream, principal, credential: None });
    world.server_gets(stream, &ToServer::Hello(alone::hello(VERSION)));
    let refusal =
        "refused session: REPLACED the same node has connected again: this connection is the older one";
    assert_eq!(world.heard("agent"), [refusal]);
    world.advance(Duration::from_secs(40));
    assert_eq!(world.coordinator.counters().replaced, 1, "the older one does not fight back at once");
}

#[test]
fn a_withdrawn_tunnel_is_gone_on_both_sides() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.hush();
    let (a, b, reason) = (id("agent"), world.id_of("ann"), "the workspace is not shared any more".to_owned());
    world.order(CoordinatorCommand::Withdraw { a, b, reason });
    assert_eq!(world.heard("ann"), ["gone agent: the workspace is not shared any more"]);
    assert_eq!(world.heard("agent"), ["gone client: the workspace is not shared any more"]);
    world.move_home("agent", 2);
    assert!(world.heard("ann").is_empty());
}

#[test]
fn a_person_who_is_expelled_is_told_why_and_forgotten() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.open("bob", "agent");
    world.hush();
    world.order(CoordinatorCommand::Expel {
        who: Who::User("ann".into()),
        code: code::EXPELLED.into(),
        message: "this account was removed".into(),
    });
    assert_eq!(world.heard("ann"), ["refused session: EXPELLED this account was removed"]);
    assert_eq!(world.heard("agent"), ["gone client: this account was removed"]);
    assert!(world.heard("bob").is_empty());
}

#[test]
fn a_silent_connection_is_noticed_from_both_ends() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.hush();
    world.blackhole("ann");
    world.nodes.get_mut("ann").unwrap().unplugged = true;
    world.advance(Duration::from_secs(30));
    assert_eq!(world.heard("ann"), ["down: the server does not answer any more", "down: unplugged"]);
    assert!(world.heard("agent").is_empty());
    world.advance(Duration::from_secs(30));
    assert_eq!(world.heard("agent"), ["lost client"]);
}

#[test]
fn an_idle_session_lives_for_hours_without_a_word_to_its_owner() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.hush();
    world.advance(Duration::from_secs(7_200));
    assert!(ALL.iter().all(|name| world.heard(name).is_empty()));
    assert_eq!(world.coordinator.online().count(), 3);
}

#[test]
fn a_draining_server_is_left_when_it_asked_for_and_not_before() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    world.hush();
    world.order(CoordinatorCommand::Drain { retry_after: Duration::from_secs(20) });
    assert_eq!(world.heard("ann"), ["draining 20s"]);
    world.cut("ann");
    world.coordinator = Coordinator::new(world::config(), Seed::from_u64(99), world.now);
    world.advance(Duration::from_secs(19));
    assert_eq!(world.heard("ann"), ["down: cut"]);
    world.advance(Duration::from_secs(60));
    assert!(world.heard("ann").starts_with(&["up".to_owned()]));
    assert_eq!(world.coordinator.online().count(), 3);
}

#[test]
fn a_changed_network_is_answered_at_once() {
    let mut world = World::new(&ALL);
    world.nodes.get_mut("ann").unwrap().unplugged = true;
    world.cut("ann");
    world.advance(Duration::from_secs(300));
    world.nodes.get_mut("ann").unwrap().unplugged = false;
    world.heard("ann");
    world.say("ann", SessionCommand::Kick);
    assert_eq!(world.heard("ann"), ["up"]);
    world.blackhole("ann");
    world.say("ann", SessionCommand::Kick);
    world.advance(Duration::from_secs(3));
    assert_eq!(world.heard("ann"), ["down: the server does not answer any more", "up"]);
}

#[test]
fn nobody_is_told_endpoints_where_direct_connections_are_blocked() {
    let mut world = World::new(&ALL);
    let config = CoordinatorConfig { direct: false, ..world::config() };
    world.coordinator = Coordinator::new(config, Seed::from_u64(5), world.now);
    world.cut_all();
    world.advance(Duration::from_secs(2));
    world.open("ann", "agent");
    assert!(world.heard("ann").contains(&"peer agent home 1 endpoints 0".to_owned()));
}

/// Connections break after a drawn number of messages, in both directions, over and over; in the end both know
/// the latest of each other.
#[test]
fn whatever_messages_are_lost_both_ends_agree_in_the_end() {
    for seed in 0..60 {
        let mut rng = Seed::from_u64(seed).rng();
        let mut world = World::new(&ALL);
        world.open("ann", "agent");
        for round in 0..12 {
            let name = ["ann", "agent"][rng.range(0..2) as usize];
            world.nodes.get_mut(name).unwrap().budget = Some(rng.range(0..8) as usize);
            world.move_home(["ann", "agent"][rng.range(0..2) as usize], 10 + round);
            world.advance(Duration::from_millis(rng.range(0..4_000)));
            if rng.permille(200) {
                world.say("ann", SessionCommand::CloseTunnel(id("agent")));
                world.advance(Duration::from_millis(rng.range(0..500)));
                world.open("ann", "agent");
            }
        }
        world.nodes.values_mut().for_each(|node| node.budget = None);
        world.advance(Duration::from_secs(40));
        world.move_home("ann", 98);
        world.move_home("agent", 99);
        let (ann, agent) = (world.heard("ann"), world.heard("agent"));
        assert_eq!(ann.last().unwrap(), "peer agent home 99 endpoints 1", "seed {seed}: {ann:?}");
        assert_eq!(agent.last().unwrap(), "peer client home 98 endpoints 1", "seed {seed}: {agent:?}");
    }
}

#[test]
fn a_path_is_told_of_ones_own_peers_and_not_too_often() {
    let mut world = World::new(&ALL);
    world.open("ann", "agent");
    let ann = world.id_of("ann");
    let told = |world: &mut World| {
        let told = core::mem::take(&mut world.told).into_iter();
        let paths = told.filter_map(|event| match event {
            CoordinatorEvent::Path { node, peer, path, .. } => Some((node, peer, path.sent_bytes)),
            _ => None,
        });
        paths.collect::<Vec<_>>()
    };
    let path = |sent_bytes| PathReport { sent_bytes, ..Default::default() };
    told(&mut world);
    world.say("ann", SessionCommand::Path(id("agent"), path(1)));
    world.say("ann", SessionCommand::Path(id("agent"), path(2)));
    world.say("ann", SessionCommand::Path(id("nobody"), path(3)));
    world.say("bob", SessionCommand::Path(id("agent"), path(4)));
    assert_eq!(told(&mut world), [(ann.clone(), id("agent"), 1)]);
    world.advance(crate::limits::PATH_REPORT_EVERY);
    world.say("ann", SessionCommand::Path(id("agent"), path(5)));
    assert_eq!(told(&mut world), [(ann, id("agent"), 5)]);
}

//! Each end alone: hostile and strange other sides, bounds, and the seven laws.

use super::super::*;
use super::world::{config, id};
use crate::id::{RegionId, StreamId};
use crate::key::{DiscoPublic, NodePublic};
use crate::limits;
use crate::machine::laws::{OwnedInput, Subject};
use crate::machine::{Input, Machine, Output};
use crate::relay_map::RelayMap;
use crate::seed::{Rng, Seed};
use crate::time::{Duration, Time};
use crate::wire::control::{Hello, NodeInfo, NodeKind, PathReport, ToNode, ToServer, VERSION, Welcome};

const STREAM: StreamId = StreamId(5);
const KEY: NodePublic = NodePublic([3; 32]);

pub(super) fn hello(version: &str) -> Hello {
    Hello {
        version: version.into(),
        kind: NodeKind::Agent,
        node_key: KEY,
        resume: None,
        build: String::new(),
    }
}

fn info(key: NodePublic, home: u64) -> NodeInfo {
    NodeInfo {
        id: id(""),
        node_key: key,
        disco_key: DiscoPublic([4; 32]),
        boot_id: 1,
        home: RegionId(home),
        endpoints: Vec::new(),
        mapped: None,
        features: Vec::new(),
        direct_forbidden: None,
    }
}

/// A coordinator with one stream admitted, and what it says to messages on it.
struct Server(Coordinator);

impl Server {
    fn new(principal: Principal) -> Self {
        let mut server = Self(Coordinator::new(config(), Seed::from_u64(1), Time::ZERO));
        server.command(CoordinatorCommand::Admit { stream: STREAM, principal, credential: None });
        server
    }

    fn command(&mut self, command: CoordinatorCommand) {
        self.0.handle(Input::Command(command), Time::ZERO);
    }

    fn bytes(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.handle(Input::StreamBytes { stream: STREAM, bytes }, Time::ZERO);
        self.said()
    }

    fn get(&mut self, message: &ToServer) -> Vec<String> {
        self.bytes(&message.encode())
    }

    fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(output) = self.0.poll() {
            said.push(match output {
                Output::Write { bytes, .. } => match ToNode::parse(&bytes).unwrap() {
                    ToNode::Refused { to, code, message } => format!("{code} {message} {to:?}"),
                    ToNode::Welcome(_) => "welcome".into(),
                    ToNode::RelayMap { .. } => "map".into(),
                    other => format!("{other:?}"),
                },
                Output::Close { .. } => "close".into(),
                Output::Event(CoordinatorEvent::Authorize { request, .. }) => format!("authorize {request}"),
                Output::Event(event) => format!("{event:?}").split(' ').next().unwrap_or_default().to_owned(),
                other => format!("{other:?}"),
            });
        }
        said
    }
}

fn agent() -> Principal {
    Principal::Agent { id: id("agent") }
}

fn user() -> Principal {
    Principal::User { user: "ann".into() }
}

#[test]
fn hostile_messages_end_the_session_with_a_sentence() {
    let mut said = Vec::new();
    let long = "x".repeat(limits::NODE_ID_MAX + 1);
    let hello = ToServer::Hello(hello(VERSION)).encode();
    let last_words: [&[Vec<u8>]; 6] = [
        &[ToServer::Hello(super::alone::hello("2.0")).encode()],
        &[b"{".to_vec()],
        &[ToServer::Bye.encode()],
        &[hello.clone(), hello.clone()],
        &[hello.clone(), ToServer::Node { node: info(NodePublic([9; 32]), 1) }.encode()],
        &[hello.clone(), ToServer::OpenTunnel { to: id(&long) }.encode()],
    ];
    for messages in last_words {
        let mut server = Server::new(user());
        let all: Vec<_> = messages.iter().flat_map(|message| server.bytes(message)).collect();
        assert!(all.contains(&"close".to_owned()), "{all:?}");
        said.extend(all.into_iter().filter(|word| word.contains(' ')));
        assert!(server.bytes(&hello).is_empty(), "the stream is dead");
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    VERSION the server speaks version 1.0 of the coordination protocol and the node 2.0: update the server None
    BAD_MESSAGE not a coordination message: EOF while parsing an object at line 1 column 1 None
    BAD_MESSAGE the first message was no hello None
    BAD_MESSAGE a second hello came None
    BAD_MESSAGE a node may not change its key within a session None
    BAD_MESSAGE a node's name is empty or too long None
    "#);
}

#[test]
fn unknown_messages_are_ignored_and_pings_answered() {
    let mut server = Server::new(agent());
    assert_eq!(server.get(&ToServer::Hello(hello(VERSION))), ["welcome", "map", "Online"]);
    assert!(server.bytes(br#"{"type":"dance","step":1}"#).is_empty());
    assert_eq!(server.get(&ToServer::Ping { id: 7 }), ["Pong { id: 7 }"]);
}

#[test]
fn a_stream_that_says_no_hello_is_closed_in_time() {
    let mut server = Server::new(agent());
    let (at, _) = server.0.deadline().unwrap();
    assert_eq!(at, Time::ZERO + limits::HELLO_TIMEOUT);
    server.0.handle(Input::Deadline, at);
    assert_eq!(server.said(), ["LATE no hello came in time None", "close"]);
}

#[test]
fn a_draining_server_lets_nobody_new_in() {
    let mut server = Server::new(agent());
    server.command(CoordinatorCommand::Drain { retry_after: Duration::from_secs(3) });
    server.command(CoordinatorCommand::Admit { stream: StreamId(6), principal: user(), credential: None });
    let said = server.said();
    assert_eq!(
        said,
        ["Draining { retry_after_ms: 3000 }", "DRAINING the server is about to stop None", "close"]
    );
}

#[test]
fn open_questions_are_bounded_and_a_late_answer_for_a_closed_tunnel_opens_nothing() {
    let mut server = Server::new(user());
    server.get(&ToServer::Hello(hello(VERSION)));
    let open = |n: usize| ToServer::OpenTunnel { to: id(&format!("agent {n}")) };
    for n in 1..=limits::AUTHORIZATIONS_MAX {
        assert_eq!(server.get(&open(n)), [format!("authorize {n}")]);
        assert!(server.get(&open(n)).is_empty(), "asked once");
    }
    let full = server.get(&open(0)).join("");
    assert!(full.starts_with("TOO_MANY"), "{full}");
    server.get(&ToServer::CloseTunnel { to: id("agent 1") });
    for request in 1..=2 {
        server.command(CoordinatorCommand::Authorized { request, verdict: Verdict::Allowed });
    }
    let me = server.0.online().next().unwrap().0.clone();
    assert_eq!(server.0.peers(&me).collect::<Vec<_>>(), [&id("agent 2")]);
}

#[test]
fn a_node_that_reads_nothing_is_cut_off_and_the_rest_goes_on() {
    let mut server = Server::new(agent());
    server.get(&ToServer::Hello(hello(VERSION)));
    server.0.handle(Input::StreamWritable { stream: STREAM, credit: 0 }, Time::ZERO);
    let mut pings = 0;
    let said = loop {
        pings += 1;
        let said = server.get(&ToServer::Ping { id: 1 });
        if !said.is_empty() {
            break said;
        }
    };
    assert!(pings > limits::PEERS_MAX, "{pings}");
    assert_eq!(said[..2], ["TOO_SLOW the node reads its messages too slowly None", "close"]);
}

#[test]
fn a_lost_node_is_forgotten_after_its_grace_and_nobody_is_told() {
    let mut server = Server::new(agent());
    server.get(&ToServer::Hello(hello(VERSION)));
    server.get(&ToServer::Node { node: info(KEY, 1) });
    server.0.handle(Input::StreamClosed { stream: STREAM, why: "" }, Time::ZERO);
    server.said();
    assert!(server.0.node(&id("agent")).is_some_and(|(_, online)| !online));
    server.0.handle(Input::Deadline, Time::ZERO + limits::RESUME_GRACE);
    assert!(server.0.node(&id("agent")).is_none());
    assert!(server.said().is_empty());
    assert_eq!(server.0.deadline(), None);
}

#[test]
fn one_person_cannot_take_all_places() {
    let mut server = Server::new(user());
    let join = |server: &mut Server, n: usize, principal: Principal| {
        let stream = StreamId(1_000 + n as u64);
        // No faster than anybody may.
        let now = Time::from_micros(n.min(4_000) as u64 * 1_000_000 / u64::from(limits::LOGINS_PER_SECOND));
        let admit = CoordinatorCommand::Admit { stream, principal, credential: None };
        server.0.handle(Input::Command(admit), now);
        let bytes = ToServer::Hello(hello(VERSION)).encode();
        server.0.handle(Input::StreamBytes { stream, bytes: &bytes }, now);
        server.said().concat()
    };
    for n in 0..limits::COORDINATOR_NODES_PER_USER_MAX {
        let said = join(&mut server, n, user());
        assert!(!said.contains("TOO_MANY"), "{n}: {said}");
    }
    let said = join(&mut server, 90_000, user());
    assert!(said.contains("TOO_MANY too many of this user's nodes"), "{said}");
    let said = join(&mut server, 90_001, Principal::User { user: "another".into() });
    assert!(!said.contains("TOO_MANY"), "others have room: {said}");
    // One that is lost makes room for one that comes.
    server.0.handle(Input::StreamClosed { stream: StreamId(1_000), why: "" }, Time::ZERO);
    let said = join(&mut server, 90_002, user());
    assert!(!said.contains("TOO_MANY"), "{said}");
}

// --- The session alone ---

fn session(seed: Seed) -> Session {
    let target = ControlTarget {
        host: "warren.example".into(),
        port: 443,
        addresses: Vec::new(),
        tls: None,
        path: "/".into(),
        bearer: None,
    };
    let config =
        SessionConfig { target, node_key: KEY, kind: NodeKind::Agent, build: String::new(), streams: 0..16 };
    Session::new(config, seed, Time::ZERO)
}

fn welcome() -> ToNode {
    ToNode::Welcome(Welcome {
        version: VERSION.into(),
        id: id("me"),
        resume: "token".into(),
        direct: true,
        build: String::new(),
        relay: None,
        relay_websockets: false,
        browser_only: false,
    })
}

/// Runs the session until it opens a stream; its name and the time.
fn until_open(session: &mut Session, mut now: Time) -> (StreamId, Time) {
    let addresses = ["192.0.2.1".parse().unwrap()];
    loop {
        while let Some(output) = session.poll() {
            match output {
                Output::Resolve { name } => {
                    session.handle(Input::Resolved { name: &name, addresses: &addresses }, now);
                }
                Output::Open { stream, .. } => return (stream, now),
                _ => {}
            }
        }
        (now, _) = session.deadline().unwrap();
        session.handle(Input::Deadline, now);
    }
}

#[test]
fn a_server_that_greets_and_falls_over_is_not_hammered() {
    let mut session = session(Seed::from_u64(3));
    session.handle(Input::Command(SessionCommand::Start), Time::ZERO);
    let (mut now, mut attempts) = (Time::ZERO, 0);
    while now < Time::from_secs(120) {
        let (stream, at) = until_open(&mut session, now);
        session.handle(Input::StreamOpened { stream }, at);
        session.handle(Input::StreamBytes { stream, bytes: &welcome().encode() }, at);
        session.handle(Input::StreamClosed { stream, why: "fell over" }, at);
        (now, attempts) = (at, attempts + 1);
    }
    assert!(attempts < 60, "{attempts} attempts in two minutes");
    // One useful session, and the next attempt comes within a moment.
    let (stream, at) = until_open(&mut session, now);
    session.handle(Input::StreamOpened { stream }, at);
    session.handle(Input::StreamBytes { stream, bytes: &welcome().encode() }, at);
    let later = at + limits::SESSION_USEFUL;
    session.handle(Input::StreamClosed { stream, why: "fell over" }, later);
    let (_, at) = until_open(&mut session, later);
    assert!(at.since(later) <= limits::RECONNECT_MIN * 3);
}

#[test]
fn a_dead_resolver_delays_no_reconnection() {
    let mut session = session(Seed::from_u64(3));
    session.handle(Input::Command(SessionCommand::Start), Time::ZERO);
    let (stream, now) = until_open(&mut session, Time::ZERO);
    session.handle(Input::StreamClosed { stream, why: "refused" }, now);
    let (at, why) = session.deadline().unwrap();
    assert_eq!(why, "session: try again");
    session.handle(Input::Deadline, at);
    let outputs: Vec<_> = core::iter::from_fn(|| session.poll()).collect();
    assert!(outputs.iter().any(|output| matches!(output, Output::Open { .. })), "{outputs:?}");
}

#[test]
fn where_only_browsers_get_in_a_peer_that_is_not_mentioned_again_is_gone() {
    let heard = |browser_only: bool| {
        let mut session = session(Seed::from_u64(3));
        session.handle(Input::Command(SessionCommand::Start), Time::ZERO);
        let mut now = Time::ZERO;
        for again in [false, true] {
            let stream;
            (stream, now) = until_open(&mut session, now);
            session.handle(Input::StreamOpened { stream }, now);
            let ToNode::Welcome(welcome) = welcome() else { unreachable!() };
            let mut say = |message: &ToNode| {
                session.handle(Input::StreamBytes { stream, bytes: &message.encode() }, now);
            };
            say(&ToNode::Welcome(Welcome { browser_only, ..welcome }));
            say(&ToNode::Peer { peer: NodeInfo { id: id("server"), ..info(KEY, 1) } });
            if !again {
                say(&ToNode::Peer { peer: NodeInfo { id: id("laptop"), ..info(KEY, 1) } });
                session.handle(Input::StreamClosed { stream, why: "restarted" }, now);
            }
        }
        session.handle(Input::Deadline, now + limits::SESSION_SETTLE);
        let mut events: Vec<_> = core::iter::from_fn(|| session.poll()).collect();
        events.retain(|e| {
            matches!(e, Output::Event(SessionEvent::PeerGone { .. } | SessionEvent::PeerLost { .. }))
        });
        format!("{events:?}")
    };
    insta::assert_snapshot!(heard(false), @r#"[Event(PeerLost { id: laptop, closed: false })]"#);
    insta::assert_snapshot!(heard(true), @r#"[Event(PeerGone { id: laptop, reason: "the server lets people in by browser only" })]"#);
}

fn name(rng: &mut Rng) -> crate::id::NodeId {
    id(["a", "b", "c", "agent"][rng.range(0..4) as usize])
}

#[test]
fn the_session_keeps_the_seven_laws() {
    Subject::new(session)
        .commands(|rng| match rng.range(0..10) {
            8 => SessionCommand::Path(name(rng), PathReport::default()),
            0 | 1 => SessionCommand::Start,
            2 => SessionCommand::Node(info(KEY, rng.range(0..3))),
            3 | 4 => SessionCommand::OpenTunnel(name(rng)),
            5 => SessionCommand::CloseTunnel(name(rng)),
            6 => SessionCommand::Ready(name(rng)),
            7 => SessionCommand::Kick,
            _ => SessionCommand::Stop,
        })
        .inputs(|rng| {
            let message = match rng.range(0..9) {
                0..=2 => welcome(),
                3 => ToNode::Peer { peer: NodeInfo { id: name(rng), ..info(KEY, 1) } },
                4 => ToNode::PeerLost { id: name(rng), closed: rng.range(0..2) == 0 },
                5 => ToNode::PeerGone { id: name(rng), reason: String::new() },
                6 => ToNode::Draining { retry_after_ms: rng.u64() },
                7 => ToNode::Refused { to: Some(name(rng)), code: String::new(), message: String::new() },
                _ => ToNode::Refused { to: None, code: "X".into(), message: String::new() },
            };
            OwnedInput::StreamBytes { stream: StreamId(rng.range(0..16)), bytes: message.encode() }
        })
        .size(20_000, |session| format!("{session:?}").len())
        .check(60);
}

#[test]
fn the_coordinator_keeps_the_seven_laws() {
    let principals = [agent(), user(), Principal::Server { id: id("b") }];
    Subject::new(|seed| Coordinator::new(config(), seed, Time::ZERO))
        .commands(|rng| {
            let principal = principals[rng.range(0..3) as usize].clone();
            match rng.range(0..13) {
                10 => CoordinatorCommand::Drain { retry_after: Duration::from_micros(rng.range(0..1 << 40)) },
                11 => CoordinatorCommand::Authorized {
                    request: rng.range(0..9),
                    verdict: Verdict::Refused { code: String::new(), message: String::new() },
                },
                12 => CoordinatorCommand::Expel {
                    who: Who::User("ann".into()),
                    code: String::new(),
                    message: String::new(),
                },
                0..=3 => CoordinatorCommand::Admit {
                    stream: StreamId(rng.range(0..4)),
                    principal,
                    credential: None,
                },
                4..=6 => {
                    CoordinatorCommand::Authorized { request: rng.range(0..9), verdict: Verdict::Allowed }
                }
                7 => CoordinatorCommand::SetRelayMap(RelayMap::default()),
                8 => CoordinatorCommand::Withdraw { a: name(rng), b: name(rng), reason: String::new() },
                _ => CoordinatorCommand::Expel {
                    who: Who::Node(name(rng)),
                    code: String::new(),
                    message: String::new(),
                },
            }
        })
        .inputs(|rng| {
            let message = match rng.range(0..9) {
                7 => ToServer::Path { peer: name(rng), path: PathReport::default() },
                0..=2 => ToServer::Hello(hello(VERSION)),
                3 => ToServer::Node { node: info(KEY, rng.range(0..3)) },
                4 => ToServer::OpenTunnel { to: name(rng) },
                5 => ToServer::CloseTunnel { to: name(rng) },
                6 => ToServer::Ready { peer: name(rng) },
                _ => ToServer::Bye,
            };
            OwnedInput::StreamBytes { stream: StreamId(rng.range(0..4)), bytes: message.encode() }
        })
        .size(200_000, |coordinator| format!("{coordinator:?}").len())
        .check(60);
}

#[test]
fn a_crowd_is_let_in_a_part_at_a_time_and_told_to_spread_the_next_time() {
    let now = Time::from_secs(1_000);
    let mut coordinator = Coordinator::new(config(), Seed::from_u64(1), now);
    let admit = |coordinator: &mut Coordinator, n: u64, now: Time| {
        let principal = Principal::Agent { id: id(&format!("agent-{n}")) };
        let admit = CoordinatorCommand::Admit { stream: StreamId(n), principal, credential: None };
        coordinator.handle(Input::Command(admit), now);
        let mut said = Vec::new();
        while let Some(output) = coordinator.poll() {
            if let Output::Write { bytes, .. } = output {
                said.extend(ToNode::parse(&bytes));
            }
        }
        said
    };
    let burst = u64::from(limits::LOGINS_BURST);
    assert!((0..burst).all(|n| admit(&mut coordinator, n, now).is_empty()));
    let said = admit(&mut coordinator, burst, now);
    let [ToNode::Draining { retry_after_ms }, ToNode::Refused { to: None, code, .. }] = &said[..] else {
        panic!("{said:?}");
    };
    assert_eq!(code, code::DRAINING, "which a node takes for a moment's delay");
    assert!((200..300).contains(retry_after_ms), "{retry_after_ms}");
    let then = now + Duration::from_millis(*retry_after_ms);
    assert!(admit(&mut coordinator, burst + 1, then).is_empty(), "whoever comes then is let in");
    assert_eq!(coordinator.counters().postponed, 1);

    let bytes = ToServer::Hello(hello(VERSION)).encode();
    coordinator.handle(Input::StreamBytes { stream: StreamId(1), bytes: &bytes }, then);
    let mut told = Vec::new();
    while let Some(output) = coordinator.poll() {
        if let Output::Write { bytes, .. } = output {
            told.extend(ToNode::parse(&bytes).ok().filter(|m| matches!(m, ToNode::Spread { .. })));
        }
    }
    assert_eq!(told, [ToNode::Spread { over_ms: 200 }], "501 connections at 2,000 a second");
}

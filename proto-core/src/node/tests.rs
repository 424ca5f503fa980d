use super::*;
use crate::coord::ControlTarget;
use crate::id::StreamId;
use crate::key::NodeSecret;
use crate::machine::StreamProtocol;
use crate::machine::laws::{OwnedInput, Subject};
use crate::nat::portmap::{Grant, Mapped, Offers, Protocol, RouterWord};
use crate::relay_map::{RelayNode, RelayRegion};
use crate::time::Duration;
use crate::wire::control::{Forbidder, NodeKind, ToNode, ToServer, Welcome};
use crate::wire::stun;

mod pair;

const V4: LinkId = LinkId(1);

fn secret(n: u8) -> NodeSecret {
    NodeSecret::generate(&Seed::from_u64(n.into()))
}

fn config(n: u8) -> NodeConfig {
    NodeConfig {
        node_key: secret(n),
        kind: NodeKind::Client,
        control: Some(ControlTarget {
            host: "192.0.2.1".into(),
            port: 80,
            addresses: Vec::new(),
            tls: None,
            path: "/api/v1/coordinate".into(),
            bearer: None,
        }),
        build: "test".into(),
        direct_forbidden: None,
        guess_ports: true,
        map_ports: false,
        pins: BTreeMap::new(),
        relay: None,
        relay_map: None,
    }
}

fn map(ids: &[u64]) -> RelayMap {
    let regions = ids.iter().map(|id| {
        let node = RelayNode {
            name: format!("{id}a"),
            region: RegionId(*id),
            host: format!("192.0.2.{id}"),
            force_http: true,
            ..RelayNode::default()
        };
        (RegionId(*id), RelayRegion { id: RegionId(*id), nodes: vec![node], ..RelayRegion::default() })
    });
    RelayMap { regions: regions.collect(), ..RelayMap::default() }
}

/// An agent as the coordinator tells it.
fn agent(n: u8, boot_id: u64) -> NodeInfo {
    NodeInfo {
        id: NodeId(format!("agent-{n}")),
        node_key: secret(n).public(),
        disco_key: DiscoSecret::generate(&Seed::from_u64(boot_id)).public(),
        boot_id,
        home: RegionId(1),
        endpoints: vec!["198.51.100.7:4000".parse().unwrap()],
        mapped: None,
        features: Vec::new(),
        direct_forbidden: None,
    }
}

fn welcome(direct: bool) -> ToNode {
    ToNode::Welcome(Welcome {
        version: "1.0".into(),
        id: NodeId("me".into()),
        resume: String::new(),
        direct,
        build: String::new(),
        relay: None,
        relay_websockets: false,
        browser_only: false,
    })
}

/// One node with a coordinator played by the test.
struct Rig {
    node: Node,
    now: Time,
    control: StreamId,
    /// What happened since it was last looked at.
    events: Vec<NodeEvent>,
    said: Vec<ToServer>,
    transmits: Vec<SocketAddr>,
}

impl Rig {
    fn new(config: NodeConfig) -> Self {
        let mut rig = Self {
            node: Node::new(config, Seed::from_u64(99), Time::ZERO),
            now: Time::ZERO,
            control: StreamId(0),
            events: Vec::new(),
            said: Vec::new(),
            transmits: Vec::new(),
        };
        rig.tell(NodeCommand::Interfaces(vec!["10.0.0.5".parse().unwrap()]));
        rig.input(Input::LinkUp { link: V4, address: "0.0.0.0:7000".parse().unwrap() });
        rig.tell(NodeCommand::Start);
        rig
    }

    /// A node that the coordinator has greeted and told of a map.
    fn up(config: NodeConfig) -> Self {
        let mut rig = Self::new(config);
        rig.input(Input::StreamOpened { stream: rig.control });
        rig.hear(&welcome(true));
        rig.hear(&ToNode::RelayMap { map: map(&[1]) });
        rig
    }

    /// The same with a tunnel to an agent, whose key is given.
    fn with_peer() -> (Self, NodePublic) {
        let mut rig = Self::up(config(1));
        rig.tell(NodeCommand::OpenTunnel(NodeId("agent-2".into())));
        rig.hear(&ToNode::Peer { peer: agent(2, 10) });
        rig.take();
        (rig, secret(2).public())
    }

    fn input(&mut self, input: Input<'_, NodeCommand>) {
        self.node.handle(input, self.now);
        while let Some(output) = self.node.poll() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Open { stream, target } if target.protocol == StreamProtocol::Control => {
                    self.control = stream;
                }
                Output::Write { stream, bytes } if stream == self.control => {
                    self.said.push(ToServer::parse(&bytes).unwrap());
                }
                Output::Transmit(transmit) => self.transmits.push(transmit.to),
                _ => {}
            }
        }
    }

    fn tell(&mut self, command: NodeCommand) {
        self.input(Input::Command(command));
    }

    fn hear(&mut self, message: &ToNode) {
        self.input(Input::StreamBytes { stream: self.control, bytes: &message.encode() });
    }

    /// Lets time pass; the coordinator answers pings.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((at, _)) = self.node.deadline().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Deadline);
            let pings: Vec<_> = self.said.extract_if(.., |m| matches!(m, ToServer::Ping { .. })).collect();
            for ping in pings {
                let ToServer::Ping { id } = ping else { continue };
                self.hear(&ToNode::Pong { id });
            }
        }
        self.now = end;
    }

    fn take(&mut self) -> Vec<NodeEvent> {
        self.said.clear();
        core::mem::take(&mut self.events)
    }
}

/// What the coordinator may say.
fn word_of_the_coordinator(rng: &mut crate::seed::Rng) -> ToNode {
    let n = rng.range(2..5) as u8;
    let id = NodeId(format!("agent-{n}"));
    let message = match rng.range(0..25) {
        0..4 => welcome(rng.permille(700)),
        4 | 5 => ToNode::RelayMap { map: map(&[1, rng.range(2..5)]) },
        6..12 => ToNode::Peer { peer: agent(n, rng.range(10..12)) },
        12 | 13 => ToNode::PeerLost { id, closed: rng.range(0..2) == 0 },
        14 | 15 => ToNode::PeerReady { id },
        16 | 17 => ToNode::PeerGone { id, reason: String::new() },
        18 | 19 => {
            // Seldom the session itself.
            let to = rng.permille(900).then_some(id);
            ToNode::Refused { to, code: "FORBIDDEN".into(), message: "no".into() }
        }
        20 => ToNode::Pong { id: rng.range(0..3) },
        21 => ToNode::Unknown,
        22 => ToNode::Spread { over_ms: rng.range(0..90_000) },
        _ => ToNode::Draining { retry_after_ms: rng.range(0..9_000) },
    };
    // A new message does not compile here until it is drawn above.
    match message {
        ToNode::Welcome(_) | ToNode::RelayMap { .. } | ToNode::Peer { .. } | ToNode::PeerLost { .. } => {}
        ToNode::PeerReady { .. } | ToNode::PeerGone { .. } | ToNode::Refused { .. } => {}
        ToNode::Spread { .. } | ToNode::Pong { .. } | ToNode::Draining { .. } | ToNode::Unknown => {}
    }
    message
}

fn word_of_a_router(rng: &mut crate::seed::Rng) -> RouterWord {
    let external = "198.51.100.9:7000".parse().unwrap();
    let mapped = Mapped { protocol: Protocol::NatPmp, external, port: 7_000 };
    match rng.range(0..3) {
        0 => RouterWord::Started,
        1 => RouterWord::Offers(Offers::default(), true),
        _ => RouterWord::Answer(Some(Grant { mapped, lifetime: Duration::from_secs(120) })),
    }
}

#[test]
fn what_a_router_grants_is_told_as_such_and_given_back_at_the_end() {
    let mut node = Node::new(NodeConfig { map_ports: true, ..config(1) }, Seed::from_u64(1), Time::ZERO);
    let mut said = |input: Input<'_, NodeCommand>| {
        node.handle(input, Time::ZERO);
        let mut events = Vec::new();
        while let Some(output) = node.poll() {
            if let Output::Event(NodeEvent::Portmap(_) | NodeEvent::Endpoints(_)) = &output {
                events.push(format!("{output:?}"));
            }
        }
        events.join(" ")
    };
    said(Input::LinkUp { link: V4, address: "0.0.0.0:7000".parse().unwrap() });
    said(Input::Command(NodeCommand::Interfaces(vec![[10, 0, 0, 1].into()])));
    assert!(said(Input::Command(NodeCommand::Start)).contains("Portmap(Ask { port: 7000 })"));
    let mapped =
        Mapped { protocol: Protocol::Pcp, external: "198.51.100.9:7000".parse().unwrap(), port: 7_000 };
    let grant = Grant { mapped, lifetime: Duration::from_secs(120) };
    let told = said(Input::Command(NodeCommand::Router(RouterWord::Answer(Some(grant)))));
    assert!(told.contains("Endpoints([198.51.100.9:7000, 10.0.0.1:7000])"), "{told}");
    assert!(said(Input::Command(NodeCommand::Stop)).contains("Portmap(Release)"));
}

#[test]
fn the_seven_laws_hold() {
    let keys: Vec<_> = (2..5).map(|n| secret(n).public()).collect();
    let names = |rng: &mut crate::seed::Rng| NodeId(format!("agent-{}", rng.range(2..5)));
    let all = keys.clone();
    Subject::new(|seed| {
        let mut node = Node::new(NodeConfig { map_ports: true, ..config(1) }, seed, Time::ZERO);
        node.handle(Input::LinkUp { link: V4, address: "0.0.0.0:7000".parse().unwrap() }, Time::ZERO);
        while node.poll().is_some() {}
        node
    })
    .peers(keys)
    .commands(move |rng| {
        let peer = all[rng.range(0..3) as usize];
        let command = match rng.range(0..40) {
            // Seldom: whatever follows is said to a node that has left.
            0 => NodeCommand::Stop,
            1..9 => NodeCommand::Start,
            9..11 => NodeCommand::Interfaces(vec![[10, 0, 0, rng.range(1..4) as u8].into()]),
            11..15 => NodeCommand::OpenTunnel(names(rng)),
            15..18 => NodeCommand::CloseTunnel(names(rng)),
            18..22 => NodeCommand::Engaged { peer, engaged: rng.permille(700) },
            22..27 => NodeCommand::Wg { peer, notice: WgNotice::Established },
            27..32 => NodeCommand::Wg { peer, notice: WgNotice::Waiting },
            32..34 => NodeCommand::Netcheck,
            34..36 => NodeCommand::Router(word_of_a_router(rng)),
            _ => NodeCommand::NetworkChanged,
        };
        // A new command does not compile here until it is drawn above.
        match command {
            NodeCommand::Start | NodeCommand::Stop | NodeCommand::Interfaces(_) => {}
            NodeCommand::OpenTunnel(_) | NodeCommand::CloseTunnel(_) | NodeCommand::Engaged { .. } => {}
            NodeCommand::Wg { .. } | NodeCommand::Netcheck | NodeCommand::NetworkChanged => {}
            NodeCommand::Router(_) => {}
        }
        command
    })
    .inputs(|rng| {
        let stream = StreamId(rng.range(1..4));
        match rng.range(0..9) {
            0 => OwnedInput::StreamOpened { stream },
            _ => OwnedInput::StreamBytes { stream, bytes: word_of_the_coordinator(rng).encode() },
        }
    })
    // A coordinator that can be reached and answers whatever it is told.
    .replies(|output, rng| match output {
        Output::Open { stream, target } if target.protocol == StreamProtocol::Control => {
            Some(vec![OwnedInput::StreamOpened { stream: *stream }])
        }
        Output::Write { stream, .. } if SESSION_STREAMS.contains(&stream.0) => {
            let say = |message: ToNode| OwnedInput::StreamBytes { stream: *stream, bytes: message.encode() };
            let word = word_of_the_coordinator(rng);
            Some(vec![say(welcome(true)), say(word)])
        }
        _ => None,
    })
    .size(2_000_000, |node| format!("{node:?}").len())
    .check(40);
}

#[test]
fn everything_the_coordinator_must_know_goes_out_in_the_first_flight() {
    let mut rig = Rig::new(config(1));
    rig.tell(NodeCommand::OpenTunnel(NodeId("agent-2".into())));
    rig.input(Input::StreamOpened { stream: rig.control });
    let kinds: Vec<_> =
        rig.said.iter().map(|m| format!("{m:?}").split([' ', '(']).next().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["Hello", "Node", "OpenTunnel"]);
}

#[test]
fn a_home_is_published_and_stun_asked_as_soon_as_there_is_a_map() {
    let rig = Rig::up(config(1));
    assert_eq!(rig.now, Time::ZERO);
    let homes = rig.said.iter().filter_map(|m| match m {
        ToServer::Node { node } => Some((node.home.0, node.endpoints.len())),
        _ => None,
    });
    assert_eq!(homes.collect::<Vec<_>>(), [(0, 1), (1, 1)]);
    assert_eq!(rig.transmits[0].to_string(), "192.0.2.1:3478");
    assert_eq!(rig.node.status().home, Some(RegionId(1)));
}

#[test]
fn a_peer_is_pinned_let_in_and_acknowledged() {
    let mut rig = Rig::up(config(1));
    rig.take();
    rig.hear(&ToNode::Peer { peer: agent(2, 10) });
    let key = secret(2).public();
    let id = NodeId("agent-2".into());
    assert_eq!(
        rig.events[..2],
        [NodeEvent::Pinned { id: id.clone(), key }, NodeEvent::PeerUp { id: id.clone(), key, boot_id: 10 },]
    );
    assert_eq!(rig.said, [ToServer::Ready { peer: id.clone() }]);
    let status = rig.node.status();
    assert_eq!((&status.peers[0].id, status.peers[0].home), (&id, RegionId(1)));
}

#[test]
fn a_peer_that_restarted_comes_up_again_and_its_sessions_are_reset() {
    let (mut rig, key) = Rig::with_peer();
    rig.tell(NodeCommand::Wg { peer: key, notice: WgNotice::Established });
    rig.hear(&ToNode::Peer { peer: agent(2, 11) });
    let up = NodeEvent::PeerUp { id: NodeId("agent-2".into()), key, boot_id: 11 };
    let reset = NodeEvent::Wg { key, command: WgCommand::Reset };
    let at = |event: &NodeEvent| rig.events.iter().position(|e| e == event);
    assert!(at(&up) < at(&reset) && at(&up).is_some(), "{:?}", rig.events);
}

#[test]
fn another_key_under_a_known_name_is_refused_with_a_sentence() {
    let (mut rig, key) = Rig::with_peer();
    let impostor = NodeInfo { node_key: secret(3).public(), ..agent(2, 10) };
    rig.hear(&ToNode::Peer { peer: impostor.clone() });
    let [NodeEvent::Refused { to, code, message }] = &rig.events[..] else { panic!("{:?}", rig.events) };
    assert_eq!((to.as_ref(), code.as_str()), (Some(&impostor.id), CODE_KEY_CHANGED));
    assert!(message.contains(&key.to_string()), "{message}");
    assert!(rig.node.peer(&key).is_some(), "the tunnel to the real one goes on");
    assert!(rig.node.peer(&impostor.node_key).is_none());

    let mut config = config(1);
    config.pins.insert(impostor.id.clone(), key);
    let mut rig = Rig::up(config);
    rig.hear(&ToNode::Peer { peer: impostor });
    assert_eq!(rig.node.status().peers, []);
}

#[test]
fn a_servers_own_node_takes_an_agent_that_was_set_up_anew() {
    let mut rig = Rig::up(NodeConfig { kind: NodeKind::Server, ..config(1) });
    for n in [2, 3] {
        rig.hear(&ToNode::Peer { peer: NodeInfo { node_key: secret(n).public(), ..agent(2, n.into()) } });
        rig.hear(&ToNode::PeerGone { id: NodeId("agent-2".into()), reason: String::new() });
    }
    let up = |event: &NodeEvent| matches!(event, NodeEvent::PeerUp { key, .. } if *key == secret(3).public());
    assert!(rig.events.iter().any(up), "{:?}", rig.events);
    assert!(!rig.events.iter().any(|event| matches!(event, NodeEvent::Pinned { .. })));
}

#[test]
fn our_own_key_is_nobody_elses() {
    let mut rig = Rig::up(config(1));
    rig.take();
    rig.hear(&ToNode::Peer { peer: NodeInfo { node_key: secret(1).public(), ..agent(2, 10) } });
    assert!(matches!(&rig.events[..], [NodeEvent::Refused { code, .. }] if code == CODE_ADDRESS_TAKEN));
}

#[test]
fn a_peer_under_a_new_name_replaces_itself() {
    let (mut rig, key) = Rig::with_peer();
    rig.hear(&ToNode::Peer { peer: NodeInfo { id: NodeId("agent-9".into()), ..agent(2, 11) } });
    let names: Vec<_> = rig.node.status().peers.into_iter().map(|p| p.id.0).collect();
    assert_eq!(names, ["agent-9"]);
    let down = rig.events.iter().position(|e| matches!(e, NodeEvent::PeerDown { .. }));
    let up = rig.events.iter().position(|e| matches!(e, NodeEvent::PeerUp { .. }));
    assert!(down.is_some() && down < up, "{:?}", rig.events);
    assert_eq!(rig.node.peer_key(&NodeId("agent-9".into())), Some(key));
}

#[test]
fn a_lost_peer_is_kept_a_quarter_of_an_hour_after_its_last_handshake() {
    let (mut rig, key) = Rig::with_peer();
    rig.hear(&ToNode::PeerLost { id: NodeId("agent-2".into()), closed: false });
    rig.run(Duration::from_secs(600));
    rig.tell(NodeCommand::Wg { peer: key, notice: WgNotice::Established });
    rig.run(Duration::from_secs(899));
    assert!(rig.node.peer(&key).is_some());
    rig.run(Duration::from_secs(2));
    assert!(rig.node.peer(&key).is_none());
    assert!(rig.events.iter().any(|e| matches!(e, NodeEvent::PeerDown { .. })));
}

#[test]
fn without_a_way_of_our_own_the_silence_of_a_peer_says_nothing() {
    let (mut rig, key) = Rig::with_peer();
    rig.hear(&ToNode::PeerLost { id: NodeId("agent-2".into()), closed: true });
    rig.run(Duration::from_secs(60));
    assert!(rig.node.peer(&key).is_some());
}

#[test]
fn a_peer_found_again_is_not_forgotten_and_one_that_left_is_at_once() {
    let (mut rig, key) = Rig::with_peer();
    let id = NodeId("agent-2".into());
    rig.hear(&ToNode::PeerLost { id: id.clone(), closed: false });
    rig.hear(&ToNode::Peer { peer: agent(2, 10) });
    rig.run(Duration::from_secs(3_600));
    assert!(rig.node.peer(&key).is_some());
    rig.take();
    rig.hear(&ToNode::PeerGone { id: id.clone(), reason: "the workspace was deleted".into() });
    let down = NodeEvent::PeerDown { id, key, why: "the workspace was deleted".into() };
    assert!(rig.events.contains(&down), "{:?}", rig.events);
}

#[test]
fn tunnels_go_on_while_the_coordinator_is_away() {
    let (mut rig, key) = Rig::with_peer();
    rig.input(Input::StreamClosed { stream: rig.control, why: "reset by peer" });
    assert!(matches!(rig.node.status().session, SessionState::Down { .. }));
    rig.run(Duration::from_secs(3_600));
    assert!(rig.node.peer(&key).is_some());
}

#[test]
fn where_direct_paths_are_forbidden_no_endpoint_is_told_and_no_disco_heard() {
    let flag = Some(Forbidder::Flag);
    for (ours, theirs, by) in
        [(flag, true, flag), (None, false, Some(Forbidder::Server)), (flag, false, Some(Forbidder::Server))]
    {
        let mut rig = Rig::new(NodeConfig { direct_forbidden: ours, ..config(1) });
        rig.input(Input::StreamOpened { stream: rig.control });
        rig.hear(&welcome(theirs));
        rig.hear(&ToNode::RelayMap { map: map(&[1]) });
        rig.hear(&ToNode::Peer { peer: agent(2, 10) });
        rig.transmits.retain(|to| to.port() != 3478);
        let disco = DiscoSecret::generate(&Seed::from_u64(10));
        let ping = crate::wire::disco::Message::Ping {
            tx: crate::wire::disco::TxId([1; 12]),
            node_key: Some(secret(2).public()),
            padding: 0,
        };
        let mut rng = Seed::from_u64(3).rng();
        let ping = ping.seal(disco.public(), &disco.shared(&rig.node.disco.public()), &mut rng);
        rig.input(Input::Datagram { link: V4, from: "198.51.100.7:4000".parse().unwrap(), bytes: &ping });
        rig.run(Duration::from_secs(60));
        let direct: Vec<_> = rig.transmits.iter().filter(|to| to.port() != 3478).collect();
        assert!(direct.is_empty() && rig.node.status().endpoints.is_empty(), "{direct:?}");
        let Some(ToServer::Node { node }) =
            rig.said.iter().rev().find(|m| matches!(m, ToServer::Node { .. }))
        else {
            panic!("nothing published")
        };
        assert_eq!((node.endpoints.as_slice(), node.direct_forbidden), (&[][..], by));
    }
}

#[test]
fn an_address_seen_from_outside_is_published_when_it_is_known() {
    let mut rig = Rig::new(config(1));
    rig.input(Input::StreamOpened { stream: rig.control });
    rig.hear(&welcome(true));
    rig.take();
    let mut request = None;
    rig.node.handle(
        Input::StreamBytes { stream: rig.control, bytes: &ToNode::RelayMap { map: map(&[1]) }.encode() },
        rig.now,
    );
    while let Some(output) = rig.node.poll() {
        if let Output::Transmit(transmit) = output {
            request.get_or_insert(transmit);
        }
    }
    let answer = stun::answer(&request.unwrap().bytes, "203.0.113.9:61000".parse().unwrap()).unwrap();
    rig.input(Input::Datagram { link: V4, from: "192.0.2.1:3478".parse().unwrap(), bytes: &answer });
    let published = rig.said.iter().filter_map(|m| match m {
        ToServer::Node { node } => Some(node.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(published.collect::<Vec<_>>().last().unwrap()[..], ["203.0.113.9:61000", "10.0.0.5:7000"]);
}

#[test]
fn a_node_that_stops_says_goodbye_and_is_silent() {
    let (mut rig, key) = Rig::with_peer();
    rig.tell(NodeCommand::Stop);
    assert!(rig.said.contains(&ToServer::Bye));
    assert!(rig.events.iter().any(|e| matches!(e, NodeEvent::PeerDown { key: k, .. } if *k == key)));
    assert_eq!(rig.events.last(), Some(&NodeEvent::Session(SessionState::Stopped)));
    assert_eq!(rig.node.deadline(), None);
    rig.take();
    rig.tell(NodeCommand::Start);
    assert_eq!(rig.events, []);
}

#[test]
fn names_ready_early_are_bounded() {
    let mut rig = Rig::up(config(1));
    for n in 0..1_000 {
        rig.hear(&ToNode::PeerReady { id: NodeId(format!("x{n}")) });
    }
    assert_eq!(rig.node.early_ready.len(), limits::EARLY_READY_MAX);
}

#[test]
fn a_map_without_stun_servers_still_gives_a_home_and_a_second_relay() {
    let mut without = map(&[1, 2]);
    for region in without.regions.values_mut() {
        region.nodes[0].stun_port_number = -1;
    }
    let rig = Rig::new(NodeConfig { relay_map: Some(without), ..config(1) });
    assert_eq!((rig.node.home, rig.node.warm), (RegionId(1), RegionId(2)));
}

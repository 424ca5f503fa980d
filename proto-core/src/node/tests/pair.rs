//! Two nodes, a coordinator and two relays, all real machines, on a network of the test's own.

use super::*;
use crate::coord::{
    Coordinator, CoordinatorCommand, CoordinatorConfig, CoordinatorEvent, Principal, Verdict,
};
use crate::machine::Transmit;
use crate::relay::{RelayHub, RelayServerConfig};
use crate::route::Route;
use crate::wire::control::PathReport;
use crate::wire::derp::{Decoder, Frame};

/// One way to or from a server.
const TO_SERVER: Duration = Duration::from_millis(10);
/// One way between the nodes.
const BETWEEN: Duration = Duration::from_millis(5);
/// The coordinator's address; relay r is at 192.0.2.r.
const COORDINATOR: &str = "192.0.2.100";

/// The client is node 0, the agent node 1.
const CLIENT: usize = 0;
const AGENT: usize = 1;

mod ended;
mod paths;

/// What is on its way.
#[derive(Debug)]
enum Flight {
    Datagram { to: usize, from: SocketAddr, bytes: Vec<u8> },
    Opened { node: usize, stream: StreamId },
    Closed { node: usize, stream: StreamId },
    ToNode { node: usize, stream: StreamId, bytes: Vec<u8> },
    ToServer { stream: StreamId, bytes: Vec<u8> },
}

/// Whom a stream leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Server {
    Coordinator,
    Relay(u64),
}

#[derive(Default)]
struct Wires {
    /// By the server's name of a stream: the node, its own name, and who is at the other end.
    streams: BTreeMap<StreamId, (usize, StreamId, Server)>,
    decoders: BTreeMap<StreamId, Decoder>,
}

struct Side {
    node: Node,
    address: SocketAddr,
    relays: BTreeMap<RegionId, StreamId>,
    route: Route,
    /// What happened, as `milliseconds: what`.
    log: Vec<String>,
    received: Vec<Via>,
}

struct Pair {
    now: Time,
    sides: [Side; 2],
    coordinator: Coordinator,
    hubs: BTreeMap<u64, RelayHub>,
    wires: Wires,
    flying: BTreeMap<(Time, u64), Flight>,
    sent: u64,
    /// Whether UDP passes between the nodes, and to STUN servers.
    udp: bool,
    down: BTreeSet<u64>,
    /// Nodes that were killed.
    dead: BTreeSet<usize>,
    /// What the coordinator was told of paths, and when.
    paths: Vec<(Time, NodeId, PathReport)>,
}

impl Pair {
    fn new(direct: bool) -> Self {
        let side = |n: usize, kind| {
            let mut config = NodeConfig { kind, ..config(n as u8 + 1) };
            config.control.as_mut().unwrap().host = COORDINATOR.into();
            Side {
                node: Node::new(config, Seed::from_u64(70 + n as u64), Time::ZERO),
                address: format!("198.51.100.{}:7000", n + 1).parse().unwrap(),
                relays: BTreeMap::new(),
                route: Route::default(),
                log: Vec::new(),
                received: Vec::new(),
            }
        };
        let coordinator = CoordinatorConfig {
            direct,
            relay_map: map(&[1, 2]),
            relay: None,
            relay_websockets: false,
            browser_only: false,
            build: "test".into(),
            resume_key: [9; 32],
        };
        let hub = |n: u64| {
            let relay = RelayServerConfig::new(secret(100 + n as u8));
            (n, RelayHub::new(relay, Seed::from_u64(n), Time::ZERO))
        };
        Self {
            now: Time::ZERO,
            sides: [side(CLIENT, NodeKind::Client), side(AGENT, NodeKind::Agent)],
            coordinator: Coordinator::new(coordinator, Seed::from_u64(5), Time::ZERO),
            hubs: [hub(1), hub(2)].into(),
            wires: Wires::default(),
            flying: BTreeMap::new(),
            sent: 0,
            udp: true,
            down: BTreeSet::new(),
            dead: BTreeSet::new(),
            paths: Vec::new(),
        }
    }

    /// Both started, the agent first, and the client has asked for the agent.
    fn started(direct: bool, udp: bool) -> Self {
        let mut pair = Self::new(direct);
        pair.udp = udp;
        pair.start(AGENT);
        pair.run(1_000);
        pair.start(CLIENT);
        pair.tell(CLIENT, NodeCommand::OpenTunnel(NodeId("agent".into())));
        pair
    }

    fn start(&mut self, n: usize) {
        let address = self.sides[n].address;
        self.tell(n, NodeCommand::Interfaces(vec![address.ip()]));
        self.input(n, Input::LinkUp { link: V4, address: "0.0.0.0:7000".parse().unwrap() });
        self.tell(n, NodeCommand::Start);
    }

    fn tell(&mut self, n: usize, command: NodeCommand) {
        self.input(n, Input::Command(command));
    }

    fn fly(&mut self, after: Duration, flight: Flight) {
        self.sent += 1;
        self.flying.insert((self.now + after, self.sent), flight);
    }

    fn input(&mut self, n: usize, input: Input<'_, NodeCommand>) {
        if self.dead.contains(&n) {
            return;
        }
        self.sides[n].node.handle(input, self.now);
        while let Some(output) = self.sides[n].node.poll() {
            match output {
                Output::Transmit(transmit) => self.transmit(n, transmit),
                Output::Open { stream, target } => {
                    let last = target.addresses[0].to_string();
                    let server = match target.protocol {
                        StreamProtocol::Control => Server::Coordinator,
                        StreamProtocol::Derp | StreamProtocol::DerpInWebSocket => {
                            Server::Relay(last.rsplit('.').next().unwrap().parse().unwrap())
                        }
                    };
                    self.open(n, stream, server);
                }
                Output::Write { stream, bytes } => {
                    if let Some(far) = self.far(n, stream) {
                        self.fly(TO_SERVER, Flight::ToServer { stream: far, bytes });
                    }
                }
                Output::Close { stream } => {
                    if let Some(far) = self.far(n, stream) {
                        self.hang_up(far);
                    }
                }
                Output::Resolve { .. } | Output::Bind { .. } | Output::Unbind { .. } => {}
                Output::Event(event) => self.event(n, event),
            }
        }
    }

    fn far(&self, n: usize, stream: StreamId) -> Option<StreamId> {
        let mut all = self.wires.streams.iter();
        all.find(|(_, (node, near, _))| (*node, *near) == (n, stream)).map(|(far, _)| *far)
    }

    fn open(&mut self, n: usize, stream: StreamId, server: Server) {
        if matches!(server, Server::Relay(r) if self.down.contains(&r)) {
            return self.fly(TO_SERVER * 2, Flight::Closed { node: n, stream });
        }
        self.sent += 1;
        let far = StreamId(self.sent);
        self.wires.streams.insert(far, (n, stream, server));
        self.fly(TO_SERVER * 2, Flight::Opened { node: n, stream });
    }

    /// The HTTP upgrade is done: both ends may speak.
    fn opened(&mut self, n: usize, stream: StreamId) {
        let Some(far) = self.far(n, stream) else { return };
        let server = self.wires.streams[&far].2;
        match server {
            Server::Coordinator => {
                let principal = if n == AGENT {
                    Principal::Agent { id: NodeId("agent".into()) }
                } else {
                    Principal::User { user: "ann".into() }
                };
                let admit = CoordinatorCommand::Admit { stream: far, principal, credential: None };
                self.coordinate(Input::Command(admit));
            }
            Server::Relay(r) => self.relay(r, Input::StreamOpened { stream: far }),
        }
        self.input(n, Input::StreamOpened { stream });
    }

    fn hang_up(&mut self, far: StreamId) {
        let Some((node, stream, server)) = self.wires.streams.remove(&far) else { return };
        let closed = Input::StreamClosed { stream: far, why: "closed" };
        match server {
            Server::Coordinator => self.coordinate(closed),
            Server::Relay(r) => {
                let Input::StreamClosed { stream, why } = closed else { return };
                self.relay(r, Input::StreamClosed { stream, why });
            }
        }
        self.fly(TO_SERVER, Flight::Closed { node, stream });
    }

    /// Takes a relay away or gives it back.
    fn relay_down(&mut self, region: u64, down: bool) {
        if !down {
            self.down.remove(&region);
            return;
        }
        self.down.insert(region);
        let lost: Vec<_> = self
            .wires
            .streams
            .iter()
            .filter(|(_, w)| w.2 == Server::Relay(region))
            .map(|(f, _)| *f)
            .collect();
        lost.into_iter().for_each(|far| self.hang_up(far));
    }

    fn coordinate(&mut self, input: Input<'_, CoordinatorCommand>) {
        self.coordinator.handle(input, self.now);
        while let Some(output) = self.coordinator.poll() {
            match output {
                Output::Write { stream, bytes } => self.send_node(stream, bytes),
                Output::Close { stream } => self.hang_up(stream),
                Output::Event(CoordinatorEvent::Authorize { request, .. }) => {
                    let verdict = Verdict::Allowed;
                    self.coordinator.handle(
                        Input::Command(CoordinatorCommand::Authorized { request, verdict }),
                        self.now,
                    );
                }
                Output::Event(CoordinatorEvent::Path { peer, path, .. }) => {
                    self.paths.push((self.now, peer, path));
                }
                _ => {}
            }
        }
    }

    fn relay(&mut self, region: u64, input: Input<'_, crate::relay::HubCommand>) {
        let now = self.now;
        let Some(hub) = self.hubs.get_mut(&region) else { return };
        hub.handle(input, now);
        let mut outputs = Vec::new();
        while let Some(output) = hub.poll() {
            outputs.push(output);
        }
        for output in outputs {
            match output {
                Output::Write { stream, bytes } => self.send_node(stream, bytes),
                Output::Close { stream } => self.hang_up(stream),
                _ => {}
            }
        }
    }

    fn send_node(&mut self, far: StreamId, bytes: Vec<u8>) {
        if let Some((node, stream, _)) = self.wires.streams.get(&far).copied() {
            self.fly(TO_SERVER, Flight::ToNode { node, stream, bytes });
        }
    }

    fn transmit(&mut self, n: usize, transmit: Transmit) {
        // An opener with a small hop limit dies on its way.
        if !self.udp || transmit.ttl.is_some() {
            return;
        }
        let from = self.sides[n].address;
        if let Some(to) = self.sides.iter().position(|side| side.address == transmit.to) {
            self.fly(BETWEEN, Flight::Datagram { to, from, bytes: transmit.bytes });
        } else if let Some(bytes) = stun::answer(&transmit.bytes, from) {
            self.fly(TO_SERVER * 2, Flight::Datagram { to: n, from: transmit.to, bytes });
        }
    }

    fn event(&mut self, n: usize, event: NodeEvent) {
        let note = match event {
            NodeEvent::RelayUp { region, stream } => {
                self.sides[n].relays.insert(region, stream);
                None
            }
            NodeEvent::RelayDown { region, .. } => {
                self.sides[n].relays.remove(&region);
                None
            }
            NodeEvent::Route { route, .. } => {
                let news = route.primary != self.sides[n].route.primary;
                self.sides[n].route = route;
                news.then(|| match route.primary {
                    Some(Via::Direct { addr, .. }) => format!("direct {addr}"),
                    Some(Via::Relay(region)) => format!("relay {region}"),
                    None => "no way".to_owned(),
                })
            }
            NodeEvent::Wg { command: WgCommand::Initiate, .. } => {
                self.wire_guard(n, &initiation());
                Some("initiate".to_owned())
            }
            NodeEvent::Wg { command: WgCommand::Reset, .. } => Some("reset".to_owned()),
            NodeEvent::PeerUp { id, .. } => Some(format!("peer {id} up")),
            NodeEvent::PeerDown { why, .. } => Some(format!("peer down: {why}")),
            NodeEvent::Refused { message, .. } => Some(message),
            _ => None,
        };
        if let Some(note) = note {
            let at = self.now.as_micros() / 1_000;
            self.sides[n].log.push(format!("{at}: {note}"));
        }
    }

    /// Sends a WireGuard message along the route, as the hot path would.
    fn wire_guard(&mut self, n: usize, bytes: &[u8]) {
        let route = self.sides[n].route;
        for via in [route.primary, route.duplicate].into_iter().flatten() {
            self.wire_guard_via(n, via, bytes);
        }
    }

    fn wire_guard_via(&mut self, n: usize, via: Via, bytes: &[u8]) {
        let peer = self.sides[1 - n].node.key();
        match via {
            Via::Direct { addr, link } => {
                self.transmit(n, Transmit { link, to: addr, bytes: bytes.to_vec(), ttl: None });
            }
            Via::Relay(region) => {
                let Some(stream) = self.sides[n].relays.get(&region).copied() else { return };
                let Some(far) = self.far(n, stream) else { return };
                let bytes = Frame::SendPacket { to: peer, bytes }.to_bytes();
                self.fly(TO_SERVER, Flight::ToServer { stream: far, bytes });
            }
        }
        if bytes[0] == 4 {
            self.activity(n, via, Direction::Sent);
        }
    }

    fn activity(&mut self, n: usize, via: Via, direction: Direction) {
        let peer = self.sides[1 - n].node.key();
        self.input(n, Input::Activity(Activity { peer, via, direction, packets: 1, bytes: 100 }));
    }

    /// A WireGuard message arrives: as an engine would, without the crypto.
    fn wire_guard_came(&mut self, n: usize, via: Via, bytes: &[u8]) {
        if self.dead.contains(&n) {
            return;
        }
        let peer = self.sides[1 - n].node.key();
        self.activity(n, via, Direction::Received);
        match bytes[0] {
            1 => {
                let mut response = vec![0; 92];
                response[0] = 2;
                self.tell(n, NodeCommand::Wg { peer, notice: WgNotice::Established });
                self.wire_guard_via(n, via, &response);
            }
            2 => {
                self.tell(n, NodeCommand::Wg { peer, notice: WgNotice::Established });
                self.wire_guard(n, &data());
            }
            _ => self.sides[n].received.push(via),
        }
    }

    fn arrive(&mut self, flight: Flight) {
        match flight {
            Flight::Datagram { to, from, bytes } => {
                if wire::classify(&bytes) == Kind::WireGuard {
                    self.wire_guard_came(to, Via::Direct { link: V4, addr: from }, &bytes);
                } else {
                    self.input(to, Input::Datagram { link: V4, from, bytes: &bytes });
                }
            }
            Flight::Opened { node, stream } => self.opened(node, stream),
            Flight::Closed { node, stream } => {
                self.input(node, Input::StreamClosed { stream, why: "connection refused" });
            }
            Flight::ToServer { stream, bytes } => match self.wires.streams.get(&stream).map(|w| w.2) {
                Some(Server::Coordinator) => self.coordinate(Input::StreamBytes { stream, bytes: &bytes }),
                Some(Server::Relay(r)) => self.relay(r, Input::StreamBytes { stream, bytes: &bytes }),
                None => {}
            },
            Flight::ToNode { node, stream, bytes } => match self.far(node, stream) {
                Some(far) if self.wires.streams[&far].2 != Server::Coordinator => {
                    self.derp_came(node, far, stream, &bytes);
                }
                Some(_) => self.input(node, Input::StreamBytes { stream, bytes: &bytes }),
                None => {}
            },
        }
    }

    /// Peels WireGuard off a relay's stream, as the adapter does, and gives the other frames to the node.
    fn derp_came(&mut self, n: usize, far: StreamId, stream: StreamId, bytes: &[u8]) {
        let Some(Server::Relay(region)) = self.wires.streams.get(&far).map(|w| w.2) else { return };
        let mut decoder = self.wires.decoders.remove(&far).unwrap_or_default();
        let mut sealed = Vec::new();
        let mut rest = Vec::new();
        let mut frames = decoder.feed(bytes);
        while let Some(frame) = frames.next().unwrap() {
            match frame {
                Frame::RecvPacket { bytes, .. } if wire::classify(bytes) == Kind::WireGuard => {
                    sealed.push(bytes.to_vec());
                }
                frame => rest.push(frame.to_bytes()),
            }
        }
        drop(frames);
        self.wires.decoders.insert(far, decoder);
        for bytes in rest {
            self.input(n, Input::StreamBytes { stream, bytes: &bytes });
        }
        for bytes in sealed {
            self.wire_guard_came(n, Via::Relay(RegionId(region)), &bytes);
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        let mut turns = 0;
        while let Some(at) = self.next().filter(|at| *at <= end) {
            turns += 1;
            assert!(turns < 200_000, "time stands still at {:?}", self.now);
            self.now = self.now.max(at);
            if let Some(entry) = self.flying.first_entry().filter(|e| e.key().0 <= self.now) {
                let flight = entry.remove();
                self.arrive(flight);
                continue;
            }
            for n in [CLIENT, AGENT] {
                if self.deadline(n).is_some_and(|at| at <= self.now) {
                    self.input(n, Input::Deadline);
                }
            }
            if self.coordinator.deadline().is_some_and(|(at, _)| at <= self.now) {
                self.coordinate(Input::Deadline);
            }
            for region in [1, 2] {
                if self.hubs[&region].deadline().is_some_and(|(at, _)| at <= self.now) {
                    self.relay(region, Input::Deadline);
                }
            }
        }
        self.now = end;
    }

    fn next(&self) -> Option<Time> {
        let nodes = [CLIENT, AGENT].into_iter().filter_map(|n| self.deadline(n));
        let servers = self.hubs.values().filter_map(Machine::deadline).chain(self.coordinator.deadline());
        let flight = self.flying.keys().next().map(|(at, _)| *at);
        nodes.chain(servers.map(|(at, _)| at)).chain(flight).min()
    }

    fn deadline(&self, n: usize) -> Option<Time> {
        self.sides[n].node.deadline().filter(|_| !self.dead.contains(&n)).map(|(at, _)| at)
    }

    /// Runs and lets both sides talk, every 100 ms.
    fn talk(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.run(100);
            self.wire_guard(CLIENT, &data());
            self.wire_guard(AGENT, &data());
        }
        self.run(20);
    }

    /// How the last packet came to each side.
    fn ways(&self) -> [Option<Via>; 2] {
        [CLIENT, AGENT].map(|n| self.sides[n].received.last().copied())
    }

    fn log(&self, n: usize) -> String {
        self.sides[n].log.join("\n")
    }
}

fn initiation() -> Vec<u8> {
    let mut bytes = vec![0; 148];
    bytes[0] = 1;
    bytes
}

fn data() -> Vec<u8> {
    let mut bytes = vec![0; 96];
    bytes[0] = 4;
    bytes
}

fn direct(way: Option<Via>) -> bool {
    way.is_some_and(|via| via.is_direct())
}

//! Lane 1: a whole deployment without clocks, sockets or tasks. Nodes are the production stack, the server is
//! the production coordinator and relay; between them is a [`Topology`]. One queue ordered by (time,
//! sequence) holds all that will happen, and time jumps from one event to the next.

use crate::checks::Checks;
use crate::step::{Role, Scenario};
use crate::topology::fabric::{Arrived, Flight, Packet, TTL};
use crate::topology::{Fate, HostId, Topology, v4};
use crate::trace::{Happening, Trace};
use io_adapters::stack::{SendBatch, StackEvent};
use node::{AGENT, LINK, Node, NodePlan, PORT};
use proto_core::id::{NodeId, RegionId, StreamId};
use proto_core::machine::{Input, Output, StreamProtocol, StreamTarget, Transmit};
use proto_core::node::{NodeCommand, NodeEvent};
use proto_core::relay_map::{RelayMap, RelayNode, RelayRegion};
use proto_core::route::Via;
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use proto_core::wire::control::NodeKind;
use proto_core::wire::{Kind, classify, stun};
use server::{HTTP_PORT, STUN_PORT, Server, StreamInput};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use tcp::{End, Listening, Notice, Tcp, TcpEvent};

pub mod echo;
pub mod node;
pub mod server;
mod steps;
pub mod tcp;
mod verdict;

pub use verdict::Verdict;

/// How long a resolver takes.
const RESOLVE: Duration = Duration::from_millis(5);
/// How long it takes to say that it got no answer.
const RESOLVE_FAILS: Duration = Duration::from_secs(5);

/// What will happen.
#[derive(Debug)]
enum Event {
    Flight(Flight),
    Tcp(TcpEvent),
    Wake(HostId),
    Resolved(HostId, u64, String),
    Step(usize),
    /// A roaming node is plugged in again.
    Landed(Role),
}

struct Entry {
    at: Time,
    sequence: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

enum Process {
    Off,
    Node(Box<Node>),
    Server(Box<Server>),
}

struct Host {
    process: Process,
    number: u64,
    plan: Option<NodePlan>,
    wake_at: Option<Time>,
}

/// A world.
pub struct World {
    now: Time,
    sequence: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    scenario: Scenario,
    seed: Seed,
    net: Topology,
    tcp: Tcp,
    hosts: Vec<Host>,
    roles: BTreeMap<Role, HostId>,
    internet: crate::topology::SegmentId,
    map: RelayMap,
    trace: Trace,
    checks: Checks,
    fates: BTreeMap<Fate, u64>,
    bites: BTreeMap<&'static str, u64>,
    batch: SendBatch,
    flights: Vec<Flight>,
    relayed: u64,
    places: u8,
    landing: BTreeMap<Role, crate::topology::Network>,
}

impl World {
    /// The world of a scenario; with a text trace if `text`.
    #[must_use]
    pub fn new(scenario: Scenario, text: bool) -> Self {
        let seed = Seed::from_u64(scenario.seed);
        let mut net = Topology::new(&seed);
        let internet = net.segment("internet", 8);
        let (client, agent) = (net.host("client"), net.host("agent"));
        let server = net.host("server");
        let address = v4(198, 51, 100, 1);
        net.plug(server, internet, address, scenario.links[2]);
        net.name("server.sim", address);
        let mut roles =
            BTreeMap::from([(Role::Client, client), (Role::Agent, agent), (Role::Server, server)]);
        let mut regions = vec![(999, "server.sim", address)];
        if scenario.second_relay {
            let relay = net.host("relay");
            let address = v4(198, 51, 100, 2);
            net.plug(relay, internet, address, scenario.links[2]);
            net.name("relay.sim", address);
            roles.insert(Role::Relay, relay);
            regions.push((2, "relay.sim", address));
        }
        let links = [scenario.links[0], scenario.links[1]];
        net.meet([client, agent], scenario.nat_layers(), scenario.meeting, (internet, links));
        let count = net.hosts();
        let mut world = Self {
            now: Time::ZERO,
            sequence: 0,
            queue: BinaryHeap::new(),
            seed,
            net,
            tcp: Tcp::default(),
            hosts: (0..count)
                .map(|_| Host { process: Process::Off, number: 0, plan: None, wake_at: None })
                .collect(),
            roles,
            internet,
            map: relay_map(&regions),
            trace: Trace::new(text),
            checks: Checks::default(),
            fates: BTreeMap::new(),
            bites: BTreeMap::new(),
            batch: SendBatch::new(),
            flights: Vec::new(),
            relayed: 0,
            places: 10,
            landing: BTreeMap::new(),
            scenario,
        };
        world.begin();
        world
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(mut self) -> Verdict {
        self.run_until(self.scenario.until);
        verdict::judge(self)
    }

    /// Runs it up to a moment.
    pub fn run_until(&mut self, until: Time) {
        while let Some(Reverse(entry)) = self.queue.peek() {
            if entry.at > until {
                break;
            }
            let Some(Reverse(entry)) = self.queue.pop() else { break };
            self.now = self.now.max(entry.at);
            self.happen(entry.event);
        }
        self.now = self.now.max(until);
    }

    fn begin(&mut self) {
        let address = v4(198, 51, 100, 1);
        let plans = [
            (Role::Client, NodeKind::Client, "user:anna", Some(NodeId(AGENT.into()))),
            (Role::Agent, NodeKind::Agent, "agent:agent", None),
        ];
        for (role, kind, bearer, agent) in plans {
            let host = self.roles[&role];
            self.hosts[host.0].plan = Some(NodePlan {
                kind,
                bearer: bearer.into(),
                agent,
                echo: self.scenario.echo,
                transfer: self.scenario.transfer,
                server: address,
            });
        }
        for (n, (at, _)) in self.scenario.steps.clone().into_iter().enumerate() {
            self.schedule(at, Event::Step(n));
        }
        // Who starts first is drawn: neither order may matter.
        let mut order: Vec<HostId> = self.roles.values().copied().collect();
        let mut rng = self.seed.fork("order").rng();
        if rng.permille(500) {
            order.reverse();
        }
        for host in order {
            self.boot(host);
        }
        self.settle_streams();
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Entry { at, sequence: self.sequence, event }));
    }

    /// Starts a process on a host.
    fn boot(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        host.number += 1;
        host.wake_at = None;
        let seed = self.seed.fork(&format!("host/{}", id.0));
        let number = host.number;
        let address = self.net.address(id).unwrap_or(v4(0, 0, 0, 0));
        self.hosts[id.0].process = if let Some(plan) = &self.hosts[id.0].plan {
            Process::Node(Box::new(Node::start(plan, (&seed, number), address, self.now)))
        } else {
            let map = (self.roles.get(&Role::Server) == Some(&id)).then(|| self.map.clone());
            let seed = seed.fork(&format!("process/{number}"));
            Process::Server(Box::new(Server::new(map, &seed, self.now)))
        };
        self.drive(id);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Flight(Flight { port, packet, .. }) => {
                let origin = packet.origin;
                let (kind, len) = (classify(&packet.bytes), packet.bytes.len());
                let mut flights = std::mem::take(&mut self.flights);
                match self.net.arrive(self.now, port, packet, &mut flights) {
                    Arrived::Host(host, packet) => self.datagram(host, packet),
                    Arrived::Forwarded => {}
                    Arrived::Gone(fate) => self.gone(origin, kind, len, fate),
                }
                self.flights = flights;
                self.launch();
            }
            Event::Tcp(event) => self.stream(event),
            Event::Wake(host) => self.wake(host),
            Event::Resolved(host, number, name) => self.resolved(host, number, &name),
            Event::Step(n) => self.step(n),
            Event::Landed(role) => self.land(role),
        }
        self.settle_streams();
        // Counting what waits on streams costs more than the rest: now and then is often enough.
        if self.sequence.is_multiple_of(256) {
            self.checks.memory(self.now, self.queue.len(), self.tcp.waiting());
        }
    }

    fn launch(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            self.schedule(flight.at, Event::Flight(flight));
        }
    }

    fn gone(&mut self, origin: HostId, kind: Kind, len: usize, fate: Fate) {
        *self.fates.entry(fate).or_insert(0) += 1;
        let numbers = [origin.0 as u64, fate_number(fate), kind_number(kind), len as u64];
        self.trace.note(self.now, Happening::Dropped, numbers, || {
            format!("{:?} of {} bytes from {origin:?}: {fate:?}", kind, len)
        });
    }

    fn datagram(&mut self, id: HostId, mut packet: Packet) {
        let kind = classify(&packet.bytes);
        let numbers = [packet.origin.0 as u64, id.0 as u64, kind_number(kind), packet.bytes.len() as u64];
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::Arrived, numbers, || {
            format!("{name} from {}: {kind:?}, {} bytes", packet.src, packet.bytes.len())
        });
        self.checks.heard(self.now, id, packet.src, packet.origin);
        match &mut self.hosts[id.0].process {
            Process::Node(node) if packet.dst.port() == PORT => {
                let local = node.local(self.now);
                node.stack.datagram(LINK, packet.src, &mut packet.bytes, local);
                node.stack.end_of_batch(local);
                self.drive(id);
            }
            Process::Server(_) if packet.dst.port() == STUN_PORT => {
                if let Some(answer) = stun::answer(&packet.bytes, packet.src) {
                    self.send(id, (packet.dst, packet.src), &answer, None);
                    self.launch();
                }
            }
            _ => self.gone(packet.origin, kind, packet.bytes.len(), Fate::Deaf),
        }
    }

    fn send(&mut self, id: HostId, (src, dst): (SocketAddr, SocketAddr), bytes: &[u8], ttl: Option<u8>) {
        let kind = classify(bytes);
        self.checks.sent(self.now, id, kind, bytes);
        let numbers = [id.0 as u64, u64::from(dst.port()), kind_number(kind), bytes.len() as u64];
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::Sent, numbers, || {
            let ttl = ttl.map_or(String::new(), |ttl| format!(", ttl {ttl}"));
            format!("{name} to {dst}: {kind:?}, {} bytes{ttl}", bytes.len())
        });
        let Some(port) = self.net.port_of(id) else { return self.gone(id, kind, bytes.len(), Fate::NoRoute) };
        let packet = Packet { src, dst, ttl: ttl.unwrap_or(TTL), origin: id, bytes: bytes.to_vec() };
        if let Err(fate) = self.net.transmit(self.now, port, packet, &mut self.flights) {
            self.gone(id, kind, bytes.len(), fate);
        }
    }

    fn send_from_node(&mut self, id: HostId, to: SocketAddr, bytes: &[u8], ttl: Option<u8>) {
        let Some(address) = self.net.address(id) else { return };
        if to.is_ipv6() {
            // These worlds have no IPv6.
            return;
        }
        self.send(id, (SocketAddr::new(address, PORT), to), bytes, ttl);
    }

    /// Drains a process until it has nothing left, and notes when it wants to be woken.
    fn drive(&mut self, id: HostId) {
        loop {
            let did = match &self.hosts[id.0].process {
                Process::Node(_) => self.drive_node(id),
                Process::Server(_) => self.drive_server(id),
                Process::Off => false,
            };
            self.launch();
            if !did {
                break;
            }
        }
        self.rearm(id);
    }

    fn drive_node(&mut self, id: HostId) -> bool {
        let now = self.now;
        let mut did = false;
        let Process::Node(node) = &mut self.hosts[id.0].process else { return false };
        node.run_app(now);
        for what in std::mem::take(&mut node.app.violations) {
            self.checks.violate(now, what);
        }
        loop {
            let Process::Node(node) = &mut self.hosts[id.0].process else { return did };
            let Some(output) = node.poll(now) else { break };
            did = true;
            self.output(id, output);
        }
        let mut batch = std::mem::take(&mut self.batch);
        while let Process::Node(node) = &mut self.hosts[id.0].process {
            let local = node.local(now);
            if !node.stack.poll_batch(&mut batch, local) {
                break;
            }
            did = true;
            for segment in batch.segments() {
                self.send_from_node(id, batch.to, segment, None);
            }
        }
        self.batch = batch;
        did
    }

    fn drive_server(&mut self, id: HostId) -> bool {
        let Process::Server(server) = &mut self.hosts[id.0].process else { return false };
        let out = std::mem::take(&mut server.out);
        let did = !out.is_empty();
        for (stream, bytes) in out {
            self.relayed += bytes.as_ref().map_or(0, |b| b.len() as u64);
            self.stream_out(id, stream, bytes);
        }
        did
    }

    fn stream_out(&mut self, id: HostId, stream: StreamId, bytes: Option<Vec<u8>>) {
        let end = End { host: id, process: self.hosts[id.0].number, stream };
        let len = bytes.as_ref().map_or(0, Vec::len);
        let numbers = [id.0 as u64, stream.0, 0, len as u64];
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::StreamBytes, numbers, || {
            format!("{name} on {stream:?}: {len} bytes{}", if len == 0 { ", the end" } else { "" })
        });
        match bytes {
            Some(bytes) => {
                self.checks.wire(self.now, &bytes);
                self.tcp.write(self.now, end, bytes, &mut self.net);
            }
            None => self.tcp.close(self.now, end, &mut self.net),
        }
    }

    fn output(&mut self, id: HostId, output: Output<StackEvent>) {
        match output {
            Output::Transmit(Transmit { to, bytes, ttl, .. }) => self.send_from_node(id, to, &bytes, ttl),
            Output::Open { stream, target } => self.open(id, stream, target),
            Output::Write { stream, bytes } => self.stream_out(id, stream, Some(bytes)),
            Output::Close { stream } => self.stream_out(id, stream, None),
            Output::Resolve { name } => {
                let cut = self.net.port_of(id).is_none_or(|_| self.is_cut(id));
                let at = self.now + if cut { RESOLVE_FAILS } else { RESOLVE };
                let number = self.hosts[id.0].number;
                self.schedule(at, Event::Resolved(id, number, name));
            }
            Output::Event(StackEvent::Node(event)) => self.said(id, &event),
            Output::Event(_) => {}
        }
    }

    fn is_cut(&mut self, id: HostId) -> bool {
        self.net.edge(id).is_none_or(|port| {
            let (up, down) = self.net.links(port);
            up.is_cut() || down.is_cut()
        })
    }

    fn said(&mut self, id: HostId, event: &NodeEvent) {
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::Said, [id.0 as u64, event_number(event), 0, 0], || {
            format!("{name}: {event:?}")
        });
        let NodeEvent::Route { key, route } = event else { return };
        let peer = self.hosts.iter().position(|h| matches!(&h.process, Process::Node(n) if n.key() == *key));
        for via in [route.primary, route.duplicate].into_iter().flatten() {
            if let (Via::Direct { addr, .. }, Some(peer), true) = (via, peer, route.primary == Some(via)) {
                self.checks.direct(self.now, (id, HostId(peer)), addr);
            }
        }
    }

    fn open(&mut self, id: HostId, stream: StreamId, target: StreamTarget) {
        let numbers = [id.0 as u64, stream.0, u64::from(target.port), 0];
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::Stream, numbers, || {
            format!("{name} opens {stream:?} to {}:{} ({:?})", target.host, target.port, target.protocol)
        });
        let end = End { host: id, process: self.hosts[id.0].number, stream };
        self.tcp.open(self.now, end, target);
    }

    fn stream(&mut self, event: TcpEvent) {
        let now = self.now;
        match event {
            TcpEvent::Connect(conn) => {
                let hosts = &self.hosts;
                let listens = |host: HostId, target: &StreamTarget| match &hosts[host.0].process {
                    Process::Server(s) if target.port == HTTP_PORT && s.serves(target.protocol) => {
                        Listening::Yes
                    }
                    Process::Off => Listening::Off,
                    _ => Listening::No,
                };
                self.tcp.connect(now, conn, &mut self.net, listens);
            }
            TcpEvent::Accept(conn) => {
                if let Some(host) = self.tcp.server_of(conn)
                    && let Process::Server(server) = &mut self.hosts[host.0].process
                {
                    let stream = server.name();
                    let process = self.hosts[host.0].number;
                    self.tcp.accept(conn, End { host, process, stream });
                    let target = self.tcp.target(conn).cloned();
                    if let (Some(target), Process::Server(server)) = (target, &mut self.hosts[host.0].process)
                    {
                        server.accept(stream, target.protocol, target.bearer.as_deref(), now);
                        self.drive(host);
                    }
                }
            }
            TcpEvent::Connected(conn) => self.tcp.connected(now, conn, &mut self.net),
            TcpEvent::Arrive(conn, heading, piece) => {
                self.tcp.arrive(now, (conn, heading), piece, &mut self.net)
            }
            TcpEvent::Retry(conn, heading) => self.tcp.retry(now, (conn, heading), &mut self.net),
        }
    }

    /// Puts what the streams want into the queue and tells the processes what they must know, until both are
    /// done.
    fn settle_streams(&mut self) {
        loop {
            for (at, event) in std::mem::take(&mut self.tcp.events) {
                self.schedule(at, Event::Tcp(event));
            }
            let Some(notice) = self.tcp.notices.pop_front() else { break };
            self.tell(&notice);
        }
    }

    fn tell(&mut self, notice: &Notice) {
        let (end, input) = match notice {
            Notice::Opened(end) => (*end, None),
            Notice::Bytes(end, bytes) => (*end, Some(StreamInput::Bytes(end.stream, bytes))),
            Notice::Credit(end, credit) => (*end, Some(StreamInput::Credit(end.stream, *credit))),
            Notice::Closed(end, why) => (*end, Some(StreamInput::Closed(end.stream, why))),
        };
        let host = &mut self.hosts[end.host.0];
        if host.number != end.process {
            return;
        }
        if let Some(StreamInput::Closed(stream, why)) = input {
            let name = self.net.host_name(end.host);
            let numbers = [end.host.0 as u64, stream.0, 1, 0];
            self.trace.note(self.now, Happening::Stream, numbers, || format!("{name}: {stream:?} {why}"));
        }
        match (&mut host.process, input) {
            (Process::Node(node), input) => {
                let local = node.local(self.now);
                match input {
                    None => node.stack.handle(Input::StreamOpened { stream: end.stream }, local),
                    Some(input) => node.stack.handle(input.input(), local),
                }
                node.stack.end_of_batch(local);
            }
            (Process::Server(server), Some(input)) => server.stream(input, self.now),
            _ => return,
        }
        self.drive(end.host);
    }

    fn resolved(&mut self, id: HostId, number: u64, name: &str) {
        let addresses: Vec<IpAddr> = if self.is_cut(id) { Vec::new() } else { self.net.resolve(name) };
        let host = &mut self.hosts[id.0];
        if let (Process::Node(node), true) = (&mut host.process, host.number == number) {
            let local = node.local(self.now);
            node.stack.handle(Input::Resolved { name, addresses: &addresses }, local);
            self.drive(id);
        }
    }

    fn wake(&mut self, id: HostId) {
        let now = self.now;
        let host = &mut self.hosts[id.0];
        if host.wake_at != Some(now) {
            return;
        }
        host.wake_at = None;
        let why = match &mut host.process {
            Process::Node(node) => {
                let why = node.deadline().map_or("nothing", |(_, why)| why);
                node.wake(now);
                why
            }
            Process::Server(server) => {
                let why = server.deadline().map_or("nothing", |(_, why)| why);
                server.wake(now);
                why
            }
            Process::Off => return,
        };
        self.checks.woken(now, id, why);
        self.drive(id);
    }

    fn rearm(&mut self, id: HostId) {
        let host = &self.hosts[id.0];
        let deadline = match &host.process {
            Process::Node(node) => node.deadline(),
            Process::Server(server) => server.deadline(),
            Process::Off => None,
        };
        let Some((at, _)) = deadline else { return };
        let mut at = at.max(self.now);
        if self.checks.is_stuck(self.now, id) {
            // It would never end; the violation is noted, and the run goes on slowly.
            at = at.max(self.now + Duration::from_millis(1));
        }
        if host.wake_at.is_none_or(|wake| at < wake || wake < self.now) {
            self.hosts[id.0].wake_at = Some(at);
            self.schedule(at, Event::Wake(id));
        }
    }

    fn node(&self, role: Role) -> Option<&Node> {
        match &self.hosts[self.roles.get(&role)?.0].process {
            Process::Node(node) => Some(node),
            _ => None,
        }
    }

    fn command(&mut self, role: Role, command: NodeCommand) {
        let Some(&id) = self.roles.get(&role) else { return };
        if let Process::Node(node) = &mut self.hosts[id.0].process {
            node.command(command, self.now);
            self.drive(id);
        }
    }

    fn bite(&mut self, what: &'static str, count: u64) {
        *self.bites.entry(what).or_insert(0) += count;
    }

    /// The trace so far.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Where a stream's protocol is served, for tests.
    #[must_use]
    pub fn serves(&self, role: Role, protocol: StreamProtocol) -> bool {
        self.roles.get(&role).is_some_and(
            |id| matches!(&self.hosts[id.0].process, Process::Server(server) if server.serves(protocol)),
        )
    }
}

fn relay_map(regions: &[(u64, &str, IpAddr)]) -> RelayMap {
    let regions = regions.iter().map(|(id, host, address)| {
        let id = RegionId(*id);
        let node = RelayNode {
            name: format!("{}a", id.0),
            region: id,
            host: (*host).into(),
            ipv4_text: address.to_string(),
            ipv6_text: "none".into(),
            stun_port_number: i32::from(STUN_PORT),
            derp_port_number: HTTP_PORT,
            force_http: true,
            ..RelayNode::default()
        };
        let code = host.split('.').next().unwrap_or_default();
        let region = RelayRegion {
            id,
            code: code.into(),
            name: code.into(),
            nodes: vec![node],
            ..RelayRegion::default()
        };
        (id, region)
    });
    RelayMap { regions: regions.collect(), omit_default_regions: true, home_params: None }
}

const fn kind_number(kind: Kind) -> u64 {
    match kind {
        Kind::Stun => 1,
        Kind::Disco => 2,
        Kind::WireGuard => 3,
        Kind::Unknown => 4,
    }
}

fn fate_number(fate: Fate) -> u64 {
    match fate {
        Fate::Link(lost) => 10 + lost as u64,
        Fate::Nat(reason) => 20 + reason as u64,
        Fate::Rejected => 40,
        Fate::NoRoute => 41,
        Fate::Ttl => 42,
        Fate::Partition => 43,
        Fate::Deaf => 44,
    }
}

const fn event_number(event: &NodeEvent) -> u64 {
    match event {
        NodeEvent::Session(_) => 1,
        NodeEvent::PeerUp { .. } => 2,
        NodeEvent::PeerDown { .. } => 3,
        NodeEvent::Route { .. } => 4,
        NodeEvent::RelayUp { .. } => 5,
        NodeEvent::RelayDown { .. } => 6,
        NodeEvent::Refused { .. } => 7,
        _ => 8,
    }
}

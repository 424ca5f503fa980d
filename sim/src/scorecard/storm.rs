//! A server restarts and everybody comes back at once: the nodes' sessions and the coordinator are the production
//! machines, what a login costs the server is counted in processor time.

use crate::relay_map::relay_map;
use proto_core::coord::{
    ControlTarget, Coordinator, CoordinatorCommand, CoordinatorConfig, Principal, Session, SessionCommand,
    SessionConfig, SessionEvent,
};
use proto_core::id::{NodeId, StreamId};
use proto_core::key::NodePublic;
use proto_core::machine::{Input, Machine, Output};
use proto_core::seed::{Rng, Seed};
use proto_core::time::{Duration, Time};
use proto_core::wire::control::NodeKind;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

/// What a login costs a processor: TLS and HTTP, 6,900 a second as measured on a relay of ours, and as much again for the
/// node's connection to the server's relay, which comes back with it.
const LOGIN: Duration = Duration::from_micros(2 * 145);
/// What else the server is asked meanwhile: a request each 20 ms on a connection of its own, TLS and 1 ms of work.
const REQUEST: Duration = Duration::from_micros(145 + 1_000);
const REQUEST_EVERY: Duration = Duration::from_millis(20);
/// One message of the coordinator's, parsed and answered.
const MESSAGE: Duration = Duration::from_micros(20);
/// The fleet starts within this time, long before the restart: all have heard how many they are.
const START: Duration = Duration::from_secs(60);
const RESTART: Time = Time::from_secs(120);
/// How long the server is away: from a supervisor's quick restart to a slow one.
const AWAY_US: Range<u64> = 50_000..5_000_000;
/// One way between a node and the server.
const ONE_WAY_US: Range<u64> = 5_000..75_000;
/// How long such a world goes on after the server is back.
pub const AFTER: Duration = Duration::from_secs(60);

/// What came of a storm.
#[derive(Clone, Debug)]
pub struct Stormed {
    /// From the server's return until each node was greeted again, in order.
    pub back: Vec<Duration>,
    /// Nodes that were not, at the end.
    pub never: u64,
    /// How long the others' requests took meanwhile, without the network, in order.
    pub requests: Vec<Duration>,
    /// Connections made to the restarted server.
    pub logins: u64,
}

enum Happening {
    Wake(usize),
    /// A node's connection arrives at the server; the number is the connection's.
    Knock(usize, StreamId),
    /// The server has done what a connection costs.
    Admitted(u64),
    ToServer(u64, Vec<u8>),
    ToNode(u64, Vec<u8>),
    /// What ended a connection reaches the node.
    Ended(usize, StreamId),
    /// The same at the server.
    Gone(u64),
    Opened(usize, StreamId),
    Request,
    Kill,
    Return,
    ServerWakes,
}

struct Storm {
    now: Time,
    sequence: u64,
    queue: BinaryHeap<Reverse<(Time, u64, usize)>>,
    events: BTreeMap<usize, Happening>,
    nodes: Vec<Node>,
    server: Option<Coordinator>,
    seed: Seed,
    boots: u64,
    /// When the processor has done all that it was given.
    free_at: Time,
    connections: BTreeMap<u64, Connection>,
    server_wakes: Option<Time>,
    next: u64,
    returned: Option<Time>,
    outcome: Stormed,
}

#[derive(Clone, Copy)]
struct Connection {
    node: usize,
    stream: StreamId,
    /// When TLS and HTTP are done at the node's end.
    open: Time,
}

struct Node {
    session: Session,
    one_way: Duration,
    wake_at: Option<Time>,
    /// Its connection, as the server names it.
    connection: Option<u64>,
    back: bool,
}

/// So many nodes, one restart.
#[must_use]
pub fn run(seed: u64, nodes: usize) -> Stormed {
    let seed = Seed::from_u64(seed).fork("storm");
    let mut rng = seed.fork("plan").rng();
    let mut storm = Storm::new(nodes, seed, &mut rng);
    let back = RESTART + Duration::from_micros(rng.range(AWAY_US));
    storm.at(RESTART, Happening::Kill);
    storm.at(back, Happening::Return);
    storm.run(back + AFTER);
    storm.outcome.never = storm.nodes.iter().filter(|node| !node.back).count() as u64;
    storm.outcome.requests.sort_unstable();
    storm.outcome
}

impl Storm {
    fn new(count: usize, seed: Seed, rng: &mut Rng) -> Self {
        let outcome = Stormed { back: Vec::new(), never: 0, requests: Vec::new(), logins: 0 };
        let mut storm = Self {
            now: Time::ZERO,
            sequence: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            nodes: Vec::with_capacity(count),
            server: None,
            seed,
            boots: 0,
            free_at: Time::ZERO,
            connections: BTreeMap::new(),
            server_wakes: None,
            next: 0,
            returned: None,
            outcome,
        };
        storm.boot();
        for n in 0..count {
            let fork = storm.seed.fork(&format!("node/{n}"));
            let mut session = Session::new(config(n), fork, Time::ZERO);
            let at = Time::ZERO + Duration::from_micros(rng.range(0..micros(START)));
            session.handle(Input::Command(SessionCommand::Start), at);
            let one_way = Duration::from_micros(rng.range(ONE_WAY_US));
            storm.nodes.push(Node { session, one_way, wake_at: None, connection: None, back: false });
            storm.now = at;
            storm.drain_node(n);
        }
        storm.now = Time::ZERO;
        storm
    }

    fn boot(&mut self) {
        let config = CoordinatorConfig {
            direct: true,
            relay_map: relay_map(&[]),
            relay: None,
            relay_websockets: false,
            browser_only: false,
            build: "sim".into(),
            resume_key: [7; 32],
        };
        self.boots += 1;
        let seed = self.seed.fork(&format!("server/{}", self.boots));
        self.server = Some(Coordinator::new(config, seed, self.now));
        self.free_at = self.now;
    }

    fn at(&mut self, at: Time, what: Happening) {
        self.sequence += 1;
        let slot = usize::try_from(self.sequence).unwrap_or(usize::MAX);
        self.events.insert(slot, what);
        self.queue.push(Reverse((at, self.sequence, slot)));
    }

    fn run(&mut self, until: Time) {
        while let Some(Reverse((at, _, slot))) = self.queue.pop() {
            let Some(what) = self.events.remove(&slot) else { continue };
            if at > until {
                return;
            }
            self.now = self.now.max(at);
            self.happen(what);
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake(n) => {
                if self.nodes[n].wake_at.take_if(|at| *at <= self.now).is_some() {
                    self.tell_node(n, Input::Deadline);
                }
            }
            Happening::Knock(n, stream) => self.knock(n, stream),
            Happening::Admitted(id) => self.admitted(id),
            Happening::Opened(n, stream) => self.tell_node(n, Input::StreamOpened { stream }),
            Happening::ToServer(id, bytes) => {
                self.work(MESSAGE);
                let stream = StreamId(id);
                self.tell_server(Input::StreamBytes { stream, bytes: &bytes });
            }
            Happening::ToNode(id, bytes) => {
                if let Some(Connection { node, stream, .. }) = self.connections.get(&id).copied() {
                    self.tell_node(node, Input::StreamBytes { stream, bytes: &bytes });
                }
            }
            Happening::Ended(n, stream) => {
                self.tell_node(n, Input::StreamClosed { stream, why: "the server closed the connection" });
            }
            Happening::Gone(id) => {
                self.connections.remove(&id);
                self.tell_server(Input::StreamClosed { stream: StreamId(id), why: "the node closed it" });
            }
            Happening::Request => self.request(),
            Happening::Kill => self.kill(),
            Happening::Return => {
                self.boot();
                self.returned = Some(self.now);
                self.at(self.now, Happening::Request);
            }
            Happening::ServerWakes => {
                if self.server_wakes.take_if(|at| *at <= self.now).is_some() {
                    self.tell_server(Input::Deadline);
                }
            }
        }
    }

    /// The processor does one thing after another: when it will have done this.
    fn work(&mut self, cost: Duration) -> Time {
        self.free_at = self.free_at.max(self.now) + cost;
        self.free_at
    }

    fn request(&mut self) {
        let done = self.work(REQUEST);
        self.outcome.requests.push(done.since(self.now));
        // Never in step with anything.
        let pause = REQUEST_EVERY + Duration::from_micros(self.outcome.requests.len() as u64 * 37 % 1_000);
        self.at(self.now + pause, Happening::Request);
    }

    fn knock(&mut self, n: usize, stream: StreamId) {
        let one_way = self.nodes[n].one_way;
        if self.server.is_none() {
            return self.at(self.now + one_way, Happening::Ended(n, stream));
        }
        self.outcome.logins += u64::from(self.returned.is_some());
        self.next += 1;
        let id = self.next;
        let done = self.work(LOGIN);
        // TCP, TLS and HTTP take the node two more trips there and back.
        self.connections.insert(id, Connection { node: n, stream, open: done + one_way * 5 });
        self.nodes[n].connection = Some(id);
        self.at(done, Happening::Admitted(id));
    }

    fn admitted(&mut self, id: u64) {
        let Some(Connection { node, stream, open }) = self.connections.get(&id).copied() else { return };
        let principal = Principal::Agent { id: NodeId(format!("agent-{node}")) };
        let admit = CoordinatorCommand::Admit { stream: StreamId(id), principal, credential: None };
        self.at(open, Happening::Opened(node, stream));
        self.tell_server(Input::Command(admit));
    }

    fn kill(&mut self) {
        self.server = None;
        for Connection { node, stream, .. } in std::mem::take(&mut self.connections).into_values() {
            self.nodes[node].connection = None;
            self.nodes[node].back = false;
            self.at(self.now + self.nodes[node].one_way, Happening::Ended(node, stream));
        }
    }

    fn tell_node(&mut self, n: usize, input: Input<'_, SessionCommand>) {
        self.nodes[n].session.handle(input, self.now);
        self.drain_node(n);
    }

    fn drain_node(&mut self, n: usize) {
        let one_way = self.nodes[n].one_way;
        while let Some(output) = self.nodes[n].session.poll() {
            let arrives = self.now + one_way;
            match (output, self.nodes[n].connection) {
                (Output::Open { stream, .. }, _) => self.at(arrives, Happening::Knock(n, stream)),
                (Output::Write { bytes, .. }, Some(id)) => self.at(arrives, Happening::ToServer(id, bytes)),
                (Output::Close { .. }, Some(id)) => {
                    self.nodes[n].connection = None;
                    self.at(arrives, Happening::Gone(id));
                }
                (Output::Event(SessionEvent::Up(_)), _) => self.up(n),
                _ => {}
            }
        }
        let Some((at, _)) = self.nodes[n].session.deadline() else { return };
        let at = at.max(self.now);
        if self.nodes[n].wake_at.is_none_or(|wake| at < wake) {
            self.nodes[n].wake_at = Some(at);
            self.at(at, Happening::Wake(n));
        }
    }

    fn up(&mut self, n: usize) {
        let first = !std::mem::replace(&mut self.nodes[n].back, true);
        if let Some(returned) = self.returned.filter(|_| first) {
            self.outcome.back.push(self.now.since(returned));
        }
    }

    fn tell_server(&mut self, input: Input<'_, CoordinatorCommand>) {
        let Some(mut server) = self.server.take() else { return };
        server.handle(input, self.now);
        while let Some(output) = server.poll() {
            let (Output::Write { stream, .. } | Output::Close { stream }) = &output else { continue };
            let Some(Connection { node, stream: theirs, open }) = self.connections.get(&stream.0).copied()
            else {
                continue;
            };
            let arrives = (self.free_at.max(self.now) + self.nodes[node].one_way).max(open);
            match output {
                Output::Write { stream, bytes } => self.at(arrives, Happening::ToNode(stream.0, bytes)),
                _ => self.at(arrives, Happening::Ended(node, theirs)),
            }
        }
        if let Some((at, _)) = server.deadline() {
            let at = at.max(self.now);
            if self.server_wakes.is_none_or(|wakes| at < wakes) {
                self.server_wakes = Some(at);
                self.at(at, Happening::ServerWakes);
            }
        }
        self.server = Some(server);
    }
}

fn config(n: usize) -> SessionConfig {
    let target = ControlTarget {
        host: "192.0.2.1".into(),
        port: 443,
        addresses: Vec::new(),
        tls: None,
        path: "/api/v1/coordinate".into(),
        bearer: None,
    };
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
    SessionConfig {
        target,
        node_key: NodePublic(key),
        kind: NodeKind::Agent,
        build: "sim".into(),
        streams: 0..1 << 20,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

//! A coordinator and its nodes in memory: messages arrive at once, connections break where the test says.

use super::super::*;
use crate::id::{NodeId, RegionId, StreamId};
use crate::key::{DiscoSecret, NodeSecret};
use crate::machine::{Input, Machine, Output};
use crate::relay_map::RelayMap;
use crate::seed::Seed;
use crate::time::{Duration, Time};
use crate::wire::control::{NodeInfo, NodeKind, ToServer};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn id(name: &str) -> NodeId {
    NodeId(name.to_owned())
}

fn principal(name: &'static str) -> Principal {
    match name {
        "server" => Principal::Server { id: id(name) },
        name if name.starts_with("agent") => Principal::Agent { id: id(name) },
        name => Principal::User { user: name.to_owned() },
    }
}

pub(super) struct Node {
    pub(super) session: Session,
    pub(super) events: Vec<SessionEvent>,
    info: NodeInfo,
    stream: Option<StreamId>,
    /// Messages either way until its connection breaks.
    pub(super) budget: Option<usize>,
    /// New connections are refused.
    pub(super) unplugged: bool,
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) coordinator: Coordinator,
    pub(super) nodes: BTreeMap<&'static str, Node>,
    pub(super) told: Vec<CoordinatorEvent>,
    /// Who may not be reached.
    pub(super) forbidden: BTreeSet<NodeId>,
}

pub(super) fn config() -> CoordinatorConfig {
    CoordinatorConfig {
        direct: true,
        relay_map: RelayMap::default(),
        relay: None,
        relay_websockets: false,
        browser_only: false,
        build: "test".into(),
        resume_key: [7; 32],
    }
}

impl World {
    pub(super) fn new(names: &[&'static str]) -> Self {
        let now = Time::from_secs(1_000);
        let coordinator = Coordinator::new(config(), Seed::from_u64(1), now);
        let nodes = names.iter().enumerate().map(|(n, name)| (*name, node(name, n as u64, now))).collect();
        let mut world = Self { now, coordinator, nodes, told: Vec::new(), forbidden: BTreeSet::new() };
        for name in names {
            world.say(name, SessionCommand::Start);
            let info = world.nodes[name].info.clone();
            world.say(name, SessionCommand::Node(info));
        }
        world
    }

    pub(super) fn say(&mut self, name: &'static str, command: SessionCommand) {
        let now = self.now;
        self.nodes.get_mut(name).unwrap().session.handle(Input::Command(command), now);
        self.settle();
    }

    pub(super) fn order(&mut self, command: CoordinatorCommand) {
        self.coordinator.handle(Input::Command(command), self.now);
        self.settle();
    }

    /// A message on a stream that no session of ours has.
    pub(super) fn server_gets(&mut self, stream: StreamId, message: &ToServer) {
        self.coordinator.handle(Input::StreamBytes { stream, bytes: &message.encode() }, self.now);
        self.settle();
    }

    /// The node's word about itself, changed.
    pub(super) fn move_home(&mut self, name: &'static str, home: u64) {
        let info = &mut self.nodes.get_mut(name).unwrap().info;
        info.home = RegionId(home);
        let info = info.clone();
        self.say(name, SessionCommand::Node(info));
    }

    pub(super) fn open(&mut self, from: &'static str, to: &'static str) {
        self.say(from, SessionCommand::OpenTunnel(id(to)));
    }

    /// What the node has been told since the last look, without the greetings' details.
    pub(super) fn heard(&mut self, name: &str) -> Vec<String> {
        let events = core::mem::take(&mut self.nodes.get_mut(name).unwrap().events);
        events.iter().filter_map(brief).collect()
    }

    /// The node's word about itself, said again past a session that would not.
    pub(super) fn repeat(&mut self, name: &str) {
        let node = &self.nodes[name];
        let message = ToServer::Node { node: node.info.clone() };
        self.server_gets(node.stream.unwrap(), &message);
    }

    /// Forgets what everybody was told.
    pub(super) fn hush(&mut self) {
        self.nodes.values_mut().for_each(|node| node.events.clear());
    }

    pub(super) fn cut_all(&mut self) {
        self.nodes.keys().copied().collect::<Vec<_>>().into_iter().for_each(|name| self.cut(name));
    }

    /// The name that the coordinator gave.
    pub(super) fn id_of(&self, name: &str) -> NodeId {
        let key = self.nodes[name].info.node_key;
        let known = self
            .coordinator
            .online()
            .map(|(id, _)| id)
            .find(|id| self.coordinator.node(id).is_some_and(|(info, _)| info.node_key == key));
        known.unwrap().clone()
    }

    /// A node's stream.
    pub(super) fn stream_of(&self, name: &str) -> StreamId {
        self.nodes[name].stream.unwrap()
    }

    pub(super) fn cut(&mut self, name: &'static str) {
        let (now, node) = (self.now, self.nodes.get_mut(name).unwrap());
        if let Some(stream) = node.stream.take() {
            node.session.handle(Input::StreamClosed { stream, why: "cut" }, now);
            self.coordinator.handle(Input::StreamClosed { stream, why: "cut" }, now);
        }
        self.settle();
    }

    /// A connection that nobody closes: the two just don't hear each other any more.
    pub(super) fn blackhole(&mut self, name: &'static str) {
        self.nodes.get_mut(name).unwrap().stream = None;
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let sessions = self.nodes.values().filter_map(|node| node.session.deadline());
            let next = sessions.chain(self.coordinator.deadline()).map(|(at, _)| at).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = at.max(self.now);
            let now = self.now;
            for node in self.nodes.values_mut() {
                node.session.handle(Input::Deadline, now);
            }
            self.coordinator.handle(Input::Deadline, now);
            self.settle();
        }
        self.now = end;
    }

    pub(super) fn settle(&mut self) {
        loop {
            let names: Vec<_> = self.nodes.keys().copied().collect();
            let mut quiet = true;
            for name in names {
                while let Some(output) = self.nodes.get_mut(name).unwrap().session.poll() {
                    quiet = false;
                    self.session_said(name, output);
                }
            }
            while let Some(output) = self.coordinator.poll() {
                quiet = false;
                self.coordinator_said(output);
            }
            if quiet {
                return;
            }
        }
    }

    fn session_said(&mut self, name: &'static str, output: Output<SessionEvent>) {
        let (now, node) = (self.now, self.nodes.get_mut(name).unwrap());
        match output {
            Output::Event(event) => node.events.push(event),
            Output::Resolve { name } => {
                let addresses = ["192.0.2.1".parse().unwrap()];
                node.session.handle(Input::Resolved { name: &name, addresses: &addresses }, now);
            }
            Output::Open { stream, .. } if node.unplugged => {
                node.session.handle(Input::StreamClosed { stream, why: "unplugged" }, now);
            }
            Output::Open { stream, target } => {
                assert_eq!(target.path, "/coordinate");
                node.stream = Some(stream);
                let credential = Some(format!("token of {name}"));
                let admit = CoordinatorCommand::Admit { stream, principal: principal(name), credential };
                self.coordinator.handle(Input::Command(admit), now);
                node.session.handle(Input::StreamOpened { stream }, now);
            }
            Output::Write { stream, bytes } if node.passes(stream) => {
                self.coordinator.handle(Input::StreamBytes { stream, bytes: &bytes }, now);
            }
            Output::Write { stream, .. } if node.stream == Some(stream) => self.cut(name),
            Output::Close { stream } if node.stream == Some(stream) => {
                node.stream = None;
                self.coordinator.handle(Input::StreamClosed { stream, why: "closed" }, now);
            }
            _ => {}
        }
    }

    fn coordinator_said(&mut self, output: Output<CoordinatorEvent>) {
        let now = self.now;
        match output {
            Output::Event(CoordinatorEvent::Authorize { request, to, .. }) => {
                let verdict = if self.forbidden.contains(&to) {
                    Verdict::Refused { code: code::FORBIDDEN.into(), message: "you may not".into() }
                } else {
                    Verdict::Allowed
                };
                let answer = CoordinatorCommand::Authorized { request, verdict };
                self.coordinator.handle(Input::Command(answer), now);
            }
            Output::Event(event) => self.told.push(event),
            Output::Write { stream, bytes } => {
                let Some(name) = self.at(stream) else { return };
                let node = self.nodes.get_mut(name).unwrap();
                if node.passes(stream) {
                    node.session.handle(Input::StreamBytes { stream, bytes: &bytes }, now);
                } else {
                    self.cut(name);
                }
            }
            Output::Close { stream } => {
                let Some(name) = self.at(stream) else { return };
                let node = self.nodes.get_mut(name).unwrap();
                node.stream = None;
                node.session.handle(Input::StreamClosed { stream, why: "closed by the server" }, now);
            }
            _ => {}
        }
    }

    fn at(&self, stream: StreamId) -> Option<&'static str> {
        self.nodes.iter().find(|(_, node)| node.stream == Some(stream)).map(|(name, _)| *name)
    }
}

impl Node {
    fn passes(&mut self, stream: StreamId) -> bool {
        if self.stream != Some(stream) || self.budget == Some(0) {
            self.budget = None;
            return false;
        }
        self.budget = self.budget.map(|budget| budget - 1);
        true
    }
}

fn node(name: &'static str, n: u64, now: Time) -> Node {
    let seed = Seed::from_u64(n).fork(name);
    let key = NodeSecret::generate(&seed).public();
    let target = ControlTarget {
        host: "warren.example".into(),
        port: 443,
        addresses: Vec::new(),
        tls: None,
        path: "/coordinate".into(),
        bearer: Some(name.into()),
    };
    let streams = (n + 1) * 1_000..(n + 2) * 1_000;
    let config =
        SessionConfig { target, node_key: key, kind: NodeKind::Client, build: "test".into(), streams };
    let info = NodeInfo {
        id: NodeId(String::new()),
        node_key: key,
        disco_key: DiscoSecret::generate(&seed).public(),
        boot_id: n,
        home: RegionId(1),
        endpoints: vec!["192.0.2.7:7".parse().unwrap()],
        mapped: None,
        features: Vec::new(),
        direct_forbidden: None,
    };
    let session = Session::new(config, seed, now);
    Node { session, events: Vec::new(), info, stream: None, budget: None, unplugged: false }
}

/// An event as a person would say it; clients have drawn names, which are left out.
fn brief(event: &SessionEvent) -> Option<String> {
    let short = |id: &NodeId| if id.0.starts_with("c-") { "client".to_owned() } else { id.0.clone() };
    Some(match event {
        SessionEvent::Up(_) => "up".to_owned(),
        SessionEvent::Down { why } => format!("down: {why}"),
        SessionEvent::RelayMap(_) | SessionEvent::Spread(_) => return None,
        SessionEvent::Peer(peer) => {
            format!("peer {} home {} endpoints {}", short(&peer.id), peer.home, peer.endpoints.len())
        }
        SessionEvent::PeerLost { id, closed: true } => format!("lost {}: closed", short(id)),
        SessionEvent::PeerLost { id, closed: false } => format!("lost {}", short(id)),
        SessionEvent::PeerGone { id, reason } => format!("gone {}: {reason}", short(id)),
        SessionEvent::PeerReady(id) => format!("ready {}", short(id)),
        SessionEvent::Refused { to, code, message } => {
            format!("refused {}: {code} {message}", to.as_ref().map_or("session".into(), short))
        }
        SessionEvent::Draining { retry_after } => format!("draining {retry_after:?}"),
    })
}

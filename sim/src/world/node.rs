//! A node's process in a world: the production stack around the WireGuard model, and the application on it.

use super::echo::{App, EchoStats};
use crate::wg_model::WgModel;
use io_adapters::stack::{Stack, StackConfig, StackEvent};
use proto_core::coord::ControlTarget;
use proto_core::id::{LinkId, NodeId};
use proto_core::key::{NodePublic, NodeSecret};
use proto_core::machine::{Input, Output};
use proto_core::node::{NodeCommand, NodeConfig, NodeEvent};
use proto_core::route::{Route, Via};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use proto_core::wire::control::NodeKind;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The agent's name at the coordinator.
pub const AGENT: &str = "agent";
/// The node's one socket.
pub const LINK: LinkId = LinkId(0);
/// Its port.
pub const PORT: u16 = 41_641;
/// What the kernel keeps unread.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The wall clock at the world's beginning, microseconds.
const WALL: u64 = 1_700_000_000_000_000;

/// The port of a socket; those that are opened besides the one have other ports, each its own for long.
#[must_use]
pub const fn port_of(link: LinkId) -> u16 {
    if link.0 == LINK.0 { PORT } else { 10_000 + (link.0 & 0x3fff) as u16 }
}

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Client or agent.
    pub kind: NodeKind,
    /// Who it proves to be.
    pub bearer: String,
    /// Whom it talks to.
    pub agent: Option<NodeId>,
    /// Between echoes.
    pub echo: Duration,
    /// Bytes to transfer.
    pub transfer: u64,
    /// Whether it asks for the tunnel as soon as it starts.
    pub opens: bool,
    /// Whether it asks again for a peer that went down.
    pub insists: bool,
    /// The server's address.
    pub server: IpAddr,
}

/// A node's process.
pub struct Node {
    /// The production data plane.
    pub stack: Stack<WgModel>,
    /// What runs on it.
    pub app: App,
    key: NodePublic,
    origin: Time,
    base: Time,
    routes: BTreeMap<NodePublic, Route>,
    /// Whom it asks for again.
    insists: Option<NodeId>,
    /// Whether a route was ever direct.
    pub ever_direct: bool,
    /// Sockets opened besides, by port.
    opened: BTreeMap<u16, LinkId>,
    /// When the tunnel was first spoken of, and when data first went direct, by the world's clock.
    pub peer_up_at: Option<Time>,
    /// When the route first became direct.
    pub direct_at: Option<Time>,
    /// Times that the primary changed between direct and relayed.
    pub switches: u64,
}

impl Node {
    /// A process that starts now, `process` being its number on this host.
    #[must_use]
    pub fn start(plan: &NodePlan, (seed, process): (&Seed, u64), address: IpAddr, now: Time) -> Self {
        let secret = NodeSecret::generate(&seed.fork("identity"));
        let key = secret.public();
        let fork = seed.fork(&format!("process/{process}"));
        // Each process has a time of its own, so that nobody compares two nodes' times unnoticed.
        let base = Time::from_micros(fork.fork("clock").rng().range(1_000..900_000_000));
        let config = NodeConfig {
            node_key: secret.clone(),
            kind: plan.kind,
            control: Some(ControlTarget {
                host: "server.sim".into(),
                port: super::server::HTTP_PORT,
                addresses: vec![plan.server],
                tls: None,
                path: "/api/v1/coordinate".into(),
                bearer: Some(plan.bearer.clone()),
            }),
            build: "sim".into(),
            direct_forbidden: None,
            guess_ports: true,
            map_ports: false,
            pins: BTreeMap::new(),
            relay: None,
            relay_map: None,
        };
        let wall = WALL + now.as_micros() - base.as_micros();
        let engine = WgModel::new(secret, wall, &fork);
        let config = StackConfig { node: config, receive_buffer: RECEIVE_BUFFER };
        let mut node = Self {
            stack: Stack::new(config, engine, &fork.fork("stack"), base),
            app: App::new(key, plan.agent.clone(), plan.echo, plan.transfer),
            key,
            origin: now,
            base,
            routes: BTreeMap::new(),
            insists: plan.agent.clone().filter(|_| plan.insists),
            ever_direct: false,
            opened: BTreeMap::new(),
            peer_up_at: None,
            direct_at: None,
            switches: 0,
        };
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        node.stack.handle(Input::LinkUp { link: LINK, address: any }, base);
        node.command(NodeCommand::Interfaces(vec![address]), now);
        node.command(NodeCommand::Start, now);
        if let Some(agent) = plan.agent.as_ref().filter(|_| plan.opens) {
            node.command(NodeCommand::OpenTunnel(agent.clone()), now);
        }
        node
    }

    /// Opens a socket more.
    pub fn open(&mut self, link: LinkId, now: Time) {
        let port = port_of(link);
        self.opened.insert(port, link);
        let (address, local) = (SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), self.local(now));
        self.stack.handle(Input::LinkUp { link, address }, local);
    }

    /// Closes it.
    pub fn close(&mut self, link: LinkId) {
        self.opened.remove(&port_of(link));
    }

    /// Sockets opened besides that nobody can use any more: there is no peer left.
    #[must_use]
    pub fn left_sockets(&self) -> usize {
        if self.stack.node().status().peers.is_empty() { self.opened.len() } else { 0 }
    }

    /// The socket at a port.
    #[must_use]
    pub fn link_at(&self, port: u16) -> Option<LinkId> {
        if port == PORT { Some(LINK) } else { self.opened.get(&port).copied() }
    }

    /// Its identity.
    #[must_use]
    pub const fn key(&self) -> NodePublic {
        self.key
    }

    /// The world's time by this process's clock.
    #[must_use]
    pub fn local(&self, world: Time) -> Time {
        self.base + world.since(self.origin)
    }

    /// This process's time by the world's clock.
    #[must_use]
    pub fn world(&self, local: Time) -> Time {
        self.origin + local.since(self.base)
    }

    /// Its clock jumps ahead.
    pub fn jump(&mut self, ahead: Duration) {
        self.base += ahead;
    }

    /// Gives it a command.
    pub fn command(&mut self, command: NodeCommand, now: Time) {
        let local = self.local(now);
        self.stack.handle(Input::Command(command), local);
    }

    /// The route to a peer.
    #[must_use]
    pub fn route(&self, peer: &NodePublic) -> Route {
        self.routes.get(peer).copied().unwrap_or_default()
    }

    /// Whether packets to `peer` travel directly; none if they travel nowhere.
    #[must_use]
    pub fn is_direct(&self, peer: &NodePublic) -> Option<bool> {
        self.route(peer).primary.map(|via| via.is_direct())
    }

    /// What it wants next, by the world's clock, and why.
    #[must_use]
    pub fn deadline(&self) -> Option<(Time, &'static str)> {
        let stack = self.stack.deadline().map(|(at, why)| (self.world(at), why));
        let app = self.app.deadline().map(|at| (self.world(at), "the application"));
        proto_core::time::earliest(stack, app)
    }

    /// The deadline has come.
    pub fn wake(&mut self, now: Time) {
        let local = self.local(now);
        if self.stack.deadline().is_some_and(|(at, _)| at <= local) {
            self.stack.handle(Input::Deadline, local);
        }
    }

    /// The next output, with what only this process cares for done.
    pub fn poll(&mut self, now: Time) -> Option<Output<StackEvent>> {
        let output = self.stack.poll()?;
        if let Output::Event(event) = &output {
            self.note(event, now);
        }
        Some(output)
    }

    fn note(&mut self, event: &StackEvent, now: Time) {
        let local = self.local(now);
        match event {
            StackEvent::Node(NodeEvent::PeerUp { id, key, .. }) => {
                self.peer_up_at.get_or_insert(now);
                self.app.peer_up(id, *key, local);
                self.command(NodeCommand::Engaged { peer: *key, engaged: true }, now);
            }
            StackEvent::Node(NodeEvent::PeerDown { key, .. }) => {
                self.routes.remove(key);
                self.app.peer_down(key);
                if let Some(agent) = self.insists.clone() {
                    self.command(NodeCommand::OpenTunnel(agent), now);
                }
            }
            StackEvent::Node(NodeEvent::Route { key, route }) => self.reroute(key, *route, now),
            StackEvent::Node(_) => {}
            event => self.app.event(event, &mut self.stack),
        }
    }

    fn reroute(&mut self, key: &NodePublic, route: Route, now: Time) {
        let direct = |route: Route| route.primary.is_some_and(|via: Via| via.is_direct());
        let old = self.routes.insert(*key, route).unwrap_or_default();
        if direct(route) {
            self.ever_direct = true;
            self.direct_at.get_or_insert(now);
        }
        if old.primary.is_some() && direct(old) != direct(route) {
            self.switches += 1;
        }
    }

    /// What came of its echoes, the silence up to now included.
    #[must_use]
    pub fn echoes(&self, now: Time) -> EchoStats {
        self.app.stats.ending(self.base, self.local(now))
    }

    /// Has the application do what is due.
    pub fn run_app(&mut self, now: Time) {
        let local = self.local(now);
        self.app.run(&mut self.stack, local);
    }
}

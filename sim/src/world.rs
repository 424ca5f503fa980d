//! Lane 1: a whole deployment without clocks, sockets or tasks. Nodes are the production stack, the server is
//! the production coordinator and relay; between them is a [`Topology`]. One queue ordered by (time,
//! sequence) holds all that will happen, and time jumps from one event to the next.

use crate::checks::Checks;
use crate::relay_map::{relay_map, relay_node};
use crate::step::{Role, Scenario};
use crate::topology::fabric::{Arrived, Flight};
use crate::topology::{Fate, HostId, Place, Topology, v4};
use crate::trace::Trace;
use io_adapters::stack::SendBatch;
use node::{AGENT, Node, NodePlan};
use proto_core::id::NodeId;
use proto_core::node::NodeCommand;
use proto_core::relay_map::RelayMap;
use proto_core::seed::Seed;
use proto_core::time::Time;
use proto_core::wire::classify;
use proto_core::wire::control::NodeKind;
use queue::{Entry, Event};
use server::Server;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::IpAddr;
use tcp::Tcp;

mod datagrams;
mod drive;
pub mod echo;
pub mod marks;
pub mod measure;
pub mod node;
mod queue;
pub mod server;
mod steps;
mod streams;
pub mod survive;
pub mod tcp;
mod verdict;

pub use verdict::Verdict;

/// The server's relay: its region, its name and its address.
const SERVER: (u64, &str, IpAddr) = (999, "server.sim", v4(198, 51, 100, 1));
/// The second relay's.
const RELAY: (u64, &str, IpAddr) = (2, "relay.sim", v4(198, 51, 100, 2));
/// The second address of the server's machine, where STUN is served too.
const SERVER_SECOND: IpAddr = v4(198, 51, 100, 3);
/// Where the agent's copy lives: nowhere near the others, and not where they roam to.
const TWIN_PLACE: u8 = 9;
/// Where the numbers of the copy's processes begin.
const TWIN_PROCESSES: u64 = 1 << 32;

/// The relay map that names these relays; as one region if they are a mesh.
fn map_of(relays: &[Role], mesh: bool) -> RelayMap {
    let relays = relays.iter().filter_map(|role| match role {
        Role::Server if mesh => Some((RELAY.0, SERVER.1, SERVER.2)),
        Role::Server => Some(SERVER),
        Role::Relay => Some(RELAY),
        _ => None,
    });
    relay_map(&relays.collect::<Vec<_>>())
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
    /// Where the server's second address is plugged in.
    second: HostId,
    internet: crate::topology::SegmentId,
    map: RelayMap,
    trace: Trace,
    checks: Checks,
    fates: BTreeMap<Fate, u64>,
    bites: BTreeMap<&'static str, u64>,
    /// Rare states that were reached, and how often.
    marks: BTreeMap<&'static str, u64>,
    batch: SendBatch,
    flights: Vec<Flight>,
    relayed: u64,
    places: u8,
    /// Where those who roam are going, and how many datagrams were astray when they left.
    landing: BTreeMap<Role, (crate::topology::Network, u64)>,
    /// What a link had done when it was last changed.
    weather: BTreeMap<Role, (crate::topology::PortId, [u64; 3])>,
    /// Hosts that know no way to an address.
    unrouted: BTreeSet<(HostId, IpAddr)>,
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
        let (_, name, address) = SERVER;
        net.plug(server, internet, address, scenario.links[2]);
        net.name(name, address);
        let mut roles =
            BTreeMap::from([(Role::Client, client), (Role::Agent, agent), (Role::Server, server)]);
        if scenario.has(Role::Relay) {
            let relay = net.host("relay");
            let (_, name, address) = RELAY;
            net.plug(relay, internet, address, scenario.links[2]);
            net.name(name, address);
            roles.insert(Role::Relay, relay);
        }
        let links = [scenario.links[0], scenario.links[1]];
        net.meet([client, agent], scenario.nat_layers(), scenario.meeting, (internet, links));
        if scenario.has(Role::Twin) {
            let twin = net.host("twin");
            let layers = scenario.networks[1].layers();
            net.site(twin, Place(TWIN_PLACE), &layers, (internet, scenario.links[1]));
            roles.insert(Role::Twin, twin);
        }
        let second = net.host("server's second address");
        net.plug(second, internet, SERVER_SECOND, scenario.links[2]);
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
            second,
            internet,
            map: map_of(scenario.relays, scenario.mesh),
            trace: Trace::new(text),
            checks: Checks::default(),
            fates: BTreeMap::new(),
            bites: BTreeMap::new(),
            marks: BTreeMap::new(),
            batch: SendBatch::new(),
            flights: Vec::new(),
            relayed: 0,
            places: 10,
            landing: BTreeMap::new(),
            weather: BTreeMap::new(),
            unrouted: BTreeSet::new(),
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
        let plans = [
            (Role::Client, NodeKind::Client, "user:anna", Some(NodeId(AGENT.into()))),
            (Role::Agent, NodeKind::Agent, "agent:agent", None),
            (Role::Twin, NodeKind::Agent, "agent:agent", None),
        ];
        for (role, kind, bearer, agent) in plans {
            let Some(&host) = self.roles.get(&role) else { continue };
            self.hosts[host.0].plan = Some(NodePlan {
                kind,
                bearer: bearer.into(),
                agent,
                echo: self.scenario.echo,
                transfer: self.scenario.transfer,
                opens: self.scenario.tunnel_at == Time::ZERO,
                insists: self.scenario.insists,
                server: SERVER.2,
            });
        }
        for (n, (at, _)) in self.scenario.steps.clone().into_iter().enumerate() {
            self.schedule(at, Event::Step(n));
        }
        if self.scenario.tunnel_at > Time::ZERO {
            self.schedule(self.scenario.tunnel_at, Event::Step(usize::MAX));
        }
        // Who starts first is drawn: neither order may matter.
        let on = self.roles.iter().filter(|(role, _)| **role != Role::Twin);
        let mut order: Vec<HostId> = on.map(|(_, host)| *host).collect();
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
        let mut number = host.number;
        let mut machine = id;
        if self.roles.get(&Role::Twin) == Some(&id) {
            // What the copy was made of, and not one of its processes.
            machine = self.roles[&Role::Agent];
            number += TWIN_PROCESSES;
        }
        let seed = self.seed.fork(&format!("host/{}", machine.0));
        let address = self.net.address(id).unwrap_or(v4(0, 0, 0, 0));
        self.hosts[id.0].process = if let Some(plan) = &self.hosts[id.0].plan {
            Process::Node(Box::new(Node::start(plan, (&seed, number), address, self.now)))
        } else {
            let map = (self.roles.get(&Role::Server) == Some(&id)).then(|| self.map.clone());
            let seed = seed.fork(&format!("process/{number}"));
            let mesh = if self.scenario.mesh { vec![SERVER, RELAY] } else { Vec::new() };
            let mesh = mesh.into_iter().map(|(_, name, address)| relay_node(name, address)).collect();
            Process::Server(Box::new(Server::new((map, mesh), &seed, self.now)))
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
            Event::Unreachable(host, number, (link, to)) => self.unreachable(host, number, link, to),
        }
        self.settle_streams();
        // Counting what waits on streams costs more than the rest: now and then is often enough.
        if self.sequence.is_multiple_of(256) {
            self.checks.memory(self.now, self.queue.len(), self.tcp.waiting());
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
}

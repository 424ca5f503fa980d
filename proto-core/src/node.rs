//! The node: the composition that an agent, a client and a server's own node are alike. It owns the session
//! with the coordinator, the relays, the netcheck and, for each peer, its path and its handshakes.
//!
//! Everything begins at once: the coordinator and a provisional home relay are connected while STUN is still
//! asked, so that the first bytes need not wait for what only a direct path needs. The coordinator carries no
//! data: when it is away, tunnels go on.

use crate::coord::{Session, SessionCommand, SessionConfig};
use crate::explain::Evidence;
use crate::id::{LinkId, NodeId, RegionId};
use crate::key::{DiscoSecret, NodePublic};
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::nat::portmap::{Portmap, PortmapCommand};
use crate::nat::{Netcheck, NetcheckCommand};
use crate::peer::PeerCommand;
use crate::relay::{PoolCommand, PoolConfig, RelayPool};
use crate::relay_map::RelayMap;
use crate::route::{Activity, Direction, Traffic, Via};
use crate::seed::Seed;
use crate::time::{Monotone, Time, earliest};
use crate::wire::control::{FEATURE_GUESS, FEATURE_OPENED, Forbidder, NodeInfo};
use crate::wire::disco::Envelope;
use crate::wire::{self, Kind};
use book::Book;
use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};

mod api;
mod book;
mod endpoints;
mod events;
mod peers;
mod reports;
mod router;
#[cfg(test)]
mod tests;

pub use api::*;

/// The stream names of the session.
const SESSION_STREAMS: core::ops::Range<u64> = 1..1 << 20;
/// The stream names of the relays.
const RELAY_STREAMS: core::ops::Range<u64> = 1 << 20..1 << 48;
/// "No region" on the wire and in a pool's commands.
const NO_REGION: RegionId = RegionId(0);

/// A node.
#[derive(Debug)]
pub struct Node {
    key: NodePublic,
    disco: DiscoSecret,
    boot_id: u64,
    config: NodeConfig,
    seed: Seed,
    clock: Monotone,
    stage: Stage,
    session: Option<Session>,
    pool: RelayPool,
    netcheck: Netcheck,
    portmap: Portmap,
    book: Book,
    id: Option<NodeId>,
    state: SessionState,
    /// What forbids direct paths, if anything does: we or the coordinator.
    direct_forbidden: Option<Forbidder>,
    links: BTreeMap<LinkId, SocketAddr>,
    interfaces: Vec<IpAddr>,
    map: Option<RelayMap>,
    home: RegionId,
    warm: RegionId,
    /// How our sockets were last seen from outside, where a NAT gives each one mapping.
    reflexive: BTreeMap<LinkId, Vec<SocketAddr>>,
    /// When a path was last found doubtful.
    doubted: Option<Time>,
    /// The home relay's region that the server gives to those who choose none.
    default_relay: Option<String>,
    /// Tunnels that we asked for.
    wanted: BTreeSet<NodeId>,
    /// Peers that were ready before we heard of them.
    early_ready: BTreeSet<NodeId>,
    endpoints: Vec<SocketAddr>,
    published: Option<NodeInfo>,
    /// Whether something has changed that peers may have to be told.
    unpublished: bool,
    claim_at: Option<Time>,
    reports: reports::Reports,
    /// The name of the next peer's first socket for guessing.
    next_sockets: LinkId,
    traffic: Traffic,
    out: Outbox<NodeEvent>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Fresh,
    Running,
    Stopped,
}

impl Node {
    /// A node that waits for [`NodeCommand::Start`].
    #[must_use]
    pub fn new(config: NodeConfig, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        let key = config.node_key.public();
        let session = config.control.clone().map(|target| {
            let session = SessionConfig {
                target,
                node_key: key,
                kind: config.kind,
                build: config.build.clone(),
                streams: SESSION_STREAMS,
            };
            Session::new(session, seed.fork("session"), now)
        });
        let pool = PoolConfig { identity: config.node_key.clone(), streams: RELAY_STREAMS };
        Self {
            key,
            disco: DiscoSecret::generate(&seed.fork("disco")),
            boot_id: seed.fork("boot").rng().range(1..u64::MAX),
            clock,
            stage: Stage::Fresh,
            session,
            pool: RelayPool::new(pool, seed.fork("relays"), now),
            netcheck: Netcheck::new(seed.fork("netcheck"), now),
            portmap: Portmap::new(now),
            book: Book::default(),
            id: None,
            state: SessionState::Idle,
            direct_forbidden: config.direct_forbidden,
            links: BTreeMap::new(),
            interfaces: Vec::new(),
            map: None,
            home: NO_REGION,
            warm: NO_REGION,
            reflexive: BTreeMap::new(),
            doubted: None,
            default_relay: None,
            wanted: BTreeSet::new(),
            early_ready: BTreeSet::new(),
            endpoints: Vec::new(),
            published: None,
            unpublished: true,
            claim_at: None,
            reports: reports::Reports::default(),
            next_sockets: LinkId(limits::GUESS_LINKS),
            traffic: Traffic::default(),
            out: Outbox::default(),
            seed,
            config,
        }
    }

    /// Our node key.
    #[must_use]
    pub const fn key(&self) -> NodePublic {
        self.key
    }

    /// This process, as peers see it.
    #[must_use]
    pub const fn boot_id(&self) -> u64 {
        self.boot_id
    }

    /// What is known at this moment.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        NodeStatus {
            id: self.id.clone(),
            key: self.key,
            session: self.state.clone(),
            report: self.netcheck.report().clone(),
            router: *self.portmap.router(),
            home: (self.home != NO_REGION).then_some(self.home),
            choice: self.choice(),
            relays: self.pool.up().collect(),
            endpoints: self.endpoints.clone(),
            direct: self.is_direct(),
            traffic: self.traffic,
            peers: self.book.status(&self.evidence()),
        }
    }

    /// What is known of one peer.
    #[must_use]
    pub fn peer(&self, key: &NodePublic) -> Option<PeerStatus> {
        self.book.peer_status(key, &self.evidence())
    }

    /// What was said about the home relay: our owner's word counts before the server's.
    fn choice(&self) -> Option<RelayChoice> {
        let owner = self.config.relay.as_ref().map(|said| (Chooser::Owner, said));
        let (by, said) = owner.or(self.default_relay.as_ref().map(|said| (Chooser::Server, said)))?;
        let region = self.map.as_ref().and_then(|map| map.region_called(said).ok());
        Some(RelayChoice { by, said: said.clone(), region })
    }

    fn choose(&mut self, now: Time) {
        let region = self.choice().and_then(|choice| choice.region);
        self.tell_netcheck(NetcheckCommand::Choose(region), now);
    }

    const fn is_direct(&self) -> bool {
        self.direct_forbidden.is_none()
    }

    fn evidence(&self) -> Evidence {
        Evidence::ours(self.netcheck.report(), self.portmap.router(), self.direct_forbidden)
    }

    /// The node key of the peer of this name.
    #[must_use]
    pub fn peer_key(&self, id: &NodeId) -> Option<NodePublic> {
        self.book.key_of(id)
    }

    fn command(&mut self, command: NodeCommand, now: Time) {
        match command {
            NodeCommand::Start => self.start(now),
            NodeCommand::Interfaces(mut all) => {
                all.truncate(limits::INTERFACES_MAX);
                self.interfaces.clone_from(&all);
                self.unpublished = true;
                self.tell_portmap(PortmapCommand::Interfaces(all.clone()), now);
                self.tell_netcheck(NetcheckCommand::Interfaces(all), now);
            }
            NodeCommand::OpenTunnel(id) => self.open_tunnel(id, now),
            NodeCommand::CloseTunnel(id) => {
                self.wanted.remove(&id);
                self.tell_session(SessionCommand::CloseTunnel(id.clone()), now);
                self.drop_peer(&id, "the tunnel was closed", now);
            }
            NodeCommand::Engaged { peer, engaged } => self.engage(&peer, engaged, now),
            NodeCommand::Wg { peer, notice } => self.book.notice(&peer, notice, now),
            NodeCommand::NetworkChanged => {
                self.reflexive.clear();
                self.tell_session(SessionCommand::Kick, now);
                self.tell_pool(PoolCommand::Kick, now);
                self.tell_netcheck(NetcheckCommand::NetworkChanged, now);
                self.tell_portmap(PortmapCommand::NetworkChanged, now);
                self.book.everyone(&crate::peer::PeerCommand::NetworkChanged, now);
            }
            NodeCommand::Router(word) => self.tell_portmap(PortmapCommand::Said(word), now),
            NodeCommand::Netcheck => self.tell_netcheck(NetcheckCommand::Check, now),
            NodeCommand::Stop => self.stop(now),
        }
    }

    fn start(&mut self, now: Time) {
        if self.stage != Stage::Fresh {
            return;
        }
        self.stage = Stage::Running;
        self.unpublished = true;
        self.want_mapping(now);
        if self.session.is_some() {
            self.set_state(SessionState::Connecting);
            self.tell_session(SessionCommand::Start, now);
        }
        if let Some(map) = self.config.relay_map.clone() {
            self.set_map(map, now);
        }
    }

    fn stop(&mut self, now: Time) {
        self.stage = Stage::Stopped;
        for key in self.book.keys() {
            let id = self.book.get(&key).map(|entry| entry.info.id.clone());
            if let Some(id) = id {
                self.drop_peer(&id, "this node stops", now);
            }
        }
        self.tell_session(SessionCommand::Stop, now);
        self.want_mapping(now);
        self.tell_netcheck(NetcheckCommand::Map(RelayMap::default()), now);
        self.tell_pool(PoolCommand::Home(NO_REGION), now);
        self.tell_pool(PoolCommand::Warm(NO_REGION), now);
        self.tell_pool(PoolCommand::SetMap(RelayMap::default()), now);
        self.claim_at = None;
        self.drain(now);
        self.set_state(SessionState::Stopped);
    }

    /// The extensions that peers are told we understand.
    fn features(&self) -> Vec<String> {
        let guess = self.config.guess_ports.then_some(FEATURE_GUESS);
        [Some(FEATURE_OPENED), guess].into_iter().flatten().map(str::to_owned).collect()
    }

    fn set_state(&mut self, state: SessionState) {
        if self.state != state {
            self.state = state.clone();
            self.out.event(NodeEvent::Session(state));
        }
    }

    fn set_map(&mut self, map: RelayMap, now: Time) {
        if self.map.as_ref() == Some(&map) {
            return;
        }
        self.tell_pool(PoolCommand::SetMap(map.clone()), now);
        self.map = Some(map.clone());
        self.choose(now);
        self.tell_netcheck(NetcheckCommand::Map(map.clone()), now);
        self.out.event(NodeEvent::RelayMap(map));
        self.unpublished = true;
        for region in self.book.homes() {
            self.tell_pool(PoolCommand::Want(region), now);
        }
    }

    /// Gives a datagram to whom it belongs. WireGuard's takes the hot path and never comes here.
    fn datagram(&mut self, (link, bytes): (LinkId, &[u8]), input: Input<'_, NodeCommand>, now: Time) {
        match wire::classify(bytes) {
            Kind::Stun if link.0 >= limits::GUESS_LINKS => {
                self.book.named_link(link, without_command(input), now);
            }
            Kind::Stun => self.netcheck.handle(without_command(input), now),
            Kind::Disco if self.is_direct() => {
                let sender = Envelope::new_checked(bytes).and_then(|e| self.book.by_disco(&e.sender));
                if let Some(key) = sender {
                    self.book.path(&key, without_command(input), now);
                }
            }
            Kind::Disco | Kind::WireGuard | Kind::Unknown => {}
        }
    }

    fn link_up(&mut self, link: LinkId, address: SocketAddr, now: Time) {
        if link.0 >= limits::GUESS_LINKS {
            return self.book.named_link(link, Input::LinkUp { link, address }, now);
        }
        if self.links.len() >= limits::LINKS_MAX && !self.links.contains_key(&link) {
            return;
        }
        self.links.insert(link, address);
        self.unpublished = true;
        self.netcheck.handle(Input::LinkUp { link, address }, now);
        self.portmap.handle(Input::LinkUp { link, address }, now);
        for key in self.book.keys() {
            self.book.path(&key, Input::LinkUp { link, address }, now);
        }
    }

    fn link_down(&mut self, link: LinkId, now: Time) {
        if link.0 >= limits::GUESS_LINKS {
            return self.book.named_link(link, Input::LinkDown { link }, now);
        }
        self.links.remove(&link);
        self.unpublished = true;
        self.netcheck.handle(Input::LinkDown { link }, now);
        self.portmap.handle(Input::LinkDown { link }, now);
        for key in self.book.keys() {
            self.book.path(&key, Input::LinkDown { link }, now);
        }
    }

    /// Tells the peers that are sent to at an address that there is no way there.
    fn unreachable(&mut self, to: SocketAddr, input: Input<'_, PeerCommand>, now: Time) {
        for key in self.book.sent_to_at(to) {
            self.book.path(&key, input.clone(), now);
        }
    }

    /// Gives a word about a stream to the machine that opened it.
    fn stream(&mut self, stream: crate::id::StreamId, input: Input<'_, NodeCommand>, now: Time) {
        if self.pool.owns(stream) {
            self.pool.handle(without_command(input), now);
        } else if let Some(session) = self.session.as_mut().filter(|s| s.owns(stream)) {
            session.handle(without_command(input), now);
        }
    }

    fn activity(&mut self, activity: Activity, now: Time) {
        self.traffic.count(&activity);
        self.book.activity(activity, now);
        self.path_touched(&activity.peer, now);
        if let Via::Relay(region) = activity.via {
            self.pool.handle(Input::Activity(activity), now);
            if activity.direction == Direction::Received {
                self.netcheck.handle(Input::Command(NetcheckCommand::Heard(region)), now);
                self.heard(&activity.peer, region, now);
            }
        }
    }

    fn deadline_passed(&mut self, now: Time) {
        let due = |deadline: Option<(Time, &'static str)>| deadline.is_some_and(|(at, _)| at <= now);
        if let Some(session) = self.session.as_mut().filter(|s| due(s.deadline())) {
            session.handle(Input::Deadline, now);
        }
        if due(self.pool.deadline()) {
            self.pool.handle(Input::Deadline, now);
        }
        if due(self.netcheck.deadline()) {
            self.netcheck.handle(Input::Deadline, now);
        }
        if due(self.portmap.deadline()) {
            self.portmap.handle(Input::Deadline, now);
        }
        for (key, why) in self.book.wake(now) {
            let id = self.book.get(&key).map(|entry| entry.info.id.clone());
            if let Some(id) = id {
                self.wanted.remove(&id);
                self.tell_session(SessionCommand::CloseTunnel(id.clone()), now);
                self.drop_peer(&id, why, now);
            }
        }
        if self.claim_at.is_some_and(|at| at <= now) {
            self.claim_relays(now);
        }
    }

    /// Tells the coordinator and our peers how we are reached, if that has changed.
    fn publish(&mut self, now: Time) {
        if self.stage != Stage::Running || !core::mem::take(&mut self.unpublished) {
            return;
        }
        let mapped = self.portmap.router().address().filter(|_| self.is_direct());
        let endpoints = if self.is_direct() {
            let nothing = RelayMap::default();
            let map = self.map.as_ref().unwrap_or(&nothing);
            let here = endpoints::on_this_host(self.config.control.as_ref(), map);
            let outside = endpoints::Outside { report: self.netcheck.report(), mapped };
            endpoints::endpoints(&self.links, &self.interfaces, &outside, here)
        } else {
            Vec::new()
        };
        if endpoints != self.endpoints {
            self.endpoints.clone_from(&endpoints);
            self.book.everyone(&crate::peer::PeerCommand::Endpoints(endpoints.clone()), now);
            self.out.event(NodeEvent::Endpoints(endpoints.clone()));
        }
        // Even without a home: whoever hears of us early can let us in early.
        if self.session.is_none() {
            return;
        }
        let info = NodeInfo {
            // The coordinator knows who speaks.
            id: NodeId(String::new()),
            node_key: self.key,
            disco_key: self.disco.public(),
            boot_id: self.boot_id,
            home: self.home,
            endpoints,
            mapped,
            features: self.features(),
            direct_forbidden: self.direct_forbidden,
        };
        if self.published.as_ref() != Some(&info) {
            self.published = Some(info.clone());
            self.tell_session(SessionCommand::Node(info), now);
        }
    }

    fn tell_session(&mut self, command: SessionCommand, now: Time) {
        if let Some(session) = &mut self.session {
            session.handle(Input::Command(command), now);
        }
    }

    fn tell_pool(&mut self, command: PoolCommand, now: Time) {
        self.pool.handle(Input::Command(command), now);
    }

    fn tell_netcheck(&mut self, command: NetcheckCommand, now: Time) {
        self.netcheck.handle(Input::Command(command), now);
    }
}

impl Machine for Node {
    type Command = NodeCommand;
    type Event = NodeEvent;

    fn handle(&mut self, input: Input<'_, NodeCommand>, now: Time) {
        let now = self.clock.clamp(now);
        if self.stage == Stage::Stopped {
            return;
        }
        match input {
            Input::Command(command) => self.command(command, now),
            Input::Datagram { link, bytes, .. } => self.datagram((link, bytes), input, now),
            Input::StreamOpened { stream }
            | Input::StreamBytes { stream, .. }
            | Input::StreamWritable { stream, .. }
            | Input::StreamClosed { stream, .. } => self.stream(stream, input, now),
            Input::Resolved { .. } => {
                if let Some(session) = &mut self.session {
                    session.handle(without_command(input.clone()), now);
                }
                self.pool.handle(without_command(input.clone()), now);
                self.netcheck.handle(without_command(input), now);
            }
            Input::LinkUp { link, address } => self.link_up(link, address, now),
            Input::LinkDown { link } => self.link_down(link, now),
            Input::Unreachable { to, .. } => self.unreachable(to, without_command(input), now),
            Input::Activity(activity) => self.activity(activity, now),
            Input::Deadline => self.deadline_passed(now),
        }
        self.drain(now);
    }

    fn poll(&mut self) -> Option<Output<NodeEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        if self.stage == Stage::Stopped {
            return None;
        }
        let session = self.session.as_ref().and_then(Machine::deadline);
        let relays = earliest(self.pool.deadline(), self.claim_at.map(|at| (at, "relays of peers in use")));
        let peers = earliest(self.book.deadline(), self.reports.deadline());
        let network = earliest(self.netcheck.deadline(), self.portmap.deadline());
        earliest(earliest(session, relays), earliest(network, peers))
    }
}

/// The same input for a child, which has other commands.
fn without_command<C, D>(input: Input<'_, C>) -> Input<'_, D> {
    match input {
        Input::Datagram { link, from, bytes } => Input::Datagram { link, from, bytes },
        Input::StreamOpened { stream } => Input::StreamOpened { stream },
        Input::StreamBytes { stream, bytes } => Input::StreamBytes { stream, bytes },
        Input::StreamWritable { stream, credit } => Input::StreamWritable { stream, credit },
        Input::StreamClosed { stream, why } => Input::StreamClosed { stream, why },
        Input::Resolved { name, addresses } => Input::Resolved { name, addresses },
        Input::LinkUp { link, address } => Input::LinkUp { link, address },
        Input::LinkDown { link } => Input::LinkDown { link },
        Input::Unreachable { link, to } => Input::Unreachable { link, to },
        Input::Activity(activity) => Input::Activity(activity),
        // A command is the parent's own; a spurious wake-up is harmless to every machine.
        Input::Command(_) | Input::Deadline => Input::Deadline,
    }
}

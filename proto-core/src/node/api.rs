//! What a node is told, what it tells, and what it can be asked.

pub use crate::coord::ControlTarget;
use crate::explain::Verdict;
use crate::id::{NodeId, RegionId, StreamId};
use crate::key::{NodePublic, NodeSecret};
use crate::nat::portmap::{PortmapRequest, RouterWord};
use crate::nat::{Report, Router};
use crate::peer::PathStory;
use crate::relay_map::RelayMap;
use crate::route::{Route, Traffic, Via};
use crate::time::{Duration, Time};
use crate::wire::control::{Forbidder, NodeKind, Welcome};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::collections::BTreeMap;

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its identity, which WireGuard proves.
    pub node_key: NodeSecret,
    /// What kind of node it is.
    pub kind: NodeKind,
    /// Where the coordinator is; none for a node that has only a relay map (`warren netcheck`).
    pub control: Option<ControlTarget>,
    /// Program and version, for people.
    pub build: String,
    /// What forbids direct connections here, if anything does. Then nothing but relays is used and no endpoint
    /// is told.
    pub direct_forbidden: Option<Forbidder>,
    /// Whether ports of hard NATs may be guessed: many sockets for seconds, and packets to ports that may be nobody's.
    pub guess_ports: bool,
    /// Whether the router may be asked to let peers in, by PCP, NAT-PMP or UPnP.
    pub map_ports: bool,
    /// The node keys of peers known from earlier runs: another key under the same name is refused.
    pub pins: BTreeMap<NodeId, NodePublic>,
    /// The home relay's region that this node's owner chose, by code, name or number; measured, or as the server
    /// says, if none.
    pub relay: Option<String>,
    /// A relay map known beforehand; the coordinator's replaces it.
    pub relay_map: Option<RelayMap>,
}

/// What a node's owner asks of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeCommand {
    /// Begin: connect to the coordinator and to a relay.
    Start,
    /// The addresses of this host's interfaces; replaces what was said before. Say it before `Start`.
    Interfaces(Vec<IpAddr>),
    /// Ask the coordinator for a tunnel; answered by [`NodeEvent::PeerUp`] or [`NodeEvent::Refused`].
    OpenTunnel(NodeId),
    /// Give a tunnel up.
    CloseTunnel(NodeId),
    /// Whether somebody uses the tunnel to `peer`: its path is kept warm as long as it is true.
    Engaged {
        /// The peer.
        peer: NodePublic,
        /// Whether it is used.
        engaged: bool,
    },
    /// A word of the WireGuard engine.
    Wg {
        /// The peer.
        peer: NodePublic,
        /// What happened.
        notice: WgNotice,
    },
    /// The host's network changed: check every path, relay and the coordinator anew, at once.
    NetworkChanged,
    /// A word of the adapter about the router, in answer to [`NodeEvent::Portmap`] or by itself.
    Router(RouterWord),
    /// Check the network now and report, changed or not.
    Netcheck,
    /// Leave: peers and coordinator are told. [`SessionState::Stopped`] follows.
    Stop,
}

/// What a WireGuard engine has to say about a peer. Data packets are told by `Activity`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WgNotice {
    /// A handshake is complete, whoever began it.
    Established,
    /// A packet waits for a session (`Sealed::Initiation` or `Sealed::Waiting`).
    Waiting,
}

/// What a WireGuard engine shall do about a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WgCommand {
    /// Begin a handshake and send the initiation along the peer's route.
    Initiate,
    /// Forget the sessions: the peer restarted or its session is dead.
    Reset,
}

/// What a node tells its owner.
#[derive(Clone, PartialEq, Debug)]
pub enum NodeEvent {
    /// The coordination session changed.
    Session(SessionState),
    /// A peer may be talked to: add it to the engine. Comes again, with another `boot_id`, when the peer has
    /// restarted: whatever ran inside the tunnel to its earlier process is over.
    PeerUp {
        /// Who.
        id: NodeId,
        /// Its node key.
        key: NodePublic,
        /// Its process.
        boot_id: u64,
    },
    /// A peer is gone: remove it from the engine.
    PeerDown {
        /// Who.
        id: NodeId,
        /// Its node key.
        key: NodePublic,
        /// Why, in words for a person.
        why: String,
    },
    /// A peer's key was seen for the first time: keep it, and give it in [`NodeConfig::pins`] next time.
    Pinned {
        /// Who.
        id: NodeId,
        /// Its node key.
        key: NodePublic,
    },
    /// Where a peer's packets travel from now on.
    Route {
        /// The peer.
        key: NodePublic,
        /// The new route.
        route: Route,
    },
    /// An order to the engine.
    Wg {
        /// The peer.
        key: NodePublic,
        /// What to do.
        command: WgCommand,
    },
    /// A relay can be used: SendPacket frames may be written to this stream.
    RelayUp {
        /// Its region.
        region: RegionId,
        /// Its stream.
        stream: StreamId,
    },
    /// A relay cannot be used any more.
    RelayDown {
        /// Its region.
        region: RegionId,
        /// Why, in words for a person.
        why: String,
    },
    /// A relay tells of a problem with this node, in words for a person; empty when it is over.
    RelayHealth {
        /// Which.
        region: RegionId,
        /// The words.
        problem: String,
    },
    /// Something happened to a peer's path that a person may want to know.
    Story {
        /// The peer.
        key: NodePublic,
        /// What.
        story: PathStory,
    },
    /// What is known of our own network.
    Netcheck(Report),
    /// A request to the router; answered by [`NodeCommand::Router`].
    Portmap(PortmapRequest),
    /// What is known of the router before us, when it changes.
    Router(Router),
    /// The relays in use, when they change.
    RelayMap(RelayMap),
    /// The addresses that peers are told to try, when they change.
    Endpoints(Vec<SocketAddr>),
    /// A tunnel was refused, by the coordinator or by us.
    Refused {
        /// To whom it was to lead; none if the session itself was refused.
        to: Option<NodeId>,
        /// A code that programs may rely on: the coordinator's ([`crate::coord::code`]), or
        /// [`CODE_KEY_CHANGED`], [`CODE_ADDRESS_TAKEN`].
        code: String,
        /// A sentence for a person.
        message: String,
    },
}

/// A peer came with another key than the one pinned.
pub const CODE_KEY_CHANGED: &str = "KEY_CHANGED";
/// A peer's key gives the inner address of another peer, or our own.
pub const CODE_ADDRESS_TAKEN: &str = "ADDRESS_TAKEN";

/// The state of the session with the coordinator.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SessionState {
    /// Not asked to begin.
    #[default]
    Idle,
    /// The first connection is being made.
    Connecting,
    /// The coordinator has greeted us.
    Up(Welcome),
    /// The connection broke or could not be made; it is tried again. Tunnels go on.
    Down {
        /// Why, in words for a person.
        why: String,
    },
    /// The server will stop soon and asks us to come back after this long.
    Draining {
        /// How long.
        retry_after: Duration,
    },
    /// The coordinator refuses us. It is tried again, slowly, since servers change their mind.
    Refused {
        /// A code that programs may rely on.
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// The node has left.
    Stopped,
}

impl core::fmt::Display for SessionState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Idle => f.write_str("not begun"),
            Self::Connecting => f.write_str("connecting"),
            Self::Up(_) => f.write_str("connected"),
            Self::Down { why } => write!(f, "not connected: {why}"),
            Self::Draining { .. } => f.write_str("connected, but the server is about to stop"),
            Self::Refused { code, message } => write!(f, "refused: {message} ({code})"),
            Self::Stopped => f.write_str("ended"),
        }
    }
}

/// Who chose the home relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chooser {
    /// This node's owner, by [`NodeConfig::relay`].
    Owner,
    /// The server, for all nodes whose owners choose none.
    Server,
}

/// A choice of the home relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayChoice {
    /// Who chose.
    pub by: Chooser,
    /// The region's code, name or number, as it was said.
    pub said: String,
    /// The region meant; none if the map in use has none of that name, and home is then measured.
    pub region: Option<RegionId>,
}

/// What can be asked of a node at any time: `warren status` and the dashboard show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    /// Our name at the coordinator, once it has greeted us.
    pub id: Option<NodeId>,
    /// Our node key.
    pub key: NodePublic,
    /// The session.
    pub session: SessionState,
    /// The latest netcheck.
    pub report: Report,
    /// What is known of the router before us.
    pub router: Router,
    /// Our home relay.
    pub home: Option<RegionId>,
    /// What was said about the choice of the home relay, if anything was.
    pub choice: Option<RelayChoice>,
    /// Relays that are connected.
    pub relays: Vec<RegionId>,
    /// The addresses that peers are told to try.
    pub endpoints: Vec<SocketAddr>,
    /// Whether direct paths are allowed, by us and by the coordinator.
    pub direct: bool,
    /// What was carried for all peers, those that are gone as well.
    pub traffic: Traffic,
    /// The peers, by name.
    pub peers: Vec<PeerStatus>,
}

/// One peer's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Who.
    pub id: NodeId,
    /// Its node key.
    pub key: NodePublic,
    /// Its address inside the tunnel.
    pub inner: Ipv6Addr,
    /// Its process.
    pub boot_id: u64,
    /// Its home relay.
    pub home: RegionId,
    /// The addresses it says it might be reached at.
    pub endpoints: Vec<SocketAddr>,
    /// Where its packets travel.
    pub route: Route,
    /// Since when the primary is what it is.
    pub route_since: Time,
    /// The direct path's round trip, if there is a direct path.
    pub latency: Option<Duration>,
    /// The way the latest authenticated packet came, and when.
    pub received: Option<(Via, Time)>,
    /// What was carried.
    pub traffic: Traffic,
    /// When the latest handshake was complete.
    pub handshake: Option<Time>,
    /// Whether somebody here uses the tunnel.
    pub engaged: bool,
    /// Since when the coordinator has lost it.
    pub lost: Option<Time>,
    /// Its path's story, oldest first.
    pub story: Vec<(Time, PathStory)>,
    /// Why the path is direct or not, and what would change it.
    pub verdict: Verdict,
}

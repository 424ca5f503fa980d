//! A node's session with the coordinator, client end: connect, say who we are, keep what we asked for across
//! broken connections, and never disturb a tunnel because the coordinator is away.

use crate::id::{NodeId, StreamId};
use crate::key::NodePublic;
use crate::machine::{Input, Machine, Outbox, Output, TlsCheck};
use crate::relay_map::RelayMap;
use crate::seed::Seed;
use crate::time::{Duration, Monotone, Time};
use crate::wire::control::{NodeInfo, NodeKind, Welcome};
use core::net::IpAddr;
use core::ops::Range;

/// Where the coordinator is and how we prove who we are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlTarget {
    /// Its host name or literal address.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Addresses known beforehand; resolved if empty and the host is no literal.
    pub addresses: Vec<IpAddr>,
    /// TLS and how the server proves itself; none for plain HTTP.
    pub tls: Option<TlsCheck>,
    /// The path of the HTTP request.
    pub path: String,
    /// The bearer token.
    pub bearer: Option<String>,
}

/// What a session is made of.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Where the coordinator is.
    pub target: ControlTarget,
    /// Our node key.
    pub node_key: NodePublic,
    /// What kind of node we are.
    pub kind: NodeKind,
    /// Program and version, for people.
    pub build: String,
    /// The stream names it may use, round and round; at least 16.
    pub streams: Range<u64>,
}

/// What a session's owner asks of it. All of it may be said at any time; what the coordinator must know is
/// said again after a reconnection.
#[derive(Clone, PartialEq, Debug)]
pub enum SessionCommand {
    /// Connect, and stay connected until [`SessionCommand::Stop`].
    Start,
    /// What others need to reach us; replaces what was said before.
    Node(NodeInfo),
    /// Ask for a tunnel, and ask again after each reconnection.
    OpenTunnel(NodeId),
    /// Give a tunnel up.
    CloseTunnel(NodeId),
    /// The peer named has been programmed here.
    Ready(NodeId),
    /// The network changed: check the connection, or connect at once.
    Kick,
    /// Say goodbye and close: our peers forget us.
    Stop,
}

/// What a session tells its owner.
#[derive(Clone, PartialEq, Debug)]
pub enum SessionEvent {
    /// The coordinator has greeted us.
    Up(Welcome),
    /// The connection broke or could not be made; it is tried again. Tunnels go on.
    Down {
        /// Why, in words for a person.
        why: String,
    },
    /// The relays to use; replaces the map said before.
    RelayMap(RelayMap),
    /// A peer, new or changed.
    Peer(NodeInfo),
    /// The coordinator has lost a peer, or does not mention it any more after a reconnection. Its tunnel
    /// goes on.
    PeerLost(NodeId),
    /// A peer left, or the tunnel was withdrawn: forget it.
    PeerGone {
        /// The peer.
        id: NodeId,
        /// Why, in words for a person.
        reason: String,
    },
    /// The peer has programmed us: a handshake will be answered.
    PeerReady(NodeId),
    /// A tunnel was refused (and is not asked for again), or with no `to` the session itself. After that the
    /// session tries again, slowly, since servers change their mind; [`SessionCommand::Stop`] ends that.
    Refused {
        /// The tunnel that was asked for.
        to: Option<NodeId>,
        /// A code that programs may rely on: see [`super::code`].
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// The server will stop soon; the session reconnects after about this long by itself.
    Draining {
        /// How long.
        retry_after: Duration,
    },
}

/// A node's session with the coordinator.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    clock: Monotone,
    out: Outbox<SessionEvent>,
}

impl Session {
    /// A session that waits for [`SessionCommand::Start`].
    #[must_use]
    pub fn new(config: SessionConfig, seed: Seed, now: Time) -> Self {
        let _ = seed;
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self { config, clock, out: Outbox::default() }
    }

    /// Whether this stream is one of the session's: whose inputs to give to it.
    #[must_use]
    pub fn owns(&self, stream: StreamId) -> bool {
        self.config.streams.contains(&stream.0)
    }
}

impl Machine for Session {
    type Command = SessionCommand;
    type Event = SessionEvent;

    fn handle(&mut self, input: Input<'_, SessionCommand>, now: Time) {
        let _ = (self.clock.clamp(now), input);
    }

    fn poll(&mut self) -> Option<Output<SessionEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        None
    }
}

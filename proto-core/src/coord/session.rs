//! A node's session with the coordinator, client end: connect, say who we are, keep what we asked for across
//! broken connections, and never disturb a tunnel because the coordinator is away.

use super::code;
use super::policy::version_problem;
use crate::backoff::Backoff;
use crate::id::{NodeId, StreamId};
use crate::key::NodePublic;
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output, StreamProtocol, StreamTarget, TlsCheck};
use crate::relay_map::RelayMap;
use crate::seed::Seed;
use crate::time::{Duration, Monotone, Time, earliest};
use crate::wire::control::{Hello, NodeInfo, NodeKind, PathReport, ToNode, ToServer, VERSION, Welcome};
use core::net::IpAddr;
use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

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
    /// The path to this peer, for people who ask about it. It is said now or never.
    Path(NodeId, PathReport),
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
    PeerLost {
        /// The peer.
        id: NodeId,
        /// Whether its own end closed its connection just now: see [`ToNode::PeerLost`].
        closed: bool,
    },
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
    /// The server has so many nodes that each shall choose a moment within this long to come back to it, or to its relay,
    /// should it go away.
    Spread(Duration),
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
    backoff: Backoff,
    phase: Phase,
    /// Connections opened so far: names the next stream.
    opened: u64,
    /// The last addresses that the host's name resolved to, so that a dead resolver delays nothing.
    addresses: Vec<IpAddr>,
    resume: Option<String>,
    node: Option<NodeInfo>,
    tunnels: BTreeSet<NodeId>,
    /// Peers that the coordinator has mentioned, with the session (by number) in which it did last.
    peers: BTreeMap<NodeId, u64>,
    sessions: u64,
    /// The server asked us to come back no earlier than this.
    not_before: Time,
    /// The reason last told, so that it is not told at each attempt.
    told_down: Option<String>,
    out: Outbox<SessionEvent>,
}

/// Where the connection is.
#[derive(Debug)]
enum Phase {
    /// Not wanted.
    Idle,
    /// The name is being resolved.
    Resolving { until: Time },
    /// The stream is being opened.
    Opening { stream: StreamId, until: Time },
    /// We have said hello.
    Greeting { stream: StreamId, until: Time },
    /// We have been greeted.
    Up(Up),
    /// The next attempt comes then.
    Waiting { until: Time },
}

/// A connection in use.
#[derive(Debug)]
struct Up {
    stream: StreamId,
    since: Time,
    heard: Time,
    /// When the answer to our ping is due.
    pong_due: Option<Time>,
    /// When peers not mentioned again are lost.
    settles: Option<Time>,
    /// Those peers are gone.
    strict: bool,
    /// When to leave a server that drains.
    leave: Option<Time>,
}

impl Session {
    /// A session that waits for [`SessionCommand::Start`].
    #[must_use]
    pub fn new(config: SessionConfig, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self {
            config,
            clock,
            backoff: Backoff::new(seed.fork("session backoff").rng()),
            phase: Phase::Idle,
            opened: 0,
            addresses: Vec::new(),
            resume: None,
            node: None,
            tunnels: BTreeSet::new(),
            peers: BTreeMap::new(),
            sessions: 0,
            not_before: Time::ZERO,
            told_down: None,
            out: Outbox::default(),
        }
    }

    /// Whether this stream is one of the session's: whose inputs to give to it.
    #[must_use]
    pub fn owns(&self, stream: StreamId) -> bool {
        self.config.streams.contains(&stream.0)
    }

    /// Whether the coordinator has greeted us on the present connection.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }

    /// The stream on which messages may be said: from our hello on, without waiting for the greeting.
    const fn speaking(&self) -> Option<StreamId> {
        match self.phase {
            Phase::Greeting { stream, .. } => Some(stream),
            Phase::Up(Up { stream, .. }) => Some(stream),
            _ => None,
        }
    }

    const fn stream(&self) -> Option<StreamId> {
        match self.phase {
            Phase::Opening { stream, .. } => Some(stream),
            _ => self.speaking(),
        }
    }

    fn say(&mut self, message: &ToServer) {
        if let Some(stream) = self.speaking() {
            self.out.push(Output::Write { stream, bytes: message.encode() });
        }
    }

    fn command(&mut self, command: SessionCommand, now: Time) {
        match command {
            SessionCommand::Start => {
                if matches!(self.phase, Phase::Idle) {
                    self.dial(now);
                }
            }
            SessionCommand::Node(node) => {
                if self.node.as_ref() != Some(&node) {
                    self.say(&ToServer::Node { node: node.clone() });
                    self.node = Some(node);
                }
            }
            SessionCommand::OpenTunnel(to) => self.open_tunnel(to),
            SessionCommand::CloseTunnel(to) => {
                if self.tunnels.remove(&to) {
                    self.peers.remove(&to);
                    self.say(&ToServer::CloseTunnel { to });
                }
            }
            SessionCommand::Ready(peer) => self.say(&ToServer::Ready { peer }),
            SessionCommand::Path(peer, path) => self.say(&ToServer::Path { peer, path }),
            SessionCommand::Kick => self.kick(now),
            SessionCommand::Stop => self.stop(),
        }
    }

    fn open_tunnel(&mut self, to: NodeId) {
        if self.tunnels.contains(&to) {
            return;
        }
        if self.tunnels.len() >= limits::PEERS_MAX {
            let message = format!("this node already has {} tunnels", limits::PEERS_MAX);
            let code = code::TOO_MANY.to_owned();
            self.out.event(SessionEvent::Refused { to: Some(to), code, message });
            return;
        }
        self.tunnels.insert(to.clone());
        self.say(&ToServer::OpenTunnel { to });
    }

    fn kick(&mut self, now: Time) {
        let due = now + limits::SESSION_PONG_AFTER_KICK;
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Up(up) => {
                up.pong_due = Some(up.pong_due.map_or(due, |other| other.min(due)));
                self.say(&ToServer::Ping { id: now.as_micros() });
            }
            _ => {
                self.backoff.reset();
                self.close();
                self.dial(now);
            }
        }
    }

    fn stop(&mut self) {
        self.say(&ToServer::Bye);
        self.close();
        self.phase = Phase::Idle;
        self.resume = None;
        self.peers.clear();
        self.tunnels.clear();
        self.told_down = None;
    }

    fn close(&mut self) {
        if let Some(stream) = self.stream() {
            self.out.push(Output::Close { stream });
        }
    }

    /// Begins an attempt: with the addresses known, else by asking for them.
    fn dial(&mut self, now: Time) {
        let target = &self.config.target;
        let literal = target.host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        if !target.addresses.is_empty() {
            let addresses = target.addresses.clone();
            return self.open(addresses, now);
        }
        if let Some(address) = literal {
            return self.open(vec![address], now);
        }
        self.out.push(Output::Resolve { name: target.host.clone() });
        if self.addresses.is_empty() {
            self.phase = Phase::Resolving { until: now + limits::RESOLVE_TIMEOUT };
        } else {
            self.open(self.addresses.clone(), now);
        }
    }

    fn open(&mut self, addresses: Vec<IpAddr>, now: Time) {
        let streams = &self.config.streams;
        let count = streams.end.saturating_sub(streams.start).max(1);
        let stream = StreamId(streams.start + self.opened % count);
        self.opened += 1;
        let target = &self.config.target;
        let target = StreamTarget {
            protocol: StreamProtocol::Control,
            host: target.host.clone(),
            port: target.port,
            addresses,
            tls: target.tls.clone(),
            path: target.path.clone(),
            bearer: target.bearer.clone(),
        };
        self.phase = Phase::Opening { stream, until: now + limits::SESSION_OPEN_TIMEOUT };
        self.out.push(Output::Open { stream, target });
    }

    fn resolved(&mut self, name: &str, addresses: &[IpAddr], now: Time) {
        if name != self.config.target.host {
            return;
        }
        if !addresses.is_empty() {
            self.addresses = addresses.iter().copied().take(limits::ADDRESSES_MAX).collect();
        }
        if matches!(self.phase, Phase::Resolving { .. }) {
            if self.addresses.is_empty() {
                self.failed(&format!("the name {name} could not be resolved"), now);
            } else {
                self.open(self.addresses.clone(), now);
            }
        }
    }

    /// The stream is open: everything that the coordinator must know goes out at once, in one round trip.
    fn opened(&mut self, stream: StreamId, now: Time) {
        self.phase = Phase::Greeting { stream, until: now + limits::HELLO_TIMEOUT };
        self.say(&ToServer::Hello(Hello {
            version: VERSION.to_owned(),
            kind: self.config.kind,
            node_key: self.config.node_key,
            resume: self.resume.clone(),
            build: self.config.build.clone(),
        }));
        if let Some(node) = self.node.clone() {
            self.say(&ToServer::Node { node });
        }
        let tunnels: Vec<_> = self.tunnels.iter().cloned().collect();
        for to in tunnels {
            self.say(&ToServer::OpenTunnel { to });
        }
    }

    /// We give the attempt or the connection up.
    fn failed(&mut self, why: &str, now: Time) {
        self.close();
        self.broken(why, now);
    }

    /// The attempt failed or the connection broke: tell it once, and try again later.
    fn broken(&mut self, why: &str, now: Time) {
        let was_up = matches!(self.phase, Phase::Up(_));
        if let Phase::Up(up) = &self.phase
            && now.since(up.since) >= limits::SESSION_USEFUL
        {
            self.backoff.reset();
        }
        let until = (now + self.backoff.next()).max(self.not_before);
        self.phase = Phase::Waiting { until };
        if was_up || self.told_down.as_deref() != Some(why) {
            self.told_down = Some(why.to_owned());
            self.out.event(SessionEvent::Down { why: why.to_owned() });
        }
    }

    fn message(&mut self, bytes: &[u8], now: Time) {
        let message = match ToNode::parse(bytes) {
            Ok(message) => message,
            Err(error) => return self.failed(&format!("the server sent {error}"), now),
        };
        if let Phase::Up(up) = &mut self.phase {
            up.heard = now;
            up.pong_due = None;
        }
        match message {
            ToNode::Welcome(welcome) => self.welcomed(welcome, now),
            ToNode::Refused { to: None, code, message } => self.refused(code, message, now),
            ToNode::Draining { retry_after_ms } => self.draining(retry_after_ms, now),
            _ if !self.is_up() => {}
            ToNode::RelayMap { map } => self.out.event(SessionEvent::RelayMap(map)),
            ToNode::Peer { peer } => {
                self.mention(&peer.id);
                self.out.event(SessionEvent::Peer(peer));
            }
            ToNode::PeerLost { id, closed } => {
                self.mention(&id);
                self.out.event(SessionEvent::PeerLost { id, closed });
            }
            ToNode::PeerGone { id, reason } => {
                self.peers.remove(&id);
                self.out.event(SessionEvent::PeerGone { id, reason });
            }
            ToNode::PeerReady { id } => self.out.event(SessionEvent::PeerReady(id)),
            ToNode::Refused { to: Some(to), code, message } => {
                self.tunnels.remove(&to);
                self.out.event(SessionEvent::Refused { to: Some(to), code, message });
            }
            ToNode::Spread { over_ms } => {
                let over = Duration::from_millis(over_ms).min(limits::RECONNECT_MAX);
                self.backoff.spread_over(over);
                self.out.event(SessionEvent::Spread(over));
            }
            ToNode::Pong { .. } | ToNode::Unknown => {}
        }
    }

    fn mention(&mut self, id: &NodeId) {
        if self.peers.contains_key(id) || self.peers.len() < limits::PEERS_MAX {
            self.peers.insert(id.clone(), self.sessions);
        }
    }

    fn welcomed(&mut self, welcome: Welcome, now: Time) {
        let Phase::Greeting { stream, .. } = self.phase else { return };
        if let Some(message) = version_problem(&welcome.version, VERSION) {
            return self.refused(code::VERSION.to_owned(), message, now);
        }
        self.resume = Some(welcome.resume.clone()).filter(|token| !token.is_empty());
        self.sessions += 1;
        self.told_down = None;
        self.not_before = Time::ZERO;
        self.phase = Phase::Up(Up {
            stream,
            since: now,
            heard: now,
            pong_due: None,
            settles: (!self.peers.is_empty()).then(|| now + limits::SESSION_SETTLE),
            strict: welcome.browser_only,
            leave: None,
        });
        self.out.event(SessionEvent::Up(welcome));
    }

    fn refused(&mut self, code: String, message: String, now: Time) {
        if code == code::DRAINING {
            // It sends us away for a moment only, which is no refusal.
            return self.failed(&message, now);
        }
        self.close();
        let until = now + self.backoff.spread(limits::SESSION_REFUSED_RETRY);
        self.phase = Phase::Waiting { until };
        self.out.event(SessionEvent::Refused { to: None, code, message });
    }

    fn draining(&mut self, retry_after_ms: u64, now: Time) {
        let retry_after = Duration::from_millis(retry_after_ms).min(limits::DRAIN_MAX);
        let leave = now + self.backoff.spread(retry_after);
        self.not_before = leave;
        if let Phase::Up(up) = &mut self.phase {
            up.leave = Some(leave);
            self.out.event(SessionEvent::Draining { retry_after });
        }
    }

    /// Peers that the coordinator has not mentioned since it greeted us are lost to it, or gone if it says that it
    /// mentions all who may come.
    fn settle(&mut self, strict: bool) {
        let current = self.sessions;
        let lost: Vec<_> =
            self.peers.iter().filter(|(_, session)| **session != current).map(|(id, _)| id.clone()).collect();
        for id in lost {
            self.peers.remove(&id);
            if strict {
                let reason = "the server lets people in by browser only".to_owned();
                self.out.event(SessionEvent::PeerGone { id, reason });
            } else {
                self.out.event(SessionEvent::PeerLost { id, closed: false });
            }
        }
    }

    fn due(&mut self, now: Time) {
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Waiting { until } => {
                if now >= *until {
                    self.dial(now);
                }
            }
            Phase::Resolving { until } => {
                if now >= *until {
                    let why = format!("the name {} could not be resolved in time", self.config.target.host);
                    self.failed(&why, now);
                }
            }
            Phase::Opening { until, .. } => {
                if now >= *until {
                    self.failed("the connection could not be made in time", now);
                }
            }
            Phase::Greeting { until, .. } => {
                if now >= *until {
                    self.failed("the server did not answer our greeting", now);
                }
            }
            Phase::Up(_) => self.due_up(now),
        }
    }

    fn due_up(&mut self, now: Time) {
        let Phase::Up(up) = &mut self.phase else { return };
        if up.pong_due.is_some_and(|due| now >= due) {
            return self.failed("the server does not answer any more", now);
        }
        if up.leave.is_some_and(|leave| now >= leave) {
            self.not_before = now;
            self.backoff.reset();
            return self.failed("the server is about to stop", now);
        }
        let (settled, strict) = (up.settles.is_some_and(|at| now >= at), up.strict);
        if settled {
            up.settles = None;
        }
        if up.pong_due.is_none() && now >= up.heard + limits::SESSION_PING {
            up.pong_due = Some(now + limits::SESSION_PONG);
            self.say(&ToServer::Ping { id: now.as_micros() });
        }
        if settled {
            self.settle(strict);
        }
    }
}

impl Machine for Session {
    type Command = SessionCommand;
    type Event = SessionEvent;

    fn handle(&mut self, input: Input<'_, SessionCommand>, now: Time) {
        let now = self.clock.clamp(now);
        match input {
            Input::Command(command) => self.command(command, now),
            Input::StreamOpened { stream } => {
                if matches!(self.phase, Phase::Opening { stream: ours, .. } if ours == stream) {
                    self.opened(stream, now);
                }
            }
            Input::StreamBytes { stream, bytes } if self.speaking() == Some(stream) => {
                self.message(bytes, now);
            }
            Input::StreamClosed { stream, why } if self.stream() == Some(stream) => self.broken(why, now),
            Input::Resolved { name, addresses } => self.resolved(name, addresses, now),
            _ => {}
        }
        // Late is fine: whatever else is due by now is done now.
        self.due(now);
    }

    fn poll(&mut self) -> Option<Output<SessionEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Waiting { until } => Some((*until, "session: try again")),
            Phase::Resolving { until } => Some((*until, "session: name not resolved")),
            Phase::Opening { until, .. } => Some((*until, "session: not connected")),
            Phase::Greeting { until, .. } => Some((*until, "session: not greeted")),
            Phase::Up(up) => {
                let liveness = match up.pong_due {
                    Some(due) => (due, "session: no pong"),
                    None => (up.heard + limits::SESSION_PING, "session: ping"),
                };
                let settles = up.settles.map(|at| (at, "session: peers settle"));
                let leave = up.leave.map(|at| (at, "session: leave a draining server"));
                earliest(earliest(Some(liveness), settles), leave)
            }
        }
    }
}

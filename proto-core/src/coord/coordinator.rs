//! The coordinator, server end: who is connected, who may talk to whom, and what each is told of the others.
//!
//! It lives in memory and asks its owner before it lets two nodes talk. Peers are told of a node only along
//! tunnels, and only when something changed.

mod api;
mod door;
mod paths;

pub use api::*;

use super::book::{Book, Notices};
use super::outgoing::Outgoing;
use super::policy::{Resume, tidy, version_problem};
use super::{Principal, code};
use crate::id::{NodeId, StreamId};
use crate::key::{NodePublic, hex};
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::relay_map::RelayMap;
use crate::seed::{Rng, Seed};
use crate::time::{Duration, Monotone, Time, earliest};
use crate::wire::control::{Hello, NodeInfo, NodeKind, ToNode, ToServer, VERSION, Welcome};
use door::Door;
use std::collections::{BTreeMap, BTreeSet};

/// A coordinator. Give it [`CoordinatorCommand::Admit`] for each stream, then the stream's messages, its
/// credit if the adapter bounds its writes, and its end.
#[derive(Debug)]
pub struct Coordinator {
    config: CoordinatorConfig,
    clock: Monotone,
    rng: Rng,
    resume: Resume,
    connections: BTreeMap<StreamId, Connection>,
    book: Book,
    /// When each connection is looked at next.
    timers: BTreeSet<(Time, StreamId)>,
    /// When each lost node is forgotten.
    expiries: BTreeSet<(Time, NodeId)>,
    requests: BTreeMap<u64, (NodeId, NodeId)>,
    asked: u64,
    draining: Option<Duration>,
    door: Door,
    /// Connections whose node reads too slowly, to be ended before the next return.
    slow: BTreeSet<StreamId>,
    counters: CoordinatorCounters,
    out: Outbox<CoordinatorEvent>,
}

/// One admitted stream.
#[derive(Debug)]
struct Connection {
    principal: Principal,
    credential: Option<String>,
    /// Whose it is, once it has said hello.
    id: Option<NodeId>,
    /// Whether it has said what its node is like.
    described: bool,
    /// When it last said how its path to a peer is.
    paths: BTreeMap<NodeId, Time>,
    heard: Time,
    timer: Time,
    queue: Outgoing,
    /// Over how long it was told to spread, in milliseconds.
    spread_ms: u64,
}

/// What people's own nodes are told where only browsers get in.
const BROWSER_ONLY: &str = "this server lets people in by browser only: its operator has set --browser-only";

/// How a session ends, and what its peers are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End<'a> {
    /// It is expected back. `closed`: its own end closed the connection.
    Lost { closed: bool },
    /// It said goodbye.
    Left(&'a str),
    /// It was removed.
    Expelled(&'a str),
}

impl Coordinator {
    /// A coordinator without nodes.
    #[must_use]
    pub fn new(config: CoordinatorConfig, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self {
            resume: Resume::new(config.resume_key),
            config,
            clock,
            rng: seed.fork("coordinator").rng(),
            connections: BTreeMap::new(),
            book: Book::default(),
            timers: BTreeSet::new(),
            expiries: BTreeSet::new(),
            requests: BTreeMap::new(),
            asked: 0,
            draining: None,
            door: Door::default(),
            slow: BTreeSet::new(),
            counters: CoordinatorCounters::default(),
            out: Outbox::default(),
        }
    }

    /// What it has counted.
    #[must_use]
    pub const fn counters(&self) -> &CoordinatorCounters {
        &self.counters
    }

    /// What a node has said of itself, and whether it is connected.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<(&NodeInfo, bool)> {
        let record = self.book.get(id)?;
        Some((record.info.as_ref()?, record.stream.is_some()))
    }

    /// Whether a node of this key is connected, or was so lately that it is expected back.
    #[must_use]
    pub fn knows_key(&self, key: &NodePublic) -> bool {
        self.book.knows_key(key)
    }

    /// The nodes connected, with their kinds.
    pub fn online(&self) -> impl Iterator<Item = (&NodeId, NodeKind)> + '_ {
        self.book
            .iter()
            .filter(|(_, record)| record.stream.is_some())
            .map(|(id, record)| (id, record.principal.kind()))
    }

    /// The peers of a node: those it has a tunnel with, whoever asked for it.
    pub fn peers(&self, id: &NodeId) -> impl Iterator<Item = &NodeId> + '_ {
        self.book.peers(id)
    }

    /// The nodes that a person works with.
    pub fn nodes_of(&self, user: &str) -> impl Iterator<Item = &NodeId> + '_ {
        let principal = Principal::User { user: user.to_owned() };
        self.book.owned_by(&principal).map(|(id, _)| id).collect::<Vec<_>>().into_iter()
    }

    fn command(&mut self, command: CoordinatorCommand, now: Time) {
        match command {
            CoordinatorCommand::Admit { stream, principal, credential } => {
                self.admit(stream, (principal, credential), now);
            }
            CoordinatorCommand::Authorized { request, verdict } => self.authorized(request, verdict),
            CoordinatorCommand::Broken { stream } => {
                self.drop_connection(stream, End::Lost { closed: false }, now);
            }
            CoordinatorCommand::SetRelayMap(map) => self.set_relay_map(map),
            CoordinatorCommand::Withdraw { a, b, reason } => self.withdraw(&a, &b, &reason),
            CoordinatorCommand::Expel { who, code, message } => self.expel(&who, &code, &message, now),
            CoordinatorCommand::Drain { retry_after } => self.drain(retry_after),
        }
    }

    // --- Sending ---

    fn send(&mut self, stream: StreamId, message: &ToNode) {
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        self.counters.messages_out += 1;
        if connection.queue.push(message).is_err() {
            self.slow.insert(stream);
        }
        self.flush(stream);
    }

    fn flush(&mut self, stream: StreamId) {
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        while let Some(bytes) = connection.queue.next() {
            self.out.push(Output::Write { stream, bytes });
        }
    }

    fn notify(&mut self, notices: Notices) {
        for (id, message) in notices {
            if let Some(stream) = self.book.get(&id).and_then(|record| record.stream) {
                self.send(stream, &message);
            }
        }
    }

    // --- Connections ---

    fn admit(&mut self, stream: StreamId, (principal, credential): (Principal, Option<String>), now: Time) {
        self.counters.admitted += 1;
        let timer = now + limits::HELLO_TIMEOUT;
        let fresh = Connection {
            principal,
            credential,
            id: None,
            described: false,
            paths: BTreeMap::new(),
            heard: now,
            timer,
            queue: Outgoing::default(),
            spread_ms: 0,
        };
        if let Some(older) = self.connections.insert(stream, fresh) {
            // The adapter has used a name twice; the older stream is unreachable now.
            self.timers.remove(&(older.timer, stream));
            if let Some(id) = older.id {
                self.detach(&id, stream, End::Lost { closed: false }, now);
            }
        }
        self.timers.insert((timer, stream));
        if let Some(retry_after) = self.draining {
            self.send_draining(stream, retry_after);
            self.refuse(stream, code::DRAINING, "the server is about to stop", now);
        } else if self.connections.len() > limits::COORDINATOR_CONNECTIONS_MAX {
            self.refuse(stream, code::TOO_MANY, "the server has too many connections", now);
        } else if let Err(retry_after) = self.door.enter(now) {
            self.counters.postponed += 1;
            self.send_draining(stream, retry_after);
            self.refuse(stream, code::DRAINING, "the server is letting others in first", now);
        }
    }

    /// Ends a session with a sentence. The node is expected back.
    fn refuse(&mut self, stream: StreamId, code: &str, message: &str, now: Time) {
        self.say_refused(stream, code, message);
        self.drop_connection(stream, End::Lost { closed: false }, now);
    }

    fn say_refused(&mut self, stream: StreamId, code: &str, message: &str) {
        self.counters.refused += 1;
        let refusal = ToNode::Refused { to: None, code: code.to_owned(), message: message.to_owned() };
        // It goes out at once: what waits for a slow node would never be followed by anything.
        self.out.push(Output::Write { stream, bytes: refusal.encode() });
        self.out.push(Output::Close { stream });
    }

    fn drop_connection(&mut self, stream: StreamId, end: End<'_>, now: Time) {
        let Some(connection) = self.connections.remove(&stream) else { return };
        self.timers.remove(&(connection.timer, stream));
        self.slow.remove(&stream);
        if let Some(id) = connection.id {
            self.detach(&id, stream, end, now);
        }
    }

    /// A node has lost the connection that it had.
    fn detach(&mut self, id: &NodeId, stream: StreamId, end: End<'_>, now: Time) {
        if self.book.get(id).is_none_or(|record| record.stream != Some(stream)) {
            return;
        }
        let mut notices = Notices::new();
        match end {
            End::Lost { closed } => {
                self.counters.lost += 1;
                self.book.lose(id, closed, now, &mut notices);
                self.expiries.insert((now + limits::RESUME_GRACE, id.clone()));
            }
            End::Left(reason) => self.book.leave(id, reason, false, &mut notices),
            End::Expelled(reason) => self.book.leave(id, reason, true, &mut notices),
        }
        self.out.event(CoordinatorEvent::Offline { id: id.clone(), gone: !matches!(end, End::Lost { .. }) });
        self.notify(notices);
    }

    // --- What nodes say ---

    fn message(&mut self, stream: StreamId, bytes: &[u8], now: Time) {
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        self.counters.messages_in += 1;
        connection.heard = now;
        let id = connection.id.clone();
        let message = match ToServer::parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                return self.refuse(stream, code::BAD_MESSAGE, &error.to_string(), now);
            }
        };
        match (message, id) {
            (ToServer::Hello(hello), None) => self.hello(stream, hello, now),
            (ToServer::Hello(_), Some(_)) => {
                self.refuse(stream, code::BAD_MESSAGE, "a second hello came", now);
            }
            (ToServer::Unknown, _) => {}
            (ToServer::Ping { id }, _) => {
                self.send(stream, &ToNode::Pong { id });
                self.tell_spread(stream);
            }
            (_, None) => {
                self.refuse(stream, code::BAD_MESSAGE, "the first message was no hello", now);
            }
            (ToServer::Node { node }, Some(id)) => self.node_said(stream, &id, node, now),
            (ToServer::OpenTunnel { to }, Some(id)) => self.open_tunnel(stream, &id, to, now),
            (ToServer::CloseTunnel { to }, Some(id)) => self.close_tunnel(&id, &to),
            (ToServer::Ready { peer }, Some(id)) => self.ready(id, &peer),
            (ToServer::Path { peer, path }, Some(id)) => self.path_said(stream, (id, peer), path, now),
            (ToServer::Bye, Some(_)) => {
                self.out.push(Output::Close { stream });
                self.drop_connection(stream, End::Left("the node has left"), now);
            }
        }
    }

    fn hello(&mut self, stream: StreamId, hello: Hello, now: Time) {
        if let Some(problem) = version_problem(VERSION, &hello.version) {
            return self.refuse(stream, code::VERSION, &problem, now);
        }
        let Some(connection) = self.connections.get(&stream) else { return };
        let (principal, credential) = (connection.principal.clone(), connection.credential.clone());
        let id = self.name(&principal, hello.resume.as_deref());
        if self.book.get(&id).is_none() {
            if !self.make_room_for(&principal) {
                let message = "too many of this user's nodes are connected";
                return self.refuse(stream, code::TOO_MANY, message, now);
            }
            if !self.make_room() {
                return self.refuse(stream, code::TOO_MANY, "the server knows too many nodes", now);
            }
        }
        let resumed = self.replace(&id, now);
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.id = Some(id.clone());
        }
        self.book.connect(&id, (principal.clone(), credential.clone()), hello.node_key, stream);
        self.counters.welcomed += 1;
        self.counters.resumed += u64::from(resumed);
        let welcome = Welcome {
            version: VERSION.to_owned(),
            id: id.clone(),
            resume: self.resume.seal(&id, &principal),
            direct: self.config.direct,
            build: self.config.build.clone(),
            relay: self.config.relay.clone(),
            relay_websockets: self.config.relay_websockets,
            browser_only: self.config.browser_only,
        };
        self.send(stream, &ToNode::Welcome(welcome));
        self.send(stream, &ToNode::RelayMap { map: self.config.relay_map.clone() });
        self.tell_spread(stream);
        let (node_key, build) = (hello.node_key, hello.build);
        self.out.event(CoordinatorEvent::Online { id: id.clone(), principal, node_key, build, credential });
        let mut notices = Notices::new();
        self.book.greet(&id, &mut notices);
        self.notify(notices);
    }

    /// Tells a node over how long those who are connected must spread when they come back, if that is news.
    fn tell_spread(&mut self, stream: StreamId) {
        let over_ms = door::spread_ms(self.connections.len());
        let news = |c: &mut Connection| core::mem::replace(&mut c.spread_ms, over_ms) != over_ms;
        if self.connections.get_mut(&stream).is_some_and(news) {
            self.send(stream, &ToNode::Spread { over_ms });
        }
    }

    /// Who this is: the token's name, the name of an earlier session, or a new one.
    fn name(&mut self, principal: &Principal, resume: Option<&str>) -> NodeId {
        if let Some(id) = principal.id() {
            return id.clone();
        }
        if let Some(id) = resume.and_then(|token| self.resume.open(token, principal)) {
            return id;
        }
        NodeId(format!("c-{}", hex(&self.rng.bytes::<16>())))
    }

    /// The older session under this name ends. Whether the name was known.
    fn replace(&mut self, id: &NodeId, now: Time) -> bool {
        let Some(record) = self.book.get(id) else { return false };
        if let Some(older) = record.stream {
            self.counters.replaced += 1;
            let message = "the same node has connected again: this connection is the older one";
            // Its peers hear nothing: for them the node goes on.
            if let Some(connection) = self.connections.get_mut(&older) {
                connection.id = None;
            }
            self.refuse(older, code::REPLACED, message, now);
        } else {
            self.expiries.remove(&(record.lost_at + limits::RESUME_GRACE, id.clone()));
        }
        true
    }

    /// Room for one more node of a person, if need be by forgetting the one of theirs that was lost longest ago.
    fn make_room_for(&mut self, principal: &Principal) -> bool {
        if self.book.owned_by(principal).count() < limits::COORDINATOR_NODES_PER_USER_MAX {
            return true;
        }
        let lost = self.book.owned_by(principal).filter(|(_, record)| record.stream.is_none());
        let Some((at, id)) = lost.map(|(id, record)| (record.lost_at, id.clone())).min() else {
            return false;
        };
        self.expiries.remove(&(at + limits::RESUME_GRACE, id.clone()));
        self.book.expire(&id);
        true
    }

    /// Room for one more node, if need be by forgetting the one lost longest ago.
    fn make_room(&mut self) -> bool {
        if self.book.len() < limits::COORDINATOR_NODES_MAX {
            return true;
        }
        let Some((_, id)) = self.expiries.pop_first() else { return false };
        self.book.expire(&id);
        true
    }

    fn node_said(&mut self, stream: StreamId, id: &NodeId, mut info: NodeInfo, now: Time) {
        if self.book.get(id).is_some_and(|record| record.node_key != info.node_key) {
            let message = "a node may not change its key within a session";
            return self.refuse(stream, code::BAD_MESSAGE, message, now);
        }
        tidy(&mut info, id, self.config.direct);
        let described =
            self.connections.get_mut(&stream).is_some_and(|c| core::mem::replace(&mut c.described, true));
        if self.book.update(id, info.clone()) {
            self.out.event(CoordinatorEvent::Changed { node: info });
        } else {
            self.counters.unchanged += 1;
            // The owner heard that it is online, and knows no more of it than of a new one.
            if !described {
                self.out.event(CoordinatorEvent::Changed { node: info });
            }
        }
        // Unchanged, it may still be news to those who had lost it.
        let mut notices = Notices::new();
        self.book.announce(id, &mut notices);
        self.notify(notices);
    }

    fn ready(&mut self, id: NodeId, peer: &NodeId) {
        // Without a tunnel it is an honest race: the peer has just left.
        if self.book.are_peers(&id, peer) {
            self.notify(vec![(peer.clone(), ToNode::PeerReady { id })]);
        }
    }

    // --- Tunnels ---

    fn open_tunnel(&mut self, stream: StreamId, id: &NodeId, to: NodeId, now: Time) {
        if to.0.len() > limits::NODE_ID_MAX || to.0.is_empty() {
            let message = "a node's name is empty or too long";
            return self.refuse(stream, code::BAD_MESSAGE, message, now);
        }
        let Some(record) = self.book.get(id) else { return };
        if record.pending.contains(&to) || self.book.has_asked(id, &to) {
            return;
        }
        let full = record.pending.len() >= limits::AUTHORIZATIONS_MAX
            || self.requests.len() >= limits::COORDINATOR_REQUESTS_MAX
            || self.book.is_full(id, &to);
        let principal = record.principal.clone();
        if let Some(why) = principal.forbids(id, &to) {
            return self.refuse_tunnel(stream, to, code::FORBIDDEN, why);
        }
        if self.config.browser_only && matches!(principal, Principal::User { .. }) {
            return self.refuse_tunnel(stream, to, code::BROWSER_ONLY, BROWSER_ONLY);
        }
        if full {
            return self.refuse_tunnel(stream, to, code::TOO_MANY, "too many tunnels");
        }
        self.asked += 1;
        let request = self.asked;
        self.requests.insert(request, (id.clone(), to.clone()));
        if let Some(record) = self.book.get_mut(id) {
            record.pending.insert(to.clone());
        }
        self.out.event(CoordinatorEvent::Authorize { request, principal, from: id.clone(), to });
    }

    fn refuse_tunnel(&mut self, stream: StreamId, to: NodeId, code: &str, message: &str) {
        let (code, message) = (code.to_owned(), message.to_owned());
        self.send(stream, &ToNode::Refused { to: Some(to), code, message });
    }

    fn authorized(&mut self, request: u64, verdict: Verdict) {
        let Some((from, to)) = self.requests.remove(&request) else { return };
        // Given up, withdrawn or gone meanwhile: then nobody waits for this.
        let Some(record) = self.book.get_mut(&from).filter(|record| record.pending.contains(&to)) else {
            return;
        };
        record.pending.remove(&to);
        let mut notices = Notices::new();
        match verdict {
            Verdict::Allowed if self.book.is_full(&from, &to) => {
                let (code, message) = (code::TOO_MANY.to_owned(), "too many tunnels".to_owned());
                notices.push((from, ToNode::Refused { to: Some(to), code, message }));
            }
            Verdict::Allowed => self.book.link(&from, &to, &mut notices),
            Verdict::Refused { code, message } => {
                notices.push((from, ToNode::Refused { to: Some(to), code, message }));
            }
        }
        self.notify(notices);
    }

    fn close_tunnel(&mut self, id: &NodeId, to: &NodeId) {
        if let Some(record) = self.book.get_mut(id) {
            record.pending.remove(to);
        }
        let mut notices = Notices::new();
        self.book.unlink(id, to, "the tunnel was closed", &mut notices);
        self.notify(notices);
    }

    fn withdraw(&mut self, a: &NodeId, b: &NodeId, reason: &str) {
        let mut notices = Notices::new();
        for (from, to) in [(a, b), (b, a)] {
            let asking = self.book.get_mut(from).is_some_and(|record| record.pending.remove(to));
            if asking {
                let (code, message) = (code::FORBIDDEN.to_owned(), reason.to_owned());
                notices.push((from.clone(), ToNode::Refused { to: Some(to.clone()), code, message }));
            }
            self.book.unlink(from, to, reason, &mut notices);
        }
        self.notify(notices);
    }

    fn expel(&mut self, who: &Who, code: &str, message: &str, now: Time) {
        let is_meant = |id: Option<&NodeId>, principal: &Principal, credential: &Option<String>| match who {
            Who::Node(node) => id.or(principal.id()) == Some(node),
            Who::User(user) => matches!(principal, Principal::User { user: other } if other == user),
            Who::Credential(meant) => credential.as_ref() == Some(meant),
        };
        let connections =
            self.connections.iter().filter(|(_, c)| is_meant(c.id.as_ref(), &c.principal, &c.credential));
        for stream in connections.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.say_refused(stream, code, message);
            self.drop_connection(stream, End::Expelled(message), now);
        }
        let lost = self
            .book
            .iter()
            .filter(|(id, record)| is_meant(Some(*id), &record.principal, &record.credential));
        let mut gone: Vec<_> = lost.map(|(id, record)| (id.clone(), record.lost_at)).collect();
        if let Who::Node(id) = who {
            // Others may have tunnels to a node that has never been here.
            gone.push((id.clone(), now));
        }
        let mut notices = Notices::new();
        for (id, lost_at) in gone {
            self.expiries.remove(&(lost_at + limits::RESUME_GRACE, id.clone()));
            self.book.leave(&id, message, true, &mut notices);
        }
        self.notify(notices);
    }

    // --- All nodes ---

    fn set_relay_map(&mut self, map: RelayMap) {
        if map == self.config.relay_map {
            return;
        }
        self.config.relay_map = map.clone();
        let message = ToNode::RelayMap { map };
        for stream in self.greeted() {
            self.send(stream, &message);
        }
    }

    fn greeted(&self) -> Vec<StreamId> {
        self.connections.iter().filter(|(_, c)| c.id.is_some()).map(|(stream, _)| *stream).collect()
    }

    fn drain(&mut self, retry_after: Duration) {
        self.draining = Some(retry_after);
        for stream in self.greeted() {
            self.send_draining(stream, retry_after);
        }
    }

    fn send_draining(&mut self, stream: StreamId, retry_after: Duration) {
        let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        self.send(stream, &ToNode::Draining { retry_after_ms });
    }

    fn due(&mut self, now: Time) {
        while let Some((at, stream)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, stream));
            let Some(connection) = self.connections.get_mut(&stream) else { continue };
            let idle = connection.heard + limits::COORDINATOR_IDLE;
            if connection.id.is_none() {
                self.refuse(stream, code::LATE, "no hello came in time", now);
            } else if idle <= now {
                self.out.push(Output::Close { stream });
                self.drop_connection(stream, End::Lost { closed: false }, now);
            } else {
                connection.timer = idle;
                self.timers.insert((idle, stream));
            }
        }
        while let Some((_, id)) = self.expiries.first().filter(|(at, _)| *at <= now).cloned() {
            self.expiries.pop_first();
            self.book.expire(&id);
        }
    }
}

impl Machine for Coordinator {
    type Command = CoordinatorCommand;
    type Event = CoordinatorEvent;

    fn handle(&mut self, input: Input<'_, CoordinatorCommand>, now: Time) {
        let now = self.clock.clamp(now);
        match input {
            Input::Command(command) => self.command(command, now),
            Input::StreamBytes { stream, bytes } => self.message(stream, bytes, now),
            Input::StreamWritable { stream, credit } => {
                if let Some(connection) = self.connections.get_mut(&stream) {
                    connection.queue.grant(credit);
                }
                self.flush(stream);
            }
            Input::StreamClosed { stream, .. } => {
                self.drop_connection(stream, End::Lost { closed: true }, now);
            }
            _ => {}
        }
        self.due(now);
        while let Some(stream) = self.slow.pop_first() {
            self.refuse(stream, code::TOO_SLOW, "the node reads its messages too slowly", now);
        }
    }

    fn poll(&mut self) -> Option<Output<CoordinatorEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        let connection = self.timers.first().map(|(at, _)| (*at, "coordinator: is the node alive"));
        let expiry = self.expiries.first().map(|(at, _)| (*at, "coordinator: forget a lost node"));
        earliest(connection, expiry)
    }
}

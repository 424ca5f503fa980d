//! Streams at stream level: ordered bytes over a route, where loss is delay, a blackhole is a stall until it
//! heals or the sender gives up, and resets, ends and refusals are explicit.

use crate::topology::route::{Heading, Obstacle, Route};
use crate::topology::{HostId, Topology};
use proto_core::id::StreamId;
use proto_core::machine::{StreamProtocol, StreamTarget};
use proto_core::time::{Duration, Time};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// How long one address is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first pause before a SYN is repeated (RFC 6298); it doubles.
const SYN_RETRY: Duration = Duration::from_secs(1);
/// The first pause before stalled bytes are tried again; it doubles.
const RETRY: Duration = Duration::from_millis(200);
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Why an end gave up of itself.
pub const TIMED_OUT: &str = "timed out";
/// When a sender gives stalled bytes up: the `TCP_USER_TIMEOUT` that production sets.
const GIVE_UP: Duration = Duration::from_secs(15);
/// Bytes under way or waiting in one direction: a socket's buffers.
const WINDOW: usize = 512 << 10;

/// A connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u64);

/// One direction of a connection.
pub type Way = (ConnId, Heading);

/// One end of a connection: a stream of a process on a host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct End {
    /// The host.
    pub host: HostId,
    /// Which of its processes, one after another.
    pub process: u64,
    /// The stream's name there.
    pub stream: StreamId,
}

/// What the world must do for the streams.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TcpEvent {
    /// Try to connect (again).
    Connect(ConnId),
    /// The handshakes are done at the server.
    Accept(ConnId),
    /// And at the client.
    Connected(ConnId),
    /// A piece arrives.
    Arrive(ConnId, Heading, Piece),
    /// Stalled pieces may be tried again.
    Retry(ConnId, Heading),
}

/// A piece of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Bytes.
    Bytes(Vec<u8>),
    /// The end, in order.
    End,
    /// A reset.
    Reset,
}

/// What a process must be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The stream is open.
    Opened(End),
    /// Bytes came.
    Bytes(End, Vec<u8>),
    /// So much may be written.
    Credit(End, usize),
    /// It is over.
    Closed(End, &'static str),
}

#[derive(Debug)]
struct Conn {
    client: End,
    server: Option<End>,
    target: StreamTarget,
    attempt: usize,
    since: Time,
    retry: Duration,
    local: u16,
    route: Option<Route>,
    opened: bool,
    /// Towards the server, towards the client.
    flows: [Flow; 2],
}

#[derive(Debug, Default)]
struct Flow {
    waiting: VecDeque<Piece>,
    bytes: usize,
    last_arrival: Time,
    /// What the writer still may write, as far as it knows.
    credit: usize,
    stalled: Option<(Time, Duration)>,
    ended: bool,
}

/// What has happened to streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpCounters {
    /// Connections opened.
    pub opened: u64,
    /// Attempts that came to nothing.
    pub failed: u64,
    /// Pieces that stalled.
    pub stalls: u64,
    /// Connections reset.
    pub resets: u64,
    /// Bytes carried.
    pub bytes: u64,
}

/// All connections of a world.
#[derive(Debug, Default)]
pub struct Tcp {
    conns: BTreeMap<ConnId, Conn>,
    by_end: BTreeMap<(HostId, u64, StreamId), ConnId>,
    next: u64,
    /// What to put into the queue.
    pub events: Vec<(Time, TcpEvent)>,
    /// What to tell.
    pub notices: VecDeque<Notice>,
    /// What has happened.
    pub counters: TcpCounters,
}

const fn index(heading: Heading) -> usize {
    match heading {
        Heading::ToServer => 0,
        Heading::ToClient => 1,
    }
}

impl Tcp {
    /// A process asks for a stream.
    pub fn open(&mut self, now: Time, client: End, target: StreamTarget) {
        let id = ConnId(self.next);
        self.next += 1;
        let local = 32_768 + u16::try_from(self.next % 28_000).unwrap_or(0);
        self.by_end.insert((client.host, client.process, client.stream), id);
        let conn = Conn {
            client,
            server: None,
            target,
            attempt: 0,
            since: now,
            retry: SYN_RETRY,
            local,
            route: None,
            opened: false,
            flows: Default::default(),
        };
        self.conns.insert(id, conn);
        self.events.push((now, TcpEvent::Connect(id)));
    }

    /// What a connection is for.
    #[must_use]
    pub fn target(&self, id: ConnId) -> Option<&StreamTarget> {
        self.conns.get(&id).map(|c| &c.target)
    }

    /// Where a connection leads.
    #[must_use]
    pub fn server_of(&self, id: ConnId) -> Option<HostId> {
        self.conns.get(&id)?.route.as_ref().map(|r| r.server)
    }

    /// Connections alive.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Bytes that wait on senders' sides.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.conns.values().flat_map(|c| &c.flows).map(|f| f.bytes).sum()
    }

    /// Tries to connect. `listens` says whether a host has a server for this port.
    pub fn connect(
        &mut self,
        now: Time,
        id: ConnId,
        net: &mut Topology,
        listens: impl Fn(HostId, &StreamTarget) -> Listening,
    ) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(address) = conn.target.addresses.get(conn.attempt).copied() else {
            return self.fail(id, "no address of it could be reached");
        };
        let dst = SocketAddr::new(address, conn.target.port);
        match attempt(now, conn, net, dst) {
            Ok((route, there, back)) => match listens(route.server, &conn.target) {
                Listening::Yes => {
                    // TCP's own round trip, then the upgrade's, and TLS's if there is one.
                    let rounds = 1 + u32::from(conn.target.tls.is_some());
                    let accepted = now + (there + back) * rounds + there;
                    conn.route = Some(route);
                    // Nothing overtakes the answer to the upgrade.
                    conn.flows[index(Heading::ToClient)].last_arrival = accepted + back;
                    self.events.push((accepted, TcpEvent::Accept(id)));
                    self.events.push((accepted + back, TcpEvent::Connected(id)));
                }
                Listening::Off => self.again(now, id),
                Listening::No => self.next_address(now + there + back, id),
            },
            Err(Obstacle::Stalled) => self.again(now, id),
            Err(Obstacle::Reset) => self.next_address(now, id),
        }
    }

    /// The server takes a connection under a name of its own.
    pub fn accept(&mut self, id: ConnId, server: End) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.server = Some(server);
            self.by_end.insert((server.host, server.process, server.stream), id);
            conn.flows[1].credit = WINDOW;
            self.notices.push_back(Notice::Credit(server, WINDOW));
        }
    }

    /// The client's side of the handshakes is done.
    pub fn connected(&mut self, now: Time, id: ConnId, net: &mut Topology) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(route) = &conn.route else { return };
        if conn.server.is_none() || net.carry(now, route, Heading::ToClient, 40).is_err() {
            // The answer never came: the client tries on, the server's end hangs until it is used.
            return self.again(now, id);
        }
        conn.flows[0].credit = WINDOW;
        conn.opened = true;
        self.counters.opened += 1;
        self.notices.push_back(Notice::Opened(conn.client));
        self.notices.push_back(Notice::Credit(conn.client, WINDOW));
    }

    /// A process writes.
    pub fn write(&mut self, now: Time, end: End, bytes: Vec<u8>, net: &mut Topology) {
        self.push(now, end, Piece::Bytes(bytes), net);
    }

    /// A process closes its stream: it is told at once, the other side when the end arrives.
    pub fn close(&mut self, now: Time, end: End, net: &mut Topology) {
        self.push(now, end, Piece::End, net);
        if self.by_end.remove(&(end.host, end.process, end.stream)).is_some() {
            self.notices.push_back(Notice::Closed(end, "closed by us"));
        }
    }

    /// A process is gone, and its connections with it: how many there were. Its kernel says so to the other
    /// sides, unless it died with its host.
    pub fn abandon(
        &mut self,
        now: Time,
        (host, process): (HostId, u64),
        silent: bool,
        net: &mut Topology,
    ) -> u64 {
        let ends: Vec<(StreamId, ConnId)> = self
            .by_end
            .range((host, process, StreamId(0))..=(host, process, StreamId(u64::MAX)))
            .map(|((_, _, stream), id)| (*stream, *id))
            .collect();
        let count = ends.len() as u64;
        for (stream, id) in ends {
            if !silent {
                self.push(now, End { host, process, stream }, Piece::End, net);
            }
            self.by_end.remove(&(host, process, stream));
            let orphan = self.conns.get(&id).is_none_or(|c| c.route.is_none());
            if orphan {
                self.conns.remove(&id);
            }
        }
        count
    }

    /// Stalled pieces are tried again.
    pub fn retry(&mut self, now: Time, (id, heading): Way, net: &mut Topology) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.flows[index(heading)].stalled.is_some()
        {
            self.pump(now, (id, heading), net, true);
        }
    }

    /// A piece arrives.
    pub fn arrive(&mut self, now: Time, (id, heading): Way, piece: Piece, net: &mut Topology) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if heading == Heading::ToClient && !conn.opened {
            return;
        }
        let (from, to) = conn.ends(heading);
        let alive = to.filter(|to| self.by_end.contains_key(&(to.host, to.process, to.stream)));
        match (piece, alive) {
            (Piece::Bytes(bytes), Some(to)) => {
                let flow = &mut conn.flows[index(heading)];
                flow.bytes = flow.bytes.saturating_sub(bytes.len());
                self.counters.bytes += bytes.len() as u64;
                let room = WINDOW.saturating_sub(flow.bytes);
                let credit = (flow.credit < WINDOW / 2 && room > flow.credit).then_some(room);
                self.notices.push_back(Notice::Bytes(to, bytes));
                if let (Some(credit), Some(from)) = (credit, from) {
                    flow.credit = credit;
                    self.notices.push_back(Notice::Credit(from, credit));
                }
            }
            (Piece::Bytes(_), None) => {
                // The process there is gone: its kernel answers with a reset, if it can.
                let Some(route) = &conn.route else { return };
                if let Ok(delay) = net.carry(now, route, heading.back(), 40) {
                    self.events.push((now + delay, TcpEvent::Arrive(id, heading.back(), Piece::Reset)));
                }
            }
            (Piece::End, to) => {
                if let Some(to) = to {
                    self.end(to, "closed by the other side");
                }
                conn_over(self, id, net);
            }
            (Piece::Reset, to) => {
                self.counters.resets += 1;
                if let Some(to) = to {
                    self.end(to, "reset by the other side");
                }
                conn_over(self, id, net);
            }
        }
    }

    fn push(&mut self, now: Time, end: End, piece: Piece, net: &mut Topology) {
        let Some(&id) = self.by_end.get(&(end.host, end.process, end.stream)) else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let heading = if conn.client == end { Heading::ToServer } else { Heading::ToClient };
        if conn.route.is_none() {
            // Not connected yet: only giving up makes sense.
            self.conns.remove(&id);
            return;
        }
        let flow = &mut conn.flows[index(heading)];
        if flow.ended {
            return;
        }
        flow.ended = piece == Piece::End;
        if let Piece::Bytes(bytes) = &piece {
            flow.bytes += bytes.len();
            flow.credit = flow.credit.saturating_sub(bytes.len());
        }
        flow.waiting.push_back(piece);
        if flow.stalled.is_none() {
            self.pump(now, (id, heading), net, false);
        }
    }

    /// Sends what waits, until something stands in the way.
    fn pump(&mut self, now: Time, (id, heading): Way, net: &mut Topology, retry: bool) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(route) = &conn.route else { return };
        let flow = &mut conn.flows[index(heading)];
        while let Some(piece) = flow.waiting.front() {
            let len = if let Piece::Bytes(bytes) = piece { bytes.len() + 40 } else { 40 };
            match net.carry(now, route, heading, len) {
                Ok(delay) => {
                    flow.stalled = None;
                    flow.last_arrival = flow.last_arrival.max(now + delay);
                    if let Some(piece) = flow.waiting.pop_front() {
                        self.events.push((flow.last_arrival, TcpEvent::Arrive(id, heading, piece)));
                    }
                }
                Err(Obstacle::Stalled) => {
                    self.counters.stalls += 1;
                    let (since, pause) = match flow.stalled {
                        Some((since, pause)) if retry => (since, (pause * 2).min(RETRY_MAX)),
                        Some(stalled) => stalled,
                        None => (now, RETRY),
                    };
                    if now.since(since) >= GIVE_UP {
                        return self.reset((id, heading), TIMED_OUT, net);
                    }
                    flow.stalled = Some((since, pause));
                    let again = (now + pause).min(since + GIVE_UP);
                    self.events.push((again, TcpEvent::Retry(id, heading)));
                    return;
                }
                Err(Obstacle::Reset) => return self.reset((id, heading), "reset", net),
            }
        }
    }

    /// The sender's end dies; the other one does not hear of it.
    fn reset(&mut self, (id, heading): Way, why: &'static str, net: &mut Topology) {
        self.counters.resets += 1;
        let from = self.conns.get(&id).and_then(|c| c.ends(heading).0);
        if let Some(from) = from {
            self.end(from, why);
        }
        let other = self.conns.get(&id).and_then(|c| c.ends(heading).1);
        if other.is_none_or(|o| !self.by_end.contains_key(&(o.host, o.process, o.stream))) {
            conn_over(self, id, net);
        }
    }

    fn end(&mut self, end: End, why: &'static str) {
        if self.by_end.remove(&(end.host, end.process, end.stream)).is_some() {
            self.notices.push_back(Notice::Closed(end, why));
        }
    }

    fn again(&mut self, now: Time, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let at = now + conn.retry;
        conn.retry *= 2;
        conn.route = None;
        if let Some(server) = conn.server.take() {
            self.end(server, "never used");
        }
        let Some(conn) = self.conns.get(&id) else { return };
        if at.since(conn.since) >= CONNECT_TIMEOUT {
            let at = conn.since + CONNECT_TIMEOUT;
            self.next_address(at.max(now), id);
        } else {
            self.events.push((at, TcpEvent::Connect(id)));
        }
    }

    fn next_address(&mut self, at: Time, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.attempt += 1;
        conn.since = at;
        conn.retry = SYN_RETRY;
        self.counters.failed += 1;
        self.events.push((at, TcpEvent::Connect(id)));
    }

    fn fail(&mut self, id: ConnId, why: &'static str) {
        if let Some(conn) = self.conns.remove(&id) {
            self.end(conn.client, why);
        }
    }
}

/// What is at an address and port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listening {
    /// A server.
    Yes,
    /// A host without one: it refuses.
    No,
    /// A host that is off.
    Off,
}

impl Conn {
    /// Who sends and who receives.
    const fn ends(&self, heading: Heading) -> (Option<End>, Option<End>) {
        match heading {
            Heading::ToServer => (Some(self.client), self.server),
            Heading::ToClient => (self.server, Some(self.client)),
        }
    }
}

fn attempt(
    now: Time,
    conn: &Conn,
    net: &mut Topology,
    dst: SocketAddr,
) -> Result<(Route, Duration, Duration), Obstacle> {
    let route = net.connect(now, conn.client.host, conn.local, dst)?;
    let there = net.carry(now, &route, Heading::ToServer, 40)?;
    let back = net.carry(now + there, &route, Heading::ToClient, 40)?;
    Ok((route, there, back))
}

/// Both ends are gone, or one has heard of the other's: the connection goes.
fn conn_over(tcp: &mut Tcp, id: ConnId, net: &mut Topology) {
    let Some(conn) = tcp.conns.get(&id) else { return };
    let open = |end: &End| tcp.by_end.contains_key(&(end.host, end.process, end.stream));
    if open(&conn.client) || conn.server.as_ref().is_some_and(open) {
        return;
    }
    if let Some(conn) = tcp.conns.remove(&id)
        && let Some(route) = &conn.route
    {
        net.disconnect(route);
    }
}

/// Whether every write on this stream is one message that arrives whole.
#[must_use]
pub const fn is_message(target: &StreamTarget) -> bool {
    matches!(target.protocol, StreamProtocol::Control)
}

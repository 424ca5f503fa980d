//! A relay's server over any connection: plain TCP, TLS, or what an HTTP server hands over after its upgrade.
//!
//! One task owns the [`RelayServer`], which decides who is who. Each connection has one task of its own that
//! reads whole pieces of the stream and hands every packet straight to its destination's queue, without
//! asking anybody, and that writes out what its own queue holds, as much at a time as there is. A slow reader
//! fills its own queue and loses its oldest packets; it slows nobody else.

use crate::clock::Origin;
use crate::relay_stream::upgrade::Prefixed;
use crate::relay_stream::websocket::{WebSocketIo, accept_fields};
use crate::transport::AnyStream;
use bytes::Bytes;
use proto_core::id::StreamId;
use proto_core::key::NodePublic;
use proto_core::limits::{RELAY_QUEUES_MAX, RELAY_WRITE_TIMEOUT};
use proto_core::machine::{Input, Machine, Output};
use proto_core::relay::{
    AdmissionCommand, Budget, ForwardCounters, ForwardTable, RelayServer, RelayServerConfig, SendQueue,
    ServerCommand, ServerCounters, ServerEvent,
};
use proto_core::seed::Seed;
use proto_core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::{sleep_until, timeout};

#[cfg(feature = "aws-lc")]
mod agreement;
mod ended;
pub mod front;
pub mod gate;
mod guest;
pub mod http;
pub mod lobby;
mod mesh;
mod pace;
mod reader;
mod room;
mod served;
mod steps;
mod turn;
mod writer;

pub use ended::EndedCounters;
pub use mesh::{MESH_STREAMS, MeshStatus};
pub use pace::Rates;

use ended::{Ended, Endings};
use gate::{Gate, GateStatus};
use http::{DerpRequest, answer, derp_fields};
use lobby::Place;
use mesh::{Mesh, MeshMessage};
use pace::Held;
use turn::Turns;

/// What may wait for the server's task before connections are read more slowly.
const INBOX: usize = 1_024;
/// What a reader of [`RelayHandle::events`] may leave unread.
const EVENTS: usize = 1_024;

/// A running relay. Clones are the same one.
#[derive(Clone)]
pub struct RelayHandle(Arc<Inner>);

struct Inner {
    public: NodePublic,
    clock: Origin,
    table: RwLock<ForwardTable<Arc<Connection>>>,
    forwarded: Mutex<ForwardCounters>,
    /// What may wait in all queues together.
    budget: Budget,
    streams: AtomicU64,
    inbox: mpsc::Sender<Message>,
    events: broadcast::Sender<ServerEvent>,
    rates: RwLock<Rates>,
    held: Held,
    /// As [`Inner::held`], for words instead of packets.
    hushed: Held,
    endings: Endings,
    turns: Turns,
}

impl Inner {
    /// Adds what a connection has counted; all of it, as it stands then. Nobody holds a queue meanwhile.
    fn count(&self, counted: &mut ForwardCounters) -> ForwardCounters {
        let mut forwarded = lock(&self.forwarded);
        forwarded.absorb(counted);
        *forwarded
    }
}

/// A connection that asks for DERP, as far as it is known before it says anything on its own.
#[derive(Debug, Default)]
pub struct Arrival {
    /// Where it comes from.
    pub from: Option<IpAddr>,
    /// What came after the request.
    pub rest: Vec<u8>,
    /// Its place among those who have not logged in, left at the login.
    pub place: Option<Place>,
}

/// What all tasks know of one connection.
struct Connection {
    stream: StreamId,
    from: Option<IpAddr>,
    queue: Mutex<SendQueue>,
    /// Something waits in the queue, or the connection shall end.
    wake: Notify,
    /// Whose it is, once it has logged in.
    key: Mutex<Option<NodePublic>>,
    joined: Notify,
    closing: AtomicBool,
    /// At the other end is another relay of the mesh, either way round.
    mesh: AtomicBool,
    /// It waits for its turn to be read, and will look into its queue then. Changes only while the queue is locked.
    in_line: AtomicBool,
}

impl Connection {
    /// Nothing is sent any more: what was counted so far.
    fn abandon(&self) -> ForwardCounters {
        let mut queue = lock(&self.queue);
        queue.abandon();
        core::mem::take(&mut queue.counters)
    }
}

/// What comes to the server's task.
enum Message {
    Opened(Arc<Connection>),
    Received { stream: StreamId, bytes: Vec<u8> },
    Closed { stream: StreamId, why: Ended },
    Command(ServerCommand),
    Admission(AdmissionCommand),
    Status(oneshot::Sender<RelayStatus>),
    Mesh(MeshMessage),
    Stop,
}

/// The relay's server itself: a future to be spawned, and joined so that its panics are seen.
pub struct RelayTask {
    machine: RelayServer,
    inner: Arc<Inner>,
    inbox: mpsc::Receiver<Message>,
    connections: BTreeMap<StreamId, Arc<Connection>>,
    gate: Option<Gate>,
    mesh: Option<Mesh>,
}

/// What passed through a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RelayStatus {
    /// Connections logged in.
    pub connections: usize,
    /// Of these, those that call this relay their home.
    pub home: usize,
    /// Logins and what the relay itself said.
    pub server: ServerCounters,
    /// Packets.
    pub forwarded: ForwardCounters,
    /// Bytes that wait to be written.
    pub queued: usize,
    /// How often clients were not read because they were too fast, and for how long altogether.
    pub held: (u64, Duration),
    /// The same, because they said too much that was no packet.
    pub hushed: (u64, Duration),
    /// Connections that ended as no good client's do.
    pub ended: EndedCounters,
    /// Who was let in, if there is a gate.
    pub gate: Option<GateStatus>,
    /// How it stands with the other relays of the mesh, if there is one.
    pub mesh: Option<MeshStatus>,
}

/// What may wait for all clients of a relay of this machine, in bytes of packets. The buffers that they lie in are up
/// to three times as long, and the machine has more to do.
#[must_use]
pub fn queues_max() -> usize {
    let share = crate::process::memory_bytes().map_or(u64::MAX, |all| all / 8);
    usize::try_from(share).unwrap_or(usize::MAX).min(RELAY_QUEUES_MAX)
}

/// Makes a relay: the handle to use it, and the task to spawn.
#[must_use]
pub fn relay(config: RelayServerConfig, seed: Seed, clock: Origin) -> (RelayHandle, RelayTask) {
    #[cfg(feature = "aws-lc")]
    let config = RelayServerConfig {
        agreement: config.agreement.or_else(|| agreement::agreement(&config.secret)),
        ..config
    };
    let table = RwLock::new(ForwardTable::new(&seed));
    let budget = Budget::new(config.queues_max);
    let machine = RelayServer::new(config, seed, clock.time());
    let (sender, inbox) = mpsc::channel(INBOX);
    let inner = Arc::new(Inner {
        public: machine.public(),
        clock,
        table,
        forwarded: Mutex::default(),
        budget,
        streams: AtomicU64::new(0),
        inbox: sender,
        events: broadcast::Sender::new(EVENTS),
        rates: RwLock::default(),
        held: Held::default(),
        hushed: Held::default(),
        endings: Endings::default(),
        turns: Turns::new(),
    });
    let task = RelayTask {
        machine,
        inner: inner.clone(),
        inbox,
        connections: BTreeMap::new(),
        gate: None,
        mesh: None,
    };
    (RelayHandle(inner), task)
}

impl RelayHandle {
    /// The relay's public key.
    #[must_use]
    pub fn public(&self) -> NodePublic {
        self.0.public
    }

    /// Answers a request for DERP, in whichever way it asks for it, and serves the connection to its end. A request
    /// that asks for none is told what is spoken here.
    ///
    /// # Errors
    /// If the answer could not be sent.
    pub async fn serve_request(
        &self,
        mut io: AnyStream,
        request: DerpRequest,
        arrival: Arrival,
    ) -> io::Result<()> {
        let switch = |fields: &[(&str, String)]| answer("101 Switching Protocols", fields, "");
        let Arrival { from, rest, place } = arrival;
        let who = Arrival { from, rest: Vec::new(), place };
        match request {
            DerpRequest::Raw { fast_start } => {
                let answer = if fast_start { Vec::new() } else { switch(&derp_fields(&self.public())) };
                if !rest.is_empty() {
                    io = Box::new(Prefixed::new(Bytes::from(rest), io));
                }
                self.serve_after(answer, io, who).await;
            }
            DerpRequest::WebSocket { key } => {
                said(io.write_all(&switch(&accept_fields(&key)))).await?;
                let io = WebSocketIo::accepted(io, rest).await;
                self.serve_after(Vec::new(), Box::new(io), who).await;
            }
            DerpRequest::None => {
                let fields = [("Upgrade", "DERP".into()), ("Connection", "close".into())];
                let text = answer("426 Upgrade Required", &fields, "DERP is spoken here\n");
                said(io.write_all(&text)).await?;
                said(io.shutdown()).await?;
            }
        }
        Ok(())
    }

    /// Serves one connection to its end, from the first byte of DERP: the HTTP upgrade has been answered. `from` is
    /// where it comes from.
    pub async fn serve(&self, io: AnyStream, from: Option<IpAddr>) {
        self.serve_after(Vec::new(), io, Arrival { from, ..Arrival::default() }).await;
    }

    /// Gives the server an order. It is lost if the relay has stopped.
    pub async fn command(&self, command: ServerCommand) {
        let _ = self.0.inbox.send(Message::Command(command)).await;
    }

    /// What happens from now on: logins asked for (if the configuration says to ask) and made, departures.
    /// Whoever reads too slowly misses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ServerEvent> {
        self.0.events.subscribe()
    }

    /// Gives the gate an order: what the verifier says, a new list. It is lost if there is no gate.
    pub async fn admission(&self, command: AdmissionCommand) {
        let _ = self.0.inbox.send(Message::Admission(command)).await;
    }

    /// Sets how fast clients may send that connect from now on.
    pub fn set_rates(&self, rates: Rates) {
        *self.0.rates.write().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    /// What passed; none if the relay has stopped.
    pub async fn status(&self) -> Option<RelayStatus> {
        let (reply, answer) = oneshot::channel();
        self.0.inbox.send(Message::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Stops the relay: what waits is written, and all connections are closed.
    pub async fn stop(&self) {
        let _ = self.0.inbox.send(Message::Stop).await;
    }
}

/// Words to a client that has not logged in must get to it as soon as a frame must later.
async fn said(write: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(RELAY_WRITE_TIMEOUT, write).await.map_err(|_| io::ErrorKind::TimedOut)?
}

impl Connection {
    fn new(stream: StreamId, from: Option<IpAddr>, budget: &Budget) -> Self {
        Self {
            stream,
            from,
            queue: Mutex::new(SendQueue::within(budget)),
            wake: Notify::new(),
            key: Mutex::default(),
            joined: Notify::new(),
            closing: AtomicBool::new(false),
            mesh: AtomicBool::new(false),
            in_line: AtomicBool::new(false),
        }
    }

    fn is_mesh(&self) -> bool {
        self.mesh.load(Ordering::Relaxed)
    }

    fn push_control(&self, frames: &[u8]) {
        let mut queue = lock(&self.queue);
        let wake = queue.push_control(frames);
        let (wake, lost) = (self.must_wake(wake, (false, frames.len())), queue.has_lost_watch());
        drop(queue);
        if lost {
            self.close();
        } else if wake {
            self.wake.notify_one();
        }
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

impl RelayTask {
    /// The relay asks this gate who may use it. Its configuration must say to ask.
    #[must_use]
    pub fn guarded_by(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Runs until [`RelayHandle::stop`].
    pub async fn run(mut self) {
        while self.step().await {}
        if let Some(gate) = &mut self.gate {
            gate.command(AdmissionCommand::Save, self.inner.clock.time());
        }
        self.drain();
        if let Some(mesh) = &mut self.mesh {
            mesh.close(self.inner.clock.time());
        }
        for connection in self.connections.values() {
            connection.close();
        }
        // What waits for those who read is written.
        let _ = timeout(RELAY_WRITE_TIMEOUT, async {
            while !self.connections.is_empty() && self.step().await {}
        })
        .await;
    }

    /// Takes what happens next; false if it is the end.
    async fn step(&mut self) -> bool {
        self.drain();
        let deadline = self.machine.deadline().map(|(at, _)| at);
        let deadline = deadline.into_iter().chain(self.gate.as_ref().and_then(Gate::deadline));
        let deadline = deadline.chain(self.mesh.as_ref().and_then(Mesh::deadline)).min();
        let deadline = deadline.map(|at| self.inner.clock.instant(at));
        tokio::select! {
            biased;
            message = self.inbox.recv() => message.is_some_and(|message| self.take(message)),
            () = sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)), if deadline.is_some() => {
                let now = self.inner.clock.time();
                self.machine.handle(Input::Deadline, now);
                if let Some(gate) = &mut self.gate {
                    gate.due(now);
                }
                if let Some(mesh) = &mut self.mesh {
                    mesh.due(now);
                }
                true
            }
        }
    }

    fn take(&mut self, message: Message) -> bool {
        let now = self.inner.clock.time();
        match message {
            Message::Opened(connection) => {
                let stream = connection.stream;
                self.connections.insert(stream, connection);
                self.machine.handle(Input::StreamOpened { stream }, now);
            }
            Message::Received { stream, bytes } => {
                self.machine.handle(Input::StreamBytes { stream, bytes: &bytes }, now);
            }
            Message::Closed { stream, why } => {
                self.connections.remove(&stream);
                self.machine.handle(Input::StreamClosed { stream, why: "" }, now);
                tracing::debug!(%why, ?stream, "a relay connection ended");
            }
            Message::Command(command) => self.machine.handle(Input::Command(command), now),
            Message::Admission(command) => {
                if let Some(gate) = &mut self.gate {
                    gate.command(command, now);
                }
            }
            Message::Status(reply) => _ = reply.send(self.status()),
            Message::Mesh(message) => {
                if let Some(mesh) = &mut self.mesh {
                    mesh.take(message, now);
                }
            }
            Message::Stop => return false,
        }
        true
    }

    fn status(&self) -> RelayStatus {
        let (connections, home) = self.machine.connections();
        // One lock at a time: whoever ends holds them the other way round else, and both would wait for ever.
        let (mut queued, mut counted) = (0, ForwardCounters::default());
        let links = self.mesh.iter().flat_map(Mesh::links);
        for connection in self.connections.values().chain(links) {
            let mut queue = lock(&connection.queue);
            queued += queue.bytes();
            counted.absorb(&mut queue.counters);
        }
        RelayStatus {
            connections,
            home,
            server: *self.machine.counters(),
            forwarded: self.inner.count(&mut counted),
            queued,
            held: self.inner.held.status(),
            hushed: self.inner.hushed.status(),
            ended: self.inner.endings.status(),
            gate: self.gate.as_ref().map(Gate::status),
            mesh: mesh::status(self.mesh.as_ref(), &self.machine),
        }
    }

    fn drain(&mut self) {
        let now = self.inner.clock.time();
        loop {
            self.drain_server();
            let mut order = self.gate.as_mut().and_then(|gate| gate.next(now));
            if order.is_none() {
                order = self.mesh.as_mut().and_then(Mesh::next);
            }
            let Some(order) = order else { return };
            self.machine.handle(Input::Command(order), now);
        }
    }

    fn drain_server(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Write { stream, bytes } => {
                    if let Some(connection) = self.connections.get(&stream) {
                        connection.push_control(&bytes);
                    }
                }
                Output::Close { stream } => {
                    if let Some(connection) = self.connections.get(&stream) {
                        connection.close();
                    }
                }
                Output::Event(event) => self.event(event),
                // A relay's server opens nothing and sends no datagrams.
                Output::Open { .. }
                | Output::Transmit(_)
                | Output::Resolve { .. }
                | Output::Bind { .. }
                | Output::Unbind { .. } => {}
            }
        }
    }

    fn event(&mut self, event: ServerEvent) {
        match &event {
            ServerEvent::Table(change) => {
                let active = change.active.and_then(|stream| self.connections.get(&stream).cloned());
                let mut table = self.inner.table.write().unwrap_or_else(PoisonError::into_inner);
                table.apply(*change, active);
            }
            ServerEvent::Elsewhere { key, link } => {
                let link = link.and_then(|link| self.mesh.as_ref()?.link(link));
                let mut table = self.inner.table.write().unwrap_or_else(PoisonError::into_inner);
                table.apply_elsewhere(*key, link);
            }
            ServerEvent::Joined { stream, key, mesh } => {
                if let Some(connection) = self.connections.get(stream) {
                    connection.mesh.store(*mesh, Ordering::Relaxed);
                    *lock(&connection.key) = Some(*key);
                    connection.joined.notify_one();
                }
            }
            ServerEvent::Ask { .. } | ServerEvent::Left { .. } => {}
        }
        if let Some(gate) = &mut self.gate {
            let source = |stream| self.connections.get(&stream).and_then(|connection| connection.from);
            gate.heard(&event, source, self.inner.clock.time());
        }
        let _ = self.inner.events.send(event);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

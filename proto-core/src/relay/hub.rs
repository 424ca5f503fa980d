//! A whole relay in one machine: the server, the table and the queues composed without locks. The pure
//! simulation lane and the tests run it; the adapter composes the same parts with a lock each.

use super::{
    Budget, ForwardCounters, ForwardTable, Forwarded, MeshChange, MeshCommand, MeshEvent, RelayMesh,
    RelayServer, RelayServerConfig, SendQueue, Sender, ServerCommand, ServerEvent,
};
use crate::id::StreamId;
use crate::key::NodePublic;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::seed::Seed;
use crate::time::{Monotone, Time, earliest};
use crate::wire::derp::{Decoder, Frame};
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// A hub is commanded as the server is; [`ServerCommand::Spoke`] and [`ServerCommand::FirstPacket`] are its
/// own to give.
pub type HubCommand = ServerCommand;
/// A hub tells what the server tells.
pub type HubEvent = ServerEvent;

/// A whole relay. A stream's writes are held to its [`Input::StreamWritable`] credit once one was given;
/// until then they are not held.
#[derive(Debug)]
pub struct RelayHub {
    clock: Monotone,
    server: RelayServer,
    mesh: Option<RelayMesh>,
    table: ForwardTable<StreamId>,
    budget: Budget,
    connections: BTreeMap<StreamId, Connection>,
    /// Connections with something to write.
    dirty: BTreeSet<StreamId>,
    counters: ForwardCounters,
    out: Outbox<HubEvent>,
}

#[derive(Debug, Default)]
struct Connection {
    decoder: Decoder,
    /// Once it has logged in.
    sender: Option<Sender>,
    queue: SendQueue,
    credit: Option<usize>,
}

impl Connection {
    fn within(budget: &Budget) -> Self {
        Self { queue: SendQueue::within(budget), ..Self::default() }
    }
}

/// A packet and the connection that it came by.
struct Packet<'a> {
    stream: StreamId,
    from: &'a NodePublic,
    to: &'a NodePublic,
    payload: &'a [u8],
}

impl RelayHub {
    /// A relay without connections.
    #[must_use]
    pub fn new(config: RelayServerConfig, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self {
            clock,
            table: ForwardTable::new(&seed),
            budget: Budget::new(config.queues_max),
            server: RelayServer::new(config, seed, now),
            mesh: None,
            connections: BTreeMap::new(),
            dirty: BTreeSet::new(),
            counters: ForwardCounters::default(),
            out: Outbox::default(),
        }
    }

    /// Joined with other relays.
    #[must_use]
    pub fn with_mesh(mut self, mut mesh: RelayMesh, now: Time) -> Self {
        mesh.handle(Input::Command(MeshCommand::Connect), now);
        self.mesh = Some(mesh);
        self.drain_mesh(now);
        self
    }

    /// Other relays that are connected.
    #[must_use]
    pub fn mesh_up(&self) -> usize {
        self.mesh.as_ref().map_or(0, |mesh| mesh.up().count())
    }

    /// The server inside.
    #[must_use]
    pub const fn server(&self) -> &RelayServer {
        &self.server
    }

    /// What passed.
    #[must_use]
    pub const fn counters(&self) -> &ForwardCounters {
        &self.counters
    }

    /// Obeys what the server says.
    fn drain(&mut self, now: Time) {
        while let Some(output) = self.server.poll() {
            match output {
                Output::Write { stream, bytes } => {
                    if let Some(connection) = self.connections.get_mut(&stream) {
                        connection.queue.push_control(&bytes);
                        self.dirty.insert(stream);
                    }
                }
                Output::Close { stream } => {
                    self.flush(stream);
                    self.forget(stream);
                    self.out.push(Output::Close { stream });
                }
                Output::Event(event) => {
                    if let ServerEvent::Table(change) = event {
                        self.table.apply(change, change.active);
                    }
                    if let ServerEvent::Elsewhere { key, link } = event {
                        self.table.apply_elsewhere(key, link);
                    }
                    if let ServerEvent::Joined { stream, key, .. } = event
                        && let Some(connection) = self.connections.get_mut(&stream)
                    {
                        connection.sender = Some(Sender::new(key, &self.table, now));
                    }
                    self.out.event(event);
                }
                other => self.out.push(other),
            }
        }
    }

    fn mesh_input(&mut self, input: Input<'_, HubCommand>, now: Time) {
        let Some(mesh) = &mut self.mesh else { return };
        let Some(input) = without_command(input) else { return };
        mesh.handle(input, now);
        self.drain_mesh(now);
    }

    /// Obeys what the mesh says.
    fn drain_mesh(&mut self, now: Time) {
        while let Some(output) = self.mesh.as_mut().and_then(Machine::poll) {
            match output.into_event(&mut self.out) {
                Some(MeshEvent::Up { stream, .. }) => {
                    self.connections.insert(stream, Connection::within(&self.budget));
                }
                Some(MeshEvent::Change(change)) => {
                    if let MeshChange::Lost { link } = change {
                        self.forget(link);
                    }
                    self.server.handle(Input::Command(ServerCommand::Mesh(change)), now);
                    self.drain(now);
                }
                Some(MeshEvent::Down { .. } | MeshEvent::Itself { .. }) | None => {}
            }
        }
    }

    fn bytes(&mut self, stream: StreamId, bytes: &[u8], now: Time) {
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        let mut decoder = core::mem::take(&mut connection.decoder);
        let mut frames = decoder.feed(bytes);
        let broken = loop {
            match frames.next() {
                Ok(Some(Frame::SendPacket { to, bytes })) if self.server.key_of(stream).is_some() => {
                    self.forward(stream, &to, bytes, now);
                }
                Ok(Some(Frame::ForwardPacket { from, to, bytes })) if self.server.is_mesh(stream) => {
                    self.deliver(stream, (&from, &to), bytes, now);
                }
                Ok(Some(frame)) => self.server.frame(stream, &frame, now),
                Ok(None) => break false,
                Err(_) => break true,
            }
            self.drain(now);
        };
        drop(frames);
        if broken {
            self.server.too_long(stream);
        } else if let Some(connection) = self.connections.get_mut(&stream) {
            connection.decoder = decoder;
        }
    }

    fn forward(&mut self, stream: StreamId, to: &NodePublic, payload: &[u8], now: Time) {
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        let Some(sender) = &mut connection.sender else { return };
        let from = *sender.key();
        if self.table.dormant(&from, stream) {
            self.server.handle(Input::Command(ServerCommand::Spoke(stream)), now);
        }
        let verdict = sender.forward(&self.table, to, payload, now);
        self.counters.absorb(&mut sender.counters);
        let verdict = verdict.copied();
        self.obey(verdict, Packet { stream, from: &from, to, payload }, now);
    }

    /// A packet that another relay sends on.
    fn deliver(&mut self, stream: StreamId, pair: (&NodePublic, &NodePublic), payload: &[u8], now: Time) {
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        let Some(sender) = &mut connection.sender else { return };
        let verdict = sender.deliver(&self.table, pair, payload, now).copied();
        self.counters.absorb(&mut sender.counters);
        self.obey(verdict, Packet { stream, from: pair.0, to: pair.1, payload }, now);
    }

    /// Does with a packet what was decided.
    fn obey(&mut self, verdict: Forwarded<StreamId>, packet: Packet<'_>, now: Time) {
        let Packet { stream, from, to, payload } = packet;
        if let (true, Some(connection)) = (verdict.not_here, self.connections.get_mut(&stream)) {
            connection.queue.push_gone(to);
            self.dirty.insert(stream);
        }
        if verdict.first {
            let command = ServerCommand::FirstPacket { from: *from, to: *to };
            self.server.handle(Input::Command(command), now);
        }
        if let Some(target) = verdict.to
            && let Some(connection) = self.connections.get_mut(&target)
        {
            if verdict.elsewhere {
                connection.queue.push_forward(from, to, payload);
            } else {
                connection.queue.push(from, payload);
            }
            self.dirty.insert(target);
        }
    }

    /// Writes what waits for a stream, as far as its credit goes.
    fn flush(&mut self, stream: StreamId) {
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        let max = connection.credit.unwrap_or(usize::MAX);
        if max > 0 && !connection.queue.is_empty() {
            let mut bytes = Vec::new();
            connection.queue.take(max, &mut bytes);
            connection.credit = connection.credit.map(|credit| credit.saturating_sub(bytes.len()));
            self.out.push(Output::Write { stream, bytes });
        }
        self.counters.absorb(&mut connection.queue.counters);
        if connection.queue.has_lost_watch() {
            self.server.broken(stream);
        }
    }

    fn forget(&mut self, stream: StreamId) {
        if let Some(mut connection) = self.connections.remove(&stream) {
            connection.queue.abandon();
            self.counters.absorb(&mut connection.queue.counters);
        }
    }
}

/// The same input for a machine with other commands.
fn without_command<C>(input: Input<'_, HubCommand>) -> Option<Input<'_, C>> {
    Some(match input {
        Input::StreamOpened { stream } => Input::StreamOpened { stream },
        Input::StreamBytes { stream, bytes } => Input::StreamBytes { stream, bytes },
        Input::StreamClosed { stream, why } => Input::StreamClosed { stream, why },
        Input::Resolved { name, addresses } => Input::Resolved { name, addresses },
        Input::Deadline => Input::Deadline,
        _ => return None,
    })
}

impl Machine for RelayHub {
    type Command = HubCommand;
    type Event = HubEvent;

    fn handle(&mut self, input: Input<'_, HubCommand>, now: Time) {
        let now = self.clock.clamp(now);
        match input {
            Input::StreamOpened { stream }
            | Input::StreamBytes { stream, .. }
            | Input::StreamClosed { stream, .. }
                if self.mesh.as_ref().is_some_and(|mesh| mesh.owns(stream)) =>
            {
                self.mesh_input(input, now);
            }
            Input::Resolved { .. } => self.mesh_input(input, now),
            Input::StreamBytes { stream, bytes } => self.bytes(stream, bytes, now),
            Input::StreamOpened { stream } => {
                self.forget(stream);
                self.connections.insert(stream, Connection::within(&self.budget));
                self.server.handle(input, now);
            }
            Input::StreamClosed { stream, .. } => {
                self.forget(stream);
                self.server.handle(input, now);
            }
            Input::StreamWritable { stream, credit } => {
                if let Some(connection) = self.connections.get_mut(&stream) {
                    connection.credit = Some(credit);
                    self.dirty.insert(stream);
                }
            }
            other => self.server.handle(other, now),
        }
        self.mesh_input(Input::Deadline, now);
        self.server.handle(Input::Deadline, now);
        self.drain(now);
        while let Some(stream) = self.dirty.pop_first() {
            self.flush(stream);
        }
    }

    fn poll(&mut self) -> Option<Output<HubEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        earliest(self.server.deadline(), self.mesh.as_ref().and_then(Machine::deadline))
    }
}

//! A relay's server end: who is logged in, which of a key's connections is the active one, who is told when
//! a key leaves. Packets pass beside it: see [`super::ForwardTable`].
//!
//! All connections of a key stay open; the active one, which gets the key's packets, is the newest, or the one
//! that spoke last. Two clones of one machine thus never throw each other out.

use super::{MeshChange, Refused, TableChange};
use crate::id::StreamId;
use crate::key::{NodePublic, SharedBox};
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::seed::{Rng, Seed};
use crate::time::{Duration, Monotone, Time};
use crate::wire::derp::{ClientInfo, Decoder, Frame, FrameKind, GoneReason, LoginError, ServerInfo};
use std::collections::{BTreeMap, BTreeSet};

mod config;
mod mesh;
mod receivers;

pub use config::{Agreement, RelayServerConfig};

use mesh::{Elsewhere, present};
use receivers::{Receivers, Room};

/// What a relay server's owner asks of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerCommand {
    /// The answer to [`ServerEvent::Ask`].
    Verdict {
        /// The connection.
        stream: StreamId,
        /// Whether it is let in; else why not.
        verdict: Result<(), Refused>,
    },
    /// A connection that is not its key's active one has spoken ([`super::ForwardTable::dormant`]): it
    /// becomes the active one.
    Spoke(StreamId),
    /// A key has sent its first packet to another ([`super::Forwarded::first`]): that key is told when
    /// the sender leaves.
    FirstPacket {
        /// The sender's key.
        from: NodePublic,
        /// The receiver's key.
        to: NodePublic,
    },
    /// A connection's stream is no DERP, as its adapter could tell from a piece of it.
    Broken(StreamId),
    /// Somebody came to another relay of the mesh, or left it.
    Mesh(MeshChange),
    /// Close all connections of a key.
    Expel(NodePublic),
    /// The server will stop: those who understand it are asked to come back after this long.
    Drain(Duration),
}

/// What a relay server tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerEvent {
    /// May this key in? Answer by [`ServerCommand::Verdict`] before the login's deadline.
    Ask {
        /// The connection.
        stream: StreamId,
        /// Who.
        key: NodePublic,
    },
    /// A connection has logged in: from now on its SendPacket frames take the hot path. Until then they are
    /// dropped, so an adapter that asks should not read on before the verdict.
    Joined {
        /// The connection.
        stream: StreamId,
        /// Whose.
        key: NodePublic,
        /// It is another relay of the mesh: nobody was asked about it, it may send as fast as it likes, and its
        /// ForwardPacket frames take the hot path.
        mesh: bool,
    },
    /// By which link of the mesh a key is reached ([`super::ForwardTable::apply_elsewhere`]); none if by none.
    Elsewhere {
        /// The key.
        key: NodePublic,
        /// The link: the stream to its relay.
        link: Option<StreamId>,
    },
    /// What to change in the forwarding table ([`super::ForwardTable::apply`]), before anything else.
    Table(TableChange),
    /// A connection that had joined is gone.
    Left {
        /// The connection.
        stream: StreamId,
        /// Whose.
        key: NodePublic,
    },
}

/// What a relay server has counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServerCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Logins completed.
    pub joined: u64,
    /// Logins not let in by the owner.
    pub refused: u64,
    /// Connections and logins closed because there were too many.
    pub full: u64,
    /// Logins closed because their key had too many connections.
    pub crowded: u64,
    /// Connections closed because their key was expelled.
    pub expelled: u64,
    /// Connections closed because the login took too long.
    pub late: u64,
    /// Connections closed because of a frame that is not allowed there, or not what its kind should be.
    pub broken: u64,
    /// Connections closed because of a frame that is longer than its kind may be.
    pub too_long: u64,
    /// Connections closed because the login was not sealed by the key that it names, for this relay's.
    pub wrong_key: u64,
    /// Logins of a key that was already connected.
    pub duplicates: u64,
    /// PeerGone (disconnected) frames sent.
    pub peer_gone: u64,
    /// Pings answered.
    pub pings: u64,
    /// Frames of unknown kinds, skipped.
    pub unknown: u64,
    /// Logins of other relays of the mesh.
    pub mesh_joined: u64,
    /// Connections closed because another relay of the mesh said so.
    pub mesh_closed: u64,
    /// Problems told to clients ([`Frame::Health`]).
    pub health: u64,
}

/// What a client calls itself if it understands [`Frame::Restarting`] and [`Frame::Health`]. Some DERP clients fail on
/// frames that they do not expect, so they are sent to no others.
pub(super) const APP_NAME: &str = "warren";

/// A relay's server end. [`Input::StreamOpened`] begins a connection, after the HTTP upgrade.
#[derive(Debug)]
pub struct RelayServer {
    config: RelayServerConfig,
    /// Of the configuration's secret: worth keeping, since every connection is told.
    public: NodePublic,
    clock: Monotone,
    rng: Rng,
    connections: BTreeMap<StreamId, Connection>,
    keys: BTreeMap<NodePublic, Key>,
    /// The keys that are at other relays of the mesh.
    elsewhere: Elsewhere,
    room: Room,
    /// Connections that are told who comes and goes.
    watchers: BTreeSet<StreamId>,
    /// When each connection is looked at next.
    timers: BTreeSet<(Time, StreamId)>,
    /// Connections that have not logged in.
    waiting: usize,
    /// Whoever understands it is told to come back after so long, since the relay is about to stop.
    draining: Option<Duration>,
    counters: ServerCounters,
    out: Outbox<ServerEvent>,
}

/// One stream.
#[derive(Debug)]
struct Connection {
    decoder: Decoder,
    stage: Stage,
    timer: Time,
    /// From one keepalive to the next.
    keepalive: Duration,
    preferred: bool,
    /// It understands [`Frame::Restarting`] and [`Frame::Health`].
    ours: bool,
    /// It is another relay of the mesh.
    mesh: bool,
    /// It is there to measure.
    prober: bool,
    /// It was told that its key is connected more than once.
    told_ill: bool,
}

/// How far a connection has got.
#[derive(Debug)]
enum Stage {
    /// Its ClientInfo is awaited.
    Login,
    /// Its owner decides about it.
    Asked { key: NodePublic, shared: SharedBox },
    /// It is logged in.
    Joined { key: NodePublic },
}

/// A key that is connected.
#[derive(Debug, Default)]
struct Key {
    /// Its connections, in the order in which they last became active: the last one is.
    connections: Vec<StreamId>,
    /// It has come to another relay of the mesh since any of these spoke: what is for it goes there.
    away: bool,
    /// Keys that have received packets from it.
    receivers: Receivers,
}

impl RelayServer {
    /// A relay without connections.
    #[must_use]
    pub fn new(config: RelayServerConfig, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self {
            public: config.secret.public(),
            config,
            clock,
            rng: seed.fork("relay server").rng(),
            connections: BTreeMap::new(),
            keys: BTreeMap::new(),
            elsewhere: Elsewhere::default(),
            room: Room::default(),
            watchers: BTreeSet::new(),
            timers: BTreeSet::new(),
            waiting: 0,
            draining: None,
            counters: ServerCounters::default(),
            out: Outbox::default(),
        }
    }

    /// The relay's public key.
    #[must_use]
    pub const fn public(&self) -> NodePublic {
        self.public
    }

    /// What it has counted.
    #[must_use]
    pub const fn counters(&self) -> &ServerCounters {
        &self.counters
    }

    /// Clients logged in, and how many of them call this relay their home. Other relays of the mesh are no clients.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        let joined = self.connections.values().filter(|c| matches!(c.stage, Stage::Joined { .. }) && !c.mesh);
        joined.fold((0, 0), |(all, home), c| (all + 1, home + usize::from(c.preferred)))
    }

    /// Whose connection this is, once it has logged in.
    #[must_use]
    pub fn key_of(&self, stream: StreamId) -> Option<&NodePublic> {
        match &self.connections.get(&stream)?.stage {
            Stage::Joined { key } => Some(key),
            _ => None,
        }
    }

    fn write(&mut self, stream: StreamId, frame: &Frame<'_>) {
        self.out.push(Output::Write { stream, bytes: frame.to_bytes() });
    }

    fn command(&mut self, command: ServerCommand, now: Time) {
        match command {
            ServerCommand::Verdict { stream, verdict } => self.verdict(stream, verdict, now),
            ServerCommand::Spoke(stream) => self.spoke(stream),
            ServerCommand::Broken(stream) => self.broken(stream),
            ServerCommand::FirstPacket { from, to } => {
                let here = self.keys.get_mut(&from).map(|key| &mut key.receivers);
                let receivers = here.or_else(|| self.elsewhere.receivers(&from));
                if let Some(receivers) = receivers {
                    self.room.add(receivers, to);
                }
            }
            ServerCommand::Mesh(change) => self.mesh_change(change),
            ServerCommand::Expel(key) => self.counters.expelled += self.close_all(&key),
            ServerCommand::Drain(retry_after) => self.drain(retry_after),
        }
    }

    // --- Login ---

    fn opened(&mut self, stream: StreamId, now: Time) {
        self.depart(stream);
        self.counters.accepted += 1;
        if self.waiting >= limits::RELAY_WAITING_MAX {
            self.counters.full += 1;
            self.out.push(Output::Close { stream });
            return;
        }
        self.waiting += 1;
        let jitter = u64::try_from(limits::RELAY_KEEPALIVE_JITTER.as_micros()).unwrap_or(0);
        let jitter = Duration::from_micros(self.rng.range(0..jitter));
        let connection = Connection {
            decoder: Decoder::for_relay(),
            stage: Stage::Login,
            timer: now + limits::RELAY_LOGIN_DEADLINE,
            keepalive: limits::RELAY_KEEPALIVE + jitter,
            preferred: false,
            ours: false,
            mesh: false,
            prober: false,
            told_ill: false,
        };
        self.timers.insert((connection.timer, stream));
        self.connections.insert(stream, connection);
        self.write(stream, &Frame::ServerKey { key: self.public() });
    }

    fn client_info(&mut self, stream: StreamId, key: NodePublic, sealed: &[u8], now: Time) {
        let shared = self.config.shared(&key);
        let info = match ClientInfo::open(sealed, &shared) {
            Ok(info) => info,
            Err(LoginError::Sealed) => {
                self.counters.wrong_key += 1;
                return self.close(stream);
            }
            Err(_) => return self.broken(stream),
        };
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        connection.ours = info.app_name.starts_with(APP_NAME);
        connection.mesh = info.mesh_key.is_some() && info.mesh_key == self.config.mesh;
        connection.prober = info.is_prober;
        connection.stage = Stage::Asked { key, shared };
        if self.config.ask && !connection.mesh {
            self.out.event(ServerEvent::Ask { stream, key });
        } else {
            self.verdict(stream, Ok(()), now);
        }
    }

    fn verdict(&mut self, stream: StreamId, verdict: Result<(), Refused>, now: Time) {
        let full = self.connections.len() - self.waiting >= self.config.connections_max;
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        // The other relays of the mesh are few, and are what moves clients away from a full one.
        let admit = verdict.is_ok();
        let full = admit && full && !connection.mesh;
        let Stage::Asked { key, .. } = &connection.stage else { return };
        let key = *key;
        let crowd = self.keys.get(&key).map_or(0, |key| key.connections.len());
        let crowded = admit && crowd >= limits::RELAY_DUPLICATES_MAX;
        if !admit || crowded || full {
            self.counters.refused += u64::from(!admit);
            self.counters.crowded += u64::from(crowded);
            self.counters.full += u64::from(full && !crowded);
            if connection.ours {
                let problem = match verdict {
                    Err(why) => why.words(),
                    Ok(()) if crowded => "this key is connected too many times already",
                    Ok(()) => "it has no room for more clients",
                };
                self.counters.health += 1;
                self.write(stream, &Frame::Health { problem });
            }
            return self.close(stream);
        }
        self.waiting -= 1;
        let asked = core::mem::replace(&mut connection.stage, Stage::Joined { key });
        let (mesh, flags) = (connection.mesh, connection.flags());
        let keepalive = now + connection.keepalive;
        self.set_timer(stream, keepalive);
        self.counters.joined += 1;
        self.counters.mesh_joined += u64::from(mesh);
        self.counters.duplicates += u64::from(crowd > 0);
        let entry = self.keys.entry(key).or_default();
        entry.connections.push(stream);
        entry.away = false;
        self.table(key);
        self.out.event(ServerEvent::Joined { stream, key, mesh });
        self.tell_watchers(&present(key, flags));
        if let Stage::Asked { shared, .. } = asked {
            let mut bytes = Vec::new();
            ServerInfo::default().emit(&shared, &mut self.rng, &mut bytes);
            self.out.push(Output::Write { stream, bytes });
        }
        if let Some(retry_after) = self.draining {
            self.tell_restarting(stream, retry_after);
        }
    }

    // --- Membership ---

    /// Says where a key is now.
    fn table(&mut self, key: NodePublic) {
        let (mut active, mut connections) = (None, 0);
        if let Some(key) = self.keys.get(&key) {
            // One at another relay counts as well: who of them speaks is the active one.
            connections = key.connections.len() + usize::from(key.away);
            active = key.connections.last().copied().filter(|_| !key.away);
        }
        self.out.event(ServerEvent::Table(TableChange { key, active, connections }));
    }

    /// A connection has spoken: it is its key's active one from now on.
    fn spoke(&mut self, stream: StreamId) {
        let Some(key) = self.key_of(stream).copied() else { return };
        let Some(Key { connections, away, .. }) = self.keys.get_mut(&key) else { return };
        if connections.last() == Some(&stream) && !*away {
            return;
        }
        *away = false;
        connections.retain(|other| *other != stream);
        connections.push(stream);
        self.table(key);
    }

    /// We end a connection.
    fn close(&mut self, stream: StreamId) {
        self.out.push(Output::Close { stream });
        self.depart(stream);
    }

    /// A connection is over.
    fn depart(&mut self, stream: StreamId) {
        let Some(connection) = self.connections.remove(&stream) else { return };
        self.timers.remove(&(connection.timer, stream));
        self.watchers.remove(&stream);
        let key = match connection.stage {
            Stage::Joined { key } => key,
            stage => {
                self.waiting -= 1;
                // Whoever was asked about it need not answer any more.
                if let Stage::Asked { key, .. } = stage {
                    self.out.event(ServerEvent::Left { stream, key });
                }
                return;
            }
        };
        let mut receivers = None;
        if let Some(entry) = self.keys.get_mut(&key) {
            entry.connections.retain(|other| *other != stream);
            if entry.connections.is_empty() {
                receivers = Some(core::mem::take(&mut entry.receivers));
                self.keys.remove(&key);
            }
        }
        self.table(key);
        self.out.event(ServerEvent::Left { stream, key });
        let Some(receivers) = receivers else { return };
        self.tell_watchers(&Frame::PeerGone { peer: key, reason: GoneReason::Disconnected });
        match self.elsewhere.receivers(&key) {
            // It is in the region still.
            Some(heir) => self.room.inherit(heir, receivers),
            None => self.tell_all_gone(receivers, key),
        }
    }

    /// Ends all connections of a key; how many.
    fn close_all(&mut self, key: &NodePublic) -> u64 {
        let streams = self.keys.get(key).map(|key| key.connections.clone()).unwrap_or_default();
        for stream in &streams {
            self.close(*stream);
        }
        streams.len() as u64
    }

    fn tell_all_gone(&mut self, receivers: Receivers, gone: NodePublic) {
        for receiver in self.room.release(receivers) {
            self.tell_gone(&receiver, gone);
        }
    }

    fn tell_gone(&mut self, receiver: &NodePublic, gone: NodePublic) {
        let streams = self.keys.get(receiver).map(|key| key.connections.clone()).unwrap_or_default();
        for stream in streams {
            self.counters.peer_gone += 1;
            self.write(stream, &Frame::PeerGone { peer: gone, reason: GoneReason::Disconnected });
        }
    }

    // --- Frames ---

    fn bytes(&mut self, stream: StreamId, bytes: &[u8], now: Time) {
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        let mut decoder = core::mem::take(&mut connection.decoder);
        let mut frames = decoder.feed(bytes);
        let broken = loop {
            match frames.next() {
                Ok(Some(frame)) => self.frame(stream, &frame, now),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        drop(frames);
        if broken {
            return self.too_long(stream);
        }
        if let Some(connection) = self.connections.get_mut(&stream) {
            connection.decoder = decoder;
        }
    }

    /// A stream that is no DERP.
    pub(super) fn broken(&mut self, stream: StreamId) {
        if self.connections.contains_key(&stream) {
            self.counters.broken += 1;
            self.close(stream);
        }
    }

    /// A stream with a frame that is longer than its kind may be.
    pub(super) fn too_long(&mut self, stream: StreamId) {
        if self.connections.contains_key(&stream) {
            self.counters.too_long += 1;
            self.close(stream);
        }
    }

    /// One frame. Whole frames may also come as [`Input::StreamBytes`].
    pub(super) fn frame(&mut self, stream: StreamId, frame: &Frame<'_>, now: Time) {
        let Some(connection) = self.connections.get(&stream) else { return };
        match (&connection.stage, frame) {
            (Stage::Login, Frame::ClientInfo { key, sealed }) => self.client_info(stream, *key, sealed, now),
            (Stage::Login, _) => self.broken(stream),
            // Nothing is known of it yet, so nothing is done for it.
            (Stage::Asked { .. }, _) => {}
            (Stage::Joined { .. }, _) => {
                self.spoke(stream);
                if self.is_mesh(stream) {
                    self.mesh_frame(stream, frame);
                } else {
                    self.joined_frame(stream, frame);
                }
            }
        }
    }

    fn joined_frame(&mut self, stream: StreamId, frame: &Frame<'_>) {
        match frame {
            Frame::Ping(data) => {
                self.counters.pings += 1;
                self.write(stream, &Frame::Pong(*data));
            }
            Frame::NotePreferred(preferred) => {
                if let Some(connection) = self.connections.get_mut(&stream) {
                    connection.preferred = *preferred;
                }
            }
            // For relays of the mesh alone; or broken.
            Frame::ForwardPacket { .. }
            | Frame::WatchConns
            | Frame::ClosePeer { .. }
            | Frame::Malformed {
                kind:
                    FrameKind::SendPacket
                    | FrameKind::NotePreferred
                    | FrameKind::Ping
                    | FrameKind::ForwardPacket
                    | FrameKind::WatchConns
                    | FrameKind::ClosePeer,
            } => self.broken(stream),
            // The adapter forwards these itself.
            Frame::SendPacket { .. } => {}
            _ => self.counters.unknown += 1,
        }
    }

    // --- Time ---

    fn set_timer(&mut self, stream: StreamId, at: Time) {
        if let Some(connection) = self.connections.get_mut(&stream) {
            self.timers.remove(&(connection.timer, stream));
            connection.timer = at;
            self.timers.insert((at, stream));
        }
    }

    fn due(&mut self, now: Time) {
        while let Some((_, stream)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            let Some(connection) = self.connections.get(&stream) else { continue };
            if matches!(connection.stage, Stage::Joined { .. }) {
                let next = now + connection.keepalive;
                self.set_timer(stream, next);
                self.write(stream, &Frame::KeepAlive);
                self.tell_health(stream);
            } else {
                self.counters.late += 1;
                self.close(stream);
            }
        }
    }

    /// Asks those who understand it to come back later, spread over half the time more.
    fn drain(&mut self, retry_after: Duration) {
        self.draining = Some(retry_after);
        let is_in = |connection: &Connection| matches!(connection.stage, Stage::Joined { .. });
        let streams: Vec<_> =
            self.connections.iter().filter(|(_, c)| is_in(c)).map(|(stream, _)| *stream).collect();
        for stream in streams {
            self.tell_restarting(stream, retry_after);
        }
    }

    fn tell_restarting(&mut self, stream: StreamId, retry_after: Duration) {
        if !self.connections.get(&stream).is_some_and(|connection| connection.ours) {
            return;
        }
        let micros = u64::try_from(retry_after.as_micros()).unwrap_or(u64::MAX);
        let spread = Duration::from_micros(self.rng.range(0..micros / 2 + 1));
        let reconnect_in = retry_after.saturating_add(spread);
        self.write(stream, &Frame::Restarting { reconnect_in, try_for: limits::RELAY_TRY_FOR });
    }
}

impl Machine for RelayServer {
    type Command = ServerCommand;
    type Event = ServerEvent;

    fn handle(&mut self, input: Input<'_, ServerCommand>, now: Time) {
        let now = self.clock.clamp(now);
        match input {
            Input::Command(command) => self.command(command, now),
            Input::StreamOpened { stream } => self.opened(stream, now),
            Input::StreamBytes { stream, bytes } => self.bytes(stream, bytes, now),
            Input::StreamClosed { stream, .. } => self.depart(stream),
            _ => {}
        }
        self.due(now);
    }

    fn poll(&mut self) -> Option<Output<ServerEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        self.timers.first().map(|(at, _)| (*at, "relay server: keepalive or login too late"))
    }
}

//! A relay's connections to the others of its mesh, which it opens itself: dialled like any relay, and written to like
//! any client.

use super::writer::write_all;
use super::{Connection, Inner, Message, RelayTask};
use crate::relay_stream::fallback::Fallback;
use crate::relay_stream::{Dialer, Opened};
use crate::transport::{AnyStream, Network};
use proto_core::id::StreamId;
use proto_core::machine::{Input, Machine, Output, StreamTarget};
use proto_core::relay::{
    MeshChange, MeshCommand, MeshConfig, MeshEvent, RelayMesh, RelayServer, ServerCommand,
};
use proto_core::seed::Seed;
use proto_core::time::Time;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::task::JoinSet;

/// Names of the streams that a mesh opens: far beyond those of connections that come in.
pub const MESH_STREAMS: Range<u64> = 1 << 62..1 << 63;
/// Bytes of one read: a relay only says who comes and goes.
const READ: usize = 16 * 1024;

/// How it stands with the other relays of a mesh.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MeshStatus {
    /// Relays that we are connected to.
    pub up: usize,
    /// Relays that watch who comes and goes here.
    pub watchers: usize,
    /// Keys that are at other relays.
    pub elsewhere: usize,
}

/// What a link's tasks say to the relay's.
pub(super) enum MeshMessage {
    Opened(StreamId),
    Bytes(StreamId, Vec<u8>),
    Closed(StreamId, String),
    Resolved(String, Vec<IpAddr>),
}

/// A mesh within the relay's task.
pub(super) struct Mesh {
    machine: RelayMesh,
    inner: Arc<Inner>,
    /// Links by their streams, from the dialling to the end.
    links: BTreeMap<StreamId, Arc<Connection>>,
    dial: Box<dyn Fn(StreamTarget) -> Pin<Box<dyn Future<Output = Dialled> + Send>> + Send>,
    resolve: Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = Vec<IpAddr>> + Send>> + Send>,
    /// Of the relays, for people.
    names: Vec<String>,
    tasks: JoinSet<()>,
}

type Dialled = Result<AnyStream, String>;

impl RelayTask {
    /// The relay joins the others of its mesh, which it dials so. Its configuration must have the mesh's key, too.
    #[must_use]
    pub fn joined_to<N: Network>(mut self, config: MeshConfig, dialer: Dialer<N>, seed: &Seed) -> Self {
        let now = self.inner.clock.time();
        let names = config.relays.iter().map(|relay| relay.host.clone()).collect();
        let mut machine = RelayMesh::new(config, seed, now);
        machine.handle(Input::Command(MeshCommand::Connect), now);
        let fallback = Arc::new(Fallback::default());
        let resolver = dialer.clone();
        self.mesh = Some(Mesh {
            machine,
            inner: self.inner.clone(),
            links: BTreeMap::new(),
            dial: Box::new(move |target| {
                let (dialer, fallback) = (dialer.clone(), fallback.clone());
                Box::pin(async move {
                    match dialer.open(&target, &fallback).await {
                        Ok(Opened::Derp(io)) => Ok(Box::new(io) as AnyStream),
                        Ok(Opened::Control(_)) => Err("it is no relay".to_owned()),
                        Err(error) => Err(error.to_string()),
                    }
                })
            }),
            resolve: Box::new(move |name| {
                let resolver = resolver.clone();
                Box::pin(async move { resolver.resolve(&name).await.unwrap_or_default() })
            }),
            names,
            tasks: JoinSet::new(),
        });
        self
    }
}

impl Mesh {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.machine.deadline().map(|(at, _)| at)
    }

    pub(super) fn due(&mut self, now: Time) {
        self.machine.handle(Input::Deadline, now);
    }

    pub(super) fn close(&mut self, now: Time) {
        self.machine.handle(Input::Command(MeshCommand::Close), now);
    }

    pub(super) fn take(&mut self, message: MeshMessage, now: Time) {
        match message {
            MeshMessage::Opened(stream) => self.machine.handle(Input::StreamOpened { stream }, now),
            MeshMessage::Bytes(stream, bytes) => {
                self.machine.handle(Input::StreamBytes { stream, bytes: &bytes }, now);
            }
            MeshMessage::Closed(stream, why) => {
                self.links.remove(&stream);
                self.machine.handle(Input::StreamClosed { stream, why: &why }, now);
            }
            MeshMessage::Resolved(name, addresses) => {
                self.machine.handle(Input::Resolved { name: &name, addresses: &addresses }, now);
            }
        }
    }

    /// The connection of a link that is up.
    pub(super) fn link(&self, stream: StreamId) -> Option<Arc<Connection>> {
        self.links.get(&stream).cloned()
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.links.values()
    }

    /// The next word to the relay's server.
    pub(super) fn next(&mut self) -> Option<ServerCommand> {
        while self.tasks.try_join_next().is_some() {}
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Event(MeshEvent::Change(change)) => {
                    if let MeshChange::Lost { link } = change
                        && let Some(connection) = self.links.get(&link)
                    {
                        connection.close();
                    }
                    return Some(ServerCommand::Mesh(change));
                }
                Output::Event(MeshEvent::Up { relay, .. }) => {
                    tracing::info!(relay = self.name(relay), "joined another relay of the mesh");
                }
                Output::Event(MeshEvent::Down { relay, why }) => {
                    tracing::warn!(relay = self.name(relay), why, "another relay of the mesh is not reached");
                }
                Output::Event(MeshEvent::Itself { relay }) => {
                    tracing::info!(
                        relay = self.name(relay),
                        "this relay of the mesh is the one that runs here"
                    );
                }
                Output::Open { stream, target } => self.open(stream, target),
                Output::Write { stream, bytes } => {
                    if let Some(connection) = self.links.get(&stream) {
                        connection.push_control(&bytes);
                    }
                }
                Output::Close { stream } => {
                    if let Some(connection) = self.links.get(&stream) {
                        connection.close();
                    }
                }
                Output::Resolve { name } => {
                    let (resolving, inner) = ((self.resolve)(name.clone()), self.inner.clone());
                    self.tasks.spawn(async move {
                        let resolved = MeshMessage::Resolved(name, resolving.await);
                        let _ = inner.inbox.send(Message::Mesh(resolved)).await;
                    });
                }
                Output::Transmit(_) | Output::Bind { .. } | Output::Unbind { .. } => {}
            }
        }
        None
    }

    fn name(&self, relay: usize) -> &str {
        self.names.get(relay).map_or("", String::as_str)
    }

    fn open(&mut self, stream: StreamId, target: StreamTarget) {
        let connection = Arc::new(Connection::new(stream, None, &self.inner.budget));
        connection.mesh.store(true, Ordering::Relaxed);
        self.links.insert(stream, connection.clone());
        let (dialling, inner) = ((self.dial)(target), self.inner.clone());
        self.tasks.spawn(async move {
            let why = match dialling.await {
                Ok(io) => serve(io, &connection, &inner).await,
                Err(why) => why,
            };
            let _ = inner.inbox.send(Message::Mesh(MeshMessage::Closed(stream, why))).await;
        });
    }
}

/// How it stands; none if the relay has no mesh. One that dials nobody may still be dialled.
pub(super) fn status(mesh: Option<&Mesh>, server: &RelayServer) -> Option<MeshStatus> {
    server.has_mesh().then(|| MeshStatus {
        up: mesh.map_or(0, |mesh| mesh.machine.up().count()),
        watchers: server.watchers(),
        elsewhere: server.elsewhere(),
    })
}

/// Serves a link to its end; why it ended.
async fn serve(io: AnyStream, connection: &Connection, inner: &Inner) -> String {
    let opened = MeshMessage::Opened(connection.stream);
    if inner.inbox.send(Message::Mesh(opened)).await.is_err() {
        return String::new();
    }
    let (read, write) = tokio::io::split(io);
    let why = tokio::select! {
        biased;
        why = write_all(Vec::new(), write, connection) => why.to_string(),
        why = listen(read, connection.stream, inner) => why,
    };
    inner.count(&mut connection.abandon());
    why
}

/// Hears what the relay says to the end; why it ended.
async fn listen(mut io: ReadHalf<AnyStream>, stream: StreamId, inner: &Inner) -> String {
    let mut buffer = vec![0; READ];
    loop {
        let bytes = match io.read(&mut buffer).await {
            Ok(0) => return "the relay closed the connection".to_owned(),
            Ok(n) => buffer[..n].to_vec(),
            Err(error) => return error.to_string(),
        };
        if inner.inbox.send(Message::Mesh(MeshMessage::Bytes(stream, bytes))).await.is_err() {
            return String::new();
        }
    }
}

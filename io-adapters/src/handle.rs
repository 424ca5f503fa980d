//! A running node as programs use it: tunnels to peers, streams and datagrams inside them, and what happens.
//!
//! Handles are cheap and may be cloned and sent anywhere. The node itself is owned by its driver's task; a
//! handle leaves a signal and wakes it. When the last [`NodeHandle`] is dropped the node leaves the network.

use crate::streams::StreamError;
use proto_core::id::NodeId;
use proto_core::key::NodePublic;
use proto_core::node::{NodeEvent, NodeStatus, SessionState};
use proto_core::peer::PathStory;
use proto_core::route::{Route, Via};
use proto_core::stream::Header;
use proto_core::stream::udp::FlowTag;
use proto_core::time::Time;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(crate) mod datagrams;
pub(crate) mod pipe;
pub(crate) mod shared;
mod stream;

pub use datagrams::{Datagram, DatagramFlow};
use shared::{PeerShared, Shared, Signal};
pub use stream::TunnelStream;

/// Why there is no tunnel.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TunnelError {
    /// The coordinator, or this node's own pins, refuse it.
    #[error("{message}")]
    Refused {
        /// A code that programs may rely on, such as `FORBIDDEN` or `KEY_CHANGED`.
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// The coordinator refuses this node altogether: its token is wrong, its version too old.
    #[error("{message}")]
    SessionRefused {
        /// A code that programs may rely on.
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// The node has been shut down.
    #[error("the node has stopped")]
    Stopped,
}

/// Where a peer's packets travel, and what was last told of its path.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PathState {
    /// The route.
    pub route: Route,
    /// The latest word of the path's story and when it was said.
    pub story: Option<(Time, PathStory)>,
    /// The peer is gone: why, in words for a person.
    pub gone: Option<String>,
}

impl PathState {
    /// Whether packets travel directly now.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.route.primary.is_some_and(|via| via.is_direct())
    }

    /// The way packets travel now.
    #[must_use]
    pub const fn via(&self) -> Option<Via> {
        self.route.primary
    }
}

/// A stream that a peer opened to us.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it. Holding it keeps the path to the peer warm.
    pub peer: PeerHandle,
    /// What it is for.
    pub header: Header,
    /// The stream, after its header.
    pub stream: TunnelStream,
}

/// What happens at a node, from the moment of asking on.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<NodeEvent>);

impl Events {
    /// The next event; none once the node has stopped. Whoever reads too slowly misses the oldest.
    pub async fn next(&mut self) -> Option<NodeEvent> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::debug!(missed, "a reader of the node's events is too slow");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// A running node.
#[derive(Clone)]
pub struct NodeHandle {
    shared: Arc<Shared>,
    incoming: Arc<tokio::sync::Mutex<mpsc::Receiver<Incoming>>>,
    events: broadcast::WeakSender<NodeEvent>,
    guard: Arc<Guard>,
}

/// Tells the driver when the last handle is gone.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.signal(Signal::Stop(None));
    }
}

impl NodeHandle {
    pub(crate) fn new(
        shared: Arc<Shared>,
        incoming: mpsc::Receiver<Incoming>,
        events: broadcast::WeakSender<NodeEvent>,
    ) -> Self {
        let guard = Arc::new(Guard(shared.clone()));
        Self { shared, incoming: Arc::new(tokio::sync::Mutex::new(incoming)), events, guard }
    }

    /// Our node key.
    #[must_use]
    pub fn key(&self) -> NodePublic {
        self.shared.key
    }

    /// Opens a tunnel to a peer, or joins the one that exists. Waits until the coordinator has answered, so
    /// the caller sets the time limit; data may flow at once through a relay, whatever the path becomes.
    ///
    /// # Errors
    /// [`TunnelError`] says who refused and why.
    pub async fn open_tunnel(&self, to: NodeId) -> Result<PeerHandle, TunnelError> {
        let (reply, answer) = oneshot::channel();
        self.shared.signal(Signal::OpenTunnel { to, reply });
        answer.await.unwrap_or(Err(TunnelError::Stopped))
    }

    /// The next stream that a peer opened to us; none once the node has stopped. Several tasks may wait: each
    /// stream goes to one of them.
    pub async fn accept(&self) -> Option<Incoming> {
        self.incoming.lock().await.recv().await
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        // After the driver is gone: a channel that is closed.
        Events(self.events.upgrade().map_or_else(|| broadcast::channel(1).1, |events| events.subscribe()))
    }

    /// The session with the coordinator as it is now.
    #[must_use]
    pub fn session(&self) -> SessionState {
        shared::lock(&self.shared.session).clone()
    }

    /// What is known at this moment: session, netcheck, relays, peers.
    ///
    /// # Errors
    /// [`TunnelError::Stopped`].
    pub async fn status(&self) -> Result<NodeStatus, TunnelError> {
        let (reply, answer) = oneshot::channel();
        self.shared.signal(Signal::Status(reply));
        answer.await.map_err(|_| TunnelError::Stopped)
    }

    /// Leaves the network: peers and coordinator are told, then everything stops. Ends within a second or so.
    ///
    /// # Panics
    /// If the driver panicked: nothing that a node does may be lost silently.
    pub async fn shutdown(&self) {
        let (reply, done) = oneshot::channel();
        self.shared.signal(Signal::Stop(Some(reply)));
        let _ = done.await;
        if let Some(panic) = self.shared.panic() {
            panic!("the node's driver panicked: {panic}");
        }
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handles = Arc::strong_count(&self.guard);
        f.debug_struct("NodeHandle").field("key", &self.shared.key).field("handles", &handles).finish()
    }
}

/// A peer that there is a tunnel to. While a handle of it exists its path is kept warm; when the last handle
/// and stream of a tunnel that we opened are gone, the tunnel is given up.
pub struct PeerHandle {
    shared: Arc<Shared>,
    peer: Arc<PeerShared>,
}

impl PeerHandle {
    /// Counts itself in; the driver learns of it from `shared`.
    pub(crate) fn new(shared: Arc<Shared>, peer: Arc<PeerShared>) -> Self {
        peer.hold();
        Self { shared, peer }
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.peer.id
    }

    /// Its node key.
    #[must_use]
    pub fn key(&self) -> NodePublic {
        self.peer.key
    }

    /// Opens a stream. Nothing travels until something is written; the header and the first bytes then
    /// travel together. It waits only if very many streams are open.
    ///
    /// # Errors
    /// [`StreamError::NoPeer`] if the peer is gone, [`StreamError::Lost`] if the node has stopped.
    pub async fn open(&self, header: &Header) -> Result<TunnelStream, StreamError> {
        let (reply, answer) = oneshot::channel();
        let key = self.peer.key;
        self.shared.signal(Signal::Open { key, header: header.encode(), reply });
        answer.await.unwrap_or(Err(StreamError::Lost))
    }

    /// The datagrams of a flow, sent with this tag and received with its opposite. A later call for the same flow takes
    /// them from the earlier one.
    #[must_use]
    pub fn datagrams(&self, tag: FlowTag) -> DatagramFlow {
        DatagramFlow::new(self.shared.clone(), self.clone(), tag)
    }

    /// Where packets travel now and what was last told of the path.
    #[must_use]
    pub fn path(&self) -> PathState {
        self.peer.path.borrow().clone()
    }

    /// A watch on [`PeerHandle::path`].
    #[must_use]
    pub fn watch_path(&self) -> watch::Receiver<PathState> {
        self.peer.path.subscribe()
    }

    /// Waits until packets travel directly.
    ///
    /// # Errors
    /// [`StreamError::NoPeer`] if the peer goes away first.
    pub async fn wait_direct(&self) -> Result<PathState, StreamError> {
        let mut path = self.peer.path.subscribe();
        let state = path.wait_for(|p| p.is_direct() || p.gone.is_some()).await;
        match state {
            Ok(state) if state.gone.is_none() => Ok(state.clone()),
            _ => Err(StreamError::NoPeer),
        }
    }

    /// Waits until packets travel some way: until then nothing can be sent.
    ///
    /// # Errors
    /// [`StreamError::NoPeer`] if the peer goes away first.
    pub async fn wait_reachable(&self) -> Result<PathState, StreamError> {
        let mut path = self.peer.path.subscribe();
        let state = path.wait_for(|p| p.route.primary.is_some() || p.gone.is_some()).await;
        match state {
            Ok(state) if state.gone.is_none() => Ok(state.clone()),
            _ => Err(StreamError::NoPeer),
        }
    }
}

impl Clone for PeerHandle {
    fn clone(&self) -> Self {
        Self::new(self.shared.clone(), self.peer.clone())
    }
}

impl Drop for PeerHandle {
    fn drop(&mut self) {
        if self.peer.let_go() {
            self.shared.signal(Signal::PeerHeld);
        }
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerHandle({} {:?})", self.peer.id, self.peer.key)
    }
}

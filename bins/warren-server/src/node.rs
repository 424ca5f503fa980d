//! The server as a node of its own: how terminals and web apps of the browser reach workspaces, directly where they can.
//!
//! It joins its own coordinator and its own relay without a socket ([`inside`]), under a key that it keeps, and may reach
//! every agent. Who may reach which one is asked before, by whoever opens a stream here.

mod inside;

use crate::hub::Hub;
use crate::settings::AccessUrl;
use inside::{Inside, Rooms};
use io_adapters::clock::Origin;
use io_adapters::driver::{self, Settings};
use io_adapters::handle::{NodeHandle, PeerHandle, TunnelError, TunnelStream};
use io_adapters::streams::StreamError;
use io_adapters::wg::BoringTun;
use proto_core::coord::ControlTarget;
use proto_core::id::NodeId;
use proto_core::key::NodeSecret;
use proto_core::node::NodeConfig;
use proto_core::stream::Header;
use proto_core::wire::control::NodeKind;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// How long a tunnel may take until data can flow: the coordinator's answer and a way through a relay.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a tunnel is kept after it was last asked for: who opens a page soon opens the next, and need not wait for a
/// new path then. What runs in the tunnel keeps it longer.
const KEPT: Duration = Duration::from_secs(120);
/// How often tunnels that nobody asks for are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// Why a workspace's agent could not be reached.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// The coordinator refuses, or the node has stopped.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// It has ended, or the stream's tunnel has.
    #[error("{0}")]
    Stream(#[from] StreamError),
    /// No way to it was found in time.
    #[error("no way to it was found within {} s", PATIENCE.as_secs())]
    Slow,
}

/// The server's own node.
pub(crate) struct OwnNode {
    handle: NodeHandle,
    /// Those in use or used lately. At most as many as the node has peers, which is bounded.
    tunnels: Arc<Mutex<BTreeMap<NodeId, Kept>>>,
    sweeper: JoinHandle<()>,
}

/// A tunnel, and when it was last asked for.
struct Kept {
    peer: PeerHandle,
    used: Instant,
}

impl OwnNode {
    /// Starts it: it is there as soon as the coordinator has greeted it.
    pub(crate) async fn start(
        key: [u8; 32],
        hub: Arc<Hub>,
        access_url: &AccessUrl,
        direct: bool,
        build: &str,
    ) -> Self {
        let key = NodeSecret::from_bytes(key);
        let config = NodeConfig {
            kind: NodeKind::Server,
            control: Some(ControlTarget {
                host: access_url.host.clone(),
                port: access_url.port,
                // Nothing is ever sent there: [`Inside`] leads to the coordinator. It stands for having an address.
                addresses: vec![key.public().inner_address().into()],
                tls: None,
                path: io_adapters::access_url::COORDINATE.to_owned(),
                bearer: None,
            }),
            build: build.to_owned(),
            direct_forbidden: (!direct).then_some(proto_core::wire::control::Forbidder::Server),
            guess_ports: true,
            map_ports: false,
            pins: BTreeMap::new(),
            relay: None,
            relay_map: None,
            node_key: key.clone(),
        };
        let rooms = Rooms { hub, id: name(&key), access_url: access_url.clone() };
        let network = Inside::new(rooms, key.public().inner_address().into());
        let engine = BoringTun::new(&key);
        let handle = driver::start(Settings::new(config), network, engine, Origin::now()).await;
        let tunnels = Arc::default();
        let sweeper = tokio::spawn(sweep(Arc::clone(&tunnels)));
        Self { handle, tunnels, sweeper }
    }

    /// Opens a stream to a workspace's agent, making a tunnel if there is none. Its header has been sent when this
    /// returns; whoever calls it has asked before whether that may be.
    ///
    /// # Errors
    /// [`Unreachable`], within [`PATIENCE`].
    pub(crate) async fn open(&self, agent: &NodeId, header: &Header) -> Result<TunnelStream, Unreachable> {
        let opening = async {
            let peer = self.tunnel(agent).await?;
            peer.wait_reachable().await?;
            let mut stream = peer.open(header).await?;
            stream.flush().await.map_err(|_| StreamError::Lost)?;
            Ok(stream)
        };
        tokio::time::timeout(PATIENCE, opening).await.unwrap_or(Err(Unreachable::Slow))
    }

    /// The tunnel to an agent, which is kept warm while the handle is held. It is there before any way to the agent is.
    ///
    /// # Errors
    /// [`Unreachable::Tunnel`]. The caller sets the time limit.
    pub(crate) async fn tunnel(&self, agent: &NodeId) -> Result<PeerHandle, Unreachable> {
        if let Some(kept) = lock(&self.tunnels).get_mut(agent)
            && kept.peer.path().gone.is_none()
        {
            kept.used = Instant::now();
            return Ok(kept.peer.clone());
        }
        let peer = self.handle.open_tunnel(agent.clone()).await?;
        let kept = Kept { peer: peer.clone(), used: Instant::now() };
        lock(&self.tunnels).insert(agent.clone(), kept);
        Ok(peer)
    }

    /// The node itself.
    #[allow(dead_code, reason = "the state of the network is told from here")]
    pub(crate) const fn handle(&self) -> &NodeHandle {
        &self.handle
    }

    /// Leaves the network.
    pub(crate) async fn stop(&self) {
        self.sweeper.abort();
        lock(&self.tunnels).clear();
        self.handle.shutdown().await;
    }
}

/// Gives tunnels up that nobody asks for any more.
async fn sweep(tunnels: Arc<Mutex<BTreeMap<NodeId, Kept>>>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        lock(&tunnels).retain(|_, kept| kept.used.elapsed() < KEPT && kept.peer.path().gone.is_none());
    }
}

fn lock(tunnels: &Mutex<BTreeMap<NodeId, Kept>>) -> MutexGuard<'_, BTreeMap<NodeId, Kept>> {
    tunnels.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The node's lasting name: the server's key says who it is, and no agent's or client's name begins so.
fn name(key: &NodeSecret) -> NodeId {
    let bytes = key.public().0;
    let digits: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    NodeId(format!("s-{digits}"))
}

/// For whoever asks the agent a question by a stream: what it answered, at most `longest` bytes of it.
///
/// # Errors
/// If the stream breaks.
pub(crate) async fn answer(stream: TunnelStream, longest: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut stream = stream.take(longest as u64);
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(bytes)
}

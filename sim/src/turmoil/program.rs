//! What runs on the inside hosts of a lab: nodes with the production driver around the WireGuard model, one of
//! which talks while the other answers.

use super::server::CONTROL_PATH;
use super::socket::LabNetwork;
use super::wire::{Wire, now};
use crate::wg_model::WgModel;
use crate::world::echo::MARK;
use crate::world::server::HTTP_PORT;
use io_adapters::clock::Origin;
use io_adapters::driver::{self, Settings};
use io_adapters::handle::{NodeHandle, PeerHandle, TunnelStream};
use io_adapters::relay_stream::proxy::Proxies;
use io_adapters::relay_stream::tls::Trust;
use proto_core::coord::ControlTarget;
use proto_core::id::NodeId;
use proto_core::key::NodeSecret;
use proto_core::node::NodeConfig;
use proto_core::seed::Seed;
use proto_core::stream::Header;
use proto_core::time::{Duration, Time};
use proto_core::wire::control::NodeKind;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The agent's name.
pub const AGENT: &str = "agent";
/// How often the agent's path is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long the client waits for an echo before it writes the next.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a tunnel may take to be opened.
const OPENING: Duration = Duration::from_secs(10);
/// From one attempt to open it to the next.
const AGAIN: Duration = Duration::from_millis(500);

/// What the nodes saw, in order. Clones are the same one.
#[derive(Clone, Default)]
pub struct Diary(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    echoes: Vec<Echo>,
    agent: Vec<(Time, bool)>,
}

/// One echo that came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Echo {
    /// When it was sent.
    pub sent: Time,
    /// When it came back.
    pub back: Time,
    /// Whether the client's packets went directly then.
    pub direct: bool,
}

impl Diary {
    /// The client's echoes.
    #[must_use]
    pub fn echoes(&self) -> Vec<Echo> {
        self.lock().echoes.clone()
    }

    /// Whether the agent's packets to the client went directly, looked at now and then.
    #[must_use]
    pub fn agent(&self) -> Vec<(Time, bool)> {
        self.lock().agent.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a node.
///
/// # Errors
/// If its socket cannot be bound.
pub async fn node(
    network: LabNetwork,
    kind: NodeKind,
    (seed, process): (&Seed, u64),
    wire: &Wire,
) -> turmoil::Result<NodeHandle> {
    wire.count(|c| c.nodes += 1);
    let secret = NodeSecret::generate(&seed.fork("identity"));
    let fork = seed.fork(&format!("process/{process}"));
    let token = if kind == NodeKind::Agent { "agent-token" } else { "user-token" };
    let config = NodeConfig {
        node_key: secret.clone(),
        kind,
        control: Some(ControlTarget {
            host: "server.sim".into(),
            port: HTTP_PORT,
            addresses: Vec::new(),
            tls: None,
            path: CONTROL_PATH.into(),
            bearer: Some(token.into()),
        }),
        build: "sim".into(),
        direct_forbidden: None,
        guess_ports: true,
        map_ports: false,
        pins: BTreeMap::new(),
        relay: None,
        relay_map: None,
    };
    let bind: Vec<SocketAddr> = vec![(Ipv4Addr::UNSPECIFIED, 0).into()];
    let settings = Settings {
        node: config,
        seed: fork.fork("driver"),
        bind,
        trust: Trust::only(Vec::new()),
        proxies: Proxies::default(),
        tap: None,
    };
    let engine = WgModel::new(secret, 1_700_000_000_000_000 + now().as_micros(), &fork);
    Ok(driver::start(settings, network, engine, Origin::now()).await)
}

/// Runs the agent: every stream comes back.
///
/// # Errors
/// If it cannot start or one of its tasks panicked.
pub async fn agent(node: NodeHandle, diary: Diary) -> turmoil::Result {
    let mut serving: JoinSet<()> = JoinSet::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            biased;
            Some(done) = serving.join_next() => done?,
            _ = look.tick() => {
                let peers = node.status().await?.peers;
                if let Some(via) = peers.first().and_then(|peer| peer.route.primary) {
                    diary.lock().agent.push((now(), via.is_direct()));
                }
            }
            incoming = node.accept() => {
                let Some(incoming) = incoming else { return Err("the agent's node stopped".into()) };
                let stream = incoming.stream;
                let peer = incoming.peer;
                serving.spawn(async move {
                    let _held = peer;
                    echo(stream).await;
                });
            }
        }
    }
}

async fn echo(mut stream: TunnelStream) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(len) = stream.read(&mut buffer).await {
        if len == 0 || stream.write_all(&buffer[..len]).await.is_err() {
            break;
        }
    }
}

/// Runs the client until `until`: opens the tunnel, again if it ends, and sends a frame of `size` bytes every
/// `pause`, each of which must come back whole.
///
/// # Errors
/// If a frame comes back changed.
pub async fn client(
    node: NodeHandle,
    diary: Diary,
    (size, pause): (usize, Duration),
    until: Time,
) -> turmoil::Result {
    let mut peer: Option<PeerHandle> = None;
    let mut number = 0;
    let mut stream = None;
    while now() < until {
        // As programs do: a tunnel that has ended, with an agent that was killed for example, is opened again.
        if peer.as_ref().is_some_and(|peer| peer.path().gone.is_some()) {
            peer = None;
            stream = None;
        }
        if peer.is_none() {
            peer = reach(&node).await;
        }
        let Some(peer) = &peer else {
            // The agent or the server is not there.
            sleep(AGAIN).await;
            continue;
        };
        number += 1;
        let sent = now();
        match timeout(PATIENCE, exchange(peer, &mut stream, number, size)).await {
            Ok(Some(true)) => {
                let direct = peer.path().is_direct();
                diary.lock().echoes.push(Echo { sent, back: now(), direct });
            }
            Ok(Some(false)) => return Err("a frame came back changed".into()),
            // Lost with its connection, or too late: what may still come back belongs to the old stream.
            Ok(None) | Err(_) => stream = None,
        }
        let next = sent + pause;
        sleep(next.since(now()).max(Duration::from_millis(1))).await;
    }
    Ok(())
}

/// A tunnel to the agent, if it can be had.
async fn reach(node: &NodeHandle) -> Option<PeerHandle> {
    timeout(OPENING, node.open_tunnel(NodeId(AGENT.into()))).await.ok()?.ok()
}

/// One frame there and back; none if the stream was lost.
async fn exchange(
    peer: &PeerHandle,
    stream: &mut Option<TunnelStream>,
    number: u64,
    size: usize,
) -> Option<bool> {
    if stream.is_none() {
        *stream = Some(peer.open(&Header::Ping).await.ok()?);
    }
    let io = stream.as_mut()?;
    let mut frame = MARK.to_vec();
    frame.extend_from_slice(&number.to_be_bytes());
    frame.resize(size.max(frame.len()), 0xa5);
    io.write_all(&frame).await.ok()?;
    io.flush().await.ok()?;
    let mut back = vec![0; frame.len()];
    io.read_exact(&mut back).await.ok()?;
    Some(back == frame)
}

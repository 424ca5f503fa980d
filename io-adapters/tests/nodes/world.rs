//! A small world on loopback: a server's parts, an agent, clients, all with the production drivers.

use io_adapters::clock::Origin;
use io_adapters::control::hub::{CoordinatorHandle, coordinator};
use io_adapters::driver::{Settings, start};
use io_adapters::handle::{Datagram, Incoming, NodeHandle};
use io_adapters::relay_listener::front::{Control, Front};
use io_adapters::relay_listener::{RelayHandle, relay};
use io_adapters::relay_stream::proxy::Proxies;
use io_adapters::relay_stream::tls::{Identity, Trust};
use io_adapters::store::MemStore;
use io_adapters::stun_listener;
use io_adapters::transport::{
    Datagrams, Network, RecvBatch, TcpAccept, TokioListener, TokioNetwork, UdpLink,
};
use io_adapters::udp::BatchedUdp;
use io_adapters::wg::BoringTun;
use proto_core::coord::{ControlTarget, CoordinatorConfig, Principal};
use proto_core::id::NodeId;
use proto_core::key::NodeSecret;
use proto_core::machine::TlsCheck;
use proto_core::node::NodeConfig;
use proto_core::relay::RelayServerConfig;
use proto_core::relay_map::RelayMap;
use proto_core::seed::Seed;
use proto_core::stream::Header;
use proto_core::stream::udp::{FlowTag, UdpFrame, UdpNotice};
use proto_core::wire::control::NodeKind;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const PATH: &str = "/api/v1/coordinate";
pub(crate) const AGENT: &str = "agent-1";

/// How a world differs from the usual one.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    /// Nothing but relays.
    pub relayed_only: bool,
    /// TLS everywhere, by this certificate.
    pub tls: Option<Tls>,
}

/// A certificate, and how clients check it.
#[derive(Clone)]
pub(crate) struct Tls {
    pub identity: Identity,
    pub check: TlsCheck,
}

/// The parts of a server, each of which can be stopped and started again at the same place.
pub(crate) struct World {
    pub store: MemStore,
    pub stun: SocketAddr,
    pub control: Option<Part<CoordinatorHandle>>,
    pub relay: Option<Part<RelayHandle>>,
    pub control_at: SocketAddr,
    pub relay_at: SocketAddr,
    plan: Plan,
    _stun: JoinSet<()>,
}

/// A running part: its handle and its tasks, which end with it.
pub(crate) struct Part<H> {
    pub handle: H,
    _tasks: JoinSet<()>,
}

impl World {
    pub(crate) async fn new(plan: Plan) -> Self {
        let store = MemStore::new();
        store.add_token("agent-token", Principal::Agent { id: NodeId(AGENT.into()) });
        store.add_token("user-token", Principal::User { user: "ann".into() });
        store.add_token("stranger-token", Principal::User { user: "eve".into() });
        store.allow("ann", &NodeId(AGENT.into()));
        let socket = TokioNetwork.bind_udp((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let stun = socket.local_addr();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { stun_listener::serve(&socket, &Default::default()).await.unwrap() });
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut world = Self {
            store,
            stun,
            control: None,
            relay: None,
            control_at: anywhere,
            relay_at: anywhere,
            plan,
            _stun: tasks,
        };
        world.start_relay().await;
        world.start_control().await;
        world
    }

    pub(crate) async fn start_relay(&mut self) {
        let config = RelayServerConfig::new(NodeSecret::generate(&Seed::from_u64(7)));
        let (handle, task) = relay(config, io_adapters::entropy::seed(), Origin::now());
        let front = Front::<MemStore>::new(Some(handle.clone()), None);
        let (at, mut tasks) = self.listen(self.relay_at, front).await;
        tasks.spawn(task.run());
        self.relay_at = at;
        self.relay = Some(Part { handle, _tasks: tasks });
    }

    pub(crate) async fn start_control(&mut self) {
        let config = CoordinatorConfig {
            direct: !self.plan.relayed_only,
            relay_map: self.map(),
            relay: None,
            relay_websockets: false,
            browser_only: false,
            build: "test".into(),
            resume_key: [7; 32],
        };
        let store = Arc::new(self.store.clone());
        let (handle, task) = coordinator(config, store.clone(), io_adapters::entropy::seed(), Origin::now());
        let control = Control { path: PATH.into(), coordinator: handle.clone(), store };
        let front = Front::new(None, Some(control));
        let (at, mut tasks) = self.listen(self.control_at, front).await;
        tasks.spawn(task.run());
        self.control_at = at;
        self.control = Some(Part { handle, _tasks: tasks });
    }

    async fn listen(&self, at: SocketAddr, front: Front<MemStore>) -> (SocketAddr, JoinSet<()>) {
        let listener = TokioNetwork.listen_tcp(at).await.unwrap();
        let at = listener.local_addr();
        let identity = self.plan.tls.as_ref().map(|tls| tls.identity.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::new(front).listen(listener, identity));
        (at, tasks)
    }

    fn map(&self) -> RelayMap {
        let cert = match self.plan.tls.as_ref().map(|tls| &tls.check) {
            Some(TlsCheck::Pinned { sha256 }) => format!("sha256-raw:{}", proto_core::key::hex(sha256)),
            _ => String::new(),
        };
        let node = serde_json::json!({
            "Name": "1a", "RegionID": 1, "HostName": "127.0.0.1", "IPv4": "127.0.0.1", "IPv6": "none",
            "DERPPort": self.relay_at.port(), "STUNPort": self.stun.port(), "CertName": cert,
            "ForceHTTP": self.plan.tls.is_none(),
        });
        let region =
            serde_json::json!({ "RegionID": 1, "RegionCode": "t", "RegionName": "Test", "Nodes": [node] });
        serde_json::from_value(serde_json::json!({ "Regions": { "1": region } })).unwrap()
    }

    pub(crate) fn config(&self, kind: NodeKind, token: &str) -> NodeConfig {
        NodeConfig {
            node_key: NodeSecret::generate(&io_adapters::entropy::seed()),
            kind,
            control: Some(ControlTarget {
                host: "127.0.0.1".into(),
                port: self.control_at.port(),
                addresses: vec![Ipv4Addr::LOCALHOST.into()],
                tls: self.plan.tls.as_ref().map(|tls| tls.check.clone()),
                path: PATH.into(),
                bearer: Some(token.into()),
            }),
            build: "test".into(),
            direct_forbidden: None,
            guess_ports: true,
            map_ports: false,
            pins: Default::default(),
            relay: None,
            relay_map: None,
        }
    }

    pub(crate) async fn node(&self, config: NodeConfig) -> NodeHandle {
        self.node_on(Gated::default(), config).await
    }

    pub(crate) async fn node_on(&self, network: Gated, config: NodeConfig) -> NodeHandle {
        let engine = BoringTun::new(&config.node_key);
        let settings =
            Settings { trust: Trust::only(Vec::new()), proxies: Proxies::default(), ..Settings::new(config) };
        start(settings, network, engine, Origin::now()).await
    }

    /// The agent, always with the same key.
    pub(crate) async fn agent(&self) -> NodeHandle {
        let mut config = self.config(NodeKind::Agent, "agent-token");
        config.node_key = NodeSecret::generate(&Seed::from_u64(8));
        self.agent_of(config).await
    }

    /// An agent that serves every stream.
    pub(crate) async fn agent_of(&self, config: NodeConfig) -> NodeHandle {
        let agent = self.node(config).await;
        let accepting = agent.clone();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                tokio::spawn(serve(incoming));
            }
        });
        agent
    }

    pub(crate) async fn client(&self) -> NodeHandle {
        self.node(self.config(NodeKind::Client, "user-token")).await
    }
}

/// What the agent does with a stream.
async fn serve(incoming: Incoming) {
    let Incoming { header, mut stream, peer } = incoming;
    match header {
        Header::Ping => {
            let (mut read, mut write) = tokio::io::split(stream);
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.shutdown().await;
            }
        }
        // A million bytes at a time, until the client has enough.
        Header::Speedtest { upload: false, .. } => {
            let piece = pattern(1 << 20);
            while stream.write_all(&piece).await.is_ok() {}
        }
        // How many bytes came, once all have.
        Header::Speedtest { .. } => {
            let mut all = Vec::new();
            if stream.read_to_end(&mut all).await.is_ok() {
                let _ = stream.write_all(&(all.len() as u64).to_be_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
        Header::Tcp { .. } => stream.reset(42),
        // What came in a datagram goes back in one; what was too long for that comes back in the stream.
        Header::Udp { flow, .. } => {
            let datagrams = peer.datagrams(FlowTag { flow, opener: false });
            let _ = stream.write_all(&UdpFrame::Notice(UdpNotice::Ready).encode()).await;
            let mut read = Vec::new();
            loop {
                tokio::select! {
                    next = datagrams.next() => match next {
                        Some(Datagram::Received(bytes)) => _ = datagrams.send(&bytes),
                        _ => return,
                    },
                    came = stream.read_buf(&mut read) => match came {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {
                            let _ = stream.write_all(&read).await;
                            read.clear();
                        }
                    }
                }
            }
        }
        _ => stream.reset(proto_core::stream::CODE_UNKNOWN_SERVICE),
    }
}

/// Bytes that repeat only after 251.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// The real network, but for a gate that no datagram leaves by while it is shut, and UDP sockets that fail and
/// cannot be bound while it is down.
#[derive(Clone, Default)]
pub(crate) struct Gated {
    pub shut: Arc<AtomicBool>,
    pub down: Arc<AtomicBool>,
}

pub(crate) struct GatedUdp {
    socket: BatchedUdp,
    gate: Gated,
}

impl Gated {
    fn up(&self) -> io::Result<()> {
        if self.down.load(Ordering::Relaxed) { Err(io::ErrorKind::NetworkDown.into()) } else { Ok(()) }
    }
}

impl Network for Gated {
    type Udp = GatedUdp;
    type Tcp = TcpStream;
    type Listener = TokioListener;

    async fn bind_udp(&self, address: SocketAddr) -> io::Result<GatedUdp> {
        self.up()?;
        Ok(GatedUdp { socket: TokioNetwork.bind_udp(address).await?, gate: self.clone() })
    }

    async fn connect_tcp(
        &self,
        to: SocketAddr,
        timeout: proto_core::time::Duration,
    ) -> io::Result<TcpStream> {
        TokioNetwork.connect_tcp(to, timeout).await
    }

    async fn listen_tcp(&self, on: SocketAddr) -> io::Result<TokioListener> {
        TokioNetwork.listen_tcp(on).await
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        TokioNetwork.resolve(name).await
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        TokioNetwork.interfaces()
    }
}

impl UdpLink for GatedUdp {
    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn max_segments(&self) -> usize {
        self.socket.max_segments()
    }

    fn receive_buffer(&self) -> usize {
        self.socket.receive_buffer()
    }

    fn try_send(&self, run: &Datagrams<'_>) -> io::Result<usize> {
        if self.gate.shut.load(Ordering::Relaxed) { Ok(run.bytes.len()) } else { self.socket.try_send(run) }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_writable(cx)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        self.gate.up()?;
        self.socket.poll_recv(cx, batch)
    }
}

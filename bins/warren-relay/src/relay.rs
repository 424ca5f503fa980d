//! The relay as a whole: what is started in which order, reloaded, drained and stopped.

use crate::metrics::Sources;
use crate::notify;
use crate::settings::{Neighbour, Settings};
use core::net::SocketAddr;
use io_adapters::certificate::Certificate;
use io_adapters::clock::Origin;
use io_adapters::private_file;
use io_adapters::process;
use io_adapters::relay_admission::{self, Verifier};
use io_adapters::relay_listener::front::{Front, Program};
use io_adapters::relay_listener::gate::{self, Gate};
use io_adapters::relay_listener::lobby::Lobby;
use io_adapters::relay_listener::{self, Rates, RelayHandle};
use io_adapters::relay_stream::Dialer;
use io_adapters::relay_stream::proxy::Proxies;
use io_adapters::relay_stream::tls::Trust;
use io_adapters::store::MemStore;
use io_adapters::stun_listener::{StunCounters, StunServer};
use io_adapters::transport::{TcpAccept, TokioListener, TokioNetwork};
use proto_core::key::{NodePublic, unhex};
use proto_core::limits::MESH_RELAYS_MAX;
use proto_core::limits::RELAY_WAITING_MAX;
use proto_core::relay::{AdmissionCommand, AdmissionConfig, MeshConfig, RelayServerConfig, ServerCommand};
use proto_core::seed::Seed;
use proto_core::wire::derp::MeshKey;
use rustix::process::{Resource, getrlimit};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use warren_settings::{Fault, StateDirectory, bad_certificate, busy, io_words};

/// The program's name and version, as others are told.
pub(crate) const BUILD: &str = concat!("warren-relay ", env!("CARGO_PKG_VERSION"));

/// When clients that know no other relay should look whether this one is back; those that do leave at once.
const COME_BACK: Duration = Duration::from_secs(1);
/// How often it is looked whether all clients have moved.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it is looked whether memory can be given back.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// What must have come, in bytes, before it is tried: less is not worth the milliseconds.
const TIDY_AT: u64 = 16 << 20;
/// While so many wait for their login, a crowd is still there.
const CROWDED: usize = 256;
/// How long the last bytes may take to leave when everything stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A running relay.
pub(crate) struct Relay {
    handle: RelayHandle,
    certificate: Option<Certificate>,
    addresses: Addresses,
    allow_keys_file: Option<PathBuf>,
    drain_timeout: Duration,
    draining: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    /// Tasks that end by themselves once everything has stopped.
    tasks: JoinSet<()>,
    /// Held until the end, so that no second relay works in the same directory.
    _state: StateDirectory,
}

/// Where a relay listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Addresses {
    /// Plain HTTP.
    pub(crate) http: Option<SocketAddr>,
    /// HTTPS.
    pub(crate) tls: Option<SocketAddr>,
    /// STUN, over UDP.
    pub(crate) stun: Option<SocketAddr>,
    /// Metrics, over plain HTTP.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Relay {
    /// Starts a relay. It serves once this returns, until [`Relay::stop`].
    ///
    /// # Errors
    /// One sentence and a hint: a port is taken, a certificate or a list of keys is bad.
    pub(crate) async fn start(settings: Settings) -> Result<Self, Fault> {
        if let Err(error) = process::open_files() {
            tracing::warn!(%error, "the number of connections stays limited");
        }
        // What can fail without leaving a trace comes first.
        let certificate = warren_settings::certificate(
            settings.tls_address,
            settings.tls_cert_file.as_deref(),
            settings.tls_key_file.as_deref(),
        )?;
        let sockets = Sockets::bind(&settings).await?;
        let addresses = sockets.addresses();
        let state = StateDirectory::open(&settings.state_directory()?, "relay")?;
        let (seed, origin) = (io_adapters::entropy::seed(), Origin::now());
        let guard = guard(&settings, state.path(), &seed)?;
        let secret = private_file::node_key(&state.path().join("relay.key"))
            .map_err(|error| bad_key(&error, state.path()))?;
        let mesh_key = settings.mesh_key_file.as_deref().map(mesh_key).transpose()?;
        let mut config = RelayServerConfig::new(secret.clone());
        config.mesh = mesh_key.clone();
        config.ask = guard.is_some();
        config.queues_max = relay_listener::queues_max();
        config.connections_max = usize::try_from(settings.max_clients).unwrap_or(usize::MAX);
        let (handle, mut task) = relay_listener::relay(config, seed.fork("relay"), origin);
        let (client, total) = (settings.rate_limit_client.0, settings.rate_limit_total.0);
        handle.set_rates(Rates::new(client, total, origin.time()));
        if let Some(certificate) = &certificate {
            certificate.tell_relay(&handle.public()).map_err(|error| bad_certificate(&error))?;
        }
        let mut tasks = JoinSet::new();
        if let Some(guard) = guard {
            task = task.guarded_by(guard.gate);
            tasks.spawn(relay_admission::serve(handle.clone(), guard.wants, guard.verifier, guard.file));
        }
        if let Some(key) = mesh_key
            && !settings.mesh_with.is_empty()
        {
            let named = settings.mesh_with.len();
            if named > MESH_RELAYS_MAX {
                return Err(Fault::new(
                    "TOO_MANY_NEIGHBOURS",
                    format!(
                        "--mesh-with names {named} relays, more than the {MESH_RELAYS_MAX} of one region"
                    ),
                    "name fewer, or make several regions of them",
                ));
            }
            let relays = settings.mesh_with.iter().map(|Neighbour(node)| node.clone()).collect();
            let mesh = MeshConfig { identity: secret, key, relays, streams: relay_listener::MESH_STREAMS };
            let dialer =
                Dialer { network: TokioNetwork, trust: Trust::system(), proxies: Proxies::default() };
            task = task.joined_to(mesh, dialer, &seed.fork("mesh"));
        }
        tasks.spawn(task.run());
        let mut relay = Self {
            handle,
            certificate,
            addresses,
            allow_keys_file: settings.allow_keys_file,
            drain_timeout: Duration::from_secs(settings.drain_timeout),
            draining: watch::Sender::new(false),
            stop: watch::Sender::new(false),
            tasks,
            _state: state,
        };
        relay.serve(sockets);
        Ok(relay)
    }

    fn serve(&mut self, sockets: Sockets) {
        let Sockets { http, tls, stun, metrics } = sockets;
        let stun_down = watch::Sender::new(None);
        let program =
            Program { build: BUILD, draining: self.draining.subscribe(), stun_down: stun_down.subscribe() };
        let front = Front::<MemStore>::new(Some(self.handle.clone()), None).of_program(program.clone());
        let front = Arc::new(front.with_lobby(Lobby::new(waiting_max())));
        self.tasks.spawn(until(self.stop.subscribe(), tidy(front.lobby().clone())));
        if let Some(listener) = http {
            self.tasks.spawn(Arc::clone(&front).listen_until(listener, None, self.stop.subscribe()));
        }
        if let (Some(listener), Some(certificate)) = (tls, self.certificate.clone()) {
            let identity = certificate.identity().clone();
            let front = Arc::clone(&front);
            self.tasks.spawn(front.listen_until(listener, Some(identity), self.stop.subscribe()));
            self.tasks.spawn(until(self.stop.subscribe(), async move { certificate.watch().await }));
        }
        let counters = Arc::new(StunCounters::default());
        if let Some(socket) = stun {
            let counters = Arc::clone(&counters);
            self.tasks.spawn(until(self.stop.subscribe(), async move {
                socket.serve(&counters, stun_down).await;
            }));
        }
        if let Some(listener) = metrics {
            let sources = Sources {
                relay: self.handle.clone(),
                front,
                stun: counters,
                certificate: self.certificate.clone(),
                program,
                since: Instant::now(),
            };
            self.tasks.spawn(until(self.stop.subscribe(), io_adapters::metrics::serve(listener, sources)));
        }
    }

    /// Where it listens, with the real ports.
    pub(crate) const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its public key.
    pub(crate) fn public(&self) -> NodePublic {
        self.handle.public()
    }

    /// Reads the certificate and the list of keys again, as at SIGHUP. What is bad is logged, and the old one stays.
    pub(crate) async fn reload(&self) {
        if let Some(certificate) = &self.certificate {
            certificate.reload();
        }
        let Some(path) = &self.allow_keys_file else { return };
        match relay_admission::read_list(path) {
            Ok(list) => {
                tracing::info!(file = %path.display(), keys = list.len(), "read the list of keys again");
                self.handle.admission(AdmissionCommand::List(list)).await;
            }
            Err(error) => tracing::error!(code = "KEYS_UNUSABLE", "the old list of keys stays: {error}"),
        }
    }

    /// Waits until a part of the relay has failed, and says how: what is left would look well and serve nobody.
    pub(crate) async fn failed(&mut self) -> String {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) => return error.to_string(),
                // Such as who follows files that nobody named.
                Some(Ok(())) => {}
                None => core::future::pending().await,
            }
        }
    }

    /// Drains and stops. Nobody new is let in; clients that understand it are told, and leave as soon as they have
    /// another relay; what they send until then is carried.
    pub(crate) async fn stop(mut self) {
        self.draining.send_replace(true);
        self.handle.command(ServerCommand::Drain(COME_BACK)).await;
        let deadline = Instant::now() + self.drain_timeout;
        let mut told = None;
        while let Some(status) = self.handle.status().await
            && status.connections > 0
            && Instant::now() < deadline
        {
            if told != Some(status.connections) {
                tracing::info!(clients = status.connections, "draining");
                notify::draining(status.connections);
                told = Some(status.connections);
            }
            sleep(LOOK_EVERY).await;
        }
        if let Some(status) = self.handle.status().await {
            let dropped: u64 = status.forwarded.dropped.iter().flatten().sum();
            tracing::info!(
                clients_left = status.connections,
                packets = status.forwarded.packets_in,
                packets_dropped = dropped,
                "stopping"
            );
        }
        self.handle.stop().await;
        self.stop.send_replace(true);
        let rest = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!("a part of the relay failed: {error}");
                }
            }
        };
        // Whoever has not ended by then is cut off.
        let _ = timeout(CLOSE_TIMEOUT, rest).await;
    }
}

/// Connections that may wait for their login: of the files that the relay may open, most are left to those who have
/// logged in.
fn waiting_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files / 4).unwrap_or(usize::MAX).min(RELAY_WAITING_MAX)
}

/// Gives memory back to the system after a crowd has gone.
async fn tidy(lobby: Lobby) {
    let mut kept = process::resident_bytes().unwrap_or(0);
    loop {
        sleep(TIDY_EVERY).await;
        let resident = process::resident_bytes().unwrap_or(0);
        if resident > kept + TIDY_AT && lobby.status().waiting < CROWDED {
            // Beside the clients' tasks, which go on meanwhile.
            let _ = tokio::task::spawn_blocking(process::give_memory_back).await;
            kept = process::resident_bytes().unwrap_or(0);
        }
    }
}

/// The secret that the relays of the mesh share.
fn mesh_key(path: &Path) -> Result<MeshKey, Fault> {
    let fault = |what: String| {
        let hint = "give `--mesh-key-file` a file of 64 hexadecimal digits, the same on all relays of the region; \
                    `openssl rand -hex 32` makes one";
        Fault::new("MESH_KEY_UNUSABLE", what, hint)
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        fault(format!("can't read the mesh key in {}: {}", path.display(), io_words(&error)))
    })?;
    let key = unhex(text.trim()).map(MeshKey);
    key.ok_or_else(|| fault(format!("{} does not hold a mesh key", path.display())))
}

/// Who may use the relay, and what that takes.
struct Guard {
    gate: Gate,
    wants: gate::Wants,
    verifier: Verifier,
    file: PathBuf,
}

/// The guard that the settings ask for; none if everybody may use the relay.
fn guard(settings: &Settings, state: &Path, seed: &Seed) -> Result<Option<Guard>, Fault> {
    // A variable that is set to nothing names nobody.
    let urls: Vec<_> = settings.verify_client_url.iter().filter(|url| !url.is_empty()).cloned().collect();
    if let Some(url) = urls.iter().find(|url| !(url.starts_with("http://") || url.starts_with("https://"))) {
        return Err(Fault::new(
            "VERIFIER_INVALID",
            format!("\"{url}\" is not an http:// or https:// address"),
            "give `--verify-client-url` one such as https://warren.example.com/derp/verify",
        ));
    }
    let list = settings.allow_keys_file.as_deref().map(relay_admission::read_list).transpose();
    let list = list.map_err(|error| {
        let hint =
            "give `--allow-keys-file` a file of node keys, one `nodekey:` and 64 hexadecimal digits a line";
        Fault::new("KEYS_UNUSABLE", error.to_string(), hint)
    })?;
    if list.is_none() && urls.is_empty() {
        return Ok(None);
    }
    let file = state.join("admitted");
    let admitted = relay_admission::read_admitted(&file).map_err(|error| {
        Fault::new(
            "STATE_DIR_UNUSABLE",
            format!("can't read the admitted keys in {}: {}", file.display(), io_words(&error)),
            "check its permissions, or name another directory with `--state-dir DIR`",
        )
    })?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let config = AdmissionConfig {
        list,
        verifier: !urls.is_empty(),
        every: Duration::from_secs(settings.verify_every),
        unix: since.as_secs(),
        admitted,
    };
    let (gate, wants) = gate::gate(config, seed.fork("admission"), proto_core::time::Time::ZERO);
    Ok(Some(Guard { gate, wants, verifier: Verifier::new(urls, BUILD), file }))
}

fn bad_key(error: &std::io::Error, state: &Path) -> Fault {
    Fault::new(
        "RELAY_KEY_UNUSABLE",
        format!("can't use the relay's key {}: {}", state.join("relay.key").display(), io_words(error)),
        "a damaged key can be moved away: the relay then gets a new one, and whoever pinned the old must be told",
    )
}

/// Bound, but not yet served.
struct Sockets {
    http: Option<TokioListener>,
    tls: Option<TokioListener>,
    stun: Option<StunServer>,
    metrics: Option<TokioListener>,
}

impl Sockets {
    async fn bind(settings: &Settings) -> Result<Self, Fault> {
        let tcp = |address: Option<SocketAddr>, flag: &str| {
            let bind =
                |address| TokioListener::bind(address).map_err(|error| busy(&error, "TCP", address, flag));
            address.map(bind).transpose()
        };
        let http = tcp(settings.http_address.0, "http-address")?;
        let tls = tcp(settings.tls_address.0, "tls-address")?;
        if http.is_none() && tls.is_none() {
            return Err(Fault::new(
                "NO_LISTENER",
                "the relay listens nowhere: both --http-address and --tls-address are \"none\"",
                "give one of them an address",
            ));
        }
        let stun = match settings.stun_address.0 {
            Some(address) => {
                let second = settings.stun_second_address;
                warren_settings::second_address(address, second)?;
                let bound = StunServer::bind(address, second).await;
                Some(bound.map_err(|error| busy(&error, "UDP", address, "stun-address"))?)
            }
            None => None,
        };
        let metrics = tcp(settings.metrics_address.0, "metrics-address")?;
        Ok(Self { http, tls, stun, metrics })
    }

    fn addresses(&self) -> Addresses {
        let of = |listener: &Option<TokioListener>| listener.as_ref().map(TcpAccept::local_addr);
        Addresses {
            http: of(&self.http),
            tls: of(&self.tls),
            stun: self.stun.as_ref().map(StunServer::local_addr),
            metrics: of(&self.metrics),
        }
    }
}

/// Runs `work` until the relay stops.
async fn until(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = async { _ = stop.wait_for(|stop| *stop).await; } => {}
        () = work => {}
    }
}

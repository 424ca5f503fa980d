//! The server as a whole: what is started in which order, reloaded, and stopped.

use crate::api::{self, BUILD};
use crate::app::App;
use crate::apps::Apps;
use crate::apps::address::Wildcard;
use crate::auth::oidc::Provider;
use crate::auth::rates::Rates;
use crate::auth::{Token, TokenKind};
use crate::changes::Changes;
use crate::clock::Clock;
use crate::fault::Fault;
use crate::health::{self, Health};
use crate::hub::{Hub, HubConfig};
use crate::listen::{self, House};
use crate::maps::{self, Sources};
use crate::metrics;
use crate::node::OwnNode;
use crate::settings::{AccessUrl, Settings};
use crate::store::migrate::MIGRATIONS;
use crate::store::{Location, NewToken, SqliteStore, Store};
use crate::tunnels::{self, Tunnels};
use core::net::SocketAddr;
use io_adapters::certificate::Certificate;
use io_adapters::stun_listener::{StunCounters, StunServer};
use io_adapters::transport::{TcpAccept, TokioListener};
use proto_core::relay_map::{RelayMap, UnknownRegion};
use proto_core::seed::Seed;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use warren_settings::StateDirectory;

/// How often tokens that ended long ago are swept out of the database.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// How long an ended session is still known, in milliseconds, so that its user reads "ended", not "unknown".
const ENDED_KEPT_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// How long the audit log goes back, in milliseconds: a year, as security standards ask for (PCI DSS 10.5.1).
const AUDIT_KEPT_MS: i64 = 365 * 24 * 3_600 * 1_000;
/// How often the database is told who is here, so that "last seen" is not far off after a crash.
const SEEN_EVERY: Duration = Duration::from_secs(300);
/// When nodes should come back after they were told that the server stops.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often to look whether the relay map's file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the nodes' last messages may take to leave.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

/// A running server.
pub struct Server {
    app: Arc<App>,
    store: SqliteStore,
    maps: Arc<Maps>,
    certificate: Option<Certificate>,
    addresses: Addresses,
    setup_token: Option<Token>,
    stop: watch::Sender<bool>,
    draining: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// Held until the end, so that no second server works in the same directory.
    _state: StateDirectory,
}

/// Where a server listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Addresses {
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// HTTPS.
    pub tls: Option<SocketAddr>,
    /// STUN, over UDP.
    pub stun: Option<SocketAddr>,
    /// Metrics, over plain HTTP.
    pub metrics: Option<SocketAddr>,
}

/// The relay map in force, and where a newer one comes from.
struct Maps {
    sources: Sources,
    current: watch::Sender<RelayMap>,
    /// The home relay's region for nodes that choose none themselves.
    relay: Option<String>,
}

impl Server {
    /// Starts a server. It serves once this returns, until [`Server::stop`].
    ///
    /// # Errors
    /// One sentence and a hint: a port is taken, the database is damaged or newer, a relay map or certificate
    /// is bad. Nothing is changed or lost then.
    pub async fn start(settings: Settings) -> Result<Self, Fault> {
        Self::start_at(settings, Clock::system()).await
    }

    /// As [`Server::start`], by a clock of the caller's.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_at(settings: Settings, clock: Clock) -> Result<Self, Fault> {
        // What can fail without leaving a trace comes first.
        let certificate = warren_settings::certificate(
            settings.tls_address,
            settings.tls_cert_file.as_deref(),
            settings.tls_key_file.as_deref(),
        )?;
        let location = |state: &Path| Location::of(settings.database_url.as_deref(), state);
        let sockets = Sockets::bind(&settings, certificate.is_some()).await?;
        let addresses = sockets.addresses();
        let access_url = access_url(&settings, addresses)?;
        let oidc = Provider::of(&settings, &access_url)?;
        let state = StateDirectory::open(&settings.state_directory()?, "server")?;
        let store = SqliteStore::open(&location(state.path())?, MIGRATIONS, clock.now()).await?;
        let embedded = maps::embedded(&settings, &access_url, addresses.stun.map(|stun| stun.port()));
        let maps = Arc::new(
            Maps::load(Sources::new(&settings, embedded, state.path()), settings.relay.clone()).await?,
        );

        let seed = io_adapters::entropy::seed();
        let secret = |name: &'static str| secret(&store, name, &seed);
        let hub = Arc::new(Hub::start(HubConfig {
            store: Arc::new(store.clone()),
            clock: clock.clone(),
            relay_key: if settings.derp_server_enable { Some(secret("relay key").await?) } else { None },
            resume_key: secret("resume key").await?,
            direct: !settings.block_direct_connections,
            relay_map: maps.current.borrow().clone(),
            relay: settings.relay.clone(),
            relay_websockets: settings.derp_force_websockets,
            browser_only: settings.browser_only,
            build: BUILD.to_owned(),
            seed: seed.fork("hub"),
        }));
        if let (Some(certificate), Some(relay)) = (&certificate, hub.relay()) {
            let told = certificate.tell_relay(&relay.public());
            told.map_err(|error| warren_settings::bad_certificate(&error))?;
        }
        let key = secret("node key").await?;
        let direct = !settings.block_direct_connections;
        let node = Arc::new(OwnNode::start(key, Arc::clone(&hub), &access_url, direct, BUILD).await);
        let ticket_key = secret("app ticket key").await?;
        let apps = Apps::new(&settings, &access_url, ticket_key, (&node, &hub), clock.now());
        let tunnels = Arc::new(Tunnels::new());
        let probe_key = secret("probe key").await?;
        let started = clock.now();
        let setup_token = setup_token(&store, clock.now()).await?;
        let (stop, stopping) = watch::channel(false);
        let (draining, drains) = watch::channel(false);
        let (stun_down, stun_told) = watch::channel(None);
        let app = Arc::new(App {
            store: Arc::new(store.clone()),
            clock,
            passwords: Default::default(),
            guesses: Default::default(),
            devices: Default::default(),
            key_guesses: Default::default(),
            failed_logins: Default::default(),
            oidc,
            revocations: watch::channel(()).0,
            rates: Rates::new(settings.api_rate_limit),
            trusted_proxies: settings.trusted_proxies.clone(),
            access_url,
            changes: Changes::new(&hub, &tunnels),
            tunnels,
            hub,
            node,
            apps,
            terminals: api::terminal::places(),
            requests: Default::default(),
            health: Health::new(probe_key, settings.derp_force_websockets),
            settings: settings.rows.clone(),
            started: (started, uuid::Uuid::now_v7()),
            relay_map: maps.current.subscribe(),
            draining: drains,
            stun_down: stun_told,
        });
        let mut server = Self {
            app,
            store,
            maps,
            certificate,
            addresses,
            setup_token,
            stop,
            draining,
            tasks: JoinSet::new(),
            _state: state,
        };
        server.serve(sockets, &settings, &stopping, stun_down);
        Ok(server)
    }

    fn serve(
        &mut self,
        sockets: Sockets,
        settings: &Settings,
        stopping: &watch::Receiver<bool>,
        stun_down: watch::Sender<Option<String>>,
    ) {
        let house = House {
            router: api::router(Arc::clone(&self.app)),
            apps: api::app_hosts(Arc::clone(&self.app)),
            wildcard: self.app.apps.wildcard.clone(),
            trusted_proxies: self.app.trusted_proxies.clone(),
            relay: self.app.hub.relay().cloned(),
            draining: self.app.draining.clone(),
        };
        let Sockets { http, tls, stun, metrics: numbers } = sockets;
        let counters = Arc::<StunCounters>::default();
        if let Some(listener) = numbers {
            let sources = metrics::Sources {
                app: Arc::clone(&self.app),
                stun: Arc::clone(&counters),
                certificate: self.certificate.clone(),
                since: Instant::now(),
            };
            self.tasks.spawn(until(stopping.clone(), io_adapters::metrics::serve(listener, sources)));
        }
        if let Some(listener) = http {
            self.tasks.spawn(listen::serve(listener, None, house.clone(), stopping.clone()));
        }
        if let Some(listener) = tls {
            self.tasks.spawn(listen::serve(listener, self.certificate.clone(), house, stopping.clone()));
        }
        if let Some(socket) = stun {
            self.tasks.spawn(until(stopping.clone(), async move {
                socket.serve(&counters, stun_down).await;
            }));
        }
        if let Some(certificate) = self.certificate.clone() {
            self.tasks.spawn(until(stopping.clone(), async move { certificate.watch().await }));
        }
        let app = Arc::clone(&self.app);
        self.tasks.spawn(until(stopping.clone(), housekeeping(app)));
        let (told, hub, clock) =
            (Arc::clone(&self.app.tunnels), Arc::clone(&self.app.hub), self.app.clock.clone());
        self.tasks.spawn(until(stopping.clone(), tunnels::listen(told, hub, clock)));
        self.tasks.spawn(until(stopping.clone(), health::watch(Arc::clone(&self.app))));
        if self.maps.sources.may_change() {
            let (app, maps) = (Arc::clone(&self.app), Arc::clone(&self.maps));
            let every = Duration::from_secs(settings.derp_config_refresh);
            self.tasks.spawn(until(stopping.clone(), async move {
                let (mut next, mut seen) = (Instant::now() + every, maps.sources.stamp());
                loop {
                    tokio::time::sleep(every.min(LOOK_EVERY)).await;
                    let stamp = maps.sources.stamp();
                    if stamp != seen || next <= Instant::now() {
                        (next, seen) = (Instant::now() + every, stamp);
                        maps.refresh(&app).await;
                    }
                }
            }));
        }
    }

    /// Where it listens, with the real ports.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where users and agents find it.
    #[must_use]
    pub fn access_url(&self) -> &AccessUrl {
        &self.app.access_url
    }

    /// The one-time token that makes the owner; none if there is an owner.
    #[must_use]
    pub fn setup_token(&self) -> Option<&str> {
        self.setup_token.as_ref().map(Token::text)
    }

    /// The relay map in force.
    #[must_use]
    pub fn relay_map(&self) -> RelayMap {
        self.maps.current.borrow().clone()
    }

    /// Reads relay maps and certificates again, as at SIGHUP. What is bad is logged, and the old one stays.
    pub async fn reload(&self) {
        self.maps.refresh(&self.app).await;
        if let Some(certificate) = &self.certificate {
            certificate.reload();
        }
    }

    /// Drains and stops: nodes are told and come back later, requests under way end, the database is closed.
    pub async fn stop(mut self) {
        self.draining.send_replace(true);
        self.app.node.stop().await;
        self.app.hub.drain(RETRY_AFTER).await;
        tokio::time::sleep(DRAIN_PAUSE).await;
        note_present(&self.app).await;
        self.stop.send_replace(true);
        self.app.hub.stop().await;
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!("a part of the server failed: {error}");
            }
        }
        self.store.close().await;
    }
}

impl Maps {
    async fn load(sources: Sources, relay: Option<String>) -> Result<Self, Fault> {
        let loaded = sources.load().await?;
        if let Some(warning) = &loaded.warning {
            tracing::warn!("{warning}");
        }
        if let Some(relay) = &relay {
            loaded.map.region_called(relay).map_err(|unknown| unknown_relay(&unknown))?;
        }
        Ok(Self { sources, current: watch::channel(loaded.map).0, relay })
    }

    async fn refresh(&self, app: &App) {
        match self.sources.load().await {
            Ok(loaded) => {
                if let Some(warning) = &loaded.warning {
                    tracing::warn!("{warning}");
                }
                let changed = self.current.send_if_modified(|current| {
                    let changed = *current != loaded.map;
                    *current = loaded.map.clone();
                    changed
                });
                if let Some(unknown) = self.relay.as_ref().and_then(|r| loaded.map.region_called(r).err()) {
                    tracing::warn!(
                        "--relay: {unknown}; nodes use the nearest until there is one of that name"
                    );
                }
                if changed {
                    tracing::info!(regions = loaded.map.regions.len(), "the relay map has changed");
                    app.hub.set_relay_map(loaded.map).await;
                }
            }
            Err(fault) => tracing::error!(code = fault.code, "the old relay map stays: {}", fault.message),
        }
    }
}

/// Bound, but not yet served.
struct Sockets {
    http: Option<TokioListener>,
    tls: Option<TokioListener>,
    stun: Option<StunServer>,
    metrics: Option<TokioListener>,
}

impl Sockets {
    async fn bind(settings: &Settings, with_tls: bool) -> Result<Self, Fault> {
        let mut sockets = Self { http: None, tls: None, stun: None, metrics: None };
        if let Some(address) = settings.http_address.0 {
            sockets.http = Some(listen::bind(address, "http-address")?);
        }
        if let (Some(address), true) = (settings.tls_address.0, with_tls) {
            sockets.tls = Some(listen::bind(address, "tls-address")?);
        }
        if sockets.http.is_none() && sockets.tls.is_none() {
            return Err(Fault::new(
                "NO_LISTENER",
                "the server listens nowhere: both --http-address and --tls-address are \"none\"",
                "give one of them an address",
            ));
        }
        if let Some(address) = settings.metrics_address.0 {
            sockets.metrics = Some(listen::bind(address, "metrics-address")?);
        }
        if let Some(address) = settings.stun_address.0 {
            let second = settings.stun_second_address;
            warren_settings::second_address(address, second)?;
            let bound = StunServer::bind(address, second).await;
            let busy = |error| warren_settings::busy(&error, "UDP", address, "stun-address");
            sockets.stun = Some(bound.map_err(busy)?);
        }
        Ok(sockets)
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

/// The access URL set, or one derived from where the server listens.
fn access_url(settings: &Settings, addresses: Addresses) -> Result<AccessUrl, Fault> {
    let url = match (&settings.access_url, addresses.tls, addresses.http) {
        (Some(url), ..) => url.clone(),
        (None, Some(address), _) => derived(true, address),
        (None, None, Some(address)) => derived(false, address),
        (None, None, None) => {
            return Err(Fault::new(
                "NO_ACCESS_URL",
                "the server has no address",
                "set one with `--access-url URL`",
            ));
        }
    };
    if url.is_loopback() {
        tracing::warn!(
            "only this machine reaches {url}: set `--access-url URL` for users and agents elsewhere"
        );
    }
    if let Some(wildcard) = &settings.wildcard_access_url
        && Wildcard::new(wildcard, &url).label(&url.host).is_some()
    {
        return Err(Fault::new(
            "WILDCARD_URL_INVALID",
            format!("{url} is itself under the wildcard address: it would be an app's"),
            "give apps a domain of their own, such as *.apps.example.com",
        ));
    }
    if settings.derp_server_relay_url.is_some() {
        tracing::warn!("--derp-server-relay-url has no effect yet: several servers need PostgreSQL");
    }
    Ok(url)
}

/// A wildcard stands for the address that this machine would send from.
fn derived(tls: bool, address: SocketAddr) -> AccessUrl {
    let outward = || {
        // Connecting a UDP socket sends nothing: it only asks the routing table. The target is reserved for
        // documentation (RFC 5737).
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        _ => outward().unwrap_or(core::net::Ipv4Addr::LOCALHOST.into()),
    };
    AccessUrl { tls, host: ip.to_string(), port: address.port() }
}

/// The secret of this name, drawn at the first start.
async fn secret(store: &SqliteStore, name: &'static str, seed: &Seed) -> Result<[u8; 32], Fault> {
    store
        .secret(name, seed.fork(name).rng().bytes())
        .await
        .map_err(|error| database_failed(&error.to_string()))
}

/// A new setup token, if there is no owner yet; the one of an earlier start then ends.
async fn setup_token(store: &SqliteStore, now: i64) -> Result<Option<Token>, Fault> {
    let failed = |error: crate::store::StoreError| database_failed(&error.to_string());
    if !store.setup_required().await.map_err(failed)? {
        return Ok(None);
    }
    let token = Token::generate(TokenKind::Setup)?;
    let row = NewToken::of_setup(token.sha256());
    store.add_token(row, now).await.map_err(failed)?;
    Ok(Some(token))
}

fn database_failed(why: &str) -> Fault {
    Fault::new("DATABASE_FAILED", why, "check that the disk has room and the database is writable")
}

fn unknown_relay(unknown: &UnknownRegion) -> Fault {
    Fault::new("RELAY_UNKNOWN", format!("--relay: {unknown}"), "name one of these, or leave --relay out")
}

/// Runs `work` until the server stops.
async fn until(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = listen::stopped(&mut stop) => {}
        () = work => {}
    }
}

async fn housekeeping(app: Arc<App>) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let mut seen = tokio::time::interval(SEEN_EVERY);
    loop {
        tokio::select! {
            biased;
            _ = sweep.tick() => {
                let now = app.clock.now();
                swept("ended sessions", app.store.remove_expired(now - ENDED_KEPT_MS).await);
                swept("old audit entries", app.store.forget_noted(now - AUDIT_KEPT_MS).await);
            }
            _ = seen.tick() => note_present(&app).await,
        }
    }
}

fn swept(what: &str, outcome: Result<u64, crate::store::StoreError>) {
    match outcome {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "swept out {what}"),
        Err(error) => tracing::error!("can't sweep out {what}: {error}"),
    }
}

/// Tells the database who is here.
async fn note_present(app: &App) {
    let agents: Vec<_> = app.hub.present_agents().into_iter().map(|id| (id.0, None)).collect();
    if agents.is_empty() {
        return;
    }
    if let Err(error) = app.store.agents_seen(&agents, app.clock.now()).await {
        tracing::error!("can't note who is here: {error}");
    }
}

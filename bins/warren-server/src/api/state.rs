//! How it stands: relays, health, settings, servers.

use super::account::administering;
use super::bearer::Person;
use super::problem::ApiError;
use crate::app::{App, Shared};
use crate::clock::rfc3339;
use crate::health::{Check, Level, NodeSeen, Seen};
use axum::Json;
use axum::extract::State;
use io_adapters::relay_listener::RelayStatus;
use proto_core::relay_map::{RelayNode, RelayRegion};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;
use warren_settings::{Origin, Row};

/// The relays in use.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Relays {
    /// Ordered by number.
    regions: Vec<Region>,
}

/// Relays in one place.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Region {
    /// Its number.
    id: u64,
    /// Its short name.
    code: String,
    /// Its name for people.
    name: String,
    /// Whether it is this server's own relay.
    embedded: bool,
    /// Degrees north.
    latitude: Option<f64>,
    /// Degrees east.
    longitude: Option<f64>,
    /// The round trip from this server, in milliseconds: of a STUN packet, else of a message through its best relay.
    latency_ms: Option<f64>,
    /// Whether messages pass.
    health: Level,
    /// Connections that are logged in; known of this server's own relay alone.
    clients: Option<u64>,
    /// Bytes of packets from clients.
    bytes_in: Option<u64>,
    /// Bytes of packets to clients.
    bytes_out: Option<u64>,
    /// Its relays and STUN servers.
    nodes: Vec<Node>,
}

/// One relay or STUN server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Node {
    /// Its name.
    name: String,
    /// Its host.
    host: String,
    /// Its STUN server's UDP port; 0 if it has none.
    stun_port: u16,
    /// Its relay's TCP port; 0 if it has none.
    derp_port: u16,
    /// The round trip from this server, in milliseconds.
    latency_ms: Option<f64>,
    /// Whether its STUN server answers; absent if it has none.
    stun: Option<bool>,
    /// Whether a message passes through its relay; absent if it has none.
    derp: Option<bool>,
    /// What does not work.
    error: Option<String>,
}

/// The relays of the map in force, as this server sees them.
#[utoipa::path(
    get,
    path = "/relays",
    tag = "network",
    responses((status = 200, description = "Ordered by number", body = Relays))
)]
pub(super) async fn relays(State(app): State<Shared>, _: Person) -> Json<Relays> {
    let seen = app.health.look(&app).await;
    let own = match app.hub.relay() {
        Some(relay) => relay.status().await,
        None => None,
    };
    let map = app.relay_map.borrow().clone();
    let regions = map.regions.values().map(|region| region_document(&app, region, &seen, own.as_ref()));
    Json(Relays { regions: regions.collect() })
}

fn region_document(app: &App, region: &RelayRegion, seen: &Seen, own: Option<&RelayStatus>) -> Region {
    let seen_of =
        |node: &RelayNode| seen.nodes.get(&(region.id, node.name.clone())).cloned().unwrap_or_default();
    let found: Vec<_> = region.nodes.iter().map(|node| (node, seen_of(node))).collect();
    let is_own =
        |node: &RelayNode| node.host == app.access_url.host && node.derp_port() == app.access_url.port;
    let embedded = own.is_some() && region.relays().any(is_own);
    let own = own.filter(|_| embedded);
    let best = |pick: fn(&NodeSeen) -> &Option<Result<Duration, String>>| {
        found.iter().filter_map(|(_, seen)| pick(seen).as_ref()?.as_ref().ok()).min().copied()
    };
    let latency = best(|seen| &seen.stun).or_else(|| best(|seen| &seen.derp));
    let all = || found.iter().flat_map(|(_, seen)| [&seen.derp, &seen.stun]).flatten();
    let health = match (all().any(Result::is_ok), all().any(Result::is_err)) {
        (_, false) => Level::Ok,
        (true, true) => Level::Warning,
        (false, true) => Level::Error,
    };
    Region {
        id: region.id.0,
        code: region.code.clone(),
        name: region.name.clone(),
        embedded,
        latitude: region.latitude.map(|degrees| degrees.to_f64()),
        longitude: region.longitude.map(|degrees| degrees.to_f64()),
        latency_ms: latency.map(milliseconds),
        health,
        clients: own.map(|own| own.connections as u64),
        bytes_in: own.map(|own| own.forwarded.bytes_in),
        bytes_out: own.map(|own| own.forwarded.bytes_out),
        nodes: found.iter().map(|(node, seen)| node_document(node, seen)).collect(),
    }
}

fn node_document(node: &RelayNode, seen: &NodeSeen) -> Node {
    let works = |result: &Option<Result<Duration, String>>| result.as_ref().map(Result::is_ok);
    let round_trip = |result: &Option<Result<Duration, String>>| result.as_ref()?.as_ref().ok().copied();
    let trouble = |what: &str, result: &Option<Result<Duration, String>>| {
        Some(format!("{what}: {}", result.as_ref()?.as_ref().err()?))
    };
    let errors: Vec<_> =
        [trouble("relay", &seen.derp), trouble("STUN", &seen.stun)].into_iter().flatten().collect();
    Node {
        name: node.name.clone(),
        host: node.host.clone(),
        stun_port: node.stun_port().unwrap_or(0),
        derp_port: if node.stun_only { 0 } else { node.derp_port() },
        latency_ms: round_trip(&seen.stun).or_else(|| round_trip(&seen.derp)).map(milliseconds),
        stun: works(&seen.stun),
        derp: works(&seen.derp),
        error: (!errors.is_empty()).then(|| errors.join("; ")),
    }
}

fn milliseconds(time: Duration) -> f64 {
    // To the microsecond: what is beyond is noise.
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Whether all is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthDocument {
    /// The worst of all checks.
    status: Level,
    /// What was checked.
    checks: Vec<Check>,
}

/// Whether all is well, and if not, what to do.
#[utoipa::path(
    get,
    path = "/health",
    tag = "network",
    responses((status = 200, description = "Looked at now, or a few seconds ago", body = HealthDocument))
)]
pub(super) async fn health(State(app): State<Shared>, _: Person) -> Json<HealthDocument> {
    let seen = app.health.look(&app).await;
    Json(HealthDocument { status: seen.level(), checks: seen.checks.clone() })
}

/// The settings in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SettingsDocument {
    /// In the order of `--help`.
    settings: Vec<Setting>,
}

/// A setting.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Setting {
    /// Its flag without the dashes.
    name: String,
    /// Its value as it was written; secrets are masked.
    value: Option<String>,
    /// `flag`, `environment`, `file` or `default`.
    origin: &'static str,
    /// Its environment variable.
    variable: String,
    /// What it is for.
    help: String,
}

/// What stands for a value that nobody is shown.
const MASK: &str = "********";

impl Setting {
    fn of(row: &Row) -> Self {
        let value = if row.secret { row.value.as_ref().map(|_| MASK.to_owned()) } else { row.value.clone() };
        let origin = match row.origin {
            Origin::Flag => "flag",
            Origin::Variable => "environment",
            Origin::File { .. } => "file",
            Origin::Default => "default",
        };
        let (name, variable, help) = (row.name.clone(), row.variable.clone(), row.help.clone());
        Self { name, value, origin, variable, help }
    }
}

/// The server's settings and where they come from; for owners and admins.
#[utoipa::path(
    get,
    path = "/settings",
    tag = "server",
    responses((status = 200, description = "In the order of the help", body = SettingsDocument))
)]
pub(super) async fn settings(
    State(app): State<Shared>,
    person: Person,
) -> Result<Json<SettingsDocument>, ApiError> {
    administering(&person)?;
    Ok(Json(SettingsDocument { settings: app.settings.iter().map(Setting::of).collect() }))
}

/// The servers of the deployment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Replicas {
    /// Ordered by when they were started.
    replicas: Vec<Replica>,
}

/// A server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Replica {
    /// Its name, another one after each start.
    id: String,
    /// Its version.
    version: &'static str,
    /// Since when it runs.
    started_at: String,
    /// Where users and agents find it.
    access_url: String,
    /// Whether it is the one that answers.
    this: bool,
}

/// The servers of the deployment; for owners and admins.
#[utoipa::path(
    get,
    path = "/replicas",
    tag = "server",
    responses((status = 200, description = "Ordered by when they were started", body = Replicas))
)]
pub(super) async fn replicas(State(app): State<Shared>, person: Person) -> Result<Json<Replicas>, ApiError> {
    administering(&person)?;
    let (started_at, id) = app.started;
    let this = Replica {
        id: id.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: rfc3339(started_at),
        access_url: app.access_url.to_string(),
        this: true,
    };
    Ok(Json(Replicas { replicas: vec![this] }))
}

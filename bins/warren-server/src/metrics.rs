//! What the server has counted, in Prometheus's text form: its own numbers, and its relay's and STUN server's as
//! `warren-relay` tells them.

use crate::app::Shared;
use crate::health::Level;
use axum::http::StatusCode;
use io_adapters::certificate::Certificate;
use io_adapters::metrics::{self, Source, Text};
use io_adapters::process;
use io_adapters::relay_listener::RelayStatus;
use io_adapters::stun_listener::StunCounters;
use proto_core::coord::CoordinatorCounters;
use proto_core::route::Traffic;
use proto_core::wire::control::NodeKind;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The upper ends of the times of requests that are counted apart, in milliseconds: what a person does not notice,
/// notices, waits for and gives up on.
const TIMES_MS: [(u64, &str); 6] =
    [(5, "0.005"), (25, "0.025"), (100, "0.1"), (500, "0.5"), (2_000, "2"), (10_000, "10")];

/// Requests answered, by kind of answer and by time.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// By the first digit of the status.
    answered: [AtomicU64; 5],
    /// Those that took no longer than [`TIMES_MS`], each counted once.
    within: [AtomicU64; TIMES_MS.len()],
    micros: AtomicU64,
}

impl Requests {
    /// One more, from the head of the request to the head of the answer.
    pub(crate) fn count(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, self.answered.len()) - 1;
        self.answered[class].fetch_add(1, Ordering::Relaxed);
        let place = TIMES_MS.iter().position(|(ms, _)| took <= Duration::from_millis(*ms));
        if let Some(place) = place {
            self.within[place].fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Where the numbers come from.
pub(crate) struct Sources {
    pub(crate) app: Shared,
    pub(crate) stun: Arc<StunCounters>,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) since: Instant,
}

impl Source for Sources {
    async fn text(&self) -> String {
        let relay = match self.app.hub.relay() {
            Some(relay) => relay.status().await,
            None => None,
        };
        let nodes = self.app.hub.nodes().await.unwrap_or_default();
        let own = self.app.node.handle().status().await.ok();
        render(&Snapshot { sources: self, relay, nodes, own: own.map(|own| (own.peers.len(), own.traffic)) })
    }
}

/// Everything at one moment.
struct Snapshot<'a> {
    sources: &'a Sources,
    relay: Option<RelayStatus>,
    /// How many nodes are connected, by kind, and what the coordinator has counted.
    nodes: (BTreeMap<NodeKind, u64>, CoordinatorCounters),
    /// The peers and the traffic of the server's own node.
    own: Option<(usize, Traffic)>,
}

fn render(seen: &Snapshot<'_>) -> String {
    let app = &seen.sources.app;
    let mut out = Text::default();
    out.gauge("warren_server_build_info", "The program's version.");
    out.one(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.gauge("warren_server_uptime_seconds", "Time since the start.");
    out.one(&[], seen.sources.since.elapsed().as_secs());
    if let Some(resident) = process::resident_bytes() {
        out.gauge("process_resident_memory_bytes", "Memory in use, resident set.");
        out.one(&[], resident);
    }
    out.gauge("warren_server_draining", "Whether the server is about to stop.");
    out.one(&[], u64::from(*app.draining.borrow()));
    if let Some(end) = seen.sources.certificate.as_ref().and_then(|c| c.identity().not_after()) {
        let help = "When the certificate ends, unix time.";
        out.gauge("warren_server_certificate_expiry_timestamp_seconds", help);
        out.one(&[], end);
    }
    health(&mut out, seen);
    requests(&mut out, &app.requests);
    coordination(&mut out, seen);
    if let Some(relay) = &seen.relay {
        metrics::relay(&mut out, relay);
    }
    metrics::stun(&mut out, &seen.sources.stun, app.stun_down.borrow().is_none());
    out.finish()
}

fn health(out: &mut Text, seen: &Snapshot<'_>) {
    let last = seen.sources.app.health.last();
    out.gauge("warren_server_check", "What each check found last: 0 well, 1 with a warning, 2 failed.");
    let level = |level| match level {
        Level::Ok => 0,
        Level::Warning => 1,
        Level::Error => 2,
    };
    for check in &last.checks {
        out.one(&[("check", check.code), ("name", &check.name)], level(check.status));
    }
    out.gauge(
        "warren_server_relay_round_trip_seconds",
        "A message to oneself through a relay, when it passed last.",
    );
    for ((region, name), node) in &last.nodes {
        if let Some(Ok(time)) = node.derp {
            out.seconds_of(&[("region", &region.to_string()), ("node", name)], time);
        }
    }
}

fn requests(out: &mut Text, requests: &Requests) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    out.counter("warren_server_http_requests_total", "Requests answered, by the kind of answer.");
    for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(&requests.answered) {
        out.one(&[("status", class)], read(count));
    }
    let all: u64 = requests.answered.iter().map(read).sum();
    let within = TIMES_MS.iter().zip(&requests.within).map(|((_, end), count)| (*end, read(count)));
    let sum = Duration::from_micros(read(&requests.micros));
    out.histogram(
        "warren_server_http_seconds",
        "Time from a request to its answer's head.",
        within,
        (all, sum),
    );
}

fn coordination(out: &mut Text, seen: &Snapshot<'_>) {
    let app = &seen.sources.app;
    let (nodes, counters) = &seen.nodes;
    out.gauge("warren_server_nodes", "Nodes connected to the coordinator, by kind.");
    for (kind, name) in
        [(NodeKind::Agent, "agent"), (NodeKind::Client, "client"), (NodeKind::Server, "server")]
    {
        out.one(&[("kind", name)], nodes.get(&kind).copied().unwrap_or(0));
    }
    out.counter("warren_server_node_sessions_total", "Sessions of nodes, by how they began.");
    out.one(&[("began", "new")], counters.welcomed - counters.resumed);
    out.one(&[("began", "resumed")], counters.resumed);
    out.counter("warren_server_node_sessions_ended_total", "Sessions of nodes that ended, by how.");
    out.one(&[("how", "refused")], counters.refused);
    out.one(&[("how", "replaced")], counters.replaced);
    out.one(&[("how", "lost")], counters.lost);
    out.counter("warren_server_node_messages_total", "Coordination messages.");
    out.one(&[("way", "in")], counters.messages_in);
    out.one(&[("way", "out")], counters.messages_out);
    out.gauge("warren_server_tunnels", "Tunnels whose nodes tell of their path, by the way it leads.");
    for (way, count) in ["direct", "relay", "none"].iter().zip(app.tunnels.count()) {
        out.one(&[("path", way)], count);
    }
    if let Some((peers, traffic)) = seen.own {
        out.gauge("warren_server_own_tunnels", "Tunnels of the server's own node to workspaces.");
        out.one(&[], peers as u64);
        out.counter(
            "warren_server_own_bytes_total",
            "Bytes of data between the server's own node and workspaces.",
        );
        out.one(&[("way", "in")], traffic.received_bytes);
        out.one(&[("way", "out")], traffic.sent_bytes);
    }
    out.gauge("warren_server_terminals", "Terminals open in browsers.");
    out.one(&[], app.terminals.count() as u64);
    out.gauge("warren_server_app_requests", "Requests and WebSockets of web apps under way.");
    out.one(&[], app.apps.count() as u64);
    out.gauge("warren_server_followers", "Those who follow live what changes.");
    out.one(&[], app.changes.followers() as u64);
}

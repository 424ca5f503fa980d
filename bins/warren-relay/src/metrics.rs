//! What has been counted, in Prometheus's text form (version 0.0.4), behind a small listener of its own.

use io_adapters::certificate::Certificate;
use io_adapters::process;
use io_adapters::relay_listener::front::{Front, Program};
use io_adapters::relay_listener::http::{Head, answer};
use io_adapters::relay_listener::{RelayHandle, RelayStatus};
use io_adapters::store::MemStore;
use io_adapters::stun_listener::StunCounters;
use io_adapters::transport::{TcpAccept, TokioListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

mod text;

use text::Text;

/// For a whole request and its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at once: whoever watches asks one at a time.
const REQUESTS_MAX: usize = 16;
/// The pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the numbers come from.
pub(crate) struct Sources {
    pub(crate) relay: RelayHandle,
    pub(crate) front: Arc<Front<MemStore>>,
    pub(crate) stun: Arc<StunCounters>,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) program: Program,
    pub(crate) since: Instant,
}

/// Serves them until the future is dropped.
pub(crate) async fn serve(listener: TokioListener, sources: Sources) {
    let sources = Arc::new(sources);
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = serving.join_next() => {}
            accepted = listener.accept(), if serving.len() < REQUESTS_MAX => match accepted {
                Ok((tcp, _)) => {
                    let sources = Arc::clone(&sources);
                    serving.spawn(async move { timeout(PATIENCE, one(tcp, &sources)).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection for metrics could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One request and its answer.
async fn one(mut tcp: TcpStream, sources: &Sources) -> std::io::Result<()> {
    let Ok(Some(head)) = Head::read(&mut tcp, &mut Vec::new()).await else { return Ok(()) };
    let close = ("Connection", "close".to_owned());
    let bytes = match head.path.as_str() {
        "/metrics" if head.method == "GET" => {
            let text = render(&Snapshot::take(sources).await);
            answer("200 OK", &[("Content-Type", CONTENT_TYPE.to_owned()), close], &text)
        }
        "/healthz" | "/readyz" | "/robots.txt" => sources.program.answer(&head).unwrap_or_default(),
        _ => answer("404 Not Found", &[close], "the metrics are at /metrics\n"),
    };
    tcp.write_all(&bytes).await?;
    tcp.shutdown().await
}

/// Everything at one moment.
struct Snapshot<'a> {
    relay: Option<RelayStatus>,
    front: &'a Front<MemStore>,
    stun: &'a StunCounters,
    stun_up: bool,
    certificate_end: Option<u64>,
    draining: bool,
    uptime: Duration,
    resident: Option<u64>,
}

impl<'a> Snapshot<'a> {
    async fn take(sources: &'a Sources) -> Self {
        Self {
            relay: sources.relay.status().await,
            front: &sources.front,
            stun: &sources.stun,
            stun_up: sources.program.stun_down.borrow().is_none(),
            certificate_end: sources.certificate.as_ref().and_then(|c| c.identity().not_after()),
            draining: *sources.program.draining.borrow(),
            uptime: sources.since.elapsed(),
            resident: process::resident_bytes(),
        }
    }
}

fn render(seen: &Snapshot<'_>) -> String {
    let mut out = Text::default();
    out.gauge("warren_relay_build_info", "The program's version.");
    out.one(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.gauge("warren_relay_uptime_seconds", "Time since the start.");
    out.one(&[], seen.uptime.as_secs());
    if let Some(resident) = seen.resident {
        out.gauge("process_resident_memory_bytes", "Memory in use, resident set.");
        out.one(&[], resident);
    }
    out.gauge("warren_relay_draining", "Whether the relay is about to stop.");
    out.one(&[], u64::from(seen.draining));
    if let Some(relay) = &seen.relay {
        clients(&mut out, relay);
        packets(&mut out, relay);
        admission(&mut out, relay);
        mesh(&mut out, relay);
    }
    door(&mut out, seen);
    out.finish()
}

fn clients(out: &mut Text, relay: &RelayStatus) {
    let server = &relay.server;
    out.gauge("warren_relay_clients", "Connections that are logged in.");
    out.one(&[], relay.connections as u64);
    out.gauge("warren_relay_home_clients", "Of these, those that call this relay their home.");
    out.one(&[], relay.home as u64);
    out.counter("warren_relay_connections_total", "Connections that asked for DERP.");
    out.one(&[], server.accepted);
    out.counter("warren_relay_logins_total", "Logins completed.");
    out.one(&[], server.joined);
    out.counter("warren_relay_duplicate_logins_total", "Logins of a key that was connected already.");
    out.one(&[], server.duplicates);
    out.counter("warren_relay_health_total", "Words to clients of a problem with them, or of its end.");
    out.one(&[], server.health);
    out.counter("warren_relay_refused_total", "Connections and logins that were not let in, by reason.");
    out.one(&[("reason", "full")], server.full);
    out.one(&[("reason", "too_many_of_one_key")], server.crowded);
    if let Some(gate) = &relay.gate {
        let names = ["not_listed", "denied", "verifier_unreachable", "busy"];
        for (name, count) in names.iter().zip(gate.counters.refused) {
            out.one(&[("reason", name)], count);
        }
    }
    out.counter("warren_relay_closed_total", "Connections that the relay closed, by reason.");
    out.one(&[("reason", "late_login")], server.late);
    out.one(&[("reason", "wrong_key")], server.wrong_key);
    out.one(&[("reason", "frame_too_long")], server.too_long);
    out.one(&[("reason", "broken_protocol")], server.broken);
    out.one(&[("reason", "stalled_reader")], relay.ended.stalled);
    out.one(&[("reason", "unreachable")], relay.ended.unreachable);
    out.one(&[("reason", "expelled")], server.expelled);
    out.counter("warren_relay_truncated_frames_total", "Clients that left in the middle of a frame.");
    out.one(&[], relay.ended.truncated);
}

fn packets(out: &mut Text, relay: &RelayStatus) {
    let passed = &relay.forwarded;
    let by_kind = |out: &mut Text, all: u64, disco: u64| {
        out.one(&[("kind", "disco")], disco);
        out.one(&[("kind", "data")], all - disco);
    };
    out.counter("warren_relay_packets_received_total", "Packets from clients.");
    by_kind(out, passed.packets_in, passed.disco_in);
    out.counter("warren_relay_bytes_received_total", "Bytes of these packets, without frame headers.");
    by_kind(out, passed.bytes_in, passed.disco_bytes_in);
    out.counter("warren_relay_packets_sent_total", "Packets handed to clients' connections.");
    by_kind(out, passed.packets_out, passed.disco_out);
    out.counter("warren_relay_bytes_sent_total", "Bytes handed to clients' connections, with frame headers.");
    by_kind(out, passed.bytes_out - passed.control_bytes_out, passed.disco_bytes_out);
    out.one(&[("kind", "control")], passed.control_bytes_out);
    out.counter("warren_relay_packets_dropped_total", "Packets dropped.");
    let reasons = ["unknown_destination", "gone", "queue_full", "unknown_forwarded", "queues_full"];
    for (reason, kinds) in reasons.iter().zip(passed.dropped) {
        for (kind, count) in ["disco", "data"].iter().zip(kinds) {
            out.one(&[("reason", reason), ("kind", kind)], count);
        }
    }
    out.counter("warren_relay_peer_gone_total", "Words to clients that a peer is not there.");
    out.one(&[("reason", "disconnected")], relay.server.peer_gone);
    out.one(&[("reason", "not_here")], passed.not_here);
    out.counter("warren_relay_pings_total", "Pings answered.");
    out.one(&[], relay.server.pings);
    out.counter("warren_relay_unknown_frames_total", "Frames of unknown kinds, skipped.");
    out.one(&[], relay.server.unknown);
    out.gauge("warren_relay_queue_bytes", "Bytes that wait to be written to clients.");
    out.one(&[], relay.queued as u64);
    let (times, held) = relay.held;
    out.counter("warren_relay_rate_limited_total", "How often a client was not read since it was too fast.");
    out.one(&[], times);
    out.counter("warren_relay_rate_limited_seconds_total", "For how long, over all clients.");
    out.seconds(held);
    let (times, hushed) = relay.hushed;
    out.counter(
        "warren_relay_words_limited_total",
        "How often a client was not read since it said too much beside packets.",
    );
    out.one(&[], times);
    out.counter("warren_relay_words_limited_seconds_total", "For how long, over all clients.");
    out.seconds(hushed);
}

fn mesh(out: &mut Text, relay: &RelayStatus) {
    let Some(mesh) = &relay.mesh else { return };
    let (server, passed) = (&relay.server, &relay.forwarded);
    out.gauge("warren_relay_mesh_up", "Other relays of the mesh that this one is connected to.");
    out.one(&[], mesh.up as u64);
    out.gauge(
        "warren_relay_mesh_watchers",
        "Other relays of the mesh that are told who comes and goes here.",
    );
    out.one(&[], mesh.watchers as u64);
    out.gauge("warren_relay_mesh_keys", "Keys that are at other relays of the mesh.");
    out.one(&[], mesh.elsewhere as u64);
    out.counter("warren_relay_mesh_logins_total", "Logins of other relays of the mesh.");
    out.one(&[], server.mesh_joined);
    out.counter("warren_relay_mesh_packets_total", "Packets from and to other relays of the mesh.");
    out.one(&[("way", "in")], passed.mesh_in);
    out.one(&[("way", "out")], passed.mesh_out);
    out.counter("warren_relay_mesh_closed_total", "Connections closed at another relay's word.");
    out.one(&[], server.mesh_closed);
}

fn admission(out: &mut Text, relay: &RelayStatus) {
    let Some(gate) = &relay.gate else { return };
    let counters = &gate.counters;
    out.gauge("warren_relay_admitted_keys", "Keys remembered with the verifier's last yes.");
    out.one(&[], gate.admitted as u64);
    out.gauge("warren_relay_verifier_up", "Whether the verifier gave an answer when it was last asked.");
    out.one(&[], u64::from(gate.reachable));
    out.counter("warren_relay_verifier_answers_total", "Questions to the verifier, by its answer.");
    out.one(&[("answer", "yes")], counters.yes);
    out.one(&[("answer", "no")], counters.no);
    out.one(&[("answer", "not_now")], counters.busy);
    out.one(&[("answer", "none")], counters.unreachable);
    out.counter("warren_relay_admitted_total", "Logins let in without the verifier's word.");
    out.one(&[("by", "list")], counters.listed);
    out.one(&[("by", "earlier_yes")], counters.trusted);
    out.counter(
        "warren_relay_expelled_keys_total",
        "Keys expelled since they may not use the relay any more.",
    );
    out.one(&[], counters.expelled);
}

fn door(out: &mut Text, seen: &Snapshot<'_>) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let front = seen.front.counters();
    out.counter("warren_relay_http_connections_total", "TCP connections accepted.");
    out.one(&[], read(&front.accepted));
    out.counter("warren_relay_websocket_requests_total", "Requests for DERP inside a WebSocket.");
    out.one(&[], read(&front.websockets));
    let lobby = seen.front.lobby().status();
    out.gauge("warren_relay_waiting_connections", "Connections that have not logged in.");
    out.one(&[], lobby.waiting as u64);
    out.counter("warren_relay_http_failed_total", "TCP connections closed before a login, by reason.");
    out.one(&[("reason", "tls_handshake")], read(&front.tls_failed));
    out.one(&[("reason", "slow_tls_handshake")], read(&front.slow_tls));
    out.one(&[("reason", "slow_request")], read(&front.slow_request));
    out.one(&[("reason", "unread_answer")], read(&front.unread));
    out.one(&[("reason", "malformed")], read(&front.malformed));
    out.one(&[("reason", "crowded_out")], lobby.crowded_out);
    out.one(&[("reason", "no_place")], lobby.turned_away);
    if let Some(end) = seen.certificate_end {
        out.gauge(
            "warren_relay_certificate_expiry_timestamp_seconds",
            "When the certificate ends, unix time.",
        );
        out.one(&[], end);
    }
    out.gauge("warren_relay_stun_up", "Whether the STUN server can receive.");
    out.one(&[], u64::from(seen.stun_up));
    let (answered, lost) = (read(&seen.stun.answered), read(&seen.stun.lost));
    out.counter("warren_relay_stun_requests_total", "STUN requests.");
    out.one(&[], answered + lost);
    out.counter("warren_relay_stun_answers_total", "STUN requests answered.");
    out.one(&[], answered);
    out.counter("warren_relay_stun_bad_total", "Datagrams at the STUN server that are not answered.");
    out.one(&[], read(&seen.stun.ignored));
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_adapters::relay_listener::MeshStatus;
    use io_adapters::relay_listener::gate::GateStatus;

    #[test]
    fn every_number_has_its_help_and_its_place() {
        let mut relay = RelayStatus { connections: 3, home: 2, ..RelayStatus::default() };
        relay.server.joined = 5;
        relay.forwarded.packets_in = 100;
        relay.forwarded.disco_in = 10;
        relay.forwarded.bytes_out = 5_000;
        relay.forwarded.disco_bytes_out = 1_000;
        relay.forwarded.control_bytes_out = 500;
        relay.forwarded.dropped = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]];
        relay.held = (7, Duration::from_micros(1_250_000));
        relay.hushed = (8, Duration::from_micros(2_000_000));
        let mut gate = GateStatus { admitted: 8, reachable: true, ..GateStatus::default() };
        gate.counters.refused = [1, 2, 3, 4];
        relay.gate = Some(gate);
        relay.mesh = Some(MeshStatus { up: 2, watchers: 1, elsewhere: 40 });
        relay.forwarded.mesh_in = 11;
        let (front, stun) = (Front::new(None, None), StunCounters::default());
        stun.answered.store(9, Ordering::Relaxed);
        stun.lost.store(1, Ordering::Relaxed);
        let seen = Snapshot {
            relay: Some(relay),
            front: &front,
            stun: &stun,
            stun_up: true,
            certificate_end: Some(1_800_000_000),
            draining: false,
            uptime: Duration::from_secs(60),
            resident: Some(20_000_000),
        };
        insta::assert_snapshot!(render(&seen));
    }
}

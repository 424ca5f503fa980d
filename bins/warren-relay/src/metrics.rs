//! What has been counted, in Prometheus's text form.

use io_adapters::certificate::Certificate;
use io_adapters::metrics::{self, Source, Text};
use io_adapters::process;
use io_adapters::relay_listener::front::{Front, Program};
use io_adapters::relay_listener::http::Head;
use io_adapters::relay_listener::{RelayHandle, RelayStatus};
use io_adapters::store::MemStore;
use io_adapters::stun_listener::StunCounters;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Where the numbers come from.
pub(crate) struct Sources {
    pub(crate) relay: RelayHandle,
    pub(crate) front: Arc<Front<MemStore>>,
    pub(crate) stun: Arc<StunCounters>,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) program: Program,
    pub(crate) since: Instant,
}

impl Source for Sources {
    async fn text(&self) -> String {
        render(&Snapshot::take(self).await)
    }

    fn page(&self, head: &Head) -> Option<Vec<u8>> {
        match head.path.as_str() {
            "/healthz" | "/readyz" | "/robots.txt" => self.program.answer(head),
            _ => None,
        }
    }
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
        metrics::relay(&mut out, relay);
    }
    door(&mut out, seen);
    out.finish()
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
    metrics::stun(out, seen.stun, seen.stun_up);
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

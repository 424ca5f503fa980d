//! What a relay and a STUN server have counted, whichever program they run in.

use super::Text;
use crate::relay_listener::RelayStatus;
use crate::stun_listener::StunCounters;
use std::sync::atomic::{AtomicU64, Ordering};

/// A relay's clients, packets, admissions and mesh.
pub fn relay(out: &mut Text, relay: &RelayStatus) {
    clients(out, relay);
    packets(out, relay);
    admission(out, relay);
    mesh(out, relay);
}

/// A STUN server's questions and answers.
pub fn stun(out: &mut Text, counters: &StunCounters, up: bool) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    out.gauge("warren_relay_stun_up", "Whether the STUN server can receive.");
    out.one(&[], u64::from(up));
    let (answered, lost) = (read(&counters.answered), read(&counters.lost));
    out.counter("warren_relay_stun_requests_total", "STUN requests.");
    out.one(&[], answered + lost);
    out.counter("warren_relay_stun_answers_total", "STUN requests answered.");
    out.one(&[], answered);
    out.counter("warren_relay_stun_bad_total", "Datagrams at the STUN server that are not answered.");
    out.one(&[], read(&counters.ignored));
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

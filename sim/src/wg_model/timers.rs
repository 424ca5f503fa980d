//! WireGuard's timers (whitepaper, 6.1 to 6.5) as boringtun 0.7.1 keeps them.

use super::session::REJECT_AFTER;
use proto_core::time::{Duration, Time};

const REKEY_AFTER: Duration = Duration::from_secs(120);
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const REKEY_ATTEMPT: Duration = Duration::from_secs(90);
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What a timer asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// 90 s without an answer: forget everything.
    GiveUp,
    /// Begin a handshake, or repeat the initiation.
    Initiate,
    /// Send an empty packet.
    Keepalive,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    initiator: bool,
    established: Option<Time>,
    handshake_started: Time,
    initiation_sent: Time,
    packet_sent: Time,
    packet_received: Time,
    data_sent: Option<Time>,
    data_received: Option<Time>,
    want_handshake: bool,
    want_keepalive: bool,
}

impl Timers {
    pub(super) fn initiated(&mut self, now: Time, fresh: bool) {
        if fresh {
            self.handshake_started = now;
        }
        self.initiation_sent = now;
        self.note_sent(now);
    }

    /// We answered an initiation.
    pub(super) fn answered(&mut self, now: Time) {
        self.note_received(now);
        self.note_sent(now);
        self.established = Some(now);
        self.initiator = false;
    }

    pub(super) fn established(&mut self, now: Time, initiator: bool) {
        if initiator {
            self.note_received(now);
            self.established = Some(now);
        }
        self.initiator = initiator;
    }

    pub(super) fn sent(&mut self, now: Time, data: bool) {
        self.note_sent(now);
        if data {
            self.data_sent = Some(now);
        }
    }

    pub(super) fn received(&mut self, now: Time, data: bool) {
        self.note_received(now);
        if data {
            self.data_received = Some(now);
        }
    }

    pub(super) fn handshake_due(&mut self) {
        self.want_handshake = false;
    }

    pub(super) fn keepalive_due(&mut self, now: Time) {
        self.want_keepalive = false;
        self.packet_sent = now;
    }

    fn note_sent(&mut self, now: Time) {
        self.packet_sent = now;
        self.want_handshake = true;
        self.want_keepalive = false;
    }

    fn note_received(&mut self, now: Time) {
        self.packet_received = now;
        self.want_keepalive = true;
        self.want_handshake = false;
    }

    /// The next thing due; `waiting` says that an initiation waits for its answer, `usable` that there is a
    /// session to send a keepalive on.
    pub(super) fn next(&self, waiting: bool, usable: bool) -> Option<(Time, Due)> {
        if waiting {
            let give_up = (self.handshake_started + REKEY_ATTEMPT, Due::GiveUp);
            let repeat = (self.initiation_sent + REKEY_TIMEOUT, Due::Initiate);
            return Some(if repeat.0 < give_up.0 { repeat } else { give_up });
        }
        let established = self.established?;
        let mut due: Vec<(Time, Due)> = Vec::new();
        if self.initiator && usable {
            if let Some(sent) = self.data_sent.filter(|sent| *sent > established) {
                due.push(((established + REKEY_AFTER).max(sent), Due::Initiate));
            }
            if let Some(received) = self.data_received.filter(|received| *received > established) {
                let age = REJECT_AFTER - KEEPALIVE - REKEY_TIMEOUT;
                due.push(((established + age).max(received), Due::Initiate));
            }
        }
        if self.want_handshake && self.data_sent.is_some_and(|sent| sent > self.packet_received) {
            due.push((self.packet_received + KEEPALIVE + REKEY_TIMEOUT, Due::Initiate));
        }
        if usable
            && self.want_keepalive
            && self.data_received.is_some_and(|received| received > self.packet_sent)
        {
            due.push((self.packet_sent + KEEPALIVE, Due::Keepalive));
        }
        due.into_iter().min_by_key(|(at, _)| *at)
    }
}

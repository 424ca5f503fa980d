//! WireGuard's timers (whitepaper, 6.1 to 6.5) as boringtun 0.7.1 keeps them behind `io_adapters::wg`.
//!
//! There they run every quarter of a second, and everything is stamped with their latest run. So is it here,
//! but without the runs: the stamp of a moment is computed, and so is the run at which something will be due.

use proto_core::time::{Duration, Time};

/// How often the production engine runs a peer's timers.
const TICK_US: u64 = 250_000;
const TICK: Duration = Duration::from_micros(TICK_US);
const REKEY_AFTER: Duration = Duration::from_secs(120);
const REJECT_AFTER: Duration = Duration::from_secs(180);
const REKEY_ATTEMPT: Duration = Duration::from_secs(90);
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Without a handshake for so long, everything is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3 * 180);

/// What a timer asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// 90 s without an answer, or 540 s without a handshake: forget everything.
    GiveUp,
    /// Begin a handshake, or repeat the initiation.
    Initiate,
    /// Send an empty packet.
    Keepalive,
}

#[derive(Debug)]
pub(super) struct Timers {
    /// The first run.
    phase: Time,
    /// When everything was last forgotten; no stamp is earlier.
    cleared: Time,
    /// The latest moment at which something happened.
    touched: Time,
    /// Whether the latest handshake was ours to begin.
    initiator: bool,
    established: Time,
    handshake_started: Time,
    packet_sent: Time,
    packet_received: Time,
    data_sent: Time,
    data_received: Time,
    want_handshake: bool,
    want_keepalive: bool,
}

impl Timers {
    pub(super) const fn new(now: Time) -> Self {
        Self {
            phase: now,
            cleared: now,
            touched: now,
            initiator: false,
            established: now,
            handshake_started: now,
            packet_sent: now,
            packet_received: now,
            data_sent: now,
            data_received: now,
            want_handshake: false,
            want_keepalive: false,
        }
    }

    /// Everything begins anew, by the same runs.
    pub(super) const fn clear(&mut self, now: Time) {
        *self = Self { phase: self.phase, initiator: self.initiator, ..Self::new(now) };
    }

    /// The latest run at or before `now`.
    const fn run_before(&self, now: Time) -> Time {
        let since = now.as_micros().saturating_sub(self.phase.as_micros());
        Time::from_micros(self.phase.as_micros() + since / TICK_US * TICK_US)
    }

    /// The first run at or after `at`.
    fn run_after(&self, at: Time) -> Time {
        let before = self.run_before(at);
        if before < at { before + TICK } else { before }
    }

    /// How `now` is written down.
    pub(super) fn stamp(&mut self, now: Time) -> Time {
        self.touched = self.touched.max(now);
        self.run_before(now).max(self.cleared)
    }

    pub(super) fn initiated(&mut self, now: Time, fresh: bool) {
        if fresh {
            self.handshake_started = self.stamp(now);
        }
        self.sent(now, false);
    }

    /// A handshake is complete, or we have answered one.
    pub(super) fn established(&mut self, now: Time, initiator: bool) {
        self.received(now, false);
        if !initiator {
            self.sent(now, false);
        }
        self.established = self.stamp(now);
        self.initiator = initiator;
    }

    pub(super) fn sent(&mut self, now: Time, data: bool) {
        self.packet_sent = self.stamp(now);
        self.want_handshake = true;
        self.want_keepalive = false;
        if data {
            self.data_sent = self.packet_sent;
        }
    }

    pub(super) fn received(&mut self, now: Time, data: bool) {
        self.packet_received = self.stamp(now);
        self.want_keepalive = true;
        self.want_handshake = false;
        if data {
            self.data_received = self.packet_received;
        }
    }

    /// The run at which a session that was begun then (by its stamp) ends: the first after its time.
    pub(super) fn session_ends(&self, begun: Time) -> Time {
        self.run_after(begun + REJECT_AFTER + Duration::from_micros(1))
    }

    /// A run of the timers at `now`: what to do. `initiation` says when the initiation that waits for its
    /// answer was sent.
    pub(super) fn run(&mut self, initiation: Option<Time>, now: Time) -> Option<Due> {
        let (at, due) = self.next(initiation);
        self.touched = self.touched.max(now);
        (at <= now).then_some(due)
    }

    /// The next thing due and the run that does it.
    pub(super) fn next(&self, initiation: Option<Time>) -> (Time, Due) {
        let mut first = (self.established + FORGET_AFTER, Due::GiveUp);
        // Of what is due at one run only the first in this order is done.
        let mut due = |at: Time, what| {
            if self.run_at(at) < self.run_at(first.0) {
                first = (at, what);
            }
        };
        if let Some(sent) = initiation {
            due(self.handshake_started + REKEY_ATTEMPT, Due::GiveUp);
            due(sent + REKEY_TIMEOUT, Due::Initiate);
        } else {
            if self.initiator && self.data_sent > self.established {
                due(self.established + REKEY_AFTER, Due::Initiate);
            }
            if self.initiator && self.data_received > self.established {
                due(self.established + REJECT_AFTER - KEEPALIVE - REKEY_TIMEOUT, Due::Initiate);
            }
            if self.want_handshake && self.data_sent > self.packet_received {
                due(self.packet_received + KEEPALIVE + REKEY_TIMEOUT, Due::Initiate);
            }
            if self.want_keepalive && self.data_received > self.packet_sent {
                due(self.packet_sent + KEEPALIVE, Due::Keepalive);
            }
        }
        (self.run_at(first.0), first.1)
    }

    /// The run that does what is due at `at`: none that has been.
    fn run_at(&self, at: Time) -> Time {
        self.run_after(at).max(self.run_before(self.touched) + TICK)
    }
}

//! One QUIC connection to a peer, and how it is kept from falling asleep.
//!
//! # Outages
//!
//! There is no idle timeout, and quinn-proto's probe timer backs off without end: after an outage of a minute it
//! sleeps for most of another. Worse, it can lock itself up: while what fills the congestion window can only be
//! acknowledged after the handshake, a lost last message of the handshake finds no room in the window. So a
//! connection that waits for acknowledgements and has had none for [`SILENCE`] is woken, again and again: its
//! timer is fired early, and [`WAKE_PACKETS`] packets may go whatever is in flight.

use super::config::STREAMS_FIRST;
use super::controller::Steering;
use super::noop_crypto::Hello;
use quinn_proto::{Connection, Side, Transmit};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long nothing may be acknowledged while something is outstanding before a connection is woken.
const SILENCE: Duration = Duration::from_secs(1);
/// Packets that may then go: two probes, and what else is overdue.
const WAKE_PACKETS: usize = 4;

/// One QUIC connection of a peer.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) steering: Arc<Steering>,
    /// Whether we are its client.
    pub(super) client: bool,
    /// What the other end said of itself, once it has.
    pub(super) hello: Option<Hello>,
    /// Streams that the peer may have open.
    pub(super) permitted: u32,
    /// When it began to wait: something was sent, acknowledged, or it was woken. None if it waits for nothing.
    waits: Option<Instant>,
    /// Whether the next packets may go whatever is in flight.
    woken: bool,
    /// Whether it may have something to tell.
    pub(super) dirty: bool,
}

impl Link {
    /// A connection that has just begun.
    pub(super) fn new(connection: Connection, steering: Arc<Steering>, hello: Option<Hello>) -> Self {
        let client = connection.side() == Side::Client;
        Self {
            connection,
            steering,
            client,
            hello,
            permitted: STREAMS_FIRST,
            waits: None,
            woken: false,
            dirty: true,
        }
    }

    /// When its timers are to be fired next.
    pub(super) fn due(&mut self, now: Instant) -> Option<Instant> {
        let acked = self.steering.take_acked();
        let Some(due) = self.connection.poll_timeout() else {
            self.waits = None;
            return None;
        };
        let since = if acked { now } else { self.waits.unwrap_or(now) };
        self.waits = Some(since);
        Some(due.min(since + SILENCE))
    }

    /// Fires what is due, or wakes it.
    pub(super) fn expire(&mut self, now: Instant) {
        let Some(due) = self.connection.poll_timeout() else { return };
        if due <= now {
            self.connection.handle_timeout(now);
        } else if self.waits.is_some_and(|since| now >= since + SILENCE) {
            self.connection.handle_timeout(due);
            self.waits = Some(now);
            self.woken = true;
        } else {
            return;
        }
        self.dirty = true;
    }

    /// Packets to send, at most `max`.
    pub(super) fn transmit(&mut self, max: usize, out: &mut Vec<u8>, now: Instant) -> Option<Transmit> {
        let transmit = if std::mem::take(&mut self.woken) {
            self.steering.set_open(true);
            let transmit = self.connection.poll_transmit(now, max.min(WAKE_PACKETS), out);
            self.steering.set_open(false);
            transmit
        } else {
            self.connection.poll_transmit(now, max, out)
        };
        self.dirty |= transmit.is_some();
        transmit
    }
}

/// Room for packets that are to be sent at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// How many at most.
    pub(crate) packets: usize,
    /// How many bytes in all, with what is put around each.
    pub(crate) bytes: usize,
    /// Bytes that are put around each.
    pub(crate) around: usize,
}

impl Room {
    /// How many packets of `len` bytes; never none, since a packet may be shorter.
    pub(super) fn packets(self, len: u16) -> usize {
        self.packets.min(self.bytes / (usize::from(len) + self.around)).max(1)
    }
}

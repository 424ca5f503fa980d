//! The congestion controller of a tunnel's connection: quinn's CUBIC, kept from overrunning the receiving
//! socket, and able to let a few packets go when nothing moves any more.

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, CubicConfig};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes that may be in flight before anything is known of the path: 32 packets of 1,200 bytes, as the reference
/// measurements had it.
const INITIAL_WINDOW: u64 = 32 * 1_200;
/// The receive buffer that is assumed of a peer that does not say: Linux's default (`net.core.rmem_default`).
const DEFAULT_BUFFER: u64 = 212_992;
/// Half of the peer's receive buffer may be in flight each time this passes. Within a millisecond a receiver
/// that runs at all comes round to read; at longer round trips the window must follow bandwidth times delay.
const DRAIN: Duration = Duration::from_millis(1);
/// However small a buffer a peer names, this much may be in flight: two dozen packets.
const CAP_MIN: u64 = 32 * 1_200;

/// What the owner of a connection may tell its controller, and see of it.
#[derive(Debug)]
pub(super) struct Steering {
    /// Bytes that the peer's sockets keep unread.
    buffer: AtomicU64,
    /// Whether to let packets go whatever is in flight.
    open: AtomicBool,
    /// Whether anything was acknowledged since it was last asked.
    acked: AtomicBool,
    window: AtomicU64,
}

impl Steering {
    /// For a connection whose peer has not said anything yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            buffer: AtomicU64::new(DEFAULT_BUFFER),
            open: AtomicBool::new(false),
            acked: AtomicBool::new(false),
            window: AtomicU64::new(INITIAL_WINDOW),
        })
    }

    /// The peer said what its sockets keep unread, in bytes; 0 if it does not know.
    pub(super) fn set_buffer(&self, bytes: u32) {
        if bytes > 0 {
            self.buffer.store(u64::from(bytes), Relaxed);
        }
    }

    /// Lifts the window, and quinn's pacing with it, for as long as it is true.
    pub(super) fn set_open(&self, open: bool) {
        self.open.store(open, Relaxed);
    }

    /// Whether anything was acknowledged since the last call.
    pub(super) fn take_acked(&self) -> bool {
        self.acked.swap(false, Relaxed)
    }

    /// Bytes that may be in flight, as last computed.
    pub(super) fn window(&self) -> u64 {
        self.window.load(Relaxed)
    }
}

/// Makes the controllers of one connection.
pub(super) struct Factory {
    pub(super) steering: Arc<Steering>,
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(INITIAL_WINDOW);
        Box::new(Capped {
            inner: Arc::new(cubic).build(now, current_mtu),
            steering: self.steering.clone(),
            rtt: Duration::ZERO,
        })
    }
}

struct Capped {
    inner: Box<dyn Controller>,
    steering: Arc<Steering>,
    rtt: Duration,
}

impl Capped {
    /// Half of the peer's receive buffer for each [`DRAIN`] of round-trip time: half, since the kernel counts
    /// its own bookkeeping in, and several connections may share the socket.
    fn cap(&self) -> u64 {
        let half = (self.steering.buffer.load(Relaxed) / 2).max(CAP_MIN);
        let drains = u64::try_from(self.rtt.as_micros() / DRAIN.as_micros()).unwrap_or(u64::MAX);
        half.saturating_mul(drains.max(1))
    }

    fn publish(&self) {
        self.steering.window.store(self.inner.window().min(self.cap()), Relaxed);
    }
}

impl Controller for Capped {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.rtt = rtt.min();
        self.steering.acked.store(true, Relaxed);
        // What the cap holds back says nothing about the path, so the window must not grow on it.
        let limited = app_limited || self.inner.window() > self.cap();
        self.inner.on_ack(now, sent, bytes, limited, rtt);
        self.publish();
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, persistent, lost_bytes);
        self.publish();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.steering.open.load(Relaxed) {
            // What does not fit in 32 bits is not paced either.
            return 2 * u64::from(u32::MAX);
        }
        self.inner.window().min(self.cap())
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), steering: self.steering.clone(), rtt: self.rtt })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capped(buffer: u32) -> Capped {
        let steering = Steering::new();
        steering.set_buffer(buffer);
        let cubic = Arc::new(CubicConfig::default()).build(Instant::now(), 1_200);
        Capped { inner: cubic, steering, rtt: Duration::ZERO }
    }

    #[test]
    fn near_zero_round_trip_half_the_receive_buffer_is_the_most_in_flight() {
        let mut controller = capped(212_992);
        assert_eq!(controller.cap(), 106_496);
        controller.rtt = Duration::from_micros(900);
        assert_eq!(controller.cap(), 106_496);
        controller.rtt = Duration::from_millis(50);
        assert_eq!(controller.cap(), 50 * 106_496);
        assert_eq!(capped(1).cap(), CAP_MIN);
    }

    #[test]
    fn an_open_window_lets_everything_go() {
        let controller = capped(0);
        let usual = controller.window();
        controller.steering.set_open(true);
        assert!(controller.window() > u64::from(u32::MAX));
        controller.steering.set_open(false);
        assert_eq!(controller.window(), usual);
    }
}

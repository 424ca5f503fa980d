//! How fast bytes may pass: a token bucket that is charged for what has passed and then says how long to wait. A
//! relay that waits before it reads on slows the sender by TCP itself, and drops nothing.

use crate::limits;
use crate::time::{Duration, Time};

/// A token bucket, kept as the moment at which it is full again. What shares one and waits as told is served in
/// turn: whoever charges later waits longer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// Bytes a second, never 0.
    rate: u64,
    /// What may pass at once after a silence, in time.
    burst: Duration,
    full_at: Time,
}

impl Bucket {
    /// A full bucket of this many bytes a second; none if that is 0, which stands for no limit.
    #[must_use]
    pub fn new(rate: u64, now: Time) -> Option<Self> {
        let burst = limits::RATE_BURST_MIN.max(rate / limits::RATE_BURST_SHARE);
        (rate > 0).then(|| Self { rate, burst: time_of(burst, rate), full_at: now })
    }

    /// Charges for bytes that have passed; how long to wait before more may pass.
    pub fn charge(&mut self, bytes: usize, now: Time) -> Duration {
        self.full_at = self.full_at.max(now) + time_of(bytes as u64, self.rate);
        self.full_at.since(now).saturating_sub(self.burst)
    }

    /// How many bytes to pass at a time, so that the flow is even: a few milliseconds' worth.
    #[must_use]
    pub fn piece(&self) -> usize {
        let piece = self.rate / limits::RATE_PIECES_A_SECOND;
        usize::try_from(piece).unwrap_or(usize::MAX).max(limits::RATE_PIECE_MIN)
    }
}

/// How long bytes take at a rate.
fn time_of(bytes: u64, rate: u64) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_holds() {
        assert_eq!(Bucket::new(0, Time::ZERO), None);
        let mut bucket = Bucket::new(1_000_000, Time::ZERO).unwrap();
        let (mut now, mut passed) = (Time::ZERO, 0);
        while now < Time::from_secs(10) {
            let wait = bucket.charge(10_000, now);
            passed += 10_000;
            assert!(passed > 100_000 || wait.is_zero(), "the burst is a tenth of a second");
            now += wait.max(Duration::from_micros(1));
        }
        assert!((10_090_000..=10_130_000).contains(&passed), "{passed}");
        // After a silence, however long, it is one burst that passes.
        now += Duration::from_secs(3_600);
        assert!(bucket.charge(100_000, now).is_zero());
        assert_eq!(bucket.charge(1_000, now), Duration::from_millis(1));
    }

    #[test]
    fn the_longest_packet_always_passes_and_extremes_are_harmless() {
        let mut slow = Bucket::new(1, Time::ZERO).unwrap();
        assert!(slow.charge(65_536 + 32, Time::ZERO).is_zero());
        assert!(slow.charge(usize::MAX, Time::ZERO) > Duration::from_secs(1_000_000));
        let mut fast = Bucket::new(u64::MAX, Time::ZERO).unwrap();
        assert!(fast.charge(1 << 40, Time::ZERO).is_zero());
        assert!(slow.piece() >= 1_024 && fast.piece() > 1 << 20);
    }

    #[test]
    fn who_shares_a_bucket_gets_equal_parts_whatever_it_sends() {
        // One sender is always ready, three others too, and one sends a little now and then.
        let mut bucket = Bucket::new(400_000, Time::ZERO).unwrap();
        let mut ready = [Time::ZERO; 5];
        let mut passed = [0; 5];
        while let Some((at, who)) =
            ready.iter().copied().zip(0..).min().filter(|(at, _)| *at < Time::from_secs(20))
        {
            let bytes = if who == 4 { 100 } else { bucket.piece() };
            passed[who] += bytes;
            ready[who] = at + bucket.charge(bytes, at) + Duration::from_micros(1);
            if who == 4 {
                ready[who] += Duration::from_millis(100);
            }
        }
        for bytes in &passed[..4] {
            assert!((1_900_000..2_100_000).contains(bytes), "{passed:?}");
        }
        assert!(passed[4] > 10_000, "{passed:?}");
    }
}

//! How long to wait before trying again: grows with each failure, and no two nodes agree on it.

use crate::limits::{RECONNECT_MAX, RECONNECT_MIN};
use crate::seed::Rng;
use crate::time::Duration;

/// The waits between attempts. Each is drawn between the shortest and three times the one before (decorrelated
/// jitter), so that ten thousand nodes that lost one server at one moment spread out at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    rng: Rng,
    last: Duration,
    /// Over how long many that wait for the same must spread.
    spread: Duration,
}

impl Backoff {
    pub(crate) const fn new(rng: Rng) -> Self {
        Self { rng, last: RECONNECT_MIN, spread: Duration::ZERO }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = (self.last * 3).min(RECONNECT_MAX);
        self.last = Duration::from_micros(self.rng.range(micros(RECONNECT_MIN)..micros(ceiling) + 1));
        if self.spread == Duration::ZERO {
            return self.last;
        }
        self.last.max(Duration::from_micros(self.rng.range(0..micros(self.spread.min(RECONNECT_MAX)) + 1)))
    }

    /// Has each wait be drawn from this long, at most [`RECONNECT_MAX`], where it would be shorter: so many wait for the
    /// same. What failures add to the waits grows as before.
    pub(crate) const fn spread_over(&mut self, spread: Duration) {
        self.spread = spread;
    }

    /// The connection was of use: begin again with short waits.
    pub(crate) fn reset(&mut self) {
        self.last = RECONNECT_MIN;
    }

    /// Draws `base` plus up to half of it: for moments that many nodes were told at once.
    pub(crate) fn spread(&mut self, base: Duration) -> Duration {
        let micros = micros(base);
        Duration::from_micros(micros.saturating_add(self.rng.range(0..micros / 2 + 1)))
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn waits_stay_in_bounds_grow_and_begin_anew_after_a_reset() {
        let mut backoff = Backoff::new(Seed::from_u64(1).rng());
        let waits: Vec<_> = (0..50).map(|_| backoff.next()).collect();
        assert!(waits.iter().all(|w| (RECONNECT_MIN..=RECONNECT_MAX).contains(w)), "{waits:?}");
        assert!(waits[40..].iter().max() > waits[..2].iter().max());
        backoff.reset();
        assert!(backoff.next() <= RECONNECT_MIN * 3);
        backoff.spread_over(Duration::from_secs(5));
        backoff.reset();
        let first: Vec<_> = (0..200)
            .map(|_| {
                backoff.reset();
                backoff.next()
            })
            .collect();
        let early = first.iter().filter(|wait| **wait < Duration::from_millis(2_500)).count();
        assert!((70..130).contains(&early), "{early} of 200 within the first half");
        assert!(first.iter().all(|wait| (RECONNECT_MIN..=Duration::from_secs(5)).contains(wait)));
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        let draw = |seed| Backoff::new(Seed::from_u64(seed).rng()).next();
        assert_ne!(draw(1), draw(2));
    }
}

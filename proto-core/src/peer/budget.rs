//! How much may be sent: a token bucket, so that no input makes a storm.

use crate::time::{Duration, Time};

/// A bucket of tokens that fills by `rate` a second up to `burst`.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    burst: u32,
    rate: u32,
    /// In millionths of a token.
    level: u64,
    filled: Time,
}

const TOKEN: u64 = 1_000_000;

impl Budget {
    /// A full bucket.
    pub(super) fn new(burst: u32, rate: u32, now: Time) -> Self {
        Self { burst, rate, level: u64::from(burst) * TOKEN, filled: now }
    }

    fn fill(&mut self, now: Time) {
        let micros = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let gained = micros.saturating_mul(u64::from(self.rate));
        self.level = self.level.saturating_add(gained).min(u64::from(self.burst) * TOKEN);
        self.filled = now;
    }

    /// Takes one token, if there is one.
    pub(super) fn take(&mut self, now: Time) -> bool {
        self.fill(now);
        let enough = self.level >= TOKEN;
        if enough {
            self.level -= TOKEN;
        }
        enough
    }

    /// Takes one token whether there is one or not, for what must be sent and is bounded otherwise.
    pub(super) fn charge(&mut self, now: Time) {
        self.fill(now);
        self.level = self.level.saturating_sub(TOKEN);
    }

    /// How long one token takes to come.
    pub(super) fn pause(&self) -> Duration {
        Duration::from_micros(TOKEN / u64::from(self.rate.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_burst_and_the_rate() {
        let mut budget = Budget::new(5, 10, Time::ZERO);
        let spent = (0..2_000).filter(|ms| budget.take(Time::from_millis(*ms))).count();
        assert_eq!(spent, 5 + 19);
        budget.charge(Time::from_secs(2));
        assert!(!budget.take(Time::from_millis(2_050)));
    }
}

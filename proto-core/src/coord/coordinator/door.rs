//! How many are let in at once, and when the others shall come back: a restarted server is not to be kept from all else
//! by those who come back to it.

use crate::limits::{LOGINS_BURST, LOGINS_PER_SECOND, SPREAD_STEP};
use crate::time::{Duration, Time};

/// The time that one login has.
const TURN: Duration = Duration::from_micros(1_000_000 / LOGINS_PER_SECOND as u64);

/// The door.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// When those who were let in have had their turns.
    busy_until: Time,
    /// The latest turn that was promised to somebody sent away.
    promised: Time,
}

impl Door {
    /// Somebody wants in.
    ///
    /// # Errors
    /// After how long to come back: each who is sent away has a turn of their own.
    pub(super) fn enter(&mut self, now: Time) -> Result<(), Duration> {
        let busy_until = self.busy_until.max(now) + TURN;
        let full = now + TURN * LOGINS_BURST;
        if busy_until <= full {
            self.busy_until = busy_until;
            return Ok(());
        }
        self.promised = self.promised.max(full) + TURN;
        Err(self.promised.since(now))
    }
}

/// Over how long so many connected nodes must spread when they come back, in milliseconds: whole steps.
pub(super) fn spread_ms(connected: usize) -> u64 {
    let step = u64::try_from(SPREAD_STEP.as_millis()).unwrap_or(1).max(1);
    let millis = (connected as u64).saturating_mul(1_000) / u64::from(LOGINS_PER_SECOND);
    millis / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_let_in_at_the_rate_and_each_other_is_told_another_moment() {
        let mut door = Door::default();
        let now = Time::from_secs(9);
        let told: Vec<_> = (0..2_500).filter_map(|_| door.enter(now).err()).collect();
        assert_eq!(told.len(), 2_000);
        assert!(told.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(*told.last().unwrap() <= Duration::from_millis(1_250 + 1));
        // Whoever comes when told gets in.
        assert!(told.iter().all(|after| door.enter(now + *after).is_ok()));
    }

    #[test]
    fn few_nodes_need_not_spread() {
        assert_eq!([0, 1, 199, 200, 399, 400, 10_000].map(spread_ms), [0, 0, 0, 100, 100, 200, 5_000]);
    }
}

//! How often one may guess: wrong passwords and tokens for one name are counted, and after a few the next
//! attempt has to wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Wrong attempts that cost nothing.
const FREE: u32 = 10;
/// What every wrong attempt beyond them costs, in milliseconds: 86,400 guesses are left in a month.
const PAUSE_MS: i64 = 30_000;
/// Names remembered. When there are more, the oldest is forgotten: a flood of names cannot fill the memory.
const NAMES_MAX: usize = 10_000;
/// After this many milliseconds without a wrong attempt a name starts anew.
const FORGET_MS: i64 = 3_600_000;

#[derive(Clone, Copy, Debug)]
struct Record {
    wrong: u32,
    last: i64,
}

/// Wrong attempts by name.
#[derive(Debug, Default)]
pub(crate) struct Guesses(Mutex<BTreeMap<String, Record>>);

impl Guesses {
    /// How many milliseconds this name still has to wait before its next attempt; 0 if it may try now.
    pub(crate) fn wait_ms(&self, name: &str, now: i64) -> i64 {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match records.get(name) {
            Some(record) if record.wrong >= FREE => (record.last + PAUSE_MS - now).max(0),
            _ => 0,
        }
    }

    /// An attempt was wrong.
    pub(crate) fn wrong(&self, name: &str, now: i64) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() >= NAMES_MAX && !records.contains_key(name) {
            let oldest = records.iter().min_by_key(|(_, record)| record.last).map(|(name, _)| name.clone());
            oldest.and_then(|name| records.remove(&name));
        }
        let record = records.entry(name.to_owned()).or_insert(Record { wrong: 0, last: now });
        if now - record.last > FORGET_MS {
            record.wrong = 0;
        }
        record.wrong = record.wrong.saturating_add(1);
        record.last = now;
    }

    /// An attempt was right: the name's past is forgotten.
    pub(crate) fn right(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_guesses_are_free_then_each_costs_half_a_minute() {
        let guesses = Guesses::default();
        for _ in 0..FREE {
            assert_eq!(guesses.wait_ms("alice", 0), 0);
            guesses.wrong("alice", 0);
        }
        assert_eq!(guesses.wait_ms("alice", 1_000), 29_000);
        assert_eq!(guesses.wait_ms("bob", 1_000), 0);
        assert_eq!(guesses.wait_ms("alice", 30_000), 0);
        guesses.wrong("alice", 30_000);
        assert_eq!(guesses.wait_ms("alice", 30_000), PAUSE_MS);
        guesses.right("alice");
        assert_eq!(guesses.wait_ms("alice", 30_000), 0);
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let guesses = Guesses::default();
        for n in 0..i64::try_from(NAMES_MAX).unwrap() + 100 {
            guesses.wrong(&format!("user{n}"), n);
        }
        assert_eq!(guesses.0.lock().unwrap().len(), NAMES_MAX);
    }
}

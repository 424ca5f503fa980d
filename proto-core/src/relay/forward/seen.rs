//! Whom a sender has sent to, so that the relay's task hears of each once: who received from a key is told when it
//! leaves.
//!
//! Those who send to more than is remembered begin anew, which repeats words. The words are paced, so that a sender to
//! everybody costs that task a little and not a word a packet; whoever is passed over is told of by a later packet.
//! The rooms that senders remember in share what a relay has for them.

use crate::key::{KeyHash, KeyMarks, NodePublic};
use crate::limits;
use crate::time::{Duration, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much one sender may remember, and how often it may say a word when it has said as many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    max: usize,
    pause: Duration,
}

impl Bounds {
    /// A client's.
    pub(super) const CLIENT: Self = Self { max: limits::RELAY_SEEN_MAX, pause: limits::RELAY_FIRST_EVERY };
    /// Those of another relay of the mesh, which sends for many.
    pub(super) const MESH: Self = Self { max: limits::MESH_SEEN_MAX, pause: limits::MESH_FIRST_EVERY };
}

/// What all senders may remember together, beside the little that each may have without asking. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    taken: AtomicUsize,
}

impl Pool {
    pub(super) fn new(total: usize) -> Self {
        Self(Arc::new(Shared { total, taken: AtomicUsize::new(0) }))
    }

    fn take(&self, keys: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(keys).filter(|all| *all <= self.0.total);
        self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// What one sender remembers.
#[derive(Debug)]
pub(super) struct Seen {
    marks: KeyMarks,
    last: Option<NodePublic>,
    /// Keys that fit in.
    room: usize,
    pool: Pool,
    /// When all words said so far would have been said at one a pause.
    said_until: Time,
}

impl Seen {
    pub(super) fn new(hash: KeyHash, pool: &Pool) -> Self {
        let (marks, pool) = (KeyMarks::new(hash), pool.clone());
        Self { marks, last: None, room: limits::RELAY_SEEN_OWN, pool, said_until: Time::ZERO }
    }

    /// Whether a packet to this key is one to tell of.
    pub(super) fn is_first(&mut self, to: &NodePublic, bounds: Bounds, now: Time) -> bool {
        if self.last.as_ref() == Some(to) {
            return false;
        }
        let known = self.marks.contains(to);
        if !known && !self.may_say(bounds, now) {
            return false;
        }
        self.last = Some(*to);
        if !known {
            self.make_room(bounds.max);
            self.marks.insert(to);
        }
        !known
    }

    /// As many at once as are remembered, and then one a pause.
    fn may_say(&mut self, bounds: Bounds, now: Time) -> bool {
        let from = self.said_until.max(now);
        let burst = u32::try_from(bounds.max).unwrap_or(u32::MAX);
        let may = from.since(now) < bounds.pause.saturating_mul(burst);
        if may {
            self.said_until = from + bounds.pause;
        }
        may
    }

    fn make_room(&mut self, max: usize) {
        if self.marks.len() < self.room {
            return;
        }
        let more = self.room.min(max.saturating_sub(self.room));
        if more > 0 && self.pool.take(more) {
            self.room += more;
        } else {
            self.marks.clear();
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let taken = self.room - limits::RELAY_SEEN_OWN;
        self.pool.0.taken.fetch_sub(taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use std::collections::BTreeSet;

    fn key(n: usize) -> NodePublic {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        NodePublic(bytes)
    }

    fn seen(pool: &Pool) -> Seen {
        Seen::new(KeyHash::new(&Seed::from_u64(1)), pool)
    }

    #[test]
    fn each_of_as_many_as_are_remembered_is_told_of_once() {
        for (bounds, max) in [(Bounds::CLIENT, limits::RELAY_SEEN_MAX), (Bounds::MESH, limits::MESH_SEEN_MAX)]
        {
            let mut seen = seen(&Pool::new(1 << 20));
            let mut round = || (0..max).filter(|n| seen.is_first(&key(*n), bounds, Time::ZERO)).count();
            assert_eq!((round(), round(), round()), (max, 0, 0));
        }
    }

    #[test]
    fn who_sends_to_more_says_few_words_and_of_everybody() {
        let mut seen = seen(&Pool::new(1 << 20));
        let keys = limits::RELAY_SEEN_MAX * 5 / 4;
        let (mut words, mut told) = (0, BTreeSet::new());
        // A packet a millisecond.
        let packets = 900_000;
        for at in 0..packets {
            let n = at % keys;
            if seen.is_first(&key(n), Bounds::CLIENT, Time::from_millis(at as u64)) {
                words += 1;
                told.insert(n);
            }
        }
        let paced = packets as u64 * 1_000 / u64::try_from(limits::RELAY_FIRST_EVERY.as_micros()).unwrap();
        assert!(words <= limits::RELAY_SEEN_MAX as u64 + paced, "{words}");
        assert_eq!(told.len(), keys);
    }

    #[test]
    fn where_nothing_is_left_to_share_each_has_its_own_little() {
        let own = limits::RELAY_SEEN_OWN;
        let pool = Pool::new(2 * own);
        let mut many: Vec<_> = (0..5).map(|_| seen(&pool)).collect();
        for seen in &mut many {
            for n in 0..9 * own {
                assert!(seen.is_first(&key(n), Bounds::CLIENT, Time::ZERO));
                assert!(!seen.is_first(&key(n), Bounds::CLIENT, Time::ZERO));
                assert!(seen.marks.len() <= seen.room);
            }
        }
        let rooms: Vec<_> = many.iter().map(|seen| seen.room / own).collect();
        assert_eq!(rooms, [2, 2, 1, 1, 1]);
        drop(many);
        assert_eq!(pool.0.taken.load(Ordering::Relaxed), 0);
    }
}

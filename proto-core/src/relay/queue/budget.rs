//! What all queues of a relay hold together.
//!
//! A few slow readers may each let packets wait up to a queue's own cap. Were they ten thousand, it would be more than a
//! machine has. So all queues share one budget, and none may hold more than what is free of it: the more there are that
//! wait, the less each may have, and those who have more give way as packets come for them. What every queue may
//! hold without asking lets those who read pass beside any number of those who don't.
//!
//! It is shared in pieces, and asked only by queues that are long, so that it costs little where packets are many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one piece.
const PIECE: usize = 32 << 10;
/// Bytes that a queue may hold without asking: some twenty packets of full size.
const BASE: usize = 32 << 10;
/// A queue that has taken no more than this gives nothing back before it has been emptied: what one read brings for
/// it, in a relay where nothing is amiss.
const SHORT: usize = 4 * PIECE;

/// A budget. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    taken: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Shared { total, taken: AtomicUsize::new(0) }))
    }

    /// Bytes that queues have taken of it, whole pieces.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed)
    }

    fn free(&self, taken: usize) -> usize {
        self.0.total.saturating_sub(taken)
    }

    /// Takes so much for one who has `own` already; whether there was as much.
    fn take(&self, bytes: usize, own: usize) -> bool {
        let fits = |taken: usize| {
            let free = self.free(taken).checked_sub(bytes)?;
            (own + bytes <= free + PIECE).then_some(taken + bytes)
        };
        self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// What one queue has of a budget, until it is dropped. Without a budget it may have all.
#[derive(Debug, Default)]
pub(super) struct Share {
    budget: Option<Budget>,
    own: usize,
}

impl Share {
    pub(super) const fn of(budget: Budget) -> Self {
        Self { budget: Some(budget), own: 0 }
    }

    /// How many bytes may be held, when somebody would like to hold this many. If that is less, say by
    /// [`Share::holds`] how many are.
    pub(super) fn may_hold(&mut self, wanted: usize) -> usize {
        let Some(budget) = &self.budget else { return usize::MAX };
        if self.own > SHORT && self.own > budget.free(budget.taken()) + 2 * PIECE {
            return BASE + self.own - PIECE;
        }
        if wanted > BASE + self.own {
            let more = (wanted - BASE - self.own).next_multiple_of(PIECE);
            if budget.take(more, self.own) {
                self.own += more;
            }
        }
        BASE + self.own
    }

    /// No more than this is held now.
    pub(super) fn holds(&mut self, bytes: usize) {
        let needed = bytes.saturating_sub(BASE).next_multiple_of(PIECE);
        if let Some(budget) = &self.budget
            && needed < self.own
        {
            budget.0.taken.fetch_sub(self.own - needed, Ordering::Relaxed);
            self.own = needed;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.holds(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet as long as a piece comes for a queue that holds so much.
    fn push(share: &mut Share, held: &mut usize) {
        let may_hold = share.may_hold(*held + PIECE);
        *held = may_hold.min(*held + PIECE);
        share.holds(*held);
    }

    #[test]
    fn those_who_have_much_give_way_to_those_who_come_late() {
        let budget = Budget::new(100 * PIECE);
        let mut queues: Vec<_> = (0..9).map(|_| (Share::of(budget.clone()), 0)).collect();
        for (share, held) in &mut queues {
            (0..100).for_each(|_| push(share, held));
        }
        queues.push((Share::of(budget.clone()), 0));
        for round in 0..100 {
            for (share, held) in &mut queues {
                push(share, held);
            }
            assert!(queues[9].1 >= BASE, "in round {round}");
        }
        let all: Vec<_> = queues.iter().map(|(share, _)| share.own / PIECE).collect();
        assert!(all.iter().all(|own| (7..=11).contains(own)), "{all:?}");
        drop(queues);
        assert_eq!(budget.taken(), 0);
    }

    proptest! {
        #[test]
        fn no_more_is_given_than_there_is(
            total in 0usize..40 * PIECE,
            steps in proptest::collection::vec((0usize..5, any::<bool>(), 0usize..10 * PIECE), 0..100),
        ) {
            let budget = Budget::new(total);
            let mut shares: Vec<_> = (0..5).map(|_| Share::of(budget.clone())).collect();
            for (n, grows, bytes) in steps {
                if grows {
                    shares[n].may_hold(bytes);
                } else {
                    shares[n].holds(bytes);
                }
                prop_assert_eq!(budget.taken(), shares.iter().map(|share| share.own).sum::<usize>());
                prop_assert!(budget.taken() <= total);
            }
        }
    }
}

//! Whose turn it is to be read.
//!
//! A connection that has more to be read than one turn takes waits after it for all others of its kind, and only
//! as many of them are read at a time as there are threads. So a quiet connection waits for one turn of a busy one,
//! however many of those there are, and what a turn brought is written while it is still in the cache.
//!
//! Where many send to many, a turn brings little for each. What busy connections have for one that waits for its own
//! turn is therefore written then, together, unless it is much already.

use super::{Connection, lock};
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes read from one connection before its destinations are written to and others get a turn: far less than a
/// queue holds, so that nothing is dropped for want of a turn, and so little that a quiet pair waits for a fraction
/// of a millisecond.
const TURN: usize = 128 * 1024;
/// The same in frames, which cost more than their bytes when they are short.
const TURN_FRAMES: usize = 128;
/// So many bytes are worth a write of their own: four records of TLS.
const MUCH: usize = 64 * 1024;

/// All turns of a relay.
pub(super) struct Turns(Semaphore);

/// As many permits as this thread's runtime has threads.
pub(super) fn one_a_thread() -> Semaphore {
    Semaphore::new(tokio::runtime::Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers()))
}

impl Turns {
    /// As many at a time as this thread's runtime has threads.
    pub(super) fn new() -> Self {
        Self(one_a_thread())
    }

    /// The turns of one connection.
    pub(super) const fn begin(&self) -> Turn<'_> {
        Turn { turns: self, bytes: 0, permit: None }
    }
}

/// One connection's turns.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    /// Bytes of this turn so far, or what its frames are worth.
    bytes: usize,
    /// What a connection that took a whole turn needs for the next.
    permit: Option<SemaphorePermit<'a>>,
}

impl Turn<'_> {
    /// So many bytes and frames of this connection were read; returns when more may be.
    pub(super) async fn took(&mut self, (bytes, frames): (usize, usize), connection: &Connection) {
        self.bytes += bytes.max(frames * (TURN / TURN_FRAMES));
        if self.bytes >= TURN {
            self.bytes = 0;
            // Those written to run now.
            let_others_go().await;
            self.permit = None;
            connection.set_in_line(true);
            self.permit = self.turns.0.acquire().await.ok();
            connection.set_in_line(false);
            let_others_go().await;
        }
    }

    /// Whether it has had whole turns, and goes on.
    pub(super) const fn is_busy(&self) -> bool {
        self.permit.is_some()
    }

    /// There is nothing to read for now.
    pub(super) fn end(&mut self) {
        self.bytes = 0;
        self.permit = None;
    }
}

/// Lets all others go that can, those too whom the network has something for: the sockets are looked at first.
///
/// After a mere yield the runtime wakes the network's tasks and then ours, and whoever was woken last runs first. So we
/// stand in line once more, at its end.
pub(super) async fn let_others_go() {
    tokio::task::yield_now().await;
    let mut stood = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut stood, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether so many bytes are much to write: who does shall let others go before.
pub(super) const fn is_much(bytes: usize) -> bool {
    bytes >= MUCH
}

impl Connection {
    fn set_in_line(&self, in_line: bool) {
        let queue = lock(&self.queue);
        self.in_line.store(in_line, Ordering::Relaxed);
        if !in_line && !queue.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Whether to wake its writer, after something was put in its queue, which is locked still: `was_empty` before,
    /// and now has so many bytes. Those who are busy leave what is not much to a connection that is in line.
    pub(super) fn must_wake(&self, was_empty: bool, (busy, queued): (bool, usize)) -> bool {
        if self.in_line.load(Ordering::Relaxed) { !busy || is_much(queued) } else { was_empty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::id::StreamId;
    use proto_core::key::NodePublic;
    use proto_core::relay::Budget;
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    fn connection() -> Connection {
        Connection::new(StreamId(1), None, &Budget::new(1 << 20))
    }

    async fn play(turns: &Turns, who: usize, rounds: usize, order: &RefCell<Vec<usize>>) {
        let (mut turn, connection) = (turns.begin(), connection());
        for _ in 0..rounds {
            turn.took((TURN, 1), &connection).await;
            order.borrow_mut().push(who);
        }
    }

    #[tokio::test]
    async fn busy_connections_are_read_one_after_the_other() {
        let (turns, order) = (Rc::new(Turns::new()), Rc::new(RefCell::new(Vec::new())));
        let local = tokio::task::LocalSet::new();
        for who in 0..3 {
            let (turns, order) = (turns.clone(), order.clone());
            local.spawn_local(async move { play(&turns, who, 20, &order).await });
        }
        local.await;
        let order = order.borrow();
        assert_eq!(order.len(), 60);
        for round in order.chunks(3) {
            assert_eq!(round.iter().collect::<BTreeSet<_>>().len(), 3, "{order:?}");
        }
    }

    #[tokio::test]
    async fn who_has_nothing_to_read_holds_nobody_up() {
        let turns = Turns::new();
        let mut idle = turns.begin();
        idle.took((TURN, 1), &connection()).await;
        assert_eq!(turns.0.available_permits(), 0);
        idle.end();
        let order = RefCell::default();
        tokio::time::timeout(std::time::Duration::from_secs(5), play(&turns, 0, 20, &order)).await.unwrap();
        assert_eq!(order.borrow().len(), 20);
    }

    #[tokio::test]
    async fn short_turns_need_no_permission() {
        let turns = Turns::new();
        let mut quiet = turns.begin();
        for _ in 0..1_000 {
            quiet.took((TURN - 1, 1), &connection()).await;
            quiet.end();
        }
        quiet.took((1_400, TURN_FRAMES - 1), &connection()).await;
        assert_eq!(turns.0.available_permits(), 1);
    }

    #[tokio::test]
    async fn what_waits_for_a_turn_is_written_at_the_turn() {
        let (turns, waiting) = (Turns::new(), connection());
        let mut busy = turns.begin();
        busy.took((TURN, 1), &connection()).await;
        assert!(waiting.must_wake(true, (true, 1)), "it is not in line");
        let mut turn = turns.begin();
        let next = turn.took((TURN, 1), &waiting);
        tokio::pin!(next);
        tokio::select! {
            biased;
            () = &mut next => panic!("there is one turn at a time"),
            () = tokio::time::sleep(std::time::Duration::from_millis(10)) => {}
        }
        assert!(!waiting.must_wake(true, (true, 1)));
        assert!(waiting.must_wake(false, (true, MUCH)), "that is worth a write");
        assert!(waiting.must_wake(false, (false, 1)), "quiet ones wait for nobody's turn");
        lock(&waiting.queue).push(&NodePublic([1; 32]), b"left without a word");
        busy.end();
        tokio::time::timeout(std::time::Duration::from_secs(5), next).await.unwrap();
        assert!(!waiting.must_wake(false, (true, 1)), "the writer has been woken");
        tokio::time::timeout(std::time::Duration::from_secs(5), waiting.wake.notified()).await.unwrap();
    }
}

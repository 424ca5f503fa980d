//! Whose turn it is to be read.
//!
//! A connection that has more to be read than one turn takes waits after it for all others of its kind, and only
//! as many of them are read at a time as there are threads. So a quiet connection waits for one turn of a busy one,
//! however many of those there are, and what a turn brought is written while it is still in the cache.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes read from one connection before its destinations are written to and others get a turn: far less than a
/// queue holds, so that nothing is dropped for want of a turn, and so little that a quiet pair waits for a fraction
/// of a millisecond.
const TURN: usize = 128 * 1024;
/// The same in frames, which cost more than their bytes when they are short.
const TURN_FRAMES: usize = 128;

/// All turns of a relay.
pub(super) struct Turns(Semaphore);

impl Turns {
    /// As many at a time as this thread's runtime has threads.
    pub(super) fn new() -> Self {
        let threads =
            tokio::runtime::Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        Self(Semaphore::new(threads))
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
    /// This much was read; returns when more may be.
    pub(super) async fn took(&mut self, bytes: usize, frames: usize) {
        self.bytes += bytes.max(frames * (TURN / TURN_FRAMES));
        if self.bytes >= TURN {
            self.bytes = 0;
            // Those written to run now, and whoever the network has woken meanwhile.
            tokio::task::yield_now().await;
            self.permit = None;
            self.permit = self.turns.0.acquire().await.ok();
        }
    }

    /// There is nothing to read for now.
    pub(super) fn end(&mut self) {
        self.bytes = 0;
        self.permit = None;
    }
}

//! What a visitor has sent on a channel and its program has not read yet.
//!
//! The library lets the visitor send more as soon as data has arrived, whether anybody has read it or not, and if the
//! one who reads a channel is slow, it can only hold up the whole connection: with it the program's own output, and
//! a program that waits to write reads no more, so that both would wait for ever. Instead, all that arrives is taken at
//! once, and while too much lies here the connection grants the smallest window there is. Then the visitor can send
//! next to nothing on any channel, and everything else goes on: output, signals, new channels, the end.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes that may lie unread before the visitor is held back: what a program that reads at a gigabit per second has
/// read in the 8 ms that it takes for more to come.
const HIGH: usize = 1 << 20;
/// The window that holds back. It is granted when the window before was used up to the last byte, and only then does
/// the library ask what the next one shall be, so it cannot be nothing.
const HELD_BACK: u32 = 2;
/// Pieces shorter than this are gathered, so that a byte sent by itself does not cost a hundred here.
const SMALL: usize = 4 << 10;

/// Which of a connection's inboxes hold too much.
#[derive(Clone, Default)]
pub(crate) struct Throttle(Arc<AtomicUsize>);

impl Throttle {
    /// The window to grant next, where `usual` is the one for a visitor whose data is read.
    pub(crate) fn window(&self, usual: u32) -> u32 {
        if self.0.load(Ordering::Relaxed) == 0 { usual } else { HELD_BACK }
    }
}

/// The unread data of one channel.
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Notify,
    throttle: Throttle,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// Small pieces that came after those.
    tail: BytesMut,
    length: usize,
    ended: bool,
    full: bool,
}

impl Inbox {
    pub(crate) fn new(throttle: Throttle) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), throttle }
    }

    /// Takes in what has arrived.
    pub(crate) fn push(&self, data: Bytes) {
        let mut state = self.lock();
        state.length += data.len();
        if data.len() >= SMALL {
            state.gather();
            state.pieces.push_back(data);
        } else {
            state.tail.extend_from_slice(&data);
            if state.tail.len() >= SMALL {
                state.gather();
            }
        }
        self.count(&mut state);
        self.changed.notify_one();
    }

    /// There will be no more.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// The next piece; none at the end. For one reader.
    pub(crate) async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.lock();
                let piece = state.pop();
                self.count(&mut state);
                if piece.is_some() || state.ended {
                    return piece;
                }
            }
            self.changed.notified().await;
        }
    }

    fn count(&self, state: &mut State) {
        let full = state.length > HIGH;
        if full != state.full {
            state.full = full;
            if full {
                self.throttle.0.fetch_add(1, Ordering::Relaxed);
            } else {
                self.throttle.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn gather(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.gather();
        }
        let piece = self.pieces.pop_front()?;
        self.length = self.length.saturating_sub(piece.len());
        Some(piece)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if self.lock().full {
            self.throttle.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_come_out_in_order_and_then_the_end() {
        let inbox = Inbox::new(Throttle::default());
        let mut sent = Vec::new();
        for (n, length) in [1, 5_000, 3, 4, 9_000, 4_095, 1].into_iter().enumerate() {
            let piece = vec![n as u8; length];
            sent.extend_from_slice(&piece);
            inbox.push(piece.into());
        }
        inbox.end();
        let mut received = Vec::new();
        while let Some(piece) = inbox.next().await {
            received.extend_from_slice(&piece);
        }
        assert_eq!(received, sent);
    }

    #[tokio::test]
    async fn a_visitor_is_held_back_until_enough_is_read_or_nobody_reads() {
        let throttle = Throttle::default();
        let (one, other) = (Inbox::new(throttle.clone()), Inbox::new(throttle.clone()));
        one.push(vec![0; HIGH].into());
        assert_eq!(throttle.window(100), 100);
        one.push(vec![0; 1].into());
        other.push(vec![0; 2 * HIGH].into());
        assert_eq!(throttle.window(100), HELD_BACK);
        one.next().await.unwrap();
        assert_eq!(throttle.window(100), HELD_BACK);
        drop(other);
        assert_eq!(throttle.window(100), 100);
    }
}

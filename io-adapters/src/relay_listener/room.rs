//! Memory for packets on their way through: a few buffers a thread, handed from queue to writer and back, so that
//! the same ones, still in the cache, serve all connections, and a quiet connection holds none.

use std::cell::RefCell;

/// Buffers kept by each thread.
const KEPT: usize = 32;
/// A buffer that has grown beyond this many bytes is not kept.
const KEPT_MAX: usize = 512 * 1024;
/// Bytes of a new buffer: what one read brings, and a frame that lay there already.
const NEW: usize = 160 * 1024;

thread_local! {
    static ROOM: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer.
pub(super) fn take() -> Vec<u8> {
    ROOM.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(NEW))
}

/// Gives a buffer back.
pub(super) fn give(mut buffer: Vec<u8>) {
    if !(NEW..=KEPT_MAX).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    ROOM.with_borrow_mut(|room| {
        if room.len() < KEPT {
            room.push(buffer);
        }
    });
}

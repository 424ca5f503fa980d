//! The two buffers between a stream's user and the driver. Each side takes the lock for a copy or a swap,
//! never longer; each wakes the other only when the other waits.

use super::shared::lock;
use crate::stack::FlowId;
use crate::streams::StreamError;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

/// Bytes that a writer may have waiting in front of the driver, which holds as much again while it sends:
/// four full GSO batches each, so that both sides work without waiting for one another.
pub(crate) const OUT_MAX: usize = 256 * 1024;
/// Bytes that may wait for a reader. What is beyond stays inside QUIC and holds the peer back.
pub(crate) const IN_MAX: usize = 512 * 1024;

/// One stream's buffers.
pub(crate) struct Pipe {
    flow: FlowId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The driver has been told that something changed and has not looked yet.
    touched: bool,
    out: Vec<u8>,
    finish: bool,
    reset: Option<u32>,
    out_error: Option<StreamError>,
    delivered: bool,
    writer: Option<Waker>,
    chunks: VecDeque<Bytes>,
    waiting: usize,
    /// The driver reads no more until there is room.
    full: bool,
    end: bool,
    in_error: Option<StreamError>,
    stop: Option<u32>,
    reader: Option<Waker>,
    dropped: bool,
}

/// What the driver finds when it looks for work.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wanted {
    /// No more will be written.
    pub finish: bool,
    /// Abandon what we send.
    pub reset: Option<u32>,
    /// Read no more.
    pub stop: Option<u32>,
    /// Nobody holds the stream any more.
    pub dropped: bool,
}

impl Pipe {
    pub(crate) fn new(flow: FlowId) -> Self {
        Self { flow, state: Mutex::default() }
    }

    /// Which stream.
    pub(crate) const fn flow(&self) -> FlowId {
        self.flow
    }

    // --- The user's side. Each call says whether the driver must be told. ---

    pub(super) fn poll_write(
        &self,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<(usize, bool), StreamError>> {
        let mut state = lock(&self.state);
        if let Some(error) = state.out_error {
            return Poll::Ready(Err(error));
        }
        if state.finish || state.reset.is_some() {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let taken = bytes.len().min(OUT_MAX.saturating_sub(state.out.len()));
        if taken == 0 && !bytes.is_empty() {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.out.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok((taken, state.touch())))
    }

    /// Ready once all that was written has been handed to QUIC.
    pub(super) fn poll_finish(&self, cx: &Context<'_>) -> Poll<Result<bool, StreamError>> {
        let mut state = lock(&self.state);
        match state.out_error {
            // The peer wanted no more: that it will get no more is no news.
            Some(StreamError::Stopped(_) | StreamError::Closed) => return Poll::Ready(Ok(false)),
            Some(error) => return Poll::Ready(Err(error)),
            None => {}
        }
        if state.finish || state.reset.is_some() {
            return Poll::Ready(Ok(false));
        }
        state.finish = true;
        let _ = cx;
        Poll::Ready(Ok(state.touch()))
    }

    /// Ready once the peer has all of a finished stream.
    pub(super) fn poll_delivered(&self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let mut state = lock(&self.state);
        if state.delivered {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = state.out_error {
            return Poll::Ready(Err(error));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn poll_read(
        &self,
        cx: &Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<Result<bool, StreamError>> {
        let mut state = lock(&self.state);
        let mut any = false;
        while into.remaining() > 0 {
            let Some(chunk) = state.chunks.front_mut() else { break };
            let n = chunk.len().min(into.remaining());
            into.put_slice(&chunk[..n]);
            chunk.advance(n);
            if chunk.is_empty() {
                state.chunks.pop_front();
            }
            state.waiting -= n;
            any = true;
        }
        if any || into.remaining() == 0 {
            // Half empty, so that the driver is woken for a good piece of work and not for each read.
            let tell = state.full && state.waiting <= IN_MAX / 2;
            return Poll::Ready(Ok(tell && state.touch()));
        }
        if let Some(error) = state.in_error {
            return Poll::Ready(Err(error));
        }
        if state.end {
            return Poll::Ready(Ok(false));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn reset(&self, code: u32) -> bool {
        let mut state = lock(&self.state);
        state.reset.get_or_insert(code);
        state.stop.get_or_insert(code);
        state.out.clear();
        state.touch()
    }

    pub(super) fn stop(&self, code: u32) -> bool {
        let mut state = lock(&self.state);
        state.stop.get_or_insert(code);
        state.touch()
    }

    pub(super) fn drop_user(&self) -> bool {
        let mut state = lock(&self.state);
        state.dropped = true;
        state.finish = true;
        state.chunks.clear();
        state.waiting = 0;
        state.touch()
    }

    // --- The driver's side. ---

    /// What the user wants; what it wrote is swapped into `into` if that is empty.
    pub(crate) fn look(&self, into: &mut Vec<u8>) -> Wanted {
        let (wanted, writer) = {
            let mut state = lock(&self.state);
            state.touched = false;
            let mut writer = None;
            if into.is_empty() && !state.out.is_empty() {
                std::mem::swap(&mut state.out, into);
                writer = state.writer.take();
            }
            let wanted = Wanted {
                // What is still here must be sent before the end.
                finish: state.finish && state.out.is_empty(),
                reset: state.reset,
                stop: state.stop,
                dropped: state.dropped,
            };
            (wanted, writer)
        };
        wake(writer);
        wanted
    }

    /// Room for what the peer sent, in bytes; if none, the user will tell when there is.
    pub(crate) fn room(&self) -> usize {
        let mut state = lock(&self.state);
        let room = IN_MAX.saturating_sub(state.waiting);
        state.full = room == 0;
        room
    }

    /// Bytes arrived.
    pub(crate) fn deliver(&self, chunk: Bytes) {
        let reader = {
            let mut state = lock(&self.state);
            if state.dropped || state.stop.is_some() {
                return;
            }
            state.waiting += chunk.len();
            state.chunks.push_back(chunk);
            state.reader.take()
        };
        wake(reader);
    }

    /// The peer sends no more.
    pub(crate) fn end(&self) {
        let reader = {
            let mut state = lock(&self.state);
            state.end = true;
            state.reader.take()
        };
        wake(reader);
    }

    /// Reading failed.
    pub(crate) fn fail_in(&self, error: StreamError) {
        let reader = {
            let mut state = lock(&self.state);
            state.in_error.get_or_insert(error);
            state.reader.take()
        };
        wake(reader);
    }

    /// Writing failed.
    pub(crate) fn fail_out(&self, error: StreamError) {
        let writer = {
            let mut state = lock(&self.state);
            state.out_error.get_or_insert(error);
            state.out = Vec::new();
            state.writer.take()
        };
        wake(writer);
    }

    /// The peer has everything that was written before the end.
    pub(crate) fn delivered(&self) {
        let writer = {
            let mut state = lock(&self.state);
            state.delivered = true;
            state.writer.take()
        };
        wake(writer);
    }
}

impl State {
    fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.touched, true)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

//! The two buffers between a stream's user and the driver. Each side takes the lock for a copy or a swap,
//! never longer; each wakes the other only when the other waits.

use super::shared::lock;
use crate::stack::FlowId;
use crate::streams::StreamError;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker, ready};

/// Bytes that a writer may have waiting in front of the driver, which holds as much again while it sends:
/// four full GSO batches each, so that both sides work without waiting for one another.
pub(crate) const OUT_MAX: usize = 256 * 1024;
/// Bytes that may wait for a reader, which holds as much again while it reads. What is beyond stays inside QUIC
/// and holds the peer back.
pub(crate) const IN_MAX: usize = 256 * 1024;

/// One stream's buffers.
pub(crate) struct Pipe {
    flow: FlowId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The driver has been told that there is something to send and has not seen the end of it.
    touched: bool,
    /// A header waits to travel with the first bytes.
    header: bool,
    /// What was written: whole pieces, then what was copied since the last of them.
    out: VecDeque<Bytes>,
    tail: BytesMut,
    /// Bytes of both together.
    out_len: usize,
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
    /// A pipe of a stream that begins with `header`, which is not sent by itself: the first bytes written
    /// travel with it, or the user's first read or flush sends it alone.
    pub(crate) fn new(flow: FlowId, header: &[u8]) -> Self {
        let tail = BytesMut::from(header);
        let state = State { header: !tail.is_empty(), out_len: tail.len(), tail, ..State::default() };
        Self { flow, state: Mutex::new(state) }
    }

    /// Which stream.
    pub(crate) const fn flow(&self) -> FlowId {
        self.flow
    }

    // --- The user's side. Each call says whether the driver must be told. ---

    /// Copies what there is room for: how many bytes.
    pub(super) fn poll_write(
        &self,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<(usize, bool), StreamError>> {
        let mut state = lock(&self.state);
        let taken = ready!(state.poll_room(cx, bytes.len()))?;
        state.tail.extend_from_slice(&bytes[..taken]);
        state.out_len += taken;
        Poll::Ready(Ok((taken, state.touch())))
    }

    /// Takes what there is room for off the front of `bytes`, without copying it.
    pub(super) fn poll_write_bytes(
        &self,
        cx: &Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<bool, StreamError>> {
        let mut state = lock(&self.state);
        let taken = ready!(state.poll_room(cx, bytes.len()))?;
        state.seal_tail();
        state.out.push_back(bytes.split_to(taken));
        state.out_len += taken;
        Poll::Ready(Ok(state.touch()))
    }

    /// Whatever waits to travel with more must go now.
    pub(super) fn flush(&self) -> bool {
        let mut state = lock(&self.state);
        state.header && state.touch()
    }

    /// No more will be written.
    pub(super) fn finish(&self) -> Result<bool, StreamError> {
        let mut state = lock(&self.state);
        match state.out_error {
            // The peer wanted no more: that it will get no more is no news.
            Some(StreamError::Stopped(_) | StreamError::Closed) => return Ok(false),
            Some(error) => return Err(error),
            None => {}
        }
        if state.finish || state.reset.is_some() {
            return Ok(false);
        }
        state.finish = true;
        Ok(state.touch())
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

    /// Ready with the error that writing would meet, once there is one.
    pub(super) fn poll_broken(&self, cx: &Context<'_>) -> Poll<StreamError> {
        let mut state = lock(&self.state);
        if let Some(error) = state.out_error {
            return Poll::Ready(error);
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes all that has come into `into`, which must be empty, and says whether the driver must be told.
    /// Ready with nothing at the stream's end.
    pub(super) fn poll_take(
        &self,
        cx: &Context<'_>,
        into: &mut VecDeque<Bytes>,
    ) -> (Poll<Result<(), StreamError>>, bool) {
        let mut state = lock(&self.state);
        if !state.chunks.is_empty() {
            std::mem::swap(&mut state.chunks, into);
            state.waiting = 0;
            return (Poll::Ready(Ok(())), std::mem::take(&mut state.full));
        }
        if let Some(error) = state.in_error {
            return (Poll::Ready(Err(error)), false);
        }
        if state.end {
            return (Poll::Ready(Ok(())), false);
        }
        state.reader = Some(cx.waker().clone());
        // Nobody answers a header that was never sent.
        (Poll::Pending, state.header && state.touch())
    }

    /// Abandons both halves. The driver must always be told.
    pub(super) fn reset(&self, code: u32) {
        let mut state = lock(&self.state);
        state.reset.get_or_insert(code);
        state.stop.get_or_insert(code);
        state.discard_out();
    }

    /// Reads no more. The driver must always be told.
    pub(super) fn stop(&self, code: u32) {
        let mut state = lock(&self.state);
        state.stop.get_or_insert(code);
    }

    /// Nobody holds the stream any more. The driver must always be told.
    pub(super) fn drop_user(&self) {
        let mut state = lock(&self.state);
        state.dropped = true;
        state.finish = true;
        state.chunks = VecDeque::new();
        state.waiting = 0;
    }

    // --- The driver's side. ---

    /// What the user wants; what it wrote is swapped into `into` if that is empty. If nothing is to be sent
    /// after that, the next write will tell the driver; else the driver looks again by itself.
    pub(crate) fn look(&self, into: &mut VecDeque<Bytes>) -> Wanted {
        let (wanted, writer) = {
            let mut state = lock(&self.state);
            let mut writer = None;
            if into.is_empty() && state.out_len > 0 {
                state.seal_tail();
                std::mem::swap(&mut state.out, into);
                state.out_len = 0;
                state.header = false;
                writer = state.writer.take();
            }
            if into.is_empty() {
                state.touched = false;
            }
            let wanted = Wanted {
                // What is still here must be sent before the end.
                finish: state.finish && state.out_len == 0,
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

    /// Bytes arrived: all of `chunks`, which is empty after that.
    pub(crate) fn deliver(&self, chunks: &mut VecDeque<Bytes>) {
        let reader = {
            let mut state = lock(&self.state);
            if state.dropped || state.stop.is_some() {
                chunks.clear();
                return;
            }
            state.waiting += chunks.iter().map(Bytes::len).sum::<usize>();
            if state.chunks.is_empty() {
                std::mem::swap(&mut state.chunks, chunks);
            } else {
                state.chunks.append(chunks);
            }
            state.reader.take()
        };
        wake(reader);
    }

    /// Gives back the memory of empty buffers: the stream has been quiet.
    pub(crate) fn relax(&self) {
        let mut state = lock(&self.state);
        if state.out_len == 0 {
            state.discard_out();
        }
        if state.chunks.is_empty() {
            state.chunks = VecDeque::new();
        }
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
            state.discard_out();
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
    /// How many of `len` bytes may be written now.
    fn poll_room(&mut self, cx: &Context<'_>, len: usize) -> Poll<Result<usize, StreamError>> {
        if let Some(error) = self.out_error {
            return Poll::Ready(Err(error));
        }
        if self.finish || self.reset.is_some() {
            return Poll::Ready(Err(StreamError::Closed));
        }
        let taken = len.min(OUT_MAX.saturating_sub(self.out_len));
        if taken == 0 && len > 0 {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(taken))
    }

    /// Makes a piece of what was copied.
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.out.push_back(self.tail.split().freeze());
        }
    }

    fn discard_out(&mut self) {
        self.out = VecDeque::new();
        self.tail = BytesMut::new();
        self.out_len = 0;
    }

    fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.touched, true)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

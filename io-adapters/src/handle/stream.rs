//! A stream inside a tunnel, as programs use it.

use super::pipe::Pipe;
use super::shared::{Shared, Signal};
use crate::streams::StreamError;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// A reliable stream inside a tunnel, both ways. Shutting it down ends our half, the other stays open;
/// [`TunnelStream::reset`] abandons both. Dropping it ends our half, after what was written, and reads no
/// more.
pub struct TunnelStream {
    shared: Arc<Shared>,
    pipe: Arc<Pipe>,
    /// Taken off the pipe and not read yet.
    taken: VecDeque<Bytes>,
}

impl TunnelStream {
    pub(crate) fn new(shared: Arc<Shared>, pipe: Arc<Pipe>) -> Self {
        Self { shared, pipe, taken: VecDeque::new() }
    }

    /// Abandons the stream: the peer's reads fail with [`StreamError::Reset`] and its writes with
    /// [`StreamError::Stopped`], both with this code, as a TCP reset would make them.
    pub fn reset(&self, code: u32) {
        self.pipe.reset(code);
        self.tell(true);
    }

    /// Reads no more: the peer's writes fail with [`StreamError::Stopped`] and this code.
    pub fn stop(&self, code: u32) {
        self.pipe.stop(code);
        self.tell(true);
    }

    /// After a shutdown: waits until the peer has received everything.
    ///
    /// # Errors
    /// If the stream broke first.
    pub async fn delivered(&self) -> io::Result<()> {
        poll_fn(|cx| self.pipe.poll_delivered(cx)).await.map_err(io_error)
    }

    /// Writes all of `bytes`, without copying them.
    ///
    /// # Errors
    /// As the writes of [`AsyncWrite`].
    pub async fn write_bytes(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            poll_fn(|cx| self.poll_write_bytes(cx, &mut bytes)).await?;
        }
        Ok(())
    }

    /// Takes what there is room for off the front of `bytes`.
    pub(crate) fn poll_write_bytes(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let tell = ready!(self.pipe.poll_write_bytes(cx, bytes)).map_err(io_error)?;
        coop.made_progress();
        self.tell(tell);
        Poll::Ready(Ok(()))
    }

    /// Ends our half.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.tell(self.pipe.finish().map_err(io_error)?);
        Ok(())
    }

    /// Ready only with the error that writing would meet.
    pub(crate) fn poll_broken(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.poll_broken(cx).map(|error| Err(io_error(error)))
    }

    /// Ready once there are pieces to read, or with none at the end.
    pub(crate) fn poll_pieces(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_taken(cx))?;
        Poll::Ready(Ok(self.taken.len()))
    }

    /// The pieces to read next, as many as there is room for: how many.
    pub(crate) fn pieces<'a>(&'a self, into: &mut [io::IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in into.iter_mut().zip(&self.taken) {
            *slice = io::IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// So many bytes of the pieces have been read.
    pub(crate) fn advance(&mut self, mut n: usize) {
        while let Some(piece) = self.taken.front_mut().filter(|_| n > 0) {
            let taken = n.min(piece.len());
            piece.advance(taken);
            n -= taken;
            if piece.is_empty() {
                self.taken.pop_front();
            }
        }
    }

    /// Ready once something is taken off the pipe, or there is no more.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.taken.is_empty() {
            let coop = ready!(tokio::task::coop::poll_proceed(cx));
            let (taken, tell) = self.pipe.poll_take(cx, &mut self.taken);
            self.tell(tell);
            ready!(taken).map_err(io_error)?;
            coop.made_progress();
        }
        Poll::Ready(Ok(()))
    }

    fn tell(&self, tell: bool) {
        if tell {
            self.shared.signal(Signal::Touched(self.pipe.flow()));
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_taken(cx))?;
        while buf.remaining() > 0 {
            let Some(chunk) = self.taken.front_mut() else { break };
            let n = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..n]);
            chunk.advance(n);
            if chunk.is_empty() {
                self.taken.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads what arrived where it lies, packet by packet, without copying it.
impl AsyncBufRead for TunnelStream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_taken(cx))?;
        Poll::Ready(Ok(this.taken.front().map_or(&[], |chunk| chunk)))
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        if let Some(chunk) = self.taken.front_mut() {
            chunk.advance(n.min(chunk.len()));
            if chunk.is_empty() {
                self.taken.pop_front();
            }
        }
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let (taken, tell) = ready!(self.pipe.poll_write(cx, buf)).map_err(io_error)?;
        coop.made_progress();
        self.tell(tell);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written is sent as soon as the path takes it: only a header alone waits for company.
        self.tell(self.pipe.flush());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.pipe.drop_user();
        self.tell(true);
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TunnelStream({:?})", self.pipe.flow())
    }
}

/// The stream's error as the standard library's, with itself as the source.
fn io_error(error: StreamError) -> io::Error {
    let kind = match error {
        StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
        StreamError::Stopped(_) | StreamError::Closed => io::ErrorKind::BrokenPipe,
        StreamError::NoPeer => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

//! A connection of this host and a stream in the tunnel, joined.

use crate::handle::TunnelStream;
use crate::streams::StreamError;
use bytes::{Bytes, BytesMut};
use proto_core::stream::CODE_REFUSED;
use socket2::SockRef;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// Bytes read from a socket at once.
const CHUNK: usize = 64 * 1024;
/// What is shorter is copied out of the buffer that it was read into, which would otherwise be pinned whole.
const COPIED: usize = 8 * 1024;
/// Pieces written to a socket at once.
const PIECES: usize = 64;
/// Bytes carried one way before other tasks get a turn: a new connection among many busy ones waits for a turn of each,
/// several times over, until it is answered.
const TURN: usize = 128 * 1024;

/// A connection of this host.
pub trait Socket: Send + Sync {
    /// Ready once there may be something to read.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Reads what is there.
    ///
    /// # Errors
    /// As reads do, [`io::ErrorKind::WouldBlock`] if there is nothing.
    fn try_read(&self, into: &mut BytesMut) -> io::Result<usize>;
    /// Ready once something may be written.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Writes what is taken now.
    ///
    /// # Errors
    /// As writes do, [`io::ErrorKind::WouldBlock`] if nothing is taken.
    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Ends our half.
    ///
    /// # Errors
    /// If the connection is over.
    fn finish(&self) -> io::Result<()>;
    /// Waits until the connection has failed, though nobody reads or writes.
    fn failed(&self) -> impl Future<Output = io::Error> + Send;
    /// Nothing shall wait for more to be sent with it.
    fn send_at_once(&self);
    /// Closed from now on without the usual goodbye, which would pass what was lost for a whole.
    fn abort(&self);
}

/// What both kinds have alike.
macro_rules! alike {
    () => {
        fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Self::poll_read_ready(self, cx)
        }
        fn try_read(&self, into: &mut BytesMut) -> io::Result<usize> {
            self.try_read_buf(into)
        }
        fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Self::poll_write_ready(self, cx)
        }
        fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            self.try_write_vectored(pieces)
        }
        fn finish(&self) -> io::Result<()> {
            SockRef::from(self).shutdown(Shutdown::Write)
        }
    };
}

impl Socket for TcpStream {
    alike!();

    async fn failed(&self) -> io::Error {
        match self.ready(Interest::ERROR).await {
            Ok(_) => {
                self.take_error().ok().flatten().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
            }
            Err(error) => error,
        }
    }

    fn send_at_once(&self) {
        let _ = self.set_nodelay(true);
    }

    fn abort(&self) {
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// There are no resets among these: what broke ends.
impl Socket for UnixStream {
    alike!();

    async fn failed(&self) -> io::Error {
        std::future::pending().await
    }

    fn send_at_once(&self) {}

    fn abort(&self) {}
}

/// Bytes that were carried, counted while they are.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From connections into the tunnel.
    pub sent: AtomicU64,
    /// Out of the tunnel to connections.
    pub received: AtomicU64,
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection of this host broke.
    #[error("{0}")]
    Socket(io::Error),
    /// The stream in the tunnel broke.
    #[error("{0}")]
    Stream(io::Error),
}

impl Broken {
    /// Whether the tunnel itself is over, and not this stream alone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let Self::Stream(error) = self else { return false };
        matches!(StreamError::of(error), Some(StreamError::Lost | StreamError::NoPeer))
    }
}

/// Carries bytes both ways until both halves have ended. An end of one half is passed on as that, a reset as a reset.
///
/// # Errors
/// If either side broke; the other one has been reset then.
pub async fn splice(socket: &impl Socket, stream: TunnelStream, traffic: &Traffic) -> Result<(), Broken> {
    socket.send_at_once();
    let mut joined = Joined { socket, stream, traffic, pending: Bytes::new(), ended: false, finished: false };
    let carried = {
        let mut failed = pin!(socket.failed());
        poll_fn(|cx| {
            let up = joined.poll_up(cx)?;
            if joined.poll_down(cx)?.is_ready() && up.is_ready() {
                return Poll::Ready(Ok(()));
            }
            // Who does not read any more would not see that the connection was reset.
            if up.is_ready() {
                ready!(failed.as_mut().poll(cx).map(|error| Err(Broken::Socket(error))))?;
            }
            Poll::Pending
        })
        .await
    };
    if carried.is_err() {
        joined.stream.reset(CODE_REFUSED);
        socket.abort();
    }
    carried
}

/// A connection and a stream, and what is on its way between them.
struct Joined<'a, S> {
    socket: &'a S,
    stream: TunnelStream,
    traffic: &'a Traffic,
    /// Read from the connection, and not taken by the stream yet.
    pending: Bytes,
    /// The connection's other end has ended its half, and the stream's other end is told.
    ended: bool,
    /// The stream's other end has ended its half, and the connection's other end is told.
    finished: bool,
}

impl<S: Socket> Joined<'_, S> {
    /// From the connection into the tunnel, until there is no more.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut buffer = BytesMut::new();
        let mut carried = 0;
        while !self.ended {
            if carried >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.pending.is_empty() {
                ready!(self.stream.poll_write_bytes(cx, &mut self.pending)).map_err(Broken::Stream)?;
                continue;
            }
            if self.socket.poll_read_ready(cx).map_err(Broken::Socket)?.is_pending() {
                // While it is quiet, that the other end of the stream was reset shows here alone.
                ready!(self.stream.poll_broken(cx)).map_err(Broken::Stream)?;
            }
            buffer.reserve(CHUNK);
            let read = match self.socket.try_read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(Broken::Socket(error))),
            };
            if read == 0 {
                self.ended = true;
                self.stream.finish().map_err(Broken::Stream)?;
                break;
            }
            self.traffic.sent.fetch_add(read as u64, Ordering::Relaxed);
            carried += read;
            self.pending = if read < COPIED {
                let copied = Bytes::copy_from_slice(&buffer);
                buffer.clear();
                copied
            } else {
                buffer.split().freeze()
            };
        }
        Poll::Ready(Ok(()))
    }

    /// Out of the tunnel to the connection, until there is no more.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut carried = 0;
        while !self.finished {
            if carried >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if ready!(self.stream.poll_pieces(cx)).map_err(Broken::Stream)? == 0 {
                self.finished = true;
                self.socket.finish().map_err(Broken::Socket)?;
                break;
            }
            ready!(self.socket.poll_write_ready(cx)).map_err(Broken::Socket)?;
            let mut slices = [IoSlice::new(&[]); PIECES];
            let filled = self.stream.pieces(&mut slices);
            let written = match self.socket.try_write(slices.get(..filled).unwrap_or_default()) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(Broken::Socket(error))),
            };
            self.stream.advance(written);
            self.traffic.received.fetch_add(written as u64, Ordering::Relaxed);
            carried += written;
        }
        Poll::Ready(Ok(()))
    }
}

//! A [`UdpLink`] out of a socket that knows only one datagram at a time and only async functions, as
//! turmoil's does.

use super::{Datagrams, RecvBatch, UdpLink, is_unreachable};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

/// A socket without batches.
pub trait SimpleUdp: Send + Sync + 'static {
    /// The bound address, with the real port.
    fn local_addr(&self) -> SocketAddr;

    /// Sends one datagram, with a hop limit of its own if `ttl` says so.
    ///
    /// # Errors
    /// Any error counts as loss, but for those of a host without a way: there is no waiting for room.
    fn try_send_to(&self, bytes: &[u8], to: SocketAddr, ttl: Option<u8>) -> io::Result<()>;

    /// Receives one datagram if there is one: its length and source.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none.
    fn try_recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// Waits until [`SimpleUdp::try_recv_from`] may succeed.
    ///
    /// # Errors
    /// If the socket is dead.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// The [`UdpLink`] over a [`SimpleUdp`].
pub struct OneByOne<S> {
    socket: Arc<S>,
    waiting: Mutex<Option<Waiting>>,
}

impl<S: SimpleUdp> OneByOne<S> {
    /// Wraps `socket`.
    pub fn new(socket: S) -> Self {
        Self { socket: Arc::new(socket), waiting: Mutex::new(None) }
    }

    fn drain(&self, batch: &mut RecvBatch) -> io::Result<()> {
        batch.clear();
        while let Some(slot) = batch.next_free() {
            match self.socket.try_recv_from(slot) {
                Ok((len, from)) => batch.push(from, len, len),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl<S: SimpleUdp> UdpLink for OneByOne<S> {
    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn max_segments(&self) -> usize {
        usize::MAX
    }

    fn try_send(&self, run: &Datagrams<'_>) -> io::Result<usize> {
        for bytes in run.iter() {
            // Refused, too long, no room: lost on the way.
            let sent = self.socket.try_send_to(bytes, run.to, run.ttl);
            sent.or_else(|e| if is_unreachable(&e) { Err(e) } else { Ok(()) })?;
        }
        Ok(run.bytes.len())
    }

    fn poll_writable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.drain(batch)?;
            if !batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let socket = self.socket.clone();
            let future = waiting.get_or_insert_with(|| Box::pin(async move { socket.readable().await }));
            let done = ready!(future.as_mut().poll(cx));
            *waiting = None;
            done?;
        }
    }
}

//! The seam between the drivers and the world: what they need of a network, and nothing that names a
//! socket type. [`TokioNetwork`] is the real one; the simulator has its own over turmoil.
//!
//! UDP goes in batches both ways: a real network sends and receives up to 64 KiB a call (GSO, GRO), a
//! simulated one does one datagram at a time behind the same calls. Everything that waits is a poll
//! function, so that one task can wait for any number of sockets without a task for each.

use crate::portmap::PortMapper;
use proto_core::machine::StreamTarget;
use proto_core::time::Duration;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};

mod batch;
mod simple;
mod tokio_net;

pub use batch::{DATAGRAM_ROOM, Datagrams, RecvBatch};
pub use simple::{OneByOne, SimpleUdp};
pub use tokio_net::{Outward, TokioListener, TokioNetwork};

/// Bytes both ways, over whatever carries them.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// An accepted connection, plain or inside TLS. It is boxed so that a task holds a pointer, and not a kilobyte of TLS
/// in each of its states: an idle relay client costs a third less.
pub type AnyStream = Box<dyn Duplex>;

/// A network as one host sees it. Cheap to clone: a handle, not the network.
pub trait Network: Clone + Send + Sync + 'static {
    /// A UDP socket.
    type Udp: UdpLink;
    /// A TCP connection.
    type Tcp: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A TCP listener.
    type Listener: TcpAccept<Tcp = Self::Tcp>;

    /// Binds a UDP socket. An IPv6 address binds IPv6 alone, never both families.
    ///
    /// # Errors
    /// What the operating system says: the port is taken, the family is missing.
    fn bind_udp(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Udp>> + Send;

    /// Connects within `timeout`, with Nagle's algorithm off.
    ///
    /// # Errors
    /// What the operating system says, or [`io::ErrorKind::TimedOut`].
    fn connect_tcp(
        &self,
        to: SocketAddr,
        timeout: Duration,
    ) -> impl Future<Output = io::Result<Self::Tcp>> + Send;

    /// Listens for TCP connections.
    ///
    /// # Errors
    /// What the operating system says.
    fn listen_tcp(&self, on: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Resolves a host name to its addresses, best first; an address literal resolves to itself.
    ///
    /// # Errors
    /// If the name is unknown or the resolver does not answer.
    fn resolve(&self, name: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;

    /// A connection to what runs in this very process, if the target is that: no name, proxy or TLS stands before it.
    /// A server's own node reaches its coordinator and its relay so.
    fn local(&self, target: &StreamTarget) -> Option<Self::Tcp> {
        let _ = target;
        None
    }

    /// The way to the router before this host, if it may be asked for ports.
    fn port_mapper(&self) -> Option<PortMapper> {
        None
    }

    /// The addresses of this host's interfaces that another host might reach: no loopback (unless there
    /// is nothing else), no IPv6 link-local, none of Warren's own tunnel addresses.
    fn interfaces(&self) -> Vec<IpAddr>;
}

/// A bound UDP socket.
pub trait UdpLink: Send + Sync + 'static {
    /// The bound address, perhaps a wildcard, with the real port.
    fn local_addr(&self) -> SocketAddr;

    /// Most datagrams that one [`UdpLink::try_send`] takes.
    fn max_segments(&self) -> usize {
        1
    }

    /// What the kernel keeps of datagrams that nobody has read yet, in bytes (`SO_RCVBUF` as obtained).
    fn receive_buffer(&self) -> usize {
        1 << 20
    }

    /// Sends a run of datagrams: how many bytes of it are gone, whole datagrams. A destination that refuses
    /// counts as sent: on a datagram network that is loss.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the socket's buffer is full and nothing was sent: wait for
    /// [`UdpLink::poll_writable`]. An error such as [`io::ErrorKind::HostUnreachable`] if the host has no way to the
    /// destination.
    fn try_send(&self, run: &Datagrams<'_>) -> io::Result<usize>;

    /// Ready once sending may succeed again.
    ///
    /// # Errors
    /// If the socket is dead.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Receives what there is, at least one datagram, into `batch`, which is cleared first. One task
    /// alone may wait here.
    ///
    /// # Errors
    /// If the socket is dead. A destination's refusal (ICMP) is no error.
    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>>;
}

/// A TCP listener.
pub trait TcpAccept: Send + Sync + 'static {
    /// What it accepts.
    type Tcp: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The bound address, with the real port.
    fn local_addr(&self) -> SocketAddr;

    /// The next connection and whose it is.
    ///
    /// # Errors
    /// What the operating system says; the caller pauses and goes on.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Tcp, SocketAddr)>> + Send;

    /// Has the system forget the connection at once when it is dropped, and tell the other end by a reset: what is not
    /// sent yet is lost, and nothing is kept for those that might come late. Where that can't be, it ends as usual.
    fn abort(_connection: &Self::Tcp) {}
}

/// Whether a host that fails to send so has no way to the destination: no route, no neighbour, no interface.
pub(crate) fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable};
    matches!(error.kind(), HostUnreachable | NetworkDown | NetworkUnreachable)
}

impl<T: UdpLink> UdpLink for std::sync::Arc<T> {
    fn local_addr(&self) -> SocketAddr {
        (**self).local_addr()
    }
    fn max_segments(&self) -> usize {
        (**self).max_segments()
    }
    fn receive_buffer(&self) -> usize {
        (**self).receive_buffer()
    }
    fn try_send(&self, run: &Datagrams<'_>) -> io::Result<usize> {
        (**self).try_send(run)
    }
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_writable(cx)
    }
    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        (**self).poll_recv(cx, batch)
    }
}

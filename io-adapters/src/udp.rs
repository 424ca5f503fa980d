//! A UDP socket that sends and receives in batches: many datagrams a system call where the kernel can
//! (GSO, GRO), one at a time where it cannot.
//!
//! One walk through the kernel's network stack costs the same for one datagram and for sixty-four, which is
//! worth a factor of twenty-eight between two processes of one host (`sendmmsg` is worth nothing: it saves the
//! system call, not the walk).

use crate::transport::{DATAGRAM_ROOM, Datagrams, RecvBatch, UdpLink, is_unreachable};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::UdpSocket;

mod ttl;

/// Bytes of receive buffer that are asked for. A receiver that was not scheduled for 5 ms misses 6 MB at
/// 10 Gbit/s; Linux doubles what is asked for, for its own bookkeeping, and caps it (`net.core.rmem_max`).
pub const RECEIVE_BUFFER: usize = 8 << 20;
/// Bytes of send buffer that are asked for: a few full batches, so that a burst need not wait.
pub const SEND_BUFFER: usize = 4 << 20;
/// Receives of one call.
const SLOTS: usize = 8;

/// A bound UDP socket.
#[derive(Debug)]
pub struct BatchedUdp {
    socket: UdpSocket,
    state: UdpSocketState,
    address: SocketAddr,
    buffers: Buffers,
}

/// What the kernel keeps for a socket, in bytes as obtained (Linux: twice the payload it is meant for).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffers {
    /// `SO_RCVBUF`.
    pub receive: usize,
    /// `SO_SNDBUF`.
    pub send: usize,
}

impl BatchedUdp {
    /// Binds a socket. An IPv6 address binds IPv6 alone. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What the operating system says: the port is taken, the family is missing.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        let buffers = enlarge(&socket);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let socket = UdpSocket::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Self { socket, state, address, buffers })
    }

    /// What the kernel keeps for this socket.
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// Whether the kernel takes many datagrams a call. It may turn out only when sending that it does not.
    #[must_use]
    pub fn sends_batches(&self) -> bool {
        self.state.max_gso_segments() > 1
    }

    /// How many bytes of `run` were sent, counting what was lost at once.
    fn send(&self, run: &Datagrams<'_>) -> io::Result<usize> {
        let many = run.segment < run.bytes.len();
        if many && !self.sends_batches() {
            return self.send_singly(run);
        }
        let transmit = Transmit {
            destination: run.to,
            ecn: None,
            contents: run.bytes,
            segment_size: many.then_some(run.segment),
            src_ip: None,
        };
        let sent =
            self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), &transmit));
        match sent {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || is_unreachable(&e) => Err(e),
            // The kernel or the driver refuses batches (EIO, EINVAL), or the segments are longer than the
            // interface takes (EMSGSIZE): one by one loses only what is really too long.
            Err(_) if many => self.send_singly(run),
            // Refused, too long: lost on the way.
            _ => Ok(run.bytes.len()),
        }
    }

    fn send_singly(&self, run: &Datagrams<'_>) -> io::Result<usize> {
        let mut sent = 0;
        for bytes in run.iter() {
            match self.socket.try_send_to(bytes, run.to) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && sent == 0 => return Err(e),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if is_unreachable(&e) => return Err(e),
                _ => sent += bytes.len(),
            }
        }
        Ok(sent)
    }

    fn receive(&self, batch: &mut RecvBatch) -> io::Result<()> {
        batch.clear();
        let mut meta = [RecvMeta::default(); SLOTS];
        let received = {
            let mut free = batch.free();
            let mut slices: [IoSliceMut<'_>; SLOTS] =
                std::array::from_fn(|_| IoSliceMut::new(free.next().unwrap_or_default()));
            let used = slices.iter().take_while(|s| s.len() == DATAGRAM_ROOM).count();
            self.socket.try_io(Interest::READABLE, || {
                self.state.recv((&self.socket).into(), &mut slices[..used], &mut meta[..used])
            })?
        };
        for m in &meta[..received] {
            batch.push_to(m.dst_ip, m.addr, m.len, m.stride);
        }
        Ok(())
    }
}

impl UdpLink for BatchedUdp {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn receive_buffer(&self) -> usize {
        self.buffers.receive
    }

    fn try_send(&self, run: &Datagrams<'_>) -> io::Result<usize> {
        match run.ttl {
            None => self.send(run),
            Some(ttl) => ttl::send(&self.socket, run, ttl).map(|()| run.bytes.len()),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            match self.receive(batch) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // An earlier datagram met a closed port (ICMP): nothing to do with receiving.
                Err(e) if is_echo(&e) => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

/// Whether an error of receiving only repeats what happened to something sent.
fn is_echo(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::Interrupted
    )
}

/// Asks for large buffers and says what was obtained. Asking never fails: the kernel gives what it allows.
fn enlarge(socket: &Socket) -> Buffers {
    force(socket);
    let receive = socket.recv_buffer_size().unwrap_or(0);
    if receive < 2 * RECEIVE_BUFFER {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    let send = socket.send_buffer_size().unwrap_or(0);
    if send < 2 * SEND_BUFFER {
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
    }
    let obtained = SockRef::from(socket);
    Buffers {
        receive: obtained.recv_buffer_size().unwrap_or(0),
        send: obtained.send_buffer_size().unwrap_or(0),
    }
}

/// Beyond the administrator's limit, where the process may (`CAP_NET_ADMIN`).
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn force(socket: &Socket) {
    use std::os::fd::AsRawFd;
    for (option, bytes) in [(libc::SO_RCVBUFFORCE, RECEIVE_BUFFER), (libc::SO_SNDBUFFORCE, SEND_BUFFER)] {
        let Ok(value) = libc::c_int::try_from(bytes) else { continue };
        // SAFETY: the descriptor is open for as long as `socket` is borrowed, and `value` is a c_int that
        // outlives the call, with its own size given.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const value).cast(),
                libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0),
            );
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn force(_socket: &Socket) {}

#[cfg(test)]
mod tests;

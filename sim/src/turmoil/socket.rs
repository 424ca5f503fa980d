//! The [`Network`] of a host in a lab: either on the internet itself, or inside, with nothing but a gateway.

use super::envelope::{Envelope, put};
use super::wire::Wire;
use super::{ENVELOPE_PORT, INTERNET_HOPS, SPLICE_PORT};
use crate::topology::fabric::TTL;
use io_adapters::transport::{Network, OneByOne, SimpleUdp, TcpAccept};
use proto_core::time::Duration;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

/// Where a host is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attachment {
    /// On the internet.
    Internet,
    /// Behind the gateway at this address of turmoil's.
    Behind(IpAddr),
}

/// The network as one host sees it.
#[derive(Clone)]
pub struct LabNetwork {
    wire: Wire,
    attachment: Attachment,
    address: IpAddr,
    ports: Arc<AtomicU16>,
}

impl LabNetwork {
    /// The network of the host that sees itself as `address`.
    #[must_use]
    pub fn new(wire: Wire, attachment: Attachment, address: IpAddr) -> Self {
        Self { wire, attachment, address, ports: Arc::new(AtomicU16::new(41_641)) }
    }

    /// The host's address, as it sees itself.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }
}

impl Network for LabNetwork {
    type Udp = OneByOne<LabUdp>;
    type Tcp = LabTcp;
    type Listener = LabListener;

    async fn bind_udp(&self, address: SocketAddr) -> io::Result<Self::Udp> {
        if address.is_ipv6() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "no IPv6 in this lab"));
        }
        let port = match address.port() {
            0 => self.ports.fetch_add(1, Ordering::Relaxed),
            port => port,
        };
        let own = match self.attachment {
            Attachment::Internet => port,
            // Inside, the socket beneath only carries envelopes; its own port is nobody's business.
            Attachment::Behind(_) => 0,
        };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, own)).await?;
        let bound = SocketAddr::new(address.ip(), port);
        Ok(OneByOne::new(LabUdp { network: self.clone(), socket: Arc::new(socket), bound }))
    }

    async fn connect_tcp(&self, to: SocketAddr, limit: Duration) -> io::Result<LabTcp> {
        let connecting = async {
            let Attachment::Behind(gateway) = self.attachment else {
                return TcpStream::connect(to).await;
            };
            let mut stream = TcpStream::connect((gateway, SPLICE_PORT)).await?;
            let mut request = Vec::new();
            put(&mut request, SocketAddr::new(self.address, 0));
            put(&mut request, to);
            stream.write_all(&request).await?;
            // turmoil connects before the far side is even asked; the gateway says when it has been.
            match stream.read_u8().await? {
                0 => Ok(stream),
                _ => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        };
        let stream = timeout(limit, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(LabTcp { stream, wire: self.wire.clone(), ends: (self.address, to.ip()) })
    }

    async fn listen_tcp(&self, on: SocketAddr) -> io::Result<LabListener> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, on.port())).await?;
        let address = listener.local_addr()?;
        Ok(LabListener { listener, address, wire: self.wire.clone(), host: self.address })
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.wire.resolve(name).map(|ip| vec![ip]).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        vec![self.address]
    }
}

/// A UDP socket of a lab.
pub struct LabUdp {
    network: LabNetwork,
    socket: Arc<UdpSocket>,
    bound: SocketAddr,
}

impl SimpleUdp for LabUdp {
    fn local_addr(&self) -> SocketAddr {
        self.bound
    }

    fn try_send_to(&self, bytes: &[u8], to: SocketAddr, ttl: Option<u8>) -> io::Result<()> {
        let LabNetwork { wire, attachment, address, .. } = &self.network;
        if !wire.has_route(*address, to.ip()) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        wire.datagram(true, (*address, to.ip()), bytes);
        let ttl = ttl.unwrap_or(TTL);
        match attachment {
            Attachment::Internet => {
                if ttl <= INTERNET_HOPS {
                    wire.count(|c| c.expired += 1);
                    return Ok(());
                }
                wire.crossing(*address, to.ip());
                // An address that nobody has is silence, not a refusal.
                let _ = self.socket.try_send_to(bytes, to);
            }
            Attachment::Behind(gateway) => {
                let src = SocketAddr::new(*address, self.bound.port());
                let envelope = Envelope { src, dst: to, ttl, bytes: bytes.to_vec() };
                let _ = self.socket.try_send_to(&envelope.encode(), (*gateway, ENVELOPE_PORT));
            }
        }
        Ok(())
    }

    fn try_recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let LabNetwork { wire, attachment, address, .. } = &self.network;
        loop {
            let (len, from) = self.socket.try_recv_from(into)?;
            let Attachment::Behind(gateway) = attachment else {
                wire.datagram(false, (from.ip(), *address), &into[..len]);
                return Ok((len, from));
            };
            let envelope = (from.ip() == *gateway).then(|| Envelope::decode(&into[..len])).flatten();
            let Some(envelope) = envelope else {
                wire.violate("an inside host was reached past its gateway");
                continue;
            };
            let len = envelope.bytes.len();
            into[..len].copy_from_slice(&envelope.bytes);
            wire.datagram(false, (envelope.src.ip(), *address), &into[..len]);
            return Ok((len, envelope.src));
        }
    }

    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send {
        let socket = self.socket.clone();
        async move { socket.readable().await }
    }
}

/// A TCP connection of a lab, whose writes are traced.
pub struct LabTcp {
    stream: TcpStream,
    wire: Wire,
    ends: (IpAddr, IpAddr),
}

impl AsyncRead for LabTcp {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for LabTcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = &written {
            let (from, to) = self.ends;
            self.wire.stream(from, to, &buf[..*len]);
            self.wire.crossing(from, to);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A TCP listener of a lab.
pub struct LabListener {
    listener: TcpListener,
    address: SocketAddr,
    wire: Wire,
    host: IpAddr,
}

impl TcpAccept for LabListener {
    type Tcp = LabTcp;

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&self) -> io::Result<(LabTcp, SocketAddr)> {
        let (stream, from) = self.listener.accept().await?;
        Ok((LabTcp { stream, wire: self.wire.clone(), ends: (self.host, from.ip()) }, from))
    }
}

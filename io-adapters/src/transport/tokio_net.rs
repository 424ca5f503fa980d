//! The real network, by tokio.

use super::{Network, TcpAccept};
use crate::portmap::PortMapper;
use crate::udp::BatchedUdp;
use proto_core::key::INNER_PREFIX;
use proto_core::time::Duration;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// Bytes sent on TCP must be acknowledged within this time, or the connection is dead: the machines' own
/// liveness notices sooner on quiet connections, this one on those with data under way.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// A quiet connection is probed after this long, so that a server forgets clients that vanished.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Bytes of a connection that the system takes before it can send them. What waits here nobody can sort: discovery stays
/// behind data, and nothing old is dropped. Left alone, Linux takes up to 4 MiB, three seconds at 10 Mbit/s; what is
/// under way and not acknowledged yet comes on top, so that long paths are as fast as without.
const UNSENT: u32 = 128 * 1024;
/// Connections that may wait to be accepted: after a server's restart everybody comes at once.
const BACKLOG: u32 = 4_096;

/// The operating system's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioNetwork;

impl Network for TokioNetwork {
    type Udp = BatchedUdp;
    type Tcp = TcpStream;
    type Listener = TokioListener;

    async fn bind_udp(&self, address: SocketAddr) -> io::Result<BatchedUdp> {
        BatchedUdp::bind(address)
    }

    async fn connect_tcp(&self, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        let stream = timeout(patience, socket.connect(to)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        prepare(&stream);
        Ok(stream)
    }

    async fn listen_tcp(&self, on: SocketAddr) -> io::Result<TokioListener> {
        TokioListener::bind(on)
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        crate::resolver::resolve(name).await
    }

    fn port_mapper(&self) -> Option<PortMapper> {
        Some(PortMapper::here())
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        let all: Vec<IpAddr> = netdev::get_interfaces()
            .iter()
            .filter(|interface| interface.is_up())
            .flat_map(|interface| {
                let v4 = interface.ipv4.iter().map(|net| IpAddr::V4(net.addr()));
                let v6 = interface.ipv6.iter().map(|net| IpAddr::V6(net.addr()));
                v4.chain(v6)
            })
            .collect();
        let reachable: Vec<IpAddr> = all.iter().copied().filter(is_reachable).collect();
        if !reachable.is_empty() {
            return reachable;
        }
        // A host without any network can still talk to itself.
        all.into_iter().filter(IpAddr::is_loopback).collect()
    }
}

/// The interface by which this host reaches the internet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outward {
    /// Its name.
    pub name: String,
    /// The longest packet that it takes, in bytes, if the system says so.
    pub mtu: Option<u32>,
}

impl TokioNetwork {
    /// The interface that packets to the internet leave by, if there is one.
    #[must_use]
    pub fn outward() -> Option<Outward> {
        // Nothing is sent: connecting a UDP socket only asks the routing table. The address is one for documentation.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        let IpAddr::V4(own) = socket.local_addr().ok()?.ip() else { return None };
        let has = |interface: &netdev::Interface| interface.ipv4.iter().any(|net| net.addr() == own);
        let interface = netdev::get_interfaces().into_iter().find(has)?;
        Some(Outward { name: interface.name, mtu: interface.mtu })
    }
}

/// Whether another host might reach us there.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => {
            let ours = v6.octets().starts_with(&INNER_PREFIX);
            !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified() && !ours
        }
    }
}

/// Whether accepted connections have their listener's options. On other systems each is told, by four system calls.
const INHERITED: bool = cfg!(target_os = "linux");

/// Small frames must not wait for one another, and a connection must not outlive its other end by hours. A
/// system that lacks an option does without.
fn prepare<'s>(socket: impl Into<SockRef<'s>>) {
    let socket = socket.into();
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(UNSENT);
}

/// A TCP listener.
#[derive(Debug)]
pub struct TokioListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl TokioListener {
    /// Listens. An IPv6 wildcard takes IPv4 too where the system says so.
    ///
    /// # Errors
    /// What the operating system says: the port is taken, the address is not ours.
    pub fn bind(on: SocketAddr) -> io::Result<Self> {
        let socket = if on.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted server must not wait for the connections of the one before it.
        socket.set_reuseaddr(true)?;
        socket.bind(on)?;
        let listener = socket.listen(BACKLOG)?;
        if INHERITED {
            prepare(&listener);
        }
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
}

impl TcpAccept for TokioListener {
    type Tcp = TcpStream;

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, from) = self.listener.accept().await?;
        if !INHERITED {
            prepare(&stream);
        }
        Ok((stream, from))
    }

    fn abort(connection: &TcpStream) {
        let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Bytes that a connection takes whose other end reads nothing and has room for little.
    fn taken(stream: &TcpStream) -> usize {
        let chunk = [0; 16 * 1024];
        let mut taken = 0;
        while let Ok(n) = stream.try_write(&chunk) {
            taken += n;
        }
        taken
    }

    #[tokio::test]
    async fn what_cannot_be_sent_waits_with_us_at_both_ends() {
        let listener = TokioListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (dialled, accepted) = tokio::join!(
            TokioNetwork.connect_tcp(listener.address, Duration::from_secs(5)),
            listener.accept()
        );
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap().0);
        for stream in [&dialled, &accepted] {
            SockRef::from(stream).set_recv_buffer_size(32 * 1024).unwrap();
        }
        for stream in [&dialled, &accepted] {
            // Loopback's packets are 64 KiB each, and the windows at the beginning not much greater.
            stream.writable().await.unwrap();
            let taken = taken(stream);
            assert!(taken >= UNSENT as usize, "{taken}");
            assert!(taken <= 4 * UNSENT as usize, "{taken}");
        }
    }
}

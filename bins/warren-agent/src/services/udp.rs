//! UDP to the workspace's ports.

use io_adapters::dial;
use io_adapters::udp_flow::{Came, UdpFlow};
use proto_core::stream::TcpAnswer;
use proto_core::stream::udp::{DATAGRAM_MAX, UdpNotice};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

/// A flow in which nothing was said for so long has been forgotten by who opened it: twice its own patience.
const IDLE: Duration = Duration::from_secs(240);

/// Carries datagrams both ways until the flow ends.
pub(crate) async fn serve(mut flow: UdpFlow, to: SocketAddr) -> io::Result<()> {
    let mut port = match Port::open(dial::addresses(to)).await {
        Ok(port) => port,
        Err(error) => {
            flow.notify(meaning(&error));
            return Err(error);
        }
    };
    let mut buffer = vec![0; DATAGRAM_MAX];
    let mut until = Instant::now() + IDLE;
    loop {
        tokio::select! {
            came = flow.next() => {
                let Some(Came::Datagram(bytes)) = came? else { return Ok(()) };
                if let Err(error) = port.send(&bytes).await {
                    port.complain(&error, &mut flow).await;
                }
            }
            received = port.socket.recv(&mut buffer) => match received {
                Ok(len) => {
                    port.heard = true;
                    port.complained = false;
                    flow.send(buffer.get(..len).unwrap_or_default());
                }
                Err(error) => port.complain(&error, &mut flow).await,
            },
            () = sleep_until(until) => return Ok(()),
        }
        until = Instant::now() + IDLE;
    }
}

/// The socket that leads to the port.
struct Port {
    socket: UdpSocket,
    /// Addresses to try if nobody is at this one.
    others: Vec<SocketAddr>,
    /// What was sent last, to be sent again elsewhere.
    last: Vec<u8>,
    heard: bool,
    /// What is wrong has been told, and nothing has come since.
    complained: bool,
}

impl Port {
    async fn open(mut addresses: Vec<SocketAddr>) -> io::Result<Self> {
        let others = addresses.split_off(addresses.len().min(1));
        let first = addresses.first().copied().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = connect(first).await?;
        Ok(Self { socket, others, last: Vec::new(), heard: false, complained: false })
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.heard && !self.others.is_empty() {
            self.last = bytes.to_vec();
        }
        // An error may be that of the datagram before (ICMP): this one is then not sent yet.
        match self.socket.send(bytes).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = self.socket.send(bytes).await;
                Err(error)
            }
            sent => sent.map(|_| ()),
        }
    }

    /// Something is wrong: another address is tried, or the opener told, once until something comes.
    async fn complain(&mut self, error: &io::Error, flow: &mut UdpFlow) {
        if error.kind() == io::ErrorKind::ConnectionRefused
            && !self.heard
            && let Some(other) = self.others.pop()
            && let Ok(socket) = connect(other).await
            && socket.send(&self.last).await.is_ok()
        {
            self.socket = socket;
            return;
        }
        if !std::mem::replace(&mut self.complained, true) {
            flow.notify(meaning(error));
        }
    }
}

async fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

fn meaning(error: &io::Error) -> UdpNotice {
    /// The datagram is longer than the interface takes (EMSGSIZE).
    const TOO_LONG: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();
    match dial::meaning(error) {
        _ if error.raw_os_error() == Some(TOO_LONG) => UdpNotice::TooLong,
        TcpAnswer::Refused => UdpNotice::Refused,
        TcpAnswer::Unreachable => UdpNotice::Unreachable,
        _ => UdpNotice::Failed,
    }
}

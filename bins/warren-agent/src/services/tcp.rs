//! TCP connections to the workspace's ports.

use io_adapters::handle::TunnelStream;
use io_adapters::splice::splice;
use proto_core::stream::TcpAnswer;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a connection may take: what a person waits for.
const DIAL: Duration = Duration::from_secs(10);

/// Connects, says whether that went well, and carries the connection to its end.
pub(crate) async fn serve(mut stream: TunnelStream, to: SocketAddr) -> io::Result<()> {
    match dial(to).await {
        Ok(tcp) => {
            stream.write_u8(TcpAnswer::Connected as u8).await?;
            splice(tcp, stream).await
        }
        Err(answer) => {
            stream.write_u8(answer as u8).await?;
            stream.shutdown().await
        }
    }
}

async fn dial(to: SocketAddr) -> Result<TcpStream, TcpAnswer> {
    // Our own host's programs listen on either loopback, some on one alone.
    let own = [SocketAddr::from((Ipv4Addr::LOCALHOST, to.port())), (Ipv6Addr::LOCALHOST, to.port()).into()];
    let addresses = if to.ip().is_unspecified() { &own[..] } else { std::slice::from_ref(&to) };
    let mut answer = TcpAnswer::Failed;
    for (n, address) in addresses.iter().enumerate() {
        match timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            // The second loopback may not be there at all, which says nothing.
            Ok(Err(_)) if n > 0 => {}
            Ok(Err(error)) => answer = meaning(&error),
            Err(_) => answer = TcpAnswer::TimedOut,
        }
    }
    Err(answer)
}

fn meaning(error: &io::Error) -> TcpAnswer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => TcpAnswer::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => TcpAnswer::Unreachable,
        io::ErrorKind::TimedOut => TcpAnswer::TimedOut,
        _ => TcpAnswer::Failed,
    }
}

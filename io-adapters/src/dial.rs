//! Connections to this host's own programs, for the other end of a tunnel.

use proto_core::stream::TcpAnswer;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How long a connection may take: what a person waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The addresses that `to` means: an unspecified one is our own host, whose programs listen on either loopback, some on
/// one alone.
#[must_use]
pub fn addresses(to: SocketAddr) -> Vec<SocketAddr> {
    if to.ip().is_unspecified() {
        vec![(Ipv4Addr::LOCALHOST, to.port()).into(), (Ipv6Addr::LOCALHOST, to.port()).into()]
    } else {
        vec![to]
    }
}

/// Connects to a port.
///
/// # Errors
/// What the other end is to be told.
pub async fn tcp(to: SocketAddr) -> Result<TcpStream, TcpAnswer> {
    let mut answer = TcpAnswer::Failed;
    for (n, address) in addresses(to).into_iter().enumerate() {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            // The second loopback may not be there at all, which says nothing.
            Ok(Err(_)) if n > 0 => {}
            Ok(Err(error)) => answer = meaning(&error),
            Err(_) => answer = TcpAnswer::TimedOut,
        }
    }
    Err(answer)
}

/// Connects to a Unix socket.
///
/// # Errors
/// What the other end is to be told.
pub async fn unix(path: &Path) -> Result<UnixStream, TcpAnswer> {
    match timeout(PATIENCE, UnixStream::connect(path)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(meaning(&error)),
        Err(_) => Err(TcpAnswer::TimedOut),
    }
}

/// What an error means to the other end.
#[must_use]
pub fn meaning(error: &io::Error) -> TcpAnswer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => TcpAnswer::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => TcpAnswer::Unreachable,
        io::ErrorKind::TimedOut => TcpAnswer::TimedOut,
        io::ErrorKind::NotFound => TcpAnswer::Missing,
        io::ErrorKind::PermissionDenied => TcpAnswer::Forbidden,
        _ => TcpAnswer::Failed,
    }
}

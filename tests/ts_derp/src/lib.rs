//! The ways in which `ts_derp` can come to a relay.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use ts_derp::{Client, IpUsage, ServerConnInfo, TlsValidationConfig};
use ts_keys::NodeKeyPair;

/// A connection of any kind.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A relay as its map tells it: TLS on this port of the loopback, with a certificate that is not checked.
pub fn relay(https: SocketAddr) -> ServerConnInfo {
    ServerConnInfo {
        hostname: "127.0.0.1".into(),
        ipv4: IpUsage::FixedAddr(Ipv4Addr::LOCALHOST),
        ipv6: IpUsage::Disable,
        tls_validation_config: TlsValidationConfig::InsecureForTests,
        https_port: https.port(),
        stun_port: None,
        stun_only: false,
        supports_port_80: false,
    }
}

/// The upgrade over plain HTTP, which `ts_derp` leaves to its callers.
///
/// # Errors
/// If the relay is not reached or refuses.
pub async fn plain(http: SocketAddr, key: &NodeKeyPair) -> io::Result<Client<Box<dyn Io>>> {
    let mut io = TcpStream::connect(http).await?;
    io.write_all(&request("Upgrade: DERP\r\n")).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if !head.starts_with("HTTP/1.1 101 ") {
        return Err(io::Error::other(head));
    }
    handshake(io, key).await
}

/// Fast start over `ts_derp`'s own TLS: the relay answers with DERP at once.
///
/// # Errors
/// If the relay is not reached or refuses.
pub async fn fast_start(https: SocketAddr, key: &NodeKeyPair) -> io::Result<Client<Box<dyn Io>>> {
    let info = relay(https);
    let dialed = ts_derp::dial::dial_region_tls([&info]).await.map_err(io::Error::other)?;
    let (mut io, _, _) = dialed.ok_or_else(|| io::Error::other("the relay is not reached"))?;
    io.write_all(&request("Upgrade: DERP\r\nDerp-Fast-Start: 1\r\n")).await?;
    io.flush().await?;
    handshake(io, key).await
}

async fn handshake<T: Io + 'static>(io: T, key: &NodeKeyPair) -> io::Result<Client<Box<dyn Io>>> {
    Client::handshake(Box::new(io) as Box<dyn Io>, key).await.map_err(io::Error::other)
}

fn request(fields: &str) -> Vec<u8> {
    format!("GET /derp HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\n{fields}\r\n").into_bytes()
}

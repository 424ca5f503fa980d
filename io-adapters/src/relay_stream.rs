//! Streams to relays and to the coordinator, client end: connect, TLS, and the HTTP request that begins them.

use crate::transport::Network;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use proto_core::key::NodePublic;
use proto_core::machine::{StreamProtocol, StreamTarget};
use proto_core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep_until, timeout};

pub mod fallback;
pub mod fast_start;
pub mod tls;
pub mod upgrade;
pub mod websocket;

use crate::control::ControlStream;
use fallback::{DerpIo, Fallback};
use tls::{ClientTls, TlsError, Trust};
use upgrade::UpgradeError;

/// A relay node's addresses have this long to accept a TCP connection, as Tailscale's clients have it.
const CONNECT: Duration = Duration::from_millis(1_500);
/// The next address is tried this long after the last, unless that has failed by then (RFC 8305, 8).
const STAGGER: Duration = Duration::from_millis(250);
/// Connecting, TLS and the upgrade together, as Tailscale's clients have it.
const OPEN: Duration = Duration::from_secs(10);

/// Why a stream could not be opened, in words for a person.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address accepted a connection.
    #[error("cannot connect to {host}: {why}")]
    Connect {
        /// Whom.
        host: String,
        /// The first address's error, or the time it took.
        why: String,
    },
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP request was not answered as it should.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// It took too long.
    #[error("{0} did not answer within {time} s", time = OPEN.as_secs())]
    Slow(String),
}

/// A TCP connection, with TLS or without.
#[derive(Debug)]
pub enum Io<T> {
    /// As it is.
    Plain(T),
    /// Inside TLS.
    Tls(Box<ClientTls<T>>),
}

impl<T> Io<T> {
    /// The key of the relay at the other end, if its certificate tells it.
    pub(crate) fn relay_key(&self) -> Option<NodePublic> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(io) => tls::relay_key(io),
        }
    }
}

/// A stream that is ready.
pub enum Opened<T> {
    /// To a relay.
    Derp(DerpIo<T>),
    /// To the coordinator.
    Control(ControlStream<Io<T>>),
}

/// Opens a stream: connects, shakes hands, upgrades.
///
/// # Errors
/// [`DialError`] says how far it came.
pub async fn open<N: Network>(
    network: &N,
    target: &StreamTarget,
    trust: &Trust,
    fallback: &Fallback,
) -> Result<Opened<N::Tcp>, DialError> {
    let opening = async {
        match target.protocol {
            StreamProtocol::Derp => Ok(Opened::Derp(fallback.open(network, target, trust).await?)),
            StreamProtocol::Control => {
                let io = dial(network, target, trust).await?;
                Ok(Opened::Control(crate::control::connect(io, target).await?))
            }
        }
    };
    timeout(OPEN, opening).await.unwrap_or_else(|_| Err(DialError::Slow(authority(target))))
}

/// Connects to the first address that accepts, and shakes hands.
///
/// # Errors
/// [`DialError::Connect`] or [`DialError::Tls`].
pub async fn dial<N: Network>(
    network: &N,
    target: &StreamTarget,
    trust: &Trust,
) -> Result<Io<N::Tcp>, DialError> {
    let tcp = connect(network, target).await?;
    match &target.tls {
        None => Ok(Io::Plain(tcp)),
        Some(check) => Ok(Io::Tls(Box::new(trust.connect(tcp, &target.host, check).await?))),
    }
}

/// Addresses race, each a little after the one before it.
async fn connect<N: Network>(network: &N, target: &StreamTarget) -> Result<N::Tcp, DialError> {
    let fail = |why: String| DialError::Connect { host: authority(target), why };
    let mut addresses = target.addresses.iter().map(|ip| SocketAddr::new(*ip, target.port));
    let mut attempts = FuturesUnordered::new();
    let mut first_error: Option<String> = None;
    let mut next = tokio::time::Instant::now();
    let mut waiting = addresses.next();
    loop {
        tokio::select! {
            biased;
            Some(result) = attempts.next() => match result {
                Ok(tcp) => return Ok(tcp),
                Err(error) => {
                    first_error.get_or_insert(connect_words(&error));
                    next = tokio::time::Instant::now();
                }
            },
            () = sleep_until(next), if waiting.is_some() => {
                if let Some(address) = waiting.take() {
                    attempts.push(network.connect_tcp(address, CONNECT));
                }
                waiting = addresses.next();
                next = tokio::time::Instant::now() + STAGGER;
            }
            else => return Err(fail(first_error.unwrap_or_else(|| "no address is known".into()))),
        }
    }
}

fn connect_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut => format!("no answer within {} ms", CONNECT.as_millis()),
        _ => error.to_string(),
    }
}

/// The host and, unless it is the scheme's own, the port: what the `Host` header says.
pub(crate) fn authority(target: &StreamTarget) -> String {
    let usual = if target.tls.is_some() { 443 } else { 80 };
    let host = if target.host.contains(':') { format!("[{}]", target.host) } else { target.host.clone() };
    if target.port == usual { host } else { format!("{host}:{}", target.port) }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Io<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Io<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

//! Streams to relays and to the coordinator, client end: connect, TLS, and the HTTP request that begins them.

use crate::transport::Network;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use proto_core::key::NodePublic;
use proto_core::machine::{StreamProtocol, StreamTarget};
use proto_core::time::Duration;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep_until, timeout};

pub mod fallback;
pub mod fast_start;
pub mod proxy;
pub mod tls;
pub mod upgrade;
pub mod websocket;

use crate::control::ControlStream;
use fallback::{DerpIo, Fallback};
use proxy::{Hop, Proxies, Proxy, ProxyError};
use tls::{ClientTls, TlsError, Trust};
use upgrade::UpgradeError;

/// A relay node's addresses have this long to accept a TCP connection, as Tailscale's clients have it.
const CONNECT: Duration = Duration::from_millis(1_500);
/// The next address is tried this long after the last, unless that has failed by then (RFC 8305, 8).
const STAGGER: Duration = Duration::from_millis(250);
/// Connecting, TLS and the upgrade together, as Tailscale's clients have it.
const OPEN: Duration = Duration::from_secs(10);

/// The port that a name is meant to be reached at, where only a name is known.
const HTTPS: u16 = 443;

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
    /// A proxy on the way gives no connection.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
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

/// A TCP connection, with TLS or without, to its other end or through a proxy.
#[derive(Debug)]
pub enum Io<T> {
    /// As it is.
    Plain(Hop<T>),
    /// Inside TLS with whom it leads to.
    Tls(Box<ClientTls<Hop<T>>>),
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

/// How this host opens streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer<N> {
    /// What they travel on.
    pub network: N,
    /// Whom to trust for TLS.
    pub trust: Trust,
    /// Who may stand on the way.
    pub proxies: Proxies,
}

impl<N: Network> Dialer<N> {
    /// Opens a stream: connects, shakes hands, upgrades.
    ///
    /// # Errors
    /// [`DialError`] says how far it came.
    pub async fn open(
        &self,
        target: &StreamTarget,
        fallback: &Fallback,
    ) -> Result<Opened<N::Tcp>, DialError> {
        let opening = async {
            match target.protocol {
                StreamProtocol::Derp | StreamProtocol::DerpInWebSocket => {
                    Ok(Opened::Derp(fallback.open(self, target).await?))
                }
                StreamProtocol::Control => {
                    let io = self.dial(target).await?;
                    Ok(Opened::Control(crate::control::connect(io, target).await?))
                }
            }
        };
        timeout(OPEN, opening).await.unwrap_or_else(|_| Err(DialError::Slow(authority(target))))
    }

    /// Connects to the first address that accepts, or has a proxy connect, and shakes hands.
    ///
    /// # Errors
    /// [`DialError::Connect`], [`DialError::Proxy`] or [`DialError::Tls`].
    pub async fn dial(&self, target: &StreamTarget) -> Result<Io<N::Tcp>, DialError> {
        if let Some(here) = self.network.local(target) {
            return Ok(Io::Plain(Hop::Plain(here)));
        }
        let hop = match self.proxy_to(target) {
            None => {
                let failed = |why| DialError::Connect { host: authority(target), why };
                Hop::Plain(connect(&self.network, &target.addresses, target.port).await.map_err(failed)?)
            }
            Some(proxy) => {
                proxy.check()?;
                let unreachable = |why| proxy.unreachable(why);
                let addresses = self.network.resolve(&proxy.host).await;
                let addresses = addresses.map_err(|e| unreachable(e.to_string()))?;
                let tcp = connect(&self.network, &addresses, proxy.port).await.map_err(unreachable)?;
                proxy.tunnel(tcp, &self.trust, &target.host, target.port).await?
            }
        };
        match &target.tls {
            None => Ok(Io::Plain(hop)),
            Some(check) => Ok(Io::Tls(Box::new(self.trust.connect(hop, &target.host, check).await?))),
        }
    }

    fn proxy_to(&self, target: &StreamTarget) -> Option<Proxy> {
        self.proxies.to(&target.host, target.port, target.tls.is_some())
    }

    /// The addresses of a name. Where only a proxy knows the world's names, its own addresses stand for those it
    /// would be asked for, so that whoever must have some goes on.
    ///
    /// # Errors
    /// What the resolver says.
    pub async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match (self.network.resolve(name).await, self.proxies.to(name, HTTPS, true)) {
            (Ok(addresses), None) => Ok(addresses),
            (Ok(addresses), Some(_)) if !addresses.is_empty() => Ok(addresses),
            (_, Some(proxy)) => self.network.resolve(&proxy.host).await,
            (Err(error), None) => Err(error),
        }
    }
}

/// Addresses race, each a little after the one before it.
async fn connect<N: Network>(network: &N, addresses: &[IpAddr], port: u16) -> Result<N::Tcp, String> {
    let mut addresses = addresses.iter().map(|ip| SocketAddr::new(*ip, port));
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
            else => return Err(first_error.unwrap_or_else(|| "no address is known".into())),
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

//! In which way a relay is asked for DERP: as a plain upgrade, or inside a WebSocket where a proxy on the way
//! breaks that.
//!
//! The plain upgrade is tried first, since nothing is put around its bytes. If the request is answered wrongly or
//! not at all, the same relay is asked for a WebSocket on a new connection; if that works it is remembered, for
//! this network and for a while, so that the next connection does not lose the time again. Where the operator has
//! said that the plain upgrade does not get through, it is not tried.

use super::fast_start::FastStart;
use super::upgrade::{Prefixed, UpgradeError};
use super::websocket::{self, WebSocketIo};
use super::{DialError, Dialer, Io, authority, upgrade};
use crate::transport::Network;
use proto_core::machine::{StreamProtocol, StreamTarget};
use proto_core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

/// How long a request for the plain upgrade may stay unanswered before a WebSocket is tried: several round trips
/// of the longest path, and little enough of [`proto_core::limits::RELAY_OPEN_TIMEOUT`] for another connection after it.
const UPGRADE_PATIENCE: Duration = Duration::from_millis(1_500);
/// How long a relay is asked for a WebSocket first: a proxy may have been mended since.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Relays remembered; beyond, the oldest is forgotten.
const RELAYS_MAX: usize = 64;

/// What is remembered of relays on this network.
#[derive(Debug, Default)]
pub struct Fallback {
    websockets: Mutex<BTreeMap<String, Instant>>,
}

/// A stream of DERP's bytes, in whichever way.
#[derive(Debug)]
pub enum DerpIo<T> {
    /// After a plain upgrade.
    Plain(Prefixed<Io<T>>),
    /// With a relay whose key its certificate told.
    FastStart(Box<FastStart<Io<T>>>),
    /// Inside a WebSocket.
    WebSocket(Box<WebSocketIo<Io<T>>>),
}

impl Fallback {
    /// Another network: its proxies are others.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Opens a relay's stream.
    ///
    /// # Errors
    /// What the plain upgrade met, if both ways fail.
    pub async fn open<N: Network>(
        &self,
        dialer: &Dialer<N>,
        target: &StreamTarget,
    ) -> Result<DerpIo<N::Tcp>, DialError> {
        if target.protocol == StreamProtocol::DerpInWebSocket {
            return websocket(dialer, target).await;
        }
        let relay = authority(target);
        if self.remembers(&relay) {
            match websocket(dialer, target).await {
                Ok(io) => return Ok(io),
                Err(error) => {
                    tracing::debug!(%relay, %error, "the relay has no WebSocket any more");
                    self.lock().remove(&relay);
                }
            }
        }
        let io = dialer.dial(target).await?;
        if let Some(key) = io.relay_key() {
            // Its certificate came through, so nothing on the way looks into what is said.
            return Ok(DerpIo::FastStart(Box::new(FastStart::new(io, target, key)?)));
        }
        let met = match timeout(UPGRADE_PATIENCE, upgrade::derp(io, target)).await {
            Ok(Ok(io)) => return Ok(DerpIo::Plain(io)),
            Ok(Err(error @ UpgradeError::Target { .. })) => return Err(error.into()),
            Ok(Err(error)) => error,
            Err(_) => UpgradeError::Broken { host: relay.clone(), why: "no answer came".into() },
        };
        match websocket(dialer, target).await {
            Ok(io) => {
                tracing::info!(%relay, %met, "the relay is reached through a WebSocket");
                self.remember(relay);
                Ok(io)
            }
            Err(error) => {
                tracing::debug!(%relay, %error, "nor is there a WebSocket");
                Err(met.into())
            }
        }
    }

    fn remembers(&self, relay: &str) -> bool {
        self.lock().get(relay).is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    fn remember(&self, relay: String) {
        let mut websockets = self.lock();
        websockets.insert(relay, Instant::now());
        if websockets.len() > RELAYS_MAX
            && let Some(oldest) = websockets.iter().min_by_key(|(_, since)| **since).map(|(r, _)| r.clone())
        {
            websockets.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.websockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn websocket<N: Network>(
    dialer: &Dialer<N>,
    target: &StreamTarget,
) -> Result<DerpIo<N::Tcp>, DialError> {
    let io = dialer.dial(target).await?;
    Ok(DerpIo::WebSocket(Box::new(websocket::connect(io, target).await?)))
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for DerpIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::FastStart(io) => Pin::new(&mut **io).poll_read(cx, buf),
            Self::WebSocket(io) => Pin::new(&mut **io).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for DerpIo<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::FastStart(io) => Pin::new(&mut **io).poll_write(cx, buf),
            Self::WebSocket(io) => Pin::new(&mut **io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::FastStart(io) => Pin::new(&mut **io).poll_flush(cx),
            Self::WebSocket(io) => Pin::new(&mut **io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::FastStart(io) => Pin::new(&mut **io).poll_shutdown(cx),
            Self::WebSocket(io) => Pin::new(&mut **io).poll_shutdown(cx),
        }
    }
}

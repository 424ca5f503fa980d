//! A small front door: the relay, its companions and the coordinator behind one listener, without a web
//! server. `warren-relay` and the simulations use it; `warren-server` has its own and calls the same handles.

use super::RelayHandle;
use super::http::{Head, HeadError, answer, no_content_fields};
use crate::control::ControlStream;
use crate::control::hub::CoordinatorHandle;
use crate::relay_stream::tls::Identity;
use crate::store::{Denied, Store};
use crate::transport::TcpAccept;
use proto_core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A request's head must come within this time, and so must a TLS handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure to accept (no file descriptors left), others get time to close theirs.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections served at once; beyond, the kernel's backlog holds them.
const CONNECTIONS_MAX: usize = 65_536;

/// What is behind the door.
pub struct Front<S> {
    /// The relay at `/derp`, if there is one.
    pub relay: Option<RelayHandle>,
    /// The coordinator, if there is one.
    pub control: Option<Control<S>>,
}

/// Where the coordinator is to be found.
pub struct Control<S> {
    /// The path of its WebSocket.
    pub path: String,
    /// The coordinator.
    pub coordinator: CoordinatorHandle,
    /// Who knows the tokens.
    pub store: Arc<S>,
}

impl<S: Store> Front<S> {
    /// Serves whoever connects, until the future is dropped.
    ///
    /// # Panics
    /// If serving a connection panicked.
    pub async fn listen<L: TcpAccept>(self: Arc<Self>, listener: L, tls: Option<Identity>) {
        let mut serving = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(done) = serving.join_next() => {
                    if let Err(e) = done && e.is_panic() {
                        std::panic::resume_unwind(e.into_panic());
                    }
                }
                accepted = listener.accept(), if serving.len() < CONNECTIONS_MAX => match accepted {
                    Ok((io, from)) => {
                        let (front, tls) = (self.clone(), tls.clone());
                        serving.spawn(async move { front.connection(io, from, tls).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    async fn connection<T>(&self, io: T, from: SocketAddr, tls: Option<Identity>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let result = match tls {
            None => self.serve(io).await,
            Some(identity) => match timeout(PATIENCE, identity.accept(io)).await {
                Ok(Ok(io)) => self.serve(io).await,
                Ok(Err(error)) => Err(error),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            },
        };
        if let Err(error) = result {
            tracing::debug!(%error, %from, "a connection ended early");
        }
    }

    /// Serves one connection to its end.
    ///
    /// # Errors
    /// If it broke, or what it asked was no request.
    pub async fn serve<T>(&self, mut io: T) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut buffer = Vec::new();
        loop {
            let head = match timeout(PATIENCE, Head::read(&mut io, &mut buffer)).await {
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(Ok(Some(head))) => head,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(HeadError::Io(error))) => return Err(error),
                Ok(Err(error)) => {
                    let text = answer("400 Bad Request", &[close()], &format!("{error}\n"));
                    io.write_all(&text).await?;
                    return io.shutdown().await;
                }
            };
            if let Some(relay) = self.relay.as_ref().filter(|_| head.path == "/derp") {
                return relay.serve_request(io, head.derp(), buffer).await;
            }
            if let Some(control) = self.control.as_ref().filter(|control| control.path == head.path)
                && let Some(key) = head.field("sec-websocket-key")
            {
                let fields = [
                    ("Upgrade", "websocket".to_string()),
                    ("Connection", "Upgrade".to_string()),
                    ("Sec-WebSocket-Accept", derive_accept_key(key.as_bytes())),
                ];
                io.write_all(&answer("101 Switching Protocols", &fields, "")).await?;
                control.serve(ControlStream::accepted(io, buffer).await, head.bearer()).await;
                return Ok(());
            }
            io.write_all(&self.plain(&head)).await?;
            io.flush().await?;
            if head.is_last() {
                return io.shutdown().await;
            }
        }
    }

    fn plain(&self, head: &Head) -> Vec<u8> {
        let get = head.method == "GET" || head.method == "HEAD";
        match head.path.as_str() {
            "/derp/latency-check" | "/derp/probe" if get => {
                answer("200 OK", &[("Access-Control-Allow-Origin", "*".into())], "")
            }
            "/derp/latency-check" | "/derp/probe" => answer("405 Method Not Allowed", &[], ""),
            "/generate_204" => {
                answer("204 No Content", &no_content_fields(head.field("x-tailscale-challenge")), "")
            }
            _ => answer("404 Not Found", &[], "nothing is here\n"),
        }
    }
}

impl<S: Store> Control<S> {
    async fn serve<T>(&self, socket: ControlStream<T>, bearer: Option<&str>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let admitted = match bearer {
            Some(bearer) => self.store.admit(bearer).await,
            None => Err(Denied::unauthorized()),
        };
        match admitted {
            Ok(principal) => self.coordinator.serve(socket, principal, None).await,
            Err(denied) => CoordinatorHandle::refuse(socket, &denied).await,
        }
    }
}

fn close() -> (&'static str, String) {
    ("Connection", "close".into())
}

//! The connections that requests travel by: through the tunnel to an agent, and from there to a port of the workspace.

use crate::hub::Hub;
use crate::node::{OwnNode, Unreachable};
use axum::http::Uri;
use core::net::{Ipv4Addr, SocketAddr};
use core::pin::Pin;
use core::task::{Context, Poll};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use io_adapters::relay_stream::tls::{TlsError, Trust};
use io_adapters::transport::AnyStream;
use proto_core::id::NodeId;
use proto_core::machine::TlsCheck;
use proto_core::stream::{Header, TcpAnswer};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tower_service::Service;

/// How long an app may take to accept a connection: the agent itself waits 10 s.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(15);
/// How long its TLS handshake may take.
const TLS_PATIENCE: Duration = Duration::from_secs(15);
/// The name that an app is told in the handshake. Its certificate is not looked at: nobody else can have answered.
const TLS_NAME: &str = "localhost";

/// Why there is no connection to an app.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NoWay {
    /// The agent is not connected.
    #[error("the workspace's agent is not connected")]
    Offline,
    /// No way to the agent.
    #[error("can't reach the workspace: {0}")]
    Unreachable(#[from] Unreachable),
    /// The agent cannot connect to the port.
    #[error("{0}")]
    Answer(TcpAnswer),
    /// The tunnel broke meanwhile.
    #[error("the connection to the workspace broke")]
    Broken,
    /// It speaks no TLS.
    #[error("the app does not speak HTTPS: {0}")]
    Tls(TlsError),
    /// It does not answer in time.
    #[error("the app does not answer")]
    Slow,
    /// It speaks no HTTP/2, which is what it was asked in.
    #[error("the app does not speak HTTP/2: {0}")]
    Http2(String),
}

/// Makes connections to what an app's address names.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) node: Arc<OwnNode>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) trust: Trust,
}

/// What connections are kept and found again by: who asks, and a port of an agent. Somebody's connection is nobody else's:
/// there are logins that hold for a connection and not for a request (NTLM, Negotiate).
pub(crate) fn authority(who: &str, agent: &str, port: u16) -> String {
    format!("{who}.{agent}:{port}")
}

impl Connector {
    /// A connection to what an [`authority`] names, and whether HTTP/2 was agreed on in a TLS handshake that offered it.
    ///
    /// # Errors
    /// [`NoWay`].
    pub(crate) async fn connect(self, to: Uri, offers_http2: bool) -> Result<(Tunnelled, bool), NoWay> {
        let (_, agent) = to.host().unwrap_or_default().split_once('.').unwrap_or_default();
        let agent = NodeId(agent.to_owned());
        if self.hub.presence(&agent).is_none() {
            return Err(NoWay::Offline);
        }
        let to_port: SocketAddr = (Ipv4Addr::UNSPECIFIED, to.port_u16().unwrap_or_default()).into();
        let mut stream = self.node.open(&agent, &Header::Tcp { to: to_port }).await?;
        let answer = timeout(ACCEPT_PATIENCE, stream.read_u8()).await.map_err(|_| NoWay::Slow)?;
        match TcpAnswer::from_byte(answer.map_err(|_| NoWay::Broken)?) {
            TcpAnswer::Connected => {}
            other => return Err(NoWay::Answer(other)),
        }
        if to.scheme_str() != Some("https") {
            return Ok((Tunnelled(Box::new(stream)), false));
        }
        let shaking = async {
            if offers_http2 {
                return self.trust.connect_http2(stream, TLS_NAME, &TlsCheck::Unchecked).await;
            }
            Ok((self.trust.connect(stream, TLS_NAME, &TlsCheck::Unchecked).await?, false))
        };
        let (tls, http2) =
            timeout(TLS_PATIENCE, shaking).await.map_err(|_| NoWay::Slow)?.map_err(NoWay::Tls)?;
        Ok((Tunnelled(Box::new(tls)), http2))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Tunnelled>;
    type Error = NoWay;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NoWay>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NoWay>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.clone().connect(to, false);
        Box::pin(async move { connecting.await.map(|(stream, _)| TokioIo::new(stream)) })
    }
}

/// A connection to an app.
pub(crate) struct Tunnelled(AnyStream);

impl Connection for Tunnelled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Tunnelled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

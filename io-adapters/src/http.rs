//! A small HTTP/1.1 client for the few requests that programs make: the server's API, a relay map by URL.

use crate::relay_stream::tls;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use proto_core::machine::TlsCheck;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A request has to be answered within this time: longer than any answer of ours takes, shorter than a
/// person's patience.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer taken, in bytes: a relay map of thousands of nodes is a megabyte.
const ANSWER_MAX: usize = 8 << 20;

/// A client; cheap to make.
pub struct HttpClient(());

/// A request.
#[derive(Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// An `http://` or `https://` address.
    pub url: &'a str,
    /// The bearer token.
    pub bearer: Option<&'a str>,
    /// A JSON document to send.
    pub json: Option<String>,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not an address that this client understands.
    #[error("\"{url}\" is not an http:// or https:// address")]
    Url {
        /// What was given.
        url: String,
    },
    /// The name has no address.
    #[error("the name {host} can't be resolved: {why}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        why: std::io::Error,
    },
    /// No connection.
    #[error("no connection to {host} port {port}: {why}")]
    Connect {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// What the system says.
        why: std::io::Error,
    },
    /// TLS failed, perhaps since the certificate is not trusted.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// Not HTTP, or the connection broke.
    #[error("the answer broke off or is not HTTP: {0}")]
    Http(String),
    /// It took too long.
    #[error("no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout,
}

impl HttpClient {
    /// A client that trusts the system's roots.
    ///
    /// # Errors
    /// If the system's roots cannot be read.
    pub fn new() -> Result<Self, HttpError> {
        Ok(Self(()))
    }

    /// Sends a request and reads the answer to its end.
    ///
    /// # Errors
    /// If there is no answer: the address is wrong, the server is away, TLS fails, or it takes too long.
    pub async fn send(&self, request: Request<'_>) -> Result<Answer, HttpError> {
        tokio::time::timeout(TIMEOUT, send(request)).await.unwrap_or(Err(HttpError::Timeout))
    }
}

async fn send(request: Request<'_>) -> Result<Answer, HttpError> {
    let wrong = || HttpError::Url { url: request.url.to_string() };
    let uri: http::Uri = request.url.parse().map_err(|_| wrong())?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong()),
    };
    let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_string();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), port))
        .await
        .map_err(|why| HttpError::Resolve { host: host.clone(), why })?
        .collect();
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(|why| HttpError::Connect {
        host: host.clone(),
        port,
        why,
    })?;
    let _ = stream.set_nodelay(true);
    if tls {
        let check = TlsCheck::Roots { name: host.clone() };
        let stream = tls::connect(stream, &host, &check).await.map_err(|e| HttpError::Tls(e.to_string()))?;
        exchange(stream, &uri, request).await
    } else {
        exchange(stream, &uri, request).await
    }
}

async fn exchange<S>(stream: S, uri: &http::Uri, request: Request<'_>) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |e: &dyn std::fmt::Display| HttpError::Http(e.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let mut head = http::Request::builder()
        .method(request.method)
        .uri(uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
        .header(http::header::HOST, uri.authority().map_or("", http::uri::Authority::as_str))
        .header(http::header::USER_AGENT, concat!("warren/", env!("CARGO_PKG_VERSION")))
        .header(http::header::ACCEPT, "application/json");
    if let Some(token) = request.bearer {
        head = head.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if request.json.is_some() {
        head = head.header(http::header::CONTENT_TYPE, "application/json");
    }
    let body = Full::new(Bytes::from(request.json.unwrap_or_default()));
    let message = head.body(body).map_err(|e| broken(&e))?;
    let answer = async move {
        let response = sender.send_request(message).await.map_err(|e| broken(&e))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|e| broken(&e))?;
        Ok(Answer { status, body: body.to_bytes().to_vec() })
    };
    // The connection ends with the answer, since the sender is dropped with it.
    let (answer, _) = futures_util::future::join(answer, async {
        // What breaks the connection breaks the answer too, and is told there.
        let _ = connection.await;
    })
    .await;
    answer
}

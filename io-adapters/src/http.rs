//! A small HTTP/1.1 client for the few requests that programs make: the server's API, a relay map by URL.

use crate::relay_stream::proxy::{Hop, Proxies, ProxyError};
use crate::relay_stream::tls;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use proto_core::machine::TlsCheck;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A request has to be answered within this time, redirects and all: longer than any answer of ours takes,
/// shorter than a person's patience.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer taken, in bytes: a relay map of thousands of nodes is a megabyte.
const ANSWER_MAX: usize = 8 << 20;

/// A text as it stands in a path or a query (RFC 3986, section 2.1); slashes stay.
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
        out
    })
}

/// A client: what holds for each of its requests. Cheap to make.
#[derive(Clone, Debug)]
pub struct HttpClient {
    user_agent: &'static str,
    timeout: Duration,
    answer_max: usize,
    redirects_max: usize,
}

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
    headers: http::HeaderMap,
}

impl Answer {
    /// The value of the first header of this name, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
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
    /// A proxy on the way gives no connection.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// TLS failed, perhaps since the certificate is not trusted.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// Not HTTP, or the connection broke.
    #[error("the answer broke off or is not HTTP: {0}")]
    Http(String),
    /// It took too long.
    #[error("no answer within {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// The answer is longer than is taken.
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
    /// It is sent on and on.
    #[error("it was sent elsewhere more than {0} times")]
    TooFar(usize),
    /// It is sent where it must not go, or nowhere.
    #[error("it was sent elsewhere, but {0}")]
    Astray(&'static str),
}

impl HttpClient {
    /// A client that trusts the system's roots and follows no redirects.
    #[must_use]
    pub const fn new(user_agent: &'static str) -> Self {
        Self { user_agent, timeout: TIMEOUT, answer_max: ANSWER_MAX, redirects_max: 0 }
    }

    /// The same client with another bound for an answer's body, in bytes.
    #[must_use]
    pub const fn answer_max(self, bytes: usize) -> Self {
        Self { answer_max: bytes, ..self }
    }

    /// The same client with another bound for the time from the request to the answer's end.
    #[must_use]
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same client, which follows this many redirects, except of requests with a token or a body: those go
    /// where they were meant to go and nowhere else.
    #[must_use]
    pub const fn redirects_max(self, redirects: usize) -> Self {
        Self { redirects_max: redirects, ..self }
    }

    /// Sends a request and reads the answer to its end.
    ///
    /// # Errors
    /// If there is no answer: the address is wrong, the server is away, TLS fails, it takes too long or is too
    /// long.
    pub async fn send(&self, request: Request<'_>) -> Result<Answer, HttpError> {
        let answer = tokio::time::timeout(self.timeout, self.follow(&request)).await;
        answer.unwrap_or(Err(HttpError::Timeout(self.timeout)))
    }

    /// Sends a request with headers and a body of the caller's own, and reads the answer to its end. Redirects are
    /// not followed.
    ///
    /// # Errors
    /// As [`HttpClient::send`].
    pub async fn carry(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, HttpError> {
        let carried = async {
            let place = Place::of(&request.uri().to_string())?;
            let message =
                self.readdressed(&place.uri, request).map_err(|e| HttpError::Http(e.to_string()))?;
            let (answer, _) = self.ask(&place, message).await?;
            let mut response = http::Response::new(answer.body);
            *response.status_mut() =
                http::StatusCode::from_u16(answer.status).map_err(|e| HttpError::Http(e.to_string()))?;
            *response.headers_mut() = answer.headers;
            Ok(response)
        };
        let answer = tokio::time::timeout(self.timeout, carried).await;
        answer.unwrap_or(Err(HttpError::Timeout(self.timeout)))
    }

    async fn follow(&self, request: &Request<'_>) -> Result<Answer, HttpError> {
        let follows = self.redirects_max > 0 && request.bearer.is_none() && request.json.is_none();
        let mut url = request.url.to_owned();
        for _ in 0..=self.redirects_max {
            let place = Place::of(&url)?;
            let message = self.message(&place.uri, request).map_err(|e| HttpError::Http(e.to_string()))?;
            let (answer, location) = self.ask(&place, message).await?;
            if !(follows && matches!(answer.status, 301 | 302 | 303 | 307 | 308)) {
                return Ok(answer);
            }
            url = place.elsewhere(location.as_deref())?;
        }
        Err(HttpError::TooFar(self.redirects_max))
    }

    /// One request and its answer, with the place it sends us to.
    async fn ask(
        &self,
        place: &Place,
        message: http::Request<Full<Bytes>>,
    ) -> Result<(Answer, Option<String>), HttpError> {
        let (host, port) = (place.host.clone(), place.port);
        let stream = match Proxies::from_environment().to(&host, port, place.tls) {
            None => Hop::Plain(connect(&host, port).await?),
            Some(proxy) => {
                proxy.check()?;
                let stream = connect(&proxy.host, proxy.port).await;
                let stream = stream.map_err(|e| proxy.unreachable(e.to_string()))?;
                proxy.tunnel(stream, tls::system(), &host, port).await?
            }
        };
        if !place.tls {
            return self.exchange(stream, message).await;
        }
        let check = TlsCheck::Roots { name: host.clone() };
        let stream = tls::connect(stream, &host, &check).await.map_err(|e| HttpError::Tls(e.to_string()))?;
        self.exchange(stream, message).await
    }

    async fn exchange<S>(
        &self,
        stream: S,
        message: http::Request<Full<Bytes>>,
    ) -> Result<(Answer, Option<String>), HttpError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |e: &dyn std::fmt::Display| HttpError::Http(e.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        let answer = async move {
            let response = sender.send_request(message).await.map_err(|e| broken(&e))?;
            let (head, body) = response.into_parts();
            let location = head.headers.get(LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned);
            let status = head.status.as_u16();
            let body = Limited::new(body, self.answer_max).collect().await;
            let body = body.map_err(|e| match e.is::<LengthLimitError>() {
                true => HttpError::TooLong(self.answer_max),
                false => broken(&e),
            })?;
            Ok((Answer { status, body: body.to_bytes().to_vec(), headers: head.headers }, location))
        };
        // The connection ends with the answer, since the sender is dropped with it.
        let (answer, _) = futures_util::future::join(answer, async {
            // What breaks the connection breaks the answer too, and is told there.
            let _ = connection.await;
        })
        .await;
        answer
    }

    /// A request whose target and host are put as a server expects them.
    fn readdressed(
        &self,
        uri: &http::Uri,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let (mut head, body) = request.into_parts();
        let host = uri.authority().map_or("", http::uri::Authority::as_str);
        head.headers.insert(HOST, http::HeaderValue::from_str(host)?);
        head.headers.insert(USER_AGENT, http::HeaderValue::from_static(self.user_agent));
        head.uri = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).parse()?;
        Ok(http::Request::from_parts(head, Full::new(Bytes::from(body))))
    }

    fn message(&self, uri: &http::Uri, request: &Request<'_>) -> http::Result<http::Request<Full<Bytes>>> {
        let mut head = http::Request::builder()
            .method(request.method)
            .uri(uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
            .header(HOST, uri.authority().map_or("", http::uri::Authority::as_str))
            .header(USER_AGENT, self.user_agent)
            .header(ACCEPT, "application/json");
        if let Some(token) = request.bearer {
            head = head.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if request.json.is_some() {
            head = head.header(CONTENT_TYPE, "application/json");
        }
        head.body(Full::new(Bytes::from(request.json.clone().unwrap_or_default())))
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, HttpError> {
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<_> = found.map_err(|why| HttpError::Resolve { host: host.into(), why })?.collect();
    let stream = TcpStream::connect(addresses.as_slice()).await;
    let stream = stream.map_err(|why| HttpError::Connect { host: host.into(), port, why })?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Where a request goes.
struct Place {
    uri: http::Uri,
    tls: bool,
    host: String,
    port: u16,
}

impl Place {
    fn of(url: &str) -> Result<Self, HttpError> {
        let wrong = || HttpError::Url { url: url.to_owned() };
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { uri, tls, host, port })
    }

    /// The URL that a redirect from here leads to.
    fn elsewhere(&self, location: Option<&str>) -> Result<String, HttpError> {
        let to = location.ok_or(HttpError::Astray("not where to"))?;
        let url = match (to.starts_with('/'), self.uri.scheme_str(), self.uri.authority()) {
            (true, Some(scheme), Some(authority)) => format!("{scheme}://{authority}{to}"),
            _ => to.to_owned(),
        };
        if self.tls && !Self::of(&url)?.tls {
            // Whoever asked with TLS must not be given what anybody on the way could write.
            return Err(HttpError::Astray("from https:// to http://"));
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests;

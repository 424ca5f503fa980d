//! HTTP/2 to apps that speak it: those that take it in the TLS handshake, and gRPC's, which speak nothing else.
//!
//! Many requests share a connection, so that these are not kept as those of HTTP/1.1 are: one for each [`authority`] that
//! is asked, until nobody has asked for a while.
//!
//! [`authority`]: super::connect::authority

use super::connect::{Connector, NoWay};
use super::headers;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TE};
use axum::http::uri::Scheme;
use axum::http::{Request, Response, Uri, Version};
use core::pin::pin;
use http_body_util::BodyExt;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Connections kept. The one that was used longest ago makes room for the next.
const CONNECTIONS_MAX: usize = 1_024;
/// How long a connection is kept for the next request.
const IDLE: Duration = Duration::from_secs(60);
/// How long it is remembered that a port wants no HTTP/2: it costs a connection to ask.
const WITHOUT: Duration = Duration::from_secs(60);
/// Ports remembered that want none.
const WITHOUT_MAX: usize = 4_096;
/// Bytes of one answer that are under way, whoever reads how slowly: 50 ms of 100 Mbit/s, twice.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all answers of a connection.
const CONNECTION_WINDOW: u32 = 2 << 20;
/// How often a silent connection is asked whether somebody is there.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// For the answer to that.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// There is no connection.
    #[error(transparent)]
    NoWay(#[from] NoWay),
    /// It broke, or the app refused.
    #[error("{0}")]
    Broke(String),
}

/// What became of a request.
pub(super) enum Sent {
    /// It was answered.
    Answered(Response<Body>),
    /// The app wants HTTP/1.1: it is as it was.
    Not(Box<Request<Body>>),
}

/// The connections.
pub(super) struct Http2 {
    connector: Connector,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    open: BTreeMap<String, Open>,
    without: BTreeMap<String, Instant>,
}

struct Open {
    sender: SendRequest<Body>,
    used: Instant,
}

/// Whether a request might go by HTTP/2: where TLS is spoken, the handshake tells. Where none is, only gRPC is known to
/// be (its guide to HTTP/2, "Transport Mapping"), from a client that speaks HTTP/2 itself.
pub(super) fn may(request: &Request<Body>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = kind.strip_prefix(b"application/grpc");
    let grpc = rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')));
    let asked_so = grpc && request.version() == Version::HTTP_2;
    (asked_so || request.uri().scheme() == Some(&Scheme::HTTPS))
        && !headers::wants_websocket(request.headers())
}

impl Http2 {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, kept: Arc::default() }
    }

    /// Sends a request to what its address names ([`authority`](super::connect::authority)), which the app is not told: the
    /// header says which host is meant.
    ///
    /// # Errors
    /// [`Failed`].
    pub(super) async fn send(&self, request: Request<Body>, takes_trailers: bool) -> Result<Sent, Failed> {
        let to = request.uri().clone();
        let Some(mut sender) = self.sender(&to).await? else { return Ok(Sent::Not(Box::new(request))) };
        let request = in_words_of_http2(request, takes_trailers);
        let request = request.ok_or_else(|| Failed::Broke("the request has no address".to_owned()))?;
        let mut error = match sender.try_send_request(request).await {
            Ok(answer) => return Ok(Sent::Answered(answer.map(Body::new))),
            Err(error) => error,
        };
        // The app may have closed it just when it was taken.
        if let Some(again) = error.take_message() {
            self.lock().open.remove(&key(&to));
            if let Some(mut sender) = self.sender(&to).await? {
                let answer = sender.send_request(again).await.map_err(|e| Failed::Broke(e.to_string()))?;
                return Ok(Sent::Answered(answer.map(Body::new)));
            }
        }
        Err(Failed::Broke(error.into_error().to_string()))
    }

    /// A connection, old or new; none if the app wants HTTP/1.1.
    async fn sender(&self, to: &Uri) -> Result<Option<SendRequest<Body>>, NoWay> {
        let key = key(to);
        let port = port(to);
        {
            let mut kept = self.lock();
            if let Some(open) = kept.open.get_mut(&key).filter(|open| !open.sender.is_closed()) {
                open.used = Instant::now();
                return Ok(Some(open.sender.clone()));
            }
            if kept.without.get(&port).is_some_and(|since| since.elapsed() < WITHOUT) {
                return Ok(None);
            }
        }
        let tls = to.scheme() == Some(&Scheme::HTTPS);
        let (stream, agreed) = self.connector.clone().connect(to.clone(), tls).await?;
        if tls && !agreed {
            self.lock().note_without(port);
            return Ok(None);
        }
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(ASK_EVERY)
            .keep_alive_timeout(ASK_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| NoWay::Http2(error.to_string()))?;
        self.lock().keep(key.clone(), sender.clone());
        let kept = Arc::clone(&self.kept);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            loop {
                tokio::select! {
                    biased;
                    // Why is told to who waits for an answer.
                    _ = connection.as_mut() => break,
                    // Requests under way hold it themselves.
                    () = sleep(IDLE) => lock(&kept).let_go(&key),
                }
            }
        });
        Ok(Some(sender))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }
}

impl Kept {
    fn keep(&mut self, key: String, sender: SendRequest<Body>) {
        if self.open.len() >= CONNECTIONS_MAX && !self.open.contains_key(&key) {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.open.remove(&key));
        }
        self.open.insert(key, Open { sender, used: Instant::now() });
    }

    fn note_without(&mut self, port: String) {
        if self.without.len() >= WITHOUT_MAX {
            self.without.retain(|_, since| since.elapsed() < WITHOUT);
        }
        if self.without.len() < WITHOUT_MAX {
            self.without.insert(port, Instant::now());
        }
    }

    /// Forgets a connection that nobody has asked for in a while, or that has ended.
    fn let_go(&mut self, key: &str) {
        let over = |open: &Open| open.used.elapsed() >= IDLE || open.sender.is_closed();
        if self.open.get(key).is_some_and(over) {
            self.open.remove(key);
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose connection it is, and whereto.
fn key(to: &Uri) -> String {
    format!("{} {}", to.scheme_str().unwrap_or_default(), to.authority().map_or("", |at| at.as_str()))
}

/// Whereto, whosever it is.
fn port(to: &Uri) -> String {
    let at = to.authority().map_or("", |at| at.as_str());
    at.split_once('.').map_or(at, |(_, port)| port).to_owned()
}

/// The same request as HTTP/2 has it: the host is in its address (RFC 9113, section 8.3.1), and of what is about one
/// connection only the word remains that trailers are understood (section 8.2.2).
fn in_words_of_http2(request: Request<Body>, takes_trailers: bool) -> Option<Request<Body>> {
    let (mut parts, body) = request.into_parts();
    let host = parts.headers.remove(HOST)?;
    parts.uri = Uri::builder()
        .scheme(parts.uri.scheme_str()?)
        .authority(host.as_bytes())
        .path_and_query(parts.uri.path_and_query()?.as_str())
        .build()
        .ok()?;
    parts.version = Version::HTTP_2;
    if takes_trailers {
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // Trailers are headers that come late, and some programs make no difference.
    let body = body.map_frame(|frame| match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::strip_spoofed(&mut trailers);
            hyper::body::Frame::trailers(trailers)
        }
        Err(frame) => frame,
    });
    Some(Request::from_parts(parts, Body::new(body)))
}

/// Whether whoever asks understands trailers.
pub(super) fn takes_trailers(asked: &HeaderMap) -> bool {
    let lines = asked.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|one| one.trim().eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &str, version: Version, kind: &str) -> bool {
        let request = Request::builder().uri(uri).version(version).header(CONTENT_TYPE, kind);
        may(&request.body(Body::empty()).unwrap())
    }

    #[test]
    fn http2_is_for_who_takes_it_in_the_handshake_and_for_grpc() {
        assert!(asked("https://nobody.agent:1/", Version::HTTP_11, "text/plain"));
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;v=1"] {
            assert!(asked("http://nobody.agent:1/", Version::HTTP_2, kind), "{kind}");
            assert!(
                !asked("http://nobody.agent:1/", Version::HTTP_11, kind),
                "{kind}: nobody could answer so"
            );
        }
        for kind in ["application/grpc-web+proto", "application/json", ""] {
            assert!(!asked("http://nobody.agent:1/", Version::HTTP_2, kind), "{kind}");
        }
    }

    #[test]
    fn a_connection_is_somebodys_and_what_a_port_speaks_is_everybodys() {
        let [mine, yours]: [Uri; 2] = ["https://me.a:1", "https://you.a:1"].map(|uri| uri.parse().unwrap());
        assert_ne!(key(&mine), key(&yours));
        assert_eq!((port(&mine), port(&mine)), ("a:1".to_owned(), port(&yours)));
    }
}

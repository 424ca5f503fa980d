//! The listeners: plain HTTP and HTTPS, one task a connection.

use crate::api::{DERP_PATH, Remote};
use crate::apps::address::Wildcard;
use crate::apps::subdomain;
use crate::auth::rates::Key;
use crate::fault::{Fault, io_words};
use crate::places::{Full, Places};
use crate::settings::Network;
use axum::Router;
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use io_adapters::certificate::Certificate;
use io_adapters::relay_listener::http::{DerpRequest, Head, HeadError};
use io_adapters::relay_listener::lobby::{Call, Lobby, Place};
use io_adapters::relay_listener::{Arrival, RelayHandle};
use io_adapters::relay_stream::upgrade::Prefixed;
use io_adapters::transport::{AnyStream, TcpAccept, TokioListener};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

mod http2;

/// For the TLS handshake and for a request's head: whoever takes longer holds a connection for nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// HTTP connections at once; each costs some 20 KiB and a file. Those that became a node's or a relay client's
/// are counted, and bounded, by the coordinator and the relay.
const CONNECTIONS_MAX: usize = 40_000;
/// Those from one address, but of a trusted proxy, who brings those of others: four may be hostile before nobody else gets
/// in.
const CONNECTIONS_PER_ADDRESS_MAX: usize = CONNECTIONS_MAX / 4;
/// The pause after a failed accept (usually: no more file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests under way may take to end when the server stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Binds a TCP listener; `flag` is the setting that says where.
///
/// # Errors
/// If the port is taken, or the address is not this machine's.
pub(crate) fn bind(address: SocketAddr, flag: &str) -> Result<TokioListener, Fault> {
    TokioListener::bind(address).map_err(|error| warren_settings::busy(&error, "TCP", address, flag))
}

/// What is behind a listener.
#[derive(Clone)]
pub(crate) struct House {
    /// Everything that is HTTP.
    pub(crate) router: Router,
    /// What is under the wildcard.
    pub(crate) apps: Router,
    /// Which hosts those are.
    pub(crate) wildcard: Option<Wildcard>,
    /// Proxies who bring the connections of others.
    pub(crate) trusted_proxies: Vec<Network>,
    /// The relay at [`DERP_PATH`], which takes whole connections.
    pub(crate) relay: Option<RelayHandle>,
    /// True once the server is about to stop: the relay takes nobody any more.
    pub(crate) draining: watch::Receiver<bool>,
}

impl House {
    /// The relay, if that is what a request asks for.
    fn relay_for(&self, head: &Head) -> Option<&RelayHandle> {
        let for_app = head.field("host").is_some_and(|host| self.is_app(host));
        let asked = head.path == DERP_PATH && head.derp() != DerpRequest::None && !for_app;
        self.relay.as_ref().filter(|_| asked && !*self.draining.borrow())
    }

    /// How many connections may come from there.
    fn connections_max(&self, from: IpAddr) -> usize {
        let trusted = self.trusted_proxies.iter().any(|network| network.contains(from.to_canonical()));
        if trusted { CONNECTIONS_MAX } else { CONNECTIONS_PER_ADDRESS_MAX }
    }

    fn is_app(&self, host: &str) -> bool {
        self.wildcard.as_ref().is_some_and(|wildcard| wildcard.label(host).is_some())
    }

    /// What answers the requests of a connection from there.
    fn answers(self, from: SocketAddr) -> impl Fn(Request<Incoming>) -> Answering + Clone {
        let (own, apps) =
            (TowerToHyperService::new(self.router.clone()), TowerToHyperService::new(self.apps.clone()));
        move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Remote(from));
            let host = subdomain::host(request.uri(), request.headers());
            if host.is_some_and(|host| self.is_app(host)) { apps.call(request) } else { own.call(request) }
        }
    }
}

/// An answer that is being made.
type Answering = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

/// Serves `house` on a listener until `stop` says so; then no new connection is taken, and those that are
/// between requests close.
pub(crate) async fn serve(
    listener: TokioListener,
    certificate: Option<Certificate>,
    house: House,
    mut stop: watch::Receiver<bool>,
) {
    let room = Places::new(CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX);
    let lobby = Lobby::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("can't accept a connection: {}", io_words(&error));
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // When full, new connections are turned away; those there go on.
        let place = match room.take_at_most(Key::address(from.ip()), house.connections_max(from.ip())) {
            Ok(place) => place,
            Err(Full::Own(own)) => {
                tracing::debug!(%from, "{own} connections are open from there: a new one was turned away");
                continue;
            }
            Err(Full::All(all)) => {
                tracing::warn!(%from, "{all} connections are open: a new one was turned away");
                continue;
            }
        };
        let Some((waiting, call)) = lobby.enter(from.ip()) else {
            tracing::debug!(%from, "too many connections have not said what they want: a new one was turned away");
            continue;
        };
        let guest = Guest { from, place: waiting, call };
        let (certificate, house, stop) = (certificate.clone(), house.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            connection(tcp, guest, certificate, (house, stop)).await;
        });
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    // Whoever has not ended by then is cut off when the set is dropped.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, rest).await;
}

/// Who is at the door, and may have to make room for others until it is known what for.
struct Guest {
    from: SocketAddr,
    place: Place,
    call: Call,
}

/// A connection as far as it has been read.
struct Begun {
    stream: AnyStream,
    read: Vec<u8>,
    speaks: Speaks,
}

/// What a connection has turned out to speak.
enum Speaks {
    /// The relay's protocol, after this request of this length.
    Relay(Head, usize),
    /// HTTP/1.1, or what is no request.
    Http1,
    /// HTTP/2, as agreed in the TLS handshake.
    Http2,
}

async fn connection(
    tcp: TcpStream,
    guest: Guest,
    certificate: Option<Certificate>,
    (house, stop): (House, watch::Receiver<bool>),
) {
    let Guest { from, place, mut call } = guest;
    let begun = tokio::select! {
        biased;
        () = call.wait() => return tracing::debug!(%from, "a connection was closed to make room for others"),
        begun = begin(tcp, from, certificate, &house) => begun,
    };
    let Some(Begun { stream, mut read, speaks }) = begun else { return };
    match (speaks, house.relay) {
        (Speaks::Relay(head, len), Some(relay)) => {
            let arrival = Arrival { from: Some(from.ip()), rest: read.split_off(len), place: Some(place) };
            // In a task of its own: it goes on when the listener has closed, until the relay itself stops.
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = call.wait() => tracing::debug!(%from, "a login was ended to make room for others"),
                    served = relay.serve_request(stream, head.derp(), arrival) => {
                        if let Err(error) = served {
                            tracing::debug!(%from, "the upgrade to DERP failed: {}", io_words(&error));
                        }
                    }
                }
            });
        }
        (Speaks::Http2, relay) => {
            let house = House { relay, ..house };
            drop(place);
            http2::speak(stream, from, house, stop).await;
        }
        // What is no request is answered there, too.
        (_, relay) => {
            let house = House { relay, ..house };
            drop(place);
            speak(Prefixed::new(Bytes::from(read), stream), from, house, stop).await;
        }
    }
}

/// The TLS handshake if there is to be one, and the first request; none if the connection has ended.
async fn begin(
    tcp: TcpStream,
    from: SocketAddr,
    certificate: Option<Certificate>,
    house: &House,
) -> Option<Begun> {
    let mut stream: AnyStream = match certificate {
        None => Box::new(tcp),
        Some(certificate) => {
            let accepting = Box::pin(certificate.identity().accept_http2(tcp));
            match tokio::time::timeout(HEAD_TIMEOUT, accepting).await {
                Ok(Ok((tls, true))) => {
                    return Some(Begun { stream: Box::new(tls), read: Vec::new(), speaks: Speaks::Http2 });
                }
                Ok(Ok((tls, false))) => Box::new(tls),
                Ok(Err(error)) => {
                    tracing::debug!(%from, "TLS: {}", io_words(&error));
                    return None;
                }
                Err(_) => {
                    tracing::debug!(%from, "no TLS handshake in time");
                    return None;
                }
            }
        }
    };
    // A relay's client never comes back to HTTP, and some begin before they are answered.
    let mut read = Vec::new();
    match tokio::time::timeout(HEAD_TIMEOUT, Head::peek(&mut stream, &mut read)).await {
        Err(_) => tracing::debug!(%from, "no request in time"),
        Ok(Ok(None) | Err(HeadError::Io(_))) => tracing::debug!(%from, "closed before a request"),
        Ok(Ok(Some(request))) => {
            let for_relay = house.relay_for(&request.0).is_some();
            let speaks = if for_relay { Speaks::Relay(request.0, request.1) } else { Speaks::Http1 };
            return Some(Begun { stream, read, speaks });
        }
        Ok(Err(_)) => return Some(Begun { stream, read, speaks: Speaks::Http1 }),
    }
    None
}

async fn speak<S>(stream: S, from: SocketAddr, house: House, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(house.answers(from));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // Some relay clients compare header names letter by letter.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = core::pin::pin!(connection);
    let outcome = tokio::select! {
        biased;
        outcome = connection.as_mut() => outcome,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%from, "HTTP: {error}");
    }
}

/// Waits until the server is to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and the server with it.
    let _ = stop.wait_for(|stop| *stop).await;
}

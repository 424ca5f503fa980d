//! A small front door: the relay, its companions, a program's pages of health and the coordinator behind one
//! listener, without a web server. `warren-relay` and the simulations use it; `warren-server` has its own and calls the same handles.

use super::guest::Guest;
use super::http::{DerpRequest, Head, HeadError, answer, no_content_fields};
use super::lobby::{Call, Lobby, Place};
use super::steps::Steps;
use super::turn::let_others_go;
use super::{Arrival, RelayHandle};
use crate::control::ControlStream;
use crate::control::hub::CoordinatorHandle;
use crate::relay_stream::tls::Identity;
use crate::store::{Denied, Store};
use crate::transport::{AnyStream, TcpAccept};
use proto_core::time::Duration;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A request's head must come within this time, so must a TLS handshake, and so must an answer be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure to accept (no file descriptors left), others get time to close theirs.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections accepted before others get a turn: each costs some ten system calls.
const ACCEPTED_TURN: u64 = 4;
/// From one such turn to the next when all places are taken: with it, no more than 4,000 come in a second, about as many
/// as a core can shake hands with.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);
/// What a request's head has usually, in bytes: room for one read.
const HEAD: usize = 1_024;
/// Connections served at once; beyond, the kernel's backlog holds them.
const CONNECTIONS_MAX: usize = 65_536;

/// What is behind the door.
pub struct Front<S> {
    relay: Option<RelayHandle>,
    control: Option<Control<S>>,
    program: Option<Program>,
    lobby: Lobby,
    steps: Steps,
    counters: FrontCounters,
}

/// What the door says of the program behind it, to people and to what watches over it.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name and version.
    pub build: &'static str,
    /// True once it is about to stop: nobody new is let in.
    pub draining: watch::Receiver<bool>,
    /// Why its STUN server answers nobody, while that is so.
    pub stun_down: watch::Receiver<Option<String>>,
}

/// What has been counted at the door.
#[derive(Debug, Default)]
pub struct FrontCounters {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// TLS handshakes that failed.
    pub tls_failed: AtomicU64,
    /// Connections closed since their TLS handshake took too long.
    pub slow_tls: AtomicU64,
    /// Connections closed since their request took too long.
    pub slow_request: AtomicU64,
    /// Connections closed since they did not take the answer to their request.
    pub unread: AtomicU64,
    /// Connections closed since what they said was no request.
    pub malformed: AtomicU64,
    /// Requests for DERP inside a WebSocket.
    pub websockets: AtomicU64,
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
    /// A door to the relay at `/derp` and the coordinator, if there are such.
    #[must_use]
    pub fn new(relay: Option<RelayHandle>, control: Option<Control<S>>) -> Self {
        Self {
            relay,
            control,
            program: None,
            lobby: Lobby::default(),
            steps: Steps::new(),
            counters: FrontCounters::default(),
        }
    }

    /// The same door, which also says what it belongs to and how that is.
    #[must_use]
    pub fn of_program(self, program: Program) -> Self {
        Self { program: Some(program), ..self }
    }

    /// The same door, with this lobby.
    #[must_use]
    pub fn with_lobby(self, lobby: Lobby) -> Self {
        Self { lobby, ..self }
    }

    /// Where those are who have not logged in.
    #[must_use]
    pub const fn lobby(&self) -> &Lobby {
        &self.lobby
    }

    /// What has been counted.
    #[must_use]
    pub const fn counters(&self) -> &FrontCounters {
        &self.counters
    }

    /// Serves whoever connects, until the future is dropped.
    ///
    /// # Panics
    /// If serving a connection panicked.
    pub async fn listen<L: TcpAccept>(self: Arc<Self>, listener: L, tls: Option<Identity>) {
        let (_never, stop) = watch::channel(false);
        self.listen_until(listener, tls, stop).await;
    }

    /// As [`Front::listen`] until `stop` says so; then nobody new is let in, and the future ends with the last
    /// connection.
    ///
    /// # Panics
    /// If serving a connection panicked.
    pub async fn listen_until<L: TcpAccept>(
        self: Arc<Self>,
        listener: L,
        tls: Option<Identity>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut serving = JoinSet::new();
        let panicked = Arc::new(Notify::new());
        let joined = |done: Result<(), tokio::task::JoinError>| {
            if let Err(e) = done
                && e.is_panic()
            {
                std::panic::resume_unwind(e.into_panic());
            }
        };
        loop {
            // Only while nobody can come are ends waited for, and after a panic: thousands of ends a second would
            // have us go before everybody else each time.
            while let Some(done) = serving.try_join_next() {
                joined(done);
            }
            let full = serving.len() >= CONNECTIONS_MAX;
            tokio::select! {
                biased;
                () = async { _ = stop.wait_for(|stop| *stop).await; } => break,
                () = panicked.notified() => break,
                Some(done) = serving.join_next(), if full => joined(done),
                accepted = listener.accept(), if !full => match accepted {
                    Ok((io, from)) => {
                        let accepted = self.counters.accepted.fetch_add(1, Ordering::Relaxed);
                        let (front, tls) = (self.clone(), tls.clone());
                        let alarm = PanicAlarm(panicked.clone());
                        serving.spawn(async move {
                            let _alarm = alarm;
                            front.connection(Guest::new(io, L::abort), from, tls).await;
                        });
                        if accepted.is_multiple_of(ACCEPTED_TURN) {
                            self.pause().await;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(PAUSE).await;
                    }
                }
            }
        }
        drop(listener);
        while let Some(done) = serving.join_next().await {
            joined(done);
        }
    }

    /// Between two who come. While nobody can have a place but another's, as in a crowd, all take their time: the kernel
    /// itself is kept busy by connections that come and go. Whoever has a place may still log in as fast as it can.
    async fn pause(&self) {
        if self.lobby.is_full() { sleep(CROWDED_PAUSE).await } else { let_others_go().await }
    }

    async fn connection<T>(&self, mut io: Guest<T>, from: SocketAddr, tls: Option<Identity>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some((place, call)) = self.lobby.enter(from.ip()) else {
            return tracing::debug!(%from, "a connection was turned away: there is no place");
        };
        let seat = place.seat();
        io.sit(seat.clone());
        // Boxed, since a future that is moved from one into another takes its room in both.
        let serving = Box::pin(self.serve_in_place(io, tls, (from, place, call)));
        self.steps.walk(serving, || seat.is_taken()).await;
    }

    /// Serves until the end, or until the place is another's.
    async fn serve_in_place<T>(
        &self,
        io: Guest<T>,
        tls: Option<Identity>,
        (from, place, mut call): (SocketAddr, Place, Call),
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        tokio::select! {
            biased;
            () = call.wait() => tracing::debug!(%from, "a connection was closed to make room for others"),
            served = async {
                let io: AnyStream = match tls {
                    None => Box::new(io),
                    Some(identity) => Box::pin(self.shake_hands(io, identity)).await?,
                };
                self.serve_in(io, Some(from.ip()), Some(place)).await
            } => {
                if let Err(error) = served {
                    tracing::debug!(%error, %from, "a connection ended early");
                }
            }
        }
    }

    async fn shake_hands<T>(&self, io: T, identity: Identity) -> io::Result<AnyStream>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match timeout(PATIENCE, identity.accept(io)).await {
            Ok(Ok(io)) => Ok(Box::new(io)),
            Ok(Err(error)) => {
                self.counters.tls_failed.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
            Err(_) => Err(too_slow(&self.counters.slow_tls)),
        }
    }

    fn is_draining(&self) -> bool {
        self.program.as_ref().is_some_and(|program| *program.draining.borrow())
    }

    /// Serves one connection to its end; `from` is where it comes from.
    ///
    /// # Errors
    /// If it broke, or what it asked was no request.
    pub async fn serve(&self, io: AnyStream, from: Option<IpAddr>) -> io::Result<()> {
        self.serve_in(io, from, None).await
    }

    /// As [`Front::serve`], with its place in the lobby.
    async fn serve_in(
        &self,
        mut io: AnyStream,
        from: Option<IpAddr>,
        place: Option<Place>,
    ) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(HEAD);
        loop {
            let head = match timeout(PATIENCE, Head::read(&mut io, &mut buffer)).await {
                Err(_) => return Err(too_slow(&self.counters.slow_request)),
                Ok(Ok(Some(head))) => head,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(HeadError::Io(error))) => return Err(error),
                Ok(Err(error)) => {
                    self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                    let text = answer("400 Bad Request", &[close()], &format!("{error}\n"));
                    return self.say(&mut io, &text, true).await;
                }
            };
            if let Some(relay) = self.relay.as_ref().filter(|_| head.path == "/derp" && !self.is_draining()) {
                let request = head.derp();
                if matches!(request, DerpRequest::WebSocket { .. }) {
                    self.counters.websockets.fetch_add(1, Ordering::Relaxed);
                }
                return relay.serve_request(io, request, Arrival { from, rest: buffer, place }).await;
            }
            if let Some(control) = self.control.as_ref().filter(|control| control.path == head.path)
                && let Some(key) = head.field("sec-websocket-key")
            {
                let fields = [
                    ("Upgrade", "websocket".to_string()),
                    ("Connection", "Upgrade".to_string()),
                    ("Sec-WebSocket-Accept", derive_accept_key(key.as_bytes())),
                ];
                self.say(&mut io, &answer("101 Switching Protocols", &fields, ""), false).await?;
                drop(place);
                control.serve(ControlStream::accepted(io, buffer).await, head.bearer()).await;
                return Ok(());
            }
            self.say(&mut io, &self.plain(&head), head.is_last()).await?;
            if head.is_last() {
                return Ok(());
            }
        }
    }

    /// Writes an answer, perhaps the last one: whoever asks and does not read is not waited for.
    async fn say(&self, io: &mut AnyStream, text: &[u8], last: bool) -> io::Result<()> {
        let written = async {
            io.write_all(text).await?;
            if last { io.shutdown().await } else { io.flush().await }
        };
        timeout(PATIENCE, written).await.map_err(|_| too_slow(&self.counters.unread))?
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
            _ => match self.program.as_ref().and_then(|program| program.answer(head)) {
                Some(answer) => answer,
                None => answer("404 Not Found", &[], "nothing is here\n"),
            },
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

/// Says so if the task that holds it panics.
struct PanicAlarm(Arc<Notify>);

impl Drop for PanicAlarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.notify_one();
        }
    }
}

fn too_slow(counter: &AtomicU64) -> io::Error {
    counter.fetch_add(1, Ordering::Relaxed);
    io::ErrorKind::TimedOut.into()
}

fn close() -> (&'static str, String) {
    ("Connection", "close".into())
}

/// A page for people or for what watches over the program.
struct Page {
    status: &'static str,
    kind: &'static str,
    text: String,
}

impl Program {
    /// The answer to a request for one of its pages: what it is, `/healthz`, `/readyz`, `/robots.txt`.
    #[must_use]
    pub fn answer(&self, head: &Head) -> Option<Vec<u8>> {
        let page = self.page(&head.path)?;
        Some(match head.method.as_str() {
            "GET" | "HEAD" => page.answer(head.method == "HEAD"),
            _ => answer("405 Method Not Allowed", &[("Allow", "GET, HEAD".into())], ""),
        })
    }

    fn page(&self, path: &str) -> Option<Page> {
        let text = |status, text: String| Page { status, kind: "text/plain; charset=utf-8", text };
        Some(match path {
            "/" => Page { status: OK, kind: "text/html; charset=utf-8", text: self.home() },
            "/robots.txt" => text(OK, "User-agent: *\nDisallow: /\n".into()),
            "/healthz" => text(OK, "OK\n".into()),
            "/readyz" => match self.why_not_ready() {
                None => text(OK, "OK\n".into()),
                Some(why) => text(UNAVAILABLE, format!("{why}\n")),
            },
            "/derp" => text(UNAVAILABLE, format!("{DRAINING}\n")),
            _ => return None,
        })
    }

    fn why_not_ready(&self) -> Option<String> {
        if *self.draining.borrow() {
            return Some(DRAINING.into());
        }
        let down = self.stun_down.borrow();
        down.as_ref().map(|why| format!("the STUN server answers nobody: {why}; it is tried again by itself"))
    }

    fn home(&self) -> String {
        let state = self.why_not_ready().unwrap_or_else(|| "It is ready.".into());
        let state = state.replace('&', "&amp;").replace('<', "&lt;");
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{build}</title>\n\
             <h1>{build}</h1>\n\
             <p>This is a DERP relay. It carries sealed packets between nodes that have no direct path; it cannot \
             read them.</p>\n<p>{state}</p>\n</html>\n",
            build = self.build
        )
    }
}

const OK: &str = "200 OK";
const UNAVAILABLE: &str = "503 Service Unavailable";
const DRAINING: &str = "the relay is about to stop";

impl Page {
    fn answer(&self, head_alone: bool) -> Vec<u8> {
        let fields = [
            ("Content-Type", self.kind.to_owned()),
            ("Cache-Control", "no-store".into()),
            ("X-Content-Type-Options", "nosniff".into()),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'".into()),
        ];
        let mut out = answer(self.status, &fields, &self.text);
        if head_alone {
            out.truncate(out.len() - self.text.len());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemStore;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::ReadBuf;
    use tokio::time::Sleep;

    /// A connection whose reading panics, after a while in which the door goes to sleep.
    struct Broken(Pin<Box<Sleep>>);

    impl AsyncRead for Broken {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            std::task::ready!(self.0.as_mut().poll(cx));
            panic!("this connection is broken");
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Accepts one such connection and never another.
    struct Once(std::sync::Mutex<Option<Broken>>);

    impl TcpAccept for Once {
        type Tcp = Broken;
        fn local_addr(&self) -> SocketAddr {
            ([127, 0, 0, 1], 1).into()
        }
        async fn accept(&self) -> io::Result<(Broken, SocketAddr)> {
            let first = self.0.lock().ok().and_then(|mut first| first.take());
            match first {
                Some(io) => Ok((io, self.local_addr())),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "this connection is broken")]
    async fn a_connection_that_panics_fails_the_door_even_if_nobody_else_comes() {
        let front = Arc::new(Front::<MemStore>::new(None, None));
        let broken = Broken(Box::pin(sleep(Duration::from_millis(1))));
        let listener = Once(std::sync::Mutex::new(Some(broken)));
        let _elapsed = timeout(Duration::from_secs(1), front.listen(listener, None)).await;
    }

    /// Accepts connections that say nothing, as fast as it is asked, each from another address, ten thousand in all.
    #[derive(Default)]
    struct Crowd(AtomicU64);

    impl TcpAccept for Crowd {
        type Tcp = tokio::io::DuplexStream;
        fn local_addr(&self) -> SocketAddr {
            ([127, 0, 0, 1], 1).into()
        }
        async fn accept(&self) -> io::Result<(Self::Tcp, SocketAddr)> {
            let n = self.0.fetch_add(1, Ordering::Relaxed);
            if n > 10_000 {
                std::future::pending::<()>().await;
            }
            let (io, other) = tokio::io::duplex(1);
            std::mem::forget(other);
            Ok((io, ([10, 0, (n >> 8) as u8, n as u8], 1).into()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn newcomers_take_their_time_while_no_place_is_free() {
        const PLACES: usize = 100;
        let front = Arc::new(Front::<MemStore>::new(None, None).with_lobby(Lobby::new(PLACES)));
        let came = || front.counters().accepted.load(Ordering::Relaxed);
        let window = Duration::from_millis(100);
        let _elapsed = timeout(window, front.clone().listen(Crowd::default(), None)).await;
        let beyond = came() - PLACES as u64;
        assert!((50 * ACCEPTED_TURN..=102 * ACCEPTED_TURN).contains(&beyond), "{beyond} in {window:?}");
    }
}

//! A STUN server on UDP: tells whoever asks the address it is seen at, and answers from its other socket or address
//! where it is asked to (RFC 5780), by which clients learn how their NAT filters.
//!
//! It has two sockets, or four if it may use a second address of this machine.

use crate::transport::{Datagrams, Network, RecvBatch, TokioNetwork, UdpLink};
use crate::words::io_words;
use core::net::{IpAddr, SocketAddr};
use proto_core::wire::stun::{self, Change, Place};
use sockets::Sockets;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

mod sockets;

/// The pause after a receive that failed and between attempts to bind again: short beside the seconds after which
/// clients ask again, long enough that a log can be read.
const PAUSE: Duration = Duration::from_millis(500);

/// What a STUN server has done.
#[derive(Debug, Default)]
pub struct StunCounters {
    /// Binding requests answered.
    pub answered: AtomicU64,
    /// Binding requests whose answer did not fit the socket's buffer.
    pub lost: AtomicU64,
    /// Datagrams that are not answered: no Binding requests, or such as only another address could answer.
    pub ignored: AtomicU64,
}

/// A server's STUN sockets, on the real network or another.
pub struct StunServer<N: Network = TokioNetwork> {
    sockets: Sockets<N::Udp>,
    network: N,
}

impl StunServer {
    /// Binds its sockets: `address`, another port of the same, and both ports at `other` too if there is one, which
    /// asks for an `address` that is not all of this machine's.
    ///
    /// # Errors
    /// If the port is taken, or an address is not this machine's.
    pub async fn bind(address: SocketAddr, other: Option<IpAddr>) -> io::Result<Self> {
        Self::bind_on(TokioNetwork, address, other).await
    }
}

impl<N: Network> StunServer<N> {
    /// As [`StunServer::bind`], on this network.
    ///
    /// # Errors
    /// Likewise.
    pub async fn bind_on(network: N, address: SocketAddr, other: Option<IpAddr>) -> io::Result<Self> {
        let sockets = Sockets::bind(address, other, |address| network.bind_udp(address)).await?;
        Ok(Self { sockets, network })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.sockets.main()
    }

    /// Answers until the future is dropped. While it can't, `down` holds why.
    pub async fn serve(self, counters: &StunCounters, down: watch::Sender<Option<String>>) {
        let tell = |error: Option<&io::Error>| {
            let why = error.map(io_words);
            match &why {
                Some(why) => tracing::error!("the STUN server answers nobody: {why}"),
                None => tracing::info!("the STUN server answers again"),
            }
            down.send_replace(why);
        };
        let quiet = |error: Option<&io::Error>| {
            if let Some(error) = error {
                tracing::warn!("the STUN server can't answer from its other addresses: {error}");
            }
        };
        let [main, port, address, both] = Sockets::<N::Udp>::ALL;
        let bind = |address| {
            let network = self.network.clone();
            async move { network.bind_udp(address).await }
        };
        tokio::join!(
            serve_always(&self.sockets, main, bind, counters, tell),
            serve_always(&self.sockets, port, bind, counters, quiet),
            serve_always(&self.sockets, address, bind, counters, quiet),
            serve_always(&self.sockets, both, bind, counters, quiet),
        );
    }
}

/// Answers on `socket`, which is the server's only one, until it dies or the future is dropped. An answer that does
/// not fit the socket's buffer is lost, as a datagram may be: the client asks again.
///
/// # Errors
/// If the socket is dead.
pub async fn serve<U: UdpLink>(socket: &U, counters: &StunCounters) -> io::Result<()> {
    answer_all(socket, counters, |_| None, |_, datagram| socket.try_send(&datagram)).await
}

/// Answers what comes to `socket`. `place` says where else the server can answer from, told which of this host's
/// addresses was asked, and `send` sends from there.
async fn answer_all<U: UdpLink>(
    socket: &U,
    counters: &StunCounters,
    place: impl Fn(Option<IpAddr>) -> Option<Place>,
    send: impl Fn(Change, Datagrams<'_>) -> io::Result<usize>,
) -> io::Result<()> {
    let mut batch = RecvBatch::new(1);
    loop {
        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await?;
        let place = place(batch.last_to());
        for (from, bytes) in batch.datagrams() {
            match stun::reply(bytes, from, place.as_ref()) {
                Some(reply) => {
                    let sent = send(reply.change, Datagrams::one(from, &reply.bytes));
                    let counter = if sent.is_ok() { &counters.answered } else { &counters.lost };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                None => {
                    counters.ignored.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Answers on one of a server's sockets, if it has it, through whatever happens: goes on after errors that pass, and
/// has the same address bound again after others. `tell` hears why nobody is answered, each time it is tried in vain,
/// and `None` when all is well again.
async fn serve_always<U: UdpLink, B: Future<Output = io::Result<U>>>(
    sockets: &Sockets<U>,
    which: Change,
    bind: impl Fn(SocketAddr) -> B,
    counters: &StunCounters,
    tell: impl Fn(Option<&io::Error>),
) -> Infallible {
    let Some(address) = sockets.address(which) else { return std::future::pending().await };
    loop {
        let error = match sockets.get(which) {
            Some(socket) => {
                let place = |asked| Some(sockets.place(which, asked));
                let send = |change, datagram: Datagrams<'_>| sockets.send(which, change, &datagram);
                let Err(error) = answer_all(&*socket, counters, place, send).await else { continue };
                error
            }
            None => io::ErrorKind::NotConnected.into(),
        };
        if passes(&error) {
            tracing::warn!("the STUN server can't receive for the moment: {error}");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        tell(Some(&error));
        // The port must be free before it can be bound again.
        sockets.close(which);
        loop {
            tokio::time::sleep(PAUSE).await;
            match bind(address).await {
                Ok(socket) => break sockets.set(which, socket),
                Err(error) => tell(Some(&error)),
            }
        }
        tell(None);
    }
}

/// Whether the socket is good still, and only memory or the interface is missing.
fn passes(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::ENOBUFS, libc::ENOMEM, libc::ENETDOWN].into_iter().any(|passing| code == Some(passing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    type Real = <TokioNetwork as Network>::Udp;
    /// Errors of the operating system, by number.
    type Errors = Arc<Mutex<VecDeque<i32>>>;

    /// A real socket, with errors that come before what is received.
    struct Socket(Real, Errors);

    fn next(errors: &Errors) -> Option<io::Error> {
        errors.lock().unwrap().pop_front().map(io::Error::from_raw_os_error)
    }

    impl UdpLink for Socket {
        fn local_addr(&self) -> SocketAddr {
            self.0.local_addr()
        }
        fn max_segments(&self) -> usize {
            self.0.max_segments()
        }
        fn receive_buffer(&self) -> usize {
            self.0.receive_buffer()
        }
        fn try_send(&self, run: &Datagrams<'_>) -> io::Result<usize> {
            self.0.try_send(run)
        }
        fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.poll_writable(cx)
        }
        fn poll_recv(&self, cx: &mut Context<'_>, batch: &mut RecvBatch) -> Poll<io::Result<()>> {
            match next(&self.1) {
                Some(error) => Poll::Ready(Err(error)),
                None => self.0.poll_recv(cx, batch),
            }
        }
    }

    /// What is told while a server with these faults comes to answer somebody.
    async fn told(receiving: &[i32], binding: &[i32]) -> Vec<String> {
        let faults = |errors: &[i32]| Arc::new(Mutex::new(errors.iter().copied().collect::<VecDeque<_>>()));
        let (receiving, binding) = (faults(receiving), faults(binding));
        let bind = |address| {
            let (receiving, error) = (receiving.clone(), next(&binding));
            async move {
                error.map_or(Ok(()), Err)?;
                Ok(Socket(TokioNetwork.bind_udp(address).await?, receiving))
            }
        };
        let real = TokioNetwork.bind_udp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let socket = Socket(real, receiving.clone());
        let address = socket.local_addr();
        let told = Mutex::new(Vec::new());
        let (counters, client) =
            (StunCounters::default(), tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let answered = async {
            let request = stun::request(stun::TransactionId([7; 12]));
            let mut answer = [0; 512];
            loop {
                // Nobody may listen at the moment.
                let _ = client.send_to(&request, address).await;
                let patience = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut answer));
                if let Ok(Ok(length)) = patience.await {
                    break stun::Response::parse(&answer[..length]).unwrap().mapped;
                }
            }
        };
        let tell = |error: Option<&io::Error>| {
            told.lock().unwrap().push(error.map_or_else(|| "well".into(), ToString::to_string));
        };
        let sockets = Sockets::one(socket);
        let mapped = tokio::select! {
            mapped = tokio::time::timeout(Duration::from_secs(20), answered) => mapped.unwrap(),
            never = serve_always(&sockets, Change::default(), bind, &counters, tell) => match never {},
        };
        assert_eq!(mapped, client.local_addr().unwrap());
        assert!(receiving.lock().unwrap().is_empty() && binding.lock().unwrap().is_empty());
        told.into_inner().unwrap()
    }

    /// Where answers come from when a server is asked with each change.
    async fn origins(other: Option<IpAddr>) -> Vec<String> {
        let server = StunServer::bind("127.0.0.1:0".parse().unwrap(), other).await.unwrap();
        let address = server.local_addr();
        let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let counters = StunCounters::default();
        let asked = async {
            let mut seen = Vec::new();
            for (port, ip) in [(false, false), (true, false), (false, true), (true, true)] {
                let change = Change { address: ip, port };
                let tx = stun::TransactionId([7; 12]);
                client.send_to(&stun::request_changed(tx, change), address).await.unwrap();
                let mut bytes = [0; 512];
                let answer = tokio::time::timeout(Duration::from_secs(10), client.recv_from(&mut bytes));
                let (length, from) = answer.await.unwrap().unwrap();
                let same_port = if from.port() == address.port() { "same" } else { "other" };
                let said = stun::Response::parse(&bytes[..length]);
                let told = stun::Places::parse(&bytes[..length]);
                assert!(said.is_err() || told.origin == Some(from), "{told:?} from {from}");
                seen.push(format!(
                    "{}, {same_port} port: {}",
                    from.ip(),
                    said.map_or_else(|e| e.to_string(), |_| "answered".into())
                ));
            }
            seen
        };
        tokio::select! {
            seen = asked => seen,
            () = server.serve(&counters, watch::Sender::new(None)) => Vec::new(),
        }
    }

    #[tokio::test]
    async fn answers_come_from_where_they_are_asked_to() {
        insta::assert_snapshot!(origins(None).await.join("\n"), @r"
        127.0.0.1, same port: answered
        127.0.0.1, other port: answered
        127.0.0.1, same port: the STUN server answered with error 420
        127.0.0.1, same port: the STUN server answered with error 420
        ");
        insta::assert_snapshot!(origins(Some("127.0.0.2".parse().unwrap())).await.join("\n"), @r"
        127.0.0.1, same port: answered
        127.0.0.1, other port: answered
        127.0.0.2, same port: answered
        127.0.0.2, other port: answered
        ");
    }

    #[tokio::test]
    async fn errors_that_pass_end_nothing() {
        assert!(told(&[libc::ENOBUFS, libc::ENOMEM, libc::ENETDOWN], &[]).await.is_empty());
    }

    #[tokio::test]
    async fn a_dead_socket_is_bound_again_and_told_until_then() {
        let told = told(&[libc::EBADF], &[libc::EADDRINUSE]).await;
        insta::assert_snapshot!(told.join("\n"), @r"
        Bad file descriptor (os error 9)
        Address already in use (os error 98)
        well
        ");
    }
}

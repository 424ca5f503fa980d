//! A STUN server on UDP: tells whoever asks the address it is seen at, and nothing else.

use crate::transport::{Datagrams, Network, RecvBatch, TokioNetwork, UdpLink};
use crate::words::io_words;
use core::net::SocketAddr;
use proto_core::wire::stun;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

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

/// A server's STUN socket on the real network.
pub struct StunServer(<TokioNetwork as Network>::Udp);

impl StunServer {
    /// Binds it.
    ///
    /// # Errors
    /// If the port is taken, or the address is not this machine's.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TokioNetwork.bind_udp(address).await.map(Self)
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
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
        let bind = async |address| TokioNetwork.bind_udp(address).await;
        match serve_always(self.0, bind, counters, tell).await {}
    }
}

/// Answers on `socket` until it dies or the future is dropped. An answer that does not fit the socket's
/// buffer is lost, as a datagram may be: the client asks again.
///
/// # Errors
/// If the socket is dead.
pub async fn serve<U: UdpLink>(socket: &U, counters: &StunCounters) -> io::Result<()> {
    let mut batch = RecvBatch::new(1);
    loop {
        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await?;
        for (from, bytes) in batch.datagrams() {
            match stun::answer(bytes, from) {
                Some(answer) => {
                    let sent = socket.try_send(&Datagrams::one(from, &answer));
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

/// As [`serve`], through whatever happens: goes on after errors that pass, and has the same address bound again
/// after others. `tell` hears why nobody is answered, each time it is tried in vain, and `None` when all is well again.
pub async fn serve_always<U: UdpLink>(
    mut socket: U,
    bind: impl AsyncFn(SocketAddr) -> io::Result<U>,
    counters: &StunCounters,
    tell: impl Fn(Option<&io::Error>),
) -> Infallible {
    let address = socket.local_addr();
    loop {
        let Err(error) = serve(&socket, counters).await else { continue };
        if passes(&error) {
            tracing::warn!("the STUN server can't receive for the moment: {error}");
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        tell(Some(&error));
        // The port must be free before it can be bound again.
        drop(socket);
        socket = loop {
            tokio::time::sleep(PAUSE).await;
            match bind(address).await {
                Ok(socket) => break socket,
                Err(error) => tell(Some(&error)),
            }
        };
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
        let bind = async |address| match next(&binding) {
            Some(error) => Err(error),
            None => Ok(Socket(TokioNetwork.bind_udp(address).await?, receiving.clone())),
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
        let mapped = tokio::select! {
            mapped = tokio::time::timeout(Duration::from_secs(20), answered) => mapped.unwrap(),
            never = serve_always(socket, bind, &counters, tell) => match never {},
        };
        assert_eq!(mapped, client.local_addr().unwrap());
        assert!(receiving.lock().unwrap().is_empty() && binding.lock().unwrap().is_empty());
        told.into_inner().unwrap()
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

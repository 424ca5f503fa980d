//! Speaks with the router before this host about ports: asks for a mapping, renews it and gives it back, by PCP,
//! NAT-PMP or UPnP. When, and what a word of the router means, is decided by [`proto_core::nat::portmap`].

use proto_core::nat::portmap::{PortmapRequest, RouterWord};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

mod ask;
mod held;

use held::Held;

/// Requests and words that wait at most: a request is made every few seconds and answered by two words.
const WAITING: usize = 16;
/// How long giving back may take. A program that ends waits for it.
const RELEASE: Duration = Duration::from_millis(800);
/// The least pause between two looks at who says so.
const HEARD_AGAIN: Duration = Duration::from_secs(1);
/// Where routers say that they started anew (RFC 6886, 3.2.1).
const ANNOUNCED: (Ipv4Addr, u16) = (Ipv4Addr::new(224, 0, 0, 1), 5350);

/// The way to the router, for a driver. A task of its own does the asking; it ends with this.
#[derive(Debug)]
pub struct PortMapper {
    requests: mpsc::Sender<PortmapRequest>,
    said: mpsc::Receiver<Said>,
    /// What is held is being given back.
    releasing: bool,
}

/// What the task has to say.
#[derive(Debug)]
enum Said {
    Word(RouterWord),
    Released,
}

impl PortMapper {
    /// Of this host's router.
    #[must_use]
    pub fn here() -> Self {
        let (requests, orders) = mpsc::channel(WAITING);
        let (sender, said) = mpsc::channel(WAITING);
        tokio::spawn(serve(orders, sender));
        Self { requests, said, releasing: false }
    }

    /// Asks.
    pub(crate) fn request(&mut self, request: PortmapRequest) {
        let sent = self.requests.try_send(request).is_ok();
        self.releasing = sent && request == PortmapRequest::Release;
    }

    /// Whether something is still being given back.
    pub(crate) const fn is_releasing(&self) -> bool {
        self.releasing
    }

    /// The next word about the router.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<RouterWord>> {
        loop {
            match std::task::ready!(self.said.poll_recv(cx)) {
                Some(Said::Word(word)) => return Poll::Ready(Some(word)),
                Some(Said::Released) => self.releasing = false,
                None => {
                    self.releasing = false;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

type Asking = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the router has granted, known as soon as it has: a question goes on after that, and may be given up.
#[derive(Clone, Debug, Default)]
struct Granted(Arc<Mutex<Option<Held>>>);

impl Granted {
    fn get(&self) -> Option<Held> {
        self.slot().clone()
    }

    /// Puts something in its place, or nothing; what it was.
    fn put(&self, held: Option<Held>) -> Option<Held> {
        std::mem::replace(&mut *self.slot(), held)
    }

    /// Gives back what is held, if the router takes it within a moment.
    async fn give_back(&self) {
        if let Some(held) = self.put(None) {
            let _ = timeout(RELEASE, held.release()).await;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(mut orders: mpsc::Receiver<PortmapRequest>, said: mpsc::Sender<Said>) {
    let announcements = announcements().inspect_err(|error| {
        tracing::debug!(%error, "a router's restart is not heard of");
    });
    let mut announcements = announcements.ok();
    let granted = Granted::default();
    let mut asking: Option<Asking> = None;
    let mut heard: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                None => return granted.give_back().await,
                Some(PortmapRequest::Ask { port }) => {
                    asking = Some(Box::pin(ask::ask(port, granted.clone(), said.clone())));
                }
                Some(PortmapRequest::Release) => {
                    asking = None;
                    granted.give_back().await;
                    let _ = said.send(Said::Released).await;
                }
            },
            () = done(&mut asking) => asking = None,
            from = announced(announcements.as_ref()) => match from {
                // One word is repeated ten times in some seconds, and strangers may say it as often as they like.
                Ok(_) if heard.is_some_and(|at| at.elapsed() < HEARD_AGAIN) => {}
                Ok(from) => {
                    heard = Some(Instant::now());
                    if Some(from) == ask::gateway().await.map(IpAddr::V4) {
                        let _ = said.try_send(Said::Word(RouterWord::Started));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a router's restart is not heard of any more");
                    announcements = None;
                }
            },
        }
    }
}

/// What came of asking; never, while nothing is asked.
async fn done(asking: &mut Option<Asking>) {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// A socket for what routers say to everybody. Every program on this host that cares has one on the same port.
fn announcements() -> std::io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Of the group alone: what is sent to this host itself goes to one of the sockets, and perhaps to another's.
    socket.bind(&SocketAddr::from(ANNOUNCED).into())?;
    UdpSocket::from_std(socket.into())
}

/// Who announced something; never, without a socket.
async fn announced(socket: Option<&UdpSocket>) -> std::io::Result<IpAddr> {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut word = [0; 64];
    socket.recv_from(&mut word).await.map(|(_, from)| from.ip())
}

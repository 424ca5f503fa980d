//! Speaks with the router before this host about ports: asks for a mapping, renews it and gives it back, by PCP,
//! NAT-PMP or UPnP. When, and what a word of the router means, is decided by [`proto_core::nat::portmap`].

use proto_core::nat::portmap::{PortmapRequest, RouterWord};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
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

type Asking = Pin<Box<dyn Future<Output = Option<Held>> + Send>>;

async fn serve(mut orders: mpsc::Receiver<PortmapRequest>, said: mpsc::Sender<Said>) {
    let announcements = announcements().inspect_err(|error| {
        tracing::debug!(%error, "a router's restart is not heard of");
    });
    let mut announcements = announcements.ok();
    let mut held: Option<Held> = None;
    let mut asking: Option<Asking> = None;
    let mut heard: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                None => return,
                Some(PortmapRequest::Ask { port }) => {
                    asking = Some(Box::pin(ask::ask(port, held.clone(), said.clone())));
                }
                Some(PortmapRequest::Release) => {
                    asking = None;
                    if let Some(held) = held.take() {
                        let _ = timeout(RELEASE, held.release()).await;
                    }
                    let _ = said.send(Said::Released).await;
                }
            },
            now = done(&mut asking) => {
                asking = None;
                held = now;
            }
            from = announced(announcements.as_ref()) => match from {
                // One word is repeated ten times in some seconds, and strangers may say it as often as they like.
                Ok(_) if heard.is_some_and(|at| at.elapsed() < HEARD_AGAIN) => {}
                Ok(from) => {
                    heard = Some(Instant::now());
                    if Some(from) == ask::gateway().map(IpAddr::V4) {
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
async fn done(asking: &mut Option<Asking>) -> Option<Held> {
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

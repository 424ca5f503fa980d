//! The node's UDP sockets.

use crate::stack::SendBatch;
use crate::transport::{Datagrams, Network, RecvBatch, UdpLink};
use proto_core::id::LinkId;
use proto_core::machine::Transmit;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// Small datagrams (STUN, disco, openers) that may wait for a full socket: they come a few at a time.
const LATE_MAX: usize = 64;

/// The sockets, and what waits for room in them.
pub(super) struct Links<U> {
    links: Vec<Link<U>>,
    late: VecDeque<Transmit>,
    /// How much of the batch at hand is sent.
    sent: usize,
}

struct Link<U> {
    id: LinkId,
    socket: U,
    dead: bool,
}

impl<U: UdpLink> Links<U> {
    /// Binds each address; those of a family that the host lacks are left out.
    pub(super) async fn bind<N: Network<Udp = U>>(network: &N, addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut links = Vec::new();
        let mut error = None;
        for address in addresses {
            match network.bind_udp(*address).await {
                Ok(socket) => {
                    let id = LinkId(u32::try_from(links.len()).unwrap_or(u32::MAX));
                    links.push(Link { id, socket, dead: false });
                }
                Err(e) => error = error.or(Some(e)),
            }
        }
        match error {
            Some(error) if links.is_empty() => Err(error),
            _ => Ok(Self { links, late: VecDeque::new(), sent: 0 }),
        }
    }

    /// The smallest socket's receive buffer, in bytes.
    pub(super) fn receive_buffer(&self) -> usize {
        self.links.iter().map(|link| link.socket.receive_buffer()).min().unwrap_or(0)
    }

    pub(super) fn addresses(&self) -> Vec<(LinkId, SocketAddr)> {
        self.links.iter().map(|link| (link.id, link.socket.local_addr())).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// What the socket at `at` has received: which one it is.
    pub(super) fn poll_recv(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        into: &mut RecvBatch,
    ) -> Poll<Result<LinkId, (LinkId, io::Error)>> {
        let Some(link) = self.links.get_mut(at).filter(|link| !link.dead) else { return Poll::Pending };
        let id = link.id;
        link.socket.poll_recv(cx, into).map(|result| match result {
            Ok(()) => Ok(id),
            Err(error) => {
                link.dead = true;
                Err((id, error))
            }
        })
    }

    /// Sends a datagram now, or soon.
    pub(super) fn transmit(&mut self, transmit: Transmit) {
        if (!self.late.is_empty() || self.try_transmit(&transmit).is_err()) && self.late.len() < LATE_MAX {
            self.late.push_back(transmit);
        }
    }

    /// Sends what waits and then what is left of `batch`, which is empty after that; false if the socket
    /// takes no more now (the task will be woken).
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, batch: &mut SendBatch) -> bool {
        while let Some(transmit) = self.late.pop_front() {
            if self.try_transmit(&transmit).is_err() {
                let link = transmit.link;
                self.late.push_front(transmit);
                if !self.writable(link, cx) {
                    return false;
                }
            }
        }
        while !batch.is_empty() {
            let rest = &batch.bytes()[self.sent..];
            if rest.is_empty() {
                batch.clear();
                self.sent = 0;
                break;
            }
            let run =
                Datagrams { to: batch.to, bytes: rest, segment: batch.segment().min(rest.len()), ttl: None };
            match self.socket(batch.link).map_or(Ok(rest.len()), |socket| socket.try_send(&run)) {
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !self.writable(batch.link, cx) {
                        return false;
                    }
                }
                // Lost on the way.
                Err(_) => self.sent += rest.len(),
            }
        }
        true
    }

    fn try_transmit(&self, transmit: &Transmit) -> Result<(), ()> {
        let Some(socket) = self.socket(transmit.link) else { return Ok(()) };
        let run = Datagrams { ttl: transmit.ttl, ..Datagrams::one(transmit.to, &transmit.bytes) };
        match socket.try_send(&run) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(()),
            _ => Ok(()),
        }
    }

    fn socket(&self, link: LinkId) -> Option<&U> {
        self.links.iter().find(|l| l.id == link && !l.dead).map(|l| &l.socket)
    }

    /// Whether trying again is worth it at once. A dead socket takes everything, and loses it.
    fn writable(&self, link: LinkId, cx: &mut Context<'_>) -> bool {
        self.socket(link).is_none_or(|socket| socket.poll_writable(cx).is_ready())
    }
}

//! The node's UDP sockets: bound at the start, and bound again whenever one dies.

use crate::stack::SendBatch;
use crate::transport::{Datagrams, Network, RecvBatch, UdpLink, is_unreachable};
use proto_core::id::LinkId;
use proto_core::machine::Transmit;
use proto_core::time::{Duration, Time};
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Small datagrams (STUN, disco, openers) that may wait for a full socket: they come a few at a time.
const LATE_MAX: usize = 64;
/// Destinations without a way that wait to be told: what is probed at once, and a few paths in use.
const UNREACHABLE_MAX: usize = 64;
/// The pause before a socket is bound again: an interface that is being set up anew takes about as long.
const REBIND_MIN: Duration = Duration::from_millis(500);
/// The longest pause: binding costs one system call, and relays carry everything meanwhile.
const REBIND_MAX: Duration = Duration::from_secs(30);

/// The sockets, and what waits for room in them.
pub(super) struct Links<N: Network> {
    network: N,
    places: Vec<Place<N::Udp>>,
    next: u32,
    late: VecDeque<Transmit>,
    /// Where the host has lately had no way to.
    unreachable: BTreeSet<(LinkId, SocketAddr)>,
    /// How much of the batch at hand is sent.
    sent: usize,
}

/// Where a socket is wanted, and what there is.
struct Place<U> {
    wanted: SocketAddr,
    /// The name that a machine chose, if it asked for this one.
    named: Option<LinkId>,
    /// The port that the latest socket had: asked for again, so that what others know of us stays true.
    port: u16,
    pause: Duration,
    state: State<U>,
}

enum State<U> {
    Bound { id: LinkId, socket: U },
    Binding(Pin<Box<dyn Future<Output = io::Result<U>> + Send>>),
    Waiting(Time),
}

impl<N: Network> Links<N> {
    /// Binds each address; what cannot be bound now is tried again later.
    pub(super) async fn bind(network: N, addresses: &[SocketAddr], now: Time) -> Self {
        let mut links = Self {
            network,
            places: Vec::new(),
            next: 0,
            late: VecDeque::new(),
            unreachable: BTreeSet::new(),
            sent: 0,
        };
        for wanted in addresses {
            let bound = links.network.bind_udp(*wanted).await;
            let state = State::Waiting(now);
            links.places.push(Place {
                wanted: *wanted,
                named: None,
                port: wanted.port(),
                pause: REBIND_MIN,
                state,
            });
            let _ = links.bound(links.places.len() - 1, bound, now);
        }
        links
    }

    /// Binds a socket more, of any port, under this name.
    pub(super) fn open(&mut self, link: LinkId, now: Time) {
        let wanted = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let state = State::Waiting(now);
        self.places.push(Place { wanted, named: Some(link), port: 0, pause: REBIND_MIN, state });
    }

    /// Closes such a socket.
    pub(super) fn close(&mut self, link: LinkId) {
        self.places.retain(|place| place.named != Some(link));
    }

    /// Binds what is due to be bound again: the link that has come up, if one has.
    pub(super) fn poll_bind(&mut self, cx: &mut Context<'_>, now: Time) -> Option<(LinkId, SocketAddr)> {
        for at in 0..self.places.len() {
            let place = &mut self.places[at];
            if matches!(place.state, State::Waiting(due) if due <= now) {
                let (network, mut address) = (self.network.clone(), place.wanted);
                address.set_port(place.port);
                place.state = State::Binding(Box::pin(async move { network.bind_udp(address).await }));
            }
            let State::Binding(binding) = &mut place.state else { continue };
            let Poll::Ready(bound) = binding.as_mut().poll(cx) else { continue };
            if let Some(up) = self.bound(at, bound, now) {
                return Some(up);
            }
        }
        None
    }

    /// Takes the outcome of an attempt.
    fn bound(&mut self, at: usize, bound: io::Result<N::Udp>, now: Time) -> Option<(LinkId, SocketAddr)> {
        let place = &mut self.places[at];
        match bound {
            Ok(socket) => {
                let address = socket.local_addr();
                let id = place.named.unwrap_or_else(|| {
                    let id = LinkId(self.next);
                    self.next = self.next.wrapping_add(1);
                    id
                });
                place.port = address.port();
                place.pause = REBIND_MIN;
                place.state = State::Bound { id, socket };
                Some((id, address))
            }
            Err(error) => {
                if place.pause == REBIND_MIN {
                    tracing::warn!(%error, address = %place.wanted, "can't bind a UDP socket; trying again");
                }
                if error.kind() == io::ErrorKind::AddrInUse {
                    // Somebody else has the port by now: the next attempt takes any that will do.
                    place.port = place.wanted.port();
                }
                place.state = State::Waiting(now + place.pause);
                place.pause = (place.pause * 2).min(REBIND_MAX);
                None
            }
        }
    }

    /// When a socket is to be bound again.
    pub(super) fn deadline(&self) -> Option<Time> {
        let due = |place: &Place<_>| if let State::Waiting(at) = place.state { Some(at) } else { None };
        self.places.iter().filter_map(due).min()
    }

    /// The host's addresses have changed from `before`: sockets of addresses that have gone are dead (the
    /// kernel does not say so), and what could not be bound is tried at once.
    pub(super) fn addresses_changed(
        &mut self,
        before: &[IpAddr],
        found: &[IpAddr],
        now: Time,
    ) -> Vec<LinkId> {
        let mut dead = Vec::new();
        for place in &mut self.places {
            place.pause = REBIND_MIN;
            match &place.state {
                State::Bound { id, .. } if has_gone(place.wanted.ip(), before, found) => {
                    dead.push(*id);
                    place.state = State::Waiting(now);
                }
                State::Waiting(_) => place.state = State::Waiting(now),
                _ => {}
            }
        }
        dead
    }

    /// The smallest socket's receive buffer, in bytes.
    pub(super) fn receive_buffer(&self) -> usize {
        self.bound_links().map(|(_, socket)| socket.receive_buffer()).min().unwrap_or(0)
    }

    pub(super) fn addresses(&self) -> Vec<(LinkId, SocketAddr)> {
        self.bound_links().map(|(id, socket)| (id, socket.local_addr())).collect()
    }

    fn bound_links(&self) -> impl Iterator<Item = (LinkId, &N::Udp)> {
        self.places.iter().filter_map(|place| match &place.state {
            State::Bound { id, socket } => Some((*id, socket)),
            _ => None,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// What the socket at `at` has received: which one it is. A socket that fails is bound again.
    pub(super) fn poll_recv(
        &mut self,
        at: usize,
        cx: &mut Context<'_>,
        into: &mut RecvBatch,
        now: Time,
    ) -> Poll<Result<LinkId, (LinkId, io::Error)>> {
        let Some(place) = self.places.get_mut(at) else { return Poll::Pending };
        let State::Bound { id, socket } = &place.state else { return Poll::Pending };
        let id = *id;
        socket.poll_recv(cx, into).map(|result| match result {
            Ok(()) => Ok(id),
            Err(error) => {
                place.state = State::Waiting(now + place.pause);
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
                Err(e) => {
                    self.sent += rest.len();
                    let (link, to) = (batch.link, batch.to);
                    self.note(&e, link, to);
                }
            }
        }
        true
    }

    /// Where a datagram could not leave for since the last such question, each destination once.
    pub(super) fn next_unreachable(&mut self) -> Option<(LinkId, SocketAddr)> {
        self.unreachable.pop_first()
    }

    fn note(&mut self, error: &io::Error, link: LinkId, to: SocketAddr) {
        if is_unreachable(error) && self.unreachable.len() < UNREACHABLE_MAX {
            self.unreachable.insert((link, to));
        }
    }

    fn try_transmit(&mut self, transmit: &Transmit) -> Result<(), ()> {
        let Some(socket) = self.socket(transmit.link) else { return Ok(()) };
        let run = Datagrams { ttl: transmit.ttl, ..Datagrams::one(transmit.to, &transmit.bytes) };
        match socket.try_send(&run) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(()),
            Err(e) => {
                self.note(&e, transmit.link, transmit.to);
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    fn socket(&self, link: LinkId) -> Option<&N::Udp> {
        self.bound_links().find(|(id, _)| *id == link).map(|(_, socket)| socket)
    }

    /// Whether trying again is worth it at once. A dead socket takes everything, and loses it.
    fn writable(&self, link: LinkId, cx: &mut Context<'_>) -> bool {
        self.socket(link).is_none_or(|socket| socket.poll_writable(cx).is_ready())
    }
}

/// Whether an address that a socket is bound to was the host's and is so no more.
fn has_gone(bound: IpAddr, before: &[IpAddr], found: &[IpAddr]) -> bool {
    before.contains(&bound) && !found.contains(&bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a network namespace of its own, whose only interface is down.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_host_without_a_way_says_where_to() {
        let alone = std::thread::spawn(|| {
            #[allow(unsafe_code)]
            // SAFETY: no memory is involved; only the calling thread moves to the new namespace, and it ends with it.
            let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            moved.then(|| runtime.block_on(send_into_nowhere()))
        });
        // A namespace needs root; `cargo xtask test` has it.
        if let Some((wanted, told)) = alone.join().unwrap() {
            assert_eq!(told, [Some(wanted), None, Some(wanted), None]);
        }
    }

    /// What the sockets say of a single datagram, and then of a batch.
    #[cfg(target_os = "linux")]
    async fn send_into_nowhere() -> ((LinkId, SocketAddr), [Option<(LinkId, SocketAddr)>; 4]) {
        let network = crate::transport::TokioNetwork;
        let mut links = Links::bind(network, &["0.0.0.0:0".parse().unwrap()], Time::ZERO).await;
        let (link, to) = (links.addresses()[0].0, "192.0.2.1:9".parse().unwrap());
        let mut batch = SendBatch::new();
        links.transmit(Transmit { link, to, bytes: vec![1; 40], ttl: None });
        flushed(&mut links, &mut batch).await;
        let single = [links.next_unreachable(), links.next_unreachable()];
        (batch.link, batch.to, batch.segment) = (link, to, 40);
        batch.room(120).fill(1);
        batch.commit(120);
        flushed(&mut links, &mut batch).await;
        assert!(batch.is_empty());
        ((link, to), [single[0], single[1], links.next_unreachable(), links.next_unreachable()])
    }

    #[cfg(target_os = "linux")]
    async fn flushed(links: &mut Links<crate::transport::TokioNetwork>, batch: &mut SendBatch) {
        let mut links_flush =
            |cx: &mut Context<'_>| if links.flush(cx, batch) { Poll::Ready(()) } else { Poll::Pending };
        std::future::poll_fn(&mut links_flush).await;
    }

    #[test]
    fn a_socket_dies_with_its_own_address_alone() {
        let [a, b, any] = ["192.0.2.1", "192.0.2.2", "0.0.0.0"].map(|text| text.parse::<IpAddr>().unwrap());
        assert!(has_gone(a, &[a, b], &[b]));
        assert!(!has_gone(b, &[a, b], &[b]));
        assert!(!has_gone(any, &[a, b], &[]), "a wildcard outlives every address");
        // Loopback and the like are in no list of interfaces: nothing is known of them.
        assert!(!has_gone(a, &[b], &[]));
    }
}

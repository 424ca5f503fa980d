//! A NAT as a turmoil host: it takes envelopes from its inside, rewrites them by [`Nat`], and has one UDP
//! socket for each external port, so that public hosts see ordinary datagrams. Under another gateway it
//! passes envelopes on instead. Bounce the host and its mappings are gone.

use super::envelope::{Envelope, put, take};
use super::wire::{Wire, now};
use super::{ENVELOPE_PORT, INTERNET_HOPS, SPLICE_PORT};
use crate::nat::{DropReason, Nat, NatProfile, Protocol, Verdict};
use crate::netem::{Direction, LinkProfile};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::sleep;
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

/// How often a splice that stands still looks whether it may go on.
const HELD: Duration = Duration::from_millis(20);
/// How long a gateway tries to reach what its inside asks for.
const DIAL: Duration = Duration::from_secs(3);

/// What a gateway is.
#[derive(Clone, Debug)]
pub struct GatewayPlan {
    /// How its NAT behaves.
    pub profile: NatProfile,
    /// Its address in turmoil's mesh: on the internet its public one.
    pub mesh: IpAddr,
    /// The address it shows outside.
    pub outside: IpAddr,
    /// The first three bytes of its inside's addresses.
    pub lan: [u8; 3],
    /// The gateway above, if it is not on the internet.
    pub parent: Option<IpAddr>,
    /// How its link outwards behaves, each way.
    pub link: LinkProfile,
}

struct Gateway {
    plan: GatewayPlan,
    wire: Wire,
    nat: RefCell<Nat>,
    links: RefCell<[Direction; 2]>,
    envelopes: UdpSocket,
    /// Where in the mesh an inside endpoint is.
    inside: RefCell<BTreeMap<SocketAddr, SocketAddr>>,
    outside: RefCell<BTreeMap<u16, Rc<UdpSocket>>>,
}

/// Runs a gateway until its host is crashed.
///
/// # Errors
/// If one of its own sockets cannot be bound or dies.
pub async fn run(plan: GatewayPlan, wire: Wire, seed: Seed) -> turmoil::Result {
    wire.count(|c| c.gateways += 1);
    let envelopes = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ENVELOPE_PORT)).await?;
    let splices = TcpListener::bind((Ipv4Addr::UNSPECIFIED, SPLICE_PORT)).await?;
    let direction = |label| Direction::new(plan.link, &seed.fork(label));
    let gateway = Rc::new(Gateway {
        nat: RefCell::new(Nat::new(plan.profile, plan.outside, &seed)),
        links: RefCell::new([direction("up"), direction("down")]),
        envelopes,
        inside: RefCell::default(),
        outside: RefCell::default(),
        wire,
        plan,
    });
    let serving = gateway.clone();
    spawn_local(async move { serving.splice(splices).await });
    let mut buffer = vec![0; 65_536];
    loop {
        let (len, from) = gateway.envelopes.recv_from(&mut buffer).await?;
        let Some(envelope) = Envelope::decode(&buffer[..len]) else { continue };
        if Some(from.ip()) == gateway.plan.parent {
            gateway.clone().come_in(envelope);
        } else {
            gateway.inside.borrow_mut().insert(envelope.src, from);
            gateway.clone().go_out(envelope).await?;
        }
    }
}

impl Gateway {
    fn is_local(&self, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == self.plan.lan)
    }

    async fn go_out(self: Rc<Self>, envelope: Envelope) -> io::Result<()> {
        let Envelope { src, dst, ttl, bytes } = envelope;
        if self.is_local(dst.ip()) {
            self.wire.count(|c| c.local += 1);
            self.deliver(Envelope { src, dst, ttl, bytes });
            return Ok(());
        }
        let ttl = ttl.saturating_sub(1);
        if ttl == 0 {
            self.wire.count(|c| c.expired += 1);
            return Ok(());
        }
        let verdict = self.nat.borrow_mut().outbound(now(), Protocol::Udp, (src, dst), true);
        match verdict {
            Verdict::Forward { src: shown, dst } => {
                if shown != src {
                    self.wire.translated(self.plan.mesh);
                }
                let src = shown;
                // The mapping exists from this moment, whatever becomes of the packet: so does its socket.
                if self.plan.parent.is_none() {
                    self.clone().external(src.port()).await?;
                }
                self.send_up(Envelope { src, dst, ttl, bytes });
            }
            Verdict::Hairpin { src, dst } => {
                self.wire.count(|c| c.hairpinned += 1);
                self.deliver(Envelope { src, dst, ttl, bytes });
            }
            Verdict::Drop(DropReason::Blocked) => self.wire.count(|c| c.blocked += 1),
            Verdict::Drop(_) | Verdict::Reject => self.wire.count(|c| c.nat_drops += 1),
        }
        Ok(())
    }

    fn send_up(self: Rc<Self>, envelope: Envelope) {
        if self.plan.parent.is_none() && envelope.ttl <= INTERNET_HOPS {
            self.wire.count(|c| c.expired += 1);
            return;
        }
        for delay in self.over_link(0, envelope.bytes.len()) {
            let (this, envelope) = (self.clone(), envelope.clone());
            after(delay, move || this.emit(&envelope));
        }
    }

    fn emit(&self, envelope: &Envelope) {
        if let Some(parent) = self.plan.parent {
            let _ = self.envelopes.try_send_to(&envelope.encode(), (parent, ENVELOPE_PORT));
            return;
        }
        self.wire.crossing(self.plan.mesh, envelope.dst.ip());
        if let Some(socket) = self.outside.borrow().get(&envelope.src.port()) {
            // turmoil refuses addresses that nobody has; the internet is silent.
            let _ = socket.try_send_to(&envelope.bytes, envelope.dst);
        }
    }

    fn come_in(self: Rc<Self>, envelope: Envelope) {
        for delay in self.over_link(1, envelope.bytes.len()) {
            let (this, envelope) = (self.clone(), envelope.clone());
            after(delay, move || this.admit(envelope));
        }
    }

    fn admit(&self, envelope: Envelope) {
        let Envelope { src, dst, ttl, bytes } = envelope;
        let verdict = self.nat.borrow_mut().inbound(now(), Protocol::Udp, src, dst);
        match verdict {
            Verdict::Forward { src, dst } | Verdict::Hairpin { src, dst } => {
                self.deliver(Envelope { src, dst, ttl: ttl.saturating_sub(1), bytes });
            }
            Verdict::Drop(_) | Verdict::Reject => self.wire.count(|c| c.nat_drops += 1),
        }
    }

    fn deliver(&self, envelope: Envelope) {
        if envelope.ttl == 0 {
            self.wire.count(|c| c.expired += 1);
            return;
        }
        if let Some(to) = self.inside.borrow().get(&envelope.dst) {
            let _ = self.envelopes.try_send_to(&envelope.encode(), *to);
        }
    }

    /// When a datagram leaves the link, as delays; none if it is lost.
    fn over_link(&self, which: usize, len: usize) -> Vec<Duration> {
        let now = now();
        match self.links.borrow_mut()[which].pass(now, len) {
            Ok(arrival) => {
                let late = arrival.at.since(now) > self.plan.link.latency;
                self.wire.count(|c| {
                    c.duplicated += u64::from(arrival.again.is_some());
                    c.delayed += u64::from(late);
                });
                let delay = |at: Time| at.since(now);
                [Some(arrival.at), arrival.again].into_iter().flatten().map(delay).collect()
            }
            Err(_) => {
                self.wire.count(|c| c.lost += 1);
                Vec::new()
            }
        }
    }

    /// Has a socket for an external port.
    async fn external(self: Rc<Self>, port: u16) -> io::Result<()> {
        if self.outside.borrow().contains_key(&port) {
            return Ok(());
        }
        let socket = Rc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await?);
        self.outside.borrow_mut().insert(port, socket.clone());
        let dst = SocketAddr::new(self.plan.outside, port);
        spawn_local(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((len, src)) = socket.recv_from(&mut buffer).await {
                let ttl = crate::topology::fabric::TTL - INTERNET_HOPS;
                self.clone().come_in(Envelope { src, dst, ttl, bytes: buffer[..len].to_vec() });
            }
        });
        Ok(())
    }

    async fn splice(self: Rc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let this = self.clone();
            spawn_local(async move {
                // Whatever breaks, both sides see the end.
                let _ = this.connection(stream).await;
            });
        }
    }

    async fn connection(&self, mut inner: TcpStream) -> io::Result<()> {
        let mut request = [0; 14];
        inner.read_exact(&mut request).await?;
        let Some((_, rest)) = take(&request) else { return Ok(()) };
        let Some((dst, _)) = take(rest) else { return Ok(()) };
        let dialled = tokio::time::timeout(DIAL, self.dial(dst)).await;
        let Ok(Ok(outer)) = dialled else {
            // A partition looks like a refusal to turmoil; to the inside it is silence, then a failure.
            sleep(DIAL).await;
            return inner.write_all(&[1]).await;
        };
        inner.write_all(&[0]).await?;
        self.wire.count(|c| c.spliced += 1);
        let (inner_read, inner_write) = inner.into_split();
        let (outer_read, outer_write) = outer.into_split();
        tokio::join!(
            self.pump(inner_read, outer_write, Some(dst.ip())),
            self.pump(outer_read, inner_write, None)
        );
        Ok(())
    }

    async fn dial(&self, dst: SocketAddr) -> io::Result<TcpStream> {
        let Some(parent) = self.plan.parent else {
            return TcpStream::connect(dst).await;
        };
        let mut stream = TcpStream::connect((parent, SPLICE_PORT)).await?;
        let mut request = Vec::new();
        put(&mut request, SocketAddr::new(self.plan.outside, 0));
        put(&mut request, dst);
        stream.write_all(&request).await?;
        match stream.read_u8().await? {
            0 => Ok(stream),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    async fn pump(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, dst: Option<IpAddr>) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(len) = from.read(&mut buffer).await {
            while self.wire.is_paused(self.plan.mesh) {
                self.wire.count(|c| c.held += 1);
                sleep(HELD).await;
            }
            if len == 0 {
                break;
            }
            if let Some(dst) = dst {
                self.wire.crossing(self.plan.mesh, dst);
            }
            if to.write_all(&buffer[..len]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }
}

fn after(delay: Duration, what: impl FnOnce() + 'static) {
    if delay < Duration::from_millis(1) {
        return what();
    }
    spawn_local(async move {
        sleep(delay).await;
        what();
    });
}

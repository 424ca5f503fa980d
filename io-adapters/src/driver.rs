//! The one event loop of a node: it owns the [`Stack`], the sockets and the streams, takes what the world
//! gives, and does what the stack asks. The same loop runs on tokio's network and on the simulated one.
//!
//! It is one future, polled: each round looks at every source once, in one fixed order (so that a simulation
//! repeats), within a budget (so that none starves another), then drains the stack. It waits on nothing else
//! and holds no lock while it does.

use crate::clock::Origin;
use crate::handle::NodeHandle;
use crate::handle::shared::{INCOMING_MAX, IncomingSender, Shared, Signal};
use crate::pcap::Tap;
use crate::relay_stream::Dialer;
use crate::relay_stream::proxy::Proxies;
use crate::relay_stream::tls::Trust;
use crate::stack::{SendBatch, Stack, StackConfig, StackEvent};
use crate::streams::StreamError;
use crate::transport::{Network, RecvBatch, TokioNetwork};
use crate::wg::BoringTun;
use futures_util::FutureExt;
use proto_core::machine::{Input, Output};
use proto_core::node::{NodeCommand, NodeConfig, NodeEvent, SessionState};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use proto_core::wg::WgEngine;
use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Sleep;

mod flows;
mod links;
mod peers;
mod router;
mod streams;

use flows::Flows;
use links::Links;
use peers::Peers;
use router::Router;
use streams::Streams;

/// Rounds of one wake-up before others on the thread get a turn: a few milliseconds of work at full speed.
const ROUNDS: usize = 32;
/// Batches sent in one round before receiving gets a turn, so that acknowledgements are never far behind.
const BATCHES: usize = 16;
/// Datagrams of this many calls fit the receive buffer: what one call gives, at most.
const RECEIVES: usize = 8;
/// Events that a slow reader may leave unread before it misses the oldest.
const EVENTS: usize = 1_024;
/// How long leaving may take: goodbyes are one packet to the coordinator and one to each peer.
const LEAVING: Duration = Duration::from_secs(1);
/// How often the host's addresses are looked at, so that a changed network is noticed without being told.
const INTERFACES_EVERY: Duration = Duration::from_secs(10);

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node machine's configuration.
    pub node: NodeConfig,
    /// The source of everything random in it.
    pub seed: Seed,
    /// Where to bind UDP sockets. What cannot be bound, for want of the family or the address, is tried again
    /// while the node runs.
    pub bind: Vec<SocketAddr>,
    /// Whom to trust for TLS.
    pub trust: Trust,
    /// Who may stand on the way to relays and the coordinator.
    pub proxies: Proxies,
    /// Where what travels in the tunnels is captured, if anywhere.
    pub tap: Option<Tap>,
}

impl Settings {
    /// The usual: a seed of the operating system, any free port of both families, the system's roots, and the
    /// environment's proxies.
    #[must_use]
    pub fn new(node: NodeConfig) -> Self {
        let bind = vec![(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::UNSPECIFIED, 0).into()];
        let proxies = Proxies::from_environment();
        Self { node, seed: crate::entropy::seed(), bind, trust: Trust::system(), proxies, tap: None }
    }
}

/// Starts a node: binds its sockets, then connects to coordinator and relays in the background. The handle
/// may be used at once. Without a UDP socket it is relayed, until one can be bound.
pub async fn start<N, W>(settings: Settings, network: N, engine: W, clock: Origin) -> NodeHandle
where
    N: Network,
    W: WgEngine + Send + 'static,
{
    let now = clock.time();
    let links = Links::bind(network.clone(), &settings.bind, now).await;
    let shared = Arc::new(Shared::new(settings.node.node_key.public()));
    let config = StackConfig { node: settings.node, receive_buffer: links.receive_buffer() };
    let (incoming, accepted) = mpsc::channel(INCOMING_MAX);
    let events = broadcast::Sender::new(EVENTS);
    let handle = NodeHandle::new(shared.clone(), accepted, events.downgrade());
    let driver = Driver {
        stack: Stack::new(config, engine, &settings.seed.fork("stack"), now).tapped(settings.tap),
        streams: Streams::new(Dialer {
            network: network.clone(),
            trust: settings.trust,
            proxies: settings.proxies,
        }),
        network,
        clock,
        links,
        flows: Flows::default(),
        peers: Peers::default(),
        shared: shared.clone(),
        incoming,
        events,
        session: SessionState::Idle,
        router: Router::default(),
        interfaces: Vec::new(),
        interfaces_at: now,
        batch: SendBatch::new(),
        received: RecvBatch::new(RECEIVES),
        signals: Vec::new(),
        timer: Box::pin(tokio::time::sleep_until(clock.instant(now))),
        leaving: None,
        leavers: Vec::new(),
    };
    tokio::spawn(async move {
        if let Err(panic) = AssertUnwindSafe(driver.run()).catch_unwind().await {
            shared.keep_panic(panic.as_ref());
            shared.stop();
            std::panic::resume_unwind(panic);
        }
    });
    handle
}

/// Starts a node on this host's network, with boringtun.
pub async fn start_here(node: NodeConfig) -> NodeHandle {
    start_here_tapped(node, None).await
}

/// As [`start_here`]; what travels in its tunnels is captured.
pub async fn start_here_tapped(node: NodeConfig, tap: Option<Tap>) -> NodeHandle {
    let engine = BoringTun::new(&node.node_key);
    start(Settings { tap, ..Settings::new(node) }, TokioNetwork, engine, Origin::now()).await
}

/// The loop and all that it owns.
struct Driver<N: Network, W: WgEngine> {
    stack: Stack<W>,
    network: N,
    clock: Origin,
    links: Links<N>,
    streams: Streams<N>,
    flows: Flows,
    peers: Peers,
    shared: Arc<Shared>,
    incoming: IncomingSender,
    events: broadcast::Sender<NodeEvent>,
    session: SessionState,
    router: Router,
    interfaces: Vec<std::net::IpAddr>,
    interfaces_at: Time,
    batch: SendBatch,
    received: RecvBatch,
    signals: Vec<Signal>,
    timer: Pin<Box<Sleep>>,
    /// Until when leaving may take.
    leaving: Option<Time>,
    leavers: Vec<oneshot::Sender<()>>,
}

impl<N: Network, W: WgEngine> Driver<N, W> {
    async fn run(mut self) {
        self.begin();
        poll_fn(|cx| self.poll(cx)).await;
        for leaver in self.leavers.drain(..) {
            let _ = leaver.send(());
        }
    }

    fn begin(&mut self) {
        let now = self.clock.time();
        for (link, address) in self.links.addresses() {
            self.stack.handle(Input::LinkUp { link, address }, now);
        }
        self.look_at_interfaces(now);
        self.stack.handle(Input::Command(NodeCommand::Start), now);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..ROUNDS {
            let now = self.clock.time();
            let mut busy = self.receive(cx, now);
            busy |= self.bind(cx, now);
            busy |= self.read_streams(cx, now);
            busy |= self.hear_router(cx, now);
            busy |= self.take_signals(cx, now);
            busy |= self.keep_time(now);
            self.stack.end_of_batch(now);
            busy |= self.drain(cx, now);
            busy |= self.router.take_asked();
            if self.has_left(now) {
                return Poll::Ready(());
            }
            if !busy && self.wait(cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One receive of each socket.
    fn receive(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut busy = false;
        for at in 0..self.links.len() {
            match self.links.poll_recv(at, cx, &mut self.received, now) {
                Poll::Ready(Ok(link)) => {
                    busy = true;
                    for (from, bytes) in self.received.datagrams() {
                        self.stack.datagram(link, from, bytes, now);
                    }
                }
                Poll::Ready(Err((link, error))) => {
                    busy = true;
                    tracing::warn!(%error, ?link, "a UDP socket died; binding another");
                    // One that a machine asked for is not bound again.
                    self.links.close(link);
                    self.stack.handle(Input::LinkDown { link }, now);
                }
                Poll::Pending => {}
            }
        }
        busy
    }

    /// Binds sockets anew that died or could not be bound before.
    fn bind(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        if self.leaving.is_some() {
            return false;
        }
        let Some((link, address)) = self.links.poll_bind(cx, now) else { return false };
        tracing::info!(?link, %address, "bound a UDP socket again");
        self.stack.set_receive_buffer(self.links.receive_buffer());
        self.stack.handle(Input::LinkUp { link, address }, now);
        true
    }

    /// One read of each stream, and what became of those being opened and names being resolved.
    fn read_streams(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let stack = &mut self.stack;
        self.streams.poll(cx, |input| stack.handle(input, now))
    }

    fn take_signals(&mut self, cx: &Context<'_>, now: Time) -> bool {
        let mut signals = std::mem::take(&mut self.signals);
        self.shared.take_signals(&mut signals, cx.waker());
        let busy = !signals.is_empty();
        for signal in signals.drain(..) {
            self.signal(signal, now);
        }
        self.signals = signals;
        busy
    }

    fn signal(&mut self, signal: Signal, now: Time) {
        match signal {
            Signal::Touched(flow) => self.flows.touched(flow, &mut self.stack),
            Signal::Open { key, header, reply } => {
                let opening = flows::Opening { key, header, reply };
                self.flows.open(opening, &mut self.stack, &self.shared, now);
            }
            Signal::OpenTunnel { to, reply } => {
                if let Some(command) = self.peers.wanted(to, reply, &self.session, &self.shared) {
                    self.stack.handle(Input::Command(command), now);
                }
            }
            Signal::PeerHeld => self.peers.look(),
            Signal::Datagram { peer, inbox, bytes } => {
                peer.datagram_sent();
                if self.stack.send_datagram(&peer.key, bytes.clone(), now) == Err(StreamError::TooLong) {
                    inbox.give_back(&bytes);
                }
            }
            Signal::Status(reply) => {
                let _ = reply.send(self.stack.node().status());
            }
            Signal::Stop(reply) => self.leave(reply, now),
        }
        self.keep_warm(now);
    }

    /// Tells the node who is used, where that has changed.
    fn keep_warm(&mut self, now: Time) {
        if self.flows.take_changed() {
            self.peers.look();
        }
        while let Some(command) = self.peers.changed(self.flows.by_peer()) {
            self.stack.handle(Input::Command(command), now);
        }
    }

    fn look_at_interfaces(&mut self, now: Time) -> bool {
        self.interfaces_at = now + INTERFACES_EVERY;
        self.flows.relax(&mut self.stack, now);
        let found = self.network.interfaces();
        let changed = found != self.interfaces;
        if changed {
            for link in self.links.addresses_changed(&self.interfaces, &found, now) {
                self.stack.handle(Input::LinkDown { link }, now);
            }
            self.interfaces.clone_from(&found);
            self.stack.handle(Input::Command(NodeCommand::Interfaces(found)), now);
        }
        changed
    }

    fn network_changed(&mut self, now: Time) {
        self.streams.network_changed();
        self.stack.handle(Input::Command(NodeCommand::NetworkChanged), now);
    }

    fn keep_time(&mut self, now: Time) -> bool {
        let due = self.stack.deadline().is_some_and(|(at, _)| at <= now);
        if due {
            self.stack.handle(Input::Deadline, now);
        }
        if self.interfaces_at <= now && self.leaving.is_none() && self.look_at_interfaces(now) {
            self.network_changed(now);
        }
        due
    }

    /// Does all that the stack asks; true if more than the budget was to be done.
    fn drain(&mut self, cx: &mut Context<'_>, now: Time) -> bool {
        let mut more = false;
        for sent in 0.. {
            while let Some(output) = self.stack.poll() {
                self.output(output, now);
            }
            if !self.links.flush(cx, &mut self.batch) {
                break;
            }
            if sent == BATCHES {
                more = true;
                break;
            }
            if !self.stack.poll_batch(&mut self.batch, now) {
                // The last batch may have made room for writers, who are told by an output.
                let Some(output) = self.stack.poll() else { break };
                self.output(output, now);
            }
        }
        while let Some((link, to)) = self.links.next_unreachable() {
            self.stack.handle(Input::Unreachable { link, to }, now);
            more = true;
        }
        let stack = &mut self.stack;
        more |= self.streams.flush(cx, |input| stack.handle(input, now));
        while let Some(output) = self.stack.poll() {
            self.output(output, now);
            more = true;
        }
        more
    }

    fn output(&mut self, output: Output<StackEvent>, now: Time) {
        match output {
            Output::Transmit(transmit) => self.links.transmit(transmit),
            Output::Open { stream, target } => self.streams.open(stream, target),
            Output::Write { stream, bytes } => self.streams.write(stream, bytes),
            Output::Close { stream } => self.streams.close(stream),
            Output::Resolve { name } => self.streams.resolve(name),
            Output::Bind { link } => self.links.open(link, now),
            Output::Unbind { link } => self.links.close(link),
            Output::Event(event) => self.event(event, now),
        }
    }

    fn event(&mut self, event: StackEvent, now: Time) {
        match event {
            StackEvent::Node(event) => self.node_event(event, now),
            StackEvent::Incoming { peer, flow } => {
                self.flows.incoming(flow, peer, now);
                self.readable(flow, now);
                self.keep_warm(now);
            }
            StackEvent::Readable(flow) => self.readable(flow, now),
            StackEvent::Writable(flow) => {
                self.flows.writable(flow, &mut self.stack);
                self.keep_warm(now);
            }
            StackEvent::Openable(peer) => {
                self.flows.openable(&peer, &mut self.stack, &self.shared, now);
                self.keep_warm(now);
            }
            StackEvent::Delivered(flow) => self.flows.delivered(flow),
            StackEvent::Datagrams(peer) => {
                while let Some(bytes) = self.stack.receive_datagram(&peer) {
                    self.peers.deliver(&peer, bytes);
                }
            }
        }
    }

    fn readable(&mut self, flow: crate::stack::FlowId, now: Time) {
        let Some((peer, header, pipe)) = self.flows.readable(flow, &mut self.stack) else { return };
        let Some(handle) = self.peers.handle(&peer, &self.shared) else { return };
        let stream = crate::handle::TunnelStream::new(self.shared.clone(), pipe);
        let incoming = crate::handle::Incoming { peer: handle, header, stream };
        if let Err(refused) = self.incoming.try_send(incoming) {
            // Nobody accepts: as a full backlog does, refuse.
            refused.into_inner().stream.reset(proto_core::stream::CODE_REFUSED);
        }
        self.keep_warm(now);
    }

    fn node_event(&mut self, event: NodeEvent, now: Time) {
        if let NodeEvent::Session(state) = &event {
            self.session.clone_from(state);
            crate::handle::shared::lock(&self.shared.session).clone_from(state);
        }
        if let NodeEvent::Portmap(request) = event {
            return self.router.request(request, &self.network);
        }
        self.peers.note(&event, &self.shared, now);
        if let NodeEvent::PeerDown { key, .. } = &event {
            self.flows.peer_down(key);
        }
        self.keep_warm(now);
        let _ = self.events.send(event);
    }

    fn leave(&mut self, reply: Option<oneshot::Sender<()>>, now: Time) {
        self.leavers.extend(reply);
        if self.leaving.is_none() {
            self.leaving = Some(now + LEAVING);
            self.stack.handle(Input::Command(NodeCommand::Stop), now);
        }
    }

    /// Whether the node has left and said all its goodbyes, or has had time enough.
    fn has_left(&self, now: Time) -> bool {
        let Some(until) = self.leaving else { return false };
        let idle = self.streams.is_idle() && self.router.is_idle();
        now >= until || (self.session == SessionState::Stopped && idle)
    }

    /// Sets the timer; ready if it is due already.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.stack.deadline().map_or(self.interfaces_at, |(at, _)| at.min(self.interfaces_at));
        let deadline = match (self.leaving, self.links.deadline()) {
            (Some(until), _) => until.min(deadline),
            (None, Some(bind)) => bind.min(deadline),
            (None, None) => deadline,
        };
        let instant = self.clock.instant(deadline);
        if self.timer.deadline() != instant {
            self.timer.as_mut().reset(instant);
        }
        self.timer.as_mut().poll(cx)
    }
}

impl<N: Network, W: WgEngine> Drop for Driver<N, W> {
    /// Whoever waits for the node is let go, also after a panic.
    fn drop(&mut self) {
        self.shared.stop();
        self.flows.fail_all();
        self.peers.stop();
    }
}

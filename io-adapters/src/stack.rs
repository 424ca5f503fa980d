//! The data plane around the node machine, without sockets, clocks or tasks: WireGuard engine, streams inside
//! the tunnel, relayed packets. The async driver runs it in production and in lane 2 of the simulation, lane 1
//! calls it directly.
//!
//! How to drive it: give it what happened ([`Stack::handle`], [`Stack::datagram`]), say
//! [`Stack::end_of_batch`], then drain [`Stack::poll`], then [`Stack::poll_batch`], then [`Stack::poll`] again,
//! and wait for the network, a command or [`Stack::deadline`]. Stream calls ([`Stack::write`] and the like)
//! may come at any time; drain after them too.
//!
//! Data travels in three ways. Sealed packets to an address leave by [`Stack::poll_batch`], many equal
//! segments a call, ready for one GSO send. Sealed packets to a relay leave by [`Stack::poll`] as
//! [`Output::Write`], whole SendPacket frames, as long as the stream has credit
//! ([`Input::StreamWritable`]). Everything that is not data goes through the node machine.

use crate::pcap::Tap;
use crate::streams::{Mux, MuxEvent, QuicConfig};
use bytes::BytesMut;
use proto_core::id::StreamId;
use proto_core::key::NodePublic;
use proto_core::machine::{Input, Machine, Output};
use proto_core::node::{Node, NodeCommand, NodeConfig, NodeEvent};
use proto_core::route::{Route, Via};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time, earliest};
use proto_core::wg::WgEngine;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

mod batch;
mod calls;
mod inner;
mod receive;
mod recent;
mod relay;
mod send;
mod tunnel;

pub use batch::{BATCH_BYTES, BATCH_SEGMENTS, SendBatch};

use recent::Recent;
use relay::{Regions, RelayStream};
use tunnel::Tunnel;

/// What a stack is made of.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// The node machine's own configuration.
    pub node: NodeConfig,
    /// What the kernel keeps of datagrams that nobody has read yet, in bytes: the smallest `SO_RCVBUF`
    /// obtained among the node's sockets. Peers are told, so that near zero round-trip time they never keep
    /// more in flight than half of it. See [`Stack::set_receive_buffer`].
    pub receive_buffer: usize,
}

/// A stream inside a tunnel, named by this stack; never used again for another stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowId(pub u64);

/// What a stack tells its owner.
#[derive(Clone, PartialEq, Debug)]
pub enum StackEvent {
    /// A word of the node machine.
    Node(NodeEvent),
    /// A peer opened a stream to us. Nothing of it has been read: the first bytes are its header
    /// (`proto_core::stream`).
    Incoming {
        /// Who.
        peer: NodePublic,
        /// The stream.
        flow: FlowId,
    },
    /// A read that would have blocked may give something now. Comes once for each such read.
    Readable(FlowId),
    /// A write that would have blocked may take something now. Comes once for each such write.
    Writable(FlowId),
    /// An open that would have blocked ([`crate::streams::StreamError::TooMany`]) may work now.
    Openable(NodePublic),
    /// Everything written to a finished stream has arrived.
    Delivered(FlowId),
    /// Datagrams of this peer can be read.
    Datagrams(NodePublic),
}

/// The data plane of one node.
pub struct Stack<W> {
    node: Node,
    engine: W,
    us: NodePublic,
    quic: Arc<QuicConfig>,
    seed: Seed,
    /// The moment of `Time::ZERO` for quinn-proto, whose time cannot be made otherwise.
    base: Instant,
    now: Time,
    tunnels: BTreeMap<NodePublic, Tunnel>,
    slots: BTreeMap<u32, NodePublic>,
    next_slot: u32,
    timers: Timers,
    /// Peers whose QUIC has something to settle.
    dirty: Vec<NodePublic>,
    /// Peers that may have something to send.
    sendable: BTreeSet<NodePublic>,
    /// Peers with activity to report.
    active: Vec<NodePublic>,
    /// The peer whose turn it was last.
    turn: Option<NodePublic>,
    relays: BTreeMap<StreamId, RelayStream>,
    regions: Regions,
    out: VecDeque<Output<StackEvent>>,
    /// Batches that are to be sent before any other: copies along a second way.
    copies: VecDeque<SendBatch>,
    scratch: Scratch,
    counters: Counters,
    tap: Option<Tap>,
}

/// When each peer's QUIC is due.
type Timers = BTreeSet<(Time, NodePublic)>;

/// Buffers that are used again and again.
#[derive(Default)]
struct Scratch {
    /// Where received packets are opened: cut into pieces that QUIC keeps.
    slab: BytesMut,
    /// QUIC packets, one after another.
    plain: Vec<u8>,
    /// One inner packet.
    inner: Vec<u8>,
    /// One sealed packet.
    sealed: Vec<u8>,
}

/// What was dropped, for whoever looks for a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Datagrams that the WireGuard engine refused: not for us, not authentic, replays.
    pub refused: u64,
    /// Inner packets that were not from the sealing peer to this node's streams.
    pub foreign: u64,
    /// Packets that could not be sealed or had no way to go.
    pub unsent: u64,
    /// Packets sent once more through a relay, when a direct path was found doubtful.
    pub again: u64,
}

impl<W: WgEngine> Stack<W> {
    /// A stack that waits for [`NodeCommand::Start`]. `engine` has the node's key and no peers.
    #[must_use]
    pub fn new(config: StackConfig, engine: W, seed: &Seed, now: Time) -> Self {
        let secret = Seed::new(config.node.node_key.to_bytes()).fork("warren streams");
        let us = config.node.node_key.public();
        let node = Node::new(config.node, seed.fork("node"), now);
        Self {
            quic: Arc::new(QuicConfig::new(node.boot_id(), config.receive_buffer, &secret)),
            node,
            engine,
            us,
            seed: seed.fork("streams"),
            base: Instant::now(),
            now,
            tunnels: BTreeMap::new(),
            slots: BTreeMap::new(),
            next_slot: 0,
            timers: Timers::new(),
            dirty: Vec::new(),
            sendable: BTreeSet::new(),
            active: Vec::new(),
            turn: None,
            relays: BTreeMap::new(),
            regions: Regions::new(),
            out: VecDeque::new(),
            copies: VecDeque::new(),
            scratch: Scratch::default(),
            counters: Counters::default(),
            tap: None,
        }
    }

    /// The same stack, which writes what travels in its tunnels into a capture.
    #[must_use]
    pub fn tapped(self, tap: Option<Tap>) -> Self {
        Self { tap, ..self }
    }

    /// What happened to a stream, a name, a link, or what the owner wants. Datagrams go to
    /// [`Stack::datagram`]; [`Input::Activity`] is the stack's own business and ignored here.
    pub fn handle(&mut self, input: Input<'_, NodeCommand>, now: Time) {
        let now = self.clock(now);
        match input {
            Input::Activity(_) => {}
            Input::StreamBytes { stream, bytes } if self.relays.contains_key(&stream) => {
                self.relay_bytes(stream, bytes, now);
            }
            Input::StreamWritable { stream, credit } => {
                if let Some(relay) = self.relays.get_mut(&stream) {
                    relay.set_credit(credit);
                    self.wake_region(stream);
                }
                self.tell(input, now);
            }
            Input::StreamClosed { stream, .. } => {
                self.forget_relay(stream);
                self.tell(input, now);
            }
            Input::Deadline => self.expire(now),
            other => self.tell(other, now),
        }
    }

    /// A relay's stream is over. Another may have taken its place in the region before.
    fn forget_relay(&mut self, stream: StreamId) {
        let region = self.relays.remove(&stream).and_then(|relay| relay.region);
        if let Some(region) = region.filter(|region| self.regions.get(region) == Some(&stream)) {
            self.regions.remove(&region);
        }
    }

    /// A word to the node machine, and what it says to that.
    fn tell(&mut self, input: Input<'_, NodeCommand>, now: Time) {
        self.node.handle(input, now);
        self.drain_node(now);
    }

    fn drain_node(&mut self, now: Time) {
        while let Some(output) = self.node.poll() {
            let output = match output {
                Output::Event(event) => {
                    self.on_node_event(&event, now);
                    Output::Event(StackEvent::Node(event))
                }
                Output::Open { stream, target } => {
                    if target.protocol != proto_core::machine::StreamProtocol::Control {
                        self.relays.insert(stream, RelayStream::new());
                    }
                    Output::Open { stream, target }
                }
                Output::Close { stream } => {
                    self.forget_relay(stream);
                    Output::Close { stream }
                }
                Output::Write { stream, bytes } => Output::Write { stream, bytes },
                Output::Transmit(transmit) => Output::Transmit(transmit),
                Output::Resolve { name } => Output::Resolve { name },
                Output::Bind { link } => Output::Bind { link },
                Output::Unbind { link } => Output::Unbind { link },
            };
            self.out.push_back(output);
        }
    }

    /// Does with `event` what is done when the node machine says it: for benches without a coordinator.
    #[doc(hidden)]
    pub fn inject(&mut self, event: &NodeEvent, now: Time) {
        let now = self.clock(now);
        self.on_node_event(event, now);
    }

    fn on_node_event(&mut self, event: &NodeEvent, now: Time) {
        match event {
            NodeEvent::PeerUp { key, boot_id, .. } => self.peer_up(*key, *boot_id, now),
            NodeEvent::PeerDown { key, .. } => self.peer_down(key, now),
            NodeEvent::Route { key, route } => self.on_route(key, *route, now),
            NodeEvent::Wg { key, command } => self.on_wg(key, *command, now),
            NodeEvent::RelayUp { region, stream } => {
                if let Some(relay) = self.relays.get_mut(stream) {
                    relay.region = Some(*region);
                    self.regions.insert(*region, *stream);
                    self.wake_region(*stream);
                }
            }
            NodeEvent::RelayDown { region, .. } => {
                if let Some(relay) = self.regions.remove(region).and_then(|s| self.relays.get_mut(&s)) {
                    relay.region = None;
                }
            }
            _ => {}
        }
    }

    fn peer_up(&mut self, key: NodePublic, boot_id: u64, now: Time) {
        self.engine.add_peer(key);
        let instant = self.instant(now);
        if let Some(tunnel) = self.tunnels.get_mut(&key) {
            tunnel.mux.restarted(boot_id, instant);
            self.mark(&key);
            return;
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        let (ours, theirs) = (self.us.inner_address(), key.inner_address());
        let seed = self.seed.fork_bytes(&key.0);
        let tunnel = Tunnel {
            mux: Mux::new(&self.quic, &seed, (ours, theirs), self.us < key),
            slot,
            route: Route::default(),
            session: false,
            holding: false,
            dirty: false,
            timer: None,
            header_out: inner::template(ours, theirs),
            header_in: inner::template(theirs, ours),
            activity: Vec::new(),
            recent: Recent::default(),
        };
        self.tunnels.insert(key, tunnel);
        self.slots.insert(slot, key);
    }

    fn peer_down(&mut self, key: &NodePublic, now: Time) {
        self.engine.remove_peer(key);
        let Some(mut tunnel) = self.tunnels.remove(key) else { return };
        self.slots.remove(&tunnel.slot);
        self.sendable.remove(key);
        if let Some(at) = tunnel.timer {
            self.timers.remove(&(at, *key));
        }
        tunnel.mux.lose_all(self.instant(now));
        collect(&mut self.out, *key, &mut tunnel);
    }

    fn on_route(&mut self, key: &NodePublic, route: Route, now: Time) {
        let instant = self.instant(now);
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let before = std::mem::replace(&mut tunnel.route, route);
        let moved = before.primary.is_some() && route.primary != before.primary;
        if moved && route.primary.is_some() {
            tunnel.mux.path_changed(instant);
        }
        self.mark(key);
        self.send_again(key, (before, route), now);
    }

    /// The relay's stream takes something again: whoever travels by it may send.
    fn wake_region(&mut self, stream: StreamId) {
        let Some(region) = self.relays.get(&stream).and_then(|relay| relay.region) else { return };
        let via = Some(Via::Relay(region));
        self.sendable.extend(self.tunnels.iter().filter(|(_, t)| t.route.primary == via).map(|(k, _)| *k));
    }

    /// Fires what is due.
    fn expire(&mut self, now: Time) {
        self.tell(Input::Deadline, now);
        self.run_engine_timers(now);
        while let Some(&(at, key)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let instant = self.instant(now);
            let Some(tunnel) = self.tunnels.get_mut(&key) else { continue };
            tunnel.timer = None;
            tunnel.mux.expire(instant);
            self.mark(&key);
        }
        self.settle(now);
    }

    /// Nothing more has been received for now: reports activity to the core, lets QUIC answer.
    pub fn end_of_batch(&mut self, now: Time) {
        let now = self.clock(now);
        self.report(now);
        self.settle(now);
    }

    /// The next output that is not bulk data: drain it to `None` after every call that gives something.
    pub fn poll(&mut self) -> Option<Output<StackEvent>> {
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        let now = self.now;
        self.settle(now);
        self.fill_relays(now);
        self.report(now);
        self.out.pop_front()
    }

    /// When to call [`Stack::handle`] with [`Input::Deadline`], and why.
    pub fn deadline(&self) -> Option<(Time, &'static str)> {
        let streams = self.timers.first().map(|&(at, _)| (at, "streams"));
        let engine = self.engine.next_tick().map(|at| (at, "wireguard"));
        earliest(earliest(self.node.deadline(), engine), streams)
    }

    /// The node machine, to ask it for its status.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What was dropped so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The sockets changed: what the smallest of them keeps unread, in bytes (`SO_RCVBUF` as obtained).
    /// Connections made from now on tell their peers.
    pub fn set_receive_buffer(&mut self, bytes: usize) {
        Arc::make_mut(&mut self.quic).set_receive_buffer(bytes);
        for tunnel in self.tunnels.values_mut() {
            tunnel.mux.set_config(&self.quic);
        }
    }

    fn clock(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        self.now
    }

    fn instant(&self, now: Time) -> Instant {
        self.base + Duration::from_micros(now.as_micros())
    }

    /// A peer's QUIC has something to settle.
    fn mark(&mut self, key: &NodePublic) {
        if let Some(tunnel) = self.tunnels.get_mut(key)
            && !std::mem::replace(&mut tunnel.dirty, true)
        {
            self.dirty.push(*key);
        }
    }

    /// Settles the QUIC of every peer that was touched: its events come out, its timer is noted.
    fn settle(&mut self, now: Time) {
        let instant = self.instant(now);
        while let Some(key) = self.dirty.pop() {
            let Some(tunnel) = self.tunnels.get_mut(&key) else { continue };
            tunnel.dirty = false;
            tunnel.mux.settle(instant);
            collect(&mut self.out, key, tunnel);
            note_timer(&mut self.timers, self.base, key, tunnel);
            self.sendable.insert(key);
        }
    }
}

/// Passes on what happened to a peer's streams.
fn collect(out: &mut VecDeque<Output<StackEvent>>, key: NodePublic, tunnel: &mut Tunnel) {
    let slot = tunnel.slot;
    while let Some(event) = tunnel.mux.event() {
        out.push_back(Output::Event(match event {
            MuxEvent::Incoming(n) => StackEvent::Incoming { peer: key, flow: FlowId::new(slot, n) },
            MuxEvent::Readable(n) => StackEvent::Readable(FlowId::new(slot, n)),
            MuxEvent::Writable(n) => StackEvent::Writable(FlowId::new(slot, n)),
            MuxEvent::Delivered(n) => StackEvent::Delivered(FlowId::new(slot, n)),
            MuxEvent::Openable => StackEvent::Openable(key),
            MuxEvent::Datagrams => StackEvent::Datagrams(key),
        }));
    }
}

/// Keeps the list of timers true to the peer's QUIC.
fn note_timer(timers: &mut Timers, base: Instant, key: NodePublic, tunnel: &mut Tunnel) {
    // Rounded up: a timer that is asked a fraction of a microsecond too early says nothing.
    let rounded = |at: Instant| at.saturating_duration_since(base) + Duration::from_nanos(999);
    let due = tunnel.mux.timeout().map(|at| Time::ZERO + rounded(at));
    if due == tunnel.timer {
        return;
    }
    if let Some(at) = tunnel.timer {
        timers.remove(&(at, key));
    }
    tunnel.timer = due;
    timers.extend(due.map(|at| (at, key)));
}

impl FlowId {
    /// Bits of the name that count one peer's streams.
    const LOCAL_BITS: u32 = 40;

    const fn new(slot: u32, local: u64) -> Self {
        Self(((slot as u64) << Self::LOCAL_BITS) | local)
    }

    const fn slot(self) -> u32 {
        (self.0 >> Self::LOCAL_BITS) as u32
    }

    const fn local(self) -> u64 {
        self.0 & ((1 << Self::LOCAL_BITS) - 1)
    }
}

#[cfg(test)]
pub(crate) mod tests;

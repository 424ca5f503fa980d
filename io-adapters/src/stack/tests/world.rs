//! Two stacks and a network between them, in simulated time.

use super::*;
use proto_core::wire::derp;
use std::collections::BTreeMap;

/// A tunnel that is always up: the sealing peer's key in the clear, so that tests can forge.
pub(crate) struct TestWg {
    us: NodePublic,
    peers: Vec<NodePublic>,
}

const HEADER: usize = 16;

impl TestWg {
    pub(super) fn seal_as(from: NodePublic, inner: &[u8]) -> Vec<u8> {
        let mut out = vec![4, 0, 0, 0];
        out.extend_from_slice(&from.0[..12]);
        out.extend(inner.iter().map(|b| b ^ 0x55));
        out.extend_from_slice(&[0; 16]);
        out
    }
}

impl WgEngine for TestWg {
    fn add_peer(&mut self, peer: NodePublic) {
        self.peers.push(peer);
    }
    fn remove_peer(&mut self, peer: &NodePublic) {
        self.peers.retain(|p| p != peer);
    }
    fn seal(&mut self, _peer: &NodePublic, inner: &[u8], out: &mut [u8], _now: Time) -> Sealed {
        let sealed = Self::seal_as(self.us, inner);
        out[..sealed.len()].copy_from_slice(&sealed);
        Sealed::Data(sealed.len())
    }
    fn open(&mut self, datagram: &[u8], out: &mut [u8], _now: Time) -> Opened {
        let Some(peer) = self.peers.iter().find(|p| p.0[..12] == datagram[4..HEADER]) else {
            return Opened::Refused("stranger");
        };
        let inner = &datagram[HEADER..datagram.len() - 16];
        for (to, from) in out.iter_mut().zip(inner) {
            *to = from ^ 0x55;
        }
        Opened::Data(*peer, inner.len())
    }
    fn flush(&mut self, _peer: &NodePublic, _out: &mut [u8], _now: Time) -> Option<usize> {
        None
    }
    fn initiate(&mut self, _peer: &NodePublic, _out: &mut [u8], _now: Time) -> Option<usize> {
        None
    }
    fn reset(&mut self, _peer: &NodePublic) {}
    fn tick(&mut self, _out: &mut [u8], _now: Time) -> Option<(NodePublic, usize)> {
        None
    }
    fn next_tick(&self) -> Option<Time> {
        None
    }
}

/// What the network does; chances in thousandths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    pub(super) loss: u32,
    pub(super) duplicate: u32,
    pub(super) delay_ms: u64,
    pub(super) jitter_ms: u64,
    /// The longest datagram that arrives.
    pub(super) longest: usize,
}

impl Net {
    /// Ethernet's 1,500 bytes less IPv6's header and UDP's; otherwise without a fault.
    pub(crate) const PERFECT: Self =
        Self { loss: 0, duplicate: 0, delay_ms: 10, jitter_ms: 0, longest: 1_452 };
}

pub(super) struct Packet {
    pub(super) to: usize,
    pub(super) bytes: Vec<u8>,
    relayed: bool,
}

pub(crate) struct World {
    pub(crate) stacks: [Stack<TestWg>; 2],
    pub(crate) now: Time,
    pub(super) net: Net,
    pub(super) in_flight: BTreeMap<(Time, u64), Packet>,
    pub(super) sent: u64,
    /// Time, sender and length of every packet, folded.
    pub(super) trace: u64,
    pub(super) relay_credit: Option<usize>,
    pub(super) relay_written: usize,
    /// The longest datagram that arrived.
    pub(super) longest: usize,
    events: [Vec<StackEvent>; 2],
    secrets: [NodeSecret; 2],
    boots: [u64; 2],
    rng: Rng,
}

const LINK: LinkId = LinkId(1);
const RELAY_STREAM: StreamId = StreamId(500);

fn address(of: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + of as u8], 1_000))
}

fn stack(secret: &NodeSecret, seed: u64) -> Stack<TestWg> {
    let node = NodeConfig {
        node_key: secret.clone(),
        kind: NodeKind::Client,
        control: None,
        build: "test".into(),
        direct_forbidden: None,
        guess_ports: true,
        map_ports: false,
        pins: BTreeMap::new(),
        relay: None,
        relay_map: None,
    };
    let engine = TestWg { us: secret.public(), peers: Vec::new() };
    Stack::new(StackConfig { node, receive_buffer: 4 << 20 }, engine, &Seed::from_u64(seed), Time::ZERO)
}

impl World {
    pub(crate) fn new(net: Net, seed: u64) -> Self {
        let secrets = [1, 2].map(|n| NodeSecret::generate(&Seed::from_u64(n)));
        let stacks = [0, 1].map(|i| stack(&secrets[i], seed.wrapping_mul(2).wrapping_add(i as u64)));
        let boots = [stacks[0].node.boot_id(), stacks[1].node.boot_id()];
        let mut world = Self {
            stacks,
            now: Time::from_secs(1),
            net,
            in_flight: BTreeMap::new(),
            sent: 0,
            trace: 0,
            relay_credit: None,
            relay_written: 0,
            longest: 0,
            events: [Vec::new(), Vec::new()],
            secrets,
            boots,
            rng: Seed::from_u64(seed).fork("net").rng(),
        };
        for us in 0..2 {
            world.peer_up(us, 1 - us);
            world.route(us, Via::Direct { link: LINK, addr: address(1 - us) });
        }
        world
    }

    /// With one stream that both ends know, on which "hello" was read.
    pub(super) fn with_stream(net: Net, seed: u64) -> (Self, FlowId, FlowId) {
        let mut world = Self::new(net, seed);
        let (ours, theirs) = world.another_stream();
        (world, ours, theirs)
    }

    pub(super) fn another_stream(&mut self) -> (FlowId, FlowId) {
        let (peer, now) = (self.key(1), self.now);
        let ours = self.stacks[0].open(&peer, now).unwrap();
        self.stacks[0].write(ours, b"hello").unwrap();
        self.run(Duration::from_millis(500));
        let theirs = self.incoming(1).unwrap();
        let mut read = Vec::new();
        assert_eq!(read_all(&mut self.stacks[1], theirs, &mut read), Ok(false));
        assert_eq!(read, b"hello");
        (ours, theirs)
    }

    pub(crate) fn key(&self, of: usize) -> NodePublic {
        self.secrets[of].public()
    }

    /// Tells `us` that `peer` is there, as the coordinator would.
    pub(super) fn peer_up(&mut self, us: usize, peer: usize) {
        let event =
            NodeEvent::PeerUp { id: NodeId("peer".into()), key: self.key(peer), boot_id: self.boots[peer] };
        self.stacks[us].inject(&event, self.now);
    }

    fn route(&mut self, us: usize, via: Via) {
        let route = Route { generation: 1, primary: Some(via), duplicate: None };
        let event = NodeEvent::Route { key: self.key(1 - us), route };
        self.stacks[us].inject(&event, self.now);
    }

    pub(super) fn restart(&mut self, who: usize, seed: u64) {
        self.stacks[who] = stack(&self.secrets[who], seed);
        self.boots[who] = self.stacks[who].node.boot_id();
        self.peer_up(who, 1 - who);
        self.route(who, Via::Direct { link: LINK, addr: address(1 - who) });
    }

    /// From now on both travel through a relay.
    pub(super) fn relayed(&mut self, region: RegionId) {
        self.connect(region);
        for us in 0..2 {
            self.route(us, Via::Relay(region));
        }
    }

    /// From now on both send a copy through a relay.
    pub(super) fn doubted(&mut self, region: RegionId) {
        self.connect(region);
        for us in 0..2 {
            let primary = Some(Via::Direct { link: LINK, addr: address(1 - us) });
            let route = Route { generation: 2, primary, duplicate: Some(Via::Relay(region)) };
            let event = NodeEvent::Route { key: self.key(1 - us), route };
            self.stacks[us].inject(&event, self.now);
        }
    }

    fn connect(&mut self, region: RegionId) {
        for us in 0..2 {
            self.stacks[us].relays.insert(RELAY_STREAM, RelayStream::new());
            self.stacks[us].inject(&NodeEvent::RelayUp { region, stream: RELAY_STREAM }, self.now);
        }
    }

    pub(super) fn grant(&mut self, credit: usize) {
        for us in 0..2 {
            self.stacks[us].handle(Input::StreamWritable { stream: RELAY_STREAM, credit }, self.now);
        }
    }

    /// The next stream that was opened to `us`.
    pub(crate) fn incoming(&mut self, us: usize) -> Option<FlowId> {
        self.collect(us);
        let at = self.events[us].iter().position(|e| matches!(e, StackEvent::Incoming { .. }))?;
        let StackEvent::Incoming { flow, .. } = self.events[us].remove(at) else { return None };
        Some(flow)
    }

    pub(crate) fn saw(&mut self, us: usize, event: &StackEvent) -> bool {
        self.collect(us);
        self.events[us].contains(event)
    }

    pub(super) fn deliver(&mut self, to: usize, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.stacks[to].datagram(LINK, address(1 - to), &mut bytes, self.now);
        self.stacks[to].end_of_batch(self.now);
    }

    /// Takes everything that `us` wants to send or say.
    pub(super) fn collect(&mut self, us: usize) {
        let mut batch = SendBatch::new();
        loop {
            let mut idle = true;
            while let Some(output) = self.stacks[us].poll() {
                idle = false;
                match output {
                    Output::Event(event) => self.events[us].push(event),
                    Output::Transmit(t) => self.send(us, t.bytes, false),
                    Output::Write { bytes, .. } => self.relay(us, &bytes),
                    _ => {}
                }
            }
            while self.stacks[us].poll_batch(&mut batch, self.now) {
                idle = false;
                let lengths: Vec<_> = batch.segments().map(<[u8]>::len).collect();
                assert!(lengths.iter().rev().skip(1).all(|&n| n == batch.segment()), "{lengths:?}");
                for packet in batch.segments().map(<[u8]>::to_vec).collect::<Vec<_>>() {
                    self.send(us, packet, false);
                }
            }
            if idle {
                return;
            }
        }
    }

    fn relay(&mut self, us: usize, bytes: &[u8]) {
        if us == 0 {
            self.relay_written += bytes.len();
        }
        if let Some(credit) = &mut self.relay_credit {
            *credit = credit.saturating_sub(bytes.len());
            let credit = *credit;
            self.stacks[us].handle(Input::StreamWritable { stream: RELAY_STREAM, credit }, self.now);
        }
        let mut rest = bytes;
        while let Ok(Some((derp::Frame::SendPacket { bytes, .. }, n))) = derp::decode(rest) {
            self.send(us, bytes.to_vec(), true);
            rest = &rest[n..];
        }
    }

    fn send(&mut self, us: usize, bytes: Vec<u8>, relayed: bool) {
        self.sent += 1;
        for word in [self.now.as_micros(), us as u64, bytes.len() as u64] {
            self.trace = self.trace.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word;
        }
        if !relayed && (bytes.len() > self.net.longest || self.rng.permille(self.net.loss)) {
            return;
        }
        self.longest = self.longest.max(bytes.len());
        let copies = 1 + u64::from(!relayed && self.rng.permille(self.net.duplicate));
        for copy in 0..copies {
            let jitter = if relayed { 0 } else { self.rng.range(0..self.net.jitter_ms * 1_000 + 1) };
            let at = self.now + Duration::from_micros(self.net.delay_ms * 1_000 + jitter);
            let packet = Packet { to: 1 - us, bytes: bytes.clone(), relayed };
            self.in_flight.insert((at, self.sent * 2 + copy), packet);
        }
    }

    /// Whatever happens next: arrivals of one moment, or timers.
    pub(super) fn step(&mut self) {
        for us in 0..2 {
            self.collect(us);
        }
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
        let timer = (0..2).filter_map(|us| self.stacks[us].deadline()).map(|(at, _)| at).min();
        let Some(next) = arrival.into_iter().chain(timer).min() else {
            self.now += Duration::from_secs(3_600);
            return;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.in_flight.first_entry().filter(|e| e.key().0 <= self.now) {
            let packet = entry.remove();
            let mut bytes = packet.bytes;
            if packet.relayed {
                let from = self.key(1 - packet.to);
                let mut frame = derp::packet_header(derp::FrameKind::RecvPacket, &from, bytes.len()).to_vec();
                frame.append(&mut bytes);
                let input = Input::StreamBytes { stream: RELAY_STREAM, bytes: &frame };
                self.stacks[packet.to].handle(input, self.now);
            } else {
                self.stacks[packet.to].datagram(LINK, address(1 - packet.to), &mut bytes, self.now);
            }
        }
        for us in 0..2 {
            self.stacks[us].end_of_batch(self.now);
            self.stacks[us].handle(Input::Deadline, self.now);
            self.collect(us);
        }
    }

    /// Runs for this long.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            for us in 0..2 {
                self.collect(us);
            }
            let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
            let timer = (0..2).filter_map(|us| self.stacks[us].deadline()).map(|(at, _)| at).min();
            match arrival.into_iter().chain(timer).min() {
                Some(at) if at <= until => self.step(),
                _ => break,
            }
        }
        self.now = until;
    }
}

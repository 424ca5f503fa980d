//! Two peers, two NATs, a relay and the network between, in memory.

use super::super::*;
use crate::id::NodeId;
use crate::key::NodeSecret;
use crate::machine::Transmit;
use crate::wire::control::FEATURE_OPENED;
use core::net::IpAddr;

pub(super) const LINK: LinkId = LinkId(4);
pub(super) const REGION: RegionId = RegionId(9);
const DATA_EVERY: u64 = 20_000;

/// What stands between a peer and the internet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Before {
    /// Nothing: its own address is public.
    Nothing,
    /// One mapping, and only those let in that were sent to (a home router).
    Restricted,
    /// As `Restricted`, but a stranger's packet that comes first takes the port (Linux with open INPUT).
    Poisonable,
    /// A mapping for each destination.
    Symmetric,
    /// No UDP.
    Blocked,
}

#[derive(Debug, Default)]
struct Nat {
    mapped: BTreeMap<SocketAddr, u16>,
    opened: BTreeSet<(u16, SocketAddr)>,
    strangers: BTreeSet<(u16, SocketAddr)>,
    last_port: u16,
}

pub(super) struct Side {
    pub(super) peer: Peer,
    pub(super) key: NodePublic,
    pub(super) before: Before,
    pub(super) bound: SocketAddr,
    pub(super) public: SocketAddr,
    nat: Nat,
    /// When it became direct first.
    pub(super) direct: Option<Time>,
    pub(super) stories: Vec<(Time, PathStory)>,
    pub(super) routes: Vec<(Time, Route)>,
    /// When packets of the machine left.
    pub(super) sent: Vec<Time>,
    /// When words through the relay left.
    pub(super) words: Vec<Time>,
    /// When data arrived, and how.
    pub(super) data: Vec<(Time, Via)>,
}

enum Packet {
    Udp { from: SocketAddr, bytes: Vec<u8> },
    Relayed { bytes: Vec<u8> },
    Data { via: Via },
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) sides: [Side; 2],
    queue: BTreeMap<(Time, u64), (usize, Packet)>,
    seq: u64,
    rng: Rng,
    /// One way, direct and to the other side through the relay.
    pub(super) delay: Duration,
    pub(super) relay_delay: Duration,
    /// Microseconds of jitter a leg.
    pub(super) jitter: u64,
    /// Permille of direct packets lost, each way.
    pub(super) loss: u32,
    /// Direct packets from this side vanish.
    pub(super) cut: [bool; 2],
    /// Direct packets longer than a short probe vanish.
    pub(super) narrow: bool,
    /// Permille of words through the relay that vanish.
    pub(super) deaf_words: u32,
    /// Which sides send data every 20 ms.
    pub(super) data: [bool; 2],
    next_data: Time,
}

fn side(n: u8, before: Before) -> (PeerConfig, NodeInfo, SocketAddr, SocketAddr) {
    let seed = Seed::from_u64(u64::from(n));
    let disco = DiscoSecret::generate(&seed);
    let us = NodeSecret::generate(&seed).public();
    let public: SocketAddr = format!("198.51.{n}.1:4{n}00").parse().unwrap();
    let bound: SocketAddr = match before {
        Before::Nothing => public,
        _ => format!("10.{n}.0.2:41641").parse().unwrap(),
    };
    let mut endpoints = vec![bound];
    if before != Before::Blocked && public != bound {
        endpoints.push(public);
    }
    let info = NodeInfo {
        id: NodeId(format!("node{n}")),
        node_key: us,
        disco_key: disco.public(),
        boot_id: u64::from(n),
        home: REGION,
        endpoints,
        mapped: None,
        features: vec![FEATURE_OPENED.to_owned()],
        direct_forbidden: None,
    };
    (
        PeerConfig { us, disco, direct: true, guess: true, sockets: LinkId(crate::limits::GUESS_LINKS) },
        info,
        bound,
        public,
    )
}

impl World {
    /// Both know each other, have sockets, endpoints and a relay.
    pub(super) fn new(seed: u64, before: [Before; 2]) -> Self {
        let mut world = Self::silent(seed, before);
        for i in 0..2 {
            world.start(i);
        }
        world
    }

    /// Both know each other and nothing else.
    pub(super) fn silent(seed: u64, before: [Before; 2]) -> Self {
        let [a, b] = [side(1, before[0]), side(2, before[1])];
        let make =
            |n: u64, us: &(PeerConfig, NodeInfo, SocketAddr, SocketAddr), them: &NodeInfo, before| Side {
                peer: Peer::new(us.0.clone(), them.clone(), Seed::from_u64(seed * 2 + n), Time::ZERO),
                key: us.1.node_key,
                before,
                bound: us.2,
                public: us.3,
                nat: Nat { last_port: 40_000, ..Nat::default() },
                direct: None,
                stories: Vec::new(),
                routes: Vec::new(),
                sent: Vec::new(),
                words: Vec::new(),
                data: Vec::new(),
            };
        Self {
            now: Time::ZERO,
            sides: [make(0, &a, &b.1, before[0]), make(1, &b, &a.1, before[1])],
            queue: BTreeMap::new(),
            seq: 0,
            rng: Seed::from_u64(seed).fork("world").rng(),
            delay: Duration::from_millis(10),
            relay_delay: Duration::from_millis(25),
            jitter: 3_000,
            loss: 0,
            cut: [false; 2],
            narrow: false,
            deaf_words: 0,
            data: [false; 2],
            next_data: Time::ZERO,
        }
    }

    pub(super) fn start(&mut self, i: usize) {
        let info = self.sides[1 - i].peer.info().clone();
        let address = self.sides[i].bound;
        self.input(i, Input::LinkUp { link: LINK, address });
        self.command(i, PeerCommand::Endpoints(info.endpoints));
        self.command(i, PeerCommand::Relay { region: REGION, up: true });
    }

    pub(super) fn command(&mut self, i: usize, command: PeerCommand) {
        self.input(i, Input::Command(command));
    }

    pub(super) fn input(&mut self, i: usize, input: Input<'_, PeerCommand>) {
        self.sides[i].peer.handle(input, self.now);
        let mut steps = 0;
        while let Some(output) = self.sides[i].peer.poll() {
            steps += 1;
            assert!(steps < 1_000, "poll never ends");
            match output {
                Output::Transmit(t) => {
                    self.sides[i].sent.push(self.now);
                    self.transmit(i, t);
                }
                Output::Event(PeerEvent::Relay { bytes, .. }) => {
                    self.sides[i].words.push(self.now);
                    if !self.rng.permille(self.deaf_words) {
                        self.post(1 - i, self.relay_delay, Packet::Relayed { bytes });
                    }
                }
                Output::Event(PeerEvent::Route(route)) => {
                    let side = &mut self.sides[i];
                    let before = side.routes.last().map_or(0, |(_, r)| r.generation);
                    assert!(route.generation > before, "generations grow");
                    if route.primary.is_some_and(|via| via.is_direct()) {
                        side.direct.get_or_insert(self.now);
                    }
                    side.routes.push((self.now, route));
                }
                Output::Event(PeerEvent::Story(story)) => self.sides[i].stories.push((self.now, story)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn post(&mut self, to: usize, delay: Duration, packet: Packet) {
        let jitter = Duration::from_micros(self.rng.range(0..self.jitter));
        self.seq += 1;
        self.queue.insert((self.now + delay + jitter, self.seq), (to, packet));
    }

    fn transmit(&mut self, i: usize, t: Transmit) {
        assert_eq!(t.link, LINK);
        let Some(from) = self.outbound(i, t.to) else { return };
        // Openers die between the two NATs.
        if t.ttl.is_some() || self.lost(i, t.bytes.len()) {
            return;
        }
        if self.inbound(1 - i, from, t.to) {
            self.post(1 - i, self.delay, Packet::Udp { from, bytes: t.bytes });
        }
    }

    fn lost(&mut self, i: usize, len: usize) -> bool {
        self.cut[i] || (self.narrow && len > 200) || self.rng.permille(self.loss)
    }

    /// The source address that the network sees.
    fn outbound(&mut self, i: usize, to: SocketAddr) -> Option<SocketAddr> {
        let side = &mut self.sides[i];
        let near = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if v4.is_private());
        if near(to.ip()) || side.before == Before::Blocked {
            return None;
        }
        if side.before == Before::Nothing {
            return Some(side.bound);
        }
        let taken = side.nat.strangers.contains(&(side.public.port(), to));
        let fresh = !side.nat.mapped.contains_key(&to);
        if fresh {
            let own = side.before == Before::Symmetric || taken;
            side.nat.last_port += u16::from(own);
            let port = if own { side.nat.last_port } else { side.public.port() };
            side.nat.mapped.insert(to, port);
            side.nat.opened.insert((port, to));
        }
        Some(SocketAddr::new(side.public.ip(), side.nat.mapped[&to]))
    }

    /// Whether a packet passes the NAT before side `i`.
    fn inbound(&mut self, i: usize, from: SocketAddr, to: SocketAddr) -> bool {
        let side = &mut self.sides[i];
        match side.before {
            Before::Blocked => false,
            _ if to.ip() != side.public.ip() => false,
            Before::Nothing => to == side.bound,
            _ if side.nat.opened.contains(&(to.port(), from)) => true,
            Before::Poisonable => {
                side.nat.strangers.insert((to.port(), from));
                false
            }
            _ => false,
        }
    }

    /// Forgets the NAT's mappings; from now on another port is used.
    pub(super) fn reboot_nat(&mut self, i: usize) {
        let last_port = self.sides[i].nat.last_port;
        self.sides[i].nat = Nat { last_port, ..Nat::default() };
    }

    fn send_data(&mut self, i: usize) {
        let route = self.sides[i].peer.route();
        let peer = self.sides[1 - i].key;
        for via in [route.primary, route.duplicate].into_iter().flatten() {
            let activity = Activity { peer, via, direction: Direction::Sent, packets: 1, bytes: 1_000 };
            self.input(i, Input::Activity(activity));
            match via {
                Via::Relay(region) => {
                    self.post(1 - i, self.relay_delay, Packet::Data { via: Via::Relay(region) })
                }
                Via::Direct { addr, .. } => {
                    let Some(from) = self.outbound(i, addr) else { continue };
                    if !self.lost(i, 1_000) && self.inbound(1 - i, from, addr) {
                        self.post(
                            1 - i,
                            self.delay,
                            Packet::Data { via: Via::Direct { link: LINK, addr: from } },
                        );
                    }
                }
            }
        }
    }

    fn deliver(&mut self, i: usize, packet: Packet) {
        match packet {
            Packet::Udp { from, bytes } => self.input(i, Input::Datagram { link: LINK, from, bytes: &bytes }),
            Packet::Relayed { bytes } => self.command(i, PeerCommand::Relayed { region: REGION, bytes }),
            Packet::Data { via } => {
                self.sides[i].data.push((self.now, via));
                let peer = self.sides[1 - i].key;
                let activity =
                    Activity { peer, via, direction: Direction::Received, packets: 1, bytes: 1_000 };
                self.input(i, Input::Activity(activity));
            }
        }
    }

    /// Lets `millis` pass.
    pub(super) fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        loop {
            let packet = self.queue.first_key_value().map(|(key, _)| key.0);
            let wake = |s: &Side| s.peer.deadline().map(|(at, _)| at);
            let data = (self.data != [false; 2]).then_some(self.next_data.max(self.now));
            let times = [packet, wake(&self.sides[0]), wake(&self.sides[1]), data];
            let next = times.into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if packet.is_some_and(|at| at <= self.now) {
                let (_, (to, packet)) = self.queue.pop_first().unwrap();
                self.deliver(to, packet);
            } else if data.is_some_and(|at| at <= self.now) {
                self.next_data = self.now + Duration::from_micros(DATA_EVERY);
                for i in 0..2 {
                    if self.data[i] {
                        self.send_data(i);
                    }
                }
            } else {
                for i in 0..2 {
                    if let Some((at, why)) = self.sides[i].peer.deadline().filter(|(at, _)| *at <= self.now) {
                        self.input(i, Input::Deadline);
                        let moved = self.sides[i].peer.deadline();
                        assert_ne!(moved, Some((at, why)), "a deadline handled moves");
                    }
                }
            }
        }
        self.now = end;
    }

    pub(super) fn both_direct(&self) -> bool {
        self.sides.iter().all(|s| s.peer.route().primary.is_some_and(|via| via.is_direct()))
    }

    /// When both had become direct first.
    pub(super) fn direct_at(&self) -> Option<Time> {
        self.sides[0]
            .direct
            .max(self.sides[1].direct)
            .filter(|_| self.sides.iter().all(|s| s.direct.is_some()))
    }

    /// The longest pause in the data that side `i` got since `from`.
    pub(super) fn gap(&self, i: usize, from: Time) -> Duration {
        let mut last = from;
        let mut longest = Duration::ZERO;
        for (at, _) in self.sides[i].data.iter().filter(|(at, _)| *at >= from) {
            longest = longest.max(at.since(last));
            last = *at;
        }
        longest.max(self.now.since(last))
    }
}

/// The most of `times` within any one second.
pub(super) fn most_in_a_second(times: &[Time]) -> usize {
    let count = |(i, at): (usize, &Time)| {
        times[i..].iter().take_while(|t| t.since(*at) < Duration::from_secs(1)).count()
    };
    times.iter().enumerate().map(count).max().unwrap_or(0)
}

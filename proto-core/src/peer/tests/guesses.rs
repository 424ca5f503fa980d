//! What port guessing may cost, whatever the networks are and however late sockets and answers come.

use super::super::*;
use super::laws::Other;
use super::world::REGION;
use crate::machine::Transmit;
use crate::nat::predict::Shape;
use crate::nat::{Allocation, Dependence, Mapping};
use crate::wire::disco::{Envelope, GuessWord, Message};
use crate::wire::stun;
use core::net::Ipv4Addr;
use std::collections::BTreeMap;

const OURS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// How our NAT takes ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ports {
    Sequential,
    Block(u16),
    Random,
}

/// One attempt and what it cost.
struct Attempt {
    peer: Peer,
    other: Other,
    rng: Rng,
    ports: Ports,
    /// The first port of the block or sequence.
    first: u16,
    taken: u16,
    now: Time,
    later: BTreeMap<(Time, u64), Later>,
    number: u64,
    sent: Vec<Time>,
    open: u32,
    most_open: u32,
}

enum Later {
    Up(LinkId),
    Stun(LinkId, Vec<u8>),
    Word(Message),
}

fn shape(address: Ipv4Addr, mapping: Mapping, kept: bool, sequence: bool) -> Shape {
    let dependence = if kept { Dependence::Address } else { Dependence::AddressAndPort };
    let varies = mapping == Mapping::Varies;
    Shape {
        udp: Some(true),
        mapping,
        dependence: varies.then_some(dependence),
        allocation: Some(if sequence { Allocation::Sequential(1) } else { Allocation::Random }),
        address: Some(address),
        port: 40_000,
    }
}

impl Attempt {
    fn new(seed: u64) -> Self {
        let seed = Seed::from_u64(seed);
        let mut rng = seed.fork("attempt").rng();
        let other = Other::new();
        let info = NodeInfo { endpoints: vec![], ..other.able() };
        let mut peer = Peer::new(other.us.clone(), info, seed.fork("peer"), Time::ZERO);
        let ports = match rng.range(0..4) {
            0 => Ports::Sequential,
            1 => Ports::Block(1_024),
            2 => Ports::Block(4_096),
            _ => Ports::Random,
        };
        let now = Time::from_secs(10);
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9));
        peer.handle(Input::LinkUp { link: LinkId(0), address: any }, now);
        peer.handle(Input::Command(PeerCommand::Relay { region: REGION, up: true }), now);
        peer.handle(Input::Command(PeerCommand::Engaged(true)), now);
        let easy = rng.permille(300);
        let mapping = if easy { Mapping::Independent } else { Mapping::Varies };
        let ours = shape(OURS, mapping, rng.permille(500), ports == Ports::Sequential);
        let stun = vec![SocketAddr::from(([198, 51, 100, 1], 3_478))];
        peer.handle(Input::Command(PeerCommand::Network { shape: ours, stun }), now);
        let first = 2_048 + u16::try_from(rng.range(0..10)).unwrap_or(0) * 4_096;
        let (later, sent) = (BTreeMap::new(), Vec::new());
        Self { peer, other, rng, ports, first, taken: 0, now, later, number: 0, sent, open: 0, most_open: 0 }
    }

    fn after(&mut self, most_ms: u64, what: Later) {
        self.number += 1;
        let at = self.now + Duration::from_millis(self.rng.range(1..most_ms.max(2)));
        self.later.insert((at, self.number), what);
    }

    fn port(&mut self) -> u16 {
        self.taken += 1;
        let within = |rng: &mut Rng, size: u16| u16::try_from(rng.range(0..size.into())).unwrap_or(0);
        match self.ports {
            Ports::Sequential => self.first + self.taken,
            Ports::Block(size) => self.first + within(&mut self.rng, size),
            Ports::Random => 1_024 + within(&mut self.rng, 64_000),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.peer.poll() {
            match output {
                Output::Bind { link } => {
                    self.open += 1;
                    self.most_open = self.most_open.max(self.open);
                    self.after(40, Later::Up(link));
                }
                Output::Unbind { .. } => self.open -= 1,
                Output::Transmit(Transmit { link, bytes, .. }) => {
                    self.sent.push(self.now);
                    if let Ok(request) = stun::Packet::new_checked(&bytes).map(|packet| packet.transaction())
                        && self.rng.permille(900)
                    {
                        let mapped = SocketAddr::from((OURS, self.port()));
                        let answer = stun::Response { transaction: request, mapped }.emit();
                        self.after(400, Later::Stun(link, answer));
                    }
                }
                Output::Event(PeerEvent::Relay { bytes, .. }) => {
                    let word = Envelope::new_checked(&bytes).and_then(|e| e.open(&self.other.shared).ok());
                    if matches!(word, Some(Message::Guess(GuessWord::Ask))) {
                        self.after(300, Later::Word(Message::Guess(GuessWord::Here { port: 9_000 })));
                    }
                }
                _ => {}
            }
        }
    }

    /// Runs for this long; the other side says things as it would, and sometimes as it would not.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let kinds = [(Mapping::Independent, false, false), (Mapping::Varies, true, true)];
        let (mapping, kept, sequence) = kinds[self.rng.range(0..2) as usize];
        let sequence = sequence && self.rng.permille(500);
        self.after(300, Later::Word(Message::Shape(shape(THEIRS, mapping, kept, sequence))));
        let ports: Vec<u16> = (0..4).map(|_| self.port()).collect();
        for _ in 0..3 {
            self.after(2_000, Later::Word(Message::Guess(GuessWord::Ask)));
            self.after(4_000, Later::Word(Message::Guess(GuessWord::Open { ports: ports.clone() })));
        }
        while self.now < until {
            self.drain();
            let next = self.later.keys().next().map(|(at, _)| *at);
            let deadline = self.peer.deadline().map(|(at, _)| at);
            let Some(at) = next.into_iter().chain(deadline).min().filter(|at| *at < until) else { break };
            self.now = self.now.max(at);
            match self.later.first_key_value().map(|((at, number), _)| (*at, *number)) {
                Some(key) if key.0 <= self.now => {
                    if let Some(what) = self.later.remove(&key) {
                        self.happen(what);
                    }
                }
                _ => self.peer.handle(Input::Deadline, self.now),
            }
        }
        self.drain();
        self.now = until;
    }

    fn happen(&mut self, what: Later) {
        match what {
            Later::Up(link) => {
                let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9));
                self.peer.handle(Input::LinkUp { link, address }, self.now);
            }
            Later::Stun(link, bytes) => {
                let from = SocketAddr::from(([198, 51, 100, 1], 3_478));
                self.peer.handle(Input::Datagram { link, from, bytes: &bytes }, self.now);
            }
            Later::Word(message) => {
                let bytes = self.other.seal(&message, &mut self.rng);
                let command = PeerCommand::Relayed { region: REGION, bytes };
                self.peer.handle(Input::Command(command), self.now);
            }
        }
    }

    /// The most packets within any second.
    fn busiest(&self) -> usize {
        let within = |from: &Time| {
            self.sent.iter().filter(|at| at.since(*from) < Duration::from_secs(1) && *at >= from).count()
        };
        self.sent.iter().map(within).max().unwrap_or(0)
    }
}

#[test]
fn guesses_keep_their_bounds() {
    let (mut attempts, mut quiet) = (0, 0);
    for seed in 0..300 {
        let mut attempt = Attempt::new(seed);
        attempt.run(Duration::from_secs(20));
        let (sent, sockets) = (attempt.sent.len(), attempt.most_open);
        assert!(attempt.busiest() <= 500, "seed {seed}: {} packets within a second", attempt.busiest());
        assert!(sent <= 1_800 + 100, "seed {seed}: {sent} packets, some of plain punching, in one attempt");
        assert!(sockets <= 256, "seed {seed}: {sockets} sockets");
        if let Ports::Block(size) = attempt.ports {
            // A block is known once four of its ports are.
            let known = attempt.taken >= 4 + 4;
            assert!(!known || sockets <= u32::from(size) / 4, "seed {seed}: {sockets} of a block of {size}");
        }
        attempts += usize::from(sockets >= 64 || sent > 1_000);
        quiet += usize::from(sent == 0);
        // Nothing was hit: everything is closed, and stays so for a while.
        attempt.run(Duration::from_secs(20));
        assert_eq!(attempt.open, 0, "seed {seed}");
    }
    assert!(attempts > 100, "{attempts} attempts, {quiet} sides that sent nothing");
}

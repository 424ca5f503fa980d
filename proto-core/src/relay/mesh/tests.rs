//! Three relays joined to one, each with clients of its own.

use super::*;
use crate::key::NodePublic;
use crate::machine::laws::{OwnedInput, Subject};
use crate::relay::{RelayHub, RelayServerConfig};
use crate::time::Duration;
use crate::wire::derp::{ClientInfo, Decoder, Frame};
use std::collections::{BTreeMap, BTreeSet};

const KEY: MeshKey = MeshKey([7; 32]);
const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];
/// Where the names of a mesh's own streams begin.
const OWN: u64 = 1 << 40;
const SECOND: Duration = Duration::from_secs(1);

fn secret(n: u64) -> NodeSecret {
    NodeSecret::generate(&Seed::from_u64(n))
}

fn relay_secret(n: usize) -> NodeSecret {
    secret(100 + n as u64)
}

fn node(host: &str) -> RelayNode {
    RelayNode { name: host.into(), host: host.into(), ipv4_text: "192.0.2.1".into(), ..RelayNode::default() }
}

fn mesh(n: usize, names: &[&str], now: Time) -> RelayMesh {
    let config = MeshConfig {
        identity: relay_secret(n),
        key: KEY,
        relays: names.iter().map(|name| node(name)).collect(),
        streams: OWN..OWN << 1,
    };
    RelayMesh::new(config, &Seed::from_u64(n as u64), now)
}

/// One end of a stream.
type End = (usize, StreamId);

struct World {
    now: Time,
    relays: Vec<RelayHub>,
    /// Streams between relays, by either end.
    streams: BTreeMap<End, End>,
    /// Pairs of relays between which nothing passes and nothing is noticed.
    parted: BTreeSet<(usize, usize)>,
    /// What clients were written.
    written: BTreeMap<End, Vec<u8>>,
    accepted: u64,
}

impl World {
    fn new() -> Self {
        let now = Time::from_secs(10);
        let mut world = Self {
            now,
            relays: Vec::new(),
            streams: BTreeMap::new(),
            parted: BTreeSet::new(),
            written: BTreeMap::new(),
            accepted: 1_000,
        };
        world.relays = (0..NAMES.len()).map(|n| world.relay(n)).collect();
        world.settle();
        world
    }

    fn relay(&self, n: usize) -> RelayHub {
        let config = RelayServerConfig { mesh: Some(KEY), ..RelayServerConfig::new(relay_secret(n)) };
        // Each is named among its own neighbours, as one list for all relays has it.
        let hub = RelayHub::new(config, Seed::from_u64(n as u64), self.now);
        hub.with_mesh(mesh(n, &NAMES, self.now), self.now)
    }

    fn input(&mut self, n: usize, input: Input<'_, crate::relay::HubCommand>) {
        self.relays[n].handle(input, self.now);
        self.settle();
    }

    fn settle(&mut self) {
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for n in 0..self.relays.len() {
                while let Some(output) = self.relays[n].poll() {
                    quiet = false;
                    self.said(n, output);
                }
            }
        }
    }

    fn said(&mut self, n: usize, output: Output<crate::relay::HubEvent>) {
        let now = self.now;
        match output {
            Output::Open { stream, target } => {
                let to = NAMES.iter().position(|name| *name == target.host).unwrap();
                if self.parted.contains(&(n, to)) {
                    return;
                }
                self.accepted += 1;
                let there = (to, StreamId(self.accepted));
                self.streams.insert((n, stream), there);
                self.streams.insert(there, (n, stream));
                self.relays[to].handle(Input::StreamOpened { stream: there.1 }, now);
                self.relays[n].handle(Input::StreamOpened { stream }, now);
            }
            Output::Write { stream, bytes } => match self.streams.get(&(n, stream)) {
                Some((to, _)) if self.parted.contains(&(n, *to)) => {}
                Some((to, stream)) => {
                    let (to, stream) = (*to, *stream);
                    self.relays[to].handle(Input::StreamBytes { stream, bytes: &bytes }, now);
                }
                None => self.written.entry((n, stream)).or_default().extend(bytes),
            },
            Output::Close { stream } => {
                if let Some(end) = self.streams.remove(&(n, stream)) {
                    self.streams.remove(&end);
                    if !self.parted.contains(&(n, end.0)) {
                        self.relays[end.0]
                            .handle(Input::StreamClosed { stream: end.1, why: "the other side" }, now);
                    }
                }
            }
            _ => {}
        }
    }

    fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let next = self.relays.iter().filter_map(Machine::deadline).map(|(at, _)| at).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            for n in 0..self.relays.len() {
                self.relays[n].handle(Input::Deadline, self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    /// A client with key `n`, on a stream of that name, at a relay.
    fn login(&mut self, relay: usize, n: u64) {
        let stream = StreamId(n);
        self.input(relay, Input::StreamOpened { stream });
        let mut bytes = Vec::new();
        let mut rng = Seed::from_u64(n).rng();
        ClientInfo::default().emit(&secret(n), &relay_secret(relay).public(), &mut rng, &mut bytes);
        self.input(relay, Input::StreamBytes { stream, bytes: &bytes });
        self.written.remove(&(relay, stream));
    }

    fn send(&mut self, (relay, n): (usize, u64), to: u64, bytes: &[u8]) {
        let frame = Frame::SendPacket { to: secret(to).public(), bytes }.to_bytes();
        self.input(relay, Input::StreamBytes { stream: StreamId(n), bytes: &frame });
    }

    fn heard(&mut self, relay: usize, n: u64) -> Vec<String> {
        let bytes = self.written.remove(&(relay, StreamId(n))).unwrap_or_default();
        let who = |key: NodePublic| (0..99).find(|n| secret(*n).public() == key).unwrap();
        let mut decoder = Decoder::new();
        let mut frames = decoder.feed(&bytes);
        let mut heard = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            heard.push(match frame {
                Frame::RecvPacket { from, bytes } => {
                    format!("from {}: {}", who(from), String::from_utf8_lossy(bytes))
                }
                Frame::PeerGone { peer, reason } => format!("gone {}: {reason:?}", who(peer)),
                Frame::KeepAlive => continue,
                other => format!("{other:?}"),
            });
        }
        heard
    }

    /// Nothing passes between two relays, or again.
    fn part(&mut self, a: usize, b: usize, on: bool) {
        for pair in [(a, b), (b, a)] {
            if on {
                self.parted.insert(pair);
            } else {
                self.parted.remove(&pair);
            }
        }
    }

    /// A relay's process ends, and a new one begins with the same key.
    fn restart(&mut self, n: usize) {
        let ends: Vec<(End, End)> = self.streams.iter().map(|(a, b)| (*a, *b)).collect();
        for (ours, theirs) in ends.into_iter().filter(|(ours, _)| ours.0 == n) {
            self.streams.remove(&ours);
            self.streams.remove(&theirs);
            let closed = Input::StreamClosed { stream: theirs.1, why: "reset" };
            self.relays[theirs.0].handle(closed, self.now);
        }
        self.relays[n] = self.relay(n);
        self.settle();
    }

    fn up(&self) -> Vec<usize> {
        self.relays.iter().map(RelayHub::mesh_up).collect()
    }
}

#[test]
fn clients_of_different_relays_reach_one_another() {
    let mut world = World::new();
    assert_eq!(world.up(), [2, 2, 2], "each is joined to the two others, and not to itself");
    for n in 0..3 {
        world.login(n as usize, n);
    }
    world.send((0, 0), 1, b"to b");
    world.send((1, 1), 2, b"to c");
    world.send((2, 2), 0, b"to a");
    assert_eq!(world.heard(1, 1), ["from 0: to b"]);
    assert_eq!(world.heard(2, 2), ["from 1: to c"]);
    assert_eq!(world.heard(0, 0), ["from 2: to a"]);
    let passed: Vec<_> =
        world.relays.iter().map(|hub| (hub.counters().mesh_in, hub.counters().mesh_out)).collect();
    assert_eq!(passed, [(1, 1); 3]);
}

#[test]
fn who_is_at_this_relay_is_reached_here() {
    let mut world = World::new();
    world.login(0, 0);
    world.login(0, 1);
    world.login(1, 1);
    world.send((0, 0), 1, b"hello");
    assert_eq!(world.heard(0, 1), ["from 0: hello"]);
    world.input(0, Input::StreamClosed { stream: StreamId(1), why: "" });
    assert!(world.heard(0, 0).is_empty(), "it is in the region still");
    world.send((0, 0), 1, b"and there");
    assert_eq!(world.heard(1, 1), ["from 0: and there"]);
}

#[test]
fn a_relay_that_restarts_is_joined_again_and_its_clients_were_gone_meanwhile() {
    let mut world = World::new();
    world.login(0, 0);
    world.login(1, 1);
    world.send((1, 1), 0, b"hello");
    assert_eq!(world.heard(0, 0), ["from 1: hello"]);
    world.restart(1);
    assert_eq!(world.heard(0, 0), ["gone 1: Disconnected"]);
    world.advance(5 * SECOND);
    assert_eq!(world.up(), [2, 2, 2]);
    world.login(1, 1);
    world.send((0, 0), 1, b"again");
    assert_eq!(world.heard(1, 1), ["from 0: again"]);
}

#[test]
fn relays_that_cannot_hear_one_another_notice_it_and_join_again() {
    let mut world = World::new();
    for n in 0..3 {
        world.login(n as usize, n);
    }
    world.send((1, 1), 0, b"hello");
    world.heard(0, 0);
    world.part(0, 1, true);
    world.advance(limits::RELAY_PING + limits::RELAY_PONG + SECOND);
    assert_eq!(world.up(), [1, 1, 2]);
    assert_eq!(world.heard(0, 0), ["gone 1: Disconnected"]);
    world.send((0, 0), 2, b"the third is there");
    assert_eq!(world.heard(2, 2), ["from 0: the third is there"]);
    world.part(0, 1, false);
    world.advance(60 * SECOND);
    assert_eq!(world.up(), [2, 2, 2]);
    world.send((0, 0), 1, b"healed");
    assert_eq!(world.heard(1, 1), ["from 0: healed"]);
}

#[test]
fn a_mesh_keeps_the_seven_laws() {
    let streams = |rng: &mut crate::seed::Rng| StreamId(OWN + rng.range(0..2) * (OWN / 2) + rng.range(0..3));
    Subject::new(|seed| {
        let config = MeshConfig {
            identity: relay_secret(0),
            key: KEY,
            relays: vec![node(NAMES[0]), node(NAMES[1])],
            streams: OWN..OWN << 1,
        };
        RelayMesh::new(config, &seed, Time::ZERO)
    })
    .commands(|rng| if rng.permille(700) { MeshCommand::Connect } else { MeshCommand::Close })
    .inputs(move |rng| {
        let stream = streams(rng);
        let frame = |frame: Frame<'_>| OwnedInput::StreamBytes { stream, bytes: frame.to_bytes() };
        match rng.range(0..6) {
            0 | 1 => OwnedInput::StreamOpened { stream },
            2 => frame(Frame::ServerKey { key: relay_secret(rng.range(0..3) as usize).public() }),
            3 => frame(Frame::Pong([1; 8])),
            4 => frame(Frame::PeerGone {
                peer: secret(1).public(),
                reason: crate::relay::GoneReason::Disconnected,
            }),
            _ => OwnedInput::StreamClosed { stream, why: "lost".into() },
        }
    })
    .size(400_000, |mesh| format!("{mesh:?}").len())
    .check(100);
}

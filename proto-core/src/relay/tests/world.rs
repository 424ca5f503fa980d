//! Pools and relays in memory. Every write is cut at drawn points on its way, in both directions.

use super::super::*;
use crate::id::{RegionId, StreamId};
use crate::key::{NodePublic, NodeSecret};
use crate::machine::{Input, Machine, Output};
use crate::relay_map::{RelayMap, RelayNode, RelayRegion};
use crate::seed::{Rng, Seed};
use crate::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const ONE: RegionId = RegionId(1);
pub(super) const TWO: RegionId = RegionId(2);

pub(super) fn secret(n: u64) -> NodeSecret {
    NodeSecret::generate(&Seed::from_u64(n))
}

pub(super) fn key(n: u64) -> NodePublic {
    secret(n).public()
}

fn relay(region: RegionId, host: &str) -> RelayNode {
    RelayNode { name: host.into(), region, host: host.into(), ..RelayNode::default() }
}

/// Region 1 with the relays `a` and `b` (and a STUN server before them), region 2 with `c`.
pub(super) fn map() -> RelayMap {
    let stun = RelayNode { stun_only: true, ..relay(ONE, "stun.example") };
    let one = vec![stun, relay(ONE, "a.example"), relay(ONE, "b.example")];
    let region = |id: RegionId, nodes| RelayRegion { id, nodes, ..RelayRegion::default() };
    let mut map = RelayMap::default();
    map.regions.insert(ONE, region(ONE, one));
    map.regions.insert(TWO, region(TWO, vec![relay(TWO, "c.example")]));
    map
}

pub(super) struct Client {
    pub(super) pool: RelayPool,
    pub(super) events: Vec<PoolEvent>,
    /// Its streams: the relay and the stream's name there.
    pub(super) streams: BTreeMap<StreamId, (String, StreamId)>,
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) relays: BTreeMap<String, RelayHub>,
    pub(super) clients: Vec<Client>,
    /// Relays that accept nobody.
    pub(super) down: BTreeSet<String>,
    /// Relays whose streams carry nothing, and open for ever.
    pub(super) silent: BTreeSet<String>,
    pub(super) dns_is_dead: bool,
    pub(super) opened: Vec<String>,
    accepted: u64,
    rng: Rng,
}

impl World {
    /// Clients `0..count`, each with the map and region 1 as its home.
    pub(super) fn new(count: usize) -> Self {
        let now = Time::from_secs(500);
        let hub = |n: u64| {
            let config = RelayServerConfig::new(secret(100 + n));
            RelayHub::new(config, Seed::from_u64(200 + n), now)
        };
        let relays = ["a.example", "b.example", "c.example"].map(str::to_owned);
        let clients = (0..count as u64).map(|n| {
            let config = PoolConfig { identity: secret(n), streams: 0..1 << 20 };
            let pool = RelayPool::new(config, Seed::from_u64(300 + n), now);
            Client { pool, events: Vec::new(), streams: BTreeMap::new() }
        });
        let mut world = Self {
            now,
            relays: (0..).zip(relays).map(|(n, host)| (host, hub(n))).collect(),
            clients: clients.collect(),
            down: BTreeSet::new(),
            silent: BTreeSet::new(),
            dns_is_dead: false,
            opened: Vec::new(),
            accepted: 0,
            rng: Seed::from_u64(9).rng(),
        };
        for n in 0..count {
            world.tell(n, PoolCommand::SetMap(map()));
            world.tell(n, PoolCommand::Home(ONE));
        }
        world
    }

    pub(super) fn tell(&mut self, client: usize, command: PoolCommand) {
        self.input(client, Input::Command(command));
    }

    pub(super) fn input(&mut self, client: usize, input: Input<'_, PoolCommand>) {
        self.clients[client].pool.handle(input, self.now);
        self.settle();
    }

    pub(super) fn send(&mut self, from: usize, region: RegionId, to: u64, bytes: &[u8]) {
        self.tell(from, PoolCommand::Send { region, to: key(to), bytes: bytes.to_vec() });
    }

    pub(super) fn order(&mut self, host: &str, command: HubCommand) {
        self.relays.get_mut(host).unwrap().handle(Input::Command(command), self.now);
        self.settle();
    }

    /// What a client was told since the last look.
    pub(super) fn heard(&mut self, client: usize) -> Vec<String> {
        let events = core::mem::take(&mut self.clients[client].events);
        let who = |key: NodePublic| (0..99).find(|n| secret(*n).public() == key).unwrap();
        events
            .into_iter()
            .map(|event| match event {
                PoolEvent::Up { region, .. } => format!("{region} up"),
                PoolEvent::Down { region, why } => format!("{region} down: {why}"),
                PoolEvent::Packet { region, from, bytes } => {
                    format!("{region} from {}: {}", who(from), String::from_utf8_lossy(&bytes))
                }
                PoolEvent::Silent { region, silent } => format!("{region} is silent: {silent}"),
                PoolEvent::Leaving { region } => format!("{region} is about to stop"),
                PoolEvent::Health { region, problem } => format!("{region} says: {problem}"),
                PoolEvent::PeerGone { region, peer, reason } => {
                    format!("{region} gone {}: {reason:?}", who(peer))
                }
            })
            .collect()
    }

    /// The relays that streams were opened to since the last look.
    pub(super) fn dialled(&mut self) -> Vec<String> {
        core::mem::take(&mut self.opened)
    }

    /// All connections of a relay break.
    pub(super) fn crash(&mut self, host: &str) {
        for client in 0..self.clients.len() {
            let streams = self.clients[client].streams.clone();
            for (stream, (at, there)) in streams.into_iter().filter(|(_, (at, _))| at == host) {
                self.clients[client].streams.remove(&stream);
                let relay = self.relays.get_mut(&at).unwrap();
                relay.handle(Input::StreamClosed { stream: there, why: "crash" }, self.now);
                self.input(client, Input::StreamClosed { stream, why: "crash" });
            }
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let pools = self.clients.iter().filter_map(|client| client.pool.deadline());
            let relays = self.relays.values().filter_map(Machine::deadline);
            let next = pools.chain(relays).map(|(at, _)| at).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.clients.iter_mut().for_each(|client| client.pool.handle(Input::Deadline, at));
            self.relays.values_mut().for_each(|relay| relay.handle(Input::Deadline, at));
            self.settle();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for client in 0..self.clients.len() {
                while let Some(output) = self.clients[client].pool.poll() {
                    quiet = false;
                    self.client_said(client, output);
                }
            }
            for host in self.relays.keys().cloned().collect::<Vec<_>>() {
                while let Some(output) = self.relays.get_mut(&host).unwrap().poll() {
                    quiet = false;
                    self.relay_said(&host, output);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn client_said(&mut self, n: usize, output: Output<PoolEvent>) {
        let now = self.now;
        let client = &mut self.clients[n];
        match output {
            Output::Event(event) => client.events.push(event),
            Output::Resolve { name } if !self.dns_is_dead => {
                let addresses = ["192.0.2.1".parse().unwrap()];
                client.pool.handle(Input::Resolved { name: &name, addresses: &addresses }, now);
            }
            Output::Open { stream, target } => {
                self.opened.push(target.host.clone());
                if self.down.contains(&target.host) {
                    client.pool.handle(Input::StreamClosed { stream, why: "connection refused" }, now);
                } else if !self.silent.contains(&target.host) {
                    self.accepted += 1;
                    let there = StreamId(self.accepted);
                    client.streams.insert(stream, (target.host.clone(), there));
                    let relay = self.relays.get_mut(&target.host).unwrap();
                    relay.handle(Input::StreamOpened { stream: there }, now);
                    client.pool.handle(Input::StreamOpened { stream }, now);
                }
            }
            Output::Write { stream, bytes } => {
                let Some((host, there)) = client.streams.get(&stream).cloned() else { return };
                let relay = self.relays.get_mut(&host).unwrap();
                for bytes in pieces(&mut self.rng, &bytes) {
                    if !self.silent.contains(&host) {
                        relay.handle(Input::StreamBytes { stream: there, bytes }, now);
                    }
                }
            }
            Output::Close { stream } => {
                if let Some((host, there)) = client.streams.remove(&stream) {
                    let relay = self.relays.get_mut(&host).unwrap();
                    relay.handle(Input::StreamClosed { stream: there, why: "" }, now);
                }
            }
            _ => {}
        }
    }

    fn relay_said(&mut self, host: &str, output: Output<HubEvent>) {
        let now = self.now;
        let (Output::Write { stream: there, .. } | Output::Close { stream: there }) = &output else { return };
        let at = (host.to_owned(), *there);
        let owner = self.clients.iter_mut().find_map(|client| {
            let stream = client.streams.iter().find(|(_, end)| **end == at).map(|(stream, _)| *stream)?;
            Some((client, stream))
        });
        let Some((client, stream)) = owner.filter(|_| !self.silent.contains(host)) else { return };
        if let Output::Write { bytes, .. } = output {
            for bytes in pieces(&mut self.rng, &bytes) {
                client.pool.handle(Input::StreamBytes { stream, bytes }, now);
            }
        } else {
            client.streams.remove(&stream);
            client.pool.handle(Input::StreamClosed { stream, why: "closed by the relay" }, now);
        }
    }
}

fn pieces<'a>(rng: &mut Rng, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((rng.range(1..64) as usize).min(bytes.len()));
        all.push(piece);
        bytes = rest;
    }
    all
}

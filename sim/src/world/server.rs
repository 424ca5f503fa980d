//! A server of a world: coordinator, relay and STUN, as the production server composes them, without sockets.

use super::tcp::TIMED_OUT;
use proto_core::coord::{
    Coordinator, CoordinatorCommand, CoordinatorConfig, CoordinatorEvent, Principal, Verdict,
};
use proto_core::id::{NodeId, StreamId};
use proto_core::key::NodeSecret;
use proto_core::machine::{Input, Machine, Output, StreamProtocol, StreamTarget};
use proto_core::relay::{MeshConfig, RelayHub, RelayMesh, RelayServerConfig, ServerCommand};
use proto_core::relay_map::{RelayMap, RelayNode};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time, earliest};
use proto_core::wire::derp::MeshKey;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The port of coordination and relay.
pub const HTTP_PORT: u16 = 80;
/// The port of STUN.
pub const STUN_PORT: u16 = 3_478;
/// The port of its other socket, from which it answers whoever wants to know how their NAT filters.
pub const STUN_OTHER_PORT: u16 = 3_479;

/// When clients of a relay that is about to stop may come back.
const COME_BACK: Duration = Duration::from_secs(1);

/// What the relays of a mesh prove themselves by.
const MESH_KEY: MeshKey = MeshKey([0x5a; 32]);
/// Names of the streams that a relay opens to others.
const MESH_STREAMS: Range<u64> = 1 << 40..1 << 41;

/// A server's process.
#[derive(Debug)]
pub struct Server {
    coordinator: Option<Coordinator>,
    relay: RelayHub,
    streams: BTreeMap<StreamId, Kind>,
    next: u64,
    /// What its relay opens to others.
    pub opens: Vec<(StreamId, StreamTarget)>,
    /// What to write to a stream, and which to close.
    pub out: Vec<(StreamId, Option<Vec<u8>>)>,
    /// The relay lets nobody in any more.
    draining: bool,
    /// Nodes that were online.
    seen: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Control,
    Derp,
}

/// What a bearer token says.
#[must_use]
pub fn principal(bearer: Option<&str>) -> Option<Principal> {
    let (kind, name) = bearer?.split_once(':')?;
    match kind {
        "agent" => Some(Principal::Agent { id: NodeId(name.into()) }),
        "user" => Some(Principal::User { user: name.into() }),
        _ => None,
    }
}

impl Server {
    /// A server; with a coordinator that hands out `map`, or only a relay, which is joined with those of `mesh` if
    /// there are any.
    #[must_use]
    pub fn new((map, mesh): (Option<RelayMap>, Vec<RelayNode>), seed: &Seed, now: Time) -> Self {
        let coordinator = map.map(|relay_map| {
            let config = CoordinatorConfig {
                direct: true,
                relay_map,
                relay: None,
                relay_websockets: false,
                browser_only: false,
                build: "sim".into(),
                resume_key: [7; 32],
            };
            Coordinator::new(config, seed.fork("coordinator"), now)
        });
        let identity = NodeSecret::generate(&seed.fork("relay"));
        let mut config = RelayServerConfig::new(identity.clone());
        config.mesh = (!mesh.is_empty()).then_some(MESH_KEY);
        let mut relay = RelayHub::new(config, seed.fork("hub"), now);
        if !mesh.is_empty() {
            let config = MeshConfig { identity, key: MESH_KEY, relays: mesh, streams: MESH_STREAMS };
            relay = relay.with_mesh(RelayMesh::new(config, &seed.fork("mesh"), now), now);
        }
        let mut server = Self {
            coordinator,
            relay,
            streams: BTreeMap::new(),
            next: 1,
            opens: Vec::new(),
            out: Vec::new(),
            draining: false,
            seen: BTreeSet::new(),
        };
        server.drain(now);
        server
    }

    /// Whether it serves this protocol.
    #[must_use]
    pub fn serves(&self, protocol: StreamProtocol) -> bool {
        match protocol {
            StreamProtocol::Control => self.coordinator.is_some(),
            StreamProtocol::Derp | StreamProtocol::DerpInWebSocket => true,
        }
    }

    /// The relay.
    #[must_use]
    pub const fn relay(&self) -> &RelayHub {
        &self.relay
    }

    /// The name of the next stream.
    pub fn name(&mut self) -> StreamId {
        self.next += 1;
        StreamId(self.next)
    }

    /// A connection was accepted.
    pub fn accept(&mut self, stream: StreamId, protocol: StreamProtocol, bearer: Option<&str>, now: Time) {
        match (protocol, &mut self.coordinator, principal(bearer)) {
            (StreamProtocol::Derp | StreamProtocol::DerpInWebSocket, ..) if !self.draining => {
                self.streams.insert(stream, Kind::Derp);
                self.relay.handle(Input::StreamOpened { stream }, now);
            }
            (StreamProtocol::Control, Some(coordinator), Some(principal)) => {
                self.streams.insert(stream, Kind::Control);
                coordinator.handle(
                    Input::Command(CoordinatorCommand::Admit { stream, principal, credential: None }),
                    now,
                );
            }
            _ => self.out.push((stream, None)),
        }
        self.drain(now);
    }

    /// Bytes, credit or the end of a stream.
    pub fn stream(&mut self, input: StreamInput<'_>, now: Time) {
        let stream = input.stream();
        let kind = self.streams.get(&stream).copied();
        if let StreamInput::Closed(..) = input {
            self.streams.remove(&stream);
        }
        match (kind, &mut self.coordinator) {
            (Some(Kind::Control), Some(coordinator)) => coordinator.handle(
                match input {
                    StreamInput::Closed(stream, TIMED_OUT) => {
                        Input::Command(CoordinatorCommand::Broken { stream })
                    }
                    input => input.input(),
                },
                now,
            ),
            (Some(Kind::Derp), _) => self.relay.handle(input.input(), now),
            _ => {}
        }
        self.drain(now);
    }

    /// The deadline has come.
    pub fn wake(&mut self, now: Time) {
        if let Some(coordinator) = &mut self.coordinator
            && coordinator.deadline().is_some_and(|(at, _)| at <= now)
        {
            coordinator.handle(Input::Deadline, now);
        }
        if self.relay.deadline().is_some_and(|(at, _)| at <= now) {
            self.relay.handle(Input::Deadline, now);
        }
        self.drain(now);
    }

    /// The next deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<(Time, &'static str)> {
        earliest(self.coordinator.as_ref().and_then(Machine::deadline), self.relay.deadline())
    }

    /// Ends the tunnels between `agent` and everybody.
    pub fn withdraw(&mut self, agent: &NodeId, now: Time) {
        for client in self.seen.iter().filter(|id| *id != agent) {
            let Some(coordinator) = &mut self.coordinator else { continue };
            let (a, b) = (client.clone(), agent.clone());
            let command = CoordinatorCommand::Withdraw { a, b, reason: "withdrawn by the scenario".into() };
            coordinator.handle(Input::Command(command), now);
        }
        self.drain(now);
    }

    /// Gives the nodes another relay map.
    pub fn set_map(&mut self, map: RelayMap, now: Time) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.handle(Input::Command(CoordinatorCommand::SetRelayMap(map)), now);
        }
        self.drain(now);
    }

    /// The relay says that it is about to stop, and lets nobody in any more; to how many clients it said so.
    pub fn drain_relay(&mut self, now: Time) -> u64 {
        self.draining = true;
        let told = self.relay.server().connections().0 as u64;
        self.relay.handle(Input::Command(ServerCommand::Drain(COME_BACK)), now);
        self.drain(now);
        told
    }

    fn drain(&mut self, now: Time) {
        while let Some(coordinator) = &mut self.coordinator {
            match coordinator.poll() {
                Some(Output::Event(CoordinatorEvent::Authorize { request, .. })) => {
                    let verdict = CoordinatorCommand::Authorized { request, verdict: Verdict::Allowed };
                    coordinator.handle(Input::Command(verdict), now);
                }
                Some(Output::Event(CoordinatorEvent::Online { id, .. })) => _ = self.seen.insert(id),
                Some(Output::Write { stream, bytes }) => self.out.push((stream, Some(bytes))),
                Some(Output::Close { stream }) => self.out.push((stream, None)),
                Some(_) => {}
                None => break,
            }
        }
        while let Some(output) = self.relay.poll() {
            match output {
                Output::Write { stream, bytes } => self.out.push((stream, Some(bytes))),
                Output::Close { stream } => self.out.push((stream, None)),
                Output::Open { stream, target } => {
                    self.streams.insert(stream, Kind::Derp);
                    self.opens.push((stream, target));
                }
                _ => {}
            }
        }
    }
}

/// What happens to a stream of a server.
#[derive(Clone, Copy, Debug)]
pub enum StreamInput<'a> {
    /// One that the server has opened is open.
    Opened(StreamId),
    /// Bytes.
    Bytes(StreamId, &'a [u8]),
    /// Credit.
    Credit(StreamId, usize),
    /// The end.
    Closed(StreamId, &'a str),
}

impl<'a> StreamInput<'a> {
    const fn stream(&self) -> StreamId {
        match self {
            Self::Opened(stream)
            | Self::Bytes(stream, _)
            | Self::Credit(stream, _)
            | Self::Closed(stream, _) => *stream,
        }
    }

    /// As a machine takes it.
    #[must_use]
    pub const fn input<C>(self) -> Input<'a, C> {
        match self {
            Self::Opened(stream) => Input::StreamOpened { stream },
            Self::Bytes(stream, bytes) => Input::StreamBytes { stream, bytes },
            Self::Credit(stream, credit) => Input::StreamWritable { stream, credit },
            Self::Closed(stream, why) => Input::StreamClosed { stream, why },
        }
    }
}

//! The relays of one region: each is a client of every other, told who is there, and sends on what is for them.
//!
//! A packet is sent on once and never further, so that every relay must know every other.

use super::{LinkCommand, LinkConfig, LinkEvent, RelayLink};
use crate::id::{RegionId, StreamId};
use crate::key::{NodePublic, NodeSecret};
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::relay_map::{RelayNode, RelayRegion};
use crate::seed::Seed;
use crate::time::{Monotone, Time, earliest};
use crate::wire::derp::MeshKey;
use core::ops::Range;

#[cfg(test)]
mod tests;

/// What a relay's end of a mesh is made of.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// The relay's own key.
    pub identity: NodeSecret,
    /// What the relays of the mesh prove themselves by.
    pub key: MeshKey,
    /// The other relays; its own place among them does no harm. No more than [`limits::MESH_RELAYS_MAX`] count.
    pub relays: Vec<RelayNode>,
    /// The stream names it may use, round and round; at least 2^16 for each relay.
    pub streams: Range<u64>,
}

/// What a mesh's owner asks of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeshCommand {
    /// Connect to all, and stay connected.
    Connect,
    /// Give all connections up.
    Close,
}

/// What a mesh tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MeshEvent {
    /// A relay can be used: ForwardPacket frames may be written to this stream, until its [`MeshChange::Lost`].
    Up {
        /// Which of the configured relays.
        relay: usize,
        /// The stream.
        stream: StreamId,
    },
    /// A relay cannot be used (any more). It is tried again.
    Down {
        /// Which.
        relay: usize,
        /// Why, in words for a person.
        why: String,
    },
    /// What is reached under this name is this very relay: it is left alone.
    Itself {
        /// Which.
        relay: usize,
    },
    /// Somebody came, or left: for [`super::ServerCommand::Mesh`].
    Change(MeshChange),
}

/// Who is at other relays. A link is named by its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MeshChange {
    /// A key is there.
    Present {
        /// By this link.
        link: StreamId,
        /// Who.
        key: NodePublic,
        /// It has just come. Who was there when the link came up may have been there for long.
        fresh: bool,
    },
    /// A key is not there any more.
    Gone {
        /// By this link.
        link: StreamId,
        /// Who.
        key: NodePublic,
    },
    /// The link is gone, and all that was known by it.
    Lost {
        /// Which.
        link: StreamId,
    },
}

/// A relay's connections to the others of its mesh.
#[derive(Debug)]
pub struct RelayMesh {
    clock: Monotone,
    streams: Range<u64>,
    neighbours: Vec<Neighbour>,
    out: Outbox<MeshEvent>,
}

#[derive(Debug)]
struct Neighbour {
    link: RelayLink,
    /// The stream in use, and since when.
    stream: Option<(StreamId, Time)>,
}

impl RelayMesh {
    /// A mesh that waits for [`MeshCommand::Connect`].
    #[must_use]
    pub fn new(config: MeshConfig, seed: &Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        let MeshConfig { identity, key, mut relays, streams } = config;
        relays.truncate(limits::MESH_RELAYS_MAX);
        let share = streams.end.saturating_sub(streams.start) / (relays.len() as u64).max(1);
        let neighbours = relays.into_iter().zip(0..).map(|(node, n)| {
            let begin = streams.start + n * share;
            let region = RelayRegion { id: RegionId(n + 1), nodes: vec![node], ..RelayRegion::default() };
            let config = LinkConfig {
                identity: identity.clone(),
                region,
                streams: begin..begin + share,
                mesh: Some(key.clone()),
            };
            let link = RelayLink::new(config, seed.fork(&format!("mesh link {n}")), now);
            Neighbour { link, stream: None }
        });
        Self { clock, neighbours: neighbours.collect(), streams, out: Outbox::default() }
    }

    /// Whether this stream is one of the mesh's: whose inputs to give to it.
    #[must_use]
    pub fn owns(&self, stream: StreamId) -> bool {
        self.streams.contains(&stream.0)
    }

    /// The relays that are connected.
    pub fn up(&self) -> impl Iterator<Item = usize> + '_ {
        self.neighbours.iter().enumerate().filter(|(_, n)| n.stream.is_some()).map(|(relay, _)| relay)
    }

    fn give(&mut self, relay: usize, input: Input<'_, LinkCommand>, now: Time) {
        let Some(Neighbour { link, stream }) = self.neighbours.get_mut(relay) else { return };
        link.handle(input, now);
        while let Some(output) = link.poll() {
            let Some(event) = output.into_event(&mut self.out) else { continue };
            match event {
                LinkEvent::Up { stream: fresh } => {
                    if let Some((link, _)) = stream.replace((fresh, now)) {
                        self.out.event(MeshEvent::Change(MeshChange::Lost { link }));
                    }
                    self.out.event(MeshEvent::Up { relay, stream: fresh });
                }
                LinkEvent::Down { why } => {
                    if let Some((link, _)) = stream.take() {
                        self.out.event(MeshEvent::Change(MeshChange::Lost { link }));
                    }
                    self.out.event(MeshEvent::Down { relay, why });
                }
                LinkEvent::Itself => self.out.event(MeshEvent::Itself { relay }),
                LinkEvent::PeerPresent { peer: key } => {
                    if let Some((link, since)) = *stream {
                        let fresh = now.since(since) >= limits::MESH_FLOOD;
                        self.out.event(MeshEvent::Change(MeshChange::Present { link, key, fresh }));
                    }
                }
                LinkEvent::PeerGone { peer: key, .. } => {
                    if let Some((link, _)) = *stream {
                        self.out.event(MeshEvent::Change(MeshChange::Gone { link, key }));
                    }
                }
                // Nobody sends packets to a relay, and there is no other way to that one.
                LinkEvent::Packet { .. }
                | LinkEvent::Leaving
                | LinkEvent::Health { .. }
                | LinkEvent::Wondering
                | LinkEvent::Silent { .. } => {}
            }
        }
    }

    fn give_all(&mut self, input: Input<'_, LinkCommand>, now: Time) {
        for relay in 0..self.neighbours.len() {
            self.give(relay, again(&input), now);
        }
    }
}

/// The same input once more.
fn again<'a>(input: &Input<'a, LinkCommand>) -> Input<'a, LinkCommand> {
    match input {
        Input::Command(command) => Input::Command(command.clone()),
        Input::Resolved { name, addresses } => Input::Resolved { name, addresses },
        _ => Input::Deadline,
    }
}

impl Machine for RelayMesh {
    type Command = MeshCommand;
    type Event = MeshEvent;

    fn handle(&mut self, input: Input<'_, MeshCommand>, now: Time) {
        let now = self.clock.clamp(now);
        let owner = |mesh: &Self, stream| mesh.neighbours.iter().position(|n| n.link.owns(stream));
        match input {
            Input::Command(MeshCommand::Connect) => self.give_all(Input::Command(LinkCommand::Connect), now),
            Input::Command(MeshCommand::Close) => self.give_all(Input::Command(LinkCommand::Close), now),
            Input::Resolved { name, addresses } => self.give_all(Input::Resolved { name, addresses }, now),
            Input::StreamOpened { stream } => {
                if let Some(relay) = owner(self, stream) {
                    self.give(relay, Input::StreamOpened { stream }, now);
                }
            }
            Input::StreamBytes { stream, bytes } => {
                if let Some(relay) = owner(self, stream) {
                    self.give(relay, Input::StreamBytes { stream, bytes }, now);
                }
            }
            Input::StreamClosed { stream, why } => {
                if let Some(relay) = owner(self, stream) {
                    self.give(relay, Input::StreamClosed { stream, why }, now);
                }
            }
            _ => {}
        }
        for relay in 0..self.neighbours.len() {
            if self.neighbours[relay].link.deadline().is_some_and(|(at, _)| at <= now) {
                self.give(relay, Input::Deadline, now);
            }
        }
    }

    fn poll(&mut self) -> Option<Output<MeshEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        self.neighbours.iter().map(|neighbour| neighbour.link.deadline()).fold(None, earliest)
    }
}

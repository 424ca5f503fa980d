//! All relay connections of a node: its home always, other regions as long as they are used.

use super::GoneReason;
use crate::id::{RegionId, StreamId};
use crate::key::{NodePublic, NodeSecret};
use crate::machine::{Input, Machine, Outbox, Output};
use crate::relay_map::RelayMap;
use crate::seed::Seed;
use crate::time::{Monotone, Time};
use core::ops::Range;

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Who logs in: the node's own key.
    pub identity: NodeSecret,
    /// The stream names it may use, round and round; at least 2^20.
    pub streams: Range<u64>,
}

/// What a pool's owner asks of it.
#[derive(Clone, PartialEq, Debug)]
pub enum PoolCommand {
    /// The relay map; replaces the one said before. Connections to what did not change stay.
    SetMap(RelayMap),
    /// The home region, connected always; region 0 for none.
    Home(RegionId),
    /// A second region to keep connected, so that a failover finds it ready; region 0 for none.
    Warm(RegionId),
    /// Connect to this region if it isn't, and keep it as long as it is used.
    Want(RegionId),
    /// Send a packet through a region, connecting to it if need be.
    Send {
        /// Through which region.
        region: RegionId,
        /// To whom.
        to: NodePublic,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// The network changed: connect anew everywhere, at once.
    Kick,
}

/// What a pool tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PoolEvent {
    /// A region can be used: SendPacket frames may be written to this stream, which replaces any said before.
    Up {
        /// The region.
        region: RegionId,
        /// The stream.
        stream: StreamId,
    },
    /// A region cannot be used (any more).
    Down {
        /// The region.
        region: RegionId,
        /// Why, in words for a person.
        why: String,
    },
    /// A packet arrived that the hot path left to the machine.
    Packet {
        /// Through which region.
        region: RegionId,
        /// From whom.
        from: NodePublic,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// A relay says that a peer is not there.
    PeerGone {
        /// Which region.
        region: RegionId,
        /// The peer.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
}

/// All relay connections of a node. [`Input::Activity`] by way of a relay keeps its region connected and
/// counts as a sign of life: give it to the pool as it comes.
#[derive(Debug)]
pub struct RelayPool {
    config: PoolConfig,
    clock: Monotone,
    out: Outbox<PoolEvent>,
}

impl RelayPool {
    /// A pool without a map.
    #[must_use]
    pub fn new(config: PoolConfig, seed: Seed, now: Time) -> Self {
        let _ = seed;
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self { config, clock, out: Outbox::default() }
    }

    /// Whether this stream is one of the pool's: whose inputs to give to it.
    #[must_use]
    pub fn owns(&self, stream: StreamId) -> bool {
        self.config.streams.contains(&stream.0)
    }

    /// The stream to write SendPacket frames to, while the region is up.
    #[must_use]
    pub fn stream(&self, region: RegionId) -> Option<StreamId> {
        let _ = region;
        None
    }

    /// The regions that are up.
    pub fn up(&self) -> impl Iterator<Item = RegionId> + '_ {
        core::iter::empty()
    }
}

impl Machine for RelayPool {
    type Command = PoolCommand;
    type Event = PoolEvent;

    fn handle(&mut self, input: Input<'_, PoolCommand>, now: Time) {
        let _ = (self.clock.clamp(now), input);
    }

    fn poll(&mut self) -> Option<Output<PoolEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        None
    }
}

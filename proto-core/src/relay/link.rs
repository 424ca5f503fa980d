//! One relay connection, client end: find a node of the region, log in, notice when it dies, come back.

use super::GoneReason;
use crate::id::StreamId;
use crate::key::{NodePublic, NodeSecret};
use crate::machine::{Input, Machine, Outbox, Output};
use crate::seed::Seed;
use crate::time::{Monotone, Time};
use core::ops::Range;

/// What a relay link is made of.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Who logs in: the node's own key.
    pub identity: NodeSecret,
    /// The stream names it may use, round and round; at least 16.
    pub streams: Range<u64>,
}

/// What a link's owner asks of it.
#[derive(Clone, PartialEq, Debug)]
pub enum LinkCommand {
    /// Connect, and stay connected until [`LinkCommand::Close`].
    Connect,
    /// Give the connection up.
    Close,
    /// Whether this is our home: the server counts it.
    Preferred(bool),
    /// Send a packet. While the link is not up it waits in a short queue, the oldest dropped.
    Send {
        /// To whom.
        to: NodePublic,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// The network changed: connect anew at once. A connection that still works is kept until the new one
    /// is up.
    Kick,
}

/// What a link tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// Logged in: SendPacket frames may be written to this stream, which replaces any said before.
    Up {
        /// The stream.
        stream: StreamId,
    },
    /// Not connected any more, or the first attempt failed; it is tried again.
    Down {
        /// Why, in words for a person.
        why: String,
    },
    /// A packet arrived that the hot path left to the machine.
    Packet {
        /// From whom.
        from: NodePublic,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// The relay says that a peer is not there.
    PeerGone {
        /// The peer.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
}

/// One relay connection, client end.
///
/// [`Input::Activity`] received by way of this region counts as a sign of life.
#[derive(Debug)]
pub struct RelayLink {
    config: LinkConfig,
    clock: Monotone,
    out: Outbox<LinkEvent>,
}

impl RelayLink {
    /// A link that waits for [`LinkCommand::Connect`].
    #[must_use]
    pub fn new(config: LinkConfig, seed: Seed, now: Time) -> Self {
        let _ = seed;
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self { config, clock, out: Outbox::default() }
    }

    /// The stream to write SendPacket frames to, while the link is up.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        None
    }
}

impl Machine for RelayLink {
    type Command = LinkCommand;
    type Event = LinkEvent;

    fn handle(&mut self, input: Input<'_, LinkCommand>, now: Time) {
        let _ = (self.clock.clamp(now), input, &self.config);
    }

    fn poll(&mut self) -> Option<Output<LinkEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        None
    }
}

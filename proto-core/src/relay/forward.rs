//! How packets pass through a relay: a table of who is where, and each connection's bounded queue. Pure
//! structs without a clock, called inline by the adapter's connection tasks and by the simulator.
//!
//! A connection's reading task owns a [`Sender`]; every connection's [`SendQueue`] sits behind a lock of its
//! own; the [`ForwardTable`] is shared and changes only when somebody joins or leaves.

use crate::id::StreamId;
use crate::key::NodePublic;
use crate::time::Time;
use std::collections::{BTreeMap, BTreeSet};

/// What kind of packet it is, as far as a relay can tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PacketKind {
    /// A disco message: small, rare, and what finds the direct path.
    Disco,
    /// Anything else.
    Data,
}

impl PacketKind {
    /// The kind of this payload, by disco's magic and shortest length.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        let _ = payload;
        Self::Data
    }
}

/// Why a packet was dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DropReason {
    /// No connection has the destination's key.
    UnknownDestination,
    /// The destination's connection went away with the packet still queued.
    Gone,
    /// It was the oldest in a full queue.
    QueueHead,
}

/// What passed through a relay, or one connection of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ForwardCounters {
    /// Packets received.
    pub packets_in: u64,
    /// Bytes of them, payload only.
    pub bytes_in: u64,
    /// Disco packets among them.
    pub disco_in: u64,
    /// Packets handed to a writer.
    pub packets_out: u64,
    /// Bytes of them, with frame headers.
    pub bytes_out: u64,
    /// Packets dropped, by [`DropReason`] (row) and [`PacketKind`] (column).
    pub dropped: [[u64; 2]; 3],
    /// PeerGone (not here) frames sent.
    pub not_here: u64,
}

impl ForwardCounters {
    /// Adds `other`, which is left at zero: how a connection's counts reach the relay's.
    pub fn absorb(&mut self, other: &mut Self) {
        let _ = other;
    }
}

/// A change of the table, said by [`super::RelayServer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableChange {
    /// Whose entry.
    pub key: NodePublic,
    /// The active connection; none if the key has left.
    pub active: Option<StreamId>,
    /// How many connections the key has.
    pub connections: usize,
}

/// Who is where. `H` is the adapter's handle of a connection: its queue, behind a lock of its own.
#[derive(Clone, Debug)]
pub struct ForwardTable<H> {
    entries: BTreeMap<NodePublic, (StreamId, H)>,
    contested: BTreeSet<NodePublic>,
}

impl<H> Default for ForwardTable<H> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), contested: BTreeSet::new() }
    }
}

impl<H> ForwardTable<H> {
    /// Makes a change; `handle` is the active connection's, none if it is not known any more.
    pub fn apply(&mut self, change: TableChange, handle: Option<H>) {
        let _ = (change, handle);
    }

    /// The active connection of `key`.
    #[must_use]
    pub fn find(&self, key: &NodePublic) -> Option<&H> {
        self.entries.get(key).map(|(_, handle)| handle)
    }

    /// Whether `stream` is a connection of `key`, but not the active one. If so, and a frame of any kind came
    /// from it, say [`super::ServerCommand::Spoke`].
    #[must_use]
    pub fn dormant(&self, key: &NodePublic, stream: StreamId) -> bool {
        let _ = (key, stream, &self.contested);
        false
    }
}

/// The sending side of one connection: what its reading task keeps, without any lock.
#[derive(Debug)]
pub struct Sender {
    key: NodePublic,
    /// What has been received and dropped on this side; absorb it into the relay's now and then.
    pub counters: ForwardCounters,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forwarded<H> {
    /// Where to queue the packet; none if it is dropped.
    pub to: Option<H>,
    /// This is the sender's first packet to that key: say [`super::ServerCommand::FirstPacket`].
    pub first: bool,
    /// Tell the sender that the destination is not here: [`SendQueue::push_gone`] on its own queue.
    pub not_here: bool,
}

impl Sender {
    /// The sending side of a connection of `key`.
    #[must_use]
    pub fn new(key: NodePublic) -> Self {
        Self { key, counters: ForwardCounters::default() }
    }

    /// Whose it is.
    #[must_use]
    pub const fn key(&self) -> &NodePublic {
        &self.key
    }

    /// Decides where a packet goes.
    pub fn forward<'t, H>(
        &mut self,
        table: &'t ForwardTable<H>,
        to: &NodePublic,
        payload: &[u8],
        now: Time,
    ) -> Forwarded<&'t H> {
        let _ = (payload, now);
        Forwarded { to: table.find(to), first: false, not_here: false }
    }
}

/// What waits to be written to one connection: whole frames, control ahead of disco ahead of data, bounded
/// in frames and bytes, the oldest dropped.
#[derive(Debug, Default)]
pub struct SendQueue {
    /// What has been dropped and handed out on this side; absorb it into the relay's now and then.
    pub counters: ForwardCounters,
}

impl SendQueue {
    /// Queues a packet as a RecvPacket frame. True if the queue was empty: wake the writer.
    pub fn push(&mut self, from: &NodePublic, payload: &[u8]) -> bool {
        let _ = (from, payload);
        false
    }

    /// Queues whole frames that the relay itself says. True if the queue was empty: wake the writer.
    pub fn push_control(&mut self, frames: &[u8]) -> bool {
        let _ = frames;
        false
    }

    /// Queues PeerGone (not here). True if the queue was empty: wake the writer.
    pub fn push_gone(&mut self, peer: &NodePublic) -> bool {
        let _ = peer;
        false
    }

    /// Moves whole frames to the end of `out`, at least one if any waits and then up to `max` bytes in all.
    /// If `out` is empty this mostly swaps buffers instead of copying.
    pub fn take(&mut self, max: usize, out: &mut Vec<u8>) {
        let _ = (max, out);
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        0
    }

    /// Drops everything, counted as [`DropReason::Gone`]: the connection has ended.
    pub fn abandon(&mut self) {}
}

//! How packets pass through a relay: a table of who is where. Pure structs without a clock, called inline by
//! the adapter's connection tasks and by the simulator.
//!
//! A connection's reading task owns a [`Sender`]; every connection's [`super::SendQueue`] sits behind a lock of
//! its own; the [`ForwardTable`] is shared and changes only when somebody joins or leaves.

use crate::id::StreamId;
use crate::key::{KeyHash, KeyMap, NodePublic};
use crate::limits;
use crate::seed::Seed;
use crate::time::Time;
use crate::wire::disco;

mod seen;
#[cfg(test)]
mod tests;

use seen::{Bounds, Pool, Seen};

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
        // Disco's magic alone is not enough: Tailscale's relays ask for a whole envelope, too.
        if payload.len() >= disco::ENVELOPE_MIN && payload.starts_with(&disco::MAGIC) {
            Self::Disco
        } else {
            Self::Data
        }
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
    /// Another relay of the mesh sent it on, but no connection has the destination's key (any more).
    UnknownForwarded,
    /// It was in a queue, or would have been, when all queues together held as much as they may.
    Crowded,
}

impl DropReason {
    /// How many there are.
    const COUNT: usize = 5;
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
    /// Bytes of the disco packets among them.
    pub disco_bytes_in: u64,
    /// Packets handed to a writer.
    pub packets_out: u64,
    /// Bytes handed to a writer, with frame headers: packets, and what the relay itself says.
    pub bytes_out: u64,
    /// Disco packets among them.
    pub disco_out: u64,
    /// Bytes of the disco packets among them.
    pub disco_bytes_out: u64,
    /// Bytes of what the relay itself says among them.
    pub control_bytes_out: u64,
    /// Packets dropped, by [`DropReason`] (row) and [`PacketKind`] (column).
    pub dropped: [[u64; 2]; DropReason::COUNT],
    /// PeerGone (not here) frames sent.
    pub not_here: u64,
    /// Packets among those received that came from other relays of the mesh.
    pub mesh_in: u64,
    /// Packets handed on to other relays of the mesh.
    pub mesh_out: u64,
}

impl ForwardCounters {
    /// Adds `other`, which is left at zero: how a connection's counts reach the relay's.
    pub fn absorb(&mut self, other: &mut Self) {
        let other = core::mem::take(other);
        for (ours, theirs) in [
            (&mut self.packets_in, other.packets_in),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.disco_in, other.disco_in),
            (&mut self.disco_bytes_in, other.disco_bytes_in),
            (&mut self.packets_out, other.packets_out),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.disco_out, other.disco_out),
            (&mut self.disco_bytes_out, other.disco_bytes_out),
            (&mut self.control_bytes_out, other.control_bytes_out),
            (&mut self.not_here, other.not_here),
            (&mut self.mesh_in, other.mesh_in),
            (&mut self.mesh_out, other.mesh_out),
        ] {
            *ours += theirs;
        }
        for (ours, theirs) in self.dropped.iter_mut().flatten().zip(other.dropped.iter().flatten()) {
            *ours += theirs;
        }
    }

    /// Packets of this kind dropped for this reason.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason, kind: PacketKind) -> u64 {
        self.dropped[reason as usize][kind as usize]
    }

    pub(super) const fn drop(&mut self, reason: DropReason, kind: PacketKind, packets: u64) {
        self.dropped[reason as usize][kind as usize] += packets;
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
    hash: KeyHash,
    entries: KeyMap<(StreamId, H)>,
    contested: KeyMap<()>,
    /// Keys that are at another relay of the mesh, and the link to it.
    elsewhere: KeyMap<H>,
    /// What its senders remember in.
    pool: Pool,
}

impl<H> ForwardTable<H> {
    /// Nobody is anywhere yet. The seed keeps those who choose keys from choosing where they lie in here.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        let hash = KeyHash::new(&seed.fork("forward table"));
        Self {
            hash,
            entries: KeyMap::new(hash),
            contested: KeyMap::new(hash),
            elsewhere: KeyMap::new(hash),
            pool: Pool::new(limits::RELAY_SEEN_SHARED),
        }
    }

    /// Makes a change; `handle` is the active connection's, none if it is not known any more.
    pub fn apply(&mut self, change: TableChange, handle: Option<H>) {
        let TableChange { key, active, connections } = change;
        match (active, handle) {
            (Some(stream), Some(handle)) => _ = self.entries.insert(key, (stream, handle)),
            _ => _ = self.entries.remove(&key),
        }
        if connections > 1 {
            self.contested.insert(key, ());
        } else {
            self.contested.remove(&key);
        }
    }

    /// Says by which link of the mesh a key is reached; none if by none.
    pub fn apply_elsewhere(&mut self, key: NodePublic, link: Option<H>) {
        match link {
            Some(link) => _ = self.elsewhere.insert(key, link),
            None => _ = self.elsewhere.remove(&key),
        }
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
        // Hardly any key is contested, and then this costs one look.
        self.contested.contains(key) && self.entries.get(key).is_none_or(|(active, _)| *active != stream)
    }
}

/// The sending side of one connection: what its reading task keeps, without any lock.
#[derive(Debug)]
pub struct Sender {
    key: NodePublic,
    /// Keys that it has sent to.
    seen: Seen,
    notices: u32,
    refilled: Time,
    /// What has been received and dropped on this side; absorb it into the relay's now and then.
    pub counters: ForwardCounters,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forwarded<H> {
    /// Where to queue the packet; none if it is dropped.
    pub to: Option<H>,
    /// That is a link of the mesh: queue it by [`super::SendQueue::push_forward`].
    pub elsewhere: bool,
    /// This is the sender's first packet to that key, or counts as one: say [`super::ServerCommand::FirstPacket`].
    pub first: bool,
    /// Tell the sender that the destination is not here: `SendQueue::push_gone` on its own queue.
    pub not_here: bool,
}

impl<H: Copy> Forwarded<&H> {
    /// The same with a handle of one's own.
    #[must_use]
    pub fn copied(self) -> Forwarded<H> {
        let Self { to, elsewhere, first, not_here } = self;
        Forwarded { to: to.copied(), elsewhere, first, not_here }
    }
}

impl Sender {
    /// The sending side of a connection of `key`, for packets that go by this table.
    #[must_use]
    pub fn new<H>(key: NodePublic, table: &ForwardTable<H>, now: Time) -> Self {
        Self {
            key,
            seen: Seen::new(table.hash, &table.pool),
            notices: limits::NOT_HERE_BURST,
            refilled: now,
            counters: ForwardCounters::default(),
        }
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
        let kind = self.count(payload);
        if let Some(handle) = table.find(to) {
            let first = self.seen.is_first(to, Bounds::CLIENT, now);
            return Forwarded { to: Some(handle), elsewhere: false, first, not_here: false };
        }
        if let Some(link) = table.elsewhere.get(to) {
            self.counters.mesh_out += 1;
            return Forwarded { to: Some(link), elsewhere: true, first: false, not_here: false };
        }
        self.drop(DropReason::UnknownDestination, kind, now)
    }

    /// As [`Sender::forward`], for a packet to where the last one went, as long as the table is the same.
    pub fn forward_again<H>(&mut self, (handle, elsewhere): (H, bool), payload: &[u8]) -> Forwarded<H> {
        self.count(payload);
        self.counters.mesh_out += u64::from(elsewhere);
        Forwarded { to: Some(handle), elsewhere, first: false, not_here: false }
    }

    /// Decides where a packet goes that another relay of the mesh sends on, which is this sender. It goes to who is
    /// here, and never on to a third relay.
    pub fn deliver<'t, H>(
        &mut self,
        table: &'t ForwardTable<H>,
        (from, to): (&NodePublic, &NodePublic),
        payload: &[u8],
        now: Time,
    ) -> Forwarded<&'t H> {
        let kind = self.count(payload);
        self.counters.mesh_in += 1;
        let Some(handle) = table.find(to) else {
            return self.drop(DropReason::UnknownForwarded, kind, now);
        };
        // One relay sends for many: of each pair it is seen once.
        let pair = NodePublic(core::array::from_fn(|n| from.0[n] ^ to.0[(n + 1) % to.0.len()]));
        let first = self.seen.is_first(&pair, Bounds::MESH, now);
        Forwarded { to: Some(handle), elsewhere: false, first, not_here: false }
    }

    fn drop<H>(&mut self, reason: DropReason, kind: PacketKind, now: Time) -> Forwarded<H> {
        self.counters.drop(reason, kind, 1);
        // Data to an absent peer is dropped in silence; a disco message means that somebody searches.
        let not_here = kind == PacketKind::Disco && self.may_notify(now);
        self.counters.not_here += u64::from(not_here);
        Forwarded { to: None, elsewhere: false, first: false, not_here }
    }

    fn count(&mut self, payload: &[u8]) -> PacketKind {
        let kind = PacketKind::of(payload);
        self.counters.packets_in += 1;
        self.counters.bytes_in += payload.len() as u64;
        if kind == PacketKind::Disco {
            self.counters.disco_in += 1;
            self.counters.disco_bytes_in += payload.len() as u64;
        }
        kind
    }

    /// One notice a second, and a few at once.
    fn may_notify(&mut self, now: Time) -> bool {
        let periods = now.since(self.refilled).as_micros() / limits::NOT_HERE_EVERY.as_micros();
        if periods > 0 {
            let periods = u32::try_from(periods).unwrap_or(u32::MAX);
            self.notices = self.notices.saturating_add(periods).min(limits::NOT_HERE_BURST);
            self.refilled += limits::NOT_HERE_EVERY.saturating_mul(periods);
        }
        let may = self.notices > 0;
        self.notices = self.notices.saturating_sub(1);
        may
    }
}

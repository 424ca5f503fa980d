//! How packets pass through a relay: a table of who is where, and each connection's bounded queue. Pure
//! structs without a clock, called inline by the adapter's connection tasks and by the simulator.
//!
//! A connection's reading task owns a [`Sender`]; every connection's [`SendQueue`] sits behind a lock of its
//! own; the [`ForwardTable`] is shared and changes only when somebody joins or leaves.

use crate::id::StreamId;
use crate::key::NodePublic;
use crate::limits;
use crate::time::Time;
use crate::wire::derp::{Frame, FrameKind, GoneReason, PACKET_MAX, packet_header};
use crate::wire::disco;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[cfg(test)]
mod tests;

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
        let Self { packets_in, bytes_in, disco_in, packets_out, bytes_out, dropped, not_here } =
            core::mem::take(other);
        self.packets_in += packets_in;
        self.bytes_in += bytes_in;
        self.disco_in += disco_in;
        self.packets_out += packets_out;
        self.bytes_out += bytes_out;
        self.not_here += not_here;
        for (ours, theirs) in self.dropped.iter_mut().flatten().zip(dropped.iter().flatten()) {
            *ours += theirs;
        }
    }

    /// Packets of this kind dropped for this reason.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason, kind: PacketKind) -> u64 {
        self.dropped[reason as usize][kind as usize]
    }

    const fn drop(&mut self, reason: DropReason, kind: PacketKind, packets: u64) {
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
        let TableChange { key, active, connections } = change;
        match (active, handle) {
            (Some(stream), Some(handle)) => _ = self.entries.insert(key, (stream, handle)),
            _ => _ = self.entries.remove(&key),
        }
        if connections > 1 {
            self.contested.insert(key);
        } else {
            self.contested.remove(&key);
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
    /// Keys that it has sent to; forgotten when there are too many, which only repeats a word.
    seen: BTreeSet<NodePublic>,
    last: Option<NodePublic>,
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
    /// This is the sender's first packet to that key: say [`super::ServerCommand::FirstPacket`].
    pub first: bool,
    /// Tell the sender that the destination is not here: [`SendQueue::push_gone`] on its own queue.
    pub not_here: bool,
}

impl Sender {
    /// The sending side of a connection of `key`.
    #[must_use]
    pub fn new(key: NodePublic, now: Time) -> Self {
        Self {
            key,
            seen: BTreeSet::new(),
            last: None,
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
        let kind = PacketKind::of(payload);
        self.counters.packets_in += 1;
        self.counters.bytes_in += payload.len() as u64;
        self.counters.disco_in += u64::from(kind == PacketKind::Disco);
        let Some(handle) = table.find(to) else {
            self.counters.drop(DropReason::UnknownDestination, kind, 1);
            // Data to an absent peer is dropped in silence; a disco message means that somebody searches.
            let not_here = kind == PacketKind::Disco && self.may_notify(now);
            self.counters.not_here += u64::from(not_here);
            return Forwarded { to: None, first: false, not_here };
        };
        Forwarded { to: Some(handle), first: self.is_first(to), not_here: false }
    }

    fn is_first(&mut self, to: &NodePublic) -> bool {
        if self.last.as_ref() == Some(to) {
            return false;
        }
        self.last = Some(*to);
        if self.seen.len() >= limits::RELAY_SEEN_MAX && !self.seen.contains(to) {
            self.seen.clear();
        }
        self.seen.insert(*to)
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

/// What waits to be written to one connection: whole frames, control ahead of disco ahead of data, bounded
/// in frames and bytes, the oldest dropped.
#[derive(Debug, Default)]
pub struct SendQueue {
    control: Lane,
    disco: Lane,
    data: Lane,
    /// What has been dropped and handed out on this side; absorb it into the relay's now and then.
    pub counters: ForwardCounters,
}

impl SendQueue {
    /// Queues a packet as a RecvPacket frame. True if the queue was empty: wake the writer.
    pub fn push(&mut self, from: &NodePublic, payload: &[u8]) -> bool {
        if payload.len() > PACKET_MAX {
            return false; // No decoder lets such a packet through.
        }
        let was_empty = self.is_empty();
        let kind = PacketKind::of(payload);
        let (lane, cap) = match kind {
            PacketKind::Disco => (&mut self.disco, limits::RELAY_QUEUE_DISCO),
            PacketKind::Data => (&mut self.data, limits::RELAY_QUEUE_DATA),
        };
        let header = packet_header(FrameKind::RecvPacket, from, payload.len());
        let dropped = lane.push(&header, payload, cap);
        self.counters.drop(DropReason::QueueHead, kind, dropped);
        was_empty
    }

    /// Queues one or more whole frames that the relay itself says. True if the queue was empty: wake the
    /// writer.
    pub fn push_control(&mut self, frames: &[u8]) -> bool {
        let was_empty = self.is_empty();
        self.control.push(&[], frames, limits::RELAY_QUEUE_CONTROL);
        was_empty
    }

    /// Queues PeerGone (not here). True if the queue was empty: wake the writer.
    pub fn push_gone(&mut self, peer: &NodePublic) -> bool {
        self.push_control(&Frame::PeerGone { peer: *peer, reason: GoneReason::NotHere }.to_bytes())
    }

    /// Moves whole frames to the end of `out`: at least one if any waits, and else no more than `max` bytes.
    /// If `out` is empty and everything fits, buffers are swapped instead of copied.
    pub fn take(&mut self, max: usize, out: &mut Vec<u8>) {
        let begin = out.len();
        for (lane, is_packet) in [(&mut self.control, false), (&mut self.disco, true), (&mut self.data, true)]
        {
            let taken = out.len() - begin;
            let frames = lane.take(max.saturating_sub(taken), taken == 0, out);
            self.counters.packets_out += if is_packet { frames } else { 0 };
            if !lane.is_empty() {
                break;
            }
        }
        self.counters.bytes_out += (out.len() - begin) as u64;
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.disco.is_empty() && self.data.is_empty()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.control.bytes() + self.disco.bytes() + self.data.bytes()
    }

    /// Drops everything, counted as [`DropReason::Gone`]: the connection has ended.
    pub fn abandon(&mut self) {
        self.counters.drop(DropReason::Gone, PacketKind::Disco, self.disco.lengths.len() as u64);
        self.counters.drop(DropReason::Gone, PacketKind::Data, self.data.lengths.len() as u64);
        (self.control, self.disco, self.data) = Default::default();
    }

    /// Gives back the memory of an empty queue: call it when nothing has been written for a while.
    pub fn relax(&mut self) {
        for lane in [&mut self.control, &mut self.disco, &mut self.data] {
            if lane.is_empty() {
                *lane = Lane::default();
            }
        }
    }
}

/// How much one lane holds: frames, bytes.
type LaneCap = (usize, usize);

/// Frames of one kind, back to back in one buffer.
#[derive(Default)]
struct Lane {
    buffer: Vec<u8>,
    /// Where the oldest frame begins in the buffer.
    head: usize,
    lengths: VecDeque<u32>,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    fn bytes(&self) -> usize {
        self.buffer.len() - self.head
    }

    /// Appends a frame and makes room for it; the number of frames dropped.
    fn push(&mut self, header: &[u8], payload: &[u8], (frames_max, bytes_max): LaneCap) -> u64 {
        let length = header.len() + payload.len();
        let mut dropped = 0;
        while !self.is_empty() && (self.lengths.len() >= frames_max || self.bytes() + length > bytes_max) {
            self.skip(1);
            dropped += 1;
        }
        // Dropped frames' room is used again before the buffer grows much beyond what it may hold.
        if self.head > 0 && self.head >= self.bytes() {
            self.buffer.drain(..self.head);
            self.head = 0;
        }
        self.buffer.extend_from_slice(header);
        self.buffer.extend_from_slice(payload);
        self.lengths.push_back(u32::try_from(length).unwrap_or(u32::MAX));
        dropped
    }

    /// Forgets the oldest frames; how many bytes they had.
    fn skip(&mut self, frames: usize) -> usize {
        let bytes = self.lengths.drain(..frames).map(|length| length as usize).sum();
        self.head += bytes;
        if self.is_empty() {
            self.buffer.clear();
            self.head = 0;
        }
        bytes
    }

    /// Moves frames of up to `max` bytes to `out`, at least one if it `must`; how many.
    fn take(&mut self, max: usize, must: bool, out: &mut Vec<u8>) -> u64 {
        if self.bytes() <= max && self.head == 0 && out.is_empty() {
            core::mem::swap(&mut self.buffer, out);
            let frames = self.lengths.len();
            self.lengths.clear();
            return frames as u64;
        }
        let (mut frames, mut bytes) = (0, 0);
        for length in &self.lengths {
            if bytes + *length as usize > max && !(must && frames == 0) {
                break;
            }
            bytes += *length as usize;
            frames += 1;
        }
        out.extend_from_slice(&self.buffer[self.head..self.head + bytes]);
        self.skip(frames);
        frames as u64
    }
}

impl core::fmt::Debug for Lane {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} frames of {} bytes", self.lengths.len(), self.bytes())
    }
}

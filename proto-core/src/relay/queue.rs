//! What waits to be written to one connection of a relay.

use super::{DropReason, ForwardCounters, PacketKind};
use crate::key::NodePublic;
use crate::limits;
use crate::wire::derp::{
    FRAME_HEADER_LEN, Frame, FrameKind, GoneReason, PACKET_MAX, forward_header, packet_header, peek,
};

mod budget;
#[cfg(test)]
mod tests;

pub use budget::Budget;

use budget::Share;

/// What waits to be written to one connection: whole frames, control ahead of disco ahead of data, bounded
/// in frames and bytes, the oldest dropped.
///
/// It holds memory for packets only while packets wait. An owner with many queues has room for packets at hand
/// and lends it ([`SendQueue::lend`]) to those that are about to be filled.
#[derive(Debug, Default)]
pub struct SendQueue {
    control: Lane,
    disco: Lane,
    data: Lane,
    /// Who comes and goes, for a relay of the mesh that watches.
    watch: Option<Box<Watch>>,
    /// Of what all queues of the relay may hold in packets.
    share: Share,
    /// Bytes of packets in what was taken last, which its owner holds until it comes for more.
    in_hand: usize,
    /// What has been dropped and handed out on this side; absorb it into the relay's now and then.
    pub counters: ForwardCounters,
}

impl SendQueue {
    /// A queue whose packets, and those that were taken last, count towards a budget. What the relay itself says does
    /// not: it must be said, and is little.
    #[must_use]
    pub fn within(budget: &Budget) -> Self {
        Self { share: Share::of(budget.clone()), ..Self::default() }
    }

    /// Queues a packet as a RecvPacket frame. True if the queue was empty: wake the writer.
    pub fn push(&mut self, from: &NodePublic, payload: &[u8]) -> bool {
        self.push_packet(&packet_header(FrameKind::RecvPacket, from, payload.len()), payload)
    }

    /// Queues a packet as a ForwardPacket frame, for another relay of the mesh. True if the queue was empty: wake
    /// the writer.
    pub fn push_forward(&mut self, from: &NodePublic, to: &NodePublic, payload: &[u8]) -> bool {
        self.push_packet(&forward_header(from, to, payload.len()), payload)
    }

    fn push_packet(&mut self, header: &[u8], payload: &[u8]) -> bool {
        if payload.len() > PACKET_MAX {
            return false; // No decoder lets such a packet through.
        }
        let was_empty = self.is_empty();
        let kind = PacketKind::of(payload);
        let length = header.len() + payload.len();
        let held = self.held();
        let may_hold = self.share.may_hold(held + length);
        let crowded = may_hold < held + length;
        let reason = if crowded { DropReason::Crowded } else { DropReason::QueueHead };
        let (lane, (frames_max, bytes_max)) = match kind {
            PacketKind::Disco => (&mut self.disco, limits::RELAY_QUEUE_DISCO),
            PacketKind::Data => (&mut self.data, limits::RELAY_QUEUE_DATA),
        };
        let room = may_hold.saturating_sub(held - lane.bytes());
        if length > room {
            self.counters.drop(reason, kind, 1);
            return false;
        }
        let dropped = lane.push(header, payload, (frames_max, bytes_max.min(room)));
        self.counters.drop(reason, kind, dropped);
        if crowded {
            self.share.holds(self.held());
        }
        was_empty
    }

    /// Bytes of packets, waiting and in hand.
    const fn held(&self) -> usize {
        self.in_hand + self.disco.bytes() + self.data.bytes()
    }

    /// Queues one or more whole frames that the relay itself says. True if the queue was empty: wake the
    /// writer.
    pub fn push_control(&mut self, frames: &[u8]) -> bool {
        let was_empty = self.is_empty();
        let mut rest = frames;
        while let Some((frame, after)) = peek(rest).and_then(|h| rest.split_at_checked(h.frame_len())) {
            let kind = FrameKind::from_u8(frame[0]);
            if kind == Some(FrameKind::PeerPresent) {
                self.watch.get_or_insert_default();
            }
            // Who watches hears of comings and goings in their order.
            let watches = matches!(kind, Some(FrameKind::PeerPresent | FrameKind::PeerGone));
            match self.watch.as_mut().filter(|_| watches) {
                Some(watch) => watch.lost |= watch.lane.push(frame, &[], limits::RELAY_QUEUE_WATCH) > 0,
                None => _ = self.control.push(frame, &[], limits::RELAY_QUEUE_CONTROL),
            }
            rest = after;
        }
        was_empty && !self.is_empty()
    }

    /// Whether a watcher has missed somebody's coming or going, since it reads too slowly: what it believes is wrong
    /// from now on, so its connection must end and begin again.
    #[must_use]
    pub fn has_lost_watch(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.lost)
    }

    /// Queues PeerGone (not here). True if the queue was empty: wake the writer.
    pub fn push_gone(&mut self, peer: &NodePublic) -> bool {
        self.push_control(&Frame::PeerGone { peer: *peer, reason: GoneReason::NotHere }.to_bytes())
    }

    /// Whether the next packet would have to ask for memory.
    #[must_use]
    pub const fn wants_room(&self) -> bool {
        self.data.buffer.capacity() == 0
    }

    /// Gives an empty buffer for packets to be put in; it comes out by [`SendQueue::take`].
    pub fn lend(&mut self, room: Vec<u8>) {
        if self.wants_room() && room.is_empty() {
            self.data.buffer = room;
        }
    }

    /// Moves whole frames to the end of `out`: at least one if any waits, and else no more than `max` bytes.
    /// If `out` is empty and everything fits, buffers are swapped instead of copied. What was taken before is not held
    /// any more.
    pub fn take(&mut self, max: usize, out: &mut Vec<u8>) {
        let begin = out.len();
        let before = self.disco.bytes() + self.data.bytes();
        let watch = self.watch.as_mut().map(|watch| (&mut watch.lane, None));
        let lanes = [
            Some((&mut self.control, None)),
            watch,
            Some((&mut self.disco, Some(PacketKind::Disco))),
            Some((&mut self.data, Some(PacketKind::Data))),
        ];
        for (lane, kind) in lanes.into_iter().flatten() {
            if lane.is_empty() {
                continue;
            }
            let taken = out.len() - begin;
            let frames = lane.take(max.saturating_sub(taken), taken == 0, out);
            let bytes = (out.len() - begin - taken) as u64;
            match kind {
                None => self.counters.control_bytes_out += bytes,
                Some(PacketKind::Disco) => {
                    self.counters.packets_out += frames;
                    self.counters.disco_out += frames;
                    self.counters.disco_bytes_out += bytes;
                }
                Some(PacketKind::Data) => self.counters.packets_out += frames,
            }
            if !lane.is_empty() {
                break;
            }
        }
        self.counters.bytes_out += (out.len() - begin) as u64;
        self.in_hand = before - self.disco.bytes() - self.data.bytes();
        self.share.holds(before);
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let watch = self.watch.as_ref().is_none_or(|watch| watch.lane.is_empty());
        self.control.is_empty() && watch && self.disco.is_empty() && self.data.is_empty()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let watch = self.watch.as_ref().map_or(0, |watch| watch.lane.bytes());
        self.control.bytes() + watch + self.disco.bytes() + self.data.bytes()
    }

    /// Drops everything, counted as [`DropReason::Gone`]: the connection has ended.
    pub fn abandon(&mut self) {
        self.counters.drop(DropReason::Gone, PacketKind::Disco, self.disco.frames as u64);
        self.counters.drop(DropReason::Gone, PacketKind::Data, self.data.frames as u64);
        (self.control, self.disco, self.data, self.watch) = Default::default();
        self.in_hand = 0;
        self.share.holds(0);
    }
}

/// What waits for a watcher.
#[derive(Debug, Default)]
struct Watch {
    lane: Lane,
    /// Something was dropped from it.
    lost: bool,
}

/// How much one lane holds: frames, bytes.
type LaneCap = (usize, usize);

/// An empty lane keeps no more memory than this, in bytes: what the relay's own words need.
const KEPT: usize = 1_024;

/// Frames of one kind, back to back in one buffer. Each frame's header tells where the next one begins.
#[derive(Default)]
struct Lane {
    buffer: Vec<u8>,
    /// Where the oldest frame begins in the buffer.
    head: usize,
    frames: usize,
}

impl Lane {
    const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    const fn bytes(&self) -> usize {
        self.buffer.len() - self.head
    }

    /// Appends a frame, given in two pieces, and makes room for it; the number of frames dropped.
    fn push(&mut self, start: &[u8], rest: &[u8], (frames_max, bytes_max): LaneCap) -> u64 {
        let length = start.len() + rest.len();
        let mut dropped = 0;
        while !self.is_empty() && (self.frames >= frames_max || self.bytes() + length > bytes_max) {
            self.skip(1, self.length_at(self.head));
            dropped += 1;
        }
        // Dropped frames' room is used again before the buffer grows much beyond what it may hold.
        if self.head > 0 && self.head >= self.bytes() {
            self.buffer.drain(..self.head);
            self.head = 0;
        }
        self.buffer.extend_from_slice(start);
        self.buffer.extend_from_slice(rest);
        self.frames += 1;
        dropped
    }

    /// Bytes of the frame that begins here.
    fn length_at(&self, at: usize) -> usize {
        peek(&self.buffer[at..]).map_or(FRAME_HEADER_LEN, |header| header.frame_len())
    }

    /// Forgets the oldest frames, which have this many bytes.
    fn skip(&mut self, frames: usize, bytes: usize) {
        self.head += bytes;
        self.frames -= frames;
        if self.is_empty() {
            self.head = 0;
            if self.buffer.capacity() > KEPT {
                self.buffer = Vec::new();
            }
            self.buffer.clear();
        }
    }

    /// Moves frames of up to `max` bytes to `out`, at least one if it `must`; how many.
    fn take(&mut self, max: usize, must: bool, out: &mut Vec<u8>) -> u64 {
        if self.bytes() <= max && self.head == 0 && out.is_empty() {
            core::mem::swap(&mut self.buffer, out);
            return core::mem::take(&mut self.frames) as u64;
        }
        let (mut frames, mut bytes) = (0, 0);
        while frames < self.frames {
            let length = self.length_at(self.head + bytes);
            if bytes + length > max && !(must && frames == 0) {
                break;
            }
            bytes += length;
            frames += 1;
        }
        out.extend_from_slice(&self.buffer[self.head..self.head + bytes]);
        self.skip(frames, bytes);
        frames as u64
    }
}

impl core::fmt::Debug for Lane {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} frames of {} bytes", self.frames, self.bytes())
    }
}

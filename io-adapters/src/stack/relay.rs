//! Relay streams as the hot path sees them: packets for the tunnel are peeled off what arrives, everything else
//! goes on to the node machine in whole frames; what is sent is collected, and never more than the stream takes.

use proto_core::id::{RegionId, StreamId};
use proto_core::key::NodePublic;
use proto_core::wire::derp::{self, FRAME_HEADER_LEN, FrameKind, Header};
use proto_core::wire::{Kind, classify};

/// Bytes of one [`proto_core::machine::Output::Write`]: what one system call or TLS record batch takes.
pub(super) const CHUNK: usize = 64 << 10;
/// Bytes that may be written before the stream's owner has said anything of its credit.
const FIRST_CREDIT: usize = 256 << 10;
/// Bytes of handshakes and copies that may be written beyond the credit, so that a full stream does not keep a
/// tunnel from being made.
const OVERDRAFT: usize = 64 << 10;
/// Bytes of a delivered packet's frame before the packet: header and the sender's key.
const PACKET_START: usize = FRAME_HEADER_LEN + 32;

/// One relay stream.
#[derive(Debug)]
pub(super) struct RelayStream {
    /// The region, once the relay has let us in.
    pub(super) region: Option<RegionId>,
    /// What arrives.
    pub(super) peeler: Peeler,
    credit: usize,
    /// Frames that wait to be written.
    waiting: Vec<u8>,
}

/// Cuts what arrives into frames.
#[derive(Debug, Default)]
pub(super) struct Peeler {
    /// The beginning of a frame whose rest has not arrived.
    partial: Vec<u8>,
    /// Bytes of a frame that is too long to keep, yet to be passed on.
    passing: usize,
    /// Whether what arrives makes no sense any more: the node machine shall say so.
    broken: bool,
}

/// A piece of what arrived on a relay stream.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Peeled<'a> {
    /// For the tunnel: who sent it, as the relay knows, and the packet.
    Packet(NodePublic, &'a [u8]),
    /// For the node machine: whole frames.
    Frames(&'a [u8]),
}

impl Peeler {
    /// Cuts what arrived into packets and frames, and gives them to `each` in order.
    pub(super) fn peel(&mut self, bytes: &[u8], mut each: impl FnMut(Peeled<'_>)) {
        if self.partial.is_empty() {
            let taken = self.peel_whole(bytes, &mut each);
            self.partial.extend_from_slice(&bytes[taken..]);
            return;
        }
        let mut all = std::mem::take(&mut self.partial);
        let mut rest = bytes;
        // Complete the frame that had begun, then go on with the bytes as they came.
        while !rest.is_empty() {
            let missing = match derp::peek(&all) {
                None => FRAME_HEADER_LEN - all.len(),
                Some(header) => header.frame_len().saturating_sub(all.len()),
            };
            let (now, later) = rest.split_at(missing.min(rest.len()));
            all.extend_from_slice(now);
            rest = later;
            let taken = self.peel_whole(&all, &mut each);
            all.drain(..taken);
            if all.is_empty() {
                let taken = self.peel_whole(rest, &mut each);
                all.extend_from_slice(&rest[taken..]);
                break;
            }
        }
        self.partial = all;
    }

    /// As [`Peeler::peel`] for the whole frames at the start of `bytes`: how many bytes they take.
    fn peel_whole(&mut self, bytes: &[u8], each: &mut impl FnMut(Peeled<'_>)) -> usize {
        // Frames for the node machine are passed on in one piece, from `from` to `at`.
        let (mut from, mut at) = (0, 0);
        loop {
            if self.broken {
                at = bytes.len();
                break;
            }
            if self.passing > 0 {
                let n = self.passing.min(bytes.len() - at);
                self.passing -= n;
                at += n;
            }
            let Some(header) = derp::peek(&bytes[at..]) else { break };
            if header.check().is_err() {
                self.broken = true;
                continue;
            }
            if !header.is_known() {
                self.passing = header.frame_len();
                continue;
            }
            let Some(frame) = bytes.get(at..at + header.frame_len()) else { break };
            if let Some((sender, packet)) = packet_in(&header, frame) {
                if from < at {
                    each(Peeled::Frames(&bytes[from..at]));
                }
                each(Peeled::Packet(sender, packet));
                from = at + frame.len();
            }
            at += frame.len();
        }
        if from < at {
            each(Peeled::Frames(&bytes[from..at]));
        }
        at
    }
}

/// The sender and the packet, if a frame delivers one for the tunnel.
fn packet_in<'a>(header: &Header, frame: &'a [u8]) -> Option<(NodePublic, &'a [u8])> {
    if header.kind != FrameKind::RecvPacket as u8 {
        return None;
    }
    let packet = frame.get(PACKET_START..)?;
    let key = frame.get(FRAME_HEADER_LEN..)?.first_chunk::<32>()?;
    (classify(packet) == Kind::WireGuard).then_some((NodePublic(*key), packet))
}

impl RelayStream {
    pub(super) fn new() -> Self {
        Self { region: None, peeler: Peeler::default(), credit: FIRST_CREDIT, waiting: Vec::new() }
    }

    /// The stream takes this many bytes more.
    pub(super) fn set_credit(&mut self, credit: usize) {
        self.credit = credit;
    }

    /// Bytes that bulk data may add now.
    pub(super) fn room(&self) -> usize {
        self.credit.saturating_sub(self.waiting.len())
    }

    /// Adds a packet, which is dropped if even the overdraft is used up.
    pub(super) fn push(&mut self, to: &NodePublic, packet: &[u8]) {
        if self.waiting.len() + packet.len() > self.credit + OVERDRAFT {
            return;
        }
        self.waiting.extend_from_slice(&derp::packet_header(FrameKind::SendPacket, to, packet.len()));
        self.waiting.extend_from_slice(packet);
    }

    /// Adds a packet of at most `room` bytes that `fill` writes, and says how long it was; 0 for none.
    pub(super) fn push_with(
        &mut self,
        to: &NodePublic,
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> usize {
        let start = self.waiting.len();
        self.waiting.resize(start + PACKET_START + room, 0);
        let len = fill(&mut self.waiting[start + PACKET_START..]);
        if len == 0 {
            self.waiting.truncate(start);
            return 0;
        }
        let header = derp::packet_header(FrameKind::SendPacket, to, len);
        self.waiting[start..start + PACKET_START].copy_from_slice(&header);
        self.waiting.truncate(start + PACKET_START + len);
        len
    }

    /// The last `len` bytes added.
    pub(super) fn last(&self, len: usize) -> &[u8] {
        &self.waiting[self.waiting.len().saturating_sub(len)..]
    }

    /// The frames to write now.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        if self.waiting.is_empty() {
            return None;
        }
        self.credit = self.credit.saturating_sub(self.waiting.len());
        Some(std::mem::take(&mut self.waiting))
    }
}

/// The stream of a region.
pub(super) type Regions = std::collections::BTreeMap<RegionId, StreamId>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![kind as u8];
        out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    fn delivered(packet: &[u8]) -> Vec<u8> {
        frame(FrameKind::RecvPacket, &[&[7; 32][..], packet].concat())
    }

    fn sealed(n: usize) -> Vec<u8> {
        let mut packet = vec![4, 0, 0, 0];
        packet.resize(32 + n, 9);
        packet
    }

    /// What arrives: the packets, and the bytes for the node machine, however it is cut.
    fn run(bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut stream = Peeler::default();
        let (mut packets, mut frames) = (Vec::new(), Vec::new());
        let mut rest = bytes;
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            stream.peel(now, |piece| match piece {
                Peeled::Packet(from, packet) => {
                    assert_eq!(from, NodePublic([7; 32]));
                    packets.push(packet.to_vec());
                }
                Peeled::Frames(bytes) => {
                    assert!(!bytes.is_empty());
                    frames.extend_from_slice(bytes);
                }
            });
        }
        (packets, frames)
    }

    proptest! {
        #[test]
        fn packets_are_peeled_off_and_the_rest_passes_however_it_is_cut(
            kinds in proptest::collection::vec(0u8..4, 0..12),
            cuts in proptest::collection::vec(0usize..90, 0..40),
        ) {
            let (mut bytes, mut packets, mut frames) = (Vec::new(), Vec::new(), Vec::new());
            for (i, kind) in kinds.iter().enumerate() {
                let one = match kind {
                    0 => delivered(&sealed(i)),
                    1 => frame(FrameKind::KeepAlive, &[]),
                    2 => delivered(b"TS-disco or so"),
                    _ => [&[0x7f][..], &50u32.to_be_bytes(), &[1; 50]].concat(),
                };
                if *kind == 0 { packets.push(sealed(i)) } else { frames.extend_from_slice(&one) }
                bytes.extend_from_slice(&one);
            }
            prop_assert_eq!(run(&bytes, &cuts), (packets, frames));
        }

        #[test]
        fn hostile_relays_are_left_to_the_node_machine(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(0usize..60, 0..9),
        ) {
            run(&bytes, &cuts);
        }
    }

    #[test]
    fn bulk_stops_at_the_credit_and_handshakes_at_the_overdraft() {
        let (mut stream, to) = (RelayStream::new(), NodePublic([7; 32]));
        stream.set_credit(100);
        assert_eq!(stream.room(), 100);
        stream.push(&to, &[1; 100]);
        assert_eq!(stream.room(), 0);
        for _ in 0..1_000 {
            stream.push(&to, &[1; 148]);
        }
        let waiting = stream.take().unwrap();
        assert!(waiting.len() < 100 + OVERDRAFT + 200, "{}", waiting.len());
        assert_eq!(stream.take(), None);
    }
}

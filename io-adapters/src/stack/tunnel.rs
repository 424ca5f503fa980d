//! What the stack keeps of one peer.

use super::inner;
use super::recent::Recent;
use crate::streams::Mux;
use proto_core::route::{Direction, Route, Via};
use proto_core::time::Time;

/// One peer.
pub(super) struct Tunnel {
    pub(super) mux: Mux,
    /// The upper bits of its streams' names.
    pub(super) slot: u32,
    pub(super) route: Route,
    /// Whether packets can be sealed, as far as we know.
    pub(super) session: bool,
    /// Whether a packet waits inside the engine for a session.
    pub(super) holding: bool,
    /// Whether QUIC has to be settled.
    pub(super) dirty: bool,
    /// When QUIC's next timer is due, as it stands in the stack's list.
    pub(super) timer: Option<Time>,
    /// The header of packets to the peer, but for the lengths.
    pub(super) header_out: [u8; inner::HEADER_LEN],
    /// What the header of its packets must look like.
    pub(super) header_in: [u8; inner::HEADER_LEN],
    pub(super) activity: Vec<Tally>,
    /// What may have been lost, should the direct path turn out to be dead.
    pub(super) recent: Recent,
}

/// Data packets one way since the last report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub(super) via: Via,
    pub(super) direction: Direction,
    pub(super) packets: u32,
    pub(super) bytes: u64,
}

/// Ways of one peer that are told apart within one batch. Four are the most that can honestly be: in and out,
/// primary and duplicate.
const TALLIES_MAX: usize = 16;

impl Tunnel {
    /// Counts packets of `bytes` bytes together, sealed: whether they are the first since the last report.
    pub(super) fn count(&mut self, via: Via, direction: Direction, packets: u32, bytes: usize) -> bool {
        let first = self.activity.is_empty();
        let same = |t: &&mut Tally| t.via == via && t.direction == direction;
        if let Some(tally) = self.activity.iter_mut().find(same) {
            tally.packets = tally.packets.saturating_add(packets);
            tally.bytes += bytes as u64;
        } else if self.activity.len() < TALLIES_MAX {
            self.activity.push(Tally { via, direction, packets, bytes: bytes as u64 });
        }
        first
    }
}

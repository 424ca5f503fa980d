//! Probes under way, and those of the peer already answered.

use crate::limits;
use crate::time::Time;
use crate::wire::disco::TxId;
use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

/// A probe under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Probe {
    /// Where it was sent.
    pub(super) to: SocketAddr,
    /// When.
    pub(super) at: Time,
    /// Whether it was as long as a full data packet.
    pub(super) full: bool,
}

/// Probes under way, never more than [`limits::PROBES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Probes {
    sent: BTreeMap<TxId, Probe>,
    order: VecDeque<TxId>,
    answered: VecDeque<(SocketAddr, TxId)>,
}

impl Probes {
    /// Remembers a probe just sent; the oldest are forgotten.
    pub(super) fn sent(&mut self, tx: TxId, probe: Probe) {
        while let Some(oldest) = self.order.front().copied() {
            let old = self.sent.get(&oldest).is_none_or(|p| probe.at.since(p.at) > limits::PROBE_MEMORY);
            if !old && self.order.len() < limits::PROBES_MAX {
                break;
            }
            self.order.pop_front();
            self.sent.remove(&oldest);
        }
        self.order.push_back(tx);
        self.sent.insert(tx, probe);
    }

    /// The probe that an answer belongs to, if it comes in time and for the first time.
    pub(super) fn take(&mut self, tx: TxId, now: Time) -> Option<Probe> {
        self.sent.remove(&tx).filter(|probe| now.since(probe.at) <= limits::PROBE_MEMORY)
    }

    /// Whether the peer's probe is a new one; it is remembered as answered.
    pub(super) fn is_new(&mut self, from: SocketAddr, tx: TxId) -> bool {
        let new = !self.answered.contains(&(from, tx));
        if new {
            if self.answered.len() >= limits::ANSWERED_MAX {
                self.answered.pop_front();
            }
            self.answered.push_back((from, tx));
        }
        new
    }

    /// Forgets all, for a peer that started anew.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

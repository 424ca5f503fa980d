//! Which ports our NAT takes just now: fresh sockets ask STUN servers, since what a netcheck saw may be minutes old.

use crate::id::LinkId;
use crate::limits;
use crate::time::Time;
use crate::wire::stun::TransactionId;
use std::collections::BTreeMap;

/// A measurement under way.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    began: Time,
    /// The sockets, in the order of their requests.
    pub(super) sockets: Vec<LinkId>,
    /// Whether the requests have left, and once more.
    pub(super) asked: bool,
    pub(super) again: bool,
    asking: BTreeMap<TransactionId, LinkId>,
    seen: BTreeMap<LinkId, u16>,
}

impl Measure {
    pub(super) const fn new(sockets: Vec<LinkId>, now: Time) -> Self {
        Self {
            began: now,
            sockets,
            asked: false,
            again: false,
            asking: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// A request has left.
    pub(super) fn sent(&mut self, tx: TransactionId, link: LinkId) {
        self.asking.insert(tx, link);
    }

    /// An answer has come. The port first seen counts: it is the same for all requests of one socket.
    pub(super) fn answer(&mut self, tx: TransactionId, port: u16) {
        if let Some(link) = self.asking.remove(&tx) {
            self.seen.entry(link).or_insert(port);
        }
    }

    /// Those that nobody has answered yet.
    pub(super) fn unanswered(&self) -> Vec<LinkId> {
        self.sockets.iter().copied().filter(|link| !self.seen.contains_key(link)).collect()
    }

    /// The ports, in the order of the sockets.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.sockets.iter().filter_map(|link| self.seen.get(link).copied()).collect()
    }

    pub(super) fn port_of(&self, link: LinkId) -> Option<u16> {
        self.seen.get(&link).copied()
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn over(&self, now: Time) -> bool {
        self.seen.len() >= self.sockets.len() || now.since(self.began) >= limits::GUESS_MEASURE_MAX
    }

    /// Whether it is time to ask again.
    pub(super) fn late(&self, now: Time) -> bool {
        self.asked && !self.again && now.since(self.began) >= limits::GUESS_MEASURE_AGAIN
    }

    pub(super) fn deadline(&self) -> Time {
        let again = self.asked && !self.again;
        self.began + if again { limits::GUESS_MEASURE_AGAIN } else { limits::GUESS_MEASURE_MAX }
    }
}

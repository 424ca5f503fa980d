//! When the coordinator is told of the path to a peer: at once when something happens to it, and then no more often
//! than each [`limits::PATH_REPORT_EVERY`]. A quiet tunnel says nothing.

use super::{Node, SessionCommand};
use crate::coord::Session;
use crate::key::NodePublic;
use crate::limits;
use crate::route::Via;
use crate::time::Time;
use crate::wire::control::{NodeKind, PathReport};
use std::collections::{BTreeMap, BTreeSet};

/// Which peers there is something to tell of. At most as many as there are peers.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// When each was told of last.
    told: BTreeMap<NodePublic, Time>,
    due: BTreeMap<NodePublic, Time>,
    order: BTreeSet<(Time, NodePublic)>,
}

impl Reports {
    /// Something has happened to this peer's path.
    fn touch(&mut self, key: &NodePublic, now: Time) {
        if self.due.contains_key(key) {
            return;
        }
        let at = self.told.get(key).map_or(now, |told| (*told + limits::PATH_REPORT_EVERY).max(now));
        self.due.insert(*key, at);
        self.order.insert((at, *key));
    }

    /// The next peer that is to be told of by now.
    fn take(&mut self, now: Time) -> Option<NodePublic> {
        let (at, key) = self.order.first().copied().filter(|(at, _)| *at <= now)?;
        self.order.remove(&(at, key));
        self.due.remove(&key);
        self.told.insert(key, now);
        Some(key)
    }

    pub(super) fn forget(&mut self, key: &NodePublic) {
        self.told.remove(key);
        if let Some(at) = self.due.remove(key) {
            self.order.remove(&(at, *key));
        }
    }

    pub(super) fn deadline(&self) -> Option<(Time, &'static str)> {
        self.order.first().map(|(at, _)| (*at, "tell of a path"))
    }
}

impl Node {
    /// Whether the coordinator is told of paths from here: of each pair by the end that asked, which no agent is.
    fn tells_paths(&self) -> bool {
        self.config.kind != NodeKind::Agent && self.session.as_ref().is_some_and(Session::is_up)
    }

    /// Something has happened to a peer's path: data passed, or it leads another way.
    pub(super) fn path_touched(&mut self, key: &NodePublic, now: Time) {
        if self.tells_paths() && self.book.get(key).is_some() {
            self.reports.touch(key, now);
        }
    }

    /// A coordinator that has just greeted us knows of no path.
    pub(super) fn touch_paths(&mut self, now: Time) {
        for key in self.book.keys() {
            self.path_touched(&key, now);
        }
    }

    /// Tells of the paths that are due; of none while nobody listens, since all are told of then.
    pub(super) fn tell_paths(&mut self, now: Time) {
        if !self.tells_paths() {
            if self.reports.deadline().is_some() {
                self.reports = Reports::default();
            }
            return;
        }
        while let Some(key) = self.reports.take(now) {
            let Some(peer) = self.peer(&key) else { continue };
            let (address, relay) = match peer.route.primary {
                Some(Via::Direct { addr, .. }) => (Some(addr), None),
                Some(Via::Relay(region)) => (None, Some(region)),
                None => (None, None),
            };
            let latency = peer.latency.filter(|_| address.is_some());
            let path = PathReport {
                address,
                relay,
                latency_us: latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
                received_bytes: peer.traffic.received_bytes,
                sent_bytes: peer.traffic.sent_bytes,
                sentence: peer.verdict.sentence,
                side: peer.verdict.side.code().to_owned(),
                remedy: peer.verdict.remedy.map(str::to_owned),
            };
            self.tell_session(SessionCommand::Path(peer.id, path), now);
        }
    }
}

//! What nodes say of their paths: passed on to the owner, as often as is of use.

use super::{Coordinator, CoordinatorEvent};
use crate::id::{NodeId, StreamId};
use crate::limits;
use crate::time::Time;
use crate::wire::control::PathReport;

impl Coordinator {
    /// What comes of others' peers or too often is left out: it is for plots, and the next one says all that it did.
    pub(super) fn path_said(
        &mut self,
        stream: StreamId,
        (id, peer): (NodeId, NodeId),
        mut path: PathReport,
        now: Time,
    ) {
        if !self.book.are_peers(&id, &peer) {
            return;
        }
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        // Half of it, since words that were sent apart may come close together.
        let soon = |said: &Time| now.since(*said) < limits::PATH_REPORT_EVERY / 2;
        if connection.paths.get(&peer).is_some_and(soon) {
            return;
        }
        if connection.paths.len() >= limits::PEERS_MAX {
            connection.paths.clear();
        }
        connection.paths.insert(peer.clone(), now);
        path.tidy();
        let principal = connection.principal.clone();
        self.out.event(CoordinatorEvent::Path { node: id, principal, peer, path });
    }
}

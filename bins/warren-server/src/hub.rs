//! The coordinator, the relay, and who is there.

use core::net::SocketAddr;
use hyper::upgrade::Upgraded;
use proto_core::coord::Principal;
use proto_core::id::{NodeId, RegionId};
use proto_core::key::NodePublic;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A node that is connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Presence {
    /// Its node key.
    pub(crate) node_key: NodePublic,
    /// Its program and version.
    pub(crate) build: String,
    /// The region of its home relay.
    pub(crate) home: Option<RegionId>,
}

/// The coordinator and the relay of this server.
pub(crate) struct Hub {
    relay: Option<NodePublic>,
    present: Mutex<BTreeMap<NodeId, Presence>>,
}

impl Hub {
    pub(crate) fn new(relay: Option<NodePublic>) -> Self {
        Self { relay, present: Mutex::default() }
    }

    /// What is known of a node, if it is connected.
    pub(crate) fn presence(&self, id: &NodeId) -> Option<Presence> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The relay's key; none if it is off.
    pub(crate) fn relay_public(&self) -> Option<NodePublic> {
        self.relay
    }

    pub(crate) fn expel_agent(&self, id: NodeId, why: &str) {
        let _ = (id, why);
    }

    pub(crate) async fn serve_relay(&self, upgraded: Upgraded, from: Option<SocketAddr>) {
        let _ = (upgraded, from);
    }

    pub(crate) async fn serve_control(&self, upgraded: Upgraded, principal: Principal) {
        let _ = (upgraded, principal);
    }
}

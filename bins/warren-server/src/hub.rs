//! The coordinator, the relay, and who is there.

use crate::clock::Clock;
use crate::store::Store;
use core::net::SocketAddr;
use hyper::upgrade::Upgraded;
use proto_core::coord::Principal;
use proto_core::id::{NodeId, RegionId};
use proto_core::key::{NodePublic, NodeSecret};
use proto_core::relay_map::RelayMap;
use proto_core::seed::Seed;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a hub is made of.
pub(crate) struct HubConfig {
    /// Who may do what, and where it is noted who came and left.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    /// The relay's secret key; none if it is off.
    pub(crate) relay_key: Option<[u8; 32]>,
    /// What resume tokens are sealed with.
    pub(crate) resume_key: [u8; 32],
    /// Whether nodes may talk directly.
    pub(crate) direct: bool,
    /// The relays to use.
    pub(crate) relay_map: RelayMap,
    /// Program and version.
    pub(crate) build: String,
    /// Where its randomness comes from.
    pub(crate) seed: Seed,
}

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
    pub(crate) fn start(config: HubConfig) -> Self {
        let relay = config.relay_key.map(|key| NodeSecret::from_bytes(key).public());
        Self { relay, present: Mutex::default() }
    }

    /// What is known of a node, if it is connected.
    pub(crate) fn presence(&self, id: &NodeId) -> Option<Presence> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn present_agents(&self) -> Vec<NodeId> {
        Vec::new()
    }

    /// The relay's key; none if it is off.
    pub(crate) fn relay_public(&self) -> Option<NodePublic> {
        self.relay
    }

    pub(crate) fn expel_agent(&self, id: NodeId, why: &str) {
        let _ = (id, why);
    }

    pub(crate) fn set_relay_map(&self, map: RelayMap) {
        let _ = map;
    }

    pub(crate) fn drain(&self, retry_after: Duration) {
        let _ = retry_after;
    }

    pub(crate) async fn stop(&self) {}

    pub(crate) async fn serve_relay(&self, upgraded: Upgraded, from: Option<SocketAddr>) {
        let _ = (upgraded, from);
    }

    pub(crate) async fn serve_control(&self, upgraded: Upgraded, principal: Principal) {
        let _ = (upgraded, principal);
    }
}

//! What has changed, for those who follow it live. Nothing is told but that it has: whoever is told looks with its own
//! eyes, so that nobody hears of what is another's.

use crate::hub::Hub;
use crate::places::{Full, Place, Places};
use crate::tunnels::Tunnels;
use proto_core::coord::CoordinatorEvent;
use proto_core::id::NodeId;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// Followers at once. Each costs a question to the database a second, at most.
const FOLLOWERS_MAX: usize = 1_024;
/// Those of one person: a browser has one for each tab.
const FOLLOWERS_PER_PERSON_MAX: usize = 64;

/// Where changes are told and heard.
pub(crate) struct Changes {
    hub: Arc<Hub>,
    tunnels: Arc<Tunnels>,
    workspaces: watch::Sender<u64>,
    places: Arc<Places<String>>,
}

impl Changes {
    /// Nothing has changed yet.
    pub(crate) fn new(hub: &Arc<Hub>, tunnels: &Arc<Tunnels>) -> Self {
        let places = Places::new(FOLLOWERS_MAX, FOLLOWERS_PER_PERSON_MAX);
        Self { hub: Arc::clone(hub), tunnels: Arc::clone(tunnels), workspaces: watch::channel(0).0, places }
    }

    /// A workspace was made, deleted, or is seen by others than before.
    pub(crate) fn workspaces(&self) {
        self.workspaces.send_modify(|count| *count += 1);
    }

    /// How many follow.
    pub(crate) fn followers(&self) -> usize {
        self.places.count()
    }

    /// A person follows from now on.
    ///
    /// # Errors
    /// If there are too many who do.
    pub(crate) fn follow(&self, user_id: &str) -> Result<Follower, Full> {
        let place = self.places.take(user_id.to_owned())?;
        Ok(Follower {
            workspaces: self.workspaces.subscribe(),
            nodes: self.hub.events(),
            tunnels: self.tunnels.changes(),
            touched: BTreeSet::new(),
            _place: place,
        })
    }
}

/// Someone who follows.
pub(crate) struct Follower {
    workspaces: watch::Receiver<u64>,
    nodes: broadcast::Receiver<CoordinatorEvent>,
    tunnels: broadcast::Receiver<NodeId>,
    touched: BTreeSet<NodeId>,
    _place: Place<String>,
}

impl Follower {
    /// The agents whose tunnels have changed since this was asked last. A slow follower may miss some.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<NodeId> {
        while let Ok(agent) = self.tunnels.try_recv() {
            self.touched.insert(agent);
        }
        core::mem::take(&mut self.touched)
    }

    /// Waits until something may look different; never again once the coordinator has stopped.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::select! {
                biased;
                changed = self.workspaces.changed() => match changed {
                    Ok(()) => return,
                    Err(_) => std::future::pending().await,
                },
                event = self.nodes.recv() => match event {
                    // Paths come by `tunnels`, once they are noted.
                    Ok(CoordinatorEvent::Authorize { .. } | CoordinatorEvent::Path { .. }) => {}
                    // Missed ones are changes, too.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                },
                agent = self.tunnels.recv() => {
                    self.touched.extend(agent);
                    return;
                }
            }
        }
    }
}

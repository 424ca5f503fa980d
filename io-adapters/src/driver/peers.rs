//! The peers that there are tunnels to, and who waits for one.

use crate::handle::shared::{PeerShared, Shared};
use crate::handle::{PeerHandle, TunnelError};
use bytes::Bytes;
use proto_core::id::NodeId;
use proto_core::key::NodePublic;
use proto_core::node::{NodeCommand, NodeEvent, SessionState};
use proto_core::time::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

type Reply = oneshot::Sender<Result<PeerHandle, TunnelError>>;

/// The peers, by key.
#[derive(Default)]
pub(super) struct Peers {
    peers: BTreeMap<NodePublic, Peer>,
    waiting: BTreeMap<NodeId, Vec<Reply>>,
    /// Somebody may have come into use or out of it.
    look: bool,
}

struct Peer {
    shared: Arc<PeerShared>,
    /// We asked for the tunnel, so we give it up.
    ours: bool,
    engaged: bool,
}

impl Peers {
    /// Somebody wants a tunnel: what to tell the node, if anything.
    pub(super) fn wanted(
        &mut self,
        to: NodeId,
        reply: Reply,
        session: &SessionState,
        shared: &Arc<Shared>,
    ) -> Option<NodeCommand> {
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.shared.id == to) {
            self.look = true;
            let first = !std::mem::replace(&mut peer.ours, true);
            let _ = reply.send(Ok(PeerHandle::new(shared.clone(), peer.shared.clone())));
            return first.then_some(NodeCommand::OpenTunnel(to));
        }
        match session {
            SessionState::Refused { code, message } => {
                let (code, message) = (code.clone(), message.clone());
                let _ = reply.send(Err(TunnelError::SessionRefused { code, message }));
                None
            }
            SessionState::Stopped => {
                let _ = reply.send(Err(TunnelError::Stopped));
                None
            }
            _ => {
                self.waiting.entry(to.clone()).or_default().push(reply);
                Some(NodeCommand::OpenTunnel(to))
            }
        }
    }

    /// Takes a word of the node.
    pub(super) fn note(&mut self, event: &NodeEvent, shared: &Arc<Shared>, now: Time) {
        match event {
            NodeEvent::PeerUp { id, key, .. } => self.up(id, *key, shared),
            NodeEvent::PeerDown { key, why, .. } => {
                if let Some(peer) = self.peers.remove(key) {
                    peer.shared.gone(why);
                }
            }
            NodeEvent::Route { key, route } => {
                if let Some(peer) = self.peers.get(key) {
                    peer.shared.path.send_modify(|path| path.route = *route);
                }
            }
            NodeEvent::Story { key, story } => {
                if let Some(peer) = self.peers.get(key) {
                    peer.shared.path.send_modify(|path| path.story = Some((now, story.clone())));
                }
            }
            NodeEvent::Refused { to: Some(to), code, message } => {
                for reply in self.waiting.remove(to).unwrap_or_default() {
                    let (code, message) = (code.clone(), message.clone());
                    let _ = reply.send(Err(TunnelError::Refused { code, message }));
                }
            }
            NodeEvent::Refused { to: None, code, message }
            | NodeEvent::Session(SessionState::Refused { code, message }) => {
                for reply in std::mem::take(&mut self.waiting).into_values().flatten() {
                    let (code, message) = (code.clone(), message.clone());
                    let _ = reply.send(Err(TunnelError::SessionRefused { code, message }));
                }
            }
            _ => {}
        }
    }

    fn up(&mut self, id: &NodeId, key: NodePublic, shared: &Arc<Shared>) {
        let waiting = self.waiting.remove(id).unwrap_or_default();
        let peer = self.peers.entry(key).or_insert_with(|| Peer {
            shared: Arc::new(PeerShared::new(id.clone(), key)),
            ours: false,
            engaged: false,
        });
        peer.ours |= !waiting.is_empty();
        self.look = true;
        for reply in waiting {
            let _ = reply.send(Ok(PeerHandle::new(shared.clone(), peer.shared.clone())));
        }
    }

    /// A handle of a peer.
    pub(super) fn handle(&mut self, key: &NodePublic, shared: &Arc<Shared>) -> Option<PeerHandle> {
        self.look = true;
        self.peers.get(key).map(|peer| PeerHandle::new(shared.clone(), peer.shared.clone()))
    }

    /// A datagram arrived.
    pub(super) fn deliver(&self, key: &NodePublic, bytes: Bytes) {
        if let Some(peer) = self.peers.get(key) {
            peer.shared.deliver_datagram(bytes);
        }
    }

    /// Look again who is used.
    pub(super) fn look(&mut self) {
        self.look = true;
    }

    /// The next thing to tell the node because a peer came into use or out of it; `flows` are the streams of
    /// each peer.
    pub(super) fn changed(&mut self, flows: &BTreeMap<NodePublic, usize>) -> Option<NodeCommand> {
        if !self.look {
            return None;
        }
        for (key, peer) in &mut self.peers {
            let used = peer.shared.is_held() || flows.contains_key(key);
            if peer.engaged != used {
                peer.engaged = used;
                return Some(NodeCommand::Engaged { peer: *key, engaged: used });
            }
            if !used && peer.ours {
                peer.ours = false;
                return Some(NodeCommand::CloseTunnel(peer.shared.id.clone()));
            }
        }
        self.look = false;
        None
    }

    /// The node has stopped.
    pub(super) fn stop(&mut self) {
        self.waiting.clear();
        for peer in std::mem::take(&mut self.peers).into_values() {
            peer.shared.gone("the node has stopped");
        }
    }
}

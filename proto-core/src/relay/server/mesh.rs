//! What a relay's server end does for the other relays of its mesh: it tells them who is here, takes their packets
//! and their word, and knows who is at theirs.

use super::{Connection, Key, Receivers, RelayServer, ServerEvent, Stage};
use crate::id::StreamId;
use crate::key::NodePublic;
use crate::limits;
use crate::machine::Output;
use crate::relay::MeshChange;
use crate::wire::derp::{Frame, FrameKind, PresentFlags};
use core::net::{Ipv6Addr, SocketAddr};
use std::collections::BTreeMap;

/// What a client is told whose key is connected more than once.
const TWICE: &str = "another machine is connected with this node's key: \
    packets reach the one that spoke last; give each machine a key of its own";

/// The keys that are at other relays of the mesh.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(BTreeMap<NodePublic, Other>);

#[derive(Debug, Default)]
struct Other {
    /// The links by which it is reached, the one first told first: that one is used.
    links: Vec<StreamId>,
    /// Keys here that have received packets from it.
    receivers: Receivers,
}

impl Elsewhere {
    /// Those to tell when a key leaves; none if it is at no other relay.
    pub(super) fn receivers(&mut self, key: &NodePublic) -> Option<&mut Receivers> {
        self.0.get_mut(key).map(|other| &mut other.receivers)
    }

    /// A key came; the link to use now, if that is another one.
    fn add(&mut self, key: NodePublic, link: StreamId) -> Option<StreamId> {
        if self.0.len() >= limits::MESH_KEYS_MAX && !self.0.contains_key(&key) {
            return None;
        }
        let links = &mut self.0.entry(key).or_default().links;
        if links.len() >= limits::MESH_RELAYS_MAX || links.contains(&link) {
            return None;
        }
        links.push(link);
        (links.len() == 1).then_some(link)
    }

    /// A key left; what is to be done.
    fn remove(&mut self, key: &NodePublic, link: StreamId) -> Option<Removed> {
        let other = self.0.get_mut(key)?;
        let at = other.links.iter().position(|other| *other == link)?;
        other.links.remove(at);
        match other.links.first() {
            None => self.0.remove(key).map(|other| Removed::Key(other.receivers)),
            Some(next) => (at == 0).then_some(Removed::Link(*next)),
        }
    }

    /// Whether a key is reached by this link, or would be if those before it broke.
    fn is_by(&self, key: &NodePublic, link: StreamId) -> bool {
        self.0.get(key).is_some_and(|other| other.links.contains(&link))
    }

    fn keys_of(&self, link: StreamId) -> Vec<NodePublic> {
        self.0.iter().filter(|(_, other)| other.links.contains(&link)).map(|(key, _)| *key).collect()
    }
}

enum Removed {
    /// The key is at no other relay any more; who received packets from it.
    Key(Receivers),
    /// It is reached by another link now.
    Link(StreamId),
}

impl Connection {
    pub(super) fn flags(&self) -> PresentFlags {
        let bits = [(self.mesh, PresentFlags::MESH), (self.prober, PresentFlags::PROBER)];
        match bits.into_iter().filter(|(is, _)| *is).fold(0, |all, (_, flag)| all | flag.0) {
            0 => PresentFlags::REGULAR,
            some => PresentFlags(some),
        }
    }
}

/// The word that a key is here. From where is nobody else's business: the address is the unspecified one.
pub(super) fn present(peer: NodePublic, flags: PresentFlags) -> Frame<'static> {
    let nowhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    Frame::PeerPresent { peer, address: Some(nowhere), flags }
}

impl RelayServer {
    /// Whether there is a mesh.
    #[must_use]
    pub const fn has_mesh(&self) -> bool {
        self.config.mesh.is_some()
    }

    /// Whether this connection is another relay's of the mesh.
    #[must_use]
    pub fn is_mesh(&self, stream: StreamId) -> bool {
        self.connections.get(&stream).is_some_and(|c| c.mesh && matches!(c.stage, Stage::Joined { .. }))
    }

    /// Keys at other relays of the mesh.
    #[must_use]
    pub fn elsewhere(&self) -> usize {
        self.elsewhere.0.len()
    }

    /// Other relays of the mesh that are told who comes and goes here.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.watchers.len()
    }

    pub(super) fn mesh_frame(&mut self, stream: StreamId, frame: &Frame<'_>) {
        match frame {
            Frame::WatchConns => self.watch(stream),
            Frame::ClosePeer { peer } => self.counters.mesh_closed += self.close_all(peer),
            // The adapter delivers these itself.
            Frame::ForwardPacket { .. } => {}
            Frame::Malformed {
                kind: FrameKind::WatchConns | FrameKind::ClosePeer | FrameKind::ForwardPacket,
            } => self.broken(stream),
            _ => self.joined_frame(stream, frame),
        }
    }

    /// A relay asks who is here; it hears of all now, and then of who comes and goes.
    fn watch(&mut self, stream: StreamId) {
        if self.key_of(stream) == Some(&self.public) {
            return; // Somebody has named us as our own neighbour.
        }
        self.watchers.insert(stream);
        let mut bytes = Vec::new();
        for (key, Key { connections, .. }) in &self.keys {
            let active = connections.last().and_then(|active| self.connections.get(active));
            present(*key, active.map(Connection::flags).unwrap_or_default()).emit(&mut bytes);
        }
        self.out.push(Output::Write { stream, bytes });
    }

    pub(super) fn tell_watchers(&mut self, frame: &Frame<'_>) {
        for stream in self.watchers.iter().copied().collect::<Vec<_>>() {
            self.write(stream, frame);
        }
    }

    /// Another relay's word.
    pub(super) fn mesh_change(&mut self, change: MeshChange) {
        match change {
            MeshChange::Present { link, key, fresh } if key != self.public => {
                if let Some(link) = self.elsewhere.add(key, link) {
                    self.out.event(ServerEvent::Elsewhere { key, link: Some(link) });
                }
                // Its connection here may be one that nobody has noticed to be dead; but if there was no room for
                // the other, there is no better one.
                if fresh
                    && self.elsewhere.is_by(&key, link)
                    && let Some(here) = self.keys.get_mut(&key)
                {
                    here.away = true;
                    self.table(key);
                }
            }
            MeshChange::Present { .. } => {}
            MeshChange::Gone { link, key } => self.mesh_gone(key, link),
            MeshChange::Lost { link } => {
                for key in self.elsewhere.keys_of(link) {
                    self.mesh_gone(key, link);
                }
            }
        }
    }

    fn mesh_gone(&mut self, key: NodePublic, link: StreamId) {
        match self.elsewhere.remove(&key, link) {
            None => {}
            Some(Removed::Link(next)) => {
                self.out.event(ServerEvent::Elsewhere { key, link: Some(next) });
            }
            Some(Removed::Key(receivers)) => {
                self.out.event(ServerEvent::Elsewhere { key, link: None });
                match self.keys.get_mut(&key) {
                    // It is here, and so in the region still.
                    Some(here) => {
                        self.room.inherit(&mut here.receivers, receivers);
                        here.away = false;
                        self.table(key);
                    }
                    None => self.tell_all_gone(receivers, key),
                }
            }
        }
    }

    /// Tells a client that its key is connected more than once, and when that is over. It is said with a keepalive: a
    /// node that only comes back faster than its old connection ends hears nothing of it.
    pub(super) fn tell_health(&mut self, stream: StreamId) {
        let Some(key) = self.key_of(stream).copied() else { return };
        let ill = self.keys.get(&key).is_some_and(|key| key.connections.len() > 1);
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        if !connection.ours || ill == connection.told_ill {
            return;
        }
        connection.told_ill = ill;
        self.counters.health += 1;
        self.write(stream, &Frame::Health { problem: if ill { TWICE } else { "" } });
    }
}

//! Peers come and go: from the coordinator's word to a path machine and back.

use super::book::Entry;
use super::{CODE_ADDRESS_TAKEN, CODE_KEY_CHANGED, Node, NodeEvent, SessionState};
use crate::coord::{SessionCommand, code};
use crate::id::{LinkId, NodeId, RegionId};
use crate::key::NodePublic;
use crate::limits;
use crate::machine::{Input, Machine, Output};
use crate::nat::NetcheckCommand;
use crate::nat::predict::Shape;
use crate::peer::{Peer, PeerCommand, PeerConfig};
use crate::relay::PoolCommand;
use crate::route::Route;
use crate::time::Time;
use crate::wg::{HandshakeCommand, HandshakeSupervisor};
use crate::wire::control::{Forbidder, NodeInfo, NodeKind};

impl Node {
    pub(super) fn open_tunnel(&mut self, id: NodeId, now: Time) {
        if self.wanted.len() >= limits::PEERS_MAX && !self.wanted.contains(&id) {
            let message = format!("there are {} tunnels already", limits::PEERS_MAX);
            self.out.event(NodeEvent::Refused { to: Some(id), code: code::TOO_MANY.to_owned(), message });
            return;
        }
        self.wanted.insert(id.clone());
        self.tell_session(SessionCommand::OpenTunnel(id), now);
    }

    /// The coordinator names a peer, new or changed.
    pub(super) fn peer_told(&mut self, info: NodeInfo, now: Time) {
        let (id, key) = (info.id.clone(), info.node_key);
        if let Err((code, message)) = self.admit(&info) {
            self.refuse(id, code, message, now);
            return;
        }
        let old_id = self.book.get(&key).map(|entry| entry.info.id.clone());
        if let Some(old_id) = old_id.filter(|old| *old != id) {
            self.drop_peer(&old_id, "it came back under another name", now);
        }
        match self.book.get(&key).map(|entry| entry.info.boot_id) {
            None => self.add_peer(info, now),
            Some(boot_id) => {
                let restarted = boot_id != info.boot_id;
                if restarted {
                    self.out.event(NodeEvent::PeerUp { id: id.clone(), key, boot_id: info.boot_id });
                    self.book.handshake(&key, HandshakeCommand::Restarted, now);
                }
                self.book.update(info, now);
            }
        }
        self.connect_relays(&key, now);
        self.tell_session(SessionCommand::Ready(id.clone()), now);
        if self.early_ready.remove(&id) {
            self.book.handshake(&key, HandshakeCommand::Start, now);
        }
    }

    /// Whether a peer may be let in. Its key is pinned on first use, except by a server's own node: the coordinator that
    /// names the keys is in the same process, and nobody could be asked whether an agent was set up anew.
    fn admit(&mut self, info: &NodeInfo) -> Result<(), (&'static str, String)> {
        let (id, key) = (&info.id, info.node_key);
        if let Some(pinned) = self.config.pins.get(id).filter(|pinned| **pinned != key) {
            let message = format!(
                "{id} came with the key {key}, but {pinned} is pinned: it was set up anew, or somebody is in \
                 between"
            );
            return Err((CODE_KEY_CHANGED, message));
        }
        let inner = key.inner_address();
        if key == self.key || inner == self.key.inner_address() || self.book.address_taken(inner, &key) {
            return Err((CODE_ADDRESS_TAKEN, format!("{id} has the inner address {inner} of another node")));
        }
        if self.book.get(&key).is_none() && self.book.len() >= limits::PEERS_MAX {
            return Err((code::TOO_MANY, format!("there are {} peers already", limits::PEERS_MAX)));
        }
        let pins = self.config.kind != NodeKind::Server && self.config.pins.len() < limits::PINS_MAX;
        if pins && !self.config.pins.contains_key(id) {
            self.config.pins.insert(id.clone(), key);
            self.out.event(NodeEvent::Pinned { id: id.clone(), key });
        }
        Ok(())
    }

    fn add_peer(&mut self, info: NodeInfo, now: Time) {
        let (id, key) = (info.id.clone(), info.node_key);
        let machine = self.new_path(&info, now);
        let asked = self.wanted.contains(&id);
        let supervisor = HandshakeSupervisor::new(asked, self.seed_of("handshake", &key), now);
        self.out.event(NodeEvent::PeerUp { id, key, boot_id: info.boot_id });
        let first = self.book.len() == 0;
        self.book.insert(Entry::new(info, machine, supervisor, now));
        if first {
            self.tell_netcheck(NetcheckCommand::Active(true), now);
        }
    }

    /// A path machine that knows what a new one must.
    fn new_path(&mut self, info: &NodeInfo, now: Time) -> Peer {
        let sockets = self.next_sockets;
        let next = sockets.0.checked_add(limits::PEER_SOCKETS);
        self.next_sockets = LinkId(next.unwrap_or(limits::GUESS_LINKS));
        let config = PeerConfig {
            us: self.key,
            disco: self.disco.clone(),
            direct: self.is_direct(),
            guess: self.config.guess_ports,
            sockets,
        };
        let mut machine = Peer::new(config, info.clone(), self.seed_of("path", &info.node_key), now);
        for (link, address) in &self.links {
            machine.handle(Input::LinkUp { link: *link, address: *address }, now);
        }
        machine.handle(Input::Command(PeerCommand::Endpoints(self.endpoints.clone())), now);
        let report = self.netcheck.report();
        let network = PeerCommand::Network { shape: Shape::of(report), stun: report.stun.clone() };
        machine.handle(Input::Command(network), now);
        machine
    }

    fn seed_of(&self, room: &str, key: &NodePublic) -> crate::seed::Seed {
        self.seed.fork(room).fork_bytes(&key.0)
    }

    /// Claims a peer's home relay, and tells its path machine of all that lead to it.
    fn connect_relays(&mut self, key: &NodePublic, now: Time) {
        let Some(entry) = self.book.get(key) else { return };
        let home = entry.info.home;
        let regions = self.book.regions_of(key);
        if home != super::NO_REGION {
            self.tell_pool(PoolCommand::Want(home), now);
        }
        for region in regions {
            self.book.relay(key, region, self.pool.stream(region).is_some(), now);
        }
    }

    /// A peer was heard through a region: it can be answered there, wherever its home is.
    pub(super) fn heard(&mut self, key: &NodePublic, region: RegionId, now: Time) {
        let Some(entry) = self.book.get_mut(key) else { return };
        if entry.info.home == region || entry.heard.contains(&region) {
            return;
        }
        if entry.heard.len() >= limits::HEARD_MAX {
            let oldest = entry.heard.pop_first();
            if let Some(oldest) = oldest {
                self.book.relay(key, oldest, false, now);
            }
        }
        if let Some(entry) = self.book.get_mut(key) {
            entry.heard.insert(region);
        }
        self.book.relay(key, region, self.pool.stream(region).is_some(), now);
    }

    pub(super) fn engage(&mut self, key: &NodePublic, engaged: bool, now: Time) {
        let Some(entry) = self.book.get_mut(key) else { return };
        if entry.engaged == engaged {
            return;
        }
        entry.engaged = engaged;
        self.book.command(key, PeerCommand::Engaged(engaged), now);
        self.claim_relays(now);
    }

    /// Keeps the relays of peers in use connected, so that a direct path that breaks finds them ready.
    pub(super) fn claim_relays(&mut self, now: Time) {
        let homes = self.book.homes_in_use();
        self.claim_at = (!homes.is_empty()).then(|| now + limits::RELAY_CLAIM);
        for home in homes {
            self.tell_pool(PoolCommand::Want(home), now);
        }
    }

    /// The coordinator has lost a peer. If the peer's own end closed that connection, it may have ended: it is asked
    /// for a sign of life, and dropped if none comes.
    pub(super) fn peer_lost(&mut self, id: &NodeId, closed: bool, now: Time) {
        let Some(key) = self.book.key_of(id) else { return };
        self.book.lose(&key, now);
        // A server that is about to stop sends everybody away.
        if closed && matches!(self.state, SessionState::Up(_)) {
            let patience = if self.wanted.contains(id) { limits::CLOSED_PEER } else { limits::CLOSED_CLIENT };
            self.book.suspect(&key, patience, now);
            self.book.handshake(&key, HandshakeCommand::Check, now);
        }
    }

    pub(super) fn drop_peer(&mut self, id: &NodeId, why: &str, now: Time) {
        self.early_ready.remove(id);
        let Some(key) = self.book.key_of(id) else { return };
        let Some(entry) = self.book.remove(&key) else { return };
        self.close_sockets(entry.sockets());
        self.reports.forget(&key);
        self.out.event(NodeEvent::PeerDown { id: entry.info.id, key, why: why.to_owned() });
        if self.book.len() == 0 {
            self.tell_netcheck(NetcheckCommand::Active(false), now);
        }
    }

    /// A peer's own sockets end with its machine, which cannot say so any more.
    fn close_sockets(&mut self, links: Vec<LinkId>) {
        for link in links {
            self.out.push(Output::Unbind { link });
        }
    }

    /// Drops every peer.
    pub(super) fn drop_peers(&mut self, why: &str, now: Time) {
        for key in self.book.keys() {
            let id = self.book.get(&key).map(|entry| entry.info.id.clone());
            id.into_iter().for_each(|id| self.drop_peer(&id, why, now));
        }
    }

    pub(super) fn remember_ready(&mut self, id: NodeId) {
        if self.early_ready.len() >= limits::EARLY_READY_MAX {
            self.early_ready.pop_first();
        }
        self.early_ready.insert(id);
    }

    /// Whether direct paths are allowed has perhaps changed: every path begins anew if so.
    pub(super) fn set_direct(&mut self, forbidden: Option<Forbidder>, now: Time) {
        let was = self.is_direct();
        self.direct_forbidden = forbidden;
        if self.is_direct() == was {
            return;
        }
        self.want_mapping(now);
        for key in self.book.keys() {
            let Some(entry) = self.book.get(&key) else { continue };
            let (info, engaged, sockets) = (entry.info.clone(), entry.engaged, entry.sockets());
            self.close_sockets(sockets);
            let machine = self.new_path(&info, now);
            self.book.replace(&key, machine);
            self.route_changed(key, Route::default(), now);
            if engaged {
                self.book.command(&key, PeerCommand::Engaged(true), now);
            }
            self.connect_relays(&key, now);
        }
    }
}

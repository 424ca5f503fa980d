//! The coordinator's tables: nodes, tunnels, and what each node has been told of the others. Pure bookkeeping;
//! what must be said comes out as notices.

use super::Principal;
use crate::id::{NodeId, StreamId};
use crate::key::NodePublic;
use crate::limits;
use crate::time::Time;
use crate::wire::control::{NodeInfo, ToNode};
use std::collections::{BTreeMap, BTreeSet};

/// Messages to send, in order.
pub(super) type Notices = Vec<(NodeId, ToNode)>;

/// What the coordinator knows of a node, connected or lost.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) principal: Principal,
    /// What proved it at its latest connection.
    pub(super) credential: Option<String>,
    pub(super) node_key: NodePublic,
    /// Its connection; none while it is lost.
    pub(super) stream: Option<StreamId>,
    /// When it was lost.
    pub(super) lost_at: Time,
    /// What it said of itself.
    pub(super) info: Option<NodeInfo>,
    /// Tells one `info` from another, over all nodes and times.
    version: u64,
    /// The tunnels it asked for and was granted.
    asked: BTreeSet<NodeId>,
    /// The tunnels it asked for, while the owner decides.
    pub(super) pending: BTreeSet<NodeId>,
    /// Peers that it has been told of, with the version; 0 if they must be told again.
    told: BTreeMap<NodeId, u64>,
}

/// The tables.
#[derive(Debug, Default)]
pub(super) struct Book {
    nodes: BTreeMap<NodeId, Record>,
    /// Who asked for a tunnel to the key, which need not be known (yet).
    askers: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// How many nodes have each node key: cloned machines have the same.
    keys: BTreeMap<NodePublic, usize>,
    /// Each person's nodes.
    owned: BTreeMap<String, BTreeSet<NodeId>>,
    versions: u64,
}

impl Book {
    pub(super) fn get(&self, id: &NodeId) -> Option<&Record> {
        self.nodes.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Record> {
        self.nodes.get_mut(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Record)> {
        self.nodes.iter()
    }

    /// Whether some node has this key.
    pub(super) fn knows_key(&self, key: &NodePublic) -> bool {
        self.keys.contains_key(key)
    }

    fn forget_key(&mut self, key: &NodePublic) {
        if let Some(count) = self.keys.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(key);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes of the person that a principal is; none for agents and servers, which have names of their own.
    pub(super) fn owned_by(&self, principal: &Principal) -> impl Iterator<Item = (&NodeId, &Record)> {
        let owned = owner(principal).and_then(|user| self.owned.get(user));
        owned.into_iter().flatten().filter_map(|id| Some((id, self.nodes.get(id)?)))
    }

    /// Removes a node's record.
    fn remove(&mut self, id: &NodeId) -> Option<Record> {
        let record = self.nodes.remove(id)?;
        self.forget_key(&record.node_key);
        if let Some(user) = owner(&record.principal)
            && let Some(owned) = self.owned.get_mut(user)
        {
            owned.remove(id);
            if owned.is_empty() {
                self.owned.remove(user);
            }
        }
        Some(record)
    }

    /// The nodes that share a tunnel with `id`, whoever asked for it.
    pub(super) fn peers<'a>(&'a self, id: &NodeId) -> impl Iterator<Item = &'a NodeId> + use<'a> {
        let asked = self.nodes.get(id).map(|record| &record.asked);
        let askers = self.askers.get(id);
        let extra = askers.into_iter().flatten();
        asked
            .into_iter()
            .flatten()
            .chain(extra.filter(move |other| !asked.is_some_and(|asked| asked.contains(*other))))
    }

    /// Whether two nodes share a tunnel, whoever asked for it.
    pub(super) fn are_peers(&self, a: &NodeId, b: &NodeId) -> bool {
        self.has_asked(a, b) || self.has_asked(b, a)
    }

    pub(super) fn has_asked(&self, from: &NodeId, to: &NodeId) -> bool {
        self.nodes.get(from).is_some_and(|record| record.asked.contains(to))
    }

    /// Whether another tunnel from `from` to `to` would be too many for either.
    pub(super) fn is_full(&self, from: &NodeId, to: &NodeId) -> bool {
        self.peers(from).count() >= limits::PEERS_MAX || self.peers(to).count() >= limits::PEERS_MAX
    }

    /// A node has connected, new or again.
    pub(super) fn connect(
        &mut self,
        id: &NodeId,
        (principal, credential): (Principal, Option<String>),
        key: NodePublic,
        stream: StreamId,
    ) {
        if let Some(user) = owner(&principal) {
            self.owned.entry(user.to_owned()).or_default().insert(id.clone());
        }
        match self.nodes.get(id).map(|record| record.node_key) {
            Some(before) if before == key => {}
            before => {
                *self.keys.entry(key).or_default() += 1;
                before.iter().for_each(|before| self.forget_key(before));
            }
        }
        let record = self.nodes.entry(id.clone()).or_insert_with(|| Record {
            principal,
            credential: None,
            node_key: key,
            stream: None,
            lost_at: Time::ZERO,
            info: None,
            version: 0,
            asked: BTreeSet::new(),
            pending: BTreeSet::new(),
            told: BTreeMap::new(),
        });
        record.stream = Some(stream);
        record.credential = credential;
        if record.node_key != key {
            // What was said under another key is not true any more.
            record.node_key = key;
            record.info = None;
        }
    }

    /// What a node that has just connected must know of its peers.
    pub(super) fn greet(&mut self, id: &NodeId, out: &mut Notices) {
        let peers: BTreeSet<_> = self.peers(id).cloned().collect();
        let Some(record) = self.nodes.get_mut(id) else { return };
        for known in core::mem::take(&mut record.told).into_keys() {
            if !peers.contains(&known) || !self.nodes.contains_key(&known) {
                let reason = "left while this node was not connected".to_owned();
                out.push((id.clone(), ToNode::PeerGone { id: known, reason }));
            }
        }
        for peer in peers {
            self.tell(id, &peer, out);
            if self.nodes.get(&peer).is_some_and(|record| record.stream.is_none() && record.info.is_some()) {
                out.push((id.clone(), ToNode::PeerLost { id: peer, closed: false }));
            }
        }
    }

    /// Takes what a node says of itself. False if nothing changed.
    pub(super) fn update(&mut self, id: &NodeId, info: NodeInfo) -> bool {
        let Some(record) = self.nodes.get_mut(id) else { return false };
        if record.info.as_ref() == Some(&info) {
            return false;
        }
        self.versions += 1;
        record.version = self.versions;
        record.info = Some(info);
        true
    }

    /// Tells a node's peers of it, those that don't know yet.
    pub(super) fn announce(&mut self, about: &NodeId, out: &mut Notices) {
        let peers: Vec<_> = self.peers(about).cloned().collect();
        for peer in peers {
            self.tell(&peer, about, out);
        }
    }

    fn tell(&mut self, to: &NodeId, about: &NodeId, out: &mut Notices) {
        let Some(Record { info: Some(info), version, .. }) = self.nodes.get(about) else { return };
        let (info, version) = (info.clone(), *version);
        let Some(record) = self.nodes.get_mut(to) else { return };
        if record.stream.is_some() && record.told.insert(about.clone(), version) != Some(version) {
            out.push((to.clone(), ToNode::Peer { peer: info }));
        }
    }

    /// A tunnel is granted: both learn of each other.
    pub(super) fn link(&mut self, from: &NodeId, to: &NodeId, out: &mut Notices) {
        let Some(record) = self.nodes.get_mut(from) else { return };
        record.asked.insert(to.clone());
        self.askers.entry(to.clone()).or_default().insert(from.clone());
        self.tell(from, to, out);
        self.tell(to, from, out);
        if self.nodes.get(to).is_some_and(|record| record.stream.is_none() && record.info.is_some()) {
            out.push((from.clone(), ToNode::PeerLost { id: to.clone(), closed: false }));
        }
    }

    /// The tunnel that `from` asked for ends. False if there is none.
    pub(super) fn unlink(&mut self, from: &NodeId, to: &NodeId, reason: &str, out: &mut Notices) -> bool {
        let removed = self.nodes.get_mut(from).is_some_and(|record| record.asked.remove(to));
        if let Some(askers) = self.askers.get_mut(to) {
            askers.remove(from);
            if askers.is_empty() {
                self.askers.remove(to);
            }
        }
        if removed && !self.are_peers(from, to) {
            self.forget(to, from, reason, out);
            self.forget(from, to, reason, out);
        }
        removed
    }

    /// `who` must forget `about`: now if it is connected, else when it comes back ([`Book::greet`]).
    fn forget(&mut self, who: &NodeId, about: &NodeId, reason: &str, out: &mut Notices) {
        let Some(record) = self.nodes.get_mut(who) else { return };
        if record.stream.is_some() && record.told.remove(about).is_some() {
            let reason = reason.to_owned();
            out.push((who.clone(), ToNode::PeerGone { id: about.clone(), reason }));
        }
    }

    /// A node's connection broke, `closed` by its own end or not: its peers are told, its tunnels stay.
    pub(super) fn lose(&mut self, id: &NodeId, closed: bool, now: Time, out: &mut Notices) {
        let Some(record) = self.nodes.get_mut(id) else { return };
        record.stream = None;
        record.lost_at = now;
        let peers: Vec<_> = self.peers(id).cloned().collect();
        for peer in peers {
            let Some(record) = self.nodes.get_mut(&peer) else { continue };
            if let Some(version) = record.told.get_mut(id) {
                *version = 0;
                if record.stream.is_some() {
                    out.push((peer, ToNode::PeerLost { id: id.clone(), closed }));
                }
            }
        }
    }

    /// A node leaves: its peers forget it, the tunnels that it asked for end. Tunnels that others asked for
    /// wait for its return, unless it was `expelled`.
    pub(super) fn leave(&mut self, id: &NodeId, reason: &str, expelled: bool, out: &mut Notices) {
        let peers: Vec<_> = self.peers(id).cloned().collect();
        // What it hears itself no longer matters.
        if let Some(record) = self.nodes.get_mut(id) {
            record.stream = None;
        }
        for peer in peers {
            self.forget(&peer, id, reason, out);
            self.unlink(id, &peer, reason, out);
            if expelled {
                self.unlink(&peer, id, reason, out);
            }
        }
        self.remove(id);
    }

    /// A lost node is not waited for any longer. Nobody is told: its tunnels may well carry data still.
    pub(super) fn expire(&mut self, id: &NodeId) {
        let peers: Vec<_> = self.peers(id).cloned().collect();
        for peer in peers {
            if let Some(record) = self.nodes.get_mut(&peer) {
                record.told.remove(id);
            }
        }
        self.leave(id, "", false, &mut Notices::new());
    }
}

/// The person that a principal is.
fn owner(principal: &Principal) -> Option<&str> {
    match principal {
        Principal::User { user } => Some(user),
        Principal::Agent { .. } | Principal::Server { .. } => None,
    }
}

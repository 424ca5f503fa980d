//! The peers of a node: who they are, their machines, and which of these have something to say.

use super::api::{PeerStatus, WgNotice};
use crate::explain::{self, Evidence};
use crate::id::{LinkId, NodeId, RegionId};
use crate::key::{DiscoPublic, NodePublic};
use crate::limits;
use crate::machine::{Input, Machine, Output};
use crate::peer::{PathStory, Peer, PeerCommand, PeerEvent};
use crate::route::{Activity, Direction, Route, Traffic, Via};
use crate::time::{Duration, Time, earliest};
use crate::wg::{HandshakeCommand, HandshakeEvent, HandshakeSupervisor};
use crate::wire::control::NodeInfo;
use core::net::{Ipv6Addr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Why a peer is forgotten.
const ABANDONED: &str = "the coordinator lost it and no handshake came since";
const ENDED: &str = "it has ended: its connection to the server closed, and nothing was heard of it since";

/// Since when a peer may have ended, and how long it may stay silent.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Time,
    patience: Duration,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) info: NodeInfo,
    pub(super) engaged: bool,
    pub(super) lost: Option<Time>,
    /// It may have ended: its own end closed its connection to the coordinator.
    suspected: Option<Suspicion>,
    pub(super) route: Route,
    /// Regions other than its home through which it was heard.
    pub(super) heard: BTreeSet<RegionId>,
    /// What the peer's machine was told of relays.
    told: BTreeSet<RegionId>,
    route_since: Time,
    received: Option<(Via, Time)>,
    traffic: Traffic,
    handshake: Option<Time>,
    story: VecDeque<(Time, PathStory)>,
    machine: Peer,
    supervisor: HandshakeSupervisor,
    timer: Option<(Time, &'static str)>,
}

impl Entry {
    /// The sockets that the peer's machine has asked for.
    pub(super) fn sockets(&self) -> Vec<LinkId> {
        self.machine.sockets()
    }

    pub(super) fn new(info: NodeInfo, machine: Peer, supervisor: HandshakeSupervisor, now: Time) -> Self {
        Self {
            info,
            engaged: false,
            lost: None,
            suspected: None,
            route: Route::default(),
            heard: BTreeSet::new(),
            told: BTreeSet::new(),
            route_since: now,
            received: None,
            traffic: Traffic::default(),
            handshake: None,
            story: VecDeque::new(),
            machine,
            supervisor,
            timer: None,
        }
    }

    /// Takes a route of the peer's machine; the generation counts on over machines that were replaced.
    pub(super) fn set_route(&mut self, route: Route, now: Time) -> Route {
        if route.primary != self.route.primary {
            self.route_since = now;
        }
        self.route = Route { generation: self.route.generation + 1, ..route };
        self.route
    }

    /// Remembers what happened. The least telling of the oldest makes room: how the path came to be what it is
    /// stays, however much followed.
    pub(super) fn tell(&mut self, story: PathStory, now: Time) {
        if self.story.len() >= limits::STORY_MAX {
            let turn = self.story.iter().rposition(|(_, s)| {
                matches!(s, PathStory::Direct { .. } | PathStory::Moved { .. } | PathStory::Lost { .. })
            });
            let oldest = usize::from(turn == Some(0));
            self.story.remove(oldest);
        }
        self.story.push_back((now, story));
    }

    /// When a peer that the coordinator has lost is forgotten.
    pub(super) fn forget_at(&self) -> Option<Time> {
        let since = self.lost?.max(self.handshake.unwrap_or_default());
        Some(since + limits::LOST_PEER_KEPT)
    }

    /// When something authenticated last came from it.
    fn heard(&self) -> Time {
        let received = self.received.map(|(_, at)| at);
        received.max(self.handshake).max(self.machine.heard()).unwrap_or_default()
    }

    /// When a peer that may have ended is taken for ended. As long as no way leads to it, its silence says nothing.
    fn ended_at(&self) -> Option<Time> {
        let Suspicion { since, patience } = self.suspected?;
        self.route.primary?;
        Some(since.max(self.heard()) + patience)
    }

    /// Takes a sign of life for what it is: a handshake was answered, or what came cannot have been under way before.
    fn clear_suspicion(&mut self) {
        let alive = |s: Suspicion| {
            self.handshake.is_some_and(|at| at > s.since) || self.heard() >= s.since + limits::CLOSED_LATE
        };
        if self.suspected.is_some_and(alive) {
            self.suspected = None;
        }
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        let forget = self.forget_at().map(|at| (at, "a lost peer is forgotten"));
        let ended = self.ended_at().map(|at| (at, "a peer has ended"));
        let machines = earliest(self.machine.deadline(), self.supervisor.deadline());
        earliest(machines, earliest(forget, ended))
    }

    /// The peer's side: what its endpoints show, and what it says itself.
    fn theirs(&self) -> Evidence {
        let shown = Evidence::theirs(&self.info);
        let Some(told) = self.machine.their_network() else { return shown };
        Evidence { udp: told.udp.or(shown.udp), mapping: told.mapping, grade: told.grade(), ..shown }
    }

    fn status(&self, ours: &Evidence) -> PeerStatus {
        let story: Vec<_> = self.story.iter().map(|(_, story)| story.clone()).collect();
        PeerStatus {
            verdict: explain::pair(ours, &self.theirs(), &story),
            id: self.info.id.clone(),
            key: self.info.node_key,
            inner: self.info.node_key.inner_address(),
            boot_id: self.info.boot_id,
            home: self.info.home,
            endpoints: self.info.endpoints.clone(),
            route: self.route,
            route_since: self.route_since,
            latency: self.machine.latency(),
            received: self.received,
            traffic: self.traffic,
            handshake: self.handshake,
            engaged: self.engaged,
            lost: self.lost,
            story: self.story.iter().cloned().collect(),
        }
    }
}

/// What a peer's machines have to say.
#[derive(Debug)]
pub(super) enum Said {
    Path(Output<PeerEvent>),
    Handshake(HandshakeEvent),
}

/// All peers.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<NodePublic, Entry>,
    ids: BTreeMap<NodeId, NodePublic>,
    discos: BTreeMap<DiscoPublic, NodePublic>,
    inner: BTreeMap<Ipv6Addr, NodePublic>,
    /// Peers whose machines were told something and may have answers.
    dirty: BTreeSet<NodePublic>,
    timers: BTreeSet<(Time, NodePublic)>,
}

impl Book {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn keys(&self) -> Vec<NodePublic> {
        self.entries.keys().copied().collect()
    }

    pub(super) fn get(&self, key: &NodePublic) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &NodePublic) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub(super) fn key_of(&self, id: &NodeId) -> Option<NodePublic> {
        self.ids.get(id).copied()
    }

    pub(super) fn by_disco(&self, key: &DiscoPublic) -> Option<NodePublic> {
        self.discos.get(key).copied()
    }

    pub(super) fn status(&self, ours: &Evidence) -> Vec<PeerStatus> {
        self.ids.values().filter_map(|key| self.peer_status(key, ours)).collect()
    }

    pub(super) fn peer_status(&self, key: &NodePublic, ours: &Evidence) -> Option<PeerStatus> {
        self.entries.get(key).map(|entry| entry.status(ours))
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let key = entry.info.node_key;
        self.ids.insert(entry.info.id.clone(), key);
        self.discos.insert(entry.info.disco_key, key);
        self.inner.insert(key.inner_address(), key);
        self.entries.insert(key, entry);
        self.dirty.insert(key);
    }

    /// Takes what is new of a peer that is known by this key and name.
    pub(super) fn update(&mut self, info: NodeInfo, now: Time) {
        let key = info.node_key;
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.info.disco_key != info.disco_key {
            self.discos.remove(&entry.info.disco_key);
            self.discos.insert(info.disco_key, key);
        }
        entry.lost = None;
        entry.suspected = None;
        let before = entry.info.home;
        if before != info.home && before.0 != 0 && entry.heard.len() < limits::HEARD_MAX {
            // It is there for a moment still, while we connect to its new home.
            entry.heard.insert(before);
        }
        entry.heard.remove(&info.home);
        entry.info = info.clone();
        self.command(&key, PeerCommand::Info(info), now);
    }

    pub(super) fn remove(&mut self, key: &NodePublic) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.ids.remove(&entry.info.id);
        if self.discos.get(&entry.info.disco_key) == Some(key) {
            self.discos.remove(&entry.info.disco_key);
        }
        self.inner.remove(&key.inner_address());
        self.dirty.remove(key);
        if let Some((at, _)) = entry.timer {
            self.timers.remove(&(at, *key));
        }
        Some(entry)
    }

    /// Puts another path machine in a peer's place.
    pub(super) fn replace(&mut self, key: &NodePublic, machine: Peer) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.machine = machine;
            entry.told.clear();
            self.dirty.insert(*key);
        }
    }

    pub(super) fn path(&mut self, key: &NodePublic, input: Input<'_, PeerCommand>, now: Time) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.machine.handle(input, now);
            self.dirty.insert(*key);
        }
    }

    /// The peers that are sent to at this address.
    pub(super) fn sent_to_at(&self, to: SocketAddr) -> Vec<NodePublic> {
        let at = |entry: &Entry| matches!(entry.machine.route().primary, Some(Via::Direct { addr, .. }) if addr == to);
        self.entries.iter().filter(|(_, entry)| at(entry)).map(|(key, _)| *key).collect()
    }

    /// Gives a word about a socket that a peer's guesses asked for to that peer's machine.
    pub(super) fn named_link(&mut self, link: LinkId, input: Input<'_, PeerCommand>, now: Time) {
        let owner =
            self.entries.iter().find(|(_, entry)| entry.machine.names_link(link)).map(|(key, _)| *key);
        if let Some(key) = owner {
            self.path(&key, input, now);
        }
    }

    pub(super) fn command(&mut self, key: &NodePublic, command: PeerCommand, now: Time) {
        self.path(key, Input::Command(command), now);
    }

    pub(super) fn handshake(&mut self, key: &NodePublic, command: HandshakeCommand, now: Time) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.supervisor.handle(Input::Command(command), now);
            self.dirty.insert(*key);
        }
    }

    pub(super) fn everyone(&mut self, command: &PeerCommand, now: Time) {
        for key in self.keys() {
            self.command(&key, command.clone(), now);
        }
    }

    /// Tells a peer's machine whether `region` leads to it, if that is news and it can be there at all.
    pub(super) fn relay(&mut self, key: &NodePublic, region: RegionId, up: bool, now: Time) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let leads = entry.info.home == region || entry.heard.contains(&region);
        let news = if up && leads { entry.told.insert(region) } else { entry.told.remove(&region) };
        if news {
            self.command(key, PeerCommand::Relay { region, up: up && leads }, now);
        }
    }

    pub(super) fn notice(&mut self, key: &NodePublic, notice: WgNotice, now: Time) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let command = match notice {
            WgNotice::Established => {
                entry.handshake = Some(now);
                HandshakeCommand::Established
            }
            WgNotice::Waiting => HandshakeCommand::Sent,
        };
        self.handshake(key, command, now);
    }

    pub(super) fn activity(&mut self, activity: Activity, now: Time) {
        let Some(entry) = self.entries.get_mut(&activity.peer) else { return };
        entry.traffic.count(&activity);
        let command = match activity.direction {
            Direction::Sent => HandshakeCommand::Sent,
            Direction::Received => {
                entry.received = Some((activity.via, now));
                HandshakeCommand::Received
            }
        };
        self.path(&activity.peer, Input::Activity(activity), now);
        self.handshake(&activity.peer, command, now);
    }

    /// The next thing that some peer's machine says.
    pub(super) fn poll(&mut self) -> Option<(NodePublic, Said)> {
        while let Some(key) = self.dirty.first().copied() {
            if let Some(entry) = self.entries.get_mut(&key) {
                if let Some(output) = entry.machine.poll() {
                    return Some((key, Said::Path(output)));
                }
                while let Some(output) = entry.supervisor.poll() {
                    if let Output::Event(event) = output {
                        return Some((key, Said::Handshake(event)));
                    }
                }
            }
            self.dirty.remove(&key);
            self.retime(&key);
        }
        None
    }

    fn retime(&mut self, key: &NodePublic) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let timer = entry.deadline();
        if timer == entry.timer {
            return;
        }
        if let Some((at, _)) = entry.timer {
            self.timers.remove(&(at, *key));
        }
        entry.timer = timer;
        if let Some((at, _)) = timer {
            self.timers.insert((at, *key));
        }
    }

    /// Wakes the machines whose time has come, and gives the peers that are to be forgotten, with the reason.
    pub(super) fn wake(&mut self, now: Time) -> Vec<(NodePublic, &'static str)> {
        let due: Vec<_> = self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect();
        let mut forgotten = Vec::new();
        for key in due {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let is_due = |d: Option<(Time, &'static str)>| d.is_some_and(|(at, _)| at <= now);
            if is_due(entry.machine.deadline()) {
                entry.machine.handle(Input::Deadline, now);
            }
            if is_due(entry.supervisor.deadline()) {
                entry.supervisor.handle(Input::Deadline, now);
            }
            entry.clear_suspicion();
            if entry.ended_at().is_some_and(|at| at <= now) {
                forgotten.push((key, ENDED));
            } else if entry.forget_at().is_some_and(|at| at <= now) {
                forgotten.push((key, ABANDONED));
            }
            self.dirty.insert(key);
        }
        forgotten
    }

    pub(super) fn lose(&mut self, key: &NodePublic, now: Time) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.lost.get_or_insert(now);
            self.dirty.insert(*key);
        }
    }

    /// A peer may have ended: it is dropped unless it is heard of within `patience`. A peer whose path fell silent before
    /// is without a network, and whoever closed its connection, a router that restarted perhaps, was not its end.
    pub(super) fn suspect(&mut self, key: &NodePublic, patience: Duration, now: Time) {
        if let Some(entry) = self.entries.get_mut(key) {
            if entry.machine.lost_at().is_some_and(|lost| entry.heard() < lost) {
                return;
            }
            entry.suspected = Some(Suspicion { since: now, patience });
            self.dirty.insert(*key);
        }
    }

    /// The coordinator, who told us that peers may have ended, is itself about to end: they may just have been sent away.
    pub(super) fn doubt_news(&mut self) {
        for (key, entry) in &mut self.entries {
            if entry.suspected.take().is_some() {
                self.dirty.insert(*key);
            }
        }
    }

    /// Whether a peer of another key has this inner address.
    pub(super) fn address_taken(&self, address: Ipv6Addr, key: &NodePublic) -> bool {
        self.inner.get(&address).is_some_and(|holder| holder != key)
    }

    /// The home regions of all peers.
    pub(super) fn homes(&self) -> BTreeSet<RegionId> {
        self.entries.values().map(|entry| entry.info.home).filter(|home| home.0 != 0).collect()
    }

    /// The home regions of peers in use.
    pub(super) fn homes_in_use(&self) -> BTreeSet<RegionId> {
        let used = self.entries.values().filter(|entry| entry.engaged);
        used.map(|entry| entry.info.home).filter(|home| home.0 != 0).collect()
    }

    /// The regions that lead or led to a peer.
    pub(super) fn regions_of(&self, key: &NodePublic) -> BTreeSet<RegionId> {
        let Some(entry) = self.entries.get(key) else { return BTreeSet::new() };
        let home = [entry.info.home].into_iter().filter(|home| home.0 != 0);
        entry.heard.iter().chain(&entry.told).copied().chain(home).collect()
    }

    pub(super) fn deadline(&self) -> Option<(Time, &'static str)> {
        let (_, key) = self.timers.first()?;
        self.entries.get(key)?.timer
    }
}

//! One peer, seen from here: where it might be reached, what is being tried, and the path in use.

use crate::id::{LinkId, RegionId};
use crate::key::{DiscoPublic, DiscoSecret, NodePublic, SharedBox};
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::nat::Mapping;
use crate::nat::predict::Shape;
use crate::route::{Activity, Direction, Route, Via};
use crate::seed::{Rng, Seed};
use crate::time::{Duration, Monotone, Time, earliest};
use crate::wire;
use crate::wire::control::NodeInfo;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

mod budget;
mod candidate;
mod current;
mod fresh;
mod guess;
mod liveness;
mod mail;
mod path;
mod probe;
mod punch;
mod story;

pub use candidate::Source;
pub use path::Quality;
pub use story::{Loss, Outcome, PathStory, Tried};

use budget::Budget;
use candidate::Candidates;
use current::Path;
use fresh::Fresh;
use guess::Guess;
use probe::Probes;
use punch::{Mode, Punch};

/// What a peer's machine needs to know of us.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Our node key, named in our pings.
    pub us: NodePublic,
    /// Our disco key.
    pub disco: DiscoSecret,
    /// Whether direct paths are allowed. If not, only relays are used and nothing is probed or answered.
    pub direct: bool,
    /// Whether ports may be guessed, and sockets opened for it.
    pub guess: bool,
    /// The first name of such sockets; [`limits::PEER_SOCKETS`] of them are this peer's.
    pub sockets: LinkId,
}

/// What a peer's machine is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerCommand {
    /// What the coordinator says of the peer has changed.
    Info(NodeInfo),
    /// Our own endpoints, for call-me-maybe; replaces what was said before.
    Endpoints(Vec<SocketAddr>),
    /// Whether we can send to the peer through this region now.
    Relay {
        /// The region: the peer's home or one it was heard through.
        region: RegionId,
        /// Whether it can be used.
        up: bool,
    },
    /// A disco datagram of the peer came through a relay.
    Relayed {
        /// The relay's region.
        region: RegionId,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// What our own network is like, by our netcheck.
    Network {
        /// What the peer is told of it.
        shape: Shape,
        /// STUN servers that answer.
        stun: Vec<SocketAddr>,
    },
    /// Whether somebody uses the tunnel: its path is then kept warm.
    Engaged(bool),
    /// The host's network changed: paths are checked anew, at once.
    NetworkChanged,
}

/// What a peer's machine tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerEvent {
    /// Send this disco datagram to the peer through this region's relay.
    Relay {
        /// The relay's region.
        region: RegionId,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Where the peer's packets travel from now on. Its generation grows with every such event.
    Route(Route),
    /// Something a person may want to know.
    Story(PathStory),
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    config: PeerConfig,
    info: NodeInfo,
    /// The public half of our disco key, since making it costs as much as a handshake.
    disco: DiscoPublic,
    shared: SharedBox,
    clock: Monotone,
    /// When it was last handled.
    now: Time,
    /// Draws transaction ids and nonces.
    rng: Rng,
    /// Our sockets.
    links: BTreeMap<LinkId, SocketAddr>,
    /// Regions through which we can send to the peer.
    regions: BTreeSet<RegionId>,
    /// The region that the peer was last heard through.
    heard_region: Option<RegionId>,
    /// When it last was.
    heard_word: Option<Time>,
    /// Our own endpoints.
    endpoints: Vec<SocketAddr>,
    candidates: Candidates,
    probes: Probes,
    punch: Punch,
    guess: Guess,
    fresh: Fresh,
    path: Option<Path>,
    /// For probes and openers.
    budget: Budget,
    /// For answers to the peer's probes.
    answers: Budget,
    /// For words through a relay.
    words: Budget,
    engaged: bool,
    /// Whether it was in use at the last look.
    was_active: bool,
    active_until: Time,
    wanted_until: Time,
    /// When we last followed the peer's call.
    called: Time,
    route: Route,
    out: Outbox<PeerEvent>,
}

impl Peer {
    /// A peer as the coordinator first told it.
    #[must_use]
    pub fn new(config: PeerConfig, info: NodeInfo, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        let mut candidates = Candidates::default();
        candidates.replace(Source::Coordinator, &info.endpoints, now);
        candidates.mapped(info.mapped, now);
        let sockets = config.sockets;
        Self {
            disco: config.disco.public(),
            shared: config.disco.shared(&info.disco_key),
            config,
            info,
            clock,
            now,
            rng: seed.fork("peer disco").rng(),
            links: BTreeMap::new(),
            regions: BTreeSet::new(),
            heard_region: None,
            heard_word: None,
            endpoints: Vec::new(),
            candidates,
            probes: Probes::default(),
            punch: Punch::new(seed.fork("peer punch").rng()),
            guess: Guess::new(sockets, seed.fork("peer guess").rng(), now),
            fresh: Fresh::new(LinkId(sockets.0 + limits::GUESS_SOCKETS), seed.fork("peer fresh").rng()),
            path: None,
            budget: Budget::new(limits::PROBE_BURST, limits::PROBE_RATE, now),
            answers: Budget::new(limits::ANSWER_BURST, limits::ANSWER_RATE, now),
            words: Budget::new(limits::WORD_BURST, limits::WORD_RATE, now),
            engaged: false,
            was_active: false,
            active_until: now,
            wanted_until: now + limits::WANTED,
            called: Time::ZERO,
            route: Route::default(),
            out: Outbox::default(),
        }
    }

    /// What the coordinator last said of the peer.
    #[must_use]
    pub const fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// The route in force.
    #[must_use]
    pub const fn route(&self) -> Route {
        self.route
    }

    /// The direct path's smoothed round trip, if there is a direct path.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.path.as_ref().map(|path| path.latency)
    }

    /// When the peer's machine last said something authenticated, on a direct path or through a relay.
    #[must_use]
    pub fn heard(&self) -> Option<Time> {
        self.path.as_ref().map(|path| path.live.last_heard()).max(self.heard_word)
    }

    /// When a direct path to the peer was last lost, if one was.
    pub(crate) const fn lost_at(&self) -> Option<Time> {
        self.punch.lost_at()
    }

    /// Whether somebody uses the tunnel: an owner says so, or data flowed lately.
    fn active(&self, now: Time) -> bool {
        self.engaged || now < self.active_until
    }

    /// Whether the peer is worth attempts.
    fn wanted(&self, now: Time) -> bool {
        self.active(now) || now < self.wanted_until
    }

    /// The region to send to the peer through: its home, else where it was heard, else any.
    fn relay(&self) -> Option<RegionId> {
        let up = |region: &RegionId| self.regions.contains(region);
        let heard = self.heard_region.filter(up);
        Some(self.info.home).filter(up).or(heard).or_else(|| self.regions.first().copied())
    }

    fn story(&mut self, story: PathStory) {
        self.out.event(PeerEvent::Story(story));
    }

    fn on_command(&mut self, command: PeerCommand, now: Time) {
        match command {
            PeerCommand::Info(info) => self.on_info(info, now),
            PeerCommand::Endpoints(list) => self.on_endpoints(list, now),
            PeerCommand::Relay { region, up } => self.on_relay(region, up, now),
            PeerCommand::Relayed { region, bytes } => self.on_relayed(region, &bytes, now),
            PeerCommand::Network { shape, stun } => self.on_shape(shape, stun, now),
            PeerCommand::Engaged(engaged) => self.engaged = engaged,
            PeerCommand::NetworkChanged => {
                self.moved();
                self.fresh_moved(now);
                if let Some(path) = &mut self.path {
                    path.live.shake(now);
                }
                if self.path.is_some() || self.wanted(now) {
                    self.begin(Mode::Ask, now);
                }
            }
        }
    }

    fn on_info(&mut self, info: NodeInfo, now: Time) {
        let restarted = info.boot_id != self.info.boot_id || info.disco_key != self.info.disco_key;
        if info.disco_key != self.info.disco_key {
            self.shared = self.config.disco.shared(&info.disco_key);
        }
        self.info = info;
        self.wanted_until = now + limits::WANTED;
        if restarted {
            self.candidates.clear();
            self.probes.clear();
            self.heard_region = None;
            self.heard_word = None;
        }
        let new = self.candidates.replace(Source::Coordinator, &self.info.endpoints, now);
        self.candidates.mapped(self.info.mapped, now);
        if restarted {
            self.punch.restart();
            self.guess.restart();
            self.lose(Loss::Restarted, now);
        }
        if self.path.is_none() && (new || restarted) && !(restarted && self.punch.is_trying()) {
            self.begin(Mode::Ask, now);
        }
    }

    fn on_endpoints(&mut self, list: Vec<SocketAddr>, now: Time) {
        let list: Vec<_> = list.iter().map(candidate::canonical).take(limits::CANDIDATES_MAX).collect();
        if list == self.endpoints {
            return;
        }
        self.endpoints = list;
        // Behind a NAT that shows each a port of its own, another one is no news.
        if self.guess.ours().mapping != Mapping::Varies {
            self.moved();
        }
        if self.path.is_some() || !self.wanted(now) {
            return;
        }
        if self.punch.is_trying() {
            self.tell(Mode::Ask, now);
        } else {
            self.begin(Mode::Ask, now);
        }
    }

    fn on_relay(&mut self, region: RegionId, up: bool, now: Time) {
        if !up {
            self.regions.remove(&region);
            return;
        }
        if self.regions.len() < limits::PEER_REGIONS_MAX {
            self.regions.insert(region);
        }
        // An attempt that nobody could be told of begins anew.
        if self.path.is_none() && self.punch.is_trying() && self.punch.untold() {
            self.begin(Mode::Ask, now);
        }
    }

    fn on_activity(&mut self, activity: Activity, now: Time) {
        if activity.peer != self.info.node_key {
            return;
        }
        self.active_until = now + limits::ACTIVE_TAIL;
        let path = self.path.as_mut();
        match (activity.direction, activity.via) {
            (Direction::Sent, Via::Direct { addr, .. }) => {
                if let Some(path) = path.filter(|path| path.addr == addr) {
                    path.live.sent(now);
                }
            }
            (Direction::Sent, Via::Relay(_)) => {}
            (Direction::Received, via) => {
                if let Some(path) = path {
                    path.live.data(matches!(via, Via::Direct { addr, .. } if addr == path.addr), now);
                }
                if let Via::Direct { link, addr } = via
                    && self.config.direct
                    && self.owns_link(link)
                {
                    self.hear(link, candidate::canonical(&addr), now);
                }
            }
        }
    }

    fn on_link_down(&mut self, link: LinkId, now: Time) {
        self.links.remove(&link);
        self.on_guess_link_down(link);
        self.on_fresh_link_down(link);
        for (_, candidate) in self.candidates.iter_mut() {
            candidate.link = candidate.link.filter(|l| *l != link);
        }
        if self.path.as_ref().is_some_and(|path| path.link == link) {
            self.lose(Loss::Link, now);
        }
    }

    /// A path used again after a rest that a NAT may not have outlived is punched anew while it is asked.
    fn check_use(&mut self, now: Time) {
        let active = self.active(now);
        if active && !self.was_active {
            let old = |path: &Path| now.since(path.live.last_heard()) >= limits::PATH_EXPIRED;
            if self.path.as_ref().is_none_or(old) && self.punch.rested(now) {
                self.begin(Mode::Ask, now);
            }
        }
        self.was_active = active;
    }
}

impl Machine for Peer {
    type Command = PeerCommand;
    type Event = PeerEvent;

    fn handle(&mut self, input: Input<'_, PeerCommand>, now: Time) {
        let now = self.clock.clamp(now);
        match input {
            Input::Datagram { link, bytes, .. } if self.guess.owns(link) && is_stun(bytes) => {
                self.on_guess_stun(bytes);
            }
            Input::Datagram { link, bytes, .. } if self.fresh.owns(link) && is_stun(bytes) => {
                self.on_fresh_stun(bytes, now);
            }
            Input::Datagram { link, from, bytes } => self.on_datagram(link, from, bytes, now),
            Input::LinkUp { link, address } if self.guess.names(link) => {
                self.on_guess_link(link, address, now);
            }
            Input::LinkUp { link, .. } if self.fresh.names(link) => self.on_fresh_link(link, now),
            Input::LinkUp { link, address } => {
                if self.links.len() < limits::LINKS_MAX {
                    self.links.insert(link, address);
                }
                if self.path.is_none() && self.punch.is_trying() {
                    self.begin(Mode::Ask, now);
                }
            }
            Input::LinkDown { link } => self.on_link_down(link, now),
            Input::Unreachable { to, .. } => {
                if let Some(path) = self.path.as_mut().filter(|path| path.addr == to) {
                    path.live.unreachable(now);
                }
            }
            Input::Activity(activity) => self.on_activity(activity, now),
            Input::Command(command) => self.on_command(command, now),
            _ => {}
        }
        self.check_use(now);
        // The path's fate may begin an attempt, and an attempt's end may free the path to ask for another.
        for _ in 0..2 {
            self.check_path(now);
            self.step_punch(now);
        }
        self.step_guess(now);
        self.step_fresh(now);
        self.publish();
        self.now = now;
    }

    fn poll(&mut self) -> Option<Output<PeerEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        let now = self.now;
        let path = self.path.as_ref().and_then(|path| path.live.deadline(now)).map(|at| (at, "path"));
        let punch = self.punch_deadline(now).map(|at| (at, "punch"));
        let rest = (self.path.is_some() && !self.engaged && now < self.active_until)
            .then_some((self.active_until, "path out of use"));
        let again = self.hurry_at(now).map(|at| (at, "path in doubt"));
        let guess = self.guess_deadline(now).map(|at| (at, "port guesses"));
        let fresh = self.fresh_deadline(now).map(|at| (at, "a fresh socket"));
        let sockets = earliest(guess, fresh);
        earliest(earliest(earliest(path, punch), sockets), earliest(again, rest))
    }
}

fn is_stun(bytes: &[u8]) -> bool {
    wire::classify(bytes) == wire::Kind::Stun
}

#[cfg(test)]
mod tests;

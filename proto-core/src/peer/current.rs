//! The direct path in use: taking one, leaving one, and the route that follows from it.

use super::candidate::Source;
use super::liveness::{Liveness, Verdict};
use super::mail::Purpose;
use super::path::Quality;
use super::probe::Probe;
use super::punch::Mode;
use super::story::{Loss, PathStory};
use super::{Peer, PeerEvent};
use crate::id::LinkId;
use crate::limits;
use crate::route::{Route, Via};
use crate::time::{Duration, Time};
use core::net::SocketAddr;

/// The direct path in use.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// The peer's address.
    pub(super) addr: SocketAddr,
    /// Our socket.
    pub(super) link: LinkId,
    /// Its smoothed round trip.
    pub(super) latency: Duration,
    /// Since when packets take it.
    pub(super) since: Time,
    /// Since when packets have gone directly at all.
    pub(super) direct_since: Time,
    /// Whether it still carries.
    pub(super) live: Liveness,
    /// Whether a copy of each packet goes through a relay.
    pub(super) doubted: bool,
    /// The doubt was told; the recovery is to be told too.
    told: bool,
}

impl Path {
    const fn new(link: LinkId, addr: SocketAddr, latency: Duration, now: Time) -> Self {
        let live = Liveness::new(latency, now);
        Self { addr, link, latency, since: now, direct_since: now, live, doubted: false, told: false }
    }

    fn quality(&self) -> Quality {
        Quality::direct(self.addr, self.latency)
    }
}

impl Peer {
    /// A candidate has answered: the path in use learns from it, or it becomes the path if it is better.
    pub(super) fn consider(&mut self, link: LinkId, probe: Probe, latency: Duration, now: Time) {
        let Some(candidate) = self.candidates.get(&probe.to).filter(|c| c.usable(now)) else { return };
        let source = candidate.source;
        let active = self.active(now);
        match &mut self.path {
            None => self.become_direct(link, probe.to, (source, latency), now),
            Some(path) if path.addr == probe.to => {
                path.link = link;
                path.latency = latency;
                path.live.answered(probe.full, latency, now);
            }
            Some(path) => {
                // Answers of one attempt compete freely; later on, moves keep a distance.
                let free = now.since(path.direct_since) < limits::PATH_SETTLE
                    || now.since(path.since) >= limits::PATH_HOLD;
                let better = Quality::direct(probe.to, latency).worth_moving(&path.quality());
                if path.live.persists(now) || (free && better) {
                    let from = path.addr;
                    let direct_since = path.direct_since;
                    *path = Path { direct_since, ..Path::new(link, probe.to, latency, now) };
                    path.live.set_active(active);
                    self.story(PathStory::Moved { from, to: probe.to, latency });
                }
            }
        }
    }

    fn become_direct(&mut self, link: LinkId, addr: SocketAddr, seen: (Source, Duration), now: Time) {
        let (source, latency) = seen;
        let mut path = Path::new(link, addr, latency, now);
        path.live.set_active(self.active(now));
        self.path = Some(path);
        let after = self.punch.succeeded(latency, now);
        self.story(PathStory::Direct { addr, source, latency, after });
    }

    /// Gives the path up and looks for another at once.
    pub(super) fn lose(&mut self, why: Loss, now: Time) {
        let Some(path) = self.path.take() else { return };
        if let Some(candidate) = self.candidates.get_mut(&path.addr) {
            candidate.answer = None;
            if why == Loss::NoData {
                candidate.benched = Some(now + limits::BENCH);
            }
        }
        self.punch.lost(now);
        self.story(PathStory::Lost { addr: path.addr, why });
        self.begin(Mode::Ask, now);
    }

    /// Probes the path if it is due, and judges it.
    pub(super) fn check_path(&mut self, now: Time) {
        let active = self.active(now);
        let Some(path) = &mut self.path else { return };
        path.live.set_active(active);
        let addr = path.addr;
        // A short and a full-size probe may be due together, never more.
        for _ in 0..2 {
            let Some(ask) = self.path.as_mut().and_then(|path| path.live.due(now)) else { break };
            self.probe(addr, Purpose::Path(ask), now);
            if let Some(path) = &mut self.path {
                path.live.asked(ask, now);
            }
        }
        let relay = self.relay().is_some();
        let Some(path) = &mut self.path else { return };
        match path.live.verdict(now) {
            Verdict::Trusted => {
                path.doubted = false;
                if core::mem::take(&mut path.told) {
                    self.story(PathStory::Recovered { addr });
                }
            }
            // Without a relay a doubtful path is better than none, for a while.
            Verdict::Lost(why) if relay || now.since(path.live.last_heard()) >= limits::PATH_FORLORN => {
                self.lose(why, now);
            }
            Verdict::Doubted | Verdict::Lost(_) => self.doubt(now),
        }
    }

    fn doubt(&mut self, now: Time) {
        let Some(path) = &mut self.path else { return };
        path.doubted = true;
        if !path.live.persists(now) {
            return;
        }
        let (addr, silent) = (path.addr, now.since(path.live.last_heard()));
        if !core::mem::replace(&mut path.told, true) {
            self.story(PathStory::Doubted { addr, silent });
        }
        if self.punch.rested(now) {
            self.begin(Mode::Ask, now);
        }
    }

    /// When a path in lasting doubt, with no attempt under way, makes us begin one.
    pub(super) fn hurry_at(&self, now: Time) -> Option<Time> {
        let path = self.path.as_ref()?;
        (path.doubted && path.live.persists(now)).then(|| self.punch.rested_at()).flatten()
    }

    /// Tells the route if it has changed.
    pub(super) fn publish(&mut self) {
        let relay = self.relay().map(Via::Relay);
        let direct = self.path.as_ref().map(|path| Via::Direct { link: path.link, addr: path.addr });
        let doubted = self.path.as_ref().is_some_and(|path| path.doubted);
        let primary = direct.or(relay);
        let duplicate = relay.filter(|_| doubted);
        if (primary, duplicate) == (self.route.primary, self.route.duplicate) {
            return;
        }
        if primary != self.route.primary {
            match primary {
                Some(Via::Relay(region)) => self.story(PathStory::Relayed { region }),
                None => self.story(PathStory::Unreachable),
                Some(Via::Direct { .. }) => {}
            }
        }
        self.route = Route { generation: self.route.generation + 1, primary, duplicate };
        self.out.event(PeerEvent::Route(self.route));
    }
}

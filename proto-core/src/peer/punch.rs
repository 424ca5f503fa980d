//! Attempts to go direct.
//!
//! One attempt: tell the peer where we are (call-me-maybe), probe near addresses at once, and the far ones
//! by open, ack, punch. Some routers (Linux, accepting new packets on their own address) remap a port for
//! good if the peer's packet arrives before ours has left. So a packet of few hops leaves first, opens our
//! own NAT and dies on its way; "opened" tells the peer through a relay; and full probes leave only after
//! the peer has said the same, or after a while if its word does not come.

use super::Peer;
use super::mail::Purpose;
use super::story::PathStory;
use crate::limits;
use crate::seed::Rng;
use crate::time::{Duration, Time};
use crate::wire::control::FEATURE_OPENED;
use crate::wire::disco::Message;
use core::net::SocketAddr;

/// Who wants an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// We do: the peer is called.
    Ask,
    /// The peer called: it is not called back, or two peers would call for ever.
    Answer,
}

/// Where attempts stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing is tried.
    Idle,
    /// An attempt runs.
    Trying { until: Time },
    /// The last one failed; the next comes then.
    Resting { until: Time },
}

/// The attempts to reach one peer.
#[derive(Debug)]
pub(super) struct Punch {
    state: State,
    /// Attempts since the path was last direct.
    attempt: u32,
    /// When they began.
    since: Option<Time>,
    /// When the running one began.
    began: Time,
    /// When the peer was told of it.
    told: Option<Time>,
    /// "Opened" was told once more.
    again: bool,
    /// When the peer said "opened", and its round.
    peer_opened: Option<(Time, u32)>,
    /// Our round: grows with each attempt told.
    round: u32,
    /// Failures in a row.
    failures: u32,
    /// When a direct path was last lost.
    lost: Option<Time>,
    rng: Rng,
}

impl Punch {
    pub(super) const fn new(rng: Rng) -> Self {
        Self {
            state: State::Idle,
            attempt: 0,
            since: None,
            began: Time::ZERO,
            told: None,
            again: false,
            peer_opened: None,
            round: 0,
            failures: 0,
            lost: None,
            rng,
        }
    }

    /// A path was found: the attempt goes on only for a better one. Answers how long it took.
    pub(super) fn succeeded(&mut self, latency: Duration, now: Time) -> Duration {
        if let State::Trying { until } = &mut self.state {
            let rest = if latency > limits::GOOD_ENOUGH { limits::PATH_SETTLE } else { Duration::ZERO };
            *until = (*until).min(now + rest);
        } else {
            self.state = State::Idle;
        }
        self.attempt = 0;
        self.failures = 0;
        self.since.take().map_or(Duration::ZERO, |since| now.since(since))
    }

    /// The path was lost.
    pub(super) fn lost(&mut self, now: Time) {
        self.lost = Some(now);
        self.failures = 0;
    }

    /// When the path was last lost.
    pub(super) const fn lost_at(&self) -> Option<Time> {
        self.lost
    }

    /// Whether another attempt may begin without being asked for.
    pub(super) fn rested(&self, now: Time) -> bool {
        self.rested_at().is_some_and(|at| at <= now)
    }

    /// From when on it may, if none runs.
    pub(super) fn rested_at(&self) -> Option<Time> {
        (!self.is_trying()).then(|| self.began + limits::REST)
    }

    /// Since when a path is looked for.
    pub(super) const fn since(&self) -> Option<Time> {
        self.since
    }

    /// Whether an attempt runs.
    pub(super) const fn is_trying(&self) -> bool {
        matches!(self.state, State::Trying { .. })
    }

    /// Since when both sides are in the running attempt, and no path was found.
    pub(super) fn silent_since(&self) -> Option<Time> {
        let (at, _) = self.peer_opened.filter(|_| self.is_trying())?;
        (self.began.since(at) < limits::OPENER_FRESH).then(|| self.began.max(at))
    }

    /// Whether the running attempt still waits for a relay to tell it through.
    pub(super) const fn untold(&self) -> bool {
        self.told.is_none()
    }

    /// The peer is another process: what it said before is void.
    pub(super) fn restart(&mut self) {
        self.state = State::Idle;
        self.attempt = 0;
        self.since = None;
        self.told = None;
        self.peer_opened = None;
        self.failures = 0;
    }

    /// One of the two is somewhere else: what the peer has opened leads from, or to, where somebody was before.
    pub(super) fn moved(&mut self) {
        self.peer_opened = None;
    }

    fn peer_opened(&self, now: Time) -> bool {
        self.peer_opened.is_some_and(|(at, _)| now.since(at) < limits::OPENER_FRESH)
    }

    fn rest(&mut self, now: Time) -> Duration {
        let recent = self.lost.is_some_and(|at| now.since(at) < limits::RECENTLY_DIRECT);
        let most = if recent { limits::REST_MAX_AFTER_LOSS } else { limits::REST_MAX };
        let pause = limits::REST.saturating_mul(1 << self.failures.min(10)).min(most);
        self.failures = self.failures.saturating_add(1);
        self.rng.jitter(pause, 20)
    }
}

impl Peer {
    /// Whether the peer understands "opened".
    fn peer_opens(&self) -> bool {
        self.info.features.iter().any(|feature| feature == FEATURE_OPENED)
    }

    /// We are somewhere else: neither our openers nor the peer's are between the two of us any more, and a full probe
    /// would arrive at a router that has not been opened for it.
    pub(super) fn moved(&mut self) {
        self.punch.moved();
        for (_, candidate) in self.candidates.iter_mut() {
            candidate.opened = None;
        }
    }

    /// Begins an attempt, or refreshes the one that runs.
    pub(super) fn begin(&mut self, mode: Mode, now: Time) {
        if !self.config.direct || self.links.is_empty() {
            return;
        }
        let length = if self.path.is_some() { limits::ATTEMPT_ASIDE } else { limits::ATTEMPT };
        let running = self.punch.is_trying();
        self.punch.state = State::Trying { until: now + length };
        self.punch.began = now;
        self.punch.told = None;
        self.punch.again = false;
        if self.path.is_none() && !running {
            self.punch.attempt = self.punch.attempt.saturating_add(1);
            self.punch.since.get_or_insert(now);
            let (attempt, candidates) = (self.punch.attempt, self.candidates.len());
            self.story(PathStory::Punching { attempt, candidates });
        }
        for (_, candidate) in self.candidates.iter_mut() {
            if !running {
                candidate.probes = 0;
            }
            candidate.paced = 0;
            candidate.next = None;
        }
        self.arm(now);
        self.tell(mode, now);
    }

    /// Opens our NAT towards far candidates and makes the others due.
    fn arm(&mut self, now: Time) {
        let opens = self.peer_opens();
        let later = self.punch.attempt > 1;
        let ttls = if later { limits::OPENER_TTLS_LATER } else { limits::OPENER_TTLS };
        for addr in self.candidates.ranked() {
            let Some(candidate) = self.candidates.get_mut(&addr) else { continue };
            if !candidate.usable(now) || self.endpoints.contains(&addr) {
                continue;
            }
            if opens && candidate.needs_opener(&addr) {
                let fresh = candidate.opened.is_some_and(|at| now.since(at) < limits::REST);
                if !fresh {
                    for ttl in ttls {
                        self.probe(addr, Purpose::Opener(*ttl), now);
                    }
                }
            } else {
                candidate.next = Some(candidate.probed.map_or(now, |at| now.max(at + limits::PROBE_PAUSE)));
            }
        }
    }

    /// Tells the peer of the attempt through a relay, if there is one.
    pub(super) fn tell(&mut self, mode: Mode, now: Time) {
        let Some(region) = self.relay() else { return };
        self.punch.told = Some(now);
        self.punch.round = self.punch.round.wrapping_add(1);
        if mode == Mode::Ask && !self.endpoints.is_empty() {
            let fresh = self.fresh.mapped().into_iter();
            let endpoints =
                fresh.chain(self.endpoints.iter().copied()).take(limits::CANDIDATES_MAX).collect();
            self.say(region, &Message::CallMeMaybe { endpoints }, now);
        }
        if self.path.is_none() {
            self.tell_shape(now);
        }
        self.tell_opened(now);
    }

    fn tell_opened(&mut self, now: Time) {
        let fresh = |at: Time| now.since(at) < limits::OPENER_FRESH;
        let opened = self.candidates.iter().any(|(_, c)| c.opened.is_some_and(fresh));
        if let Some(region) = self.relay().filter(|_| opened && self.peer_opens()) {
            let round = self.punch.round;
            self.say(region, &Message::Opened { round }, now);
        }
    }

    /// The peer asks to be probed at these addresses.
    pub(super) fn on_call(&mut self, endpoints: &[SocketAddr], now: Time) {
        if !self.config.direct {
            return;
        }
        let new = self.candidates.replace(super::Source::CallMeMaybe, endpoints, now);
        if new {
            self.punch.moved();
        }
        self.wanted_until = now + limits::WANTED;
        if new || now.since(self.called) >= limits::ANSWER_PAUSE {
            self.called = now;
            self.begin(Mode::Answer, now);
        }
    }

    /// The peer's openers are out.
    pub(super) fn on_opened(&mut self, round: u32, now: Time) {
        if !self.config.direct {
            return;
        }
        self.punch.peer_opened = Some((now, round));
        // Whoever has a working path needs no attempt; a peer that does will call.
        if self.path.is_none() && !self.punch.is_trying() && now.since(self.called) >= limits::ANSWER_PAUSE {
            self.called = now;
            self.begin(Mode::Answer, now);
        }
    }

    /// From when on far candidates may be probed in full. A peer that was not even heard through a relay is
    /// probably not there yet, and an early probe would spoil its router's port: our own NAT is open, and
    /// its first word will come. Only after some attempts in vain is the relay taken for deaf.
    fn gate(&self, now: Time) -> Option<Time> {
        if !self.peer_opens() || self.punch.peer_opened(now) {
            return Some(now);
        }
        let Some(told) = self.punch.told else { return Some(self.punch.began + limits::RELAY_WAIT) };
        let heard = self.heard_word.is_some_and(|at| told.since(at) < limits::OPENER_FRESH);
        (heard || self.punch.attempt > limits::ATTEMPTS_PATIENT).then_some(told + limits::OPENED_WAIT)
    }

    /// What is due of attempts at `now`.
    pub(super) fn step_punch(&mut self, now: Time) {
        match self.punch.state {
            State::Trying { until } => {
                self.probe_due(now);
                if until <= now {
                    self.end_attempt(now);
                }
            }
            State::Resting { until } if until <= now => {
                self.punch.state = State::Idle;
                if self.path.is_none() && self.wanted(now) {
                    self.begin(Mode::Ask, now);
                    self.probe_due(now);
                }
            }
            State::Resting { .. } => {}
            State::Idle => {
                let due = self.path.is_none() && self.wanted(now);
                if due || self.upgrade_at(now).is_some_and(|at| at <= now) {
                    self.begin(Mode::Ask, now);
                    self.probe_due(now);
                }
            }
        }
    }

    /// When a better path is looked for next.
    fn upgrade_at(&self, now: Time) -> Option<Time> {
        let path = self.path.as_ref()?;
        let slow = path.latency > limits::GOOD_ENOUGH;
        (slow && !path.doubted && self.active(now))
            .then(|| self.punch.began.max(path.since) + limits::UPGRADE_EVERY)
    }

    fn probe_due(&mut self, now: Time) {
        if !self.punch.is_trying() {
            return;
        }
        let open = self.gate(now).is_some_and(|at| at <= now);
        let told = self.punch.told.is_some_and(|told| told + limits::OPENED_AGAIN <= now);
        if told && !self.punch.again {
            self.punch.again = true;
            if !self.punch.peer_opened(now) {
                self.tell_opened(now);
            }
        }
        let (path, opens) = (self.path.as_ref().map(|path| path.addr), self.peer_opens());
        for addr in self.candidates.ranked() {
            let Some(candidate) = self.candidates.get_mut(&addr) else { continue };
            let waits = opens && candidate.needs_opener(&addr);
            if waits && open && candidate.next.is_none() && candidate.paced == 0 && candidate.usable(now) {
                candidate.next = Some(now);
            }
            if path == Some(addr) || self.endpoints.contains(&addr) {
                candidate.next = None;
            }
            if candidate.next.is_some_and(|at| at <= now) {
                self.probe_candidate(addr, now);
            }
        }
    }

    fn probe_candidate(&mut self, addr: SocketAddr, now: Time) {
        let reachable = self.link_for(addr).is_some();
        let left = self.probe(addr, Purpose::Discovery, now);
        let short = self.budget.pause();
        let Some(candidate) = self.candidates.get_mut(&addr) else { return };
        candidate.next = if left {
            let doubled = limits::PROBE_PAUSE.saturating_mul(1 << candidate.paced.saturating_sub(1).min(10));
            Some(now + self.punch.rng.jitter(doubled.min(limits::PROBE_PAUSE_MAX), 10))
        } else if reachable {
            Some(now + short)
        } else {
            None
        };
    }

    fn end_attempt(&mut self, now: Time) {
        for (_, candidate) in self.candidates.iter_mut() {
            candidate.next = None;
        }
        if self.path.is_some() {
            self.punch.state = State::Idle;
            return;
        }
        let tried = self.candidates.tried(self.punch.began, |addr| self.link_for(*addr).is_some());
        let attempt = self.punch.attempt;
        self.story(PathStory::Failed { attempt, tried });
        let rest = self.punch.rest(now);
        self.punch.state = State::Resting { until: now + rest };
    }

    /// When attempts want to be woken.
    pub(super) fn punch_deadline(&self, now: Time) -> Option<Time> {
        match self.punch.state {
            State::Idle => self.upgrade_at(now),
            State::Resting { until } => Some(until),
            State::Trying { until } => {
                let next = self.candidates.iter().filter_map(|(_, c)| c.next).min();
                let waiting = self.candidates.iter().any(|(addr, c)| {
                    c.next.is_none()
                        && c.paced == 0
                        && c.needs_opener(addr)
                        && c.usable(now)
                        && !self.endpoints.contains(addr)
                });
                let gate = self.gate(now).filter(|at| waiting && *at > now);
                let again =
                    self.punch.told.filter(|_| !self.punch.again).map(|told| told + limits::OPENED_AGAIN);
                [Some(until), next, gate, again].into_iter().flatten().min()
            }
        }
    }
}

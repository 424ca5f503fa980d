//! Port guessing: a path to a peer behind a NAT that takes another port for each destination.
//!
//! The side whose port is known worse, the *opener*, opens many sockets, each of which sends one packet of few hops to
//! the other side's one address: as many ports of its NAT then let that address in. The other, the *walker*, tries
//! ports from one socket, the likeliest first (`nat/predict.rs`). With 256 sockets, every second time 175 random tries
//! hit one, and 1,159 do 99 times in a hundred. The socket that was hit carries the path from then on.
//!
//! A walker that everybody sees under one address is ready as it is. One whose NAT takes ports by a sequence is asked
//! which port it will have, and measures it: its mapping is kept for all ports of the opener's address, or else each of
//! its tries has the next port of the sequence, and the one half-way is where the opener's packets go (`locate.rs`).
//!
//! Both sides know each other's NAT by a word through the relay. An attempt is bounded in packets a second, packets,
//! and sockets; one that failed is repeated after a quarter of a minute, then half, up to an hour.

use super::Peer;
use super::budget::Budget;
use crate::id::LinkId;
use crate::limits;
use crate::machine::{Output, Transmit};
use crate::nat::predict::{Grade, Guesses, Habit, Shape, can_meet, habit};
use crate::seed::Rng;
use crate::time::Time;
use crate::wire::control::{FEATURE_GUESS, FEATURE_OPENED};
use crate::wire::disco::{GuessWord, Message, TxId};
use crate::wire::stun::{self, TransactionId};
use core::net::{Ipv4Addr, SocketAddr};
use measure::Measure;
use std::collections::{BTreeMap, VecDeque};

mod locate;
mod measure;

/// Where an attempt stands.
#[derive(Clone, Debug)]
enum Stage {
    Idle,
    /// The opener finds out which ports its NAT takes.
    Measuring(Measure),
    /// It has asked for the walker's port.
    Asking {
        until: Time,
    },
    /// It opens sockets and sends from them, a few a tick.
    Opening {
        next: Time,
        until: Time,
    },
    /// All have sent: the walker tries.
    Open {
        until: Time,
    },
    /// The walker finds out which port it will have.
    Locating(Measure),
    /// It has told, and waits for the opener.
    Located {
        until: Time,
    },
    /// It tries ports of this address.
    Trying {
        at: Ipv4Addr,
        guesses: Guesses,
        left: u32,
        next: Time,
    },
    /// All tries are under way.
    Waiting {
        until: Time,
    },
}

/// The guesses for one peer.
#[derive(Debug)]
pub(super) struct Guess {
    /// The first name of our sockets; [`limits::GUESS_SOCKETS`] follow it.
    first: LinkId,
    /// Sockets that we asked for, and where those that are up are bound.
    sockets: BTreeMap<LinkId, Option<SocketAddr>>,
    /// Names given in this attempt.
    named: u32,
    /// Sockets yet to be asked for.
    wanted: u32,
    /// Sockets that have yet to send.
    closed: VecDeque<LinkId>,
    ours: Shape,
    theirs: Option<Shape>,
    /// STUN servers that answer us.
    stun: Vec<SocketAddr>,
    stage: Stage,
    /// Ports that our NAT took just before.
    ports: Vec<u16>,
    /// Where our openers go.
    to: Option<SocketAddr>,
    /// The walker's socket, if not one of the node's own.
    from: Option<LinkId>,
    /// Times that the sockets send once more.
    rounds: u32,
    packets: Budget,
    failures: u32,
    /// No attempt before this.
    rested: Time,
    rng: Rng,
}

impl Guess {
    pub(super) fn new(first: LinkId, rng: Rng, now: Time) -> Self {
        Self {
            first,
            sockets: BTreeMap::new(),
            named: 0,
            wanted: 0,
            closed: VecDeque::new(),
            ours: Shape::default(),
            theirs: None,
            stun: Vec::new(),
            stage: Stage::Idle,
            ports: Vec::new(),
            to: None,
            from: None,
            rounds: 0,
            packets: Budget::new(limits::GUESS_A_TICK, limits::GUESS_RATE, now),
            failures: 0,
            rested: Time::ZERO,
            rng,
        }
    }

    /// Whether this socket is one of ours.
    pub(super) fn owns(&self, link: LinkId) -> bool {
        self.sockets.contains_key(&link)
    }

    /// Whether this may be the name of one.
    pub(super) const fn names(&self, link: LinkId) -> bool {
        link.0 >= self.first.0 && link.0 - self.first.0 < limits::GUESS_SOCKETS
    }

    /// What our own network is like.
    pub(super) const fn ours(&self) -> &Shape {
        &self.ours
    }

    /// STUN servers that answer us.
    pub(super) fn stun(&self) -> &[SocketAddr] {
        &self.stun
    }

    /// One of the two is on another network: what has failed was elsewhere.
    fn elsewhere(&mut self, now: Time) {
        self.failures = 0;
        self.rested = self.rested.min(now + limits::GUESS_PAUSE);
    }

    /// What the peer said of its network.
    pub(super) const fn theirs(&self) -> Option<&Shape> {
        self.theirs.as_ref()
    }

    /// The peer started anew.
    pub(super) fn restart(&mut self) {
        self.theirs = None;
        self.failures = 0;
    }

    const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Both sides' grades, ours first, if guesses can bring the two together.
    fn grades(&self) -> Option<(Grade, Grade)> {
        let (ours, theirs) = (self.ours.grade()?, self.theirs.as_ref()?.grade()?);
        can_meet(ours, theirs).then_some((ours, theirs))
    }

    /// How many sockets an attempt takes: fewer where the ports are known to lie close, for the block's sake.
    fn sockets_for(&self, theirs: Grade) -> u32 {
        if theirs == Grade::Next {
            return 2 * u32::from(limits::SEQUENCE_AHEAD);
        }
        match habit(&self.ports) {
            Habit::Random => limits::GUESS_SOCKETS,
            Habit::Block(size) if size > limits::PORT_BLOCKS[0] => limits::GUESS_SOCKETS_BLOCK,
            Habit::Sequential(_) | Habit::Block(_) => limits::GUESS_SOCKETS_NEAR,
        }
    }
}

impl Peer {
    /// Whether a socket is ours: one of the node's, or one opened for guessing.
    pub(super) fn owns_link(&self, link: LinkId) -> bool {
        self.links.contains_key(&link) || self.guess.owns(link) || self.fresh.owns(link)
    }

    /// Whether the peer understands guesses, and we may make them.
    fn guesses(&self) -> bool {
        self.config.direct && self.config.guess && self.info.features.iter().any(|f| f == FEATURE_GUESS)
    }

    /// Whether we are the one that opens. Where both are known equally well, the smaller key does.
    fn opens(&self, (ours, theirs): (Grade, Grade)) -> bool {
        ours < theirs || (ours == theirs && self.config.us < self.info.node_key)
    }

    /// Our own network is known (better).
    pub(super) fn on_shape(&mut self, shape: Shape, stun: Vec<SocketAddr>, now: Time) {
        self.guess.stun = stun;
        if shape == self.guess.ours {
            return;
        }
        if shape.address != self.guess.ours.address {
            self.end_guess(now);
            self.guess.elsewhere(now);
        }
        self.guess.ours = shape;
        if self.path.is_none() && self.wanted(now) {
            self.tell_shape(now);
        }
    }

    /// Tells the peer what our network is like, through a relay.
    pub(super) fn tell_shape(&mut self, now: Time) {
        let known = self.guess.ours.udp.is_some();
        // Whoever understands "opened" is one of us, and ignores words that are new to it.
        let ours = self.info.features.iter().any(|f| f == FEATURE_GUESS || f == FEATURE_OPENED);
        if let Some(region) = self.relay().filter(|_| known && ours && self.config.direct) {
            let shape = self.guess.ours.clone();
            self.say(region, &Message::Shape(shape), now);
        }
    }

    /// The peer says what its network is like.
    pub(super) fn on_their_shape(&mut self, shape: Shape, now: Time) {
        if self.guess.theirs.as_ref().is_some_and(|before| before.address != shape.address) {
            self.end_guess(now);
            self.guess.elsewhere(now);
        }
        self.guess.theirs = Some(shape);
    }

    fn say_guess(&mut self, word: GuessWord, now: Time) {
        if let Some(region) = self.relay() {
            self.say(region, &Message::Guess(word), now);
        }
    }

    /// The peer's word in an attempt.
    pub(super) fn on_guess_word(&mut self, word: GuessWord, now: Time) {
        let Some(grades) = self.guess.grades().filter(|_| self.guesses() && self.path.is_none()) else {
            return;
        };
        match word {
            GuessWord::Ask => self.locate(grades, now),
            GuessWord::Here { port } => self.on_here(port, now),
            GuessWord::Open { ports } => self.on_open(grades, &ports, now),
        }
    }

    fn on_here(&mut self, port: u16, now: Time) {
        let address = self.guess.theirs.as_ref().and_then(|theirs| theirs.address);
        if let (Stage::Asking { .. }, Some(ip), true) = (&self.guess.stage, address, port != 0) {
            self.open_towards(SocketAddr::new(ip.into(), port), now);
        }
    }

    /// The peer's sockets are open towards us: we try its ports.
    fn on_open(&mut self, grades: (Grade, Grade), ports: &[u16], now: Time) {
        let Some(at) = self.guess.theirs.as_ref().and_then(|theirs| theirs.address) else { return };
        let ready = match (&self.guess.stage, grades.0) {
            (Stage::Idle, Grade::Easy) => self.guess.rested <= now,
            (Stage::Located { .. }, Grade::Kept | Grade::Next) => true,
            _ => false,
        };
        if !ready || self.opens(grades) {
            return;
        }
        let guesses = Guesses::new(ports, &mut self.guess.rng);
        // Beyond the opener's packets, those of a sequence could hit nothing.
        let next = 2 * u32::from(limits::SEQUENCE_AHEAD);
        let left = if grades.0 == Grade::Next { next } else { limits::GUESS_PROBES };
        self.guess.stage = Stage::Trying { at, guesses, left, next: now };
    }

    /// The sockets that this peer has asked for, which end with it.
    pub(crate) fn sockets(&self) -> Vec<LinkId> {
        self.guess.sockets.keys().copied().chain(self.fresh.link()).collect()
    }

    /// A socket that we asked for is there.
    pub(super) fn on_guess_link(&mut self, link: LinkId, address: SocketAddr, now: Time) {
        if let Some(up @ None) = self.guess.sockets.get_mut(&link) {
            *up = Some(address);
            self.guess.closed.push_back(link);
            self.ask_stun(now);
        }
    }

    /// Asks for sockets; answers their names.
    fn bind(&mut self, count: usize) -> Vec<LinkId> {
        let mut names = Vec::new();
        while names.len() < count && self.guess.named < limits::GUESS_SOCKETS {
            let link = LinkId(self.guess.first.0 + self.guess.named);
            self.guess.named += 1;
            if let std::collections::btree_map::Entry::Vacant(vacant) = self.guess.sockets.entry(link) {
                vacant.insert(None);
                self.out.push(Output::Bind { link });
                names.push(link);
            }
        }
        names
    }

    /// Once all sockets of a measurement are up, each asks; those that got no answer ask once more.
    fn ask_stun(&mut self, now: Time) {
        let (Stage::Measuring(measure) | Stage::Locating(measure)) = &mut self.guess.stage else { return };
        let up = |link: &LinkId| self.guess.sockets.get(link).is_some_and(Option::is_some);
        let first = !measure.asked && measure.sockets.iter().all(up);
        if !first && !measure.late(now) {
            return;
        }
        (measure.asked, measure.again) = (true, !first);
        let asking = measure.unanswered();
        let Some(count) = core::num::NonZeroUsize::new(self.guess.stun.len()) else { return };
        for (n, link) in asking.into_iter().enumerate() {
            let to = self.guess.stun[n % count];
            let tx = TransactionId::generate(&mut self.guess.rng);
            if let Stage::Measuring(measure) | Stage::Locating(measure) = &mut self.guess.stage {
                measure.sent(tx, link);
            }
            self.guess.packets.charge(now);
            self.out.transmit(link, to, stun::request(tx).to_vec());
            if first && n == 0 {
                self.hold_port(link, now);
            }
        }
    }

    /// A STUN server has answered one of our sockets.
    pub(super) fn on_guess_stun(&mut self, bytes: &[u8]) {
        let (Stage::Measuring(measure) | Stage::Locating(measure), Ok(answer)) =
            (&mut self.guess.stage, stun::Response::parse(bytes))
        else {
            return;
        };
        measure.answer(answer.transaction, answer.mapped.port());
    }

    fn guess_probe(&mut self, link: LinkId, to: SocketAddr, ttl: Option<u8>) {
        let tx = TxId::generate(&mut self.guess.rng);
        let bytes = self.seal(&Message::Ping { tx, node_key: Some(self.config.us), padding: 0 });
        self.out.push(Output::Transmit(Transmit { link, to, bytes, ttl }));
    }

    /// An answer came to a probe that nobody remembers: one of the many.
    pub(super) fn on_guess_hit(&mut self, link: LinkId, from: SocketAddr, now: Time) {
        let theirs = self.guess.theirs.as_ref().and_then(|theirs| theirs.address);
        if !self.guess.is_idle() && self.path.is_none() && theirs.is_some_and(|ip| from.ip() == ip) {
            self.hear(link, from, now);
        }
    }

    /// When an attempt of the opener begins, if none is to be waited for otherwise.
    fn guess_at(&self) -> Option<Time> {
        let ready = self.path.is_none() && self.guess.is_idle() && self.guesses() && self.relay().is_some();
        self.guess.grades().filter(|grades| ready && self.opens(*grades))?;
        Some(self.punch.since()?.max(self.guess.rested) + limits::GUESS_AFTER)
    }

    /// What is due of guesses.
    pub(super) fn step_guess(&mut self, now: Time) {
        if self.path.is_some() {
            self.guess.failures = 0;
            self.end_guess(now);
            return;
        }
        if self.guess.is_idle() {
            self.end_guess(now);
        }
        if self.guess_at().is_some_and(|at| at <= now) && self.wanted(now) {
            self.guess.named = 0;
            let sockets = self.bind(limits::GUESS_MEASURE);
            self.guess.stage = Stage::Measuring(Measure::new(sockets, now));
        }
        self.ask_stun(now);
        match &self.guess.stage {
            Stage::Measuring(measure) if measure.over(now) => self.measured(now),
            Stage::Locating(measure) if measure.over(now) => self.located(now),
            Stage::Opening { next, .. } if *next <= now => self.open_some(now),
            Stage::Trying { next, .. } if *next <= now => self.try_some(now),
            Stage::Asking { until }
            | Stage::Open { until }
            | Stage::Located { until }
            | Stage::Waiting { until }
                if *until <= now =>
            {
                self.fail_guess(now);
            }
            _ => {}
        }
    }

    fn fail_guess(&mut self, now: Time) {
        let pause = limits::GUESS_REST.saturating_mul(1 << self.guess.failures.min(10));
        self.guess.rested = now + pause.min(limits::GUESS_REST_MAX);
        self.guess.failures = self.guess.failures.saturating_add(1);
        self.end_guess(now);
    }

    /// The opener knows which ports its NAT takes.
    fn measured(&mut self, now: Time) {
        let Stage::Measuring(measure) = &self.guess.stage else { return };
        self.guess.ports = measure.ports();
        let theirs = self.guess.theirs.as_ref();
        let known = theirs.filter(|theirs| theirs.grade() == Some(Grade::Easy));
        match known.and_then(|theirs| Some(SocketAddr::new(theirs.address?.into(), theirs.port))) {
            Some(to) => self.open_towards(to, now),
            None => {
                self.guess.stage = Stage::Asking { until: now + limits::GUESS_ASK };
                self.say_guess(GuessWord::Ask, now);
            }
        }
    }

    /// The opener knows where its packets go.
    fn open_towards(&mut self, to: SocketAddr, now: Time) {
        let Some((_, theirs)) = self.guess.grades() else { return self.fail_guess(now) };
        self.guess.to = Some(to);
        self.guess.wanted = self.guess.sockets_for(theirs).saturating_sub(self.guess.named);
        // One of them alone meets the one try that has this port, so none may be lost, nor come too early for good.
        self.guess.rounds = if theirs == Grade::Next { limits::SEQUENCE_ROUNDS } else { 0 };
        self.guess.stage = Stage::Opening { next: now, until: now + limits::GUESS_WAIT };
        let ports = self.guess.ports.clone();
        self.say_guess(GuessWord::Open { ports }, now);
        self.open_some(now);
    }

    fn open_some(&mut self, now: Time) {
        let (Some(to), Stage::Opening { until, .. }) = (self.guess.to, &self.guess.stage) else { return };
        let until = *until;
        // In the order of their names, which is that of a sequence.
        while let Some(link) = self.guess.closed.front().copied() {
            if self.guess.owns(link) {
                if !self.guess.packets.take(now) {
                    break;
                }
                let ttl = (self.guess.rounds == 0).then_some(limits::GUESS_TTL);
                self.guess_probe(link, to, ttl);
            }
            self.guess.closed.pop_front();
        }
        let some = self.guess.wanted.min(limits::GUESS_A_TICK);
        self.guess.wanted -= some;
        let named = self.bind(some as usize).len();
        let up = until <= now || self.guess.sockets.values().all(Option::is_some);
        if named == 0 && up && self.guess.closed.is_empty() {
            if self.guess.rounds > 0 {
                self.guess.rounds -= 1;
                self.guess.closed = self.guess.sockets.keys().copied().collect();
                if self.guess.rounds > 0 {
                    self.guess.stage = Stage::Opening { next: now + limits::GUESS_TICK, until };
                    return;
                }
            }
            self.guess.closed.clear();
            self.guess.stage = Stage::Open { until: now + limits::GUESS_WAIT };
        } else {
            self.guess.stage = Stage::Opening { next: now + limits::GUESS_TICK, until };
        }
    }

    fn try_some(&mut self, now: Time) {
        let Stage::Trying { at, mut guesses, mut left, .. } =
            core::mem::replace(&mut self.guess.stage, Stage::Idle)
        else {
            return;
        };
        while left > 0 && self.guess.packets.take(now) {
            let Some(port) = guesses.next() else { break };
            let to = SocketAddr::new(at.into(), port);
            if let Some(link) = self.guess.from.or_else(|| self.link_for(to)) {
                self.guess_probe(link, to, None);
            }
            left -= 1;
        }
        self.guess.stage = if left > 0 {
            Stage::Trying { at, guesses, left, next: now + limits::GUESS_TICK }
        } else {
            Stage::Waiting { until: now + limits::GUESS_LAST }
        };
    }

    /// Ends an attempt and closes what was opened, but for the socket that a path has, and for a while those that the
    /// peer was heard on: its path may be one of them.
    fn end_guess(&mut self, now: Time) {
        if !self.guess.is_idle() {
            self.guess.rested = self.guess.rested.max(now + limits::GUESS_PAUSE);
            self.guess.stage = Stage::Idle;
            self.guess.to = None;
            self.guess.from = None;
            self.guess.closed.clear();
            self.guess.ports.clear();
        }
        if self.guess.sockets.is_empty() {
            return;
        }
        let path = self.path.as_ref().map(|path| path.link);
        let lately = |at: Time| now.since(at) < limits::GUESS_KEPT;
        let heard = self.candidates.iter().filter(|(_, c)| c.heard.is_some_and(lately));
        let kept: Vec<LinkId> = heard.filter_map(|(_, c)| c.link).chain(path).collect();
        let closed: Vec<LinkId> =
            self.guess.sockets.keys().copied().filter(|link| !kept.contains(link)).collect();
        for link in closed {
            self.guess.sockets.remove(&link);
            self.out.push(Output::Unbind { link });
        }
    }

    /// One of the sockets is gone.
    pub(super) fn on_guess_link_down(&mut self, link: LinkId) {
        self.guess.sockets.remove(&link);
    }

    /// When guesses want to be woken.
    pub(super) fn guess_deadline(&self, now: Time) -> Option<Time> {
        match &self.guess.stage {
            Stage::Idle => {
                // Sockets that were hit beside the path's are closed after a while.
                let path = self.path.as_ref().map(|path| path.link);
                let spare = |link: LinkId| self.guess.owns(link) && path != Some(link);
                let heard = self.candidates.iter().filter(|(_, c)| c.link.is_some_and(spare));
                let closing = heard.filter_map(|(_, c)| c.heard).map(|at| at + limits::GUESS_KEPT).min();
                [closing, self.guess_at()].into_iter().flatten().filter(|at| *at > now).min()
            }
            Stage::Measuring(measure) | Stage::Locating(measure) => Some(measure.deadline()),
            Stage::Opening { next, .. } | Stage::Trying { next, .. } => Some(*next),
            Stage::Asking { until }
            | Stage::Open { until }
            | Stage::Located { until }
            | Stage::Waiting { until } => Some(*until),
        }
    }

    /// What the peer says of its network, if it does.
    #[must_use]
    pub const fn their_network(&self) -> Option<&Shape> {
        self.guess.theirs()
    }

    /// Whether this may be the name of a socket that this peer's machine asked for.
    #[must_use]
    pub const fn names_link(&self, link: LinkId) -> bool {
        self.guess.names(link) || self.fresh.names(link)
    }
}

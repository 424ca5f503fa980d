//! One peer of a model: its sessions, its handshake, what waits for it.

use super::session::Session;
use super::timers::{Due, Timers};
use super::{INDEX_BITS, QUEUE_MAX, SESSIONS};
use proto_core::time::Time;
use proto_core::wg::Sealed;
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Peer {
    /// What only the two of us know.
    pub(super) secret: u64,
    /// The latest index used: the slot in its upper bits, a number that wraps around in the lower ones.
    index: u32,
    init: Option<Init>,
    previous: Option<Init>,
    /// Whether all was given up: nothing happens by itself any more.
    expired: bool,
    /// Each at the place that its index says, so that the ninth takes the place of the first.
    sessions: [Option<Session>; SESSIONS],
    current: u32,
    /// Whether a session stands that packets can be sealed with.
    session: bool,
    /// Whether one has stood before: the first handshake is the core's to begin.
    acquainted: bool,
    waiting: VecDeque<Vec<u8>>,
    pub(super) last_stamp: u64,
    /// None before the first call that says what time it is.
    timers: Option<Timers>,
}

/// An initiation of ours that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Init {
    pub(super) index: u32,
    pub(super) nonce: u64,
    pub(super) sent: Time,
}

impl Peer {
    pub(super) fn new(slot: u32, secret: u64) -> Self {
        Self {
            secret,
            index: slot << INDEX_BITS,
            init: None,
            previous: None,
            expired: false,
            sessions: [const { None }; SESSIONS],
            current: slot << INDEX_BITS,
            session: false,
            acquainted: false,
            waiting: VecDeque::new(),
            last_stamp: 0,
            timers: None,
        }
    }

    /// An index that messages to us will carry.
    pub(super) const fn next_index(&mut self) -> u32 {
        let low = self.index as u8;
        self.index = self.index - low as u32 + low.wrapping_add(1) as u32;
        self.index
    }

    fn timers(&mut self, now: Time) -> &mut Timers {
        self.timers.get_or_insert_with(|| Timers::new(now))
    }

    /// Whether an initiation waits for its answer.
    pub(super) const fn is_waiting(&self) -> bool {
        self.init.is_some()
    }

    /// An initiation goes out.
    pub(super) fn initiated(&mut self, init: Init) {
        let now = init.sent;
        if self.expired {
            self.timers(now).clear(now);
            self.expired = false;
        }
        let fresh = self.init.is_none();
        self.timers(now).initiated(now, fresh);
        self.previous = self.init.replace(init);
    }

    /// A peer's initiation is answered. One of ours that waited may still be answered, too.
    pub(super) fn answered(&mut self, session: Session, now: Time) {
        self.previous = self.init.take();
        self.expired = false;
        self.timers(now).established(now, false);
        self.keep(session, now);
    }

    /// The initiation of ours with this index.
    pub(super) fn init(&self, index: u32) -> Option<Init> {
        [self.init, self.previous].into_iter().flatten().find(|init| init.index == index)
    }

    /// Our initiation is answered.
    pub(super) fn completed(&mut self, session: Session, now: Time) {
        let index = session.ours;
        if self.init.is_some_and(|init| init.index == index) {
            self.init = None;
        } else {
            self.previous = None;
        }
        self.timers(now).established(now, true);
        self.keep(session, now);
        self.confirm(index);
        self.acquaint();
    }

    fn keep(&mut self, mut session: Session, now: Time) {
        session.begun = self.timers(now).stamp(now);
        let place = place(session.ours);
        self.sessions[place] = Some(session);
    }

    pub(super) fn session(&mut self, index: u32) -> Option<&mut Session> {
        self.sessions[place(index)].as_mut().filter(|session| session.ours == index)
    }

    /// A packet has come on session `index`: we may use it, if it is not older than the one we use.
    fn confirm(&mut self, index: u32) {
        let begun = |index| self.sessions[place(index)].as_ref().map(|session| session.begun);
        if begun(index) >= begun(self.current) {
            self.current = index;
        }
    }

    const fn acquaint(&mut self) {
        self.session = true;
        self.acquainted = true;
    }

    /// A packet came on session `index`; `good` unless it held something that is no packet.
    pub(super) fn received(&mut self, index: u32, len: usize, good: bool, now: Time) {
        self.confirm(index);
        self.timers(now).received(now, len > 0 && good);
        if good {
            self.acquaint();
        }
    }

    /// Seals on the session in use, or has the packet wait. The outer is none if a handshake should begin.
    pub(super) fn seal(&mut self, inner: &[u8], out: &mut [u8], now: Time) -> Option<Sealed> {
        if self.session {
            return Some(self.seal_now(inner, out, now).map_or(Sealed::Dropped, Sealed::Data));
        }
        if inner.is_empty() || self.waiting.len() >= QUEUE_MAX {
            return Some(Sealed::Dropped);
        }
        self.waiting.push_back(inner.to_vec());
        (!self.acquainted || self.is_waiting()).then_some(Sealed::Waiting)
    }

    fn seal_now(&mut self, inner: &[u8], out: &mut [u8], now: Time) -> Option<usize> {
        let len = self.sessions[place(self.current)].as_mut()?.seal(inner, out)?;
        self.timers(now).sent(now, !inner.is_empty());
        Some(len)
    }

    /// The next packet that waited.
    pub(super) fn flush(&mut self, out: &mut [u8], now: Time) -> Option<usize> {
        let inner = if self.session { self.waiting.pop_front()? } else { return None };
        self.seal_now(&inner, out, now)
    }

    /// Forgets the sessions. A handshake under way goes on.
    pub(super) fn reset(&mut self) {
        self.sessions = [const { None }; SESSIONS];
        self.session = false;
        self.acquainted = false;
    }

    /// Runs the timers: what there is to send.
    pub(super) fn tick(&mut self, out: &mut [u8], now: Time) -> Tick {
        let initiation = self.init.map(|init| init.sent);
        let due = if self.expired { None } else { self.timers(now).run(initiation, now) };
        self.end_sessions(now);
        if due == Some(Due::GiveUp) {
            self.timers(now).clear(now);
            (self.init, self.previous, self.expired) = (None, None, true);
            self.sessions = [const { None }; SESSIONS];
            self.waiting.clear();
        }
        if self.sessions[place(self.current)].is_none() {
            self.session = false;
        }
        match due {
            None | Some(Due::GiveUp) => Tick::Nothing,
            Some(Due::Initiate) => Tick::Initiate,
            // Without a session a keepalive asks for one.
            Some(Due::Keepalive) => self.seal_now(&[], out, now).map_or(Tick::Initiate, Tick::Keepalive),
        }
    }

    fn end_sessions(&mut self, now: Time) {
        let timers = self.timers.get_or_insert_with(|| Timers::new(now));
        for place in &mut self.sessions {
            if place.as_ref().is_some_and(|session| timers.session_ends(session.begun) <= now) {
                *place = None;
            }
        }
    }

    /// When the timers have something to do.
    pub(super) fn next_tick(&self) -> Option<Time> {
        // A new peer's timers begin to run at once.
        let Some(timers) = &self.timers else { return Some(Time::ZERO) };
        let ends = self.sessions.iter().flatten().map(|session| timers.session_ends(session.begun)).min();
        let due = (!self.expired).then(|| timers.next(self.init.map(|init| init.sent)).0);
        [ends, due].into_iter().flatten().min()
    }
}

/// What a peer's timers ask for.
pub(super) enum Tick {
    Nothing,
    Initiate,
    /// A keepalive of this length is written.
    Keepalive(usize),
}

/// A session's place.
const fn place(index: u32) -> usize {
    index as usize % SESSIONS
}

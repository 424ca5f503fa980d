//! Attempts from a socket whose port nobody has seen yet.
//!
//! Two networks that should meet may miss each other for good: a packet that came before ours had left (a router that
//! forgot everything, a node that moved while the other went on sending) took the port away for these two addresses, and
//! the attempts themselves keep it taken. Another port is another pair of addresses, at whichever of the two routers the
//! fault lies. So one side, that of the smaller key, opens a socket once an attempt both sides are in stays silent, asks a
//! STUN server for its mapping, and goes on from there; the peer is told that address, too. The socket ends with its attempt
//! unless it carries the path.

use super::Peer;
use super::candidate::needs_opener;
use super::punch::Mode;
use crate::id::LinkId;
use crate::limits;
use crate::machine::Output;
use crate::nat::predict::Grade;
use crate::seed::Rng;
use crate::time::Time;
use crate::wire::stun::{self, TransactionId};
use core::net::SocketAddr;

/// Where the socket stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// There is none.
    Closed,
    /// It has been asked for.
    Binding { until: Time },
    /// A STUN server is asked how it is seen.
    Asking { tx: TransactionId, asked: usize, again: Time, until: Time },
    /// The peer is told of this address, since then.
    Ready { mapped: SocketAddr, since: Time },
    /// A path was found beside it, which the peer may have chosen: it is kept for a while.
    Spare { until: Time },
}

/// The fresh socket of one peer.
#[derive(Debug)]
pub(super) struct Fresh {
    /// The first of its names; [`limits::FRESH_SOCKETS`] are used in turn, so that none comes back soon.
    first: LinkId,
    used: u32,
    link: Option<LinkId>,
    stage: Stage,
    failures: u32,
    /// No other one before this.
    rested: Time,
    rng: Rng,
}

impl Fresh {
    pub(super) const fn new(first: LinkId, rng: Rng) -> Self {
        Self { first, used: 0, link: None, stage: Stage::Closed, failures: 0, rested: Time::ZERO, rng }
    }

    /// Whether this is the socket.
    pub(super) fn owns(&self, link: LinkId) -> bool {
        self.link == Some(link)
    }

    /// The socket, if there is one.
    pub(super) const fn link(&self) -> Option<LinkId> {
        self.link
    }

    /// Whether this may be its name.
    pub(super) const fn names(&self, link: LinkId) -> bool {
        link.0 >= self.first.0 && link.0 - self.first.0 < limits::FRESH_SOCKETS
    }

    /// How it is seen from outside, while attempts are made from it.
    pub(super) const fn mapped(&self) -> Option<SocketAddr> {
        match self.stage {
            Stage::Ready { mapped, .. } => Some(mapped),
            _ => None,
        }
    }

    /// The socket that packets for `to` leave from, instead of one that the peer was `heard` on there.
    pub(super) fn link_for(&self, to: SocketAddr, heard: Option<Time>) -> Option<LinkId> {
        let Stage::Ready { since, .. } = self.stage else { return None };
        self.link.filter(|_| needs_opener(&to) && heard.is_none_or(|at| at < since))
    }
}

impl Peer {
    /// When a fresh socket is asked for, if the attempt under way stays as it is.
    fn fresh_at(&self) -> Option<Time> {
        let unused = matches!(self.fresh.stage, Stage::Closed | Stage::Spare { .. });
        let idle = unused && self.path.is_none() && self.config.guess;
        // Of both sides one suffices, and two would miss each other.
        let ours = idle && self.config.us < self.info.node_key && !self.guess.stun().is_empty();
        let silent = self.punch.silent_since().filter(|_| ours && self.both_easy())?;
        Some(self.fresh.rested.max(silent + limits::FRESH_AFTER))
    }

    /// Whether both sides' ports are the same for everybody, as far as they have told: others guess.
    fn both_easy(&self) -> bool {
        let theirs = self.guess.theirs().and_then(crate::nat::predict::Shape::grade);
        self.guess.ours().grade() == Some(Grade::Easy) && theirs.is_none_or(|grade| grade == Grade::Easy)
    }

    /// The socket is there: a STUN server is asked how it is seen.
    pub(super) fn on_fresh_link(&mut self, link: LinkId, now: Time) {
        if self.fresh.owns(link) && matches!(self.fresh.stage, Stage::Binding { .. }) {
            self.ask_fresh(0, now + limits::GUESS_MEASURE_MAX, now);
        }
    }

    fn ask_fresh(&mut self, asked: usize, until: Time, now: Time) {
        let stun = self.guess.stun();
        let to = stun.iter().copied().filter(SocketAddr::is_ipv4).cycle().nth(asked);
        let (Some(to), Some(link)) = (to, self.fresh.link) else { return self.close_fresh() };
        let tx = TransactionId::generate(&mut self.fresh.rng);
        self.out.transmit(link, to, stun::request(tx).to_vec());
        let again = now + limits::GUESS_MEASURE_AGAIN;
        self.fresh.stage = Stage::Asking { tx, asked: asked + 1, again, until };
    }

    /// A STUN server has answered: from now on the attempt is made from this socket.
    pub(super) fn on_fresh_stun(&mut self, bytes: &[u8], now: Time) {
        let Ok(answer) = stun::Response::parse(bytes) else { return };
        if !matches!(self.fresh.stage, Stage::Asking { tx, .. } if tx == answer.transaction) {
            return;
        }
        if self.path.is_some() {
            // Found meanwhile: nobody is told of this address, and what was opened stays.
            self.fresh.stage = Stage::Spare { until: now };
            return;
        }
        self.fresh.stage = Stage::Ready { mapped: answer.mapped, since: now };
        // What either side has opened leads to other ports.
        self.moved();
        self.begin(Mode::Ask, now);
    }

    /// What is due of the fresh socket.
    pub(super) fn step_fresh(&mut self, now: Time) {
        if self.fresh_at().is_some_and(|at| at <= now) && self.wanted(now) {
            self.close_fresh();
            let link = LinkId(self.fresh.first.0 + self.fresh.used);
            self.fresh.used = (self.fresh.used + 1) % limits::FRESH_SOCKETS;
            self.fresh.link = Some(link);
            let pause = limits::FRESH_REST.saturating_mul(1 << self.fresh.failures.min(10));
            self.fresh.rested = now + pause.min(limits::REST_MAX);
            self.fresh.failures = self.fresh.failures.saturating_add(1);
            self.fresh.stage = Stage::Binding { until: now + limits::GUESS_MEASURE_MAX };
            self.out.push(Output::Bind { link });
        }
        let carries = self.path.as_ref().is_some_and(|path| self.fresh.owns(path.link));
        match self.fresh.stage {
            _ if carries => {
                self.fresh.failures = 0;
                self.fresh.stage = Stage::Spare { until: now + limits::GUESS_KEPT };
            }
            Stage::Asking { asked, again, until, .. } if again <= now && now < until => {
                self.ask_fresh(asked, until, now);
            }
            Stage::Binding { until } | Stage::Asking { until, .. } | Stage::Spare { until }
                if until <= now =>
            {
                self.close_fresh();
            }
            Stage::Ready { .. } if self.path.is_some() => {
                self.fresh.stage = Stage::Spare { until: now + limits::GUESS_KEPT };
            }
            Stage::Ready { .. } if !self.punch.is_trying() => self.close_fresh(),
            _ => {}
        }
    }

    fn close_fresh(&mut self) {
        if let Some(link) = self.fresh.link.take() {
            self.out.push(Output::Unbind { link });
        }
        self.fresh.stage = Stage::Closed;
    }

    /// We are somewhere else: how the socket was seen is void, and what has failed was there.
    pub(super) fn fresh_moved(&mut self, now: Time) {
        self.fresh.failures = 0;
        self.fresh.rested = self.fresh.rested.min(now + limits::FRESH_REST);
        if self.path.as_ref().is_none_or(|path| !self.fresh.owns(path.link)) {
            self.close_fresh();
        }
    }

    /// The socket is gone.
    pub(super) fn on_fresh_link_down(&mut self, link: LinkId) {
        if self.fresh.owns(link) {
            self.fresh.link = None;
            self.fresh.stage = Stage::Closed;
        }
    }

    /// When the fresh socket wants to be woken.
    pub(super) fn fresh_deadline(&self, now: Time) -> Option<Time> {
        let carries = self.path.as_ref().is_some_and(|path| self.fresh.owns(path.link));
        match self.fresh.stage {
            Stage::Closed => self.fresh_at().filter(|at| *at > now),
            Stage::Ready { .. } => None,
            Stage::Asking { again, until, .. } => Some(again.min(until)),
            Stage::Spare { .. } if carries => None,
            Stage::Spare { until } => {
                Some(self.fresh_at().filter(|at| *at > now).map_or(until, |at| at.min(until)))
            }
            Stage::Binding { until } => Some(until),
        }
    }
}

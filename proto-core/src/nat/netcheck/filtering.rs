//! How the NAT before us filters and how finely it maps: a server that can answer from elsewhere is asked to do so
//! (RFC 5780, sections 4.3 and 4.4), at most [`limits::FILTER_TRIES`] times each question.
//!
//! It runs beside the netcheck's runs and after the first, since it must know which addresses our sockets have spoken
//! to: what the NAT lets in from those tells nothing. Once it has asked the server's other sockets themselves, it
//! tells nothing any more on this network, so it is done once.
//!
//! A Linux router remembers a packet from outside that it did not let in, and gives another port to what then goes to
//! where it came from. So how the NAT maps is asked of the one socket that never answers for another, the first port
//! of the second address; the others are asked only where that habit can't be mistaken for a NAT that varies.

use crate::id::LinkId;
use crate::limits;
use crate::nat::classify::{Filtering, Observation};
use crate::time::{Duration, Time};
use crate::wire::stun::{Change, TransactionId};
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// A server that can answer from elsewhere, and the socket that it saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) seen: Observation,
    /// Where else it can be found, if it has a second address.
    pub(super) other: Option<SocketAddr>,
    /// The port of its other socket.
    pub(super) second_port: Option<u16>,
    pub(super) round_trip: Duration,
    /// Whether the NAT kept the port of our socket.
    pub(super) preserved: bool,
}

/// What to ask the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Question {
    /// To answer from elsewhere.
    Answer(Change),
    /// How its other sockets see us.
    Seen,
}

/// A question whose time has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) link: LinkId,
    pub(super) to: SocketAddr,
    pub(super) question: Question,
}

/// What was found out.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) filtering: Filtering,
    /// What the server's other sockets saw, if they were asked.
    pub(super) seen: Vec<Observation>,
    /// Not even what every NAT lets in came back: what kept it out was no NAT, and may have kept out the rest.
    pub(super) deaf: bool,
}

#[derive(Debug)]
pub(super) struct NatProbe {
    offer: Offer,
    stage: Stage,
    tries: u32,
    next: Time,
    asked: BTreeMap<TransactionId, Question>,
    /// Answers came from another address; from another port of the same one.
    heard: (bool, bool),
    /// The server does not do as it said.
    unable: bool,
    /// Whether the other sockets are asked too.
    finely: bool,
    seen: Vec<Observation>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Filtering,
    /// Whether mappings vary, by a socket that nothing has come from.
    Mapping,
    /// On what they depend, by the sockets that answered for another.
    Dependence,
    Over,
}

impl NatProbe {
    /// Asks what `offer` offers; `finely` says that how the NAT maps is not known well enough.
    pub(super) fn new(offer: Offer, finely: bool, now: Time) -> Self {
        Self {
            offer,
            stage: Stage::Filtering,
            tries: 0,
            next: now,
            asked: BTreeMap::new(),
            heard: (false, false),
            unable: false,
            finely,
            seen: Vec::new(),
        }
    }

    pub(super) const fn link(&self) -> LinkId {
        self.offer.seen.link
    }

    pub(super) fn deadline(&self) -> (Time, &'static str) {
        (self.next, "how the NAT filters")
    }

    /// What was found, once it is over.
    pub(super) fn found(&self) -> Option<Found> {
        let by_untouched = self.untouched().is_some_and(|to| self.seen_by(to).is_some());
        let counts = |o: &&Observation| by_untouched || self.is_plain() || o.mapped == self.offer.seen.mapped;
        let seen = || self.seen.iter().filter(counts).copied().collect();
        let deaf = self.finely && self.seen.is_empty() && self.untouched().is_some();
        (self.stage == Stage::Over).then(|| Found { filtering: self.filtering(), seen: seen(), deaf })
    }

    /// The questions whose time has come.
    pub(super) fn due(&mut self, now: Time) -> Vec<Ask> {
        while self.stage != Stage::Over && (self.next <= now || self.is_answered()) {
            if !self.is_answered() && self.tries < limits::FILTER_TRIES {
                self.tries += 1;
                self.next = now + limits::FILTER_GAP.max(self.offer.round_trip * 2);
                return self.questions();
            }
            self.advance(now);
        }
        Vec::new()
    }

    pub(super) fn sent(&mut self, tx: TransactionId, question: Question) {
        self.asked.insert(tx, question);
    }

    /// Takes an answer from `from`: whether it was ours. `mapped` is none if the server refused.
    pub(super) fn answer(
        &mut self,
        tx: &TransactionId,
        from: SocketAddr,
        mapped: Option<SocketAddr>,
    ) -> bool {
        let Some(question) = self.asked.remove(tx) else { return false };
        let server = self.offer.seen.server;
        match (question, mapped) {
            (Question::Answer(_), None) => self.unable = true,
            (Question::Answer(_), Some(_)) if from == server => self.unable = true,
            // Whichever was wanted: it came from an address that we have never spoken to.
            (Question::Answer(_), Some(_)) if from.ip() != server.ip() => self.heard.0 = true,
            (Question::Answer(_), Some(_)) => self.heard.1 = true,
            (Question::Seen, Some(mapped))
                if from != server && !self.seen.iter().any(|o| o.server == from) =>
            {
                self.seen.push(Observation { server: from, mapped, ..self.offer.seen });
            }
            (Question::Seen, _) => {}
        }
        true
    }

    fn is_answered(&self) -> bool {
        match self.stage {
            Stage::Filtering => self.unable || self.heard.0 || (self.heard.1 && self.offer.other.is_none()),
            Stage::Mapping | Stage::Dependence => self.others().iter().all(|to| self.seen_by(*to).is_some()),
            Stage::Over => true,
        }
    }

    fn advance(&mut self, now: Time) {
        let varies = self.untouched().and_then(|to| self.seen_by(to)).map(|m| m != self.offer.seen.mapped);
        self.stage = match (self.stage, varies) {
            (Stage::Filtering, _) if self.finely => Stage::Mapping,
            (Stage::Mapping, Some(true)) => Stage::Dependence,
            (Stage::Mapping, None) if self.is_plain() || self.offer.other.is_none() => Stage::Dependence,
            _ => Stage::Over,
        };
        (self.tries, self.next) = (0, now);
    }

    /// Whether another port for a socket that answered for another can only mean that mappings vary: the NAT let its
    /// answers in, or it keeps no ports anyway.
    fn is_plain(&self) -> bool {
        let all_let_in = self.heard.0 || (self.heard.1 && self.offer.other.is_none());
        all_let_in || !self.offer.preserved
    }

    fn questions(&self) -> Vec<Ask> {
        let Observation { link, server, .. } = self.offer.seen;
        let ask = |to, question| Ask { link, to, question };
        let changed = |change| ask(server, Question::Answer(change));
        match (self.stage, self.offer.other) {
            (Stage::Filtering, Some(_)) if self.heard.1 => vec![changed(Change::BOTH)],
            (Stage::Filtering, Some(_)) => vec![changed(Change::BOTH), changed(Change::PORT)],
            (Stage::Filtering, None) => vec![changed(Change::PORT)],
            (Stage::Mapping | Stage::Dependence, _) => {
                self.others().into_iter().map(|to| ask(to, Question::Seen)).collect()
            }
            (Stage::Over, _) => Vec::new(),
        }
    }

    /// The server's other sockets that this stage asks: what they see of ours, beside what the first saw, tells how
    /// the NAT maps.
    fn others(&self) -> Vec<SocketAddr> {
        let second = |port| SocketAddr::new(self.offer.seen.server.ip(), port);
        match self.stage {
            Stage::Mapping => self.untouched().into_iter().collect(),
            Stage::Dependence => {
                self.offer.second_port.map(second).into_iter().chain(self.offer.other).collect()
            }
            Stage::Filtering | Stage::Over => Vec::new(),
        }
    }

    /// The second address's first port: it answers for no other.
    fn untouched(&self) -> Option<SocketAddr> {
        let server = self.offer.seen.server;
        self.offer.other.filter(|o| o.port() != server.port()).map(|o| SocketAddr::new(o.ip(), server.port()))
    }

    fn seen_by(&self, server: SocketAddr) -> Option<SocketAddr> {
        self.seen.iter().find(|o| o.server == server).map(|o| o.mapped)
    }

    fn filtering(&self) -> Filtering {
        match self.heard {
            (true, _) => Filtering::Independent,
            _ if self.unable => Filtering::Unknown,
            (_, true) if self.offer.other.is_some() => Filtering::Address,
            (_, true) => Filtering::NotByPort,
            _ => Filtering::AddressAndPort,
        }
    }
}

//! Disco with the peer: opening what it sends, answering its probes, sending ours.

use super::candidate::canonical;
use super::liveness::Ask;
use super::probe::Probe;
use super::{Peer, PeerEvent};
use crate::id::{LinkId, RegionId};
use crate::key::NodePublic;
use crate::limits;
use crate::machine::{Output, Transmit};
use crate::time::Time;
use crate::wire::disco::{self, Envelope, Message, TxId};
use core::net::{IpAddr, SocketAddr};

/// Bytes of a ping that names the sender's node key: header, nonce, tag, type, version, transaction, key.
const PING_LEN: usize = disco::SEALED_MIN + 12 + 32;

/// What a probe is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// To see whether the address answers.
    Discovery,
    /// To open our own NAT, with this hop limit, so that it dies before the peer's.
    Opener(u8),
    /// To keep the path in use, which is bounded by its own rhythm.
    Path(Ask),
}

/// A ping's fields.
#[derive(Clone, Copy, Debug)]
struct Ping {
    tx: TxId,
    node_key: Option<NodePublic>,
}

impl Peer {
    fn open(&self, bytes: &[u8]) -> Option<Message> {
        let envelope = Envelope::new_checked(bytes)?;
        if envelope.sender != self.info.disco_key {
            return None;
        }
        envelope.open(&self.shared).ok()
    }

    pub(super) fn seal(&mut self, message: &Message) -> Vec<u8> {
        message.seal(self.disco, &self.shared, &mut self.rng)
    }

    /// A disco datagram came in on a socket of ours.
    pub(super) fn on_datagram(&mut self, link: LinkId, from: SocketAddr, bytes: &[u8], now: Time) {
        if !self.config.direct || !self.owns_link(link) {
            return;
        }
        let from = canonical(&from);
        match self.open(bytes) {
            Some(Message::Ping { tx, node_key, .. }) => self.on_ping(link, from, Ping { tx, node_key }, now),
            Some(Message::Pong { tx, .. }) => self.on_pong((link, from), tx, now),
            // The rest is for relays only, where the sender's node key is vouched for.
            _ => {}
        }
    }

    /// A disco datagram came through a relay.
    pub(super) fn on_relayed(&mut self, region: RegionId, bytes: &[u8], now: Time) {
        let Some(message) = self.open(bytes) else { return };
        self.heard_region = Some(region);
        // Whoever tells what its network is like may not have opened its own yet: full probes wait on.
        if !matches!(message, Message::Shape(_)) {
            self.heard_word = Some(now);
        }
        match message {
            Message::Ping { tx, .. } => {
                let port = u16::try_from(region.0).unwrap_or(u16::MAX);
                let source = SocketAddr::new(IpAddr::V4(disco::RELAY_MAGIC_IP), port);
                self.say(region, &Message::Pong { tx, source }, now);
            }
            Message::CallMeMaybe { endpoints } => self.on_call(&endpoints, now),
            Message::Opened { round } => self.on_opened(round, now),
            Message::Shape(shape) => self.on_their_shape(shape, now),
            Message::Guess(word) => self.on_guess_word(word, now),
            Message::Pong { .. } => {}
        }
    }

    /// Sends a word through a relay, within the budget.
    pub(super) fn say(&mut self, region: RegionId, message: &Message, now: Time) -> bool {
        if !self.words.take(now) {
            return false;
        }
        let bytes = self.seal(message);
        self.out.event(PeerEvent::Relay { region, bytes });
        true
    }

    fn on_ping(&mut self, link: LinkId, from: SocketAddr, ping: Ping, now: Time) {
        if ping.node_key.is_some_and(|key| key != self.info.node_key)
            || !self.probes.is_new(from, ping.tx)
            || !self.answers.take(now)
        {
            return;
        }
        let bytes = self.seal(&Message::Pong { tx: ping.tx, source: from });
        self.out.transmit(link, from, bytes);
        self.hear(link, from, now);
    }

    /// The peer was heard from an address: remember it, and ask back if that may give us a path.
    pub(super) fn hear(&mut self, link: LinkId, from: SocketAddr, now: Time) {
        let first = self.candidates.get(&from).is_none_or(|candidate| candidate.heard.is_none());
        self.candidates.heard(from, link, now);
        if let Some(path) = self.path.as_mut().filter(|path| path.addr == from) {
            path.live.heard(now);
        }
        if self.asks_back(from, first, now) {
            self.probe(from, Purpose::Discovery, now);
        }
    }

    /// Whether a packet of the peer from `from` is a reason to probe there at once. Never twice within a
    /// probe's pause, and never for a path that is known to work, so that two peers do not echo for ever.
    /// But for the `first` word from there: a probe of ours that left before the peer knew us was lost on it, and
    /// whoever waits for its pause answers through a relay where the peer may not be.
    fn asks_back(&self, from: SocketAddr, first: bool, now: Time) -> bool {
        let Some(candidate) = self.candidates.get(&from).filter(|c| c.usable(now)) else { return false };
        let rested = |pause| candidate.probed.is_none_or(|at| now.since(at) >= pause);
        match &self.path {
            None => first || rested(limits::PROBE_PAUSE / 2),
            Some(path) if path.addr == from => {
                now.since(path.live.last_answer()) > limits::HEARTBEAT && rested(limits::HEARTBEAT)
            }
            Some(path) if path.doubted => rested(limits::PROBE_PAUSE),
            Some(_) => candidate.answer.is_none() && rested(limits::HEARTBEAT),
        }
    }

    fn on_pong(&mut self, (link, from): (LinkId, SocketAddr), tx: TxId, now: Time) {
        let Some(probe) = self.probes.take(tx, now) else { return self.on_guess_hit(link, from, now) };
        let Some(candidate) = self.candidates.get_mut(&probe.to) else { return };
        let latency = candidate.answered(now.since(probe.at), now);
        candidate.link = Some(link);
        candidate.next = None;
        if probe.full {
            candidate.benched = None;
        }
        self.consider(link, probe, latency, now);
    }

    /// Sends a probe. Answers whether it left: there must be a socket of the address's family and, but for
    /// the path in use, budget.
    pub(super) fn probe(&mut self, to: SocketAddr, purpose: Purpose, now: Time) -> bool {
        let Some(link) = self.link_for(to) else { return false };
        match purpose {
            Purpose::Path(_) => self.budget.charge(now),
            _ if !self.budget.take(now) => return false,
            _ => {}
        }
        let (ttl, full) = match purpose {
            Purpose::Opener(ttl) => (Some(ttl), false),
            Purpose::Path(ask) => (None, ask.full),
            Purpose::Discovery => (None, false),
        };
        let tx = TxId::generate(&mut self.rng);
        let padding = if full { limits::FULL_PROBE_LEN - PING_LEN } else { 0 };
        let bytes = self.seal(&Message::Ping { tx, node_key: Some(self.config.us), padding });
        self.probes.sent(tx, Probe { to, at: now, full });
        if let Some(candidate) = self.candidates.get_mut(&to) {
            if ttl.is_some() {
                candidate.opened = Some(now);
            } else {
                candidate.probed = Some(now);
                candidate.probes = candidate.probes.saturating_add(1);
                candidate.paced = candidate.paced.saturating_add(1);
            }
        }
        self.out.push(Output::Transmit(Transmit { link, to, bytes, ttl }));
        true
    }

    /// Our socket to reach `to` from: where the peer was heard from there, else one of its family.
    pub(super) fn link_for(&self, to: SocketAddr) -> Option<LinkId> {
        let candidate = self.candidates.get(&to);
        let heard = candidate.and_then(|c| c.link).filter(|link| self.owns_link(*link));
        let fresh = self.fresh.link_for(to, candidate.and_then(|c| c.heard));
        fresh.or(heard).or_else(|| {
            // A socket bound to loopback reaches loopback only, and is the best one for it.
            let fits = |bound: &SocketAddr| {
                bound.is_ipv4() == to.is_ipv4() && (!bound.ip().is_loopback() || to.ip().is_loopback())
            };
            let fitting = self.links.iter().filter(|(_, bound)| fits(bound));
            fitting
                .max_by_key(|(link, bound)| (bound.ip().is_loopback(), core::cmp::Reverse(**link)))
                .map(|l| *l.0)
        })
    }
}

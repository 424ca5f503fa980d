//! WireGuard by boringtun, behind the port that the core names ([`WgEngine`]).
//!
//! boringtun's tunnel for one peer is wrapped here for many. What had to be minded:
//!
//! * It reads the operating system's clock and randomness itself, whatever `now` says. A simulation that must
//!   repeat uses a model instead.
//! * Its own queue of packets that wait for a session cannot be looked into, and flushing it without a session
//!   only puts them back. So packets wait here, bounded, and it is asked to seal only when a session stands.
//! * It stamps what happens with the time of the last timer call, so timers run every `TICK`.
//! * An expired tunnel stays expired until a new initiation: sealing begins one, as does the core's word.

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use core::net::IpAddr;
use proto_core::key::{NodePublic, NodeSecret};
use proto_core::time::{Duration, Time};
use proto_core::wg::{Opened, Sealed, WgEngine};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How often a peer's timers run. The shortest of them is 5 s long and sessions begin to be stamped anew at
/// each run, so a quarter of a second keeps every stamp within 5 % of the truth.
const TICK: Duration = Duration::from_millis(250);
/// How often the limiter of handshakes forgets what it counted, as boringtun's own device does.
const LIMITER_PERIOD: Duration = Duration::from_secs(1);
/// Handshake messages a second and source that are looked at without a cookie. A server's own node meets
/// thousands of agents at once after a restart; each is two X25519 operations, 0.1 ms. Every accepted
/// message is counted twice, once before its peer is looked up and once by the peer's own tunnel.
const HANDSHAKES_PER_SECOND: u64 = 2 * 1_000;
/// Packets of one peer that wait for a session: QUIC's first flight and more.
const WAITING_MAX: usize = 64;
/// The message types (whitepaper, 5.4), as the first byte of a datagram.
const RESPONSE: u8 = 2;
const COOKIE: u8 = 3;
const DATA: u8 = 4;

/// A WireGuard engine with one boringtun tunnel a peer.
pub struct BoringTun {
    secret: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
    limiter_reset: Time,
    source: Option<IpAddr>,
    /// By slot, which is the upper 24 bits of the receiver index in every message to us.
    peers: Vec<Option<Peer>>,
    free: Vec<u32>,
    slots: HashMap<NodePublic, u32>,
    /// The peer that was sealed for last, and its slot: packets come in runs.
    last: Option<(NodePublic, u32)>,
    next_tick: Option<Time>,
    tick_cursor: usize,
}

struct Peer {
    key: NodePublic,
    tunn: Tunn,
    /// Whether a session stands that packets can be sealed with.
    session: bool,
    /// Whether one has stood before, so that the peer is there to answer. The first handshake is the core's to
    /// begin: too early a one would be lost on a peer that does not know us yet.
    acquainted: bool,
    waiting: VecDeque<Vec<u8>>,
    next_tick: Time,
}

impl BoringTun {
    /// An engine for the node with this key.
    #[must_use]
    pub fn new(secret: &NodeSecret) -> Self {
        let secret = StaticSecret::from(secret.to_bytes());
        let public = PublicKey::from(&secret);
        Self {
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SECOND)),
            secret,
            public,
            limiter_reset: Time::ZERO,
            source: None,
            peers: Vec::new(),
            free: Vec::new(),
            slots: HashMap::new(),
            last: None,
            next_tick: None,
            tick_cursor: 0,
        }
    }

    fn peer_mut(&mut self, key: &NodePublic) -> Option<&mut Peer> {
        let slot = match self.last {
            Some((last, slot)) if last == *key => slot,
            _ => *self.slots.get(key)?,
        };
        self.last = Some((*key, slot));
        self.peers.get_mut(slot as usize)?.as_mut()
    }

    /// The slot that a message to us is meant for.
    fn slot_of(&self, datagram: &[u8], out: &mut [u8]) -> Result<u32, Opened> {
        // Data, the common case, without a second parse.
        if let [DATA, 0, 0, 0, index @ ..] = datagram
            && let Some(index) = index.first_chunk::<4>()
        {
            return Ok(u32::from_le_bytes(*index) >> 8);
        }
        let packet = Tunn::parse_incoming_packet(datagram).map_err(|_| Opened::Refused("malformed"))?;
        match packet {
            Packet::PacketData(p) => Ok(p.receiver_idx >> 8),
            Packet::HandshakeResponse(p) => Ok(p.receiver_idx >> 8),
            Packet::PacketCookieReply(p) => Ok(p.receiver_idx >> 8),
            Packet::HandshakeInit(_) => self.slot_of_initiation(datagram, out),
        }
    }

    /// Who began this handshake. The limiter goes first, so that a flood costs no curve operations.
    fn slot_of_initiation(&self, datagram: &[u8], out: &mut [u8]) -> Result<u32, Opened> {
        let packet = match self.limiter.verify_packet(self.source, datagram, out) {
            Ok(packet) => packet,
            Err(TunnResult::WriteToNetwork(cookie)) => return Err(Opened::Cookie(cookie.len())),
            Err(_) => return Err(Opened::Refused("not authentic")),
        };
        let Packet::HandshakeInit(init) = packet else { return Err(Opened::Refused("malformed")) };
        let half = parse_handshake_anon(&self.secret, &self.public, &init)
            .map_err(|_| Opened::Refused("not authentic"))?;
        self.slots
            .get(&NodePublic(half.peer_static_public))
            .copied()
            .ok_or(Opened::Refused("from a stranger"))
    }

    fn note_tick(&mut self, at: Time) {
        self.next_tick = Some(self.next_tick.map_or(at, |t| t.min(at)));
    }
}

impl Peer {
    /// An initiation into `out`: its length, none if one is under way and `force` is not given.
    fn initiate(&mut self, force: bool, out: &mut [u8]) -> Option<usize> {
        match self.tunn.format_handshake_initiation(out, force) {
            TunnResult::WriteToNetwork(packet) => Some(packet.len()),
            _ => None,
        }
    }

    fn hold(&mut self, inner: &[u8], out: &mut [u8]) -> Sealed {
        if inner.is_empty() || self.waiting.len() >= WAITING_MAX {
            return Sealed::Dropped;
        }
        self.waiting.push_back(inner.to_vec());
        let initiation = if self.acquainted { self.initiate(false, out) } else { None };
        initiation.map_or(Sealed::Waiting, Sealed::Initiation)
    }

    fn has_session(&mut self) {
        self.session = true;
        self.acquainted = true;
    }

    fn timers(&mut self, out: &mut [u8]) -> Option<usize> {
        let was_expired = self.tunn.is_expired();
        let length = match self.tunn.update_timers(out) {
            TunnResult::WriteToNetwork(packet) => Some(packet.len()),
            TunnResult::Err(_) => {
                // Given up after 90 s without an answer, or long idle. What waited is stale; what comes later
                // waits for the next handshake, though every run of the timers says the same again.
                if !was_expired {
                    self.waiting.clear();
                }
                None
            }
            _ => None,
        };
        // Sessions end in the timers and nowhere else.
        if self.session && self.tunn.time_since_last_handshake().is_none() {
            self.session = false;
        }
        length
    }
}

impl WgEngine for BoringTun {
    fn add_peer(&mut self, key: NodePublic) {
        if self.slots.contains_key(&key) {
            return;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.peers.push(None);
            u32::try_from(self.peers.len() - 1).unwrap_or(u32::MAX)
        });
        let tunn = Tunn::new(
            self.secret.clone(),
            PublicKey::from(key.0),
            None,
            None,
            slot,
            Some(self.limiter.clone()),
        );
        let peer = Peer {
            key,
            tunn,
            session: false,
            acquainted: false,
            waiting: VecDeque::new(),
            next_tick: Time::ZERO,
        };
        self.peers[slot as usize] = Some(peer);
        self.slots.insert(key, slot);
        self.note_tick(Time::ZERO);
    }

    fn remove_peer(&mut self, key: &NodePublic) {
        self.last = None;
        if let Some(slot) = self.slots.remove(key) {
            self.peers[slot as usize] = None;
            self.free.push(slot);
        }
    }

    fn seal(&mut self, key: &NodePublic, inner: &[u8], out: &mut [u8], _now: Time) -> Sealed {
        let Some(peer) = self.peer_mut(key) else { return Sealed::Dropped };
        if !peer.session {
            return peer.hold(inner, out);
        }
        match peer.tunn.encapsulate(inner, out) {
            TunnResult::WriteToNetwork(packet) => Sealed::Data(packet.len()),
            _ => Sealed::Dropped,
        }
    }

    fn source(&mut self, from: Option<IpAddr>) {
        self.source = from;
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8], _now: Time) -> Opened {
        let source = self.source;
        let slot = match self.slot_of(datagram, out) {
            Ok(slot) => slot,
            Err(refusal) => return refusal,
        };
        let Some(Some(peer)) = self.peers.get_mut(slot as usize) else {
            return Opened::Refused("for no session of ours");
        };
        let kind = datagram[0];
        match peer.tunn.decapsulate(source, datagram, out) {
            TunnResult::WriteToTunnelV6(inner, _) => {
                peer.has_session();
                Opened::Data(peer.key, inner.len())
            }
            TunnResult::WriteToTunnelV4(..) => Opened::Refused("inner packet is not IPv6"),
            TunnResult::Done if kind == COOKIE => Opened::Refused("a cookie, kept"),
            TunnResult::Done => {
                peer.has_session();
                Opened::Keepalive(peer.key)
            }
            TunnResult::WriteToNetwork(answer) => {
                let length = answer.len();
                match (kind, answer[0]) {
                    (_, COOKIE) => Opened::Cookie(length),
                    (RESPONSE, _) => {
                        peer.has_session();
                        Opened::Established(peer.key, Some(length))
                    }
                    _ => Opened::Reply(peer.key, length),
                }
            }
            TunnResult::Err(_) => Opened::Refused("not authentic, or a replay"),
        }
    }

    fn flush(&mut self, key: &NodePublic, out: &mut [u8], now: Time) -> Option<usize> {
        let peer = self.peer_mut(key).filter(|peer| peer.session)?;
        let inner = peer.waiting.pop_front()?;
        match self.seal(key, &inner, out, now) {
            Sealed::Data(length) => Some(length),
            _ => None,
        }
    }

    fn initiate(&mut self, key: &NodePublic, out: &mut [u8], _now: Time) -> Option<usize> {
        // The core has its own pauses: when it asks, it wants one.
        self.peer_mut(key)?.initiate(true, out)
    }

    fn reset(&mut self, key: &NodePublic) {
        let (secret, public, limiter) = (self.secret.clone(), self.public, self.limiter.clone());
        let Some(peer) = self.peer_mut(key) else { return };
        // Clears the sessions and nothing else: the time stamp of the peer's latest handshake stays, so that
        // an old initiation cannot be replayed.
        peer.tunn.set_static_private(secret, public, Some(limiter));
        peer.session = false;
        peer.acquainted = false;
    }

    fn tick(&mut self, out: &mut [u8], now: Time) -> Option<(NodePublic, usize)> {
        if self.next_tick.is_none_or(|at| at > now) {
            return None;
        }
        if now.since(self.limiter_reset) >= LIMITER_PERIOD {
            self.limiter_reset = now;
            self.limiter.reset_count();
        }
        while self.tick_cursor < self.peers.len() {
            let slot = self.tick_cursor;
            self.tick_cursor += 1;
            let Some(peer) = &mut self.peers[slot] else { continue };
            if peer.next_tick > now {
                continue;
            }
            peer.next_tick = now + TICK;
            if let Some(length) = peer.timers(out) {
                return Some((peer.key, length));
            }
        }
        self.tick_cursor = 0;
        self.next_tick = self.peers.iter().flatten().map(|peer| peer.next_tick).min();
        None
    }

    fn next_tick(&self) -> Option<Time> {
        self.next_tick
    }
}

#[cfg(test)]
mod tests;

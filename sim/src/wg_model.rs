//! WireGuard's messages, sizes and timers without its cipher, for the simulator: deterministic, since time
//! and randomness are given, and cheap.
//!
//! Messages have the real lengths and headers (148, 92, 32 + n bytes, types 1, 2 and 4). The cipher is a
//! toy, but keyed as the real one is: by the Curve25519 secret of the two node keys and a fresh number of
//! each side, so that a packet that reaches the wrong node, or is changed or repeated on its way, is refused
//! here too, and no plaintext is ever on a wire. Timers and their odd corners follow boringtun 0.7.1: a
//! responder sends only after it has received on the new session; an initiation that crosses ours does not
//! cancel ours; after 90 s without an answer nothing happens by itself any more.

use proto_core::key::{NodePublic, NodeSecret};
use proto_core::seed::{Rng, Seed};
use proto_core::time::Time;
use proto_core::wg::{INITIATION_LEN, OVERHEAD, Opened, Sealed, WgEngine};
use std::collections::{BTreeMap, VecDeque};

mod cipher;
mod session;
mod timers;

use session::{Session, word};
use timers::Timers;

/// A handshake response (whitepaper, 5.4.3).
const RESPONSE_LEN: usize = 92;
const HEADER_LEN: usize = 16;
const TAG_LEN: usize = 16;
/// Packets that wait for a session, as in boringtun.
const QUEUE_MAX: usize = 256;
/// Sessions kept a peer, as in boringtun.
const SESSIONS: usize = 8;

/// Counts of what an engine has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WgCounters {
    /// Initiations sent.
    pub initiations: u64,
    /// Sessions begun, as either side.
    pub sessions: u64,
    /// Datagrams refused.
    pub refused: u64,
    /// Refused because they were repeats.
    pub replays: u64,
}

/// A model of a WireGuard engine.
#[derive(Debug)]
pub struct WgModel {
    us: NodePublic,
    secret: NodeSecret,
    rng: Rng,
    /// What the engine adds to its time for the time stamps of initiations: stands for the wall clock, which
    /// goes on while a node is down.
    wall_us: u64,
    peers: BTreeMap<NodePublic, Peer>,
    by_index: BTreeMap<u32, NodePublic>,
    next_index: u32,
    counters: WgCounters,
}

#[derive(Debug)]
struct Peer {
    /// What only the two of us know.
    secret: u64,
    init: Option<Init>,
    previous: Option<Init>,
    sessions: VecDeque<Session>,
    current: Option<u32>,
    queue: VecDeque<Vec<u8>>,
    last_stamp: u64,
    timers: Timers,
}

/// An initiation of ours that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Init {
    index: u32,
    nonce: u64,
}

impl WgModel {
    /// An engine with this key; `wall_us` is the wall clock at its time zero.
    #[must_use]
    pub fn new(secret: NodeSecret, wall_us: u64, seed: &Seed) -> Self {
        let mut rng = seed.fork("wg_model").rng();
        let next_index = rng.u64() as u32 & 0x00ff_ffff;
        Self {
            us: secret.public(),
            secret,
            rng,
            wall_us,
            peers: BTreeMap::new(),
            by_index: BTreeMap::new(),
            next_index,
            counters: WgCounters::default(),
        }
    }

    /// What it has done.
    #[must_use]
    pub const fn counters(&self) -> &WgCounters {
        &self.counters
    }

    fn index(&mut self, peer: NodePublic) -> u32 {
        self.next_index = self.next_index.wrapping_add(1);
        self.by_index.insert(self.next_index, peer);
        self.next_index
    }

    fn forget(&mut self, indices: impl IntoIterator<Item = u32>) {
        for index in indices {
            self.by_index.remove(&index);
        }
    }

    /// Writes an initiation to `peer` into `out`; starts the handshake anew or repeats it.
    fn format_initiation(&mut self, peer: &NodePublic, out: &mut [u8], now: Time) -> Option<usize> {
        if !self.peers.contains_key(peer) || out.len() < INITIATION_LEN {
            return None;
        }
        let nonce = self.rng.u64();
        let index = self.index(*peer);
        let stamp = self.wall_us + now.as_micros();
        let state = self.peers.get_mut(peer)?;
        let fresh = state.init.is_none();
        let old = std::mem::replace(&mut state.previous, state.init.replace(Init { index, nonce }));
        state.timers.initiated(now, fresh);
        let out = &mut out[..INITIATION_LEN];
        out.fill(0);
        out[0] = 1;
        out[4..8].copy_from_slice(&index.to_le_bytes());
        out[8..40].copy_from_slice(&self.us.0);
        out[40..48].copy_from_slice(&nonce.to_le_bytes());
        out[48..56].copy_from_slice(&stamp.to_le_bytes());
        // The key that says who speaks is hidden, as in the real message.
        cipher::apply(cipher::name(peer), &mut out[8..56]);
        let tag = cipher::tag(state.secret, &out[..132]);
        out[132..].copy_from_slice(&tag);
        self.counters.initiations += 1;
        self.forget(old.map(|init| init.index));
        Some(INITIATION_LEN)
    }

    fn open_initiation(&mut self, datagram: &[u8], out: &mut [u8], now: Time) -> Opened {
        let mut hidden = [0; 48];
        hidden.copy_from_slice(&datagram[8..56]);
        cipher::apply(cipher::name(&self.us), &mut hidden);
        let mut key = [0; 32];
        key.copy_from_slice(&hidden[..32]);
        let peer = NodePublic(key);
        let (nonce, stamp) = (word(&hidden[32..40]), word(&hidden[40..48]));
        let Some(state) = self.peers.get(&peer) else { return self.refuse("an initiation of a stranger") };
        if datagram[132..] != cipher::tag(state.secret, &datagram[..132]) {
            return self.refuse("an initiation that is not authentic");
        }
        if stamp <= state.last_stamp {
            self.counters.replays += 1;
            return self.refuse("an initiation that was seen before");
        }
        let theirs = u32::from_le_bytes([datagram[4], datagram[5], datagram[6], datagram[7]]);
        let index = self.index(peer);
        let answer = self.rng.u64();
        let Some(state) = self.peers.get_mut(&peer) else { return self.refuse("unreachable") };
        state.last_stamp = stamp;
        let init = state.init.take();
        let old = if init.is_some() { std::mem::replace(&mut state.previous, init) } else { None };
        let dead = state.begin(Session::new([state.secret, nonce, answer], (index, theirs), false, now));
        state.timers.answered(now);
        let out = &mut out[..RESPONSE_LEN];
        out.fill(0);
        out[0] = 2;
        out[4..8].copy_from_slice(&index.to_le_bytes());
        out[8..12].copy_from_slice(&theirs.to_le_bytes());
        out[12..20].copy_from_slice(&answer.to_le_bytes());
        let tag = cipher::tag(state.secret ^ nonce, &out[..76]);
        out[76..].copy_from_slice(&tag);
        self.counters.sessions += 1;
        self.forget(old.map(|init| init.index).into_iter().chain(dead));
        Opened::Reply(peer, RESPONSE_LEN)
    }

    fn open_response(&mut self, datagram: &[u8], out: &mut [u8], now: Time) -> Opened {
        let ours = u32::from_le_bytes([datagram[8], datagram[9], datagram[10], datagram[11]]);
        let theirs = u32::from_le_bytes([datagram[4], datagram[5], datagram[6], datagram[7]]);
        let Some(peer) = self.by_index.get(&ours).copied() else {
            return self.refuse("a response that nobody waits for");
        };
        let Some(state) = self.peers.get_mut(&peer) else { return self.refuse("a response of a stranger") };
        let waiting = [state.init, state.previous].into_iter().flatten().find(|init| init.index == ours);
        let Some(init) = waiting else { return self.refuse("a response that nobody waits for") };
        if datagram[76..] != cipher::tag(state.secret ^ init.nonce, &datagram[..76]) {
            return self.refuse("a response that is not authentic");
        }
        if state.init.is_some_and(|i| i.index == ours) {
            state.init = None;
        } else {
            state.previous = None;
        }
        let answer = word(&datagram[12..20]);
        let dead = state.begin(Session::new([state.secret, init.nonce, answer], (ours, theirs), true, now));
        state.current = Some(ours);
        state.timers.established(now, true);
        let keepalive = state.seal(&[], out, now);
        self.counters.sessions += 1;
        self.forget(dead);
        Opened::Established(peer, keepalive)
    }

    fn open_data(&mut self, datagram: &[u8], out: &mut [u8], now: Time) -> Opened {
        let ours = u32::from_le_bytes([datagram[4], datagram[5], datagram[6], datagram[7]]);
        let Some(peer) = self.by_index.get(&ours).copied() else { return self.refuse("no such session") };
        let Some(state) = self.peers.get_mut(&peer) else { return self.refuse("no such peer") };
        let Some(session) = state.sessions.iter_mut().find(|s| s.ours == ours) else {
            return self.refuse("no such session");
        };
        let len = match session.open(datagram, out, now) {
            Ok(len) => len,
            Err(why) => {
                self.counters.replays += u64::from(why == session::REPLAY);
                return self.refuse(why);
            }
        };
        state.confirm(ours, now);
        state.timers.received(now, len > 0);
        if len == 0 { Opened::Keepalive(peer) } else { Opened::Data(peer, len) }
    }

    fn refuse(&mut self, why: &'static str) -> Opened {
        self.counters.refused += 1;
        Opened::Refused(why)
    }
}

impl Peer {
    /// Keeps a new session; the indices of those that had to go for it.
    fn begin(&mut self, session: Session) -> Vec<u32> {
        let mut dead = Vec::new();
        while self.sessions.len() >= SESSIONS {
            dead.extend(self.sessions.pop_front().map(|s| s.ours));
        }
        self.sessions.push_back(session);
        dead
    }

    /// The peer has used session `ours`: we may, if it is not older than the one we use.
    fn confirm(&mut self, ours: u32, now: Time) {
        let begun = |index| self.sessions.iter().find(|s| s.ours == index).map(|s| s.begun);
        let newer = self.current.and_then(begun) <= begun(ours);
        if self.current != Some(ours) && newer {
            let initiator = self.sessions.iter().any(|s| s.ours == ours && s.initiator);
            self.current = Some(ours);
            self.timers.established(now, initiator);
        }
    }

    fn usable(&mut self, now: Time) -> Option<&mut Session> {
        let current = self.current?;
        self.sessions.iter_mut().find(|s| s.ours == current && !s.is_expired(now))
    }

    fn seal(&mut self, inner: &[u8], out: &mut [u8], now: Time) -> Option<usize> {
        let len = self.usable(now)?.seal(inner, out)?;
        self.timers.sent(now, !inner.is_empty());
        Some(len)
    }
}

impl WgEngine for WgModel {
    fn add_peer(&mut self, peer: NodePublic) {
        if peer == self.us {
            return;
        }
        let secret = &self.secret;
        self.peers.entry(peer).or_insert_with(|| Peer {
            secret: cipher::shared(secret, &peer),
            init: None,
            previous: None,
            sessions: VecDeque::new(),
            current: None,
            queue: VecDeque::new(),
            last_stamp: 0,
            timers: Timers::default(),
        });
    }

    fn remove_peer(&mut self, peer: &NodePublic) {
        self.peers.remove(peer);
        self.by_index.retain(|_, p| p != peer);
    }

    fn seal(&mut self, peer: &NodePublic, inner: &[u8], out: &mut [u8], now: Time) -> Sealed {
        let Some(state) = self.peers.get_mut(peer) else { return Sealed::Dropped };
        if let Some(len) = state.seal(inner, out, now) {
            return Sealed::Data(len);
        }
        if state.queue.len() >= QUEUE_MAX {
            return Sealed::Dropped;
        }
        state.queue.push_back(inner.to_vec());
        match self.initiate(peer, out, now) {
            Some(len) => Sealed::Initiation(len),
            None => Sealed::Waiting,
        }
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8], now: Time) -> Opened {
        match (datagram.first(), datagram.len()) {
            (Some(1), INITIATION_LEN) => self.open_initiation(datagram, out, now),
            (Some(2), RESPONSE_LEN) => self.open_response(datagram, out, now),
            (Some(4), len) if len >= OVERHEAD => self.open_data(datagram, out, now),
            _ => self.refuse("not a WireGuard message"),
        }
    }

    fn flush(&mut self, peer: &NodePublic, out: &mut [u8], now: Time) -> Option<usize> {
        let state = self.peers.get_mut(peer)?;
        state.usable(now)?;
        let inner = state.queue.pop_front()?;
        state.seal(&inner, out, now)
    }

    fn initiate(&mut self, peer: &NodePublic, out: &mut [u8], now: Time) -> Option<usize> {
        if self.peers.get(peer)?.init.is_some() {
            return None;
        }
        self.format_initiation(peer, out, now)
    }

    fn reset(&mut self, peer: &NodePublic) {
        let Some(state) = self.peers.get_mut(peer) else { return };
        state.init = None;
        state.previous = None;
        state.sessions.clear();
        state.current = None;
        state.timers = Timers::default();
        self.by_index.retain(|_, p| p != peer);
    }

    fn tick(&mut self, out: &mut [u8], now: Time) -> Option<(NodePublic, usize)> {
        let keys: Vec<NodePublic> = self
            .peers
            .iter()
            .filter(|(_, p)| p.next_tick().is_some_and(|at| at <= now))
            .map(|(k, _)| *k)
            .collect();
        for key in keys {
            if let Some(len) = self.tick_peer(&key, out, now) {
                return Some((key, len));
            }
        }
        None
    }

    fn next_tick(&self) -> Option<Time> {
        self.peers.values().filter_map(Peer::next_tick).min()
    }
}

impl Peer {
    fn next_tick(&self) -> Option<Time> {
        let expiry = self.sessions.iter().map(Session::expires).min();
        let timers = self.timers.next(self.init.is_some(), self.current.is_some());
        [expiry, timers.map(|(at, _)| at)].into_iter().flatten().min()
    }
}

impl WgModel {
    fn tick_peer(&mut self, key: &NodePublic, out: &mut [u8], now: Time) -> Option<usize> {
        let state = self.peers.get_mut(key)?;
        let dead: Vec<u32> = state.sessions.iter().filter(|s| s.is_expired(now)).map(|s| s.ours).collect();
        state.sessions.retain(|s| !s.is_expired(now));
        if state.current.is_some_and(|c| dead.contains(&c)) {
            state.current = None;
        }
        self.forget(dead);
        let state = self.peers.get_mut(key)?;
        let (at, due) = state.timers.next(state.init.is_some(), state.current.is_some())?;
        if at > now {
            return None;
        }
        match due {
            timers::Due::GiveUp => {
                let indices =
                    [state.init.take(), state.previous.take()].into_iter().flatten().map(|i| i.index);
                let indices: Vec<u32> = indices.chain(state.sessions.drain(..).map(|s| s.ours)).collect();
                state.current = None;
                state.queue.clear();
                state.timers = Timers::default();
                self.forget(indices);
                None
            }
            timers::Due::Initiate => {
                state.timers.handshake_due();
                self.format_initiation(key, out, now)
            }
            timers::Due::Keepalive => {
                state.timers.keepalive_due(now);
                state.seal(&[], out, now)
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! WireGuard's messages, sizes and timers without its cipher, for the simulator: deterministic, since time
//! and randomness are given, and cheap.
//!
//! Messages have the real lengths and headers (148, 92, 32 + n bytes, types 1, 2 and 4). The cipher is a
//! toy, but keyed as the real one is: by the Curve25519 secret of the two node keys and a fresh number of
//! each side, so that a packet that reaches the wrong node, or is changed or repeated on its way, is refused
//! here too, and no plaintext is ever on a wire.
//!
//! Everything else follows the production engine, `io_adapters::wg` on boringtun 0.7.1, odd corners
//! included: what is stamped and when timers run, a responder that sends only after it has received on the
//! new session, an initiation that crosses ours and does not cancel ours, a tunnel that has given up and does
//! nothing by itself any more. `tests/wg_conformance.rs` holds the two together, packet for packet. On purpose
//! the model differs in three things, and that test says how far:
//!
//! * It has no limiter of handshakes: it never asks for a cookie and refuses those it is sent.
//! * It looks at all of a handshake message; the last 16 bytes of the real ones say nothing but under load.
//! * It takes what is no IPv6 packet for no packet; boringtun notes that an IPv4 packet came, and drops it.

use proto_core::key::{NodePublic, NodeSecret};
use proto_core::seed::{Rng, Seed};
use proto_core::time::Time;
use proto_core::wg::{INITIATION_LEN, OVERHEAD, Opened, Sealed, WgEngine};
use std::collections::BTreeMap;

mod cipher;
mod peer;
mod session;
mod timers;

use peer::{Init, Peer, Tick};
use session::{Session, word};

/// A handshake response (whitepaper, 5.4.3).
const RESPONSE_LEN: usize = 92;
const HEADER_LEN: usize = 16;
const TAG_LEN: usize = 16;
/// Packets that wait for a session.
const QUEUE_MAX: usize = 64;
/// Sessions kept a peer.
const SESSIONS: usize = 8;
/// The part of an index that is not the peer's slot.
const INDEX_BITS: u32 = 8;
const IPV6_HEADER_LEN: usize = 40;

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
    /// By slot, which is the upper 24 bits of the receiver index in every message to us.
    slots: BTreeMap<u32, NodePublic>,
    next_slot: u32,
    counters: WgCounters,
}

impl WgModel {
    /// An engine with this key; `wall_us` is the wall clock at its time zero.
    #[must_use]
    pub fn new(secret: NodeSecret, wall_us: u64, seed: &Seed) -> Self {
        let mut rng = seed.fork("wg_model").rng();
        let next_slot = rng.u64() as u32 & 0x00ff_ffff;
        Self {
            us: secret.public(),
            secret,
            rng,
            wall_us,
            peers: BTreeMap::new(),
            slots: BTreeMap::new(),
            next_slot,
            counters: WgCounters::default(),
        }
    }

    /// What it has done.
    #[must_use]
    pub const fn counters(&self) -> &WgCounters {
        &self.counters
    }

    /// Writes an initiation to `peer` into `out`; starts the handshake anew or repeats it.
    fn format_initiation(&mut self, peer: &NodePublic, out: &mut [u8], now: Time) -> Option<usize> {
        let out = out.get_mut(..INITIATION_LEN)?;
        let state = self.peers.get_mut(peer)?;
        let nonce = self.rng.u64();
        let index = state.next_index();
        let stamp = self.wall_us + now.as_micros();
        state.initiated(Init { index, nonce, sent: now });
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
        let Some(state) = self.peers.get_mut(&peer) else {
            return self.refuse("an initiation of a stranger");
        };
        if datagram[132..] != cipher::tag(state.secret, &datagram[..132]) {
            return self.refuse("an initiation that is not authentic");
        }
        if stamp <= state.last_stamp {
            self.counters.replays += 1;
            return self.refuse("an initiation that was seen before");
        }
        state.last_stamp = stamp;
        let theirs = index_at(datagram, 4);
        let (index, answer) = (state.next_index(), self.rng.u64());
        state.answered(Session::new([state.secret, nonce, answer], (index, theirs), false), now);
        let out = &mut out[..RESPONSE_LEN];
        out.fill(0);
        out[0] = 2;
        out[4..8].copy_from_slice(&index.to_le_bytes());
        out[8..12].copy_from_slice(&theirs.to_le_bytes());
        out[12..20].copy_from_slice(&answer.to_le_bytes());
        let tag = cipher::tag(state.secret ^ nonce, &out[..76]);
        out[76..].copy_from_slice(&tag);
        self.counters.sessions += 1;
        Opened::Reply(peer, RESPONSE_LEN)
    }

    fn open_response(&mut self, datagram: &[u8], out: &mut [u8], now: Time) -> Opened {
        let (theirs, ours) = (index_at(datagram, 4), index_at(datagram, 8));
        let Some((peer, state)) = self.by_index(ours) else {
            return self.refuse("a response that nobody waits for");
        };
        let Some(init) = state.init(ours) else { return self.refuse("a response that nobody waits for") };
        if datagram[76..] != cipher::tag(state.secret ^ init.nonce, &datagram[..76]) {
            return self.refuse("a response that is not authentic");
        }
        let answer = word(&datagram[12..20]);
        let mut session = Session::new([state.secret, init.nonce, answer], (ours, theirs), true);
        // No timer minds this keepalive.
        let keepalive = session.seal(&[], out);
        state.completed(session, now);
        self.counters.sessions += 1;
        Opened::Established(peer, keepalive)
    }

    fn open_data(&mut self, datagram: &[u8], out: &mut [u8], now: Time) -> Opened {
        let ours = index_at(datagram, 4);
        let Some((peer, state)) = self.by_index(ours) else { return self.refuse("no such peer") };
        let Some(session) = state.session(ours) else { return self.refuse("no such session") };
        let len = match session.open(datagram, out) {
            Ok(len) => len,
            Err(why) => {
                self.counters.replays += u64::from(why == session::REPLAY);
                return self.refuse(why);
            }
        };
        let inner = inner_len(&out[..len]);
        state.received(ours, len, inner.is_some(), now);
        match inner {
            Some(0) => Opened::Keepalive(peer),
            Some(len) => Opened::Data(peer, len),
            None => self.refuse("what is inside is not an IPv6 packet"),
        }
    }

    fn by_index(&mut self, index: u32) -> Option<(NodePublic, &mut Peer)> {
        let peer = *self.slots.get(&(index >> INDEX_BITS))?;
        Some((peer, self.peers.get_mut(&peer)?))
    }

    fn refuse(&mut self, why: &'static str) -> Opened {
        self.counters.refused += 1;
        Opened::Refused(why)
    }
}

/// The index at an offset of a message.
fn index_at(datagram: &[u8], at: usize) -> u32 {
    datagram[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// How much of what was opened is the packet: all that the header says, or nothing in a keepalive. None if it
/// is no IPv6 packet.
fn inner_len(inner: &[u8]) -> Option<usize> {
    if inner.is_empty() {
        return Some(0);
    }
    let header = inner.get(..IPV6_HEADER_LEN).filter(|header| header[0] >> 4 == 6)?;
    let len = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    (len <= inner.len()).then_some(len)
}

impl WgEngine for WgModel {
    fn add_peer(&mut self, peer: NodePublic) {
        if peer == self.us || self.peers.contains_key(&peer) {
            return;
        }
        self.next_slot = (self.next_slot + 1) & 0x00ff_ffff;
        self.slots.insert(self.next_slot, peer);
        self.peers.insert(peer, Peer::new(self.next_slot, cipher::shared(&self.secret, &peer)));
    }

    fn remove_peer(&mut self, peer: &NodePublic) {
        self.peers.remove(peer);
        self.slots.retain(|_, p| p != peer);
    }

    fn seal(&mut self, peer: &NodePublic, inner: &[u8], out: &mut [u8], now: Time) -> Sealed {
        let Some(state) = self.peers.get_mut(peer) else { return Sealed::Dropped };
        match state.seal(inner, out, now) {
            Some(sealed) => sealed,
            None => self.format_initiation(peer, out, now).map_or(Sealed::Waiting, Sealed::Initiation),
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
        self.peers.get_mut(peer)?.flush(out, now)
    }

    fn initiate(&mut self, peer: &NodePublic, out: &mut [u8], now: Time) -> Option<usize> {
        self.format_initiation(peer, out, now)
    }

    fn reset(&mut self, peer: &NodePublic) {
        if let Some(state) = self.peers.get_mut(peer) {
            state.reset();
        }
    }

    fn tick(&mut self, out: &mut [u8], now: Time) -> Option<(NodePublic, usize)> {
        let is_due = |state: &Peer| state.next_tick().is_some_and(|at| at <= now);
        while let Some((peer, state)) = self.peers.iter_mut().find(|(_, state)| is_due(state)) {
            let peer = *peer;
            let len = match state.tick(out, now) {
                Tick::Nothing => None,
                Tick::Keepalive(len) => Some(len),
                Tick::Initiate => self.format_initiation(&peer, out, now),
            };
            if let Some(len) = len {
                return Some((peer, len));
            }
        }
        None
    }

    fn next_tick(&self) -> Option<Time> {
        self.peers.values().filter_map(Peer::next_tick).min()
    }
}

#[cfg(test)]
mod tests;

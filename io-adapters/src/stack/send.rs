//! Packets on their way out: from the streams, through the engine, straight into a batch or a relay's queue.

use super::batch::{BATCH_BYTES, BATCH_SEGMENTS, SendBatch};
use super::{Stack, inner, note_timer};
use crate::streams::{PAYLOAD_MAX, Room};
use core::net::SocketAddr;
use proto_core::id::{LinkId, RegionId};
use proto_core::key::NodePublic;
use proto_core::machine::{Input, Output, Transmit};
use proto_core::node::{NodeCommand, WgCommand, WgNotice};
use proto_core::route::{Direction, Route, Via};
use proto_core::time::Time;
use proto_core::wg::{INITIATION_LEN, OVERHEAD, Sealed, WgEngine};

/// Bytes that a sealed packet has beside its QUIC packet.
const AROUND: usize = inner::HEADER_LEN + OVERHEAD;
/// What one GSO send takes.
const FULL_BATCH: Room = Room { packets: BATCH_SEGMENTS, bytes: BATCH_BYTES, around: AROUND };
/// One packet of any length.
const ONE: Room = Room { packets: 1, ..FULL_BATCH };
/// The longest sealed packet.
const SEALED_MAX: usize = PAYLOAD_MAX as usize + AROUND;
/// Copies that wait to be sent along a second way.
const COPIES_MAX: usize = 64;

impl<W: WgEngine> Stack<W> {
    /// The next batch of sealed packets for one address, put into `batch`; false if there is none now.
    /// Whoever cannot send at once (the socket's buffer is full) stops calling: what is not polled waits
    /// inside, and its writers with it. Drain [`Stack::poll`] first, and again after the last batch.
    pub fn poll_batch(&mut self, batch: &mut SendBatch, now: Time) -> bool {
        let now = self.clock(now);
        if let Some(copy) = self.copies.pop_front() {
            *batch = copy;
            return true;
        }
        self.settle(now);
        while let Some(key) = self.next_turn() {
            let Some(tunnel) = self.tunnels.get(&key) else {
                self.sendable.remove(&key);
                continue;
            };
            match (tunnel.session, tunnel.route.primary) {
                (true, Some(Via::Direct { link, addr })) => {
                    batch.clear();
                    (batch.link, batch.to) = (link, addr);
                    if self.fill_direct(&key, batch, now) {
                        return true;
                    }
                }
                (true, Some(Via::Relay(_))) => self.fill_relay(&key, now),
                (true, None) => {}
                (false, _) => self.hold(&key, now),
            }
            self.sendable.remove(&key);
        }
        batch.clear();
        false
    }

    /// The next peer that may have something to send, each in turn.
    fn next_turn(&mut self) -> Option<NodePublic> {
        let after = self.turn.and_then(|last| {
            self.sendable.range((core::ops::Bound::Excluded(last), core::ops::Bound::Unbounded)).next()
        });
        self.turn = after.or_else(|| self.sendable.first()).copied();
        self.turn
    }

    /// Seals what the peer's streams have to send into `batch`: whether there was anything.
    fn fill_direct(&mut self, key: &NodePublic, batch: &mut SendBatch, now: Time) -> bool {
        let via = Via::Direct { link: batch.link, addr: batch.to };
        let Some(segment) = self.plain_packets(key, FULL_BATCH, now) else { return false };
        batch.segment = segment + AROUND;
        let mut count = 0;
        self.wrap_each(key, segment, |this, inner| {
            let room = batch.room((inner.len() + OVERHEAD).max(INITIATION_LEN));
            match this.engine.seal(key, inner, room, now) {
                Sealed::Data(len) => {
                    batch.commit(len);
                    count += 1;
                }
                Sealed::Initiation(len) => {
                    let bytes = room[..len].to_vec();
                    this.send_along_route(key, &bytes);
                    this.lost_session(key, now);
                }
                Sealed::Waiting => this.lost_session(key, now),
                Sealed::Dropped => this.counters.unsent += 1,
            }
        });
        if count > 0 {
            self.sent(key, via, count, batch.len);
            self.copy_batch(key, via, batch, now);
        }
        // Nothing sealed but something polled: try the next peer, this one waits for its session.
        count > 0
    }

    /// QUIC packets of this peer into `scratch.plain`: the length of each.
    fn plain_packets(&mut self, key: &NodePublic, room: Room, now: Time) -> Option<usize> {
        let instant = self.instant(now);
        let tunnel = self.tunnels.get_mut(key)?;
        let segment = tunnel.mux.transmit(room, &mut self.scratch.plain, instant);
        if segment.is_some() {
            // QUIC may have something to tell, and its timers have changed.
            self.mark(key);
        } else {
            // Pacing may have set a timer even so.
            note_timer(&mut self.timers, self.base, *key, tunnel);
        }
        segment
    }

    /// Gives the inner packet of each QUIC packet in `scratch.plain` to `each`, with what it needs to seal it.
    fn wrap_each(&mut self, key: &NodePublic, segment: usize, mut each: impl FnMut(&mut Self, &[u8])) {
        let Some(header) = self.tunnels.get(key).map(|tunnel| tunnel.header_out) else { return };
        let mut plain = std::mem::take(&mut self.scratch.plain);
        let mut first = std::mem::take(&mut self.scratch.inner);
        let len = plain.len();
        for start in (0..len).step_by(segment.max(1)) {
            let end = (start + segment).min(len);
            // The header goes where the end of the packet before was, which has been sealed by now, so that only
            // the first one has to be moved.
            let inner = if let Some(at) = start.checked_sub(inner::HEADER_LEN) {
                plain[at..start].copy_from_slice(&header);
                &mut plain[at..end]
            } else {
                first.clear();
                first.extend_from_slice(&header);
                first.extend_from_slice(&plain[start..end]);
                &mut first[..]
            };
            inner::set_len(inner, end - start);
            if let Some(tap) = &self.tap {
                tap.packet(inner, self.now);
            }
            each(self, inner);
        }
        self.scratch.plain = plain;
        self.scratch.inner = first;
    }

    fn sent(&mut self, key: &NodePublic, via: Via, packets: u32, bytes: usize) {
        if let Some(tunnel) = self.tunnels.get_mut(key) {
            let first = tunnel.count(via, Direction::Sent, packets, bytes);
            self.active.extend(first.then_some(*key));
        }
    }

    /// A copy of a batch along the peer's second way, or kept for one.
    fn copy_batch(&mut self, key: &NodePublic, via: Via, batch: &SendBatch, now: Time) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        let duplicate = tunnel.route.duplicate.filter(|d| *d != via);
        match duplicate {
            None => return tunnel.recent.keep(batch.segments(), batch.len, now),
            Some(Via::Direct { link, addr }) if self.copies.len() < COPIES_MAX => {
                self.copies.push_back(SendBatch { link, to: addr, ..batch.clone() });
            }
            Some(Via::Relay(region)) => {
                if let Some(relay) = self.regions.get(&region).and_then(|s| self.relays.get_mut(s)) {
                    for packet in batch.segments() {
                        relay.push(key, packet);
                    }
                }
            }
            _ => return,
        }
        if let Some(way) = duplicate {
            let packets = u32::try_from(batch.segments().count()).unwrap_or(u32::MAX);
            self.sent(key, way, packets, batch.len);
        }
    }

    /// Sends again through a relay what a direct path may have lost, when packets begin to go through it; as much as
    /// the relay has room for.
    pub(super) fn send_again(&mut self, key: &NodePublic, (before, after): (Route, Route), now: Time) {
        let direct_alone = before.duplicate.is_none() && before.primary.is_some_and(|via| via.is_direct());
        let relay = [after.primary, after.duplicate].into_iter().flatten().find_map(|via| match via {
            Via::Relay(region) => Some(region),
            Via::Direct { .. } => None,
        });
        let Some(region) = relay.filter(|_| direct_alone) else { return };
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        for packet in tunnel.recent.take(now) {
            let relay = self.regions.get(&region).and_then(|stream| self.relays.get(stream));
            if relay.is_none_or(|relay| relay.room() < packet.len() + AROUND) {
                return;
            }
            self.counters.again += 1;
            self.send_one(key, Via::Relay(region), &packet);
        }
    }

    // --- Without a session --------------------------------------------------------------------------------

    /// Lets one packet wait inside the engine, so that the core learns that a session is wanted.
    fn hold(&mut self, key: &NodePublic, now: Time) {
        // Without a way the initiation would be sent into nowhere, and then stand in the way of the one that
        // the core asks for as soon as there is a way.
        if self.tunnels.get(key).is_none_or(|tunnel| tunnel.holding || tunnel.route.primary.is_none()) {
            return;
        }
        let Some(segment) = self.plain_packets(key, ONE, now) else { return };
        self.wrap_each(key, segment, |this, inner| {
            let mut sealed = std::mem::take(&mut this.scratch.sealed);
            sealed.resize((inner.len() + OVERHEAD).max(INITIATION_LEN), 0);
            match this.engine.seal(key, inner, &mut sealed, now) {
                // The engine had a session all along.
                Sealed::Data(len) => {
                    this.send_along_route(key, &sealed[..len]);
                    if let Some(tunnel) = this.tunnels.get_mut(key) {
                        tunnel.session = true;
                    }
                }
                Sealed::Initiation(len) => {
                    this.send_along_route(key, &sealed[..len]);
                    this.lost_session(key, now);
                }
                Sealed::Waiting => this.lost_session(key, now),
                Sealed::Dropped => this.counters.unsent += 1,
            }
            this.scratch.sealed = sealed;
        });
    }

    /// A packet waits inside the engine for a session.
    fn lost_session(&mut self, key: &NodePublic, now: Time) {
        let Some(tunnel) = self.tunnels.get_mut(key) else { return };
        tunnel.session = false;
        if !std::mem::replace(&mut tunnel.holding, true) {
            let notice = NodeCommand::Wg { peer: *key, notice: WgNotice::Waiting };
            self.tell(Input::Command(notice), now);
        }
    }

    /// Sends what waited for a session.
    pub(super) fn flush(&mut self, key: &NodePublic, now: Time) {
        let mut sealed = std::mem::take(&mut self.scratch.sealed);
        sealed.resize(crate::transport::DATAGRAM_ROOM, 0);
        while let Some(len) = self.engine.flush(key, &mut sealed, now) {
            self.send_along_route(key, &sealed[..len]);
        }
        self.scratch.sealed = sealed;
    }

    pub(super) fn on_wg(&mut self, key: &NodePublic, command: WgCommand, now: Time) {
        match command {
            WgCommand::Initiate => {
                let mut out = [0; INITIATION_LEN];
                if let Some(len) = self.engine.initiate(key, &mut out, now) {
                    self.send_along_route(key, &out[..len]);
                }
            }
            WgCommand::Reset => {
                self.engine.reset(key);
                if let Some(tunnel) = self.tunnels.get_mut(key) {
                    tunnel.session = false;
                    tunnel.holding = false;
                }
                self.mark(key);
            }
        }
    }

    /// The engine's timers: retransmissions, keepalives, renewals.
    pub(super) fn run_engine_timers(&mut self, now: Time) {
        let mut sealed = std::mem::take(&mut self.scratch.sealed);
        sealed.resize(crate::transport::DATAGRAM_ROOM, 0);
        while let Some((key, len)) = self.engine.tick(&mut sealed, now) {
            self.send_along_route(&key, &sealed[..len]);
        }
        self.scratch.sealed = sealed;
    }

    // --- Single packets -----------------------------------------------------------------------------------

    /// Sends one sealed packet along the peer's route.
    fn send_along_route(&mut self, key: &NodePublic, bytes: &[u8]) {
        let Some(route) = self.tunnels.get(key).map(|tunnel| tunnel.route) else { return };
        if route.primary.is_none() {
            self.counters.unsent += 1;
        }
        for via in route.primary.into_iter().chain(route.duplicate) {
            self.send_one(key, via, bytes);
        }
    }

    /// Sends one sealed packet one way. Data counts as activity; handshakes do not, and neither do keepalives, which
    /// nobody answers.
    pub(super) fn send_one(&mut self, key: &NodePublic, via: Via, bytes: &[u8]) {
        const DATA: u8 = 4;
        match via {
            Via::Direct { link, addr } => self.transmit(link, addr, bytes.to_vec()),
            Via::Relay(region) => {
                if let Some(relay) = self.regions.get(&region).and_then(|s| self.relays.get_mut(s)) {
                    relay.push(key, bytes);
                }
            }
        }
        if bytes.first() == Some(&DATA) && bytes.len() > OVERHEAD {
            self.sent(key, via, 1, bytes.len());
        }
    }

    pub(super) fn transmit(&mut self, link: LinkId, to: SocketAddr, bytes: Vec<u8>) {
        self.out.push_back(Output::Transmit(Transmit { link, to, bytes, ttl: None }));
    }

    // --- Relays -------------------------------------------------------------------------------------------

    /// Seals what the streams of relayed peers have to send into the relays' queues, as far as these take it.
    pub(super) fn fill_relays(&mut self, now: Time) {
        let relayed: Vec<_> = self.sendable.iter().filter(|key| !self.is_direct(key)).copied().collect();
        for key in relayed {
            match self.tunnels.get(&key) {
                Some(tunnel) if !tunnel.session => self.hold(&key, now),
                Some(_) => self.fill_relay(&key, now),
                None => {}
            }
            self.sendable.remove(&key);
        }
        for (&stream, relay) in &mut self.relays {
            if relay.region.is_some()
                && let Some(bytes) = relay.take()
            {
                self.out.push_back(Output::Write { stream, bytes });
            }
        }
    }

    fn is_direct(&self, key: &NodePublic) -> bool {
        self.tunnels.get(key).is_some_and(|t| t.session && t.route.primary.is_some_and(|via| via.is_direct()))
    }

    /// Seals what one relayed peer has to send. The relay's stream says when there is room again.
    fn fill_relay(&mut self, key: &NodePublic, now: Time) {
        let Some(Via::Relay(region)) = self.tunnels.get(key).and_then(|t| t.route.primary) else { return };
        let Some(&stream) = self.regions.get(&region) else { return };
        while let Some(room) = self.relays.get(&stream).map(|r| r.room().min(super::relay::CHUNK)) {
            if room < SEALED_MAX {
                break;
            }
            let room = Room { bytes: room, ..FULL_BATCH };
            let Some(segment) = self.plain_packets(key, room, now) else { break };
            self.wrap_each(key, segment, |this, inner| this.seal_for_relay(key, region, inner, now));
        }
    }

    fn seal_for_relay(&mut self, key: &NodePublic, region: RegionId, inner: &[u8], now: Time) {
        let Some(relay) = self.regions.get(&region).and_then(|s| self.relays.get_mut(s)) else { return };
        let room = (inner.len() + OVERHEAD).max(INITIATION_LEN);
        let engine = &mut self.engine;
        let mut sealed = Sealed::Dropped;
        let len = relay.push_with(key, room, |out| {
            sealed = engine.seal(key, inner, out, now);
            match sealed {
                Sealed::Data(len) | Sealed::Initiation(len) => len,
                Sealed::Waiting | Sealed::Dropped => 0,
            }
        });
        match sealed {
            Sealed::Data(_) => {
                let copy = self.tunnels.get(key).and_then(|t| t.route.duplicate);
                if let Some(Via::Direct { link, addr }) = copy {
                    let bytes = self.regions.get(&region).and_then(|s| self.relays.get(s));
                    let bytes = bytes.map(|relay| relay.last(len).to_vec()).unwrap_or_default();
                    self.transmit(link, addr, bytes);
                    self.sent(key, Via::Direct { link, addr }, 1, len);
                }
                self.sent(key, Via::Relay(region), 1, len);
            }
            Sealed::Initiation(_) | Sealed::Waiting => self.lost_session(key, now),
            Sealed::Dropped => self.counters.unsent += 1,
        }
    }
}

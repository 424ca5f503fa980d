//! Packets on their way in: from a socket or a relay, through the engine, to the peer's streams.

use super::relay::Peeled;
use super::{Stack, inner};
use bytes::{Buf, BytesMut};
use core::net::{IpAddr, SocketAddr};
use proto_core::id::{LinkId, StreamId};
use proto_core::key::NodePublic;
use proto_core::machine::Input;
use proto_core::node::{NodeCommand, WgNotice};
use proto_core::route::{Activity, Direction, Via};
use proto_core::time::Time;
use proto_core::wg::{INITIATION_LEN, Opened, WgEngine};
use proto_core::wire::{Kind, classify};

/// Bytes that are set aside for received packets at once. A stream that holds one byte of a packet pins all of
/// them, so they are few: eleven full packets.
const SLAB: usize = 16 << 10;

/// Where a packet came from.
#[derive(Clone, Copy)]
struct Origin {
    via: Via,
    /// Who sent it, as its relay knows.
    sender: Option<NodePublic>,
}

impl Origin {
    fn address(&self) -> IpAddr {
        match self.via {
            Via::Direct { addr, .. } => addr.ip(),
            // What comes through relays comes from one source as far as floods go: the relay's name stands in.
            Via::Relay(region) => IpAddr::V6(core::net::Ipv6Addr::from_bits(u128::from(region.0))),
        }
    }
}

impl<W: WgEngine> Stack<W> {
    /// A datagram from a UDP socket. The buffer may be scribbled on.
    pub fn datagram(&mut self, link: LinkId, from: SocketAddr, bytes: &mut [u8], now: Time) {
        let now = self.clock(now);
        if classify(bytes) == Kind::WireGuard {
            let origin = Origin { via: Via::Direct { link, addr: from }, sender: None };
            self.wireguard(origin, bytes, now);
        } else {
            self.tell(Input::Datagram { link, from, bytes }, now);
        }
    }

    /// Bytes from a relay.
    pub(super) fn relay_bytes(&mut self, stream: StreamId, bytes: &[u8], now: Time) {
        // The peeler is taken out for as long as it works, since packets may be answered on this very stream.
        let Some(relay) = self.relays.get_mut(&stream) else { return };
        let region = relay.region;
        let mut peeler = std::mem::take(&mut relay.peeler);
        let mut rest = Vec::new();
        peeler.peel(bytes, |piece| match (piece, region) {
            (Peeled::Packet(sender, packet), Some(region)) => {
                self.wireguard(Origin { via: Via::Relay(region), sender: Some(sender) }, packet, now);
            }
            // Before the relay has let us in there are no packets.
            (Peeled::Packet(..), None) => {}
            (Peeled::Frames(frames), _) => rest.extend_from_slice(frames),
        });
        if let Some(relay) = self.relays.get_mut(&stream) {
            relay.peeler = peeler;
        }
        if !rest.is_empty() {
            self.tell(Input::StreamBytes { stream, bytes: &rest }, now);
        }
    }

    fn wireguard(&mut self, origin: Origin, bytes: &[u8], now: Time) {
        let room = bytes.len().max(INITIATION_LEN);
        if self.scratch.slab.len() < room {
            // What would leave most of a slab unused gets a piece of its own.
            self.scratch.slab = BytesMut::zeroed(if room > SLAB / 2 { room } else { SLAB });
        }
        self.engine.source(Some(origin.address()));
        let out = &mut self.scratch.slab[..room];
        match self.engine.open(bytes, out, now) {
            Opened::Data(peer, len) => {
                let mut packet = self.scratch.slab.split_to(room);
                packet.truncate(len);
                self.authenticated(&peer, origin.via, bytes.len(), now);
                self.inner_packet(&peer, packet, now);
            }
            Opened::Keepalive(peer) => self.authenticated(&peer, origin.via, bytes.len(), now),
            Opened::Reply(peer, len) => self.answer(origin, Some(peer), len),
            Opened::Established(peer, keepalive) => {
                if let Some(len) = keepalive {
                    self.answer(origin, Some(peer), len);
                }
                self.established(&peer, now);
            }
            Opened::Cookie(len) => self.answer(origin, None, len),
            Opened::Refused(_) => self.counters.refused += 1,
        }
    }

    /// Sends the first `len` bytes of the slab back where a packet came from.
    fn answer(&mut self, origin: Origin, peer: Option<NodePublic>, len: usize) {
        let bytes = self.scratch.slab[..len].to_vec();
        if let Some(to) = peer.or(origin.sender) {
            self.send_one(&to, origin.via, &bytes);
        } else if let Via::Direct { link, addr } = origin.via {
            self.transmit(link, addr, bytes);
        }
    }

    /// A packet that only the peer can have sealed arrived.
    fn authenticated(&mut self, peer: &NodePublic, via: Via, bytes: usize, now: Time) {
        let Some(tunnel) = self.tunnels.get_mut(peer) else { return };
        if tunnel.count(via, Direction::Received, 1, bytes) {
            self.active.push(*peer);
        }
        if !tunnel.session || tunnel.holding {
            self.established(peer, now);
        } else if !tunnel.dirty {
            self.mark(peer);
        }
    }

    /// A session stands: what waited for it goes out.
    fn established(&mut self, peer: &NodePublic, now: Time) {
        let Some(tunnel) = self.tunnels.get_mut(peer) else { return };
        tunnel.session = true;
        tunnel.holding = false;
        self.flush(peer, now);
        self.mark(peer);
        let notice = NodeCommand::Wg { peer: *peer, notice: WgNotice::Established };
        self.tell(Input::Command(notice), now);
    }

    fn inner_packet(&mut self, peer: &NodePublic, mut packet: BytesMut, now: Time) {
        let instant = self.instant(now);
        if let Some(tap) = &self.tap {
            tap.packet(&packet, now);
        }
        let Some(tunnel) = self.tunnels.get_mut(peer) else { return };
        if inner::check(&packet, &tunnel.header_in).is_err() {
            self.counters.foreign += 1;
            return;
        }
        packet.advance(inner::HEADER_LEN);
        tunnel.mux.receive(packet, instant);
        self.mark(peer);
    }

    /// Tells the core which ways carried data.
    pub(super) fn report(&mut self, now: Time) {
        let mut all = Vec::new();
        for key in self.active.drain(..) {
            let Some(tunnel) = self.tunnels.get_mut(&key) else { continue };
            all.extend(tunnel.activity.drain(..).map(|t| Activity {
                peer: key,
                via: t.via,
                direction: t.direction,
                packets: t.packets,
                bytes: t.bytes,
            }));
        }
        for activity in all {
            self.tell(Input::Activity(activity), now);
        }
    }
}

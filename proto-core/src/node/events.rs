//! What the node makes of its children's events.

use super::book::Said;
use super::{NO_REGION, Node, NodeEvent, SessionState, WgCommand};
use crate::coord::{SessionCommand, SessionEvent};
use crate::id::RegionId;
use crate::key::NodePublic;
use crate::limits;
use crate::machine::{Machine, Output};
use crate::nat::portmap::PortmapCommand;
use crate::nat::predict::Shape;
use crate::nat::{Mapping, NetcheckCommand, Report};
use crate::peer::{PathStory, PeerCommand, PeerEvent};
use crate::relay::{GoneReason, PoolCommand, PoolEvent};
use crate::route::Route;
use crate::time::Time;
use crate::wg::{HandshakeCommand, HandshakeEvent};
use crate::wire::control::{Forbidder, Welcome};
use crate::wire::disco::Envelope;
use std::collections::BTreeMap;

impl Node {
    /// Drains the children until none has anything to say.
    pub(super) fn drain(&mut self, now: Time) {
        loop {
            self.drain_once(now);
            self.publish(now);
            self.tell_paths(now);
            if !self.drain_once(now) {
                return;
            }
        }
    }

    /// Drains the children; whether any had something to say.
    fn drain_once(&mut self, now: Time) -> bool {
        let mut any = false;
        loop {
            if let Some(output) = self.session.as_mut().and_then(Machine::poll) {
                if let Some(event) = self.pass(output) {
                    self.session_event(event, now);
                }
            } else if let Some(output) = self.netcheck.poll() {
                if let Some(report) = self.pass(output) {
                    self.report(report, now);
                }
            } else if let Some(output) = self.portmap.poll() {
                if let Some(event) = self.pass(output) {
                    self.portmap_event(event);
                }
            } else if let Some(output) = self.pool.poll() {
                if let Some(event) = self.pass(output) {
                    self.pool_event(event, now);
                }
            } else if let Some((key, said)) = self.book.poll() {
                self.peer_said(key, said, now);
            } else {
                return any;
            }
            any = true;
        }
    }

    /// Passes a child's request on; gives the event if it is one.
    fn pass<E>(&mut self, output: Output<E>) -> Option<E> {
        self.out.push(match output {
            Output::Event(event) => return Some(event),
            Output::Transmit(transmit) => Output::Transmit(transmit),
            Output::Open { stream, target } => Output::Open { stream, target },
            Output::Write { stream, bytes } => Output::Write { stream, bytes },
            Output::Close { stream } => Output::Close { stream },
            Output::Resolve { name } => Output::Resolve { name },
            Output::Bind { link } => Output::Bind { link },
            Output::Unbind { link } => Output::Unbind { link },
        });
        None
    }

    fn session_event(&mut self, event: SessionEvent, now: Time) {
        match event {
            SessionEvent::Up(welcome) => self.welcome(welcome, now),
            SessionEvent::Down { why } => {
                self.book.doubt_news();
                self.tell_netcheck(NetcheckCommand::Controlled(false), now);
                self.set_state(SessionState::Down { why });
            }
            SessionEvent::RelayMap(map) => self.set_map(map, now),
            SessionEvent::Spread(over) => self.tell_pool(PoolCommand::Spread(over), now),
            SessionEvent::Peer(info) => self.peer_told(info, now),
            SessionEvent::PeerLost { id, closed } => self.peer_lost(&id, closed, now),
            SessionEvent::PeerGone { id, reason } => {
                let why = if reason.is_empty() { "it left" } else { &reason };
                self.drop_peer(&id, why, now);
            }
            SessionEvent::PeerReady(id) => match self.book.key_of(&id) {
                Some(key) => self.book.handshake(&key, HandshakeCommand::Start, now),
                None => self.remember_ready(id),
            },
            SessionEvent::Refused { to, code, message } => {
                match &to {
                    Some(id) => _ = self.wanted.remove(id),
                    None => {
                        if code == crate::coord::code::EXPELLED {
                            // Nobody lets us in any more: what was open ends here too, with the reason.
                            self.drop_peers(&message, now);
                        }
                        self.tell_netcheck(NetcheckCommand::Controlled(false), now);
                        self.set_state(SessionState::Refused {
                            code: code.clone(),
                            message: message.clone(),
                        });
                    }
                }
                self.out.event(NodeEvent::Refused { to, code, message });
            }
            SessionEvent::Draining { retry_after } => {
                self.book.doubt_news();
                self.set_state(SessionState::Draining { retry_after });
            }
        }
    }

    fn welcome(&mut self, welcome: Welcome, now: Time) {
        self.id = Some(welcome.id.clone());
        self.unpublished = true;
        self.default_relay.clone_from(&welcome.relay);
        self.choose(now);
        self.tell_pool(PoolCommand::WebSockets(welcome.relay_websockets), now);
        self.tell_netcheck(NetcheckCommand::Controlled(true), now);
        // The server's policy is named first: while it stands, no setting of ours makes a difference.
        let server = (!welcome.direct).then_some(Forbidder::Server);
        self.set_direct(server.or(self.config.direct_forbidden), now);
        self.set_state(SessionState::Up(welcome));
        self.touch_paths(now);
    }

    fn report(&mut self, report: Report, now: Time) {
        self.unpublished = true;
        let home = report.home.unwrap_or(NO_REGION);
        if home != self.home {
            self.home = home;
            self.tell_pool(PoolCommand::Home(home), now);
        }
        // A second relay is connected once it is known which: measured, or found unmeasurable.
        let known = report.udp.is_some() || !self.netcheck.is_measuring();
        let warm = report.warm.filter(|_| known).unwrap_or(NO_REGION);
        if warm != self.warm {
            self.warm = warm;
            self.tell_pool(PoolCommand::Warm(warm), now);
        }
        let network = PeerCommand::Network { shape: Shape::of(&report), stun: report.stun.clone() };
        self.book.everyone(&network, now);
        let in_doubt = self.doubted.is_some_and(|at| now.since(at) < limits::REMAPPED_BY_DOUBT);
        if self.remapped(&report) && in_doubt {
            // The NAT restarted, and has forgotten our streams as well: they would be found dead one by one, late.
            self.tell_session(SessionCommand::Kick, now);
            self.tell_pool(PoolCommand::Kick, now);
        }
        self.out.event(NodeEvent::Netcheck(report));
    }

    /// Whether a NAT that gives a socket one mapping has given one of ours another.
    fn remapped(&mut self, report: &Report) -> bool {
        if report.mapping != Mapping::Independent {
            return false;
        }
        let (mut known, mut moved) = (BTreeMap::new(), false);
        for seen in report.reflexive.iter().filter(|seen| seen.address.is_ipv4()) {
            known.entry(seen.link).or_insert_with(Vec::new).push(seen.address);
        }
        for (link, addresses) in &known {
            let before = self.reflexive.get(link);
            moved |= before.is_some_and(|before| addresses.iter().all(|address| !before.contains(address)));
        }
        self.reflexive = known;
        moved
    }

    fn pool_event(&mut self, event: PoolEvent, now: Time) {
        match event {
            PoolEvent::Up { region, stream } => {
                self.out.event(NodeEvent::RelayUp { region, stream });
                self.relay_changed(region, true, now);
            }
            PoolEvent::Down { region, why } => {
                self.out.event(NodeEvent::RelayDown { region, why });
                self.relay_changed(region, false, now);
            }
            PoolEvent::Packet { region, from, bytes } => {
                self.tell_netcheck(NetcheckCommand::Heard(region), now);
                self.relayed(region, from, bytes, now);
            }
            PoolEvent::PeerGone { region, peer, reason } => self.gone_from_relay(region, &peer, reason, now),
            PoolEvent::Health { region, problem } => {
                self.out.event(NodeEvent::RelayHealth { region, problem });
            }
            PoolEvent::Silent { region, silent } => {
                self.tell_netcheck(NetcheckCommand::Silent { region, silent }, now);
            }
            PoolEvent::Leaving { region } => self.tell_netcheck(NetcheckCommand::Leaving(region), now),
        }
    }

    fn relay_changed(&mut self, region: RegionId, up: bool, now: Time) {
        self.tell_netcheck(NetcheckCommand::Relay { region, up }, now);
        for key in self.book.keys() {
            self.book.relay(&key, region, up, now);
        }
    }

    /// A disco datagram through a relay: only a known peer's, sealed by the disco key we know of it.
    fn relayed(&mut self, region: RegionId, from: NodePublic, bytes: Vec<u8>, now: Time) {
        let sender = Envelope::new_checked(&bytes).map(|envelope| envelope.sender);
        let known = self.book.get(&from).map(|entry| entry.info.disco_key);
        if sender.is_none() || sender != known {
            return;
        }
        self.heard(&from, region, now);
        self.book.command(&from, PeerCommand::Relayed { region, bytes }, now);
    }

    /// A relay says that a peer is not there. At its home it will be again; elsewhere the way is forgotten.
    fn gone_from_relay(&mut self, region: RegionId, peer: &NodePublic, _reason: GoneReason, now: Time) {
        if let Some(entry) = self.book.get_mut(peer) {
            entry.heard.remove(&region);
            let home = entry.info.home == region;
            self.book.relay(peer, region, home && self.pool.stream(region).is_some(), now);
        }
    }

    fn peer_said(&mut self, key: NodePublic, said: Said, now: Time) {
        match said {
            Said::Handshake(event) => {
                let command = match event {
                    HandshakeEvent::Initiate => WgCommand::Initiate,
                    HandshakeEvent::Reset => WgCommand::Reset,
                };
                self.out.event(NodeEvent::Wg { key, command });
            }
            Said::Path(output) => match self.pass(output) {
                Some(PeerEvent::Relay { region, bytes }) => {
                    self.tell_pool(PoolCommand::Send { region, to: key, bytes }, now);
                }
                Some(PeerEvent::Route(route)) => self.route_changed(key, route, now),
                Some(PeerEvent::Story(story)) => {
                    if matches!(story, PathStory::Doubted { .. }) {
                        // What broke this path, a router that restarted perhaps, may have broken the relay's
                        // connection and our reflexive address with it: look now, while there is time.
                        self.doubted = Some(now);
                        self.tell_pool(PoolCommand::Check, now);
                        self.tell_netcheck(NetcheckCommand::Check, now);
                        self.tell_portmap(PortmapCommand::Doubt, now);
                    }
                    if let Some(entry) = self.book.get_mut(&key) {
                        entry.tell(story.clone(), now);
                    }
                    self.out.event(NodeEvent::Story { key, story });
                }
                None => {}
            },
        }
    }

    /// Hands a peer's new route on to the hot path and to whoever shakes hands along it.
    pub(super) fn route_changed(&mut self, key: NodePublic, route: Route, now: Time) {
        let Some(entry) = self.book.get_mut(&key) else { return };
        let had = entry.route.primary.is_some();
        let route = entry.set_route(route, now);
        self.out.event(NodeEvent::Route { key, route });
        self.path_touched(&key, now);
        if had != route.primary.is_some() {
            self.book.handshake(&key, HandshakeCommand::Way(route.primary.is_some()), now);
        }
    }

    /// Tells the session that a tunnel is not wanted any more, because of what we found about the peer.
    pub(super) fn refuse(&mut self, id: crate::id::NodeId, code: &str, message: String, now: Time) {
        self.wanted.remove(&id);
        self.tell_session(SessionCommand::CloseTunnel(id.clone()), now);
        self.out.event(NodeEvent::Refused { to: Some(id), code: code.to_owned(), message });
    }
}

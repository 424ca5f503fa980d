//! All relay connections of a node: its home always, other regions as long as they are used.

use super::{GoneReason, LinkCommand, LinkConfig, LinkEvent, RelayLink};
use crate::id::{RegionId, StreamId};
use crate::key::{NodePublic, NodeSecret};
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output, StreamProtocol};
use crate::relay_map::RelayMap;
use crate::route::Via;
use crate::seed::Seed;
use crate::time::{Duration, Monotone, Time, earliest};
use core::ops::Range;
use std::collections::BTreeMap;

/// Stream names of one link: far more than it can have open at once.
const STREAMS_A_LINK: u64 = 1 << 12;

/// Why a region is left that the map does not name any more.
const NOT_IN_MAP: &str = "the region is not in the relay map any more";

/// What a pool is made of.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Who logs in: the node's own key.
    pub identity: NodeSecret,
    /// The stream names it may use, round and round; at least 2^20.
    pub streams: Range<u64>,
}

/// What a pool's owner asks of it.
#[derive(Clone, PartialEq, Debug)]
pub enum PoolCommand {
    /// The relay map; replaces the one said before. Connections to what did not change stay.
    SetMap(RelayMap),
    /// The home region, connected always; region 0 for none.
    Home(RegionId),
    /// A second region to keep connected, so that a failover finds it ready; region 0 for none.
    Warm(RegionId),
    /// Whether relays are asked for a WebSocket from the start. Connections made otherwise are made anew.
    WebSockets(bool),
    /// Connect to this region if it isn't, and keep it as long as it is used.
    Want(RegionId),
    /// Send a packet through a region, connecting to it if need be.
    Send {
        /// Through which region.
        region: RegionId,
        /// To whom.
        to: NodePublic,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// So many nodes are connected that each chooses a moment within this long to come back to a relay that went away.
    Spread(Duration),
    /// The network changed: connect anew everywhere, at once.
    Kick,
    /// Something on the way broke: ask every connection whether it still works.
    Check,
}

/// What a pool tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PoolEvent {
    /// A region can be used: SendPacket frames may be written to this stream, which replaces any said before.
    Up {
        /// The region.
        region: RegionId,
        /// The stream.
        stream: StreamId,
    },
    /// A region cannot be used (any more).
    Down {
        /// The region.
        region: RegionId,
        /// Why, in words for a person.
        why: String,
    },
    /// A packet arrived that the hot path left to the machine.
    Packet {
        /// Through which region.
        region: RegionId,
        /// From whom.
        from: NodePublic,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// A relay says that a peer is not there.
    PeerGone {
        /// Which region.
        region: RegionId,
        /// The peer.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// A region's relay tells of a problem with us, in words for a person; empty when it is over.
    Health {
        /// Which region.
        region: RegionId,
        /// The words.
        problem: String,
    },
    /// A region's relay is about to stop. It works still; once it is neither home nor warm nor used, it is left.
    Leaving {
        /// Which region.
        region: RegionId,
    },
    /// A region's relay does not answer, while another one does: it should be left. Or it is heard again.
    Silent {
        /// Which region.
        region: RegionId,
        /// Whether it is silent.
        silent: bool,
    },
}

/// All relay connections of a node. [`Input::Activity`] by way of a relay keeps its region connected and
/// counts as a sign of life: give it to the pool as it comes.
#[derive(Debug)]
pub struct RelayPool {
    config: PoolConfig,
    seed: Seed,
    clock: Monotone,
    map: RelayMap,
    home: Option<RegionId>,
    warm: Option<RegionId>,
    websockets: bool,
    /// What new links are told of the crowd.
    spread: Duration,
    links: BTreeMap<RegionId, Slot>,
    /// Links made so far: names the next one's streams.
    made: u64,
    out: Outbox<PoolEvent>,
}

#[derive(Debug)]
struct Slot {
    link: RelayLink,
    used: Time,
    /// Its relay is about to stop.
    leaving: bool,
    /// The map does not name the region any more: when it is left, used or not.
    dropped: Option<Time>,
}

impl Slot {
    /// When it is left if nobody uses it.
    fn idle_at(&self) -> Time {
        let idle = self.used + if self.leaving { limits::RELAY_LEAVE } else { limits::RELAY_IDLE };
        self.dropped.unwrap_or(idle)
    }
}

impl RelayPool {
    /// A pool without a map.
    #[must_use]
    pub fn new(config: PoolConfig, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self {
            config,
            seed,
            clock,
            map: RelayMap::default(),
            home: None,
            warm: None,
            websockets: false,
            spread: Duration::ZERO,
            links: BTreeMap::new(),
            made: 0,
            out: Outbox::default(),
        }
    }

    /// Whether this stream is one of the pool's: whose inputs to give to it.
    #[must_use]
    pub fn owns(&self, stream: StreamId) -> bool {
        self.config.streams.contains(&stream.0)
    }

    /// The stream to write SendPacket frames to, while the region is up.
    #[must_use]
    pub fn stream(&self, region: RegionId) -> Option<StreamId> {
        self.links.get(&region)?.link.stream()
    }

    /// The regions that are up.
    pub fn up(&self) -> impl Iterator<Item = RegionId> + '_ {
        self.links.iter().filter(|(_, slot)| slot.link.stream().is_some()).map(|(region, _)| *region)
    }

    fn is_kept(&self, region: RegionId) -> bool {
        self.home == Some(region) || self.warm == Some(region)
    }

    fn command(&mut self, command: PoolCommand, now: Time) {
        match command {
            PoolCommand::SetMap(map) => self.set_map(map, now),
            PoolCommand::Home(region) => self.set_home(region, now),
            PoolCommand::Warm(region) => {
                self.touch_all_kept(now);
                self.warm = Some(region).filter(|region| region.0 != 0);
                if let Some(region) = self.warm {
                    self.want(region, now);
                }
            }
            PoolCommand::WebSockets(websockets) => {
                if !core::mem::replace(&mut self.websockets, websockets) && websockets {
                    self.tell_all(&LinkCommand::Kick, now);
                }
            }
            PoolCommand::Want(region) => _ = self.want(region, now),
            PoolCommand::Send { region, to, bytes } => {
                if self.want(region, now) {
                    self.tell(region, LinkCommand::Send { to, bytes }, now);
                }
            }
            PoolCommand::Spread(over) => {
                self.spread = over;
                self.tell_all(&LinkCommand::Spread(over), now);
            }
            PoolCommand::Kick => self.tell_all(&LinkCommand::Kick, now),
            PoolCommand::Check => self.tell_all(&LinkCommand::Check, now),
        }
    }

    fn tell_all(&mut self, command: &LinkCommand, now: Time) {
        for region in self.links.keys().copied().collect::<Vec<_>>() {
            self.tell(region, command.clone(), now);
        }
    }

    /// Those that stop being kept are left after a while only, since somebody may still write to them.
    fn touch_all_kept(&mut self, now: Time) {
        for region in [self.home, self.warm].into_iter().flatten() {
            if let Some(slot) = self.links.get_mut(&region) {
                slot.used = now;
            }
        }
    }

    fn set_home(&mut self, region: RegionId, now: Time) {
        let home = Some(region).filter(|region| region.0 != 0);
        if home == self.home {
            return;
        }
        self.touch_all_kept(now);
        if let Some(before) = self.home {
            self.tell(before, LinkCommand::Preferred(false), now);
        }
        self.home = home;
        if let Some(region) = home {
            self.want(region, now);
        }
    }

    fn set_map(&mut self, map: RelayMap, now: Time) {
        self.map = map;
        for region in self.links.keys().copied().collect::<Vec<_>>() {
            match self.map.regions.get(&region).cloned() {
                Some(changed) => {
                    if let Some(slot) = self.links.get_mut(&region) {
                        slot.dropped = None;
                    }
                    self.tell(region, LinkCommand::Region(changed), now);
                }
                None => self.drop_region(region, now),
            }
        }
        for region in [self.home, self.warm].into_iter().flatten() {
            self.want(region, now);
        }
    }

    /// The map does not name a region any more. What is on its way, and what peers still send there until they
    /// have learned of another home, gets a moment; with no region left there is nowhere to move to.
    fn drop_region(&mut self, region: RegionId, now: Time) {
        let elsewhere = !self.map.regions.is_empty();
        match self.links.get_mut(&region) {
            Some(slot) if elsewhere && slot.link.stream().is_some() => {
                slot.dropped.get_or_insert(now + limits::RELAY_LEAVE);
            }
            _ => self.leave(region, NOT_IN_MAP, now),
        }
    }

    /// Connects to a region if need be. False if that cannot be.
    fn want(&mut self, region: RegionId, now: Time) -> bool {
        if let Some(slot) = self.links.get_mut(&region) {
            slot.used = now;
            self.tell(region, LinkCommand::Preferred(self.home == Some(region)), now);
            return true;
        }
        let Some(known) = self.map.regions.get(&region).cloned() else {
            let why = format!("the relay map has no region {region}");
            self.out.event(PoolEvent::Down { region, why });
            return false;
        };
        if self.links.len() >= limits::RELAY_LINKS_MAX && !self.make_room(now) {
            let why = "too many relay regions are in use".to_owned();
            self.out.event(PoolEvent::Down { region, why });
            return false;
        }
        let config = LinkConfig {
            identity: self.config.identity.clone(),
            region: known,
            streams: self.streams(),
            mesh: None,
        };
        self.made += 1;
        let seed = self.seed.fork(&format!("relay link {} of region {region}", self.made));
        self.links.insert(
            region,
            Slot { link: RelayLink::new(config, seed, now), used: now, leaving: false, dropped: None },
        );
        self.tell(region, LinkCommand::Spread(self.spread), now);
        self.tell(region, LinkCommand::Preferred(self.home == Some(region)), now);
        self.tell(region, LinkCommand::Connect, now);
        true
    }

    /// Leaves the region that was used longest ago, if one may be left.
    fn make_room(&mut self, now: Time) -> bool {
        let idle = self.links.iter().filter(|(region, _)| !self.is_kept(**region));
        let Some(region) = idle.min_by_key(|(_, slot)| slot.used).map(|(region, _)| *region) else {
            return false;
        };
        self.leave(region, "too many relay regions are in use", now);
        true
    }

    /// Names for a new link's streams, that no present link uses.
    fn streams(&self) -> Range<u64> {
        let Range { start, end } = self.config.streams;
        let blocks = (end.saturating_sub(start) / STREAMS_A_LINK).max(1);
        let block = |n: u64| start + (self.made + n) % blocks * STREAMS_A_LINK;
        let is_free = |from: &u64| !self.links.values().any(|slot| slot.link.owns(StreamId(*from)));
        let from = (0..blocks.min(limits::RELAY_LINKS_MAX as u64 + 1)).map(block).find(is_free);
        let from = from.unwrap_or_else(|| block(0));
        from..from + STREAMS_A_LINK
    }

    fn leave(&mut self, region: RegionId, why: &str, now: Time) {
        self.give(region, Input::Command(LinkCommand::Close), Some(why), now);
        self.links.remove(&region);
    }

    fn tell(&mut self, region: RegionId, command: LinkCommand, now: Time) {
        self.give(region, Input::Command(command), None, now);
    }

    /// Gives an input to a link and takes what it says; `why` is what a Down means, if we know better.
    fn give(&mut self, region: RegionId, input: Input<'_, LinkCommand>, why: Option<&str>, now: Time) {
        let Some(Slot { link, used, leaving, .. }) = self.links.get_mut(&region) else { return };
        link.handle(input, now);
        let mut wondering = false;
        let mut silence = None;
        while let Some(output) = link.poll() {
            match &output {
                Output::Event(LinkEvent::Wondering) => wondering = true,
                Output::Event(LinkEvent::Silent { since }) => silence = Some(*since),
                Output::Event(LinkEvent::Up { .. }) => *leaving = false,
                // Whoever still sends this way gets a moment to learn another.
                Output::Event(LinkEvent::Leaving) => (*leaving, *used) = (true, now),
                _ => {}
            }
            let output = match output {
                Output::Open { stream, mut target } if self.websockets => {
                    target.protocol = StreamProtocol::DerpInWebSocket;
                    Output::Open { stream, target }
                }
                output => output,
            };
            let event = output.into_event(&mut self.out);
            if let Some(event) = event.and_then(|event| with_region(region, event, why)) {
                self.out.event(event);
            }
        }
        if wondering {
            self.ask_others(region, now);
        }
        if let Some(since) = silence {
            // Where all are silent the trouble is on our side, and moving would help nobody.
            let heard = |since| self.others(region).any(|other| self.has_heard(other, since));
            if since.is_none_or(heard) {
                self.out.event(PoolEvent::Silent { region, silent: since.is_some() });
            }
        }
    }

    /// The regions that are kept besides this one.
    fn others(&self, region: RegionId) -> impl Iterator<Item = RegionId> + use<> {
        [self.home, self.warm].into_iter().flatten().filter(move |other| *other != region)
    }

    fn has_heard(&self, region: RegionId, since: Time) -> bool {
        self.links.get(&region).is_some_and(|slot| slot.link.heard_since(since))
    }

    /// Whether another region's relay answers tells what it means that this one does not.
    fn ask_others(&mut self, region: RegionId, now: Time) {
        for other in self.others(region).collect::<Vec<_>>() {
            self.tell(other, LinkCommand::Ask, now);
        }
    }

    fn give_owner(&mut self, stream: StreamId, input: Input<'_, LinkCommand>, now: Time) {
        let owner = self.links.iter().find(|(_, slot)| slot.link.owns(stream)).map(|(region, _)| *region);
        if let Some(region) = owner {
            self.give(region, input, None, now);
        }
    }

    /// When the first region that is not kept is left.
    fn next_idle(&self) -> Option<(Time, RegionId)> {
        let idle =
            self.links.iter().filter(|(region, slot)| slot.dropped.is_some() || !self.is_kept(**region));
        idle.map(|(region, slot)| (slot.idle_at(), *region)).min()
    }

    fn due(&mut self, now: Time) {
        while let Some((_, region)) = self.next_idle().filter(|(at, _)| *at <= now) {
            let dropped = self.links.get(&region).is_some_and(|slot| slot.dropped.is_some());
            self.leave(region, if dropped { NOT_IN_MAP } else { "not used any more" }, now);
        }
        let is_due = |slot: &Slot| slot.link.deadline().is_some_and(|(at, _)| at <= now);
        let due: Vec<_> =
            self.links.iter().filter(|(_, slot)| is_due(slot)).map(|(region, _)| *region).collect();
        for region in due {
            self.give(region, Input::Deadline, None, now);
        }
    }
}

fn with_region(region: RegionId, event: LinkEvent, better: Option<&str>) -> Option<PoolEvent> {
    Some(match event {
        LinkEvent::Up { stream } => PoolEvent::Up { region, stream },
        LinkEvent::Down { why } => PoolEvent::Down { region, why: better.map_or(why, str::to_owned) },
        LinkEvent::Packet { from, bytes } => PoolEvent::Packet { region, from, bytes },
        LinkEvent::PeerGone { peer, reason } => PoolEvent::PeerGone { region, peer, reason },
        LinkEvent::Leaving => PoolEvent::Leaving { region },
        LinkEvent::Health { problem } => PoolEvent::Health { region, problem },
        // Only told to relays of a mesh.
        LinkEvent::PeerPresent { .. } | LinkEvent::Itself => return None,
        // They concern the other links as well.
        LinkEvent::Wondering | LinkEvent::Silent { .. } => return None,
    })
}

impl Machine for RelayPool {
    type Command = PoolCommand;
    type Event = PoolEvent;

    fn handle(&mut self, input: Input<'_, PoolCommand>, now: Time) {
        let now = self.clock.clamp(now);
        match input {
            Input::Command(command) => self.command(command, now),
            Input::StreamOpened { stream } => self.give_owner(stream, Input::StreamOpened { stream }, now),
            Input::StreamBytes { stream, bytes } => {
                self.give_owner(stream, Input::StreamBytes { stream, bytes }, now);
            }
            Input::StreamClosed { stream, why } => {
                self.give_owner(stream, Input::StreamClosed { stream, why }, now);
            }
            Input::Resolved { name, addresses } => {
                for region in self.links.keys().copied().collect::<Vec<_>>() {
                    self.give(region, Input::Resolved { name, addresses }, None, now);
                }
            }
            Input::Activity(activity) => {
                if let Via::Relay(region) = activity.via {
                    if let Some(slot) = self.links.get_mut(&region) {
                        slot.used = now;
                    }
                    self.give(region, Input::Activity(activity), None, now);
                }
            }
            _ => {}
        }
        self.due(now);
    }

    fn poll(&mut self) -> Option<Output<PoolEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        let idle = self.next_idle().map(|(at, _)| (at, "relay pool: leave an idle region"));
        self.links.values().map(|slot| slot.link.deadline()).fold(idle, earliest)
    }
}

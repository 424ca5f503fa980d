//! One relay connection, client end: find a node of the region, log in, notice when it dies, come back.
//!
//! A planned change (the network changed, the relay restarts, the map moved the node) makes before it breaks:
//! the old connection carries on until the new one has logged in, and is read for a moment more.

use super::GoneReason;
use crate::backoff::Backoff;
use crate::id::StreamId;
use crate::key::{NodePublic, NodeSecret};
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::relay_map::{RelayNode, RelayRegion};
use crate::route::{Activity, Direction, Via};
use crate::seed::{Rng, Seed};
use crate::time::{Duration, Monotone, Time, earliest};
use crate::wire::derp::{Decoder, Frame, MeshKey};
use core::net::IpAddr;
use core::ops::Range;
use std::collections::{BTreeMap, VecDeque};

mod attempt;

use attempt::{Attempt, Stage};

/// What a relay link is made of.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// Who logs in: the node's own key.
    pub identity: NodeSecret,
    /// The region and its nodes.
    pub region: RelayRegion,
    /// The stream names it may use, round and round; at least 16.
    pub streams: Range<u64>,
    /// This end is a relay, too, and proves it so: it is told who comes and goes.
    pub mesh: Option<MeshKey>,
}

/// What a link's owner asks of it.
#[derive(Clone, PartialEq, Debug)]
pub enum LinkCommand {
    /// Connect, and stay connected until [`LinkCommand::Close`].
    Connect,
    /// Give the connection up.
    Close,
    /// Whether this is our home: the server counts it.
    Preferred(bool),
    /// Send a packet. While the link is not up it waits in a short queue, the oldest dropped.
    Send {
        /// To whom.
        to: NodePublic,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// The network changed: connect anew at once. A connection that still works is kept until the new one
    /// is up.
    Kick,
    /// The connection may be dead: ask it, and give it up if it does not answer soon.
    Check,
    /// Each wait before another attempt is drawn from at least this long.
    Spread(Duration),
    /// Ask the relay for a sign of life, patiently.
    Ask,
    /// The region as the map now has it. The connection stays if its node is still there, unchanged.
    Region(RelayRegion),
}

/// What a link tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// Logged in: SendPacket frames may be written to this stream, which replaces any said before.
    Up {
        /// The stream.
        stream: StreamId,
    },
    /// Not connected any more, or the first attempt failed; it is tried again.
    Down {
        /// Why, in words for a person.
        why: String,
    },
    /// A packet arrived that the hot path left to the machine.
    Packet {
        /// From whom.
        from: NodePublic,
        /// The packet.
        bytes: Vec<u8>,
    },
    /// The relay says that a peer is not there.
    PeerGone {
        /// The peer.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// A peer is there; only told to relays of the mesh.
    PeerPresent {
        /// The peer.
        peer: NodePublic,
    },
    /// The other end has our own key: it is us. Nothing more is tried.
    Itself,
    /// The relay tells of a problem with us, in words for a person; empty when it is over.
    Health {
        /// The words.
        problem: String,
    },
    /// The relay is about to stop, and the region has no other: it works still, but should be left.
    Leaving,
    /// Something was sent and nothing has come back, so the relay was asked for a sign of life: ask others, too.
    Wondering,
    /// The relay is silent though it was asked, since that moment; none once it is heard again.
    Silent {
        /// When it was asked.
        since: Option<Time>,
    },
}

/// One relay connection, client end.
///
/// [`Input::Activity`] received by way of this region counts as a sign of life.
#[derive(Debug)]
pub struct RelayLink {
    config: LinkConfig,
    clock: Monotone,
    backoff: Backoff,
    rng: Rng,
    wanted: bool,
    preferred: bool,
    /// The last addresses of each name, so that a dead resolver delays nothing.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// Streams opened so far: names the next one.
    opened: u64,
    attempt: Option<Attempt>,
    current: Option<Current>,
    /// The connection before the current one, still read.
    old: Option<Old>,
    /// When to try again.
    retry: Option<Time>,
    /// When to leave a relay that restarts.
    renew: Option<Time>,
    /// Packets that wait for the link to be up.
    waiting: VecDeque<(NodePublic, Vec<u8>)>,
    /// The reason last told, so that it is not told at each attempt.
    told_down: Option<String>,
    out: Outbox<LinkEvent>,
}

/// A connection that is logged in.
#[derive(Debug)]
struct Current {
    stream: StreamId,
    node: RelayNode,
    decoder: Decoder,
    since: Time,
    heard: Time,
    /// When something was sent first that nothing was heard after.
    unanswered: Option<Time>,
    pong_due: Option<Time>,
    /// When it was asked why it does not answer.
    wondering: Option<Time>,
    /// That it is silent was told.
    silent: bool,
}

/// A connection that was replaced.
#[derive(Debug)]
struct Old {
    stream: StreamId,
    decoder: Decoder,
    until: Time,
}

impl Current {
    /// When to ping.
    fn ping_at(&self) -> Time {
        let idle = self.heard + limits::RELAY_PING;
        self.unanswered.map_or(idle, |since| idle.min(since + limits::RELAY_PING_UNANSWERED))
    }

    /// Takes a sign of life: whether the relay had been called silent.
    const fn hear(&mut self, now: Time) -> bool {
        self.heard = now;
        self.unanswered = None;
        self.pong_due = None;
        self.wondering = None;
        core::mem::replace(&mut self.silent, false)
    }

    /// When it is to be called silent.
    fn silent_at(&self) -> Option<Time> {
        self.wondering.filter(|_| !self.silent).map(|since| since + limits::RELAY_SILENT)
    }
}

impl RelayLink {
    /// A link that waits for [`LinkCommand::Connect`].
    #[must_use]
    pub fn new(config: LinkConfig, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self {
            config,
            clock,
            backoff: Backoff::new(seed.fork("relay backoff").rng()),
            rng: seed.fork("relay nonces").rng(),
            wanted: false,
            preferred: false,
            names: BTreeMap::new(),
            opened: 0,
            attempt: None,
            current: None,
            old: None,
            retry: None,
            renew: None,
            waiting: VecDeque::new(),
            told_down: None,
            out: Outbox::default(),
        }
    }

    /// The stream to write SendPacket frames to, while the link is up.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        self.current.as_ref().map(|current| current.stream)
    }

    /// Whether the relay has given a sign of life since then.
    pub(super) fn heard_since(&self, then: Time) -> bool {
        self.current.as_ref().is_some_and(|current| current.heard >= then)
    }

    /// Whether this stream is one of the link's: whose inputs to give to it.
    #[must_use]
    pub fn owns(&self, stream: StreamId) -> bool {
        self.config.streams.contains(&stream.0)
    }

    fn write(&mut self, stream: StreamId, frame: &Frame<'_>) {
        self.out.push(Output::Write { stream, bytes: frame.to_bytes() });
    }

    fn command(&mut self, command: LinkCommand, now: Time) {
        match command {
            LinkCommand::Connect => {
                self.wanted = true;
                if self.current.is_none() && self.attempt.is_none() && self.retry.is_none() {
                    self.dial(0, now);
                }
            }
            LinkCommand::Close => self.close(),
            LinkCommand::Preferred(preferred) => {
                if self.preferred != preferred {
                    self.preferred = preferred;
                    if let Some(stream) = self.stream() {
                        self.write(stream, &Frame::NotePreferred(preferred));
                    }
                }
            }
            LinkCommand::Send { to, bytes } => self.send(to, bytes, now),
            LinkCommand::Kick => self.kick(now),
            LinkCommand::Check => self.ping(limits::RELAY_PONG_AFTER_KICK, now),
            LinkCommand::Spread(over) => self.backoff.spread_over(over),
            LinkCommand::Ask => self.ping(limits::RELAY_PONG, now),
            LinkCommand::Region(region) => self.set_region(region, now),
        }
    }

    fn close(&mut self) {
        self.drop_attempt();
        let streams = [self.current.take().map(|c| c.stream), self.old.take().map(|old| old.stream)];
        if streams[0].is_some() {
            self.out.event(LinkEvent::Down { why: "not needed any more".to_owned() });
        }
        for stream in streams.into_iter().flatten() {
            self.out.push(Output::Close { stream });
        }
        self.wanted = false;
        self.retry = None;
        self.renew = None;
        self.told_down = None;
        self.waiting.clear();
    }

    fn send(&mut self, to: NodePublic, bytes: Vec<u8>, now: Time) {
        if let Some(current) = &mut self.current {
            current.unanswered.get_or_insert(now);
            let stream = current.stream;
            self.write(stream, &Frame::SendPacket { to, bytes: &bytes });
        } else {
            if self.waiting.len() >= limits::RELAY_LINK_QUEUE {
                self.waiting.pop_front();
            }
            self.waiting.push_back((to, bytes));
        }
    }

    fn kick(&mut self, now: Time) {
        if !self.wanted {
            return;
        }
        self.backoff.reset();
        self.ping(limits::RELAY_PONG_AFTER_KICK, now);
        self.redial(now);
    }

    /// Dials from the first node on, whatever is under way.
    fn redial(&mut self, now: Time) {
        self.drop_attempt();
        self.renew = None;
        self.dial(0, now);
    }

    fn set_region(&mut self, region: RelayRegion, now: Time) {
        if region == self.config.region {
            return;
        }
        self.config.region = region;
        let attempt_is_stale = self.attempt.as_ref().is_some_and(|attempt| !self.region_has(&attempt.node));
        if self.wanted && (attempt_is_stale || self.current_is_stale() || self.retry.is_some()) {
            self.backoff.reset();
            self.redial(now);
        }
    }

    fn region_has(&self, node: &RelayNode) -> bool {
        self.config.region.relays().any(|other| other == node)
    }

    /// Whether the connection in use is to a relay that the map has no more.
    fn current_is_stale(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !self.region_has(&current.node))
    }

    fn frame(&mut self, stream: StreamId, frame: &Frame<'_>, now: Time) {
        match *frame {
            Frame::RecvPacket { from, bytes } => {
                self.out.event(LinkEvent::Packet { from, bytes: bytes.to_vec() });
            }
            // What a connection says that was replaced, the new one knows better.
            Frame::PeerGone { .. } | Frame::PeerPresent { .. }
                if self.config.mesh.is_some() && self.stream() != Some(stream) => {}
            Frame::PeerGone { peer, reason } => self.out.event(LinkEvent::PeerGone { peer, reason }),
            Frame::PeerPresent { peer, .. } if self.config.mesh.is_some() => {
                self.out.event(LinkEvent::PeerPresent { peer });
            }
            Frame::Health { problem } if self.stream() == Some(stream) => {
                self.out.event(LinkEvent::Health { problem: problem.to_owned() });
            }
            Frame::Ping(data) => self.write(stream, &Frame::Pong(data)),
            Frame::Restarting { reconnect_in, .. } if self.stream() == Some(stream) => {
                self.renew = Some(now + reconnect_in.min(limits::DRAIN_MAX));
                if self.config.region.relays().nth(1).is_none() {
                    self.out.event(LinkEvent::Leaving);
                }
            }
            _ => {}
        }
    }

    fn ping(&mut self, patience: Duration, now: Time) {
        let Some(current) = &mut self.current else { return };
        let due = now + patience;
        current.pong_due = Some(current.pong_due.map_or(due, |earlier| earlier.min(due)));
        let stream = current.stream;
        self.write(stream, &Frame::Ping(now.as_micros().to_be_bytes()));
    }

    fn heard(&mut self, now: Time) {
        if self.current.as_mut().is_some_and(|current| current.hear(now)) {
            self.out.event(LinkEvent::Silent { since: None });
        }
    }

    /// Asks a relay that does not answer, and calls it silent if that helps nothing.
    fn look_after(&mut self, now: Time) {
        let Some(current) = &mut self.current else { return };
        if current.pong_due.is_some_and(|due| now >= due) {
            let stream = current.stream;
            self.out.push(Output::Close { stream });
            self.lost("the relay does not answer any more", now);
        } else if current.silent_at().is_some_and(|at| now >= at) {
            current.silent = true;
            let since = current.wondering;
            self.out.event(LinkEvent::Silent { since });
        } else if current.pong_due.is_none() && now >= current.ping_at() {
            let wondering = current.unanswered.is_some();
            if wondering {
                current.wondering = Some(now);
                self.out.event(LinkEvent::Wondering);
            }
            self.ping(limits::RELAY_PONG, now);
        }
    }

    /// The connection in use is dead.
    fn lost(&mut self, why: &str, now: Time) {
        let Some(current) = self.current.take() else { return };
        if now.since(current.since) >= limits::RELAY_USEFUL {
            self.backoff.reset();
        }
        self.renew = None;
        self.tell_down(why, true);
        if self.attempt.is_none() {
            self.retry = Some(now + self.backoff.next());
        }
    }

    fn bytes(&mut self, stream: StreamId, bytes: &[u8], now: Time) {
        let Some(decoder) = self.decoder_of(stream) else { return };
        let mut decoder = core::mem::take(decoder);
        let mut frames = decoder.feed(bytes);
        let broken = loop {
            match frames.next() {
                Ok(Some(frame)) if self.is_login(stream) => self.login_frame(&frame, now),
                Ok(Some(frame)) => self.frame(stream, &frame, now),
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
            if self.decoder_of(stream).is_none() {
                return; // Given up meanwhile.
            }
        };
        drop(frames);
        if self.stream() == Some(stream) {
            self.heard(now);
        }
        match broken {
            Some(why) => {
                self.out.push(Output::Close { stream });
                self.stream_closed(stream, &why, now);
            }
            None => {
                if let Some(slot) = self.decoder_of(stream) {
                    *slot = decoder;
                }
            }
        }
    }

    fn is_login(&self, stream: StreamId) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.stage.stream() == Some(stream))
    }

    fn decoder_of(&mut self, stream: StreamId) -> Option<&mut Decoder> {
        if let Some(Attempt { stage: Stage::Login { stream: ours, decoder, .. }, .. }) = &mut self.attempt
            && *ours == stream
        {
            return Some(decoder);
        }
        match (&mut self.current, &mut self.old) {
            (Some(current), _) if current.stream == stream => Some(&mut current.decoder),
            (_, Some(old)) if old.stream == stream => Some(&mut old.decoder),
            _ => None,
        }
    }

    fn stream_closed(&mut self, stream: StreamId, why: &str, now: Time) {
        if self.is_login(stream) {
            if let Some(attempt) = &mut self.attempt {
                attempt.stage = Stage::Resolving; // It has no stream to close any more.
            }
            self.node_failed(why, now);
        } else if self.stream() == Some(stream) {
            self.lost(why, now);
        } else if self.old.as_ref().is_some_and(|old| old.stream == stream) {
            self.old = None;
        }
    }

    fn activity(&mut self, activity: Activity, now: Time) {
        let Some(current) = &mut self.current else { return };
        if activity.via == Via::Relay(self.config.region.id) {
            match activity.direction {
                Direction::Received => self.heard(now),
                Direction::Sent => _ = current.unanswered.get_or_insert(now),
            }
        }
    }

    fn due(&mut self, now: Time) {
        if let Some(attempt) = &self.attempt
            && now >= attempt.until
        {
            let why = match attempt.stage {
                Stage::Resolving => "the name could not be resolved in time",
                Stage::Opening { .. } => "the connection could not be made in time",
                Stage::Login { .. } => "the login was not answered in time",
            };
            self.node_failed(why, now);
        }
        if let Some(Old { stream, .. }) = self.old.take_if(|old| now >= old.until) {
            self.out.push(Output::Close { stream });
        }
        self.look_after(now);
        if self.renew.is_some_and(|at| now >= at) && self.attempt.is_none() {
            self.redial(now);
        }
        self.renew = self.renew.filter(|at| now < *at);
        if self.retry.is_some_and(|at| now >= at) {
            self.dial(0, now);
        }
    }
}

impl Machine for RelayLink {
    type Command = LinkCommand;
    type Event = LinkEvent;

    fn handle(&mut self, input: Input<'_, LinkCommand>, now: Time) {
        let now = self.clock.clamp(now);
        match input {
            Input::Command(command) => self.command(command, now),
            Input::StreamOpened { stream } => self.stream_opened(stream, now),
            Input::StreamBytes { stream, bytes } => self.bytes(stream, bytes, now),
            Input::StreamClosed { stream, why } => self.stream_closed(stream, why, now),
            Input::Resolved { name, addresses } => self.resolved(name, addresses, now),
            Input::Activity(activity) => self.activity(activity, now),
            _ => {}
        }
        self.due(now);
    }

    fn poll(&mut self) -> Option<Output<LinkEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        let attempt = self.attempt.as_ref().map(|attempt| (attempt.until, "relay link: attempt too slow"));
        let liveness = self.current.as_ref().map(|current| match current.pong_due {
            Some(due) => match current.silent_at().filter(|at| *at < due) {
                Some(at) => (at, "relay link: silent"),
                None => (due, "relay link: no pong"),
            },
            None => (current.ping_at(), "relay link: ping"),
        });
        let old = self.old.as_ref().map(|old| (old.until, "relay link: leave the old connection"));
        let retry = self.retry.map(|at| (at, "relay link: try again"));
        let renew = self.renew.map(|at| (at, "relay link: leave a restarting relay"));
        [attempt, liveness, old, retry, renew].into_iter().fold(None, earliest)
    }
}

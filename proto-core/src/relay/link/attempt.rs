//! From the wish for a connection to the login: one node of the region after the other.

use super::{Current, LinkEvent, Old, RelayLink};
use crate::id::StreamId;
use crate::key::SharedBox;
use crate::limits;
use crate::machine::Output;
use crate::relay::server::APP_NAME;
use crate::relay_map::RelayNode;
use crate::time::Time;
use crate::wire::derp::{ClientInfo, Decoder, Frame, ServerInfo};
use core::net::IpAddr;

/// An attempt to connect.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Which of the region's relays, in the map's order.
    index: usize,
    pub(super) node: RelayNode,
    pub(super) until: Time,
    pub(super) stage: Stage,
}

/// How far an attempt has got.
#[derive(Debug)]
pub(super) enum Stage {
    /// The node's name is being resolved.
    Resolving,
    /// The stream is being opened.
    Opening { stream: StreamId },
    /// The relay's words are awaited.
    Login { stream: StreamId, decoder: Decoder, shared: Option<SharedBox> },
}

impl Stage {
    pub(super) const fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Resolving => None,
            Self::Opening { stream } | Self::Login { stream, .. } => Some(*stream),
        }
    }
}

impl RelayLink {
    /// Tries the region's relays from this one on.
    pub(super) fn dial(&mut self, first: usize, now: Time) {
        self.retry = None;
        let mut why = "the region has no relay".to_owned();
        for index in first.. {
            let Some(node) = self.config.region.relays().nth(index).cloned() else { break };
            let name = node.name_to_resolve().map(str::to_owned);
            let known = name.as_ref().and_then(|name| self.names.get(name)).map_or(&[][..], Vec::as_slice);
            let addresses = node.addresses(known);
            if addresses.is_empty() && name.is_none() {
                why = format!("{}: the relay has no address that can be used", node.host);
                continue;
            }
            let until = now + limits::RESOLVE_TIMEOUT;
            self.attempt = Some(Attempt { index, node, until, stage: Stage::Resolving });
            // Asked even if addresses are known, so that the next attempt has fresh ones.
            if let Some(name) = name {
                self.out.push(Output::Resolve { name });
            }
            if !addresses.is_empty() {
                self.open(addresses, now);
            }
            return;
        }
        self.attempt_failed(&why, now);
    }

    fn open(&mut self, addresses: Vec<IpAddr>, now: Time) {
        let streams = &self.config.streams;
        let count = streams.end.saturating_sub(streams.start).max(1);
        let stream = StreamId(streams.start + self.opened % count);
        let Some(attempt) = &mut self.attempt else { return };
        self.opened += 1;
        attempt.until = now + limits::RELAY_OPEN_TIMEOUT;
        attempt.stage = Stage::Opening { stream };
        self.out.push(Output::Open { stream, target: attempt.node.stream_target(addresses) });
    }

    pub(super) fn resolved(&mut self, name: &str, addresses: &[IpAddr], now: Time) {
        let is_ours = self.config.region.relays().any(|node| node.name_to_resolve() == Some(name));
        if !is_ours {
            return;
        }
        let room = self.names.len() < limits::RELAY_NAMES_MAX || self.names.contains_key(name);
        if !addresses.is_empty() && room {
            let addresses = addresses.iter().copied().take(limits::ADDRESSES_MAX).collect();
            self.names.insert(name.to_owned(), addresses);
        }
        let Some(Attempt { node, stage: Stage::Resolving, .. }) = &self.attempt else { return };
        if node.name_to_resolve() != Some(name) {
            return;
        }
        let usable = node.addresses(addresses);
        if usable.is_empty() {
            self.node_failed(&format!("the name {name} could not be resolved"), now);
        } else {
            self.open(usable, now);
        }
    }

    pub(super) fn drop_attempt(&mut self) {
        if let Some(stream) = self.attempt.take().and_then(|attempt| attempt.stage.stream()) {
            self.out.push(Output::Close { stream });
        }
    }

    /// The attempt's node does not do: on to the next.
    pub(super) fn node_failed(&mut self, why: &str, now: Time) {
        let Some(attempt) = &self.attempt else { return };
        let next = attempt.index + 1;
        let why = format!("{}: {why}", attempt.node.host);
        self.drop_attempt();
        if self.config.region.relays().nth(next).is_some() {
            self.dial(next, now);
        } else {
            self.attempt_failed(&why, now);
        }
    }

    fn attempt_failed(&mut self, why: &str, now: Time) {
        self.drop_attempt();
        // With a connection in hand nothing is lost yet: should it be dead, its ping will tell. But one to a relay
        // that the map has no more must be left, as soon as another answers.
        if self.current.is_none() {
            self.retry = Some(now + self.backoff.next());
            self.tell_down(why, false);
        } else if self.current_is_stale() {
            self.retry = Some(now + self.backoff.next());
        }
    }

    pub(super) fn tell_down(&mut self, why: &str, was_up: bool) {
        if was_up || self.told_down.as_deref() != Some(why) {
            self.told_down = Some(why.to_owned());
            self.out.event(LinkEvent::Down { why: why.to_owned() });
        }
    }

    pub(super) fn stream_opened(&mut self, stream: StreamId, now: Time) {
        if let Some(attempt) = &mut self.attempt
            && matches!(attempt.stage, Stage::Opening { stream: ours } if ours == stream)
        {
            attempt.until = now + limits::RELAY_LOGIN_TIMEOUT;
            attempt.stage = Stage::Login { stream, decoder: Decoder::new(), shared: None };
        }
    }

    /// A frame during the login. The link is up with the relay's ServerInfo: only then does it know us.
    pub(super) fn login_frame(&mut self, frame: &Frame<'_>, now: Time) {
        let Some(Attempt { stage: Stage::Login { stream, shared, .. }, .. }) = &mut self.attempt else {
            return;
        };
        match (frame, shared) {
            (Frame::ServerKey { key }, None)
                if self.config.mesh.is_some() && *key == self.config.identity.public() =>
            {
                self.drop_attempt();
                self.wanted = false;
                self.out.event(LinkEvent::Itself);
            }
            (Frame::ServerKey { key }, shared @ None) => {
                let stream = *stream;
                *shared = Some(self.config.identity.shared(key));
                let (app_name, mesh_key) = (APP_NAME.to_owned(), self.config.mesh.clone());
                let info = ClientInfo { app_name, mesh_key, ..ClientInfo::default() };
                let mut bytes = Vec::new();
                info.emit(&self.config.identity, key, &mut self.rng, &mut bytes);
                self.out.push(Output::Write { stream, bytes });
            }
            (Frame::ServerInfo { sealed }, Some(shared)) => match ServerInfo::open(sealed, shared) {
                Ok(_) => self.logged_in(now),
                Err(error) => self.node_failed(&error.to_string(), now),
            },
            (Frame::Health { problem }, Some(_)) if !problem.is_empty() => {
                let told: String = problem.chars().take(limits::PROBLEM_MAX).collect();
                let why = format!("the relay refused this node: {told}");
                self.node_failed(&why, now);
            }
            (_, Some(_)) => {}
            (_, None) => self.node_failed("the relay did not begin with its key", now),
        }
    }

    fn logged_in(&mut self, now: Time) {
        let Some(Attempt { stage: Stage::Login { stream, .. }, node, .. }) = self.attempt.take() else {
            return;
        };
        // The decoder comes later: it is in use at this moment.
        let fresh = Current {
            stream,
            node,
            decoder: Decoder::new(),
            since: now,
            heard: now,
            unanswered: None,
            pong_due: None,
            wondering: None,
            silent: false,
        };
        if let Some(before) = self.current.replace(fresh) {
            let until = now + limits::RELAY_LINGER;
            let older = self.old.replace(Old { stream: before.stream, decoder: before.decoder, until });
            if let Some(Old { stream, .. }) = older {
                self.out.push(Output::Close { stream });
            }
        }
        self.told_down = None;
        self.renew = None;
        self.out.event(LinkEvent::Up { stream });
        if self.preferred {
            self.write(stream, &Frame::NotePreferred(true));
        }
        if self.config.mesh.is_some() {
            self.write(stream, &Frame::WatchConns);
        }
        for (to, bytes) in core::mem::take(&mut self.waiting) {
            self.send(to, bytes, now);
        }
    }
}

//! Port mappings: the router before us is asked to let everybody in to our socket, by PCP, NAT-PMP or UPnP.
//!
//! The machine decides when to ask, when to renew and when a mapping counts as lost; an adapter speaks with the
//! router. A mapping makes the hardest NAT an open one: of two symmetric NATs one mapping is enough.

use super::Report;
use super::classify::Scope;
use crate::id::LinkId;
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::time::{Duration, Monotone, Time};
use core::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// How a router is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// The Port Control Protocol (RFC 6887).
    Pcp,
    /// The NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP's Internet Gateway Device.
    Upnp,
}

/// Which protocols the router answers; none where it was not asked, or has not had time to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offers {
    /// PCP.
    pub pcp: Option<bool>,
    /// NAT-PMP.
    pub nat_pmp: Option<bool>,
    /// UPnP.
    pub upnp: Option<bool>,
}

/// A mapping that a router granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// By which protocol.
    pub protocol: Protocol,
    /// The router's address and port that lead to our socket.
    pub external: SocketAddrV4,
    /// The port of our socket.
    pub port: u16,
}

/// What is known of the router before us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Router {
    /// Whether it has been asked and all that it might answer is in.
    pub complete: bool,
    /// What it offers.
    pub offers: Offers,
    /// What it granted.
    pub mapped: Option<Mapped>,
}

impl Router {
    /// The address that peers reach us at through the mapping, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.mapped.map(|mapped| mapped.external.into())
    }

    /// As [`Router::address`], if everybody can reach it, as far as `report` tells: behind a second NAT only those
    /// between both can. Its addresses are not always private ones, so what servers saw has to agree.
    #[must_use]
    pub fn public(&self, report: &Report) -> Option<SocketAddr> {
        let global = |address: &SocketAddr| Scope::of(address.ip()) == Scope::Global;
        let mut seen =
            report.reflexive.iter().map(|r| r.address).filter(|a| a.is_ipv4() && global(a)).peekable();
        self.address()
            .filter(global)
            .filter(|mapped| seen.peek().is_none() || seen.any(|a| a.ip() == mapped.ip()))
    }
}

/// What a router said when it was asked for a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The mapping.
    pub mapped: Mapped,
    /// How long it lasts.
    pub lifetime: Duration,
}

/// What the machine is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortmapCommand {
    /// Whether mappings are wanted at all.
    Want(bool),
    /// The addresses of this host's interfaces; replaces what was said before.
    Interfaces(Vec<IpAddr>),
    /// The host's network changed: the router may be another one.
    NetworkChanged,
    /// A path broke: the mapping may be gone.
    Doubt,
    /// The adapter has something to say.
    Said(RouterWord),
}

/// What an adapter has to say of the router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouterWord {
    /// The answer to [`PortmapRequest::Ask`]: what was granted, if anything was.
    Answer(Option<Grant>),
    /// What the router offers; `true` if no more is to come of that.
    Offers(Offers, bool),
    /// It started anew, and forgot what it granted.
    Started,
}

/// What an adapter shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortmapRequest {
    /// Ask the router for a mapping to this UDP port of ours, or renew the one that there is. Answered by
    /// [`RouterWord::Answer`], and where nothing was held, by [`RouterWord::Offers`].
    Ask {
        /// The port.
        port: u16,
    },
    /// Give back what is held. No answer follows.
    Release,
}

/// What the machine tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortmapEvent {
    /// Something for the adapter.
    Request(PortmapRequest),
    /// What is known of the router has changed.
    Router(Router),
}

/// The port mapping of a node: one, of its IPv4 socket.
#[derive(Debug)]
pub struct Portmap {
    clock: Monotone,
    wanted: bool,
    /// Whether anybody has said yet if mappings are wanted.
    decided: bool,
    links: BTreeMap<LinkId, u16>,
    /// Whether a NAT may be before us: with a public address of our own, nobody needs to map anything.
    inside: bool,
    /// Since when an answer is waited for.
    asking: Option<Time>,
    /// Whether the adapter may hold something: it was asked, and nothing has been given back since.
    owing: bool,
    /// When the router was last asked.
    asked: Option<Time>,
    /// When to ask next.
    next: Option<Time>,
    /// Until when the mapping lasts.
    until: Time,
    /// Failures to renew it, or to get one, in a row.
    failures: u32,
    router: Router,
    told: Router,
    out: Outbox<PortmapEvent>,
}

impl Portmap {
    /// One that waits to be wanted.
    #[must_use]
    pub fn new(now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self {
            clock,
            wanted: false,
            decided: false,
            links: BTreeMap::new(),
            inside: false,
            asking: None,
            owing: false,
            asked: None,
            next: None,
            until: now,
            failures: 0,
            router: Router::default(),
            told: Router::default(),
            out: Outbox::default(),
        }
    }

    /// What is known of the router.
    #[must_use]
    pub const fn router(&self) -> &Router {
        &self.router
    }

    /// The port to map: that of the first IPv4 socket.
    fn port(&self) -> Option<u16> {
        self.links.values().next().copied().filter(|_| self.wanted && self.inside)
    }

    fn command(&mut self, command: PortmapCommand, now: Time) {
        match command {
            PortmapCommand::Want(wanted) => {
                self.wanted = wanted;
                self.decided = true;
                self.hurry(now);
            }
            PortmapCommand::Interfaces(all) => {
                let v4 = |scope: Scope| all.iter().any(|a| a.is_ipv4() && Scope::of(*a) == scope);
                self.inside = v4(Scope::Private) && !v4(Scope::Global);
                self.hurry(now);
            }
            PortmapCommand::NetworkChanged => {
                // Another router knows nothing of what the last one granted: one failure tells.
                self.failures = limits::PORTMAP_TRIES - 1;
                self.router.complete = false;
                self.hurry(now);
            }
            PortmapCommand::Doubt if self.router.mapped.is_none() => {}
            PortmapCommand::Doubt | PortmapCommand::Said(RouterWord::Started) => self.hurry(now),
            PortmapCommand::Said(RouterWord::Answer(grant)) => self.answer(grant, now),
            PortmapCommand::Said(RouterWord::Offers(offers, complete)) => {
                self.router.offers = offers;
                self.router.complete |= complete;
            }
        }
    }

    /// Asks soon, but never twice in a moment: what doubts, often doubts again at once.
    fn hurry(&mut self, now: Time) {
        self.ask_at(self.asked.map_or(now, |at| (at + limits::PORTMAP_GAP).max(now)));
    }

    fn answer(&mut self, grant: Option<Grant>, now: Time) {
        if self.asking.is_none() || grant.is_some_and(|grant| Some(grant.mapped.port) != self.port()) {
            // An answer to an older question.
            return;
        }
        self.asking = None;
        if let Some(grant) = grant.filter(|grant| leads_somewhere(grant.mapped.external)) {
            self.failures = 0;
            let (least, most) = limits::PORTMAP_LIFETIMES;
            let lifetime = grant.lifetime.clamp(least, most);
            self.until = now + lifetime;
            self.router.mapped = Some(grant.mapped);
            return self.ask_at(now + lifetime / 2);
        }
        self.failures = self.failures.saturating_add(1);
        let kept = self.router.mapped.is_some() && self.failures < limits::PORTMAP_TRIES && now < self.until;
        if !kept {
            self.router.mapped = None;
        }
        self.ask_at(now + if kept { limits::PORTMAP_AGAIN } else { limits::PORTMAP_RETRY });
    }

    /// Asks then, if nothing that happened during the question just answered calls for it earlier.
    fn ask_at(&mut self, at: Time) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Gives back what is held, or what may have been granted to a question under way.
    fn release(&mut self) {
        self.asking = None;
        if core::mem::take(&mut self.owing) {
            self.out.event(PortmapEvent::Request(PortmapRequest::Release));
        }
        // Whoever needs no mapping knows all there is to know.
        self.router = Router { complete: self.decided, ..Router::default() };
        self.next = None;
        self.failures = 0;
    }

    fn advance(&mut self, now: Time) {
        let Some(port) = self.port() else { return self.release() };
        if self.router.mapped.is_some_and(|mapped| mapped.port != port) {
            // Our socket is another one now, and the mapping leads nowhere.
            self.router.mapped = None;
            self.hurry(now);
        }
        if self.asking.is_some_and(|since| since + limits::PORTMAP_PATIENCE <= now) {
            self.router.complete = true;
            self.answer(None, now);
        }
        if self.asking.is_none() && self.next.is_some_and(|at| at <= now) {
            self.next = None;
            self.asking = Some(now);
            self.asked = Some(now);
            self.owing = true;
            self.out.event(PortmapEvent::Request(PortmapRequest::Ask { port }));
        }
    }
}

/// Whether packets can be sent to the address that a router names. One that has no connection says `0.0.0.0`, and a
/// hostile one what it likes.
fn leads_somewhere(external: SocketAddrV4) -> bool {
    let ip = external.ip();
    let nowhere = ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast();
    external.port() != 0 && !nowhere && Scope::of((*ip).into()) >= Scope::Private
}

impl Machine for Portmap {
    type Command = PortmapCommand;
    type Event = PortmapEvent;

    fn handle(&mut self, input: Input<'_, PortmapCommand>, now: Time) {
        let now = self.clock.clamp(now);
        match input {
            Input::LinkUp { link, address } if address.is_ipv4() && address.port() != 0 => {
                let room = self.links.len() < limits::LINKS_MAX || self.links.contains_key(&link);
                let news = room && self.links.insert(link, address.port()) != Some(address.port());
                if news {
                    self.hurry(now);
                }
            }
            Input::LinkDown { link } => _ = self.links.remove(&link),
            Input::Command(command) => self.command(command, now),
            _ => {}
        }
        self.advance(now);
        if self.router != self.told {
            self.told = self.router;
            self.out.event(PortmapEvent::Router(self.router));
        }
    }

    fn poll(&mut self) -> Option<Output<PortmapEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        self.port()?;
        match self.asking {
            Some(since) => Some((since + limits::PORTMAP_PATIENCE, "the router's answer")),
            None => self.next.map(|at| (at, "port mapping")),
        }
    }
}

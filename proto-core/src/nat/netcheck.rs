//! The netcheck: asks STUN servers from the node's own sockets, so that the addresses learned are the ones
//! that peers reach, and chooses the home relay.
//!
//! A home is there at once: the first usable region of the map, before anything is measured, so that relaying
//! begins without waiting. The first measurement may move it freely, later ones only for a clear gain.

use super::classify::{self, Mapping, Observation, Scope};
use super::home::Latencies;
use super::plan::{self, Family, Reach, StunRegion, StunServer};
use super::{Filtering, Reflexive, RegionLatency, Report};
use crate::id::{LinkId, RegionId};
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::relay_map::{AddressSource, RelayMap, RelayNode, RelayRegion};
use crate::seed::{Rng, Seed};
use crate::time::{Duration, Monotone, Time, earliest};
use crate::wire::stun::{self, StunError, TransactionId};
use core::cmp::Reverse;
use core::net::{IpAddr, SocketAddr};
use filtering::{Found, NatProbe, Question};
use homes::Homes;
use run::{Due, Run, Sent};
use std::collections::BTreeMap;

mod filtering;
mod homes;
mod run;
#[cfg(test)]
mod tests;

/// What a netcheck is told.
#[derive(Clone, PartialEq, Debug)]
pub enum NetcheckCommand {
    /// The relay map; replaces the one said before.
    Map(RelayMap),
    /// The region that somebody chose as home, if anybody did: home while it can be reached. Say it before the map
    /// that has it.
    Choose(Option<RegionId>),
    /// The addresses of this host's interfaces; replaces what was said before.
    Interfaces(Vec<IpAddr>),
    /// Whether there are peers: the check is then repeated, which also keeps the NAT's mapping alive.
    Active(bool),
    /// Whether the coordinator hears us: without it a home stays, since peers could not learn of a move.
    Controlled(bool),
    /// A region's relay can be used (or not any more).
    Relay {
        /// The region.
        region: RegionId,
        /// Whether it can be used.
        up: bool,
    },
    /// A region's relay is about to stop: if it is the home, another becomes it as soon as one is up.
    Leaving(RegionId),
    /// A region's relay does not answer, while another one does; or it is heard again.
    Silent {
        /// Which.
        region: RegionId,
        /// Whether it is silent.
        silent: bool,
    },
    /// A region's relay said something.
    Heard(RegionId),
    /// Check every region now.
    Check,
    /// The network is another one: forget what was learned, and check every region now.
    NetworkChanged,
}

/// What a netcheck tells: a report, whenever a run ends, and earlier if something urgent is known.
pub type NetcheckEvent = Report;

/// The netcheck of a node.
#[derive(Debug)]
pub struct Netcheck {
    clock: Monotone,
    rng: Rng,
    regions: Vec<StunRegion>,
    links: BTreeMap<LinkId, SocketAddr>,
    interfaces: Vec<IpAddr>,
    /// The last good addresses of servers that the map gives by name.
    names: BTreeMap<String, Vec<IpAddr>>,
    active: bool,
    run: Option<Run>,
    nat: Probing,
    /// When asking about the NAT came to nothing at all, and how often it did on this network.
    deaf: Option<(Time, u32)>,
    last_full: Option<Time>,
    last_run: Option<Time>,
    failures: u32,
    next: Option<Time>,
    known: BTreeMap<(LinkId, SocketAddr), Known>,
    homes: Homes,
    report: Report,
    out: Outbox<NetcheckEvent>,
}

/// Whether the NAT has been asked about on this network.
#[derive(Debug)]
enum Probing {
    NotYet,
    Now(Box<NatProbe>, Vec<Observation>),
    Done,
}

/// What is known of a reflexive address.
#[derive(Clone, Copy, Debug)]
struct Known {
    at: Time,
    seen: u32,
}

impl Netcheck {
    /// A netcheck that waits for a map and sockets.
    #[must_use]
    pub fn new(seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self {
            clock,
            rng: seed.rng(),
            regions: Vec::new(),
            links: BTreeMap::new(),
            interfaces: Vec::new(),
            names: BTreeMap::new(),
            active: false,
            run: None,
            nat: Probing::NotYet,
            deaf: None,
            last_full: None,
            last_run: None,
            failures: 0,
            next: None,
            known: BTreeMap::new(),
            homes: Homes::default(),
            report: Report::default(),
            out: Outbox::default(),
        }
    }

    /// The latest report.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Whether answers are awaited.
    #[must_use]
    pub const fn is_measuring(&self) -> bool {
        self.run.is_some()
    }

    fn command(&mut self, command: NetcheckCommand, now: Time) {
        match command {
            NetcheckCommand::Map(map) => self.set_map(&map, now),
            NetcheckCommand::Choose(region) => self.homes.choose(region, now),
            NetcheckCommand::Interfaces(mut all) => {
                all.truncate(limits::INTERFACES_MAX);
                if self.interfaces != all {
                    self.interfaces = all;
                    self.begin(true, now);
                }
            }
            NetcheckCommand::Active(active) => self.set_active(active, now),
            NetcheckCommand::Controlled(controlled) => self.homes.controlled(controlled),
            NetcheckCommand::Relay { region, up } => {
                self.homes.relay(region, up, now);
                if !up && self.homes.current() == Some(region) && self.active {
                    let soonest = self.last_run.map_or(now, |at| (at + limits::NETCHECK_GAP).max(now));
                    self.next = Some(self.next.map_or(soonest, |next| next.min(soonest)));
                }
            }
            NetcheckCommand::Silent { region, silent } => self.homes.silent(region, silent, now),
            NetcheckCommand::Leaving(region) => self.homes.leaving(region, now),
            NetcheckCommand::Heard(region) => self.homes.heard(region, now),
            NetcheckCommand::Check => {
                if self.run.as_ref().is_some_and(|run| run.full) {
                    return;
                }
                self.begin(true, now);
                if self.run.is_none() {
                    self.tell(now);
                }
            }
            NetcheckCommand::NetworkChanged => {
                self.known.clear();
                self.report.complete = false;
                self.report.latencies.clear();
                self.forget_nat();
                self.homes.network_changed(now);
                self.begin(true, now);
            }
        }
    }

    fn set_map(&mut self, map: &RelayMap, now: Time) {
        let regions: Vec<_> =
            map.regions.values().filter_map(stun_region).take(limits::STUN_REGIONS_MAX).collect();
        self.homes.set_map(map, now);
        self.report.latencies.retain(|region, _| map.regions.contains_key(region));
        self.tell(now);
        if self.regions == regions {
            return;
        }
        self.names.retain(|name, _| regions.iter().any(|r| r.servers.iter().any(|s| s.host == *name)));
        self.regions = regions;
        self.begin(true, now);
    }

    fn set_active(&mut self, active: bool, now: Time) {
        if self.active == active {
            return;
        }
        self.active = active;
        if !active {
            self.next = None;
        } else if self.run.is_none() {
            let due = self.last_run.map(|at| at + limits::NETCHECK_PAUSE.0);
            self.next = Some(due.unwrap_or(now).max(now));
        }
    }

    /// Begins a run, dropping one under way. Without anything to ask there is none, until a map or a socket
    /// comes.
    fn begin(&mut self, full: bool, now: Time) {
        let full = full || self.full_due(now);
        let have = |family: Family| {
            self.links.values().any(|l| Family::of(l.ip()) == family) && has_family(&self.interfaces, family)
        };
        let last = |pick: fn(&RegionLatency) -> Option<Duration>| -> Latencies {
            self.report.latencies.iter().filter_map(|(r, l)| Some((*r, pick(l)?))).collect()
        };
        let known = plan::Known {
            regions: &self.regions,
            have_v4: have(Family::V4),
            have_v6: have(Family::V6),
            last_v4: &last(|l| l.v4),
            last_v6: &last(|l| l.v6),
            home: self.homes.current(),
        };
        let plan = if full { known.full() } else { known.incremental() };
        self.next = None;
        self.run = (!plan.is_empty() && !self.links.is_empty()).then(|| Run::new(plan, full, now));
    }

    fn full_due(&self, now: Time) -> bool {
        self.failures > 0
            || self.asks_again(now)
            || self.last_full.is_none_or(|at| now.since(at) >= limits::NETCHECK_FULL)
    }

    /// Whether the NAT is to be asked about once more, since the first time came to nothing: once it has forgotten
    /// whom it was asked about.
    fn asks_again(&self, now: Time) -> bool {
        let rested = |(at, _): (Time, u32)| now.since(at) >= limits::NAT_ASKED_AGAIN;
        matches!(self.nat, Probing::NotYet) && self.deaf.is_some_and(rested)
    }

    fn advance(&mut self, now: Time) {
        if self.run.is_none() && self.next.is_some_and(|next| next <= now) {
            self.begin(false, now);
        }
        while let Some(run) = &mut self.run {
            if run.over(now) {
                self.finish(now);
                break;
            }
            let Some(due) = run.due(self.report.mapping != Mapping::Unknown, now) else { break };
            self.ask(due, now);
        }
        self.probe_nat(now);
        self.homes.tick(&best(&self.report.latencies), now);
        if self.homes.current() != self.report.home {
            self.tell(now);
        }
    }

    /// Sends the request that is due from every socket of its family, or asks for the server's address first.
    fn ask(&mut self, due: Due, now: Time) {
        let Some(run) = &mut self.run else { return };
        let Some(region) = self.regions.iter().find(|r| r.id == due.region) else { return };
        let Some(server) = region.servers.get(due.server % region.servers.len().max(1)) else { return };
        let address = match server.reach(due.family) {
            Reach::Off => return,
            Reach::At(address) => Some(address),
            Reach::Name => {
                // A run refreshes what it uses, but never waits while an older answer is known.
                if run.asked.insert(server.host.clone()) {
                    self.out.push(Output::Resolve { name: server.host.clone() });
                }
                let known = self.names.get(&server.host);
                known.and_then(|all| all.iter().find(|a| Family::of(**a) == due.family).copied())
            }
        };
        let Some(address) = address else {
            if !run.unresolved.contains(&due) {
                run.unresolved.push(due);
            }
            return;
        };
        let to = SocketAddr::new(address, server.port);
        for (link, bound) in &self.links {
            if Family::of(bound.ip()) == due.family {
                let tx = TransactionId::generate(&mut self.rng);
                run.sent(tx, Sent { region: due.region, link: *link, server: to, at: now });
                self.out.transmit(*link, to, stun::request(tx).to_vec());
            }
        }
    }

    fn resolved(&mut self, name: &str, addresses: &[IpAddr], now: Time) {
        let ours = |s: &StunServer| s.host == name && (s.v4 == Reach::Name || s.v6 == Reach::Name);
        if addresses.is_empty() || !self.regions.iter().any(|r| r.servers.iter().any(ours)) {
            return;
        }
        let addresses = addresses.iter().take(limits::STUN_ADDRESSES_MAX).copied().collect();
        self.names.insert(name.to_owned(), addresses);
        let Some(run) = &mut self.run else { return };
        // Those of other names find no address still and wait on.
        for due in core::mem::take(&mut run.unresolved) {
            self.ask(due, now);
        }
    }

    fn answer(&mut self, from: SocketAddr, bytes: &[u8], now: Time) {
        let response = stun::Response::parse(bytes);
        if let Probing::Now(probe, _) = &mut self.nat
            && let Some(tx) = stun::Packet::new_checked(bytes).ok().map(|packet| packet.transaction())
            && matches!(response, Ok(_) | Err(StunError::Refused(_)))
            && probe.answer(&tx, from, response.as_ref().ok().map(|r| r.mapped))
        {
            return;
        }
        let (Some(run), Ok(response)) = (&mut self.run, response) else { return };
        let Some(sent) = run.answer(&response.transaction, response.mapped, now) else { return };
        run.offered(&sent, response.mapped, stun::Places::parse(bytes), now);
        let news = !self.known.keys().any(|key| kin(key, &(sent.link, response.mapped)));
        if news && self.known.len() < limits::REFLEXIVE_MAX {
            // The first address of its kind is worth telling before the run is over: peers wait for it.
            self.known.insert((sent.link, response.mapped), Known { at: now, seen: 1 });
            self.report.udp = Some(true);
            self.tell(now);
        }
    }

    fn finish(&mut self, now: Time) {
        let Some(run) = self.run.take() else { return };
        self.last_run = Some(now);
        if run.full {
            self.last_full = Some(now);
        }
        if !run.seen.is_empty() {
            self.failures = 0;
            self.report.udp = Some(true);
            self.remember(&run, now);
        } else if run.asked_anything() {
            self.failures = self.failures.saturating_add(1);
            self.report.udp = Some(false);
        }
        self.report.complete = true;
        self.begin_probe(&run, now);
        self.homes.measured(&run.sample(), run.started, now);
        self.schedule(now);
        self.tell(now);
    }

    /// Asks about the NAT, once a network, if a server offered to help.
    fn begin_probe(&mut self, run: &Run, now: Time) {
        let (Probing::NotYet, true, Some(mut offer)) = (&self.nat, run.full, run.offer()) else { return };
        if self.deaf.is_some() && !self.asks_again(now) {
            return;
        }
        let bound = self.links.get(&offer.seen.link).map(SocketAddr::port);
        offer.preserved = bound == Some(offer.seen.mapped.port());
        let finely = matches!(self.report.mapping, Mapping::Varies | Mapping::Unknown);
        let probe = NatProbe::new(offer, finely, now);
        self.nat = Probing::Now(Box::new(probe), run.seen.clone());
        self.report.probing = true;
    }

    /// Asks what is due about the NAT, and tells when all is known.
    fn probe_nat(&mut self, now: Time) {
        let Probing::Now(probe, seen) = &mut self.nat else { return };
        for ask in probe.due(now) {
            let tx = TransactionId::generate(&mut self.rng);
            probe.sent(tx, ask.question);
            let bytes = match ask.question {
                Question::Answer(change) => stun::request_changed(tx, change).to_vec(),
                Question::Seen => stun::request(tx).to_vec(),
            };
            self.out.transmit(ask.link, ask.to, bytes);
        }
        let Some(Found { filtering, seen: more, deaf }) = probe.found() else { return };
        let times = self.deaf.map_or(0, |(_, times)| times);
        if deaf && times < limits::NAT_ASKED_MOST {
            self.nat = Probing::NotYet;
            self.deaf = Some((now, times + 1));
            self.report.probing = false;
            return self.tell(now);
        }
        let mut seen = core::mem::take(seen);
        seen.extend(more);
        self.nat = Probing::Done;
        self.report.filtering = filtering;
        self.report.probing = false;
        self.learn_mapping(&seen);
        self.tell(now);
    }

    /// What was known of a socket is so no more.
    fn forget_link(&mut self, link: LinkId) {
        self.known.retain(|(l, _), _| *l != link);
        if matches!(&self.nat, Probing::Now(probe, _) if probe.link() == link) {
            self.nat = Probing::NotYet;
            self.report.probing = false;
        }
    }

    /// What was known of the NAT is so no more.
    fn forget_nat(&mut self) {
        self.nat = Probing::NotYet;
        self.deaf = None;
        let report = &mut self.report;
        (report.mapping, report.filtering) = (Mapping::Unknown, Filtering::Unknown);
        (report.dependence, report.allocation, report.probing) = (None, None, false);
    }

    fn remember(&mut self, run: &Run, now: Time) {
        if run.full {
            self.report.latencies.clear();
        }
        for (region, latency) in &run.latencies[0] {
            self.report.latencies.entry(*region).or_default().v4 = Some(*latency);
        }
        for (region, latency) in &run.latencies[1] {
            self.report.latencies.entry(*region).or_default().v6 = Some(*latency);
        }
        self.learn_mapping(&run.seen);
        let far = |o: &&Observation| o.mapped.is_ipv4() && Scope::of(o.mapped.ip()) == Scope::Global;
        let mut stun: Vec<SocketAddr> = Vec::new();
        for o in run.seen.iter().filter(far) {
            if stun.len() < limits::GUESS_MEASURE && !stun.contains(&o.server) {
                stun.push(o.server);
            }
        }
        if !stun.is_empty() {
            self.report.stun = stun;
        }
        let mut seen: BTreeMap<(LinkId, SocketAddr), (u32, Reverse<usize>)> = BTreeMap::new();
        for (i, o) in run.seen.iter().enumerate() {
            seen.entry((o.link, o.mapped)).or_insert((0, Reverse(i))).0 += 1;
        }
        for (key, rank) in &seen {
            let best = seen.iter().all(|(other, its)| !kin(other, key) || its <= rank);
            if best && self.report.mapping != Mapping::Varies {
                // One mapping serves all, so an earlier one is dead: the NAT restarted.
                self.known.retain(|other, _| !kin(other, key) || other == key);
            }
            if best || rank.0 > 1 {
                self.known.insert(*key, Known { at: now, seen: rank.0 });
            }
        }
    }

    /// What servers saw tells how the NAT maps, unless they were too few.
    fn learn_mapping(&mut self, seen: &[Observation]) {
        let mapping = classify::mapping(seen, &self.interfaces);
        if mapping == Mapping::Unknown {
            return;
        }
        let report = &mut self.report;
        report.mapping = mapping;
        if mapping == Mapping::Varies {
            report.dependence = classify::dependence(seen).or(report.dependence);
        } else {
            report.dependence = None;
        }
        report.allocation = match self.links.iter().find(|(_, bound)| bound.is_ipv4()) {
            Some((link, bound)) if mapping != Mapping::None => {
                let of_it = |o: &&Observation| o.link == *link && Scope::of(o.mapped.ip()) > Scope::Host;
                let seen: Vec<_> = seen.iter().filter(of_it).copied().collect();
                classify::allocation(&seen, bound.port()).or(report.allocation)
            }
            _ => None,
        };
    }

    fn schedule(&mut self, now: Time) {
        let (least, most) = limits::NETCHECK_PAUSE;
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let pause = Duration::from_micros(self.rng.range(micros(least)..micros(most)));
        self.next = if self.failures > 0 && (self.active || self.failures <= limits::NETCHECK_IDLE_RETRIES) {
            let doubled = limits::NETCHECK_RETRY * (1 << (self.failures - 1).min(8));
            Some(now + doubled.min(pause))
        } else {
            self.active.then_some(now + pause)
        };
    }

    /// Tells the owner what is known.
    fn tell(&mut self, now: Time) {
        self.known.retain(|(link, _), known| {
            self.links.contains_key(link) && now.since(known.at) <= limits::REFLEXIVE_AGE
        });
        while self.known.len() > limits::REFLEXIVE_MAX {
            let oldest = self.known.iter().min_by_key(|(key, known)| (known.at, **key)).map(|(key, _)| *key);
            oldest.map(|key| self.known.remove(&key));
        }
        let mut reflexive: Vec<_> = self.known.iter().collect();
        reflexive.sort_by_key(|(key, known)| (Reverse((known.at, known.seen)), **key));
        let report = &mut self.report;
        report.at = now;
        report.reflexive = reflexive
            .into_iter()
            .map(|((link, address), known)| Reflexive { link: *link, address: *address, seen: known.seen })
            .collect();
        report.ipv4 = report.reflexive.iter().any(|r| r.address.is_ipv4());
        report.ipv6 = report.reflexive.iter().any(|r| r.address.is_ipv6());
        report.home = self.homes.current();
        report.warm = self.homes.warm(&best(&report.latencies), now);
        report.interfaces.clone_from(&self.interfaces);
        self.out.event(report.clone());
    }
}

impl Machine for Netcheck {
    type Command = NetcheckCommand;
    type Event = NetcheckEvent;

    fn handle(&mut self, input: Input<'_, NetcheckCommand>, now: Time) {
        let now = self.clock.clamp(now);
        match input {
            Input::Datagram { from, bytes, .. } => self.answer(from, bytes, now),
            Input::Resolved { name, addresses } => self.resolved(name, addresses, now),
            Input::LinkUp { link, address } => {
                let room = self.links.len() < limits::STUN_LINKS_MAX || self.links.contains_key(&link);
                if room && self.links.insert(link, address) != Some(address) {
                    self.forget_link(link);
                    self.begin(true, now);
                }
            }
            Input::LinkDown { link } => {
                if self.links.remove(&link).is_some() {
                    self.forget_link(link);
                    self.begin(true, now);
                }
            }
            Input::Command(command) => self.command(command, now),
            Input::StreamOpened { .. }
            | Input::StreamBytes { .. }
            | Input::StreamWritable { .. }
            | Input::StreamClosed { .. }
            | Input::Activity(_)
            | Input::Unreachable { .. }
            | Input::Deadline => {}
        }
        self.advance(now);
    }

    fn poll(&mut self) -> Option<Output<NetcheckEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        let run = self.run.as_ref().map(Run::deadline).or(self.next.map(|at| (at, "netcheck")));
        let home = self.homes.due().map(|at| (at, "home relay is away"));
        let nat = match &self.nat {
            Probing::Now(probe, _) => Some(probe.deadline()),
            Probing::NotYet | Probing::Done => None,
        };
        earliest(earliest(run, nat), home)
    }
}

/// Whether two addresses could be the same mapping, told at different times.
fn kin(a: &(LinkId, SocketAddr), b: &(LinkId, SocketAddr)) -> bool {
    a.0 == b.0 && a.1.is_ipv4() == b.1.is_ipv4() && Scope::of(a.1.ip()) == Scope::of(b.1.ip())
}

/// Whether an interface has an address of this family that leads beyond this host and its link. Interfaces
/// not told are believed to have all; a host of loopback alone has what loopback has.
fn has_family(interfaces: &[IpAddr], family: Family) -> bool {
    let beyond = |a: &IpAddr| Scope::of(*a) > Scope::Link;
    let mut of_family = interfaces.iter().filter(|a| Family::of(**a) == family).peekable();
    let island = !interfaces.iter().any(beyond);
    interfaces.is_empty() || (island && of_family.peek().is_some()) || of_family.any(beyond)
}

fn best(latencies: &BTreeMap<RegionId, RegionLatency>) -> Latencies {
    latencies.iter().filter_map(|(region, latency)| Some((*region, latency.best()?))).collect()
}

fn stun_region(region: &RelayRegion) -> Option<StunRegion> {
    let servers: Vec<_> =
        region.stun_nodes().filter_map(stun_server).take(limits::STUN_SERVERS_MAX).collect();
    let usable = region.measurable() && !servers.is_empty();
    usable.then_some(StunRegion { id: region.id, avoid: region.avoid, servers })
}

fn stun_server(node: &RelayNode) -> Option<StunServer> {
    fn reach<T: Into<IpAddr>>(source: AddressSource<T>) -> Reach {
        match source {
            AddressSource::Literal(address) => Reach::At(address.into()),
            AddressSource::Resolve => Reach::Name,
            AddressSource::Off => Reach::Off,
        }
    }
    let (mut v4, mut v6) = (reach(node.ipv4()), reach(node.ipv6()));
    let instead = node.stun_address_override();
    if let Some(address) = instead {
        (v4, v6) = match Family::of(address) {
            Family::V4 => (Reach::At(address), Reach::Off),
            Family::V6 => (Reach::Off, Reach::At(address)),
        };
    }
    let here = |reach: Reach| matches!(reach, Reach::At(a) if a.is_loopback());
    let always = instead.is_some() || here(v4) || here(v6);
    Some(StunServer { v4, v6, host: node.host.clone(), port: node.stun_port()?, always })
}

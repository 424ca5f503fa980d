//! The plan's steps, done to a world.

use super::queue::Event;
use super::{Process, World};
use crate::netem::{LinkCounters, LinkProfile};
use crate::step::{Role, Step};
use crate::topology::{Fate, HostId, Network, Place, v4};
use proto_core::id::NodeId;
use proto_core::node::NodeCommand;
use proto_core::time::{Duration, Time};
use std::net::SocketAddr;

use super::map_of;
use super::node::AGENT;
use super::server::Server;
use crate::trace::Happening;

/// Where a scan's packets come from.
const SCANNER_PORT: u16 = 9;
/// What is in them: nothing that anybody knows.
const JUNK: [u8; 40] = [0xee; 40];

impl World {
    pub(super) fn step(&mut self, n: usize) {
        // The number of no step stands for the tunnel that is asked for later than at the start.
        let step = self.scenario.steps.get(n).map_or(Step::OpenTunnel, |(_, step)| step.clone());
        self.trace.note(self.now, Happening::Step, [n as u64, 0, 0, 0], || format!("{step:?}"));
        match step {
            Step::Cut { who, up, down } => self.cut(who, up, down),
            Step::Partition { from, to, on } => self.partition(from, to, on),
            Step::Unroute { who, to, on } => self.unroute(who, to, on),
            Step::RebootNat(who) => {
                let nat = self.host(who).and_then(|id| self.net.nearest_nat(id));
                if let Some(nat) = nat {
                    self.bite("nat reboot", self.net.nat_of(nat).mappings() as u64);
                    self.net.nat_mut(nat).reboot(None);
                }
            }
            Step::Link(who, profile) => self.behave(who, profile),
            Step::Readdress(who) => self.readdress(who),
            Step::ClockJump(who, ahead) => self.jump(who, ahead),
            Step::Restart(who) => self.restart(who),
            Step::Stop(who) => self.stop(who),
            Step::PowerOff(who) => self.power_off(who),
            Step::PowerOn(who) => self.power_on(who),
            Step::Roam(who, network, dead) => self.roam(who, network, dead),
            Step::CloseTunnel => self.command(Role::Client, NodeCommand::CloseTunnel(NodeId(AGENT.into()))),
            Step::OpenTunnel => self.command(Role::Client, NodeCommand::OpenTunnel(NodeId(AGENT.into()))),
            Step::Scan => self.scan(),
            Step::Drain(who) => {
                let told = self.server(who, |server, now| server.drain_relay(now));
                self.bite("drain", told.unwrap_or(0));
            }
            Step::Map(relays) => self.change_map(relays),
            Step::Withdraw => {
                self.server(Role::Server, |server, now| server.withdraw(&NodeId(AGENT.into()), now));
            }
        }
    }

    /// Does something to a server.
    fn server<R>(&mut self, who: Role, act: impl FnOnce(&mut Server, Time) -> R) -> Option<R> {
        let id = self.host(who)?;
        let Process::Server(server) = &mut self.hosts[id.0].process else { return None };
        let result = act(server, self.now);
        self.drive(id);
        Some(result)
    }

    fn change_map(&mut self, relays: &'static [Role]) {
        let dropped = self.scenario.relays.iter().filter(|relay| !relays.contains(relay)).copied();
        for relay in dropped.collect::<Vec<_>>() {
            let carried = self.server(relay, |server, _| server.relay().counters().packets_out);
            self.bite(map_without(relay), carried.unwrap_or(0));
        }
        self.scenario.relays = relays;
        self.map = map_of(relays, self.scenario.mesh);
        let map = self.map.clone();
        self.server(Role::Server, |server, now| server.set_map(map, now));
    }

    fn scan(&mut self) {
        let Some(server) = self.host(Role::Server) else { return };
        let Some(known) = self.net.address(server) else { return };
        let sources = [known, v4(192, 0, 2, 1)].map(|address| SocketAddr::new(address, SCANNER_PORT));
        let mut open = Vec::new();
        for role in [Role::Client, Role::Agent] {
            let outermost = self.host(role).and_then(|id| self.net.nats_of(id).last().copied());
            if let Some(nat) = outermost.map(|id| self.net.nat_of(id)) {
                open.extend(nat.udp_ports().map(|port| SocketAddr::new(nat.outside(), port)));
            }
        }
        for (dst, src) in open.into_iter().flat_map(|dst| sources.map(|src| (dst, src))) {
            self.send(server, (src, dst), &JUNK, None);
        }
        self.launch();
    }

    fn host(&self, role: Role) -> Option<HostId> {
        self.roles.get(&role).copied()
    }

    fn cut(&mut self, who: Role, cut_up: bool, cut_down: bool) {
        let Some(port) = self.host(who).and_then(|id| self.net.edge(id)) else { return };
        let (up, down) = self.net.links(port);
        up.cut(cut_up);
        down.cut(cut_down);
    }

    /// Changes a link, and counts what the change before has touched.
    fn behave(&mut self, who: Role, profile: LinkProfile) {
        let Some(port) = self.host(who).and_then(|id| self.net.edge(id)) else { return };
        let (up, down) = self.net.links(port);
        let before = *up.profile();
        up.behave(profile);
        down.behave(profile);
        let counters = [*up.counters(), *down.counters()];
        let sum = |of: fn(&LinkCounters) -> u64| counters.iter().map(of).sum::<u64>();
        let now = [sum(|c| c.lost), sum(|c| c.carried), sum(|c| c.too_long)];
        let then = self.weather.remove(&who);
        if let Some((_, then)) = then.filter(|(at, _)| *at == port) {
            let [lost, carried, too_long] = [0, 1, 2].map(|n| now[n] - then[n]);
            for (what, touched, changed) in [
                ("loss burst", lost, before.loss_ppm > profile.loss_ppm || before.burst.is_some()),
                ("latency step", carried, before.latency > profile.latency),
                ("mtu drop", too_long, before.mtu < profile.mtu),
            ] {
                if changed {
                    self.bite(what, touched);
                }
            }
        }
        self.weather.insert(who, (port, now));
    }

    fn readdress(&mut self, who: Role) {
        self.places += 1;
        let address = v4(203, 0, 113, self.places);
        let lost = self.host(who).and_then(|id| self.net.readdress(id, address));
        self.bite("address change", lost.unwrap_or(0) as u64);
    }

    fn jump(&mut self, who: Role, ahead: Duration) {
        let Some(id) = self.host(who) else { return };
        if let Process::Node(node) = &mut self.hosts[id.0].process {
            node.jump(ahead);
            self.bite("clock jump", 1);
            self.drive(id);
        }
    }

    fn partition(&mut self, from: Role, to: Role, on: bool) {
        let edge = |world: &Self, role| world.host(role).and_then(|id| world.net.edge(id));
        let (Some(from), Some(to)) = (edge(self, from), edge(self, to)) else { return };
        if !on {
            let stopped = self.net.stopped(from, to).unwrap_or(0);
            self.bite("partition", stopped);
        }
        self.net.partition(from, to, on);
    }

    fn unroute(&mut self, who: Role, to: Role, on: bool) {
        let (Some(who), Some(to)) = (self.host(who), self.host(to)) else { return };
        let outermost = self.net.nats_of(to).last().map(|nat| self.net.nat_of(*nat).outside());
        let Some(address) = outermost.or_else(|| self.net.address(to)) else { return };
        if on {
            self.unrouted.insert((who, address));
        } else {
            self.unrouted.remove(&(who, address));
        }
    }

    fn restart(&mut self, who: Role) {
        let Some(id) = self.host(who) else { return };
        let lost = self.end(who, id, false);
        self.bite("restart", lost);
        self.boot(id);
    }

    fn stop(&mut self, who: Role) {
        let Some(id) = self.host(who) else { return };
        let lost = self.end(who, id, false);
        self.bite("stop", lost);
    }

    fn power_off(&mut self, who: Role) {
        let Some(id) = self.host(who) else { return };
        let lost = self.end(who, id, true);
        self.bite("power", lost);
        self.cut(who, true, true);
    }

    /// Ends a process, silently or so that its kernel tells those it was connected with: how many streams that cost.
    fn end(&mut self, who: Role, id: HostId, silently: bool) -> u64 {
        let number = self.hosts[id.0].number;
        self.retire(who);
        self.hosts[id.0].process = Process::Off;
        self.hosts[id.0].wake_at = None;
        self.tcp.abandon(self.now, (id, number), silently, &mut self.net)
    }

    /// What a server's process has counted is kept before it ends.
    pub(super) fn retire(&mut self, who: Role) {
        let counted =
            |server: &mut Server, _| (*server.relay().server().counters(), *server.relay().counters());
        let Some((logins, packets)) = self.server(who, counted) else { return };
        let carried = packets.packets_out;
        self.bite("duplicate login", logins.duplicates);
        self.bite("sent on by the mesh", packets.mesh_out);
        self.bite(
            if who == Role::Server { "carried by the server" } else { "carried by the relay" },
            carried,
        );
    }

    fn power_on(&mut self, who: Role) {
        let Some(id) = self.host(who) else { return };
        self.cut(who, false, false);
        self.boot(id);
    }

    fn roam(&mut self, who: Role, network: Network, dead: Duration) {
        let Some(id) = self.host(who) else { return };
        self.net.unplug(id);
        self.landing.insert(who, (network, self.astray()));
        let at = self.now + dead;
        self.schedule(at, Event::Landed(who));
    }

    /// Datagrams that found nobody, or had no network to leave by.
    fn astray(&self) -> u64 {
        [Fate::Deaf, Fate::NoRoute].iter().filter_map(|fate| self.fates.get(fate)).sum()
    }

    pub(super) fn land(&mut self, who: Role) {
        let Some(id) = self.host(who) else { return };
        let Some((network, before)) = self.landing.remove(&who) else { return };
        self.bite("roam", self.astray() - before);
        self.places += 1;
        let link = self.scenario.links[usize::from(who != Role::Client)];
        self.net.site(id, Place(self.places), &network.layers(), (self.internet, link));
        if let Some(address) = self.net.address(id) {
            self.command(who, NodeCommand::Interfaces(vec![address]));
            self.command(who, NodeCommand::NetworkChanged);
        }
    }
}

/// What a map that does not name a relay any more is counted as: by the packets that the relay had carried.
const fn map_without(relay: Role) -> &'static str {
    match relay {
        Role::Relay => "map without the relay",
        _ => "map without the server",
    }
}

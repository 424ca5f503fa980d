//! Processes: drained until they have nothing left to say, and woken when they asked for it.

use super::marks::mark_of;
use super::queue::Event;
use super::{Process, World};
use crate::topology::HostId;
use crate::trace::Happening;
use io_adapters::stack::StackEvent;
use proto_core::machine::{Input, Output, Transmit};
use proto_core::node::NodeEvent;
use proto_core::route::Via;
use proto_core::time::Duration;
use std::net::IpAddr;

/// How long a resolver takes.
const RESOLVE: Duration = Duration::from_millis(5);
/// How long it takes to say that it got no answer.
const RESOLVE_FAILS: Duration = Duration::from_secs(5);

impl World {
    /// Drains a process until it has nothing left, and notes when it wants to be woken.
    pub(super) fn drive(&mut self, id: HostId) {
        loop {
            let did = match &self.hosts[id.0].process {
                Process::Node(_) => self.drive_node(id),
                Process::Server(_) => self.drive_server(id),
                Process::Off => false,
            };
            self.launch();
            if !did {
                break;
            }
        }
        self.rearm(id);
    }

    fn drive_node(&mut self, id: HostId) -> bool {
        let now = self.now;
        let mut did = false;
        let Process::Node(node) = &mut self.hosts[id.0].process else { return false };
        node.run_app(now);
        for what in std::mem::take(&mut node.app.violations) {
            self.checks.violate(now, what);
        }
        loop {
            let Process::Node(node) = &mut self.hosts[id.0].process else { return did };
            let Some(output) = node.poll(now) else { break };
            did = true;
            self.output(id, output);
        }
        let mut batch = std::mem::take(&mut self.batch);
        while let Process::Node(node) = &mut self.hosts[id.0].process {
            let local = node.local(now);
            if !node.stack.poll_batch(&mut batch, local) {
                break;
            }
            did = true;
            for segment in batch.segments() {
                self.send_from_node(id, batch.link, (batch.to, None), segment);
            }
        }
        self.batch = batch;
        did
    }

    fn drive_server(&mut self, id: HostId) -> bool {
        let Process::Server(server) = &mut self.hosts[id.0].process else { return false };
        let (opens, out) = (std::mem::take(&mut server.opens), std::mem::take(&mut server.out));
        let did = !out.is_empty() || !opens.is_empty();
        for (stream, target) in opens {
            self.open(id, stream, target);
        }
        for (stream, bytes) in out {
            self.relayed += bytes.as_ref().map_or(0, |b| b.len() as u64);
            self.stream_out(id, stream, bytes);
        }
        did
    }

    fn output(&mut self, id: HostId, output: Output<StackEvent>) {
        match output {
            Output::Transmit(Transmit { link, to, bytes, ttl }) => {
                self.send_from_node(id, link, (to, ttl), &bytes);
            }
            Output::Bind { link } => {
                if let Process::Node(node) = &mut self.hosts[id.0].process {
                    node.open(link, self.now);
                }
            }
            Output::Unbind { link } => {
                if let Process::Node(node) = &mut self.hosts[id.0].process {
                    node.close(link);
                }
            }
            Output::Open { stream, target } => self.open(id, stream, target),
            Output::Write { stream, bytes } => self.stream_out(id, stream, Some(bytes)),
            Output::Close { stream } => self.stream_out(id, stream, None),
            Output::Resolve { name } => {
                let cut = self.net.port_of(id).is_none_or(|_| self.is_cut(id));
                let at = self.now + if cut { RESOLVE_FAILS } else { RESOLVE };
                let number = self.hosts[id.0].number;
                self.schedule(at, Event::Resolved(id, number, name));
            }
            Output::Event(StackEvent::Node(event)) => self.said(id, &event),
            Output::Event(_) => {}
        }
    }

    fn is_cut(&mut self, id: HostId) -> bool {
        self.net.edge(id).is_none_or(|port| {
            let (up, down) = self.net.links(port);
            up.is_cut() || down.is_cut()
        })
    }

    fn said(&mut self, id: HostId, event: &NodeEvent) {
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::Said, [id.0 as u64, event_number(event), 0, 0], || {
            format!("{name}: {event:?}")
        });
        if let Some(mark) = mark_of(event) {
            *self.marks.entry(mark).or_insert(0) += 1;
        }
        let NodeEvent::Route { key, route } = event else { return };
        let peer = self.hosts.iter().position(|h| matches!(&h.process, Process::Node(n) if n.key() == *key));
        for via in [route.primary, route.duplicate].into_iter().flatten() {
            if let (Via::Direct { addr, .. }, Some(peer), true) = (via, peer, route.primary == Some(via)) {
                self.checks.direct(self.now, (id, HostId(peer)), addr);
            }
        }
    }

    pub(super) fn resolved(&mut self, id: HostId, number: u64, name: &str) {
        let addresses: Vec<IpAddr> = if self.is_cut(id) { Vec::new() } else { self.net.resolve(name) };
        let host = &mut self.hosts[id.0];
        if let (Process::Node(node), true) = (&mut host.process, host.number == number) {
            let local = node.local(self.now);
            node.stack.handle(Input::Resolved { name, addresses: &addresses }, local);
            self.drive(id);
        }
    }

    pub(super) fn wake(&mut self, id: HostId) {
        let now = self.now;
        let host = &mut self.hosts[id.0];
        if host.wake_at != Some(now) {
            return;
        }
        host.wake_at = None;
        let why = match &mut host.process {
            Process::Node(node) => {
                let why = node.deadline().map_or("nothing", |(_, why)| why);
                node.wake(now);
                why
            }
            Process::Server(server) => {
                let why = server.deadline().map_or("nothing", |(_, why)| why);
                server.wake(now);
                why
            }
            Process::Off => return,
        };
        self.checks.woken(now, id, why);
        self.drive(id);
    }

    fn rearm(&mut self, id: HostId) {
        let host = &self.hosts[id.0];
        let deadline = match &host.process {
            Process::Node(node) => node.deadline(),
            Process::Server(server) => server.deadline(),
            Process::Off => None,
        };
        let Some((at, _)) = deadline else { return };
        let mut at = at.max(self.now);
        if self.checks.is_stuck(self.now, id) {
            // It would never end; the violation is noted, and the run goes on slowly.
            at = at.max(self.now + Duration::from_millis(1));
        }
        if host.wake_at.is_none_or(|wake| at < wake || wake < self.now) {
            self.hosts[id.0].wake_at = Some(at);
            self.schedule(at, Event::Wake(id));
        }
    }
}

const fn event_number(event: &NodeEvent) -> u64 {
    match event {
        NodeEvent::Session(_) => 1,
        NodeEvent::PeerUp { .. } => 2,
        NodeEvent::PeerDown { .. } => 3,
        NodeEvent::Route { .. } => 4,
        NodeEvent::RelayUp { .. } => 5,
        NodeEvent::RelayDown { .. } => 6,
        NodeEvent::Refused { .. } => 7,
        _ => 8,
    }
}

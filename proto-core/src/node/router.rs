//! The router before us: what it is asked, and what follows from its answers.

use super::{Node, NodeEvent, Stage};
use crate::machine::{Input, Machine};
use crate::nat::portmap::{PortmapCommand, PortmapEvent};
use crate::time::Time;

impl Node {
    pub(super) fn tell_portmap(&mut self, command: PortmapCommand, now: Time) {
        self.portmap.handle(Input::Command(command), now);
    }

    /// A mapping is wanted as long as somebody may come by it.
    pub(super) fn want_mapping(&mut self, now: Time) {
        let wanted = self.config.map_ports && self.is_direct() && self.stage == Stage::Running;
        self.tell_portmap(PortmapCommand::Want(wanted), now);
    }

    pub(super) fn portmap_event(&mut self, event: PortmapEvent) {
        self.out.event(match event {
            PortmapEvent::Request(request) => NodeEvent::Portmap(request),
            PortmapEvent::Router(router) => {
                self.unpublished = true;
                NodeEvent::Router(router)
            }
        });
    }
}

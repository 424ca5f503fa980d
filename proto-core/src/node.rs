//! The node: the composition that an agent, a client and a server's own node are alike. It owns the session
//! with the coordinator, the relays, the netcheck and, for each peer, its path and its handshakes.

use crate::machine::{Input, Machine, Outbox, Output};
use crate::nat::Report;
use crate::seed::Seed;
use crate::time::{Monotone, Time};

mod api;

pub use api::*;

/// A node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    clock: Monotone,
    session: SessionState,
    out: Outbox<NodeEvent>,
}

impl Node {
    /// A node that waits for [`NodeCommand::Start`].
    #[must_use]
    pub fn new(config: NodeConfig, seed: Seed, now: Time) -> Self {
        let _ = seed;
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self { config, clock, session: SessionState::Idle, out: Outbox::default() }
    }

    /// What is known at this moment.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        NodeStatus {
            id: None,
            key: self.config.node_key.public(),
            session: self.session.clone(),
            report: Report::default(),
            home: None,
            relays: Vec::new(),
            endpoints: Vec::new(),
            peers: Vec::new(),
        }
    }
}

impl Machine for Node {
    type Command = NodeCommand;
    type Event = NodeEvent;

    fn handle(&mut self, input: Input<'_, NodeCommand>, now: Time) {
        let _now = self.clock.clamp(now);
        let _ = input;
    }

    fn poll(&mut self) -> Option<Output<NodeEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        None
    }
}

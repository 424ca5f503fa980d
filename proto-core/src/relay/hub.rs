//! A whole relay in one machine: the server, the table and the queues composed without locks. The pure
//! simulation lane and the tests run it; the adapter composes the same parts with a lock each.

use super::{ForwardCounters, RelayServer, RelayServerConfig, ServerCommand, ServerEvent};
use crate::machine::{Input, Machine, Outbox, Output};
use crate::seed::Seed;
use crate::time::Time;

/// A hub is commanded as the server is; [`ServerCommand::Spoke`] and [`ServerCommand::FirstPacket`] are its
/// own to give.
pub type HubCommand = ServerCommand;
/// A hub tells what the server tells.
pub type HubEvent = ServerEvent;

/// A whole relay. A stream's writes are held to its [`Input::StreamWritable`] credit once one was given;
/// until then they are not held.
#[derive(Debug)]
pub struct RelayHub {
    server: RelayServer,
    counters: ForwardCounters,
    out: Outbox<HubEvent>,
}

impl RelayHub {
    /// A relay without connections.
    #[must_use]
    pub fn new(config: RelayServerConfig, seed: Seed, now: Time) -> Self {
        Self {
            server: RelayServer::new(config, seed, now),
            counters: ForwardCounters::default(),
            out: Outbox::default(),
        }
    }

    /// The server inside.
    #[must_use]
    pub const fn server(&self) -> &RelayServer {
        &self.server
    }

    /// What passed.
    #[must_use]
    pub const fn counters(&self) -> &ForwardCounters {
        &self.counters
    }
}

impl Machine for RelayHub {
    type Command = HubCommand;
    type Event = HubEvent;

    fn handle(&mut self, input: Input<'_, HubCommand>, now: Time) {
        self.server.handle(input, now);
    }

    fn poll(&mut self) -> Option<Output<HubEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        None
    }
}

//! A relay's server end: who is logged in, which of a key's connections is the active one, who is told when
//! a key leaves. Packets pass beside it: see [`super::forward`].
//!
//! The adapter gives a stream's end ([`Input::StreamClosed`]) always, also after [`Output::Close`]; only then
//! is the connection forgotten.

use super::TableChange;
use crate::id::StreamId;
use crate::key::{NodePublic, NodeSecret};
use crate::machine::{Input, Machine, Outbox, Output};
use crate::seed::Seed;
use crate::time::{Duration, Monotone, Time};

/// What a relay server is made of.
#[derive(Clone, Debug)]
pub struct RelayServerConfig {
    /// The relay's own key.
    pub secret: NodeSecret,
    /// Whether each key is asked about by [`ServerEvent::Ask`]; if not, everybody is let in.
    pub ask: bool,
}

/// What a relay server's owner asks of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerCommand {
    /// The answer to [`ServerEvent::Ask`].
    Verdict {
        /// The connection.
        stream: StreamId,
        /// Whether it is let in.
        admit: bool,
    },
    /// A connection that is not its key's active one has spoken ([`super::ForwardTable::dormant`]): it
    /// becomes the active one.
    Spoke(StreamId),
    /// A connection has sent its first packet to a key ([`super::Forwarded::first`]): that key is told when
    /// the sender leaves.
    FirstPacket {
        /// The sender's connection.
        stream: StreamId,
        /// The receiver's key.
        to: NodePublic,
    },
    /// Close all connections of a key.
    Expel(NodePublic),
    /// The server will stop: those who understand it are asked to come back after this long.
    Drain(Duration),
}

/// What a relay server tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerEvent {
    /// May this key in? Answer by [`ServerCommand::Verdict`] before the login's deadline.
    Ask {
        /// The connection.
        stream: StreamId,
        /// Who.
        key: NodePublic,
    },
    /// A connection has logged in: from now on its SendPacket frames may take the hot path.
    Joined {
        /// The connection.
        stream: StreamId,
        /// Whose.
        key: NodePublic,
    },
    /// What to change in the forwarding table ([`super::ForwardTable::apply`]), before anything else.
    Table(TableChange),
    /// A connection that had joined is gone.
    Left {
        /// The connection.
        stream: StreamId,
        /// Whose.
        key: NodePublic,
    },
}

/// What a relay server has counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServerCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Logins completed.
    pub joined: u64,
    /// Logins not let in by the owner.
    pub refused: u64,
    /// Connections closed because the login took too long.
    pub late: u64,
    /// Connections closed because of a frame that breaks the protocol.
    pub broken: u64,
    /// Logins of a key that was already connected.
    pub duplicates: u64,
    /// PeerGone (disconnected) frames sent.
    pub peer_gone: u64,
    /// Pings answered.
    pub pings: u64,
    /// Frames of unknown kinds, skipped.
    pub unknown: u64,
}

/// A relay's server end.
#[derive(Debug)]
pub struct RelayServer {
    config: RelayServerConfig,
    clock: Monotone,
    counters: ServerCounters,
    out: Outbox<ServerEvent>,
}

impl RelayServer {
    /// A relay without connections.
    #[must_use]
    pub fn new(config: RelayServerConfig, seed: Seed, now: Time) -> Self {
        let _ = seed;
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self { config, clock, counters: ServerCounters::default(), out: Outbox::default() }
    }

    /// The relay's public key.
    #[must_use]
    pub fn public(&self) -> NodePublic {
        self.config.secret.public()
    }

    /// What it has counted.
    #[must_use]
    pub const fn counters(&self) -> &ServerCounters {
        &self.counters
    }

    /// Connections logged in, and how many of them call this relay their home.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        (0, 0)
    }
}

impl Machine for RelayServer {
    type Command = ServerCommand;
    type Event = ServerEvent;

    fn handle(&mut self, input: Input<'_, ServerCommand>, now: Time) {
        let _ = (self.clock.clamp(now), input);
    }

    fn poll(&mut self) -> Option<Output<ServerEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        None
    }
}

//! Relays, both ends: DERP connections that carry sealed packets when no direct path does.
//!
//! A client keeps a [`RelayPool`] of [`RelayLink`]s, one a region. A server runs one [`RelayServer`], which
//! decides who is who; packets pass beside it through a [`ForwardTable`] and [`SendQueue`]s, called inline.

mod forward;
mod hub;
mod link;
mod pool;
mod server;

pub use forward::{
    DropReason, ForwardCounters, ForwardTable, Forwarded, PacketKind, SendQueue, Sender, TableChange,
};
pub use hub::{HubCommand, HubEvent, RelayHub};
pub use link::{LinkCommand, LinkConfig, LinkEvent, RelayLink};
pub use pool::{PoolCommand, PoolConfig, PoolEvent, RelayPool};
pub use server::{RelayServer, RelayServerConfig, ServerCommand, ServerCounters, ServerEvent};

use crate::key::NodePublic;

/// Why a relay says that a peer is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum GoneReason {
    /// The peer, which had sent us packets, left the region.
    Disconnected,
    /// A packet of ours had no destination: the peer is not at this relay.
    NotHere,
    /// A reason that this build does not know.
    Other(u8),
}

impl GoneReason {
    /// The reason of this wire code.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Disconnected,
            1 => Self::NotHere,
            other => Self::Other(other),
        }
    }

    /// Its wire code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Disconnected => 0,
            Self::NotHere => 1,
            Self::Other(code) => code,
        }
    }
}

/// A packet that the machine itself sends or receives through a relay (disco; data takes the hot path).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayPacket {
    /// The other node: the destination when sent, the source when received.
    pub peer: NodePublic,
    /// The payload.
    pub bytes: Vec<u8>,
}

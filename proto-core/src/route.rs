//! Where a peer's packets travel: what the core tells the hot path, and what the hot path tells the core.

use crate::id::{LinkId, RegionId};
use crate::key::NodePublic;
use core::fmt;
use core::net::SocketAddr;

/// One way to a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// Straight to an address, from one of our sockets.
    Direct {
        /// Our socket.
        link: LinkId,
        /// The peer's address as seen from here.
        addr: SocketAddr,
    },
    /// Through a relay of this region.
    Relay(RegionId),
}

impl Via {
    /// Whether this way is direct.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct { .. })
    }
}

impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct { link, addr } => write!(f, "direct {addr} on {link:?}"),
            Self::Relay(region) => write!(f, "relay {region:?}"),
        }
    }
}

/// The route to a peer: a copied snapshot that the hot path seals by, without asking the core.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// Grows with every change.
    pub generation: u64,
    /// Where packets go; nowhere yet if `None`.
    pub primary: Option<Via>,
    /// Where a copy of each packet goes too, while the primary is in doubt.
    pub duplicate: Option<Via>,
}

/// Bytes of data packets, sealed, since a node or a tunnel began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// What came.
    pub received_bytes: u64,
    /// What went, copies along a second way among it.
    pub sent_bytes: u64,
}

impl Traffic {
    /// Counts what passed.
    pub const fn count(&mut self, activity: &Activity) {
        match activity.direction {
            Direction::Received => self.received_bytes = self.received_bytes.saturating_add(activity.bytes),
            Direction::Sent => self.sent_bytes = self.sent_bytes.saturating_add(activity.bytes),
        }
    }
}

/// Data packets that passed on one way to or from one peer since the last such report: authenticated by
/// WireGuard, so they prove that the way carries data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Activity {
    /// The peer.
    pub peer: NodePublic,
    /// The way they took.
    pub via: Via,
    /// In or out.
    pub direction: Direction,
    /// How many packets.
    pub packets: u32,
    /// How many bytes of them, sealed.
    pub bytes: u64,
}

/// Which way a packet went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From us to the peer.
    Sent,
    /// From the peer to us.
    Received,
}

//! What we know of our own network: whether UDP passes, how we are seen from outside, which relay is near.

use crate::id::{LinkId, RegionId};
use crate::time::{Duration, Time};
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

pub mod classify;
pub mod home;
pub mod netcheck;
pub mod plan;
pub mod portmap;
pub mod predict;

pub use classify::{Allocation, Dependence, Filtering, Mapping};
pub use netcheck::{Netcheck, NetcheckCommand};
pub use portmap::Router;

/// What a netcheck found. The first one comes before any STUN answer, so that relaying can begin at once;
/// it says so by `udp: None`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// When it was made.
    pub at: Time,
    /// Whether a check has run to its end since the network was last another one: what is not known then, cannot
    /// be known here.
    pub complete: bool,
    /// Whether UDP passes; unknown until a STUN server answered or all had time to.
    pub udp: Option<bool>,
    /// Whether IPv4 passes by UDP.
    pub ipv4: bool,
    /// Whether IPv6 passes by UDP.
    pub ipv6: bool,
    /// How the NAT before us (if any) maps.
    pub mapping: Mapping,
    /// What its mappings depend on where they vary, if a server with two addresses told.
    pub dependence: Option<Dependence>,
    /// How it chooses ports, if known.
    pub allocation: Option<Allocation>,
    /// Whose packets it lets in.
    pub filtering: Filtering,
    /// Whether the NAT is still being asked about: a further report comes within a second or two.
    pub probing: bool,
    /// Our addresses as seen by STUN servers, best first, with the socket that each belongs to.
    pub reflexive: Vec<Reflexive>,
    /// STUN servers that answered by IPv4 lately, from beyond our own network.
    pub stun: Vec<SocketAddr>,
    /// Round trip to the nearest STUN server of each region that answered.
    pub latencies: BTreeMap<RegionId, RegionLatency>,
    /// The home relay's region; none if there is no map.
    pub home: Option<RegionId>,
    /// The region to keep connected besides home, so that a failover finds it ready.
    pub warm: Option<RegionId>,
    /// The addresses of this host's interfaces, as the adapter named them.
    pub interfaces: Vec<IpAddr>,
}

/// An address under which a STUN server saw one of our sockets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reflexive {
    /// The socket.
    pub link: LinkId,
    /// Its address as seen from outside.
    pub address: SocketAddr,
    /// How many servers saw it so.
    pub seen: u32,
}

/// Round trips to a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegionLatency {
    /// By IPv4.
    pub v4: Option<Duration>,
    /// By IPv6.
    pub v6: Option<Duration>,
}

impl RegionLatency {
    /// The shorter of both.
    #[must_use]
    pub fn best(&self) -> Option<Duration> {
        match (self.v4, self.v6) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

//! What happened to a peer's path, in a form that a person is shown: by `ping`, `status` and the dashboard.

use super::candidate::Source;
use crate::id::RegionId;
use crate::time::Duration;
use core::fmt;
use core::net::SocketAddr;

/// Something that happened to a peer's path.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PathStory {
    /// Packets travel through a relay of this region from now on.
    Relayed {
        /// The relay's region.
        region: RegionId,
    },
    /// No way leads to the peer: no relay, no direct path.
    Unreachable,
    /// An attempt to go direct begins.
    Punching {
        /// Counted from 1 since the path was last direct.
        attempt: u32,
        /// How many addresses of the peer are tried.
        candidates: usize,
    },
    /// Packets travel directly from now on.
    Direct {
        /// The peer's address.
        addr: SocketAddr,
        /// How we know the address.
        source: Source,
        /// Its round trip.
        latency: Duration,
        /// How long it took since the attempts began.
        after: Duration,
    },
    /// A better direct path took over.
    Moved {
        /// The address before.
        from: SocketAddr,
        /// The address now.
        to: SocketAddr,
        /// Its round trip.
        latency: Duration,
    },
    /// The direct path is in doubt: packets go both ways until it answers.
    Doubted {
        /// The address.
        addr: SocketAddr,
        /// How long nothing was heard on it.
        silent: Duration,
    },
    /// The direct path answers again.
    Recovered {
        /// The address.
        addr: SocketAddr,
    },
    /// The direct path is lost.
    Lost {
        /// The address.
        addr: SocketAddr,
        /// Why it was given up.
        why: Loss,
    },
    /// An attempt to go direct ended without success.
    Failed {
        /// The attempt, as in [`PathStory::Punching`].
        attempt: u32,
        /// What was tried, the likeliest first.
        tried: Vec<Tried>,
    },
}

/// Why a direct path was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Nothing came back on it.
    Silent,
    /// The peer was heard on it, but our probes were not answered: it carries only one way.
    OneWay,
    /// Probes were answered, but data never arrived.
    NoData,
    /// Our socket is gone.
    Link,
    /// The peer started anew.
    Restarted,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "nothing came back",
            Self::OneWay => "it carried packets one way only",
            Self::NoData => "probes passed but data did not",
            Self::Link => "our socket closed",
            Self::Restarted => "the peer restarted",
        })
    }
}

/// A candidate and what came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tried {
    /// The address.
    pub addr: SocketAddr,
    /// How we know it.
    pub source: Source,
    /// Probes sent to it in this attempt.
    pub probes: u32,
    /// What came of them.
    pub outcome: Outcome,
}

/// What came of a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// We have no socket of its address family.
    NoSocket,
    /// No probe was sent: too many candidates were likelier.
    Skipped,
    /// Nothing came back.
    Silent,
    /// The peer's probes arrived from there, but ours were not answered.
    HeardOnly,
    /// It answered.
    Answered(Duration),
}

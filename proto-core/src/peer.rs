//! One peer, seen from here: where it might be reached, what is being tried, and the path in use.

use crate::id::RegionId;
use crate::key::{DiscoSecret, NodePublic};
use crate::machine::{Input, Machine, Outbox, Output};
use crate::route::Route;
use crate::seed::Seed;
use crate::time::{Monotone, Time};
use crate::wire::control::NodeInfo;
use core::net::SocketAddr;

mod candidate;
mod story;

pub use candidate::Source;
pub use story::{Loss, Outcome, PathStory, Tried};

/// What a peer's machine needs to know of us.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Our node key, named in our pings.
    pub us: NodePublic,
    /// Our disco key.
    pub disco: DiscoSecret,
    /// Whether direct paths are allowed. If not, only relays are used and nothing is probed or answered.
    pub direct: bool,
}

/// What a peer's machine is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerCommand {
    /// What the coordinator says of the peer has changed.
    Info(NodeInfo),
    /// Our own endpoints, for call-me-maybe; replaces what was said before.
    Endpoints(Vec<SocketAddr>),
    /// Whether we can send to the peer through this region now.
    Relay {
        /// The region: the peer's home or one it was heard through.
        region: RegionId,
        /// Whether it can be used.
        up: bool,
    },
    /// A disco datagram of the peer came through a relay.
    Relayed {
        /// The relay's region.
        region: RegionId,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Whether somebody uses the tunnel: its path is then kept warm.
    Engaged(bool),
    /// The host's network changed: paths are checked anew, at once.
    NetworkChanged,
}

/// What a peer's machine tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerEvent {
    /// Send this disco datagram to the peer through this region's relay.
    Relay {
        /// The relay's region.
        region: RegionId,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// Where the peer's packets travel from now on. Its generation grows with every such event.
    Route(Route),
    /// Something a person may want to know.
    Story(PathStory),
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    info: NodeInfo,
    route: Route,
    clock: Monotone,
    out: Outbox<PeerEvent>,
}

impl Peer {
    /// A peer as the coordinator first told it.
    #[must_use]
    pub fn new(config: PeerConfig, info: NodeInfo, seed: Seed, now: Time) -> Self {
        let _ = (config, seed);
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self { info, route: Route::default(), clock, out: Outbox::default() }
    }

    /// What the coordinator last said of the peer.
    #[must_use]
    pub const fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// The route in force.
    #[must_use]
    pub const fn route(&self) -> Route {
        self.route
    }
}

impl Machine for Peer {
    type Command = PeerCommand;
    type Event = PeerEvent;

    fn handle(&mut self, input: Input<'_, PeerCommand>, now: Time) {
        let _now = self.clock.clamp(now);
        let _ = input;
    }

    fn poll(&mut self) -> Option<Output<PeerEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        None
    }
}

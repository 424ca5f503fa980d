//! One pair, measured: when it went direct, what that cost, and what both ends say of it.

use super::{Process, World};
use crate::step::{Role, Scenario};
use proto_core::explain::{Reason, Side};
use proto_core::node::PeerStatus;
use proto_core::time::{Duration, Time};
use proto_core::wire::Kind;

/// Between two looks at the routes: the grain of what is measured.
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// After this long both ends must be able to say why they are not direct.
pub const SAY_WHY_WITHIN: Duration = Duration::from_secs(3);

/// What an end says of the pair.
pub type Said = Option<(Reason, Side)>;

/// What one world showed.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the coordinator's word until both ends sent directly; none if that never came.
    pub direct_after: Option<Duration>,
    /// Disco datagrams of both ends up to that moment, or to the end.
    pub probes: u64,
    /// What the client and the agent said in time, if they were not direct yet.
    pub early: [Said; 2],
    /// What they said at the end.
    pub said: [Said; 2],
    /// What must never happen and did.
    pub violations: Vec<String>,
}

impl World {
    /// Runs a scenario whose tunnel is asked for at [`Scenario::tunnel_at`] until both ends go direct, or to its end.
    #[must_use]
    pub fn measure(scenario: Scenario) -> Measured {
        let (asked, until) = (scenario.tunnel_at, scenario.until);
        let mut world = Self::new(scenario, false);
        world.run_until(asked);
        let before = world.probes();
        let (mut began, mut direct_after, mut early) = (None, None, [None; 2]);
        while world.now < until {
            world.run_until(world.now + LOOK);
            let up: Vec<Time> = [Role::Client, Role::Agent]
                .iter()
                .filter_map(|role| world.node(*role).and_then(|node| node.peer_up_at))
                .collect();
            if began.is_none() && up.len() == 2 {
                began = up.into_iter().max();
            }
            let Some(began) = began else { continue };
            let statuses = world.ends();
            if world.both_direct() {
                direct_after = Some(world.went_direct().unwrap_or(world.now).since(began));
                break;
            }
            if early == [None; 2] && world.now.since(began) >= SAY_WHY_WITHIN {
                early = statuses.map(said);
            }
        }
        Measured {
            direct_after,
            probes: world.probes() - before,
            early,
            said: world.ends().map(said),
            violations: world.checks.violations().to_vec(),
        }
    }

    /// Whether data goes directly at both ends.
    pub(super) fn both_direct(&self) -> bool {
        let direct = |status: &Option<PeerStatus>| {
            status.as_ref().is_some_and(|s| s.route.primary.is_some_and(|via| via.is_direct()))
        };
        self.ends().iter().all(direct)
    }

    /// When the later of both ends went direct.
    fn went_direct(&self) -> Option<Time> {
        let at = |role| self.node(role).and_then(|node| node.direct_at);
        at(Role::Client).zip(at(Role::Agent)).map(|(client, agent)| client.max(agent))
    }

    fn probes(&self) -> u64 {
        let of = |role| self.checks.datagrams(self.roles[&role]).get(&Kind::Disco).copied();
        [Role::Client, Role::Agent].into_iter().filter_map(of).sum()
    }

    /// What the client knows of the agent, and the agent of the client.
    fn ends(&self) -> [Option<PeerStatus>; 2] {
        let see = |of: Role, who: Role| {
            let key = self.node(who)?.key();
            match &self.hosts[self.roles.get(&of)?.0].process {
                Process::Node(node) => node.stack.node().peer(&key),
                _ => None,
            }
        };
        [see(Role::Client, Role::Agent), see(Role::Agent, Role::Client)]
    }
}

fn said(status: Option<PeerStatus>) -> Said {
    status.map(|status| (status.verdict.reason, status.verdict.side))
}

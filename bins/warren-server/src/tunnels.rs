//! The tunnels to workspaces, as the nodes at their other ends tell of them: which way each leads, how fast, and what
//! happened. Kept in memory alone: after a restart the nodes tell again.

use crate::clock::Clock;
use crate::hub::Hub;
use proto_core::coord::{CoordinatorEvent, Principal};
use proto_core::id::NodeId;
use proto_core::wire::control::PathReport;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

/// Tunnels remembered, each of some 30 KiB at most. The one that said nothing for longest makes room.
const TUNNELS_MAX: usize = 4_096;
/// What happened to one tunnel's path.
const HISTORY_MAX: usize = 100;
/// Half an hour of a tunnel in use, which tells every 5 s.
const SAMPLES_MAX: usize = 360;
/// How often tunnels that were closed are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Changes that a slow follower may be behind.
const BEHIND: usize = 256;

/// Something that happened to a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Happened {
    /// Unix milliseconds.
    pub(crate) at: i64,
    /// `opened`, `path` or `lost`.
    pub(crate) event: &'static str,
    /// The path from then on.
    pub(crate) path: PathReport,
}

/// One moment of a tunnel in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    /// Unix milliseconds.
    pub(crate) at: i64,
    /// The round trip, if it is known.
    pub(crate) latency_us: Option<u64>,
    /// Bits a second that came, and that went, since the sample before; unknown for the first.
    pub(crate) rates: Option<(u64, u64)>,
}

/// A tunnel to an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tunnel {
    /// The node at the other end.
    pub(crate) node: NodeId,
    /// Whose it is; none for a server's own.
    pub(crate) user_id: Option<String>,
    /// Since when it is known, unix milliseconds.
    pub(crate) since: i64,
    /// When its node told of it last.
    pub(crate) told_at: i64,
    /// What it told.
    pub(crate) path: PathReport,
    /// Oldest first.
    pub(crate) history: VecDeque<Happened>,
    /// Oldest first.
    pub(crate) samples: VecDeque<Sample>,
}

/// All of them, by agent and node.
pub(crate) struct Tunnels {
    all: Mutex<BTreeMap<(NodeId, NodeId), Tunnel>>,
    changed: broadcast::Sender<NodeId>,
}

impl Tunnels {
    /// None are known yet.
    pub(crate) fn new() -> Self {
        Self { all: Mutex::default(), changed: broadcast::channel(BEHIND).0 }
    }

    /// The agents whose tunnels change from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<NodeId> {
        self.changed.subscribe()
    }

    /// The tunnels to an agent.
    pub(crate) fn of(&self, agent: &NodeId) -> Vec<Tunnel> {
        let all = self.lock();
        let of = all.range((agent.clone(), NodeId(String::new()))..);
        of.take_while(|((to, _), _)| to == agent).map(|(_, tunnel)| tunnel.clone()).collect()
    }

    /// The best path to one of these agents: a direct one before a relayed one, and then the latest told.
    pub(crate) fn best<'a>(&self, agents: impl Iterator<Item = &'a NodeId>) -> Option<PathReport> {
        let all = self.lock();
        let mut best: Option<&Tunnel> = None;
        for agent in agents {
            let of =
                all.range((agent.clone(), NodeId(String::new()))..).take_while(|((to, _), _)| to == agent);
            best = of.map(|(_, tunnel)| tunnel).chain(best).max_by_key(|tunnel| {
                (tunnel.path.address.is_some(), tunnel.path.relay.is_some(), tunnel.told_at)
            });
        }
        best.map(|tunnel| tunnel.path.clone())
    }

    /// How many there are: direct, relayed, without a way.
    pub(crate) fn count(&self) -> [u64; 3] {
        let mut count = [0; 3];
        for tunnel in self.lock().values() {
            let way = match (&tunnel.path.address, &tunnel.path.relay) {
                (Some(_), _) => 0,
                (None, Some(_)) => 1,
                (None, None) => 2,
            };
            count[way] += 1;
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NodeId, NodeId), Tunnel>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, agent: &NodeId) {
        // Nobody may be listening.
        let _ = self.changed.send(agent.clone());
    }

    /// A node told of its path to an agent.
    fn told(&self, (node, principal): (NodeId, &Principal), agent: NodeId, path: PathReport, now: i64) {
        let user_id = match principal {
            Principal::User { user } => Some(user.clone()),
            Principal::Server { .. } => None,
            Principal::Agent { .. } => return,
        };
        let key = (agent.clone(), node.clone());
        let mut all = self.lock();
        if all.len() >= TUNNELS_MAX && !all.contains_key(&key) {
            let oldest = all.iter().min_by_key(|(_, tunnel)| tunnel.told_at).map(|(key, _)| key.clone());
            oldest.into_iter().for_each(|key| _ = all.remove(&key));
        }
        match all.get_mut(&key) {
            Some(tunnel) => tunnel.told(path, now),
            None => _ = all.insert(key, Tunnel::new(node, user_id, path, now)),
        }
        drop(all);
        self.tell(&agent);
    }

    /// A node is not connected to the coordinator any more.
    fn offline(&self, id: &NodeId, gone: bool, now: i64) {
        let mut all = self.lock();
        let mut touched = BTreeSet::new();
        all.retain(|(agent, node), tunnel| {
            if agent != id && node != id {
                return true;
            }
            touched.insert(agent.clone());
            tunnel.happened("lost", now);
            !gone
        });
        drop(all);
        touched.iter().for_each(|agent| self.tell(agent));
    }

    /// Forgets the tunnels that the coordinator knows no more.
    async fn sweep(&self, hub: &Hub) {
        let agents: BTreeSet<NodeId> = self.lock().keys().map(|(agent, _)| agent.clone()).collect();
        for agent in agents {
            let Some(peers) = hub.peers(agent.clone()).await else { return };
            let closed = {
                let mut all = self.lock();
                let before = all.len();
                all.retain(|(to, node), _| *to != agent || peers.contains(node));
                all.len() != before
            };
            if closed {
                self.tell(&agent);
            }
        }
    }
}

impl Tunnel {
    fn new(node: NodeId, user_id: Option<String>, path: PathReport, now: i64) -> Self {
        let (history, samples) = (VecDeque::new(), VecDeque::new());
        let mut tunnel = Self { node, user_id, since: now, told_at: now, path, history, samples };
        tunnel.happened("opened", now);
        tunnel.sample(None, now);
        tunnel
    }

    fn told(&mut self, path: PathReport, now: i64) {
        let before = core::mem::replace(&mut self.path, path);
        if !before.same_way(&self.path) {
            self.happened("path", now);
        }
        self.sample(Some((&before, self.told_at)), now);
        self.told_at = now;
    }

    fn happened(&mut self, event: &'static str, at: i64) {
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Happened { at, event, path: self.path.clone() });
    }

    fn sample(&mut self, before: Option<(&PathReport, i64)>, at: i64) {
        let rates = before.and_then(|(before, then)| {
            let ms = u64::try_from(at - then).ok().filter(|ms| *ms > 0)?;
            // A node that counts from the start again makes no rate.
            let rate = |now: u64, then: u64| {
                Some(now.checked_sub(then)?.saturating_mul(8).saturating_mul(1_000) / ms)
            };
            let came = rate(self.path.received_bytes, before.received_bytes)?;
            Some((came, rate(self.path.sent_bytes, before.sent_bytes)?))
        });
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at, latency_us: self.path.latency_us, rates });
    }
}

/// Listens to what nodes tell.
pub(crate) async fn listen(tunnels: Arc<Tunnels>, hub: Arc<Hub>, clock: Clock) {
    let mut events = hub.events();
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(CoordinatorEvent::Path { node, principal, peer, path }) => {
                    tunnels.told((node, &principal), peer, path, clock.now());
                }
                Ok(CoordinatorEvent::Offline { id, gone }) => tunnels.offline(&id, gone, clock.now()),
                // What was missed is told again in a few seconds, or swept out.
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
            _ = sweep.tick() => tunnels.sweep(&hub).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::id::RegionId;

    fn id(name: &str) -> NodeId {
        NodeId(name.to_owned())
    }

    fn direct(bytes: u64) -> PathReport {
        let address = Some("192.0.2.1:7000".parse().unwrap());
        PathReport { address, received_bytes: bytes, sent_bytes: 2 * bytes, ..Default::default() }
    }

    fn relayed() -> PathReport {
        PathReport { relay: Some(RegionId(1)), ..Default::default() }
    }

    fn ann() -> Principal {
        Principal::User { user: "ann".into() }
    }

    #[test]
    fn rates_are_of_what_passed_between_two_words_and_history_of_ways() {
        let tunnels = Tunnels::new();
        tunnels.told((id("c-1"), &ann()), id("agent"), relayed(), 1_000);
        tunnels.told((id("c-1"), &ann()), id("agent"), direct(1_000), 6_000);
        tunnels.told((id("c-1"), &ann()), id("agent"), direct(6_000), 11_000);
        // It has restarted.
        tunnels.told((id("c-1"), &ann()), id("agent"), direct(0), 16_000);
        let [tunnel] = tunnels.of(&id("agent")).try_into().unwrap();
        assert_eq!((tunnel.user_id.as_deref(), tunnel.since, tunnel.told_at), (Some("ann"), 1_000, 16_000));
        let rates: Vec<_> = tunnel.samples.iter().map(|sample| sample.rates).collect();
        assert_eq!(rates, [None, Some((1_600, 3_200)), Some((8_000, 16_000)), None]);
        let history: Vec<_> = tunnel.history.iter().map(|it| (it.at, it.event)).collect();
        assert_eq!(history, [(1_000, "opened"), (6_000, "path")]);
    }

    #[test]
    fn everything_is_bounded() {
        let tunnels = Tunnels::new();
        for n in 0..2_000_i64 {
            let path = if n % 2 == 0 { relayed() } else { direct(1) };
            tunnels.told((id("c-1"), &ann()), id("agent"), path, n);
        }
        let [tunnel] = tunnels.of(&id("agent")).try_into().unwrap();
        assert_eq!((tunnel.history.len(), tunnel.samples.len()), (HISTORY_MAX, SAMPLES_MAX));
        for n in 0..i64::try_from(TUNNELS_MAX).unwrap() {
            tunnels.told((id(&format!("c-{n:05}")), &ann()), id("agent"), relayed(), 3_000 + n);
        }
        assert_eq!(tunnels.of(&id("agent")).len(), TUNNELS_MAX);
        assert!(!tunnels.of(&id("agent")).iter().any(|tunnel| tunnel.node == id("c-1")), "the oldest went");
    }

    #[test]
    fn the_best_path_is_direct_and_a_node_that_is_gone_has_none() {
        let tunnels = Tunnels::new();
        let agents = [id("a"), id("b")];
        assert_eq!(tunnels.best(agents.iter()), None);
        tunnels.told((id("s"), &Principal::Server { id: id("s") }), id("b"), direct(1), 1);
        tunnels.told((id("c-1"), &ann()), id("a"), relayed(), 2);
        assert_eq!(tunnels.best(agents.iter()), Some(direct(1)));
        assert_eq!(tunnels.count(), [1, 1, 0]);
        tunnels.offline(&id("s"), false, 3);
        assert_eq!(tunnels.of(&id("b"))[0].history.back().unwrap().event, "lost");
        tunnels.offline(&id("s"), true, 4);
        assert_eq!(tunnels.best(agents.iter()), Some(relayed()));
        assert_eq!(tunnels.of(&id("b")), []);
    }
}

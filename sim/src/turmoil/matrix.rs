//! The second lane's matrix: two networks of the scorecard's catalogue meet on the internet, and both ends come to what
//! the oracle says.

use super::lab::{LabPlan, Spot};
use super::scenarios::{self, demand};
use super::verdict::LabVerdict;
use crate::nat::UdpRules;
use crate::oracle::{self, Outcome};
use crate::scorecard::{Profile, find};
use crate::topology::Network;
use proto_core::time::Duration;

/// How long a pair may take to settle: three attempts at a direct path, guessed ports among them.
const SETTLED: u64 = 20;
/// How long it is watched after that, in seconds.
const WATCHED: u64 = 5;
/// From when on data must flow without a gap, in seconds: the tunnel stands by then.
const FLOWING: u64 = 5;
/// No gap of the data may be so long from then on, whatever is tried meanwhile.
const GAP: Duration = Duration::from_millis(600);
/// The six kinds of the core matrix, by the catalogue's names.
const CORE: [&str; 6] =
    ["open", "full-cone", "address-restricted", "port-restricted", "symmetric-random", "udp-blocked"];
/// Pairs that only guessed ports connect, or nothing does, and those of carriers.
const HARD: [(&str, &str); 12] = [
    ("port-restricted", "symmetric-sequential"),
    ("port-restricted", "symmetric-block"),
    ("symmetric-sequential", "symmetric-sequential"),
    ("symmetric-sequential", "symmetric-random"),
    ("ad-apd-sequential", "symmetric-random"),
    ("port-restricted", "cgnat-symmetric-random"),
    ("port-restricted", "cgnat-block"),
    ("cgnat-port-restricted", "cgnat-symmetric-random"),
    ("cgnat-symmetric-random", "cgnat-symmetric-random"),
    ("cgnat-full-cone", "cgnat-port-restricted"),
    ("linux", "symmetric-random"),
    ("linux", "linux"),
];

/// Two networks that meet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The client's.
    pub client: Profile,
    /// The agent's.
    pub agent: Profile,
}

impl Pair {
    /// Two networks of the catalogue, such as `port-restricted+symmetric-random`.
    ///
    /// # Errors
    /// If it is no such pair: which names there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let (client, agent) = name.split_once('+').ok_or_else(|| format!("\"{name}\" is no pair A+B"))?;
        Ok(Self { client: find(client)?, agent: find(agent)? })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}+{}", self.client.name, self.agent.name)
    }

    /// What must come of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let [client, agent] = [&self.client, &self.agent].map(|side| oracle::Side::behind(&side.layers));
        oracle::either(client, agent, crate::nat::FilterScope::Mapping)
    }

    fn plan(&self, seed: u64) -> LabPlan {
        let mut plan = LabPlan::pair(seed, Network::Open, Network::Open);
        plan.layers = Some([self.client.layers.clone(), self.agent.layers.clone()]);
        // Two STUN servers, or nobody could see what a mapping depends on.
        plan.relays(&[Spot::Server, Spot::Relay]).until(SETTLED + WATCHED)
    }

    fn check(&self, verdict: &LabVerdict) -> Result<(), String> {
        let direct = self.outcome() == Outcome::Direct;
        let how = if direct { "direct" } else { "relayed" };
        demand(verdict.all(direct, SETTLED, SETTLED + WATCHED), &format!("both ends are {how} at last"))?;
        let gap = verdict.gap(FLOWING, SETTLED + WATCHED);
        demand(
            gap < GAP,
            &format!("data flows from second {FLOWING} on without a gap of {GAP:?} ({gap:?})"),
        )?;
        let layers = || self.client.layers.iter().chain(&self.agent.layers);
        let blocks = layers().any(|nat| nat.udp == UdpRules::Block);
        demand((verdict.counters.blocked > 0) == blocks, "UDP is blocked exactly if a network is so")?;
        let translating = layers().filter(|nat| nat.udp != UdpRules::Block).count() as u64;
        demand(verdict.counters.translating == translating, &format!("{translating} gateways translate"))
    }
}

/// The core matrix: every ordered pair of six networks.
#[must_use]
pub fn core() -> Vec<String> {
    CORE.iter().flat_map(|client| CORE.iter().map(move |agent| format!("{client}+{agent}"))).collect()
}

/// The pairs of guessed ports and of carriers.
#[must_use]
pub fn hard() -> Vec<String> {
    HARD.iter().map(|(client, agent)| format!("{client}+{agent}")).collect()
}

/// Runs a pair and checks what came of it.
///
/// # Errors
/// What went wrong, and how to replay it.
pub fn run(pair: &Pair, seed: u64, text: bool) -> Result<LabVerdict, String> {
    scenarios::judge(&pair.name(), &pair.plan(seed), text, |verdict| pair.check(verdict))
}

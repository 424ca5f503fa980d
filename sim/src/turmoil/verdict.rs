//! What came of a lab.

use super::program::Echo;
use super::wire::Counters;
use crate::verdict::Violations;
use proto_core::time::{Duration, Time};
use std::fmt;

/// What came of a lab.
#[derive(Debug)]
pub struct LabVerdict {
    /// The echoes that came back.
    pub echoes: Vec<Echo>,
    /// Whether the agent's packets went directly, looked at now and then.
    pub agent: Vec<(Time, bool)>,
    /// What was counted.
    pub counters: Counters,
    /// The trace's hash and length.
    pub hash: (u64, u64),
    /// What must never happen and did.
    pub violations: Violations,
    /// The trace's last lines, if it was kept.
    pub tail: String,
}

impl LabVerdict {
    /// The echoes sent between two moments, in seconds.
    #[must_use]
    pub fn between(&self, from: u64, to: u64) -> Vec<Echo> {
        let within = |e: &&Echo| e.sent >= Time::from_secs(from) && e.sent < Time::from_secs(to);
        self.echoes.iter().filter(within).copied().collect()
    }

    /// Whether all packets of both nodes went so between two moments, in seconds, and there were some.
    #[must_use]
    pub fn all(&self, direct: bool, from: u64, to: u64) -> bool {
        let within = |at: Time| at >= Time::from_secs(from) && at < Time::from_secs(to);
        let client: Vec<bool> = self.between(from, to).iter().map(|e| e.direct).collect();
        let agent: Vec<bool> = self.agent.iter().filter(|(at, _)| within(*at)).map(|(_, d)| *d).collect();
        [client, agent].iter().all(|seen| !seen.is_empty() && seen.iter().all(|d| *d == direct))
    }

    /// The longest time without an answer between two moments, in seconds.
    #[must_use]
    pub fn gap(&self, from: u64, to: u64) -> Duration {
        let mut last = Time::from_secs(from);
        let mut gap = Duration::ZERO;
        for echo in self.between(from, to) {
            gap = gap.max(echo.back.since(last));
            last = last.max(echo.back);
        }
        gap.max(Time::from_secs(to).since(last))
    }
}

impl fmt::Display for LabVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direct = self.echoes.iter().filter(|e| e.direct).count();
        let first = self.echoes.first().map(|e| e.back);
        writeln!(f, "{} echoes, {direct} direct, the first at {first:?}", self.echoes.len())?;
        let mut last = (Time::ZERO, None);
        for echo in &self.echoes {
            if echo.back.since(last.0) > Duration::from_secs(1) || last.1 != Some(echo.direct) {
                let how = if echo.direct { "direct" } else { "relayed" };
                writeln!(f, "    {} after {:?}: {how}", echo.back, echo.back.since(last.0))?;
            }
            last = (echo.back, Some(echo.direct));
        }
        writeln!(f, "  {:?}", self.counters)?;
        write!(f, "{}", self.violations)?;
        write!(f, "  trace hash {:016x} over {} happenings", self.hash.0, self.hash.1)
    }
}

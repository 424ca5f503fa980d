//! What a node tells the coordinator of its path to a peer, so that people can be shown it.

use crate::id::RegionId;
use crate::limits;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// A path as the node at its one end sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PathReport {
    /// The peer's address, if the path is direct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The relay's region, if it leads through one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RegionId>,
    /// The round trip in microseconds, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Bytes of data that came since the tunnel began.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes of data that went.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Why the path is direct or not, one sentence for a person at the node.
    #[serde(default)]
    pub sentence: String,
    /// On whose side the reason is: `ours` (the node's), `theirs`, `both` or `between`.
    #[serde(default)]
    pub side: String,
    /// What would change it, if anything would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl PathReport {
    /// Whether both lead the same way.
    #[must_use]
    pub fn same_way(&self, other: &Self) -> bool {
        (self.address, self.relay) == (other.address, other.relay)
    }

    /// Cuts what a stranger sent to what a node of ours would.
    pub(crate) fn tidy(&mut self) {
        cut(&mut self.sentence);
        cut(&mut self.side);
        self.remedy.iter_mut().for_each(cut);
    }
}

fn cut(text: &mut String) {
    if text.len() > limits::PATH_WORDS_MAX {
        let end = (0..=limits::PATH_WORDS_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_words_are_cut_between_letters() {
        let mut report = PathReport {
            sentence: "ü".repeat(limits::PATH_WORDS_MAX),
            side: "x".repeat(9_000),
            remedy: Some("y".repeat(9_000)),
            ..Default::default()
        };
        report.tidy();
        assert_eq!(report.sentence, "ü".repeat(limits::PATH_WORDS_MAX / 2));
        assert_eq!(report.side.len(), limits::PATH_WORDS_MAX);
        assert_eq!(report.remedy.map(|remedy| remedy.len()), Some(limits::PATH_WORDS_MAX));
    }
}

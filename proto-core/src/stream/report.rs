//! The answer to [`super::Header::Report`]: how the acceptor is, one JSON document, then the end of the stream. Unknown
//! fields are ignored, absent ones have defaults.

use serde::{Deserialize, Serialize};

/// Bytes of an answer that an asker reads: many times what it has today.
pub const ANSWER_MAX: usize = 1 << 20;

/// How a node is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Program and version.
    #[serde(default)]
    pub build: String,
    /// Since when it runs.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// Bytes that came in tunnels since then.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes that went.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Peers that it has tunnels with.
    #[serde(default)]
    pub peers: u64,
    /// What its network lets through, in one sentence; empty if it does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_and_older_answers_are_understood() {
        let read: Report = serde_json::from_str(r#"{"build":"warren-agent 9","colour":"red"}"#).unwrap();
        assert_eq!(read, Report { build: "warren-agent 9".into(), ..Report::default() });
    }
}

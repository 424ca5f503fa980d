//! Rare states that worlds must reach now and then: a swarm that never does tests less than it seems to.

use proto_core::node::{NodeEvent, SessionState};
use proto_core::peer::{Loss, PathStory, Source};

/// All of them.
pub const MARKS: &[&str] = &[
    "a path is in doubt",
    "a path has recovered",
    "a path fell silent",
    "a path carries one way",
    "a better path took over",
    "a path by the peer's own packet",
    "no way leads to the peer",
    "a peer restarted",
    "a peer went down",
    "an attempt failed",
    "a relay went down",
    "the server went away",
];

/// What rare state an event tells of.
#[must_use]
pub const fn mark_of(event: &NodeEvent) -> Option<&'static str> {
    match event {
        NodeEvent::Story { story, .. } => match story {
            PathStory::Doubted { .. } => Some("a path is in doubt"),
            PathStory::Recovered { .. } => Some("a path has recovered"),
            PathStory::Lost { why: Loss::Silent, .. } => Some("a path fell silent"),
            PathStory::Lost { why: Loss::OneWay, .. } => Some("a path carries one way"),
            PathStory::Lost { why: Loss::Restarted, .. } => Some("a peer restarted"),
            PathStory::Moved { .. } => Some("a better path took over"),
            PathStory::Direct { source: Source::Reflexive, .. } => Some("a path by the peer's own packet"),
            PathStory::Unreachable => Some("no way leads to the peer"),
            PathStory::Failed { .. } => Some("an attempt failed"),
            _ => None,
        },
        NodeEvent::PeerDown { .. } => Some("a peer went down"),
        NodeEvent::RelayDown { .. } => Some("a relay went down"),
        NodeEvent::Session(SessionState::Down { .. }) => Some("the server went away"),
        _ => None,
    }
}

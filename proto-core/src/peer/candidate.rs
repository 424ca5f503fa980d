//! The addresses that a peer might be reached at.

/// How we know a candidate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// The coordinator told us the peer's endpoints.
    Coordinator,
    /// The peer told us itself, through a relay (call-me-maybe).
    CallMeMaybe,
    /// A packet of the peer came from there (peer-reflexive).
    Reflexive,
}

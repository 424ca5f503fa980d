//! Who may do what at the coordinator, and the codes of refusals.

use crate::id::NodeId;
use crate::wire::control::NodeKind;

/// Who a connection's bearer token says it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Principal {
    /// A workspace's agent, under its own lasting name. It may not ask for tunnels.
    Agent {
        /// The agent.
        id: NodeId,
    },
    /// A person's client. Each of its nodes gets a name of its own, kept by the resume token.
    User {
        /// The person's identifier in the database.
        user: String,
    },
    /// A server's own node, under its own lasting name.
    Server {
        /// The server.
        id: NodeId,
    },
}

impl Principal {
    /// What kind of node this is, whatever it calls itself.
    #[must_use]
    pub const fn kind(&self) -> NodeKind {
        match self {
            Self::Agent { .. } => NodeKind::Agent,
            Self::User { .. } => NodeKind::Client,
            Self::Server { .. } => NodeKind::Server,
        }
    }
}

/// The codes of refusals, which programs may rely on.
pub mod code {
    /// The protocol's major version is another one.
    pub const VERSION: &str = "VERSION";
    /// A message that no honest node sends.
    pub const BAD_MESSAGE: &str = "BAD_MESSAGE";
    /// This node may not do that.
    pub const FORBIDDEN: &str = "FORBIDDEN";
    /// The same identity connected again: this connection is the older one.
    pub const REPLACED: &str = "REPLACED";
    /// The node, its owner or its token was removed.
    pub const EXPELLED: &str = "EXPELLED";
    /// Too many of something.
    pub const TOO_MANY: &str = "TOO_MANY";
    /// The node reads its messages too slowly.
    pub const TOO_SLOW: &str = "TOO_SLOW";
    /// The server is about to stop.
    pub const DRAINING: &str = "DRAINING";
    /// No hello came in time.
    pub const LATE: &str = "LATE";
}

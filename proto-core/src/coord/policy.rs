//! Who may do what at the coordinator, how a node proves that it was here before, and the codes of refusals.

use crate::id::NodeId;
use crate::key::{hex, unhex};
use crate::limits;
use crate::seed::Seed;
use crate::wire::control::{Forbidder, NodeInfo, NodeKind};

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

    /// The lasting name that the token gives; none for a person's clients.
    #[must_use]
    pub(crate) const fn id(&self) -> Option<&NodeId> {
        match self {
            Self::Agent { id } | Self::Server { id } => Some(id),
            Self::User { .. } => None,
        }
    }

    /// Why it may not ask for this tunnel, if that needs no question to the owner.
    pub(crate) fn forbids(&self, us: &NodeId, to: &NodeId) -> Option<&'static str> {
        match self {
            Self::Agent { .. } => Some("an agent does not open tunnels"),
            _ if us == to => Some("a node needs no tunnel to itself"),
            _ => None,
        }
    }

    /// Text that no other principal has, for the resume token.
    fn label(&self) -> String {
        match self {
            Self::Agent { id } => format!("agent {id}"),
            Self::User { user } => format!("user {user}"),
            Self::Server { id } => format!("server {id}"),
        }
    }
}

/// Why a server and a node that speak these versions do not go together, as a sentence; none if they do.
pub(super) fn version_problem(server: &str, node: &str) -> Option<String> {
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let silent = |who| format!("the {who} does not say which version of the coordination protocol it speaks");
    match (major(server), major(node)) {
        (Some(server), Some(node)) if server == node => None,
        (Some(theirs), Some(own)) => {
            let older = if own < theirs { "node" } else { "server" };
            Some(format!(
                "the server speaks version {server} of the coordination protocol and the node {node}: update the {older}"
            ))
        }
        (None, _) => Some(silent("server")),
        (_, None) => Some(silent("node")),
    }
}

/// Gives a node's word about itself its true name, and cuts it to size.
pub(super) fn tidy(info: &mut NodeInfo, id: &NodeId, direct: bool) {
    info.id = id.clone();
    info.endpoints.truncate(limits::CANDIDATES_MAX);
    if !direct {
        info.endpoints.clear();
        info.direct_forbidden = Some(Forbidder::Server);
    }
    info.features.retain(|feature| feature.len() <= limits::FEATURES_MAX);
    info.features.truncate(limits::FEATURES_MAX);
}

/// Seals and opens resume tokens: a name and a keyed hash (BLAKE2s) of it and its principal. Nothing is
/// stored, so a restarted coordinator with the same key still knows its nodes.
pub(super) struct Resume(Seed);

impl Resume {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(Seed::new(key).fork("warren resume token v1"))
    }

    fn proof(&self, id: &NodeId, principal: &Principal) -> [u8; 32] {
        // The name's length keeps "a" + "bc" apart from "ab" + "c".
        *self.0.fork_bytes(format!("{} {id} {}", id.0.len(), principal.label()).as_bytes()).bytes()
    }

    /// The token with which `principal` is `id` again.
    pub(super) fn seal(&self, id: &NodeId, principal: &Principal) -> String {
        format!("{id}.{}", hex(&self.proof(id, principal)))
    }

    /// The name that the token gives to `principal`.
    pub(super) fn open(&self, token: &str, principal: &Principal) -> Option<NodeId> {
        let (id, digits) = token.rsplit_once('.')?;
        let id = NodeId(id.to_owned());
        let ours = self.proof(&id, principal);
        let theirs = unhex(digits)?;
        // Every byte is looked at, so that the time taken tells nothing about where they differ.
        let differ = ours.iter().zip(theirs).fold(0, |acc, (a, b)| acc | (a ^ b));
        (differ == 0).then_some(id)
    }
}

impl core::fmt::Debug for Resume {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Resume(..)")
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
    /// The token is wrong or has expired.
    pub const UNAUTHORIZED: &str = "UNAUTHORIZED";
    /// What the server needs to decide does not answer, its database for example: ask again later.
    pub const UNAVAILABLE: &str = "UNAVAILABLE";

    /// People come by browser alone: their own nodes get no tunnels.
    pub const BROWSER_ONLY: &str = "BROWSER_ONLY";

    /// Whether a session refused with this code is refused for good: nothing but a person changes that. After any
    /// other refusal, one of a busy server for example, trying again helps.
    #[must_use]
    pub fn is_final(code: &str) -> bool {
        matches!(code, UNAUTHORIZED | EXPELLED | VERSION | REPLACED) || code.starts_with("TOKEN_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_token_is_good_for_its_own_name_and_principal_only() {
        let (resume, other) = (Resume::new([1; 32]), Resume::new([2; 32]));
        let ann = Principal::User { user: "ann".to_owned() };
        let bob = Principal::User { user: "bob".to_owned() };
        let id = NodeId("c-1.2".to_owned());
        let token = resume.seal(&id, &ann);
        assert_eq!(resume.open(&token, &ann), Some(id));
        assert_eq!(resume.open(&token, &bob), None);
        assert_eq!(other.open(&token, &ann), None);
        assert_eq!(resume.open(&token.replace("c-1", "c-2"), &ann), None);
        assert_eq!(resume.open("", &ann), None);
        assert_eq!(resume.open("a.b", &ann), None);
    }

    #[test]
    fn another_major_version_is_refused_with_a_sentence() {
        assert_eq!(version_problem("1.0", "1.0"), None);
        assert_eq!(version_problem("1.0", "1.99"), None);
        let said =
            [("1.0", "0.9"), ("1.0", "2.0"), ("1.0", "new"), ("0.9", "1.0"), ("2.0", "1.0"), ("", "1.0")];
        let said = said.map(|(server, node)| version_problem(server, node).unwrap()).join("\n");
        insta::assert_snapshot!(said, @r"
        the server speaks version 1.0 of the coordination protocol and the node 0.9: update the node
        the server speaks version 1.0 of the coordination protocol and the node 2.0: update the server
        the node does not say which version of the coordination protocol it speaks
        the server speaks version 0.9 of the coordination protocol and the node 1.0: update the server
        the server speaks version 2.0 of the coordination protocol and the node 1.0: update the node
        the server does not say which version of the coordination protocol it speaks
        ");
    }
}

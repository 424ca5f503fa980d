//! What a coordinator is told, what it tells, and what it counts.

use crate::coord::Principal;
use crate::id::{NodeId, StreamId};
use crate::key::NodePublic;
use crate::relay_map::RelayMap;
use crate::time::Duration;
use crate::wire::control::{NodeInfo, PathReport};
use core::fmt;

#[cfg(doc)]
use crate::machine::Input;

/// What a coordinator is made of.
#[derive(Clone)]
pub struct CoordinatorConfig {
    /// Whether nodes may talk directly; if not, nobody is told anybody's endpoints.
    pub direct: bool,
    /// The relays to use.
    pub relay_map: RelayMap,
    /// The home relay's region for nodes that choose none themselves, by code, name or number.
    pub relay: Option<String>,
    /// Whether nodes ask relays for a WebSocket from the start.
    pub relay_websockets: bool,
    /// Whether people come by browser alone: then only servers' own nodes get tunnels.
    pub browser_only: bool,
    /// Program and version, for people.
    pub build: String,
    /// What resume tokens are sealed with. Keep it across restarts, so that nodes keep their names.
    pub resume_key: [u8; 32],
}

impl fmt::Debug for CoordinatorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatorConfig")
            .field("direct", &self.direct)
            .field("relay_map", &self.relay_map)
            .field("relay", &self.relay)
            .field("relay_websockets", &self.relay_websockets)
            .field("browser_only", &self.browser_only)
            .field("build", &self.build)
            .finish_non_exhaustive()
    }
}

/// May they talk?
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// No.
    Refused {
        /// A code that programs may rely on, such as [`crate::coord::code::FORBIDDEN`].
        code: String,
        /// A sentence for a person.
        message: String,
    },
}

/// Whom an order is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// One node.
    Node(NodeId),
    /// All nodes of a person.
    User(String),
    /// All nodes whose latest connection was opened by this credential.
    Credential(String),
}

/// What a coordinator's owner asks of it.
#[derive(Clone, PartialEq, Debug)]
pub enum CoordinatorCommand {
    /// A stream was accepted, and its token says who it is. Instead of [`Input::StreamOpened`].
    Admit {
        /// The stream.
        stream: StreamId,
        /// Who.
        principal: Principal,
        /// The owner's name for what proved it, so that [`Who::Credential`] can end what it opened.
        credential: Option<String>,
    },
    /// The answer to [`CoordinatorEvent::Authorize`].
    Authorized {
        /// The request's number.
        request: u64,
        /// The answer.
        verdict: Verdict,
    },
    /// A stream broke under way: nobody answered any more, or no way led there. Its node's own end knows nothing of it, as
    /// [`crate::machine::Input::StreamClosed`] would say.
    Broken {
        /// Which.
        stream: StreamId,
    },
    /// The relays to use; replaces the map said before.
    SetRelayMap(RelayMap),
    /// Ends the tunnel between two nodes, whoever asked for it.
    Withdraw {
        /// One.
        a: NodeId,
        /// The other.
        b: NodeId,
        /// Why, in words for a person.
        reason: String,
    },
    /// Ends all tunnels and the session: the node, the person or the token was removed.
    Expel {
        /// Whom.
        who: Who,
        /// A code that programs may rely on, such as [`crate::coord::code::EXPELLED`].
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// The server will stop: everybody is asked to come back after about this long, and nobody new is let in.
    Drain {
        /// How long.
        retry_after: Duration,
    },
}

/// What a coordinator tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CoordinatorEvent {
    /// May this node talk to that one? Answer by [`CoordinatorCommand::Authorized`], always.
    Authorize {
        /// The request's number.
        request: u64,
        /// Who asks.
        principal: Principal,
        /// The asking node.
        from: NodeId,
        /// To whom.
        to: NodeId,
    },
    /// A node has connected. It comes again when it connects anew.
    Online {
        /// Who.
        id: NodeId,
        /// Whose.
        principal: Principal,
        /// Its node key.
        node_key: NodePublic,
        /// Its program and version, for people.
        build: String,
        /// The owner's name for what proved it, as [`CoordinatorCommand::Admit`] said it.
        credential: Option<String>,
    },
    /// A node has said what others need to reach it, new or changed: home relay, endpoints.
    Changed {
        /// What it said, with its name filled in.
        node: NodeInfo,
    },
    /// A node has said how its path to a peer is. It is the node's own word, at most one each
    /// [`crate::limits::PATH_REPORT_EVERY`] or nearly so for each pair.
    Path {
        /// Who says it.
        node: NodeId,
        /// Whose.
        principal: Principal,
        /// To whom the path leads.
        peer: NodeId,
        /// The path.
        path: PathReport,
    },
    /// A node is not connected any more.
    Offline {
        /// Who.
        id: NodeId,
        /// Whether it said goodbye or was expelled; if not, it is expected back.
        gone: bool,
    },
}

/// What a coordinator has counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CoordinatorCounters {
    /// Connections admitted.
    pub admitted: u64,
    /// Sessions greeted.
    pub welcomed: u64,
    /// Of these, those that resumed an earlier one.
    pub resumed: u64,
    /// Sessions that took the place of one still connected.
    pub replaced: u64,
    /// Connections sent away for a moment, because too many came at once.
    pub postponed: u64,
    /// Sessions refused or ended by us, for any reason.
    pub refused: u64,
    /// Connections that broke.
    pub lost: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Node updates that changed nothing and went nowhere.
    pub unchanged: u64,
}

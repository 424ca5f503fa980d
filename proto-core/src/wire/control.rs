//! Coordination messages: versioned JSON, one document a message, between a node and the coordinator.
//!
//! Nodes live for months, so the format only grows: unknown fields and unknown kinds are ignored, absent
//! fields have defaults, and nothing here is ever renamed. The golden documents in this room's tests hold it.

mod path;

pub use path::PathReport;

use crate::id::{NodeId, RegionId};
use crate::key::{DiscoPublic, NodePublic};
use crate::limits;
use crate::relay_map::RelayMap;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// The version that this build speaks. A server refuses another major version with a sentence.
pub const VERSION: &str = "1.0";

/// What kind of node speaks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A workspace's agent: others may be let to it; it never asks for a tunnel itself.
    Agent,
    /// A person's client.
    #[default]
    Client,
    /// A server's own node.
    Server,
    /// A kind that this build does not know.
    #[serde(other)]
    Unknown,
}

/// What a node tells the coordinator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToServer {
    /// The first message.
    Hello(Hello),
    /// What others need to reach this node; replaces what it said before.
    Node {
        /// The node's own view of itself. Its `id` is ignored: the coordinator knows who speaks.
        node: NodeInfo,
    },
    /// Asks for a tunnel.
    OpenTunnel {
        /// To whom.
        to: NodeId,
    },
    /// Gives a tunnel up.
    CloseTunnel {
        /// To whom.
        to: NodeId,
    },
    /// The peer named has been programmed here: its handshake will be answered.
    Ready {
        /// The peer.
        peer: NodeId,
    },
    /// The path to a peer, for people who ask about it.
    Path {
        /// The peer.
        peer: NodeId,
        /// The path as the node sees it.
        path: PathReport,
    },
    /// Asks for [`ToNode::Pong`], so that a dead connection is noticed.
    Ping {
        /// Comes back in the answer.
        id: u64,
    },
    /// The node leaves for good: its peers are told at once.
    Bye,
    /// A kind that this build does not know.
    #[serde(other)]
    Unknown,
}

/// The first message of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol version that the node speaks, [`VERSION`].
    pub version: String,
    /// What kind of node it is.
    #[serde(default)]
    pub kind: NodeKind,
    /// Its node key.
    pub node_key: NodePublic,
    /// The token of an earlier session's [`Welcome`], to keep its identity and tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// The program and version, for people.
    #[serde(default)]
    pub build: String,
}

/// What forbids a node's direct connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forbidder {
    /// A flag of the program, given at its start.
    Flag,
    /// A variable of the program's environment.
    Variable,
    /// A line of the program's settings file.
    File,
    /// The server's policy, for all its nodes.
    Server,
    /// Something that this build does not know, or that nobody has named.
    #[serde(other)]
    Unknown,
}

/// What others need to know to reach a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Who it is.
    #[serde(default = "no_id")]
    pub id: NodeId,
    /// Its node key, the identity that WireGuard proves.
    pub node_key: NodePublic,
    /// Its disco key.
    pub disco_key: DiscoPublic,
    /// Drawn anew at each start of the process: tells a restart from a reconnection.
    #[serde(default)]
    pub boot_id: u64,
    /// Its home relay's region; 0 if it has none.
    #[serde(default)]
    pub home: RegionId,
    /// Addresses it might be reached at.
    #[serde(default)]
    pub endpoints: Vec<SocketAddr>,
    /// The one of them that its router leads to it by a port mapping, whoever sends to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<SocketAddr>,
    /// Extensions it understands, [`FEATURE_OPENED`] for example. Unknown ones are ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// What forbids its direct connections, if anything does. It then names no endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_forbidden: Option<Forbidder>,
}

/// The feature "understands disco's opened message" (open-ack-punch).
pub const FEATURE_OPENED: &str = "opened";

/// It tells what its NAT is like, and guesses ports.
pub const FEATURE_GUESS: &str = "guess";

fn no_id() -> NodeId {
    NodeId(String::new())
}

/// What the coordinator tells a node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToNode {
    /// The answer to [`Hello`].
    Welcome(Welcome),
    /// The relays to use; replaces the map said before.
    RelayMap {
        /// The map.
        map: RelayMap,
    },
    /// A peer, new or changed.
    Peer {
        /// What is known of it.
        peer: NodeInfo,
    },
    /// A peer's connection to the coordinator broke. Its tunnel goes on.
    PeerLost {
        /// The peer.
        id: NodeId,
        /// Whether its own end closed the connection just now, as the kernel does for a process that was killed: if
        /// nothing is heard of it any more, it is gone. Else it may be out of reach for a while.
        #[serde(default, skip_serializing_if = "is_no")]
        closed: bool,
    },
    /// A peer left, or the tunnel was withdrawn: forget it.
    PeerGone {
        /// The peer.
        id: NodeId,
        /// Why, in words for a person.
        #[serde(default)]
        reason: String,
    },
    /// The peer has programmed us: a handshake will be answered.
    PeerReady {
        /// The peer.
        id: NodeId,
    },
    /// A request was refused; with no `to`, the session itself, which then ends.
    Refused {
        /// The tunnel that was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<NodeId>,
        /// A code that programs may rely on, such as `FORBIDDEN`.
        code: String,
        /// A sentence for a person.
        #[serde(default)]
        message: String,
    },
    /// The answer to [`ToServer::Ping`].
    Pong {
        /// The ping's.
        id: u64,
    },
    /// The server is about to stop: reconnect after this long, until then go on.
    Draining {
        /// Milliseconds.
        #[serde(default)]
        retry_after_ms: u64,
    },
    /// The nodes are so many that they must not all come back at once, should the server restart: each chooses a moment
    /// within this long.
    Spread {
        /// Milliseconds.
        over_ms: u64,
    },
    /// A kind that this build does not know.
    #[serde(other)]
    Unknown,
}

/// The coordinator's greeting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version that the server speaks.
    pub version: String,
    /// Who the node is.
    pub id: NodeId,
    /// For [`Hello::resume`] of the next session.
    #[serde(default)]
    pub resume: String,
    /// Whether direct connections are allowed; if not, everything goes through relays.
    #[serde(default = "yes")]
    pub direct: bool,
    /// The server's program and version, for people.
    #[serde(default)]
    pub build: String,
    /// The home relay's region for nodes that have chosen none themselves, by code, name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Whether relays are to be asked for a WebSocket from the start: something on the nodes' way breaks the other
    /// upgrade.
    #[serde(default, skip_serializing_if = "is_no")]
    pub relay_websockets: bool,
    /// Whether nobody but the server's own node gets in: peers that the coordinator does not mention after its greeting
    /// are gone then, and not only lost.
    #[serde(default, skip_serializing_if = "is_no")]
    pub browser_only: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_no(flag: &bool) -> bool {
    !*flag
}

const fn yes() -> bool {
    true
}

/// Why a message could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// Longer than [`limits::CONTROL_MESSAGE_MAX`].
    #[error("the message has {0} bytes, more than the {max} allowed", max = limits::CONTROL_MESSAGE_MAX)]
    TooLong(usize),
    /// Not the JSON expected.
    #[error("not a coordination message: {0}")]
    Json(String),
}

impl ToServer {
    /// The message's JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// If it is too long or not such a message.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        parse(bytes)
    }
}

impl ToNode {
    /// The message's JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// If it is too long or not such a message.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        parse(bytes)
    }
}

fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // These types have only string keys and no failing serializers, so this cannot fail.
    serde_json::to_vec(message).unwrap_or_default()
}

fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, ControlError> {
    if bytes.len() > limits::CONTROL_MESSAGE_MAX {
        return Err(ControlError::TooLong(bytes.len()));
    }
    serde_json::from_slice(bytes).map_err(|e| ControlError::Json(e.to_string()))
}

#[cfg(test)]
mod tests;

//! Coordination and its session.

use super::PEERS_MAX;
use crate::time::Duration;

// --- Coordination ---------------------------------------------------------------------------------------

/// Bytes of one coordination message. A node record with every endpoint is 4 KiB, a relay map of 25 regions
/// 20 KiB; a megabyte is far beyond both and bounds a hostile sender.
pub const CONTROL_MESSAGE_MAX: usize = 1 << 20;

// --- Connections that come back: relay links and the session --------------------------------------------

/// The shortest wait before another attempt (Coder's first redial takes as long).
pub const RECONNECT_MIN: Duration = Duration::from_millis(50);

/// The longest wait before another attempt (Coder's, too): a server that returns is found within it.
pub const RECONNECT_MAX: Duration = Duration::from_secs(10);

/// Logins a server lets in a second, and the time over which nodes that lose it come back: under a third of the 6,900 TLS
/// logins that one of its processors does (measured on a relay), so that others' requests find it free.
pub const LOGINS_PER_SECOND: u32 = 2_000;

/// Logins let in at once: what a processor does in less than 100 ms.
pub const LOGINS_BURST: u32 = 500;

/// The grain in which nodes are told over how long they must spread: fewer nodes than this takes do no harm, and each
/// change is a message to each.
pub const SPREAD_STEP: Duration = Duration::from_millis(100);

/// How long a name may take to resolve before the attempt counts as failed. Resolvers retry after 5 s, when
/// the first server is dead; the next attempt profits from that answer.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a session must have lasted to be of use: only then does the next attempt come soon. A server
/// that greets and falls over at once is not hammered.
pub const SESSION_USEFUL: Duration = Duration::from_secs(10);

/// How long the coordination stream may take to open: TCP, TLS and HTTP are 4 round trips, and one lost
/// packet costs a second.
pub const SESSION_OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a greeting may take, seen from either end.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence after which a node pings the coordinator. NATs keep TCP for minutes, proxies often only 60 s.
pub const SESSION_PING: Duration = Duration::from_secs(15);

/// How long the coordinator may take to answer a ping.
pub const SESSION_PONG: Duration = Duration::from_secs(10);

/// The same after a change of network, when the connection is likely dead.
pub const SESSION_PONG_AFTER_KICK: Duration = Duration::from_secs(2);

/// Silence after which the coordinator takes a node for lost: two pings missed, and an answer's time.
pub const COORDINATOR_IDLE: Duration = Duration::from_secs(45);

/// After a reconnection, the time in which the coordinator mentions every peer again; those it does not
/// mention are lost. It says them right after its greeting, so this is one slow link's worth.
pub const SESSION_SETTLE: Duration = Duration::from_secs(5);

/// The wait after a session was refused. Only a person changes that, but an agent must come back by itself.
pub const SESSION_REFUSED_RETRY: Duration = Duration::from_secs(60);

/// The longest drain that a server may ask for; a longer word is cut to it.
pub const DRAIN_MAX: Duration = Duration::from_secs(600);

/// From one word of a node on its path to a peer to the next. A plot of half an hour is 360 of them, and a server's
/// node with a thousand tunnels in use says 200 a second.
pub const PATH_REPORT_EVERY: Duration = Duration::from_secs(5);

/// Bytes of each text in such a word. Our longest sentence has half as many.
pub const PATH_WORDS_MAX: usize = 400;

/// How long the coordinator remembers a node that was lost, with its tunnels. Coder's nodes keep a lost peer
/// as long.
pub const RESUME_GRACE: Duration = Duration::from_secs(15 * 60);

/// Connections of one coordinator. Coder's scale tests stop at 30,000 workspaces.
pub const COORDINATOR_CONNECTIONS_MAX: usize = 65_536;

/// Nodes that a coordinator remembers, connected or lost; twice the connections.
pub const COORDINATOR_NODES_MAX: usize = 131_072;

/// Questions of one node to the coordinator's owner that are open at once.
pub const AUTHORIZATIONS_MAX: usize = 256;

/// Messages that wait for one slow node: every peer twice.
pub const CONTROL_QUEUE_MAX: usize = 2 * PEERS_MAX;

/// Bytes that wait for one slow node: a thousand typical peers and a few relay maps.
pub const CONTROL_QUEUE_BYTES: usize = 4 << 20;

/// Bytes of a node's name, as the coordinator takes it. A UUID has 36.
pub const NODE_ID_MAX: usize = 128;

/// Features of a node, and bytes of one feature's name.
pub const FEATURES_MAX: usize = 32;

/// Addresses kept of one name: more than any resolver's answer that is worth trying.
pub const ADDRESSES_MAX: usize = 16;

/// Nodes of one person that a coordinator remembers, connected or lost. A person has a few machines and scripts;
/// a CI system under one name may run hundreds of commands at once. One leaked token shall not take all places.
pub const COORDINATOR_NODES_PER_USER_MAX: usize = 2_048;

/// Questions to the coordinator's owner that are open at once, over all nodes: after a restart every client
/// asks for its tunnel within seconds.
pub const COORDINATOR_REQUESTS_MAX: usize = 65_536;

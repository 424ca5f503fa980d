//! Every cap and every interval, with its unit, its reason and its source. A number that someone might want
//! to change lives here and nowhere else.

use crate::time::Duration;

// --- Coordination -----------------------------------------------------------------------------------------

/// Bytes of one coordination message. A node record with every endpoint is 4 KiB, a relay map of 25 regions
/// 20 KiB; a megabyte is far beyond both and bounds a hostile sender.
pub const CONTROL_MESSAGE_MAX: usize = 1 << 20;

// --- Peers ------------------------------------------------------------------------------------------------

/// Candidates kept a peer. Nodes with 32 addresses exist (`landscape`: iroh's many-address tests); twice
/// that leaves room for peer-reflexive ones, and bounds what a hostile peer can make us remember.
pub const CANDIDATES_MAX: usize = 64;

/// Peers of one node. A server's own node talks to every agent that a browser has open.
pub const PEERS_MAX: usize = 4_096;

/// The pause between two pings of a path in use. Tailscale takes 3 s and trusts a path for 6.5 s.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

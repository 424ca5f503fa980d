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

// --- Wire and relay map -----------------------------------------------------------------------------------

/// Bytes of a relay map document. Tailscale's default map of 25 regions has 20 KiB; a megabyte is far beyond
/// any real one and equals the cap of the coordination message that carries it.
pub const RELAY_MAP_MAX: usize = 1 << 20;

/// Regions of a relay map. The greatest known has 25; every node measures them all.
pub const RELAY_REGIONS_MAX: usize = 256;

/// Nodes of one region. Tailscale's largest regions have 6.
pub const RELAY_NODES_MAX: usize = 64;

/// Bytes of a name in a relay map: DNS's limit for a host (RFC 1035, section 2.3.4).
pub const RELAY_NAME_MAX: usize = 255;

/// Nesting of a relay map document. The real one is 5 deep; this bounds the reader's stack.
pub const RELAY_MAP_DEPTH_MAX: usize = 32;

/// Addresses of one call-me-maybe, as many as a peer's candidates. A datagram of 64 KiB would hold 3,640.
pub const CALL_ME_MAYBE_MAX: usize = CANDIDATES_MAX;

/// Bytes of a disco ping's padding: no datagram is longer than 64 KiB, and no path wider than 9 KiB is probed.
pub const DISCO_PADDING_MAX: usize = 9_216;

/// Bytes of a DERP `ClientInfo` payload that a relay takes: Tailscale's limit.
pub const DERP_CLIENT_INFO_MAX: usize = 262_144;

/// Bytes of a DERP `ServerInfo` payload that a node takes: Tailscale's limit, a nonce and a megabyte.
pub const DERP_SERVER_INFO_MAX: usize = 24 + (1 << 20);

/// Bytes of any other DERP frame that carries no packet. The longest known has 51; later versions may append,
/// and this bounds what a decoder keeps for them.
pub const DERP_CONTROL_FRAME_MAX: usize = 65_536;

/// Bytes of a DERP ping that is answered: Tailscale's relay closes the connection on a longer one.
pub const DERP_PING_MAX: usize = 1_000;

//! Wire, relay map and the beginnings of streams.

use super::CANDIDATES_MAX;

// --- Wire and relay map ---------------------------------------------------------------------------------

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

/// Bytes of a DERP `ClientInfo` payload that a relay takes. Those of all known clients have less than 400.
/// Tailscale's relay takes 256 KiB; here thousands who have not logged in may make us keep so much of each.
pub const DERP_CLIENT_INFO_MAX: usize = 16_384;

/// Bytes of a DERP `ServerInfo` payload that a node takes: Tailscale's limit, a nonce and a megabyte.
pub const DERP_SERVER_INFO_MAX: usize = 24 + (1 << 20);

/// Bytes of any other DERP frame that carries no packet. The longest known has 51; later versions may append,
/// and this bounds what a decoder keeps for them.
pub const DERP_CONTROL_FRAME_MAX: usize = 65_536;

/// Bytes of a DERP ping that is answered: Tailscale's relay closes the connection on a longer one.
pub const DERP_PING_MAX: usize = 1_000;

// --- Streams --------------------------------------------------------------------------------------------

/// Bytes of the JSON that a stream begins with. A service's name and an address take a hundred; the rest of the
/// first datagram is for data.
pub const STREAM_HEADER_MAX: usize = 1_024;

//! A node, and its peers as such.

use crate::time::Duration;

// --- Node -----------------------------------------------------------------------------------------------

/// How long a peer that the coordinator has lost is kept after its last handshake (Coder's 15 minutes): a
/// tunnel in use shakes hands every two, so only abandoned ones end.
pub const LOST_PEER_KEPT: Duration = Duration::from_secs(15 * 60);

/// How long a peer whose own end closed its connection to the coordinator may stay silent, though it is asked for a sign
/// of life, until it counts as ended: two initiations and the answer to the second through a far relay. Who uses a
/// tunnel shall know within 3 s that the other end was killed.
pub const CLOSED_PEER: Duration = Duration::from_secs(2);

/// The same for a peer that asked for the tunnel itself: nobody waits for it, and behind a proxy that restarts it is back
/// within [`super::RECONNECT_MAX`].
pub const CLOSED_CLIENT: Duration = Duration::from_secs(12);

/// What came so soon after the coordinator's word that a connection was closed may have been under way before.
pub const CLOSED_LATE: Duration = Duration::from_secs(1);

/// Keys pinned. Beyond it new peers are let in unpinned rather than old pins forgotten.
pub const PINS_MAX: usize = 65_536;

/// UDP sockets of one node: one a family, with room for one an interface.
pub const LINKS_MAX: usize = 64;

/// What is remembered of a peer's path, for people.
pub const STORY_MAX: usize = 32;

/// Regions besides its home through which a peer was heard. A peer sends through our home, and through the
/// one before while we move.
pub const HEARD_MAX: usize = 4;

/// Names of peers that were announced ready before they were announced.
pub const EARLY_READY_MAX: usize = 64;

/// How often the relays of peers in use are claimed anew, half of the time after which a pool closes an idle
/// one: a direct path that breaks finds the relay connected.
pub const RELAY_CLAIM: Duration = Duration::from_secs(30);

// --- Peers ----------------------------------------------------------------------------------------------

/// Candidates kept a peer. Nodes with 32 addresses exist (iroh tests with as many); twice that leaves room for peer-reflexive ones, and bounds what a hostile peer can make us remember.
pub const CANDIDATES_MAX: usize = 64;

/// Peers of one node. A server's own node talks to every agent that a browser has open.
pub const PEERS_MAX: usize = 4_096;

/// The pause between two pings of a path in use. Tailscale takes 3 s and trusts a path for 6.5 s.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

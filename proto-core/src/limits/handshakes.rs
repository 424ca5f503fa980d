//! Handshakes.

use crate::time::Duration;

/// How long whoever asked for a tunnel waits for the word that the peer is ready. An old coordinator never
/// says it (`coder-behaviour` 2.4: its clients wait up to 5 s).
pub const READY_WAIT: Duration = Duration::from_secs(1);

/// How long the side that did not ask waits with data in hand before it begins itself: the other side's
/// handshake is probably on its way, and two at once cost a round trip.
pub const HANDSHAKE_YIELD: Duration = Duration::from_secs(1);

/// The first pause before an initiation is repeated; it doubles from there. It must outlast a round trip
/// through a far relay, since the engine then takes the late answer for a stranger's. WireGuard takes 5 s.
pub const HANDSHAKE_PAUSE: Duration = Duration::from_secs(1);

/// The longest such pause: WireGuard's own (REKEY_TIMEOUT, whitepaper 6.1).
pub const HANDSHAKE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// The least pause when a way has just come back.
pub const HANDSHAKE_PAUSE_MIN: Duration = Duration::from_millis(250);

/// Initiations after which the side that did not ask forgets its data: WireGuard tries for 90 s.
pub const HANDSHAKE_TRIES: u32 = 8;

/// Data sent this long without anything authenticated back begins a handshake. WireGuard takes 15 s
/// (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT); streams are acknowledged within a round trip.
pub const SESSION_SILENCE: Duration = Duration::from_secs(5);

/// A session silent this long despite data and handshakes is forgotten: an engine that has given up
/// (boringtun after 90 s) would not begin anew otherwise.
pub const SESSION_DEAD: Duration = Duration::from_secs(30);

//! Port guessing: how much may be tried, and how long.

use crate::time::Duration;

// --- Port guessing --------------------------------------------------------------------------------------

/// Sockets that the hard side opens. With 256, 1,159 random tries hit one 99 times in a hundred; carriers that count
/// sessions allow a customer one to two thousand.
pub const GUESS_SOCKETS: u32 = 256;

/// Sockets where ports come one after another or from a block of 1,024: a sixteenth of the block, and 72 tries in it
/// hit one 99 times in a hundred.
pub const GUESS_SOCKETS_NEAR: u32 = 64;

/// Sockets in a wider block: a thirty-second of 4,096, and 146 tries hit one 99 times in a hundred.
pub const GUESS_SOCKETS_BLOCK: u32 = 128;

/// Tries of one attempt: with [`GUESS_SOCKETS`], all but one in a thousand hit. Home routers keep 4,096 entries or more.
pub const GUESS_PROBES: u32 = 1_800;

/// Between two handfuls of packets.
pub const GUESS_TICK: Duration = Duration::from_millis(20);

/// Packets of a handful, 450 a second: with plain punching beside them never 500, which carriers' limits on new
/// flows and intrusion detection let pass.
pub const GUESS_A_TICK: u32 = 9;

/// The same as a rate, which holds whenever sockets come up and ticks are late.
pub const GUESS_RATE: u32 = 450;

/// Sockets whose ports are measured before an attempt: a sequence or block is known by that many.
pub const GUESS_MEASURE: usize = 4;

/// How long the measurement may take before one more packet asks: slow round trips, but for what is lost.
pub const GUESS_MEASURE_AGAIN: Duration = Duration::from_millis(300);

/// How long in all.
pub const GUESS_MEASURE_MAX: Duration = Duration::from_millis(900);

/// How long the peer may take to say which port it will have: its measurement, and a round trip through a relay.
pub const GUESS_ASK: Duration = Duration::from_secs(3);

/// Hop limit of the openers: through three NATs of our own, and not as far as the peer's, which an early packet may
/// upset.
pub const GUESS_TTL: u8 = 4;

/// How long plain punching goes first: an address-restricted NAT answers within three round trips of 50 ms.
pub const GUESS_AFTER: Duration = Duration::from_millis(200);

/// How long the sockets stay open after the last: all tries of the peer, and a round trip.
pub const GUESS_WAIT: Duration = Duration::from_secs(6);

/// How long the last try may take to be answered: a slow round trip.
pub const GUESS_LAST: Duration = Duration::from_secs(1);

/// How long sockets that were hit stay open beside the path, since the peer may have chosen another of them.
pub const GUESS_KEPT: Duration = Duration::from_secs(10);

/// The pause between two attempts in any case.
pub const GUESS_PAUSE: Duration = Duration::from_secs(10);

/// The pause after an attempt that failed; it doubles from there. What broke it (a router that restarts in the middle, a
/// cut of some seconds) is mostly over by then.
pub const GUESS_REST: Duration = Duration::from_secs(15);

/// The longest such pause.
pub const GUESS_REST_MAX: Duration = Duration::from_secs(3_600);

/// The name of the first socket opened for guessing: those of the driver's own count up from zero.
pub const GUESS_LINKS: u32 = 1 << 31;

// --- Fresh sockets --------------------------------------------------------------------------------------

/// Names of fresh sockets, used in turn.
pub const FRESH_SOCKETS: u32 = 16;

/// Names of sockets that one peer's machine may ask for in all.
pub const PEER_SOCKETS: u32 = GUESS_SOCKETS + FRESH_SOCKETS;

/// How long both sides punch in vain before one goes on from a fresh socket: a probe's answer over a slow round trip of
/// 600 ms, or several lost ones over a usual one. A router that restarted is to be direct again within 5 s, and the path's
/// loss has taken 3.
pub const FRESH_AFTER: Duration = Duration::from_millis(1_000);

/// The pause from one fresh socket to the next; it doubles from there.
pub const FRESH_REST: Duration = Duration::from_secs(10);

/// Ports tried along a sequence before all others: what others have taken since it was seen, at some a second.
pub const SEQUENCE_GUESSES: u32 = 256;

/// Where two sequences meet: the opener's packets go to the port that the other will have at this of its tries, and
/// as many follow. What others take meanwhile on either side may be as much.
pub const SEQUENCE_AHEAD: u16 = 32;

/// Times that each of the opener's sockets sends where two sequences meet.
pub const SEQUENCE_ROUNDS: u32 = 3;

/// Ports of a carrier's block for one customer, of 512 to 4,096: what is told apart.
pub const PORT_BLOCKS: [u16; 2] = [1_024, 4_096];

/// How many ports must lie close to be a block: by chance, four do so once in a thousand times.
pub const PORT_BLOCK_SEEN: usize = 4;

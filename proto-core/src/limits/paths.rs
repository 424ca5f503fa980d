//! A peer's paths, and how they are found.

use crate::time::Duration;

// --- A peer's paths -------------------------------------------------------------------------------------

/// How long a round trip counts for smoothing. After half a minute without an answer the path may be another
/// one behind the same address.
pub const ANSWER_FRESH: Duration = Duration::from_secs(30);

/// How long a candidate that was heard from is kept though nobody names it any more. Tailscale forgets those
/// learned at run time after 45 s.
pub const CANDIDATE_MEMORY: Duration = Duration::from_secs(45);

/// What a move between working paths must gain at least. Round trips on one host or LAN differ by tenths of
/// a millisecond by chance.
pub const PATH_GAIN: Duration = Duration::from_millis(2);

/// The pause between two moves among working paths, against flapping (`simulation` 6.5: at most one in 10 s).
pub const PATH_HOLD: Duration = Duration::from_secs(10);

/// How long after becoming direct better candidates may still take over at once: answers of the same attempt
/// come in within it.
pub const PATH_SETTLE: Duration = Duration::from_secs(1);

/// A direct path this fast is not improved upon. Tailscale's `goodEnoughLatency`.
pub const GOOD_ENOUGH: Duration = Duration::from_millis(5);

/// The pause between two searches for a better path while direct. Tailscale takes 60 s.
pub const UPGRADE_EVERY: Duration = Duration::from_secs(30);

/// The least time an answer may take before we wonder: a scheduler's hiccup or a busy Wi-Fi is no outage.
pub const PATIENCE_MIN: Duration = Duration::from_millis(300);

/// What an echo of data may take beside one and a half round trips: a stream's acknowledgement waits 25 ms
/// (RFC 9000, 18.2), and as much again for a scheduler.
pub const ECHO_DELAY: Duration = Duration::from_millis(50);

/// The least time we wait for an echo of data before a copy goes through a relay as well.
pub const ECHO_PATIENCE_MIN: Duration = Duration::from_millis(100);

/// The pause between two doubts because the peer turned to a relay with its data: late packets of a relay mix with
/// those of a path for about a round trip.
pub const TURN_PAUSE: Duration = Duration::from_secs(1);

/// Echoes of data missed in a row, on a path that answers probes, that start the check whether full-size packets
/// pass: one may be a burst's end, two a lost packet each.
pub const ECHO_MISSES: u32 = 3;

/// The most time we wait for an answer before we wonder: even a bloated queue of two seconds gets there.
pub const PATIENCE_MAX: Duration = Duration::from_secs(2);

/// How long a path may stay without an answer before it is given up. With a probe each 300 ms, ten must be
/// lost in a row; the bound for leaving a dead path is 3.5 s (`simulation` 6.5).
pub const PATH_LOST: Duration = Duration::from_secs(3);

/// How long a silent path is kept when there is no relay to turn to.
pub const PATH_FORLORN: Duration = Duration::from_secs(30);

/// After this long without an answer an unused path may be gone: three heartbeats.
pub const PATH_STALE: Duration = Duration::from_secs(3);

/// After this long without a packet a NAT may have forgotten an unused path. RFC 4787 asks for two minutes,
/// common NATs keep 30 s.
pub const PATH_EXPIRED: Duration = Duration::from_secs(25);

/// Data sent this long without any data back starts the check whether full-size packets pass. Streams are
/// acknowledged within a round trip and 25 ms (RFC 9000, 18.2).
pub const DATA_SILENCE: Duration = Duration::from_millis(1_500);

/// Full-size probes of that check: six lost while short ones pass is no chance.
pub const FULL_CHECK_PROBES: u32 = 6;

/// The pause between two such checks when the first found nothing wrong.
pub const FULL_CHECK_EVERY: Duration = Duration::from_secs(10);

/// How long a path that passes probes but no data is left alone.
pub const BENCH: Duration = Duration::from_secs(60);

/// Bytes of a full-size probe: QUIC's smallest full datagram of 1,200 bytes (RFC 9000, 14) inside inner
/// IPv6 and UDP headers (48) and WireGuard's (32).
pub const FULL_PROBE_LEN: usize = 1_280;

// --- Punching -------------------------------------------------------------------------------------------

/// The first pause between two probes of one candidate in an attempt; it doubles from there.
pub const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause.
pub const PROBE_PAUSE_MAX: Duration = Duration::from_millis(1_600);

/// How long a probe's answer counts. Tailscale's ping timeout.
pub const PROBE_MEMORY: Duration = Duration::from_secs(5);

/// Probes remembered a peer: more than the budget allows within [`PROBE_MEMORY`].
pub const PROBES_MAX: usize = 320;

/// Answered probes of the peer remembered, so that a duplicated datagram is not answered twice.
pub const ANSWERED_MAX: usize = 32;

/// Probes and openers to one peer at once: an opener or a probe to each candidate.
pub const PROBE_BURST: u32 = 64;

/// Probes and openers a second to one peer beyond the burst: a few candidates at their quickest.
pub const PROBE_RATE: u32 = 40;

/// Answers to a peer's probes at once.
pub const ANSWER_BURST: u32 = 96;

/// Answers a second to one peer's probes: what a peer with our own budget can ask for.
pub const ANSWER_RATE: u32 = 60;

/// Words through the relay to one peer at once (call-me-maybe, opened, answers).
pub const WORD_BURST: u32 = 12;

/// Words through the relay to one peer a second.
pub const WORD_RATE: u32 = 4;

/// How long one attempt to go direct probes. Tailscale gives each ping 5 s.
pub const ATTEMPT: Duration = Duration::from_secs(4);

/// How long an attempt goes on while a path is in use already: for the peer, or for a better path.
pub const ATTEMPT_ASIDE: Duration = Duration::from_secs(2);

/// The first pause after an attempt that failed; it doubles from there.
pub const REST: Duration = Duration::from_secs(1);

/// The longest pause between attempts, while the peer is used. Tailscale tries anew every 60 s.
pub const REST_MAX: Duration = Duration::from_secs(60);

/// The longest pause while a direct path is known to have worked within [`RECENTLY_DIRECT`]: a path that
/// heals is used again within 5 s (`simulation` 6.5).
pub const REST_MAX_AFTER_LOSS: Duration = Duration::from_secs(2);

/// How long a lost path makes us hurry.
pub const RECENTLY_DIRECT: Duration = Duration::from_secs(300);

/// The least pause between two attempts that the peer asks for without naming anything new.
pub const ANSWER_PAUSE: Duration = Duration::from_millis(500);

/// How long a peer is worth attempts after it was told or called, though no data flows yet.
pub const WANTED: Duration = Duration::from_secs(30);

/// How long data counts as use of a path after it flowed: idle is 30 s without application data, so the NAT's
/// mapping (30 s) is kept up through it.
pub const ACTIVE_TAIL: Duration = Duration::from_secs(30);

/// Hop limits of the openers of the first attempt: 2 leaves our own NAT and dies at the next router.
pub const OPENER_TTLS: &[u8] = &[2];

/// Hop limits of later attempts: also through a second and third NAT of our own (a carrier's).
pub const OPENER_TTLS_LATER: &[u8] = &[2, 4];

/// How long an opener counts. Linux forgets an unanswered mapping after 30 s.
pub const OPENER_FRESH: Duration = Duration::from_secs(10);

/// How long we wait for the "opened" of a peer that was heard through a relay before we probe without it. It
/// travels over TCP and is hardly ever lost; a round trip through a far relay is 600 ms.
pub const OPENED_WAIT: Duration = Duration::from_secs(1);

/// Attempts in which a peer not heard through any relay is not probed in full: it is probably not there yet.
pub const ATTEMPTS_PATIENT: u32 = 3;

/// After this long "opened" is told once more.
pub const OPENED_AGAIN: Duration = Duration::from_millis(400);

/// How long we wait for a relay to tell "opened" through.
pub const RELAY_WAIT: Duration = Duration::from_secs(2);

/// Candidates learned from the peer's packets, kept apart from those told: a symmetric NAT shows a new address
/// an attempt, and replayed packets must not displace what the peer itself told.
pub const LEARNED_MAX: usize = 16;

/// Relay regions remembered a peer: its home and those it was heard through.
pub const PEER_REGIONS_MAX: usize = 8;

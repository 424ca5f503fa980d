//! Netcheck.

use crate::time::Duration;

/// How long a run waits for STUN answers before UDP counts as blocked (Tailscale's STUN phase).
pub const STUN_PHASE: Duration = Duration::from_secs(3);

/// The pause between two requests to a region that has never been measured (Tailscale's initial retransmission).
pub const STUN_RETRY: Duration = Duration::from_millis(100);

/// Requests to a region in a full run.
pub const STUN_TRIES: u32 = 3;

/// Regions measured in a run that is not full, besides home: enough to notice a nearer one.
pub const STUN_NEAREST: usize = 3;

/// Regions whose answers are enough: the others are then waited for no longer than twice the slowest of these.
pub const STUN_ENOUGH: usize = 3;

/// Regions measured at all. Tailscale's map has 25; this bounds what a hostile map makes us send.
pub const STUN_REGIONS_MAX: usize = 64;

/// How long after a path was found doubtful a new address of ours outside means that the NAT restarted, and not that
/// an idle mapping has expired: a netcheck's length.
pub const REMAPPED_BY_DOUBT: Duration = Duration::from_secs(5);

/// How often a server is asked for an answer from elsewhere before silence counts as filtered: at 10 % loss each way,
/// one in 150 is called stricter than it is.
pub const FILTER_TRIES: u32 = 3;

/// The least pause between two of these, and how long the last may take; twice the round trip where that is longer.
pub const FILTER_GAP: Duration = Duration::from_millis(200);

/// The most that two ports lie apart which a NAT chose one after the other: its step, times what others' flows took
/// in between.
pub const PORT_STEP_MAX: u16 = 32;

/// STUN servers kept a region; tries go round them.
pub const STUN_SERVERS_MAX: usize = 4;

/// UDP sockets that are asked from in a run. A node has two, one a family; simulations have more.
pub const STUN_LINKS_MAX: usize = 8;

/// Requests remembered in a run, by transaction: regions x families x tries, with room for repeats.
pub const STUN_REQUESTS_MAX: usize = 4_096;

/// The pause between two runs while there are peers, least and most. Below the 30 s after which the shortest
/// UDP mappings in the field die (RFC 4787, REQ-5 asks for 2 minutes and is not obeyed).
pub const NETCHECK_PAUSE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(26));

/// The first pause after a run in which nothing answered; it doubles up to [`NETCHECK_PAUSE`].
pub const NETCHECK_RETRY: Duration = Duration::from_secs(3);

/// After this long a run asks every region again (Tailscale's full report interval).
pub const NETCHECK_FULL: Duration = Duration::from_secs(300);

/// A reflexive address not confirmed for so long is forgotten (Tailscale's endpoint tracker).
pub const REFLEXIVE_AGE: Duration = Duration::from_secs(310);

/// Reflexive addresses kept: a NAT with a pool or a symmetric one shows many, of which few are useful.
pub const REFLEXIVE_MAX: usize = 16;

/// Names of STUN servers whose last good addresses are remembered.
pub const STUN_NAMES_MAX: usize = 256;

/// How long a run counts in the choice of home (Tailscale's history).
pub const HOME_HISTORY: Duration = Duration::from_secs(305);

/// Runs remembered for the choice of home: every 20 s over [`HOME_HISTORY`], with room for forced ones.
pub const HOME_HISTORY_MAX: usize = 64;

/// A region less than so much nearer than home does not become home.
pub const HOME_HYSTERESIS: Duration = Duration::from_millis(10);

/// A relay heard so lately is accessible though its STUN server did not answer.
pub const HOME_HEARD: Duration = Duration::from_secs(8);

/// A home without a sample stays while it was heard so lately.
pub const HOME_WITHOUT_SAMPLE: Duration = Duration::from_secs(120);

/// Regions whose last word is remembered.
pub const REGIONS_HEARD_MAX: usize = 128;

/// How long a home relay may be unreachable while another region can be had, before home moves.
pub const HOME_DOWN_GRACE: Duration = Duration::from_millis(500);

/// How long a region that failed as home is not considered again; doubles with each failure, eightfold at most.
pub const HOME_SHUN: Duration = Duration::from_secs(60);

/// How long the chosen region must have been up before home returns to it: one that comes and goes would move the
/// home with it, and every move costs the peers a moment.
pub const HOME_RETURN: Duration = Duration::from_secs(3);

/// How long a home relay may take to come up while another one is up, before home moves.
pub const HOME_UP_PATIENCE: Duration = Duration::from_millis(1_500);

/// The least time that a run waits for more answers once it has enough: answers of one burst come together.
pub const STUN_PATIENCE: Duration = Duration::from_millis(5);

/// The least pause between two runs that are not asked for.
pub const NETCHECK_GAP: Duration = Duration::from_secs(5);

/// Runs tried anew after one in which nothing answered while no peer needs it.
pub const NETCHECK_IDLE_RETRIES: u32 = 3;

/// Interface addresses kept. Hosts with hundreds of container bridges exist; peers are told [`ENDPOINTS_MAX`].
pub const INTERFACES_MAX: usize = 256;

/// Endpoints told to peers, half of [`super::CANDIDATES_MAX`]: the other half is for what peers find themselves.
pub const ENDPOINTS_MAX: usize = 32;

/// The pause before a NAT is asked about once more after nothing came back: what it was asked about is forgotten by then
/// (Linux: 30 s).
pub const NAT_ASKED_AGAIN: Duration = Duration::from_secs(35);

/// How often at most: a server whose second address cannot be reached never answers.
pub const NAT_ASKED_MOST: u32 = 3;

/// Addresses kept of a STUN server's name.
pub const STUN_ADDRESSES_MAX: usize = 16;

/// How long a port mapping is asked for. What a node leaves behind that was killed, ends after so long; the usual two
/// hours (RFC 6886, 3.3) leave routers with full tables. It is renewed at half of it.
pub const PORTMAP_LIFETIME: Duration = Duration::from_secs(1_200);

/// What a router's word about that is taken for, at least and at most: one that says a second would be asked for ever.
pub const PORTMAP_LIFETIMES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(7_200));

/// How long an adapter may take to ask a router by all protocols: one that answers nothing and holds a mapping by UPnP
/// takes 5 s to find that out, 1 s to give it back, 3 s to search anew and 5 s to ask.
pub const PORTMAP_PATIENCE: Duration = Duration::from_secs(15);

/// The least pause between two questions, however many reasons there are.
pub const PORTMAP_GAP: Duration = Duration::from_secs(5);

/// Questions in vain after which a mapping counts as lost: one may be lost on a bad wireless network.
pub const PORTMAP_TRIES: u32 = 2;

/// How long after a renewal in vain the next one comes.
pub const PORTMAP_AGAIN: Duration = Duration::from_secs(15);

/// How long a router that grants nothing is left alone (Tailscale trusts what it found out for ten minutes).
pub const PORTMAP_RETRY: Duration = Duration::from_secs(600);

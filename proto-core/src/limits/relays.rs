//! Relays: their server end and the links to them.

use super::COORDINATOR_NODES_MAX;
use crate::time::Duration;

/// Data frames and bytes that wait for one connection of a relay. At 1 Gbit/s 512 KiB are 4 ms: enough for the
/// bursts of segmentation offload (64 packets), too little to become the path's latency on a fast link.
/// Tailscale's 32 frames lose a third of an unpaced stream.
pub const RELAY_QUEUE_DATA: (usize, usize) = (512, 512 << 10);

/// Bytes of packets that wait for all connections of a relay together: two thousand full queues. Those who run it on
/// a small machine say less.
pub const RELAY_QUEUES_MAX: usize = 1 << 30;

/// Disco frames and bytes that wait: they are small, rare and must not be starved.
pub const RELAY_QUEUE_DISCO: (usize, usize) = (64, 64 << 10);

/// The relay's own frames that wait for one connection (pongs, notices): what a slow reader misses of them, it
/// learns again.
pub const RELAY_QUEUE_CONTROL: (usize, usize) = (256, 32 << 10);

/// Comings and goings that wait for one relay of the mesh that watches: all at once and a few more. If it reads so
/// slowly that more come, its connection ends.
pub const RELAY_QUEUE_WATCH: (usize, usize) = (2 * RELAY_CONNECTIONS_MAX, 2 * RELAY_CONNECTIONS_MAX * 56);

/// How long a relay waits for another of its mesh to take a write (Tailscale's).
pub const MESH_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// So long after it has come up a link tells who is at the other relay; then, who comes to it.
pub const MESH_FLOOD: Duration = Duration::from_secs(2);

/// Other relays of one region, as a relay's operator may name them. Tailscale's largest regions have 6 nodes.
pub const MESH_RELAYS_MAX: usize = 64;

/// Keys at the other relays of the mesh: four of them full.
pub const MESH_KEYS_MAX: usize = 4 * RELAY_CONNECTIONS_MAX;

/// Notices "not here" a sender gets at once, and then one in this time (Tailscale's limiter).
pub const NOT_HERE_BURST: u32 = 3;
/// See [`NOT_HERE_BURST`].
pub const NOT_HERE_EVERY: Duration = Duration::from_secs(1);

/// Destinations that a relay remembers of one sender, and receivers of one key: those told when it leaves. Of the
/// latter twice as many, so that none is forgotten whom the sender has not told of anew.
pub const RELAY_SEEN_MAX: usize = 4_096;

/// The same that a relay remembers of each whatever others do: more peers than a person's or a workspace's node has.
pub const RELAY_SEEN_OWN: usize = 32;

/// The same of all beyond that: a relay full of clients that each have a hundred peers. A destination takes 18 bytes, a
/// receiver about 50; if everybody sent to everybody, they would have tens of gigabytes.
pub const RELAY_SEEN_SHARED: usize = 1 << 22;

/// Pairs that a relay remembers of one other of its mesh, which sends for all its clients.
pub const MESH_SEEN_MAX: usize = 65_536;

/// How often a sender's first packets to somebody are told of when it has sent to as many as are remembered: all of
/// it goes through one task, and those who send to thousands would say a word a packet.
pub const RELAY_FIRST_EVERY: Duration = Duration::from_micros(15_625);

/// The same of another relay of the mesh.
pub const MESH_FIRST_EVERY: Duration = Duration::from_micros(244);

/// Bytes a second that one client may say to a relay beside packets, after a burst of [`RATE_BURST_MIN`]: a
/// thousand pings a second. Good clients say some hundred bytes a minute, and all of it goes through one task.
pub const RELAY_WORDS_RATE: u64 = 16_384;

/// Clients of one relay server: what one machine's memory and ports carry.
pub const RELAY_CONNECTIONS_MAX: usize = 65_536;

/// Connections of one relay that have not logged in. A login takes a second on a bad path, so that a restart's
/// thousands pass; whoever opens more and says nothing takes places of their own kind.
pub const RELAY_WAITING_MAX: usize = 4_096;

/// A login that is honest is done within this time, seen from the relay: TLS, HTTP and DERP are 4 round trips,
/// 600 ms each on the worst links. Beyond it, a connection may have to make room for a newer one.
pub const RELAY_LOGIN_USUAL: Duration = Duration::from_secs(3);

/// Connections of one key at one relay. Cloned machines have two; nobody honest has 64.
pub const RELAY_DUPLICATES_MAX: usize = 64;

/// The relay's keepalive (Tailscale's, whose clients give up after two of them).
pub const RELAY_KEEPALIVE: Duration = Duration::from_secs(60);

/// Drawn once a connection and added to [`RELAY_KEEPALIVE`], so that connections do not beat in step.
pub const RELAY_KEEPALIVE_JITTER: Duration = Duration::from_secs(5);

/// How long a login at a relay may take, seen from the relay (Tailscale's deadline).
pub const RELAY_LOGIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long a relay waits for a connection to take a write before it gives the connection up (Tailscale's).
pub const RELAY_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one node of a region may take to open a stream: TCP, TLS and HTTP are 4 round trips, a second each
/// on the worst links.
pub const RELAY_OPEN_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a login may take, seen from the node: one round trip after the stream is open.
pub const RELAY_LOGIN_TIMEOUT: Duration = Duration::from_secs(4);

/// Silence after which a node pings its relay. Tailscale waits 120 s for a keepalive.
pub const RELAY_PING: Duration = Duration::from_secs(15);

/// The same while something was sent and nothing has come back since: streams are acknowledged within a round trip
/// and 25 ms.
pub const RELAY_PING_UNANSWERED: Duration = Duration::from_millis(500);

/// How long an asked relay may take before it is called silent, if another one that was asked in the same moment
/// answered meanwhile: two round trips through a far relay, or one lost segment's retransmission.
pub const RELAY_SILENT: Duration = Duration::from_millis(700);

/// How long a relay may take to answer a ping; a slow uplink full of data delays it by seconds.
pub const RELAY_PONG: Duration = Duration::from_secs(5);

/// The same after a change of network, when the connection is likely dead.
pub const RELAY_PONG_AFTER_KICK: Duration = Duration::from_secs(2);

/// How long a connection must have lasted to be of use: only then does the next attempt come soon.
pub const RELAY_USEFUL: Duration = Duration::from_secs(10);

/// After a planned change of connection the old one is read for this long, so that nothing under way is lost.
pub const RELAY_LINGER: Duration = Duration::from_secs(1);

/// How long a restarting relay asks its clients to try before they look elsewhere.
pub const RELAY_TRY_FOR: Duration = Duration::from_secs(5);

/// Packets of the machine's own that wait for a link to come up (Tailscale queues 32).
pub const RELAY_LINK_QUEUE: usize = 64;

/// A region that is neither home nor warm is left after this long without use (Tailscale's).
pub const RELAY_IDLE: Duration = Duration::from_secs(60);

/// The same for a region whose relay is about to stop, and the time until one is left that the map does not name
/// any more: peers have learned of our new home by then.
pub const RELAY_LEAVE: Duration = Duration::from_secs(3);

/// Regions connected at once. Tailscale's map has about 30.
pub const RELAY_LINKS_MAX: usize = 32;

/// Names whose addresses one relay link remembers.
pub const RELAY_NAMES_MAX: usize = 32;

/// How long a verifier's yes lets a key in while the verifier cannot be reached: a week outlasts any outage that
/// somebody works on, and bounds how long a key that should have been denied gets by.
pub const ADMITTED_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Keys remembered with a verifier's yes: all the nodes of the greatest coordinator. The oldest make room.
pub const ADMITTED_MAX: usize = COORDINATOR_NODES_MAX;

/// How long a changed set of admitted keys may be unsaved: what a crash costs is one question a key.
pub const ADMITTED_SAVE: Duration = Duration::from_secs(2);

/// The same if nothing changed but when the last yes was: little beside [`ADMITTED_KEPT`].
pub const ADMITTED_SAVE_LAZY: Duration = Duration::from_secs(600);

/// Keys of an admission, connected or waiting for the verifier.
pub const ADMISSION_KEYS_MAX: usize = 2 * RELAY_CONNECTIONS_MAX;

/// Questions to a verifier under way at once. At 5 ms each these are 12,800 a second.
pub const VERIFY_OPEN_MAX: usize = 64;

/// How often a connected key is asked about again, if nobody says otherwise: how long a removed node may go on.
pub const VERIFY_EVERY: Duration = Duration::from_secs(300);

/// Percent that two such pauses may differ.
pub const VERIFY_JITTER_PERCENT: u32 = 10;

/// The pause before a key is asked about again that nobody said anything about.
pub const VERIFY_RETRY: Duration = Duration::from_secs(30);

/// How long a key that was let in before waits for the verifier: well below [`RELAY_LOGIN_TIMEOUT`], after which
/// its node gives up. The answer still counts when it comes.
pub const VERIFY_PATIENCE: Duration = Duration::from_secs(1);

/// The least that a rate limit lets pass at once: the longest packet with its key (Tailscale's).
pub const RATE_BURST_MIN: u64 = 65_536 + 32;

/// What it lets pass at once, as a part of a second's worth: a tenth of a second hides the pauses of a scheduler.
pub const RATE_BURST_SHARE: u64 = 10;

/// Pieces in which a second's worth is read: 5 ms are less than a person or a congestion controller notices.
pub const RATE_PIECES_A_SECOND: u64 = 200;

/// Bytes of the smallest such piece, so that a slow limit does not cost a system call a packet.
pub const RATE_PIECE_MIN: usize = 4_096;

/// Characters of a relay's reason for a refusal that are passed on: a sentence or two. A frame could hold a book, which
/// every attempt would write into the log.
pub const PROBLEM_MAX: usize = 200;

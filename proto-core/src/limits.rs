//! Every cap and every interval of a decision, with its unit, its reason and its source: a number that changes
//! how nodes and servers behave lives here. What only an adapter knows of (its buffers, its patience with a
//! socket) stands beside the code that it bounds.

use crate::time::Duration;

// --- Coordination -----------------------------------------------------------------------------------------

/// Bytes of one coordination message. A node record with every endpoint is 4 KiB, a relay map of 25 regions
/// 20 KiB; a megabyte is far beyond both and bounds a hostile sender.
pub const CONTROL_MESSAGE_MAX: usize = 1 << 20;

// --- Connections that come back: relay links and the session ----------------------------------------------

/// The shortest wait before another attempt (Coder's first redial takes as long).
pub const RECONNECT_MIN: Duration = Duration::from_millis(50);

/// The longest wait before another attempt (Coder's, too): a server that returns is found within it.
pub const RECONNECT_MAX: Duration = Duration::from_secs(10);

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

// --- Relays -----------------------------------------------------------------------------------------------

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

/// The same while something was sent and nothing has come back since.
pub const RELAY_PING_UNANSWERED: Duration = Duration::from_secs(2);

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

// --- Netcheck ---------------------------------------------------------------------------------------------

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

/// Endpoints told to peers, half of [`CANDIDATES_MAX`]: the other half is for what peers find themselves.
pub const ENDPOINTS_MAX: usize = 32;

/// Addresses kept of a STUN server's name.
pub const STUN_ADDRESSES_MAX: usize = 16;

// --- Node -------------------------------------------------------------------------------------------------

/// How long a peer that the coordinator has lost is kept after its last handshake (Coder's 15 minutes): a
/// tunnel in use shakes hands every two, so only abandoned ones end.
pub const LOST_PEER_KEPT: Duration = Duration::from_secs(15 * 60);

/// How long a peer whose own end closed its connection to the coordinator may stay silent, though it is asked for a sign
/// of life, until it counts as ended: two initiations and the answer to the second through a far relay. Who uses a
/// tunnel shall know within 3 s that the other end was killed.
pub const CLOSED_PEER: Duration = Duration::from_secs(2);

/// The same for a peer that asked for the tunnel itself: nobody waits for it, and behind a proxy that restarts it is back
/// within [`RECONNECT_MAX`].
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

// --- Peers ------------------------------------------------------------------------------------------------

/// Candidates kept a peer. Nodes with 32 addresses exist (iroh tests with as many); twice that leaves room for peer-reflexive ones, and bounds what a hostile peer can make us remember.
pub const CANDIDATES_MAX: usize = 64;

/// Peers of one node. A server's own node talks to every agent that a browser has open.
pub const PEERS_MAX: usize = 4_096;

/// The pause between two pings of a path in use. Tailscale takes 3 s and trusts a path for 6.5 s.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

// --- A peer's paths ---------------------------------------------------------------------------------------

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

// --- Punching ---------------------------------------------------------------------------------------------

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

// --- Handshakes -------------------------------------------------------------------------------------------

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

// --- Streams ----------------------------------------------------------------------------------------------

/// Bytes of the JSON that a stream begins with. A service's name and an address take a hundred; the rest of the
/// first datagram is for data.
pub const STREAM_HEADER_MAX: usize = 1_024;

use super::*;
use crate::key::NodeSecret;
use crate::limits;
use crate::machine::laws::{OwnedInput, Subject};
use crate::relay::{DropReason, PacketKind, Refused, RelayServer};
use crate::seed::Rng;
use crate::time::Duration;
use crate::wire::derp::{ClientInfo, FrameKind, ServerInfo};
use crate::wire::disco;

mod mesh;

fn secret(n: u64) -> NodeSecret {
    NodeSecret::generate(&Seed::from_u64(n))
}

fn server_secret() -> NodeSecret {
    secret(1_000)
}

/// A relay and what its connections have been written.
struct Bench {
    hub: RelayHub,
    now: Time,
    written: BTreeMap<StreamId, Vec<u8>>,
    closed: BTreeSet<StreamId>,
    asked: Vec<StreamId>,
}

/// A key of nobody.
fn numbered(n: u64) -> NodePublic {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_le_bytes());
    NodePublic(key)
}

const fn stream(n: u64) -> StreamId {
    StreamId(n)
}

impl Bench {
    fn new(ask: bool) -> Self {
        let config = RelayServerConfig { ask, ..RelayServerConfig::new(server_secret()) };
        let hub = RelayHub::new(config, Seed::from_u64(1), Time::ZERO);
        Self { hub, now: Time::ZERO, written: BTreeMap::new(), closed: BTreeSet::new(), asked: Vec::new() }
    }

    fn input(&mut self, input: Input<'_, HubCommand>) {
        self.hub.handle(input, self.now);
        while let Some(output) = self.hub.poll() {
            match output {
                Output::Write { stream, bytes } => {
                    self.written.entry(stream).or_default().extend_from_slice(&bytes);
                }
                Output::Close { stream } => _ = self.closed.insert(stream),
                Output::Event(ServerEvent::Ask { stream, .. }) => self.asked.push(stream),
                _ => {}
            }
        }
    }

    fn open(&mut self, n: u64) {
        self.input(Input::StreamOpened { stream: stream(n) });
    }

    fn close(&mut self, n: u64) {
        self.input(Input::StreamClosed { stream: stream(n), why: "" });
    }

    fn bytes(&mut self, n: u64, bytes: &[u8]) {
        self.input(Input::StreamBytes { stream: stream(n), bytes });
    }

    fn send(&mut self, n: u64, frame: &Frame<'_>) {
        self.bytes(n, &frame.to_bytes());
    }

    fn packet(&mut self, n: u64, to: &NodeSecret, bytes: &[u8]) {
        self.send(n, &Frame::SendPacket { to: to.public(), bytes });
    }

    /// Stream `n` logs in with this key.
    fn login_as(&mut self, n: u64, who: &NodeSecret, app: &str) {
        self.open(n);
        let info = ClientInfo { app_name: app.into(), ..ClientInfo::default() };
        let mut bytes = Vec::new();
        info.emit(who, &server_secret().public(), &mut Seed::from_u64(n).rng(), &mut bytes);
        self.bytes(n, &bytes);
    }

    /// Stream `n` logs in with key `n`; what that wrote is not looked at again.
    fn login(&mut self, n: u64) {
        self.login_as(n, &secret(n), "");
        self.heard(n);
    }

    /// The frames written to a connection since the last look.
    fn heard(&mut self, n: u64) -> Vec<String> {
        let bytes = self.written.remove(&stream(n)).unwrap_or_default();
        let mut decoder = Decoder::new();
        let mut frames = decoder.feed(&bytes);
        let mut heard = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            heard.push(match frame {
                Frame::RecvPacket { from, bytes } => {
                    let who = (0..99).find(|n| secret(*n).public() == from).unwrap();
                    format!("from {who}: {}", String::from_utf8_lossy(bytes))
                }
                Frame::PeerGone { peer, reason } => {
                    let who = (0..99).find(|n| secret(*n).public() == peer).unwrap();
                    format!("gone {who}: {reason:?}")
                }
                Frame::ServerInfo { .. } => "server info".into(),
                Frame::Restarting { .. } => "restarting".into(),
                other => format!("{other:?}"),
            });
        }
        heard
    }

    fn is_closed(&self, n: u64) -> bool {
        self.closed.contains(&stream(n))
    }
}

#[test]
fn a_login_is_greeted_and_proven_by_both_keys() {
    let mut bench = Bench::new(false);
    bench.login_as(1, &secret(1), "");
    let bytes = bench.written.remove(&stream(1)).unwrap();
    let mut decoder = Decoder::new();
    let mut frames = decoder.feed(&bytes);
    assert_eq!(frames.next(), Ok(Some(Frame::ServerKey { key: server_secret().public() })));
    let Ok(Some(Frame::ServerInfo { sealed })) = frames.next() else { panic!("no ServerInfo") };
    let shared = secret(1).shared(&server_secret().public());
    assert_eq!(ServerInfo::open(sealed, &shared), Ok(ServerInfo::default()));
    // A box by another key than the one claimed.
    bench.open(2);
    let mut bytes = Vec::new();
    let mut rng = Seed::from_u64(1).rng();
    ClientInfo::default().emit(&secret(3), &server_secret().public(), &mut rng, &mut bytes);
    bytes[5..37].copy_from_slice(&secret(4).public().0);
    bench.bytes(2, &bytes);
    assert!(bench.is_closed(2));
    // Anything else first.
    bench.open(3);
    bench.send(3, &Frame::Ping([0; 8]));
    assert!(bench.is_closed(3));
    // Longer than a login may be.
    bench.open(4);
    bench.bytes(4, &[FrameKind::ClientInfo as u8, 0, 4, 0, 0]);
    assert!(bench.is_closed(4));
    let counters = bench.hub.server().counters();
    assert_eq!((counters.wrong_key, counters.broken, counters.too_long), (1, 1, 1));
}

#[test]
fn packets_reach_their_key_even_the_senders_own_and_empty_ones() {
    let mut bench = Bench::new(false);
    (1..=2).for_each(|n| bench.login(n));
    bench.packet(1, &secret(2), b"hi");
    bench.packet(1, &secret(2), b"");
    bench.packet(1, &secret(1), b"me");
    bench.packet(1, &secret(9), b"nobody");
    assert_eq!(bench.heard(2), ["from 1: hi", "from 1: "]);
    assert_eq!(bench.heard(1), ["from 1: me"]);
    let counters = bench.hub.counters();
    assert_eq!((counters.packets_in, counters.packets_out), (4, 3));
    assert_eq!(counters.dropped(DropReason::UnknownDestination, PacketKind::Data), 1);
}

#[test]
fn frames_split_anywhere_are_whole_again() {
    let mut bench = Bench::new(false);
    (1..=2).for_each(|n| bench.login(n));
    let mut bytes = Vec::new();
    for text in ["one", "two", "three"] {
        Frame::SendPacket { to: secret(2).public(), bytes: text.as_bytes() }.emit(&mut bytes);
        Frame::Unknown { kind: 0x77, bytes: &[9; 300] }.emit(&mut bytes);
    }
    let mut rng = Seed::from_u64(5).rng();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (piece, later) = rest.split_at((rng.range(1..50) as usize).min(rest.len()));
        bench.bytes(1, piece);
        rest = later;
    }
    assert_eq!(bench.heard(2), ["from 1: one", "from 1: two", "from 1: three"]);
}

#[test]
fn of_two_connections_of_one_key_the_newest_is_active_until_the_other_speaks() {
    let mut bench = Bench::new(false);
    bench.login(1);
    bench.login_as(11, &secret(2), "");
    bench.login_as(12, &secret(2), "");
    bench.heard(11);
    bench.heard(12);
    bench.packet(1, &secret(2), b"newest");
    assert_eq!(bench.heard(12), ["from 1: newest"]);
    bench.packet(11, &secret(1), b"spoke");
    bench.packet(1, &secret(2), b"last writer");
    assert_eq!(bench.heard(11), ["from 1: last writer"]);
    bench.send(12, &Frame::Unknown { kind: 0x77, bytes: b"" });
    bench.send(12, &Frame::Ping([1; 8]));
    bench.packet(1, &secret(2), b"a ping speaks, too");
    assert_eq!(bench.heard(12).last().unwrap(), "from 1: a ping speaks, too");
    bench.heard(1);
    bench.close(12);
    bench.packet(1, &secret(2), b"the one left");
    assert_eq!(bench.heard(11), ["from 1: the one left"]);
    assert!(bench.heard(1).is_empty(), "a key leaves with its last connection");
    bench.close(11);
    assert_eq!(bench.heard(1), ["gone 2: Disconnected"]);
}

#[test]
fn who_received_from_a_peer_is_told_when_it_leaves_and_nobody_else() {
    let mut bench = Bench::new(false);
    (1..=4).for_each(|n| bench.login(n));
    bench.packet(1, &secret(2), b"");
    bench.packet(3, &secret(1), b"");
    (1..=4).for_each(|n| _ = bench.heard(n));
    bench.close(1);
    assert_eq!(bench.heard(2), ["gone 1: Disconnected"]);
    assert!(bench.heard(3).is_empty(), "having sent to it is not enough");
    assert!(bench.heard(4).is_empty());
    // It comes back, sends and leaves again: told again.
    bench.login(1);
    bench.packet(1, &secret(2), b"");
    bench.close(1);
    assert_eq!(bench.heard(2), ["from 1: ", "gone 1: Disconnected"]);
}

#[test]
fn the_latest_receiver_of_a_sender_to_thousands_is_told_too() {
    let mut bench = Bench::new(false);
    (1..=2).for_each(|n| bench.login(n));
    for n in 0..limits::RELAY_SEEN_MAX as u64 {
        let from = secret(1).public();
        bench.input(Input::Command(ServerCommand::FirstPacket { from, to: numbered(n) }));
    }
    bench.packet(1, &secret(2), b"");
    bench.close(1);
    assert_eq!(bench.heard(2), ["from 1: ", "gone 1: Disconnected"]);
}

#[test]
fn a_seeker_of_an_absent_peer_is_told() {
    let mut bench = Bench::new(false);
    bench.login(1);
    let mut seek = disco::MAGIC.to_vec();
    seek.resize(62, 0);
    bench.packet(1, &secret(9), &seek);
    assert_eq!(bench.heard(1), ["gone 9: NotHere"]);
}

#[test]
fn pings_are_answered_and_strange_frames_skipped() {
    let mut bench = Bench::new(false);
    bench.login(1);
    bench.send(1, &Frame::Ping(*b"12345678"));
    for frame in [Frame::KeepAlive, Frame::Pong([0; 8]), Frame::Unknown { kind: 0xee, bytes: &[0; 9_000] }] {
        bench.send(1, &frame);
    }
    bench.bytes(1, &[FrameKind::PeerGone as u8, 0, 0, 0, 1, 0]);
    assert_eq!(bench.heard(1), [format!("{:?}", Frame::Pong(*b"12345678"))]);
    assert!(!bench.is_closed(1));
}

#[test]
fn frames_that_only_a_broken_client_or_a_mesh_sends_end_the_connection() {
    let peer = secret(2).public();
    let emitted = |frame: Frame<'_>| frame.to_bytes();
    let bad = [
        vec![FrameKind::NotePreferred as u8, 0, 0, 0, 2, 1, 1],
        vec![FrameKind::SendPacket as u8, 0, 0, 0, 1, 1],
        vec![FrameKind::SendPacket as u8, 0, 1, 0, 33],
        vec![FrameKind::Ping as u8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        emitted(Frame::WatchConns),
        emitted(Frame::ClosePeer { peer }),
        emitted(Frame::ForwardPacket { from: peer, to: peer, bytes: b"" }),
    ];
    for (n, bytes) in (1..).zip(bad) {
        let mut bench = Bench::new(false);
        bench.login(n);
        bench.bytes(n, &bytes);
        assert!(bench.is_closed(n), "{bytes:?}");
        assert_eq!(bench.hub.server().connections(), (0, 0));
    }
}

#[test]
fn the_home_connections_are_counted() {
    let mut bench = Bench::new(false);
    (1..=2).for_each(|n| bench.login(n));
    bench.send(1, &Frame::NotePreferred(true));
    assert_eq!(bench.hub.server().connections(), (2, 1));
    bench.send(1, &Frame::NotePreferred(false));
    assert_eq!(bench.hub.server().connections(), (2, 0));
}

#[test]
fn a_login_has_ten_seconds_and_a_connection_hears_a_keepalive_a_minute() {
    let mut bench = Bench::new(false);
    bench.open(1);
    bench.login(2);
    bench.now = Time::from_secs(10);
    bench.input(Input::Deadline);
    assert!(bench.is_closed(1) && !bench.is_closed(2));
    let mut beats = Vec::new();
    while beats.len() < 3 {
        bench.now = bench.hub.deadline().unwrap().0;
        bench.input(Input::Deadline);
        assert_eq!(bench.heard(2), ["KeepAlive"]);
        beats.push(bench.now);
    }
    let (first, second) = (beats[1].since(beats[0]), beats[2].since(beats[1]));
    assert!((60..65).contains(&first.as_secs()), "{first:?}");
    assert_eq!(first, second, "each connection has a beat of its own");
}

#[test]
fn an_owner_that_is_asked_decides_and_can_change_its_mind() {
    let mut bench = Bench::new(true);
    for (n, app) in [(1, ""), (2, ""), (3, "warren")] {
        bench.login_as(n, &secret(n), app);
        assert_eq!(bench.heard(n).len(), 1, "the key, and no more yet");
    }
    bench.packet(1, &secret(1), b"too early");
    for (n, verdict) in [(1, Ok(())), (2, Err(Refused::Denied)), (3, Err(Refused::NotListed))] {
        assert!(bench.asked.contains(&stream(n)));
        bench.input(Input::Command(ServerCommand::Verdict { stream: stream(n), verdict }));
    }
    assert_eq!(bench.heard(1), ["server info"]);
    assert_eq!(bench.heard(2).len(), 0, "others might fail on what they do not expect");
    assert_eq!(
        bench.heard(3),
        ["Health { problem: \"its key is not on the list of those who may use it\" }"]
    );
    assert!(bench.is_closed(2) && bench.is_closed(3));
    bench.input(Input::Command(ServerCommand::Expel(secret(1).public())));
    assert!(bench.is_closed(1));
}

#[test]
fn clients_and_those_who_have_not_logged_in_are_bounded_each_on_their_own() {
    let mut bench = Bench::new(false);
    bench.hub = RelayHub::new(
        RelayServerConfig { connections_max: 2, ..RelayServerConfig::new(server_secret()) },
        Seed::from_u64(1),
        Time::ZERO,
    );
    let waiting = limits::RELAY_WAITING_MAX as u64;
    (0..waiting).for_each(|n| bench.open(100 + n));
    bench.open(1);
    assert!(bench.is_closed(1), "one more that says nothing");
    bench.close(100);
    // There is a place again, and it is free again as soon as the login is through.
    (2..=3).for_each(|n| bench.login(n));
    bench.login(4);
    assert!(!bench.is_closed(2) && !bench.is_closed(3) && bench.is_closed(4), "the third client");
    assert_eq!(bench.hub.server().counters().full, 2);
    // Those who say nothing are gone at the deadline, and their places with them.
    bench.now += limits::RELAY_LOGIN_DEADLINE;
    bench.input(Input::Deadline);
    assert_eq!(bench.hub.server().counters().late, waiting - 1);
    assert_eq!(bench.hub.server().connections().0, 2);
    bench.close(2);
    bench.login(5);
    assert!(!bench.is_closed(5));
}

#[test]
fn only_those_who_understand_it_are_asked_to_come_back_later() {
    let mut bench = Bench::new(false);
    bench.login_as(1, &secret(1), "warren");
    bench.login_as(2, &secret(2), "tailscaled");
    bench.heard(1);
    bench.heard(2);
    bench.input(Input::Command(ServerCommand::Drain(Duration::from_secs(2))));
    assert_eq!((bench.heard(1), bench.heard(2)), (vec!["restarting".to_owned()], vec![]));
    // Those whose login was under way as well.
    bench.login_as(3, &secret(3), "warren");
    bench.login_as(4, &secret(4), "tailscaled");
    assert_eq!((bench.heard(3).last().map(String::as_str), bench.is_closed(3)), (Some("restarting"), false));
    assert!(!bench.heard(4).contains(&"restarting".to_owned()));
}

#[test]
fn a_slow_reader_gets_the_newest_packets_in_order_and_slows_nobody_else() {
    let mut bench = Bench::new(false);
    (1..=3).for_each(|n| bench.login(n));
    bench.input(Input::StreamWritable { stream: stream(2), credit: 0 });
    let sent = limits::RELAY_QUEUE_DATA.0 as u64 + 100;
    for n in 0..sent {
        bench.packet(1, &secret(2), n.to_string().as_bytes());
    }
    bench.packet(1, &secret(3), b"hello");
    assert_eq!(bench.heard(3), ["from 1: hello"]);
    assert!(bench.heard(2).is_empty());
    bench.input(Input::StreamWritable { stream: stream(2), credit: 1 << 20 });
    let expected: Vec<_> = (100..sent).map(|n| format!("from 1: {n}")).collect();
    assert_eq!(bench.heard(2), expected);
    assert_eq!(bench.hub.counters().dropped(DropReason::QueueHead, PacketKind::Data), 100);
}

/// Two clients' logins, and whatever else may be said to a relay on its streams.
struct Clients {
    keys: [NodeSecret; 2],
    logins: Vec<Vec<u8>>,
}

fn drawn(rng: &mut Rng) -> Result<(), Refused> {
    let why = Refused::ALL[rng.range(0..Refused::ALL.len() as u64) as usize];
    if rng.permille(800) { Ok(()) } else { Err(why) }
}

impl Clients {
    fn new() -> Self {
        let keys = [secret(1), secret(2)];
        let login = |key: &NodeSecret| {
            let mut bytes = Vec::new();
            let mut rng = Seed::from_u64(1).rng();
            let info = ClientInfo { app_name: "warren".into(), ..ClientInfo::default() };
            info.emit(key, &server_secret().public(), &mut rng, &mut bytes);
            bytes
        };
        let logins = keys.iter().map(login).collect();
        Self { keys, logins }
    }

    fn command(&self, rng: &mut Rng) -> ServerCommand {
        let stream = StreamId(rng.range(0..4));
        let command = match rng.range(0..10) {
            0..3 => ServerCommand::Verdict { stream, verdict: drawn(rng) },
            3 | 4 => ServerCommand::Spoke(stream),
            5 => ServerCommand::FirstPacket { from: self.keys[0].public(), to: self.keys[1].public() },
            6 => ServerCommand::Expel(self.keys[0].public()),
            7 => ServerCommand::Broken(stream),
            8 => {
                let (link, key) = (StreamId(rng.range(9..11)), self.keys[rng.range(0..2) as usize].public());
                ServerCommand::Mesh(match rng.range(0..3) {
                    0 => MeshChange::Present { link, key, fresh: rng.permille(500) },
                    1 => MeshChange::Gone { link, key },
                    _ => MeshChange::Lost { link },
                })
            }
            _ => ServerCommand::Drain(Duration::from_millis(rng.range(0..9_000))),
        };
        // A new command does not compile here until it is drawn above.
        match command {
            ServerCommand::Verdict { .. } | ServerCommand::Spoke(_) | ServerCommand::FirstPacket { .. } => {}
            ServerCommand::Expel(_) | ServerCommand::Drain(_) | ServerCommand::Broken(_) => {}
            ServerCommand::Mesh(_) => {}
        }
        command
    }

    /// What the owner answers when it is asked about a login.
    fn reply(output: &Output<ServerEvent>, rng: &mut Rng) -> Option<Vec<OwnedInput<ServerCommand>>> {
        let Output::Event(ServerEvent::Ask { stream, .. }) = output else { return None };
        let verdict = ServerCommand::Verdict { stream: *stream, verdict: drawn(rng) };
        Some(vec![OwnedInput::Command(verdict)])
    }

    fn input(&self, rng: &mut Rng) -> OwnedInput<ServerCommand> {
        let stream = StreamId(rng.range(0..2));
        let frame = |frame: Frame<'_>| OwnedInput::StreamBytes { stream, bytes: frame.to_bytes() };
        match rng.range(0..8) {
            0 | 1 => OwnedInput::StreamOpened { stream },
            2 | 3 => OwnedInput::StreamBytes { stream, bytes: self.logins[rng.range(0..2) as usize].clone() },
            4 | 5 => {
                let bytes = vec![4; rng.range(0..2_000) as usize];
                frame(Frame::SendPacket { to: self.keys[rng.range(0..2) as usize].public(), bytes: &bytes })
            }
            6 => frame(Frame::Ping([7; 8])),
            _ => OwnedInput::StreamWritable { stream, credit: rng.range(0..4_000) as usize },
        }
    }
}

#[test]
fn the_relay_keeps_the_seven_laws() {
    let clients = Clients::new();
    for ask in [false, true] {
        Subject::new(|seed| {
            RelayHub::new(
                RelayServerConfig { ask, ..RelayServerConfig::new(server_secret()) },
                seed,
                Time::ZERO,
            )
        })
        .commands(|rng| clients.command(rng))
        .inputs(|rng| clients.input(rng))
        .replies(Clients::reply)
        .size(4 << 20, |hub| {
            let waiting: usize = hub.connections.values().map(|connection| connection.queue.bytes()).sum();
            waiting + format!("{hub:?}").len()
        })
        .check(30);
    }
}

#[test]
fn its_server_alone_keeps_them_too() {
    let clients = Clients::new();
    for ask in [false, true] {
        Subject::new(|seed| {
            RelayServer::new(
                RelayServerConfig { ask, ..RelayServerConfig::new(server_secret()) },
                seed,
                Time::ZERO,
            )
        })
        .commands(|rng| clients.command(rng))
        .inputs(|rng| clients.input(rng))
        .replies(Clients::reply)
        .size(1 << 20, |server| format!("{server:?}").len())
        .check(40);
    }
}

//! A relay beside others of its mesh, by the bytes that they speak.

use super::*;
use crate::key::hex;
use crate::wire::derp::MeshKey;

const KEY: MeshKey = MeshKey([0x5a; 32]);

impl Bench {
    fn of_mesh() -> Self {
        let config =
            RelayServerConfig { ask: true, mesh: Some(KEY), ..RelayServerConfig::new(server_secret()) };
        let hub = RelayHub::new(config, Seed::from_u64(1), Time::ZERO);
        Self { hub, ..Self::new(true) }
    }

    /// Stream `n` logs in with key `n` as a relay that has this mesh key.
    fn login_with(&mut self, n: u64, key: MeshKey) {
        self.open(n);
        let info = ClientInfo { mesh_key: Some(key), ..ClientInfo::default() };
        let mut bytes = Vec::new();
        info.emit(&secret(n), &server_secret().public(), &mut Seed::from_u64(n).rng(), &mut bytes);
        self.bytes(n, &bytes);
    }

    /// A relay that watches, on stream `n`; what it hears first.
    fn watcher(&mut self, n: u64) -> Vec<String> {
        self.login_with(n, KEY);
        self.written.remove(&stream(n));
        self.bytes(n, &[0x10, 0, 0, 0, 0]);
        self.presence(n)
    }

    /// An ordinary client that is let in.
    fn client(&mut self, n: u64) {
        self.login(n);
        self.input(Input::Command(ServerCommand::Verdict { stream: stream(n), verdict: Ok(()) }));
        self.written.remove(&stream(n));
    }

    /// Comings and goings in a connection's bytes, each as who and its bytes after the key.
    fn presence(&mut self, n: u64) -> Vec<String> {
        let bytes = self.written.remove(&stream(n)).unwrap_or_default();
        let mut rest = &bytes[..];
        let mut heard = Vec::new();
        while let [kind, a, b, c, d, after @ ..] = rest {
            let (payload, after) = after.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
            rest = after;
            let who = (0..99).find(|n| secret(*n).public().0[..] == payload[..32]).unwrap();
            heard.push(format!("{kind:#04x} {who} {}", hex(&payload[32..])));
        }
        heard
    }
}

#[test]
fn a_watcher_hears_who_is_here_and_then_who_comes_and_goes() {
    let mut bench = Bench::of_mesh();
    bench.client(1);
    let nowhere = "00".repeat(18);
    let mut first = bench.watcher(7);
    first.sort();
    assert_eq!(first, [format!("0x09 1 {nowhere}01"), format!("0x09 7 {nowhere}02")]);
    bench.client(2);
    assert_eq!(bench.presence(7), [format!("0x09 2 {nowhere}01")]);
    bench.close(1);
    assert_eq!(bench.presence(7), ["0x08 1 00"]);
    bench.send(7, &Frame::WatchConns);
    assert_eq!(bench.presence(7).len(), 2, "asked again, it hears of all again");
    assert_eq!(bench.hub.server().watchers(), 1);
    bench.close(7);
    assert_eq!(bench.hub.server().watchers(), 0);
}

#[test]
fn a_key_that_is_connected_twice_is_gone_with_its_last_connection() {
    let mut bench = Bench::of_mesh();
    bench.client(1);
    bench.watcher(7);
    bench.login_as(3, &secret(1), "");
    bench.input(Input::Command(ServerCommand::Verdict { stream: stream(3), verdict: Ok(()) }));
    assert_eq!(bench.presence(7).len(), 1);
    bench.close(1);
    assert!(bench.presence(7).is_empty());
    bench.close(3);
    assert_eq!(bench.presence(7), ["0x08 1 00"]);
}

#[test]
fn the_mesh_key_lets_in_without_asking_and_a_wrong_one_makes_an_ordinary_client() {
    let mut bench = Bench::of_mesh();
    bench.login_with(7, KEY);
    assert!(bench.asked.is_empty());
    assert_eq!(bench.hub.server().counters().mesh_joined, 1);
    let mut wrong = KEY;
    wrong.0[31] ^= 1;
    bench.login_with(8, wrong);
    assert_eq!(bench.asked, [stream(8)]);
    bench.input(Input::Command(ServerCommand::Verdict { stream: stream(8), verdict: Ok(()) }));
    bench.send(8, &Frame::WatchConns);
    assert!(bench.is_closed(8), "an ordinary client that watches");
    assert_eq!(bench.hub.server().counters().mesh_joined, 1);
}

#[test]
fn a_relay_full_of_clients_has_room_for_its_mesh() {
    let mut bench = Bench::of_mesh();
    let config =
        RelayServerConfig { connections_max: 1, mesh: Some(KEY), ..RelayServerConfig::new(server_secret()) };
    bench.hub = RelayHub::new(config, Seed::from_u64(1), Time::ZERO);
    bench.login(1);
    bench.login(2);
    assert!(bench.is_closed(2) && bench.hub.server().counters().full == 1);
    bench.login_with(7, KEY);
    assert!(!bench.is_closed(7));
    assert_eq!(bench.hub.server().counters().mesh_joined, 1);
}

#[test]
fn what_is_for_relays_alone_ends_an_ordinary_connection() {
    for bytes in [
        Frame::WatchConns.to_bytes(),
        Frame::ClosePeer { peer: secret(1).public() }.to_bytes(),
        Frame::ForwardPacket { from: secret(1).public(), to: secret(2).public(), bytes: b"x" }.to_bytes(),
    ] {
        let mut bench = Bench::of_mesh();
        bench.client(1);
        bench.client(2);
        bench.bytes(2, &bytes);
        assert!(bench.is_closed(2) && !bench.is_closed(1), "{bytes:?}");
        assert_eq!(bench.hub.server().counters().broken, 1);
    }
}

#[test]
fn wrong_lengths_end_a_relays_connection() {
    for frame in [
        vec![0x10, 0, 0, 0, 1, 0],
        [vec![0x11, 0, 0, 0, 31], vec![1; 31]].concat(),
        [vec![0x11, 0, 0, 0, 33], vec![1; 33]].concat(),
        [vec![0x0a, 0, 0, 0, 63], vec![1; 63]].concat(),
    ] {
        let mut bench = Bench::of_mesh();
        bench.watcher(7);
        bench.bytes(7, &frame);
        assert!(bench.is_closed(7), "{frame:?}");
    }
}

#[test]
fn a_forwarded_packet_reaches_who_is_here_and_nobody_else() {
    let mut bench = Bench::of_mesh();
    bench.client(1);
    bench.watcher(7);
    let forward = |to: u64, bytes| {
        Frame::ForwardPacket { from: secret(50).public(), to: secret(to).public(), bytes }.to_bytes()
    };
    bench.bytes(7, &forward(1, b"hello"));
    assert_eq!(bench.heard(1), ["from 50: hello"]);
    // Key 2 is at another relay: a forwarded packet is not sent on to it.
    let change = MeshChange::Present { link: stream(9), key: secret(2).public(), fresh: true };
    bench.input(Input::Command(ServerCommand::Mesh(change)));
    bench.bytes(7, &forward(2, b"onwards"));
    let search = [&disco::MAGIC[..], &[0; 56]].concat();
    bench.bytes(7, &forward(3, &search));
    assert_eq!(bench.heard(7), ["gone 3: NotHere"]);
    let counters = bench.hub.counters();
    assert_eq!(counters.dropped(DropReason::UnknownForwarded, PacketKind::Data), 1);
    assert_eq!(counters.dropped(DropReason::UnknownForwarded, PacketKind::Disco), 1);
    assert_eq!((counters.mesh_in, counters.mesh_out), (3, 0));
}

#[test]
fn a_relay_closes_all_connections_of_a_peer() {
    let mut bench = Bench::of_mesh();
    bench.client(1);
    bench.login_as(3, &secret(1), "");
    bench.input(Input::Command(ServerCommand::Verdict { stream: stream(3), verdict: Ok(()) }));
    bench.watcher(7);
    bench.send(7, &Frame::ClosePeer { peer: secret(99).public() });
    assert!(!bench.is_closed(7), "an unknown key does no harm");
    bench.send(7, &Frame::ClosePeer { peer: secret(1).public() });
    assert!(bench.is_closed(1) && bench.is_closed(3));
    assert_eq!(bench.hub.server().counters().mesh_closed, 2);
}

#[test]
fn who_received_from_a_key_is_told_once_it_has_left_the_region() {
    let mut bench = Bench::of_mesh();
    let away = secret(50).public();
    let mesh = |change| Input::Command(ServerCommand::Mesh(change));
    bench.client(1);
    bench.client(2);
    bench.watcher(7);
    for link in [stream(8), stream(9)] {
        bench.input(mesh(MeshChange::Present { link, key: away, fresh: true }));
    }
    let frame = Frame::ForwardPacket { from: away, to: secret(1).public(), bytes: b"hello" };
    bench.send(7, &frame);
    bench.heard(1);
    bench.input(mesh(MeshChange::Gone { link: stream(8), key: away }));
    assert!(bench.heard(1).is_empty(), "another relay has it still");
    bench.input(mesh(MeshChange::Lost { link: stream(9) }));
    assert_eq!(bench.heard(1), ["gone 50: Disconnected"]);
    assert!(bench.heard(2).is_empty(), "it never heard of it");
    assert_eq!(bench.hub.server().elsewhere(), 0);
}

#[test]
fn a_key_that_moves_to_another_relay_is_not_gone() {
    let mut bench = Bench::of_mesh();
    bench.client(1);
    bench.client(2);
    bench.packet(2, &secret(1), b"hello");
    bench.heard(1);
    let change = |change| Input::Command(ServerCommand::Mesh(change));
    let key = secret(2).public();
    bench.input(change(MeshChange::Present { link: stream(9), key, fresh: false }));
    bench.close(2);
    assert!(bench.heard(1).is_empty());
    bench.input(change(MeshChange::Gone { link: stream(9), key }));
    assert_eq!(bench.heard(1), ["gone 2: Disconnected"]);
}

#[test]
fn a_watcher_that_does_not_read_is_closed_instead_of_kept_in_the_dark() {
    let mut bench = Bench::of_mesh();
    bench.watcher(7);
    bench.input(Input::StreamWritable { stream: stream(7), credit: 0 });
    for n in 10..30 {
        bench.client(n);
    }
    // Asked again and again, it is told of all of them each time.
    let mut asked = 0;
    while !bench.is_closed(7) && asked < limits::RELAY_QUEUE_WATCH.0 {
        asked += 1;
        bench.send(7, &Frame::WatchConns);
    }
    assert!(bench.is_closed(7));
    assert!(asked * 21 > limits::RELAY_QUEUE_WATCH.0 - 100, "after {asked} only");
}

#[test]
fn a_client_whose_key_stays_connected_twice_is_told_and_told_when_it_is_over() {
    let mut bench = Bench::new(false);
    bench.login_as(1, &secret(1), "warren");
    bench.login_as(2, &secret(1), "");
    bench.written.clear();
    let minute = limits::RELAY_KEEPALIVE + limits::RELAY_KEEPALIVE_JITTER;
    bench.now += minute;
    bench.input(Input::Deadline);
    let heard = bench.heard(1);
    assert!(heard.iter().any(|frame| frame.contains("another machine is connected")), "{heard:?}");
    assert_eq!(bench.heard(2), ["KeepAlive"], "who may not take it is not told");
    bench.now += minute;
    bench.input(Input::Deadline);
    assert_eq!(bench.heard(1), ["KeepAlive"], "once is enough");
    bench.close(2);
    bench.now += minute;
    bench.input(Input::Deadline);
    assert_eq!(bench.heard(1), ["KeepAlive", "Health { problem: \"\" }"]);
    assert_eq!(bench.hub.server().counters().health, 2);
}

#[test]
fn a_key_that_comes_to_another_relay_is_reached_there_until_it_speaks_here() {
    let mut bench = Bench::of_mesh();
    bench.client(1);
    bench.client(2);
    // The link to the other relay, as far as the table knows it.
    let link = stream(9);
    let change = |change| Input::Command(ServerCommand::Mesh(change));
    let key = secret(1).public();
    bench.input(change(MeshChange::Present { link, key, fresh: false }));
    bench.packet(2, &secret(1), b"here");
    assert_eq!(bench.heard(1), ["from 2: here"], "who was there before may have gone");
    bench.input(change(MeshChange::Gone { link, key }));
    bench.input(change(MeshChange::Present { link, key, fresh: true }));
    bench.packet(2, &secret(1), b"there");
    assert!(bench.heard(1).is_empty());
    assert_eq!(bench.hub.counters().mesh_out, 1);
    bench.send(1, &Frame::Ping([1; 8]));
    bench.heard(1);
    bench.packet(2, &secret(1), b"here again");
    assert_eq!(bench.heard(1), ["from 2: here again"]);
    bench.input(change(MeshChange::Gone { link, key }));
    bench.input(change(MeshChange::Present { link, key, fresh: true }));
    bench.input(change(MeshChange::Lost { link }));
    bench.packet(2, &secret(1), b"nowhere else");
    assert_eq!(bench.heard(1), ["from 2: nowhere else"]);
}

#[test]
fn a_key_that_nobody_can_be_asked_for_elsewhere_stays_here() {
    let mut bench = Bench::of_mesh();
    (1..=2).for_each(|n| bench.client(n));
    let present =
        |key, fresh| Input::Command(ServerCommand::Mesh(MeshChange::Present { link: stream(9), key, fresh }));
    for n in 0..limits::MESH_KEYS_MAX as u64 {
        bench.input(present(numbered(n), false));
    }
    bench.input(present(secret(2).public(), true));
    assert_eq!(bench.hub.server().elsewhere(), limits::MESH_KEYS_MAX);
    bench.packet(1, &secret(2), b"still here");
    assert_eq!(bench.heard(2), ["from 1: still here"]);
}

//! Whole nodes on loopback: the production driver, real sockets, real WireGuard, and a server's parts.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world may stop there")]

mod world;

use io_adapters::handle::{Datagram, NodeHandle, PeerHandle, TunnelError};
use io_adapters::relay_stream::tls::Identity;
use io_adapters::speedtest;
use proto_core::id::NodeId;
use proto_core::machine::TlsCheck;
use proto_core::stream::Header;
use proto_core::stream::udp::{FlowTag, UdpFrame, UdpNotice};
use proto_core::time::Duration;
use proto_core::wire::control::NodeKind;
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use world::{AGENT, Gated, Plan, Tls, World, pattern};

/// Nothing here may take longer; a test that hangs must say where.
const PATIENCE: Duration = Duration::from_secs(40);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

async fn tunnel(client: &NodeHandle) -> PeerHandle {
    within("the tunnel", client.open_tunnel(NodeId(AGENT.into()))).await.unwrap()
}

/// Sends `bytes` and expects them back.
async fn echo(peer: &PeerHandle, bytes: &[u8]) {
    let echoed = async {
        let mut stream = peer.open(&Header::Ping).await.unwrap();
        let mut back = Vec::new();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut back).await.unwrap();
        assert!(back == bytes, "{} bytes came back instead of {}", back.len(), bytes.len());
    };
    within("the echo", echoed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_through_the_relay_and_then_directly() {
    let world = World::new(Plan::default()).await;
    let agent = world.agent().await;
    let network = Gated { shut: Arc::new(AtomicBool::new(true)), ..Gated::default() };
    let gate = network.shut.clone();
    let client = world.node_on(network, world.config(NodeKind::Client, "user-token")).await;
    let peer = tunnel(&client).await;
    echo(&peer, b"hello").await;
    assert!(peer.path().via().is_some_and(|via| !via.is_direct()), "{:?}", peer.path());
    let mut stream = peer.open(&Header::Ping).await.unwrap();
    let mut word = [0; 5];
    stream.write_all(b"relay").await.unwrap();
    within("the relay", stream.read_exact(&mut word)).await.unwrap();

    gate.store(false, Ordering::Relaxed);
    within("a direct path", peer.wait_direct()).await.unwrap();
    stream.write_all(b"direc").await.unwrap();
    within("the same stream", stream.read_exact(&mut word)).await.unwrap();
    echo(&peer, &pattern(3_000_000)).await;
    assert!(peer.path().is_direct());

    // And back again, when nothing passes any more.
    gate.store(true, Ordering::Relaxed);
    stream.write_all(b"again").await.unwrap();
    within("the relay again", stream.read_exact(&mut word)).await.unwrap();
    client.shutdown().await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_udp_sockets_are_bound_again_while_streams_go_on() {
    let world = World::new(Plan::default()).await;
    let agent = world.agent().await;
    let network = Gated { down: Arc::new(AtomicBool::new(true)), ..Gated::default() };
    let down = network.down.clone();
    // At first no socket can be bound at all.
    let client = world.node_on(network, world.config(NodeKind::Client, "user-token")).await;
    let peer = tunnel(&client).await;
    let mut stream = peer.open(&Header::Ping).await.unwrap();
    let mut word = [0; 5];
    let mut round_trip = async |what: &str| {
        let began = std::time::Instant::now();
        stream.write_all(b"hello").await.unwrap();
        within(what, stream.read_exact(&mut word)).await.unwrap();
        began.elapsed()
    };
    round_trip("the relay, without UDP").await;
    assert!(client.status().await.unwrap().endpoints.is_empty());
    let mut ports = Vec::new();
    for round in 0..2 {
        down.store(false, Ordering::Relaxed);
        within("a direct path", peer.wait_direct()).await.unwrap();
        round_trip("directly").await;
        let endpoints = client.status().await.unwrap().endpoints;
        ports.push(
            endpoints.iter().map(std::net::SocketAddr::port).collect::<std::collections::BTreeSet<_>>(),
        );
        // Then every socket dies: the stream goes on by the relay, and nobody waits for long.
        down.store(true, Ordering::Relaxed);
        for _ in 0..20 {
            let took = round_trip("the relay again").await;
            assert!(took < Duration::from_secs(3), "round {round}: {took:?} without an answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(!peer.path().is_direct(), "{:?}", peer.path());
        assert!(client.status().await.unwrap().endpoints.is_empty(), "nobody is told of dead sockets");
    }
    assert!(!ports[0].is_empty() && ports[0] == ports[1], "the ports stay the same: {ports:?}");
    client.shutdown().await;
    agent.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_direct_connections_everything_stays_on_the_relay() {
    let world = World::new(Plan { relayed_only: true, ..Plan::default() }).await;
    let _agent = world.agent().await;
    let client = world.client().await;
    let peer = tunnel(&client).await;
    echo(&peer, &pattern(3_000_000)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    echo(&peer, b"still").await;
    assert!(!peer.path().is_direct() && peer.path().via().is_some(), "{:?}", peer.path());
    let status = world.relay.as_ref().unwrap().handle.status().await.unwrap();
    assert!(status.forwarded.bytes_in > 6_000_000, "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_relay_is_found_again_and_streams_go_on() {
    let mut world = World::new(Plan { relayed_only: true, ..Plan::default() }).await;
    let _agent = world.agent().await;
    let client = world.client().await;
    let peer = tunnel(&client).await;
    let mut stream = peer.open(&Header::Ping).await.unwrap();
    let mut word = [0; 6];
    stream.write_all(b"before").await.unwrap();
    within("before", stream.read_exact(&mut word)).await.unwrap();
    world.relay = None;
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.start_relay().await;
    stream.write_all(b"after!").await.unwrap();
    within("after", stream.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"after!");
    echo(&peer, &pattern(100_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_coordinator_disturbs_no_stream_and_serves_new_tunnels() {
    let mut world = World::new(Plan::default()).await;
    let _agent = world.agent().await;
    let client = world.client().await;
    let peer = tunnel(&client).await;
    echo(&peer, b"up").await;
    let mut stream = peer.open(&Header::Ping).await.unwrap();
    let mut word = [0; 6];
    world.control = None;
    for _ in 0..5 {
        stream.write_all(b"during").await.unwrap();
        within("during", stream.read_exact(&mut word)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    echo(&peer, b"a new stream").await;
    world.start_control().await;
    let online = async {
        while !world.store.is_online(&NodeId(AGENT.into())) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the agent's return", online).await;
    stream.write_all(b"after!").await.unwrap();
    within("after", stream.read_exact(&mut word)).await.unwrap();
    let second = world.client().await;
    echo(&tunnel(&second).await, b"from a new client").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_have_back_pressure_halves_and_resets() {
    let world = World::new(Plan::default()).await;
    let _agent = world.agent().await;
    let client = world.client().await;
    let peer = tunnel(&client).await;

    // The agent writes without end; while nobody reads, another stream passes.
    let mut endless =
        peer.open(&Header::Speedtest { upload: false, duration_ms: 0, tell: false }).await.unwrap();
    let mut piece = vec![0; 1 << 20];
    within("the first bytes", endless.read_exact(&mut piece)).await.unwrap();
    assert!(piece == pattern(1 << 20));
    echo(&peer, &pattern(500_000)).await;
    within("more bytes", endless.read_exact(&mut piece)).await.unwrap();
    assert!(piece == pattern(1 << 20));
    drop(endless);

    // Our half ends, the answer comes after it.
    let mut upload =
        peer.open(&Header::Speedtest { upload: true, duration_ms: 0, tell: false }).await.unwrap();
    within("the upload", upload.write_all(&pattern(5_000_000))).await.unwrap();
    upload.shutdown().await.unwrap();
    within("the delivery", upload.delivered()).await.unwrap();
    assert_eq!(within("the count", upload.read_u64()).await.unwrap(), 5_000_000);
    assert_eq!(upload.read(&mut piece).await.unwrap(), 0);

    // A reset is heard on both halves.
    let mut reset = peer.open(&Header::Tcp { to: (Ipv4Addr::UNSPECIFIED, 0).into() }).await.unwrap();
    reset.write_all(b"x").await.unwrap();
    let error = within("the reset", reset.read(&mut piece)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_pass_in_flows_and_what_is_too_long_comes_back() {
    let world = World::new(Plan::default()).await;
    let _agent = world.agent().await;
    let client = world.client().await;
    let peer = tunnel(&client).await;
    let mut flows = Vec::new();
    for flow in [1, 2] {
        let header = Header::Udp { to: (Ipv4Addr::UNSPECIFIED, 0).into(), flow };
        let datagrams = peer.datagrams(FlowTag { flow, opener: true });
        let mut stream = peer.open(&header).await.unwrap();
        let mut ready = [0; 3];
        within("ready", stream.read_exact(&mut ready)).await.unwrap();
        assert_eq!(UdpFrame::decode(&ready), Ok(Some((UdpFrame::Notice(UdpNotice::Ready), 3))));
        flows.push((stream, datagrams));
    }
    for (n, (_stream, datagrams)) in flows.iter().enumerate() {
        let said = format!("of flow {n}");
        let back = async {
            loop {
                assert!(datagrams.send(said.as_bytes()));
                if let Ok(back) = timeout(Duration::from_millis(100), datagrams.next()).await {
                    break back;
                }
            }
        };
        assert_eq!(within("the datagram", back).await, Some(Datagram::Received(said.into())));
    }
    let long = vec![7; 60_000];
    assert!(flows[0].1.send(&long));
    loop {
        match within("what is too long", flows[0].1.next()).await {
            Some(Datagram::Received(_)) => {}
            back => break assert_eq!(back, Some(Datagram::TooLong(long.into()))),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_speed_test_counts_the_same_at_both_ends() {
    let world = World::new(Plan::default()).await;
    let _agent = world.agent().await;
    let client = world.client().await;
    let peer = tunnel(&client).await;
    within("a direct path", peer.wait_direct()).await.unwrap();
    let mut stream =
        peer.open(&Header::Speedtest { upload: true, duration_ms: 0, tell: false }).await.unwrap();
    let mut told = 0;
    let sending =
        speedtest::send(&mut stream, Duration::from_millis(50), |second| told += second.carried.bytes);
    let sent = within("sending", sending).await.unwrap();
    assert!(sent.bytes > 0);
    assert_eq!(told, sent.bytes, "the intervals add up to the whole");
    let received = within("the agent's count", stream.read_u64()).await.unwrap();
    assert_eq!(received, sent.bytes);
    client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_why() {
    let world = World::new(Plan::default()).await;
    let _agent = world.agent().await;
    let eve = world.node(world.config(NodeKind::Client, "stranger-token")).await;
    let nobody = world.node(world.config(NodeKind::Client, "wrong-token")).await;
    let mut told = Vec::new();
    for node in [&eve, &nobody] {
        let error = within("the refusal", node.open_tunnel(NodeId(AGENT.into()))).await.unwrap_err();
        told.push(format!("{error:?}"));
    }
    insta::assert_snapshot!(told.join("\n"));
    eve.shutdown().await;
    assert_eq!(eve.open_tunnel(NodeId(AGENT.into())).await.unwrap_err(), TunnelError::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_works_inside_tls_with_a_pinned_certificate() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().der().clone();
    let secret = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let identity = Identity::new(vec![certificate.clone()], secret).unwrap();
    let check = TlsCheck::Pinned { sha256: Sha256::digest(&certificate).into() };
    let world = World::new(Plan { relayed_only: true, tls: Some(Tls { identity, check }) }).await;
    let _agent = world.agent().await;
    let client = world.client().await;
    echo(&tunnel(&client).await, &pattern(1_000_000)).await;

    let mut config = world.config(NodeKind::Client, "user-token");
    if let Some(control) = &mut config.control {
        control.tls = Some(TlsCheck::Pinned { sha256: [0; 32] });
    }
    let stranger = world.node(config).await;
    let mut events = stranger.events();
    let refused = async {
        loop {
            let event = format!("{:?}", events.next().await.unwrap());
            if event.contains("is pinned") {
                break event;
            }
        }
    };
    let event = within("the wrong pin", refused).await;
    assert!(event.contains(&"00".repeat(32)), "{event}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_leaves_is_told_and_one_that_comes_back_is_found() {
    let world = World::new(Plan::default()).await;
    let agent = world.agent().await;
    let client = world.client().await;
    let peer = tunnel(&client).await;
    echo(&peer, b"hello").await;
    let mut stream = peer.open(&Header::Ping).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let mut byte = [0; 1];
    within("an echo", stream.read_exact(&mut byte)).await.unwrap();
    agent.shutdown().await;
    within("the end of the stream", stream.read(&mut byte)).await.unwrap_err();
    drop((peer, stream));

    let _agent = world.agent().await;
    let again = async {
        loop {
            match client.open_tunnel(NodeId(AGENT.into())).await {
                Ok(peer) => break peer,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    echo(&within("the agent's return", again).await, b"hello again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_another_key_is_refused() {
    let world = World::new(Plan::default()).await;
    let agent = world.agent().await;
    let client = world.client().await;
    let peer = tunnel(&client).await;
    agent.shutdown().await;
    let mut path = peer.watch_path();
    within("the agent's leave", path.wait_for(|path| path.gone.is_some())).await.unwrap();
    let _impostor = world.agent_of(world.config(NodeKind::Agent, "agent-token")).await;
    let error = within("the refusal", client.open_tunnel(NodeId(AGENT.into()))).await.unwrap_err();
    assert!(matches!(&error, TunnelError::Refused { code, .. } if code == "KEY_CHANGED"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_on_every_socket_leave_everything_working() {
    let world = World::new(Plan::default()).await;
    let agent = world.agent().await;
    let client = world.client().await;
    let peer = tunnel(&client).await;
    echo(&peer, b"before").await;
    within("a direct path", peer.wait_direct()).await.unwrap();

    let endpoints = agent.status().await.unwrap().endpoints;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut rng = proto_core::seed::Seed::from_u64(1).rng();
    let heads: [&[u8]; 5] =
        [b"", b"TS\xf0\x9f\x92\xac", &[1, 0, 0, 0], &[4, 0, 0, 0], &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]];
    for n in 0..2_000 {
        let mut bytes = heads[n % heads.len()].to_vec();
        for _ in 0..rng.range(0..20) {
            bytes.extend_from_slice(&rng.bytes::<8>());
        }
        let to: SocketAddr = match n % 3 {
            0 => world.stun,
            _ => endpoints.iter().copied().find(SocketAddr::is_ipv4).unwrap(),
        };
        let _ = socket.send_to(&bytes, to).await;
    }
    let upgrade = format!(
        "GET /api/v1/coordinate HTTP/1.1\r\nAuthorization: Bearer user-token\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        "dGhlIHNhbXBsZSBub25jZQ=="
    );
    for n in 0..100 {
        let mut tcp = tokio::net::TcpStream::connect(world.control_at).await.unwrap();
        let mut bytes = if n % 2 == 0 { Vec::new() } else { upgrade.clone().into_bytes() };
        for _ in 0..rng.range(0..40) {
            bytes.extend_from_slice(&rng.bytes::<8>());
        }
        let _ = tcp.write_all(&bytes).await;
    }
    echo(&peer, &pattern(100_000)).await;
    assert!(peer.path().is_direct());
    let second = world.client().await;
    echo(&tunnel(&second).await, b"after").await;
}

use super::front::Front;
use super::*;
use crate::store::MemStore;
use proto_core::key::NodeSecret;
use proto_core::wire::derp::{ClientInfo, Decoder, Frame, FrameKind};
use tokio::io::{AsyncReadExt, DuplexStream};

/// A relay with its front door, and what is needed to stop it.
struct World {
    relay: RelayHandle,
    front: Arc<Front<MemStore>>,
    tasks: tokio::task::JoinSet<()>,
}

fn world() -> World {
    let config = RelayServerConfig::new(NodeSecret::generate(&Seed::from_u64(1)));
    let (relay, task) = relay(config, Seed::from_u64(2), Origin::now());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(task.run());
    let front = Arc::new(Front::new(Some(relay.clone()), None));
    World { relay, front, tasks }
}

impl World {
    /// A connection with this much room in each direction.
    fn connect(&mut self, room: usize) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(room);
        let front = self.front.clone();
        self.tasks.spawn(async move {
            let _ = front.serve(Box::new(theirs), None).await;
        });
        ours
    }

    async fn client(&mut self, n: u64, room: usize) -> Client {
        let mut io = self.connect(room);
        let secret = NodeSecret::generate(&Seed::from_u64(n));
        // Request and login in one piece: nothing of it may get lost between the two.
        let mut hello =
            b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n".to_vec();
        let relay = self.relay.public();
        ClientInfo::default().emit(&secret, &relay, &mut Seed::from_u64(n).rng(), &mut hello);
        io.write_all(&hello).await.unwrap();
        let mut client = Client { io, decoder: Decoder::new(), frames: Vec::new(), key: secret.public() };
        client.until(|f| matches!(f, Frame::ServerInfo { .. })).await;
        client
    }
}

struct Client {
    io: DuplexStream,
    decoder: Decoder,
    frames: Vec<Vec<u8>>,
    key: NodePublic,
}

impl Client {
    async fn send(&mut self, to: NodePublic, data: &[u8]) {
        self.io.write_all(&Frame::SendPacket { to, bytes: data }.to_bytes()).await.unwrap();
    }

    /// Reads frames up to one that is wanted, whose bytes are the result.
    async fn until(&mut self, wanted: impl Fn(&Frame<'_>) -> bool) -> Vec<u8> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(at) = self.frames.iter().position(|f| {
                proto_core::wire::derp::decode(f).unwrap().is_some_and(|(frame, _)| wanted(&frame))
            }) {
                return self.frames.remove(at);
            }
            let n = self.io.read(&mut buffer).await.unwrap();
            assert!(n > 0, "the relay closed the connection");
            let mut frames = self.decoder.feed(&buffer[..n]);
            while let Some(frame) = frames.next().unwrap() {
                self.frames.push(frame.to_bytes());
            }
        }
    }

    async fn packet(&mut self) -> Vec<u8> {
        let frame = self.until(|f| matches!(f, Frame::RecvPacket { .. })).await;
        frame[5 + 32..].to_vec()
    }
}

/// Those who are counted while they end: neither waits for the other.
#[test]
fn connections_end_while_the_relay_says_how_it_is() {
    let (done, is_done) = std::sync::mpsc::channel();
    // In threads of their own: if they wait for one another, no runtime of theirs tells of it.
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(4).enable_all().build().unwrap().block_on(looks_while_they_end());
        done.send(()).unwrap();
    });
    // A minute is many times what it takes.
    is_done.recv_timeout(std::time::Duration::from_secs(60)).expect("the relay still answers");
}

async fn looks_while_they_end() {
    let mut world = world();
    let (relay, front) = (world.relay.clone(), world.front.clone());
    for _ in 0..4 {
        let front = front.clone();
        world.tasks.spawn(async move {
            for _ in 0..1_000 {
                let (mut ours, theirs) = tokio::io::duplex(1 << 12);
                let serving = tokio::spawn({
                    let front = front.clone();
                    async move { front.serve(Box::new(theirs), None).await }
                });
                ours.write_all(b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n").await.unwrap();
                let _ = ours.read(&mut [0; 512]).await;
                // As one who has to make room for another.
                serving.abort();
                let _ = serving.await;
            }
        });
    }
    for _ in 0..2_000 {
        relay.status().await.unwrap();
    }
}

#[tokio::test]
async fn packets_reach_their_key_and_pings_are_answered() {
    let mut world = world();
    let mut a = world.client(10, 1 << 16).await;
    let mut b = world.client(11, 1 << 16).await;
    a.send(b.key, b"to b").await;
    assert_eq!(b.packet().await, b"to b");
    b.send(a.key, b"").await;
    assert_eq!(a.packet().await, b"");
    a.io.write_all(&Frame::Ping(*b"12345678").to_bytes()).await.unwrap();
    a.until(|f| matches!(f, Frame::Pong(data) if data == b"12345678")).await;

    drop(b.io);
    a.until(|f| matches!(f, Frame::PeerGone { peer, .. } if *peer == b.key)).await;
    let status = world.relay.status().await.unwrap();
    assert_eq!((status.connections, status.server.joined), (1, 2));
    assert_eq!(status.forwarded.packets_in, 2);
}

#[tokio::test]
async fn a_stream_cut_anywhere_is_put_together_again() {
    let mut world = world();
    let mut a = world.client(10, 7).await;
    let mut b = world.client(11, 11).await;
    let (to, big) = (b.key, vec![9; 3_000]);
    let sending = async {
        a.send(to, b"small").await;
        // A frame of a kind that nobody knows is skipped.
        a.io.write_all(&[0x7f, 0, 0, 0, 3, 1, 2, 3]).await.unwrap();
        a.send(to, &big).await;
    };
    let receiving = async {
        assert_eq!(b.packet().await, b"small");
        assert_eq!(b.packet().await, vec![9; 3_000]);
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn who_reads_slowly_loses_the_oldest_and_slows_nobody() {
    let mut world = world();
    let mut a = world.client(10, 1 << 16).await;
    let mut slow = world.client(11, 1 << 10).await;
    let mut quick = world.client(12, 1 << 16).await;
    let packet = |n: u32| {
        let mut packet = vec![0; 1_400];
        packet[..4].copy_from_slice(&n.to_be_bytes());
        packet
    };
    let (to_slow, to_quick) = (slow.key, quick.key);
    let last = 5_000;
    let sending = async {
        for n in 0..=last {
            a.send(to_slow, &packet(n)).await;
            if n % 100 == 0 {
                a.send(to_quick, &packet(n)).await;
            }
        }
    };
    let receiving = async {
        for n in (0..=last).step_by(100) {
            assert_eq!(quick.packet().await, packet(n));
        }
    };
    tokio::join!(sending, receiving);
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        let packet = slow.packet().await;
        seen.push(u32::from_be_bytes(packet[..4].try_into().unwrap()));
    }
    assert!(seen.is_sorted() && seen.len() < 2_000, "{} packets arrived", seen.len());
}

#[tokio::test]
async fn who_reads_nothing_at_all_is_closed() {
    let mut world = world();
    let mut a = world.client(10, 1 << 16).await;
    let mut stuck = world.client(11, 64).await;
    stuck.send(a.key, b"here I am").await;
    assert_eq!(a.packet().await, b"here I am");
    for _ in 0..10 {
        a.send(stuck.key, &[0; 1_000]).await;
    }
    a.until(|f| matches!(f, Frame::PeerGone { .. })).await;
    assert_eq!(world.relay.status().await.unwrap().connections, 1);
}

#[tokio::test]
async fn who_was_expelled_says_no_more_and_is_soon_gone() {
    let mut world = world();
    let mut a = world.client(10, 1 << 16).await;
    let Client { io, key, .. } = world.client(11, 64).await;
    for _ in 0..10 {
        a.send(key, &[0; 1_000]).await;
    }
    a.io.write_all(&Frame::Ping(*b"all sent").to_bytes()).await.unwrap();
    a.until(|f| matches!(f, Frame::Pong(_))).await;
    world.relay.command(ServerCommand::Expel(key)).await;
    assert_eq!(world.relay.status().await.unwrap().connections, 1);
    // It takes a byte now and then, and so never stalls.
    let packet = Frame::SendPacket { to: a.key, bytes: b"still here" }.to_bytes();
    let (mut read, mut write) = tokio::io::split(io);
    let lingering = async {
        while write.write_all(&packet).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let dripping = async {
        while read.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = timeout(Duration::from_secs(20), async { tokio::join!(lingering, dripping) }).await;
    assert!(ended.is_ok(), "the relay has ended it");
    let own = a.key;
    a.send(own, b"from myself").await;
    assert_eq!(a.packet().await, b"from myself");
}

#[tokio::test(start_paused = true)]
async fn two_that_fight_over_a_key_are_held_as_if_they_pinged() {
    let mut world = world();
    let mut there = world.client(10, 1 << 16).await;
    let mut clones = [world.client(11, 1 << 16).await, world.client(11, 1 << 16).await];
    let pings = proto_core::limits::RATE_BURST_MIN as usize / Frame::Ping([0; 8]).to_bytes().len();
    for n in 0..2 * (pings + 10) {
        clones[n % 2].send(there.key, b"it is me").await;
        there.packet().await;
        // By now the relay's task knows who spoke.
        if world.relay.status().await.unwrap().hushed.0 > 0 {
            assert!(n >= pings, "after {n} packets");
            return;
        }
    }
    panic!("nobody was held");
}

#[tokio::test]
async fn logins_that_are_given_up_take_no_place() {
    let world = world();
    for n in 0..=proto_core::limits::RELAY_WAITING_MAX {
        let (mut ours, theirs) = tokio::io::duplex(1_024);
        ours.write_all(b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n").await.unwrap();
        let greeting = Frame::ServerKey { key: world.relay.public() }.to_bytes();
        let mut heard = vec![0; greeting.len()];
        // As the door does that needs its place for another.
        tokio::select! {
            served = world.front.serve(Box::new(theirs), None) => panic!("login {n} was ended: {served:?}"),
            read = ours.read_exact(&mut heard) => assert!(read.is_ok(), "login {n} found no place"),
        }
        assert_eq!(heard, greeting);
    }
    world.relay.stop().await;
    // Nobody is waited for: a connection that nobody serves would never end.
    let mut tasks = world.tasks;
    let stopped = timeout(RELAY_WRITE_TIMEOUT / 2, async { while tasks.join_next().await.is_some() {} });
    assert!(stopped.await.is_ok());
}

#[tokio::test]
async fn the_companions_of_derp_answer() {
    let mut world = world();
    let mut said = String::new();
    for request in [
        "GET /derp/latency-check HTTP/1.1\r\n\r\nHEAD https://x/derp/probe HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: ts_1.2\r\nConnection: close\r\n\r\n",
        "GET /derp HTTP/1.1\r\nConnection: close\r\n\r\n",
        "POST /derp/probe HTTP/1.1\r\nContent-Length: 1\r\n\r\nx",
        "GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n",
        "\x16\x03\x01\x02",
    ] {
        let mut io = world.connect(1 << 14);
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        said.push_str(&answer.replace("\r\n", "\n"));
        said.push_str("---\n");
    }
    insta::assert_snapshot!(said);
}

#[tokio::test]
async fn a_frame_that_is_too_long_for_a_node_is_not_waited_for() {
    let mut world = world();
    let mut client = world.client(10, 1 << 16).await;
    // As long as a relay's may be, and only begun.
    let mut header = vec![FrameKind::ServerInfo as u8];
    header.extend_from_slice(&(FrameKind::ServerInfo.payload_max() as u32).to_be_bytes());
    client.io.write_all(&header).await.unwrap();
    let mut rest = Vec::new();
    let closed = client.io.read_to_end(&mut rest);
    let closed = tokio::time::timeout(std::time::Duration::from_secs(10), closed);
    closed.await.expect("the relay waits for the rest").unwrap();
}

#[tokio::test]
async fn random_bytes_close_the_connection_and_nothing_else() {
    let mut world = world();
    let mut rng = Seed::from_u64(3).rng();
    for n in 0..300 {
        let mut io = world.connect(1 << 14);
        let mut bytes = Vec::new();
        if n % 3 > 0 {
            bytes.extend_from_slice(b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n");
        }
        if n % 3 > 1 {
            let secret = NodeSecret::generate(&Seed::from_u64(n));
            ClientInfo::default().emit(&secret, &world.relay.public(), &mut rng, &mut bytes);
        }
        for _ in 0..rng.range(0..64) {
            bytes.extend_from_slice(&rng.bytes::<8>());
        }
        let _ = io.write_all(&bytes).await;
        let _ = io.shutdown().await;
        let mut rest = Vec::new();
        let _ = io.read_to_end(&mut rest).await;
    }
    let mut a = world.client(10, 1 << 16).await;
    let key = a.key;
    a.send(key, b"to myself").await;
    assert_eq!(a.packet().await, b"to myself");
    while let Some(done) = world.tasks.try_join_next() {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_relay_that_tells_its_key_in_its_certificate_is_begun_at_once() {
    use crate::relay_stream::Dialer;
    use crate::relay_stream::fallback::{DerpIo, Fallback};
    use crate::relay_stream::proxy::Proxies;
    use crate::relay_stream::tls::{Identity, Trust};
    use crate::transport::{Network, TcpAccept, TokioNetwork};
    use proto_core::machine::{StreamProtocol, StreamTarget, TlsCheck};

    let mut world = world();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().der().clone();
    let secret = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let identity = Identity::new(vec![certificate.clone()], secret).unwrap();
    let listener = TokioNetwork.listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let at = listener.local_addr();
    world.tasks.spawn(world.front.clone().listen(listener, Some(identity.clone())));
    let target = StreamTarget {
        protocol: StreamProtocol::Derp,
        host: "127.0.0.1".into(),
        port: at.port(),
        addresses: vec![at.ip()],
        tls: Some(TlsCheck::Roots { name: "127.0.0.1".into() }),
        path: "/derp".into(),
        bearer: None,
    };
    let trust = Trust::only(vec![certificate]);
    let dialer = Dialer { network: TokioNetwork, trust, proxies: Proxies::default() };
    for told in [false, true] {
        if told {
            identity.tell_relay(&world.relay.public()).unwrap();
        }
        let mut io = Fallback::default().open(&dialer, &target).await.unwrap();
        assert_eq!(matches!(io, DerpIo::FastStart(_)), told);
        let mut decoder = Decoder::new();
        let mut buffer = [0; 4_096];
        let secret = NodeSecret::generate(&Seed::from_u64(30));
        let mut in_hand = 0;
        loop {
            let n = io.read(&mut buffer).await.unwrap();
            assert!(n > 0, "the relay closed the connection");
            let mut frames = decoder.feed(&buffer[..n]);
            let mut login = Vec::new();
            while let Some(frame) = frames.next().unwrap() {
                match frame {
                    Frame::ServerKey { key } => {
                        assert_eq!(key, world.relay.public());
                        in_hand += 1;
                        ClientInfo::default().emit(&secret, &key, &mut Seed::from_u64(30).rng(), &mut login);
                    }
                    Frame::ServerInfo { .. } => in_hand += 10,
                    _ => {}
                }
            }
            if in_hand > 10 {
                break;
            }
            io.write_all(&login).await.unwrap();
            io.flush().await.unwrap();
        }
        assert_eq!(in_hand, 11, "the key is heard once");
    }
}

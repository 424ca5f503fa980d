//! The embedded relay at the server's own door: every way of asking for DERP, and whoever asks for nothing.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use io_adapters::relay_stream::{upgrade, websocket};
use proto_core::key::{NodePublic, NodeSecret};
use proto_core::machine::{StreamProtocol, StreamTarget};
use proto_core::seed::{Rng, Seed};
use proto_core::wire::derp::{ClientInfo, Decoder, Frame, decode};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use support::World;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For something that takes milliseconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A relay's client, spoken by hand.
struct Client {
    io: Box<dyn Io>,
    decoder: Decoder,
    frames: Vec<Vec<u8>>,
    secret: NodeSecret,
    rng: Rng,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Upgrade,
    FastStart,
    WebSocket,
}

impl Client {
    /// Connects in this way, up to the relay's key; nothing is proven yet.
    async fn connect(at: SocketAddr, way: Way, seed: u64) -> (Self, NodePublic) {
        let mut tcp = TcpStream::connect(at).await.unwrap();
        let target = StreamTarget {
            protocol: StreamProtocol::Derp,
            host: at.ip().to_string(),
            port: at.port(),
            addresses: vec![at.ip()],
            tls: None,
            path: "/derp".into(),
            bearer: None,
        };
        let io: Box<dyn Io> = match way {
            Way::Upgrade => Box::new(upgrade::derp(tcp, &target).await.unwrap()),
            Way::WebSocket => Box::new(websocket::connect(tcp, &target).await.unwrap()),
            Way::FastStart => {
                let request = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n";
                tcp.write_all(request).await.unwrap();
                Box::new(tcp)
            }
        };
        let seed = Seed::from_u64(seed);
        let secret = NodeSecret::generate(&seed);
        let mut client = Self { io, decoder: Decoder::new(), frames: Vec::new(), secret, rng: seed.rng() };
        let said = client.until(|f| matches!(f, Frame::ServerKey { .. })).await;
        let Some((Frame::ServerKey { key }, _)) = decode(&said).unwrap() else { panic!("no key: {said:?}") };
        (client, key)
    }

    async fn log_in(at: SocketAddr, way: Way, seed: u64) -> Self {
        let (mut client, relay) = Self::connect(at, way, seed).await;
        let mut hello = Vec::new();
        ClientInfo::default().emit(&client.secret, &relay, &mut client.rng, &mut hello);
        client.write(&hello).await;
        client.until(|f| matches!(f, Frame::ServerInfo { .. })).await;
        client
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    async fn until(&mut self, wanted: impl Fn(&Frame<'_>) -> bool) -> Vec<u8> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let fits = |f: &Vec<u8>| decode(f).unwrap().is_some_and(|(frame, _)| wanted(&frame));
            if let Some(at) = self.frames.iter().position(fits) {
                return self.frames.remove(at);
            }
            let n = timeout(PATIENCE, self.io.read(&mut buffer)).await.expect("silence").unwrap();
            assert!(n > 0, "the relay closed the connection");
            let mut frames = self.decoder.feed(&buffer[..n]);
            while let Some(frame) = frames.next().unwrap() {
                self.frames.push(frame.to_bytes());
            }
        }
    }
}

#[tokio::test]
async fn every_way_of_asking_leads_to_the_same_relay() {
    let world = World::new().await;
    let ways = [Way::Upgrade, Way::FastStart, Way::WebSocket];
    let mut clients = Vec::new();
    for (way, seed) in ways.into_iter().zip(10..) {
        clients.push(Client::log_in(world.http, way, seed).await);
    }
    let keys: Vec<_> = clients.iter().map(|client| client.secret.public()).collect();
    // As long as the longest packet, so that WebSocket messages are cut and joined.
    let packet: Vec<u8> = (0..65_536u32).map(|n| (n % 251) as u8).collect();
    for from in 0..ways.len() {
        let to = (from + 1) % ways.len();
        clients[from].write(&Frame::SendPacket { to: keys[to], bytes: &packet }.to_bytes()).await;
        let came = clients[to].until(|f| matches!(f, Frame::RecvPacket { .. })).await;
        let wanted = Frame::RecvPacket { from: keys[from], bytes: &packet }.to_bytes();
        assert!(came == wanted, "from {:?} to {:?}", ways[from], ways[to]);
    }
}

#[tokio::test]
async fn who_asks_for_nothing_is_told_what_is_spoken() {
    let world = World::new().await;
    let answer = world.get("/derp", "").await;
    assert_eq!(answer.status, 426, "{answer:?}");
    assert_eq!(answer.header("Upgrade"), "DERP");
    let map = tempfile::NamedTempFile::new().unwrap();
    let node = json!({ "Name": "1a", "RegionID": 901, "HostName": "relay.example.com" });
    let region = json!({ "RegionID": 901, "RegionCode": "x", "RegionName": "X", "Nodes": [node] });
    std::fs::write(map.path(), json!({ "Regions": { "901": region } }).to_string()).unwrap();
    let off = World::with(|settings| {
        settings.derp_server_enable = false;
        settings.derp_config_path = Some(map.path().to_owned());
    })
    .await;
    assert_eq!(off.get("/derp", "").await.status, 404);
    let mut tcp = TcpStream::connect(off.http).await.unwrap();
    tcp.write_all(b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    timeout(PATIENCE, tcp.read_exact(&mut status)).await.unwrap().unwrap();
    assert_eq!(&status, b"HTTP/1.1 404");
}

#[tokio::test]
async fn hostile_bytes_at_the_door_harm_nobody() {
    let world = World::new().await;
    let mut guest = Client::log_in(world.http, Way::Upgrade, 20).await;
    let mut rng = Seed::from_u64(21).rng();
    let heads: [&[u8]; 5] = [
        b"",
        b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n",
        b"GET /derp HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: derp\r\nSec-WebSocket-Key: a\r\n\r\n",
        b"GET /api/v1/coordinate HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n",
    ];
    for round in 0..60 {
        let mut tcp = TcpStream::connect(world.http).await.unwrap();
        let mut bytes = heads[round % heads.len()].to_vec();
        for _ in 0..rng.range(1..2_000) {
            bytes.push(rng.range(0..256) as u8);
        }
        // Half of them go in the middle of what they say; the others wait for what the server makes of it.
        let _ = tcp.write_all(&bytes).await;
        if round % 2 == 0 {
            let _ = tcp.shutdown().await;
            let _ = timeout(PATIENCE, tcp.read_to_end(&mut Vec::new())).await.expect("it is not closed");
        }
    }
    guest.write(&Frame::Ping(*b"12345678").to_bytes()).await;
    guest.until(|f| matches!(f, Frame::Pong(data) if data == b"12345678")).await;
    assert_eq!(world.get("/healthz", "").await.status, 200);
}

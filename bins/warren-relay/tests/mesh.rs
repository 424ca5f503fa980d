//! Relays of one region, joined by their mesh key.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use proto_core::wire::derp::{ClientInfo, Frame, MeshKey};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use support::{Client, Running, relay};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const KEY: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// Addresses that nobody listens on: the relays must know one another's before they start.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}

/// A relay at an address, with this mesh key and these neighbours.
fn start(directory: &Path, at: SocketAddr, key: &str, neighbours: &str) -> Running {
    std::fs::write(directory.join("mesh.key"), format!("{key}\n")).unwrap();
    let mut command = support::program(directory);
    command.args(["--state-dir", "state", "--http-address", &at.to_string(), "--stun-address", "none"]);
    command.args(["--metrics-address", "127.0.0.1:0"]);
    command.args(["--mesh-key-file", "mesh.key", "--mesh-with", neighbours]);
    Running::start(command, directory)
}

/// A relay in a folder of its own, to be started again.
struct Place {
    directory: TempDir,
    at: SocketAddr,
    neighbours: String,
}

impl Place {
    fn start(&self) -> Running {
        start(self.directory.path(), self.at, KEY, &self.neighbours)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("relay.log")).unwrap()
    }
}

fn places<const N: usize>() -> [Place; N] {
    let addresses = free_addresses::<N>();
    // One list for all, which names each relay to itself, too.
    let neighbours = addresses.map(|at| format!("http://{at}")).join(",");
    addresses.map(|at| Place { directory: tempfile::tempdir().unwrap(), at, neighbours: neighbours.clone() })
}

async fn joined(relays: &[&Running]) {
    for relay in relays {
        let others = relays.len() as f64 - 1.0;
        relay.until("warren_relay_mesh_up", |up| up == others).await;
        relay.until("warren_relay_mesh_watchers", |watchers| watchers == others).await;
    }
}

#[tokio::test]
async fn clients_of_three_relays_reach_one_another() {
    let places = places::<3>();
    let running = [0, 1, 2].map(|n: usize| places[n].start());
    joined(&running.each_ref()).await;
    assert!(places[0].log().contains("is the one that runs here"), "{}", places[0].log());
    let mut clients = Vec::new();
    for (relay, n) in running.iter().zip(1..) {
        clients.push(Client::log_in(relay.http(), n).await);
    }
    for relay in &running {
        // The two other clients, beside the relays, which are one another's clients.
        relay.until("warren_relay_mesh_keys", |keys| keys >= 2.0).await;
    }
    let keys: Vec<_> = clients.iter().map(|client| client.key).collect();
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        let text = format!("from {from} to {to}").into_bytes();
        clients[from].send(keys[to], &text).await;
        assert_eq!(clients[to].packet().await, text);
        // As long as a packet may be.
        clients[from].send(keys[to], &[from as u8; 65_536]).await;
        assert_eq!(clients[to].packet().await, [from as u8; 65_536]);
    }
    for relay in &running {
        let metrics = relay.metrics().await;
        for way in ["in", "out"] {
            let packets = metrics[&format!("warren_relay_mesh_packets_total{{way=\"{way}\"}}")];
            assert_eq!(packets, 4.0, "{metrics:#?}");
        }
        assert_eq!(metrics["warren_relay_clients"], 1.0, "other relays are no clients");
    }
}

#[tokio::test]
async fn a_relay_that_dies_takes_its_clients_with_it_and_brings_them_back() {
    let places = places::<2>();
    let (one, two) = (places[0].start(), places[1].start());
    joined(&[&one, &two]).await;
    let (mut here, mut there) = (Client::log_in(one.http(), 1).await, Client::log_in(two.http(), 2).await);
    there.send(here.key, b"hello").await;
    assert_eq!(here.packet().await, b"hello");
    two.signal("KILL");
    two.end();
    let gone = here.until(|frame| matches!(frame, Frame::PeerGone { .. })).await.unwrap();
    assert_eq!(gone[5..], [&there.key.0[..], &[0]].concat(), "gone from the region");
    one.until("warren_relay_mesh_up", |up| up == 0.0).await;
    assert_eq!(one.metrics().await["warren_relay_mesh_keys"], 0.0);
    let two = places[1].start();
    joined(&[&one, &two]).await;
    let mut there = Client::log_in(two.http(), 2).await;
    one.until("warren_relay_mesh_keys", |keys| keys >= 1.0).await;
    // Who comes is told at once, but not before.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    here.send(there.key, b"again").await;
    assert_eq!(there.packet().await, b"again");
    // A relay that drains is left by its clients; its neighbours do not keep it.
    drop(there);
    two.signal("TERM");
    assert!(two.end().status.success());
}

#[tokio::test]
async fn a_relay_with_another_key_is_no_neighbour() {
    let [good, bad] = free_addresses();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let wrong = KEY.replacen("5a", "5b", 1);
    let one = start(directories[0].path(), good, KEY, &format!("http://{bad}"));
    let two = start(directories[1].path(), bad, &wrong, &format!("http://{good}"));
    // It logs in as an ordinary client, and is closed as soon as it watches.
    one.until("warren_relay_closed_total{reason=\"broken_protocol\"}", |closed| closed >= 2.0).await;
    let metrics = one.metrics().await;
    assert_eq!(metrics["warren_relay_mesh_logins_total"], 0.0, "{metrics:#?}");
    assert_eq!(metrics["warren_relay_mesh_watchers"], 0.0);
    let mut here = Client::log_in(one.http(), 1).await;
    let there = Client::log_in(two.http(), 2).await;
    here.send(there.key, b"nobody carries this").await;
    one.until("warren_relay_packets_dropped_total{reason=\"unknown_destination\",kind=\"data\"}", |n| {
        n == 1.0
    })
    .await;
}

/// A relay of the mesh, spoken by hand.
async fn neighbour(at: SocketAddr, n: u64) -> Client {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    let request = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n";
    tcp.write_all(request).await.unwrap();
    let info = ClientInfo { mesh_key: Some(MeshKey([0x5a; 32])), ..ClientInfo::default() };
    Client::begin(Box::new(tcp), n, info).await.unwrap()
}

#[tokio::test]
async fn a_neighbour_watches_forwards_and_closes_by_the_documented_bytes() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mesh.key"), KEY).unwrap();
    std::fs::write(directory.path().join("keys"), format!("{}\n", support::secret(1).public())).unwrap();
    let mut command = relay(directory.path());
    // The relay is not on the list and is let in all the same; nor is it slowed.
    command.args(["--mesh-key-file", "mesh.key", "--allow-keys-file", "keys", "--rate-limit-client", "1kB"]);
    let running = Running::start(command, directory.path());
    let mut watcher = neighbour(running.http(), 7).await;
    watcher.write(&[0x10, 0, 0, 0, 0]).await;
    let present = |frame: &Frame<'_>| matches!(frame, Frame::PeerPresent { .. });
    let itself = watcher.until(present).await.unwrap();
    assert_eq!(itself[..5], [0x09, 0, 0, 0, 51]);
    assert_eq!(itself[5..37], watcher.key.0);
    assert_eq!(itself[37..], [[0; 16].as_slice(), &[0, 0, 2]].concat(), "no address, port 0, a relay");

    let mut client = Client::log_in(running.http(), 1).await;
    let came = watcher.until(present).await.unwrap();
    assert_eq!((&came[5..37], came[55]), (&client.key.0[..], 1), "an ordinary node");
    let from = support::secret(50).public();
    let forward = |payload: &[u8]| {
        let length = u32::try_from(64 + payload.len()).unwrap().to_be_bytes();
        [&[0x0a], &length[..], &from.0, &client.key.0, payload].concat()
    };
    // A hundred times what a client may send in a second.
    let frames: Vec<u8> = (0..100).flat_map(|n| forward(&[n; 1_000])).collect();
    watcher.write(&frames).await;
    for n in 0..100 {
        let frame = client.until(|f| matches!(f, Frame::RecvPacket { .. })).await.unwrap();
        assert_eq!((&frame[5..37], &frame[37..]), (&from.0[..], &[n; 1_000][..]));
    }
    let metrics = running.metrics().await;
    assert_eq!(metrics["warren_relay_rate_limited_total"], 0.0, "{metrics:#?}");

    watcher.write(&[&[0x11, 0, 0, 0, 32], &client.key.0[..]].concat()).await;
    assert!(client.is_closed().await);
    let gone = watcher.until(|frame| matches!(frame, Frame::PeerGone { .. })).await.unwrap();
    assert_eq!(gone, [&[0x08, 0, 0, 0, 33], &client.key.0[..], &[0]].concat());
    // A frame that is a byte too short ends the connection.
    watcher.write(&[&[0x11, 0, 0, 0, 31], &[1; 31][..]].concat()).await;
    assert!(watcher.is_closed().await);
    let metrics = running.metrics().await;
    assert_eq!(metrics["warren_relay_mesh_closed_total"], 1.0, "{metrics:#?}");
    assert_eq!(metrics["warren_relay_closed_total{reason=\"broken_protocol\"}"], 1.0);
}

//! Who is let in, and how fast.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use proto_core::key::NodePublic;
use proto_core::wire::derp::{ClientInfo, Frame};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Client, PATIENCE, Running, get, relay, secret};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn list(directory: &Path, numbers: &[u64]) {
    let keys: Vec<String> = numbers.iter().map(|n| secret(*n).public().to_string()).collect();
    std::fs::write(directory.join("keys"), format!("# ours\n{}\n", keys.join("\n"))).unwrap();
}

#[tokio::test]
async fn a_list_lets_in_whom_it_names_and_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    list(directory.path(), &[1, 2]);
    let mut command = relay(directory.path());
    command.args(["--allow-keys-file", "keys"]);
    let running = Running::start(command, directory.path());
    let mut one = Client::log_in(running.http(), 1).await;
    let mut two = Client::log_in(running.http(), 2).await;
    assert!(Client::try_log_in(running.http(), 3).await.is_none(), "a stranger");
    two.send(one.key, b"hello").await;
    assert_eq!(one.packet().await, b"hello");
    let refused = "warren_relay_refused_total{reason=\"not_listed\"}";
    assert_eq!(running.metrics().await[refused], 1.0);

    list(directory.path(), &[2, 3]);
    running.signal("HUP");
    assert!(one.is_closed().await, "it is on the list no more");
    assert!(Client::try_log_in(running.http(), 1).await.is_none());
    let three = Client::log_in(running.http(), 3).await;
    two.send(three.key, b"still here").await;
    assert_eq!(running.metrics().await["warren_relay_expelled_keys_total"], 1.0);

    // A bad list changes nothing.
    std::fs::write(directory.path().join("keys"), "nonsense\n").unwrap();
    running.signal("HUP");
    let log = || std::fs::read_to_string(directory.path().join("relay.log")).unwrap();
    let since = Instant::now();
    while !log().contains("the old list of keys stays") {
        assert!(since.elapsed() < PATIENCE, "{}", log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Client::log_in(running.http(), 2).await;
    assert!(Client::try_log_in(running.http(), 1).await.is_none());
}

#[tokio::test]
async fn a_relay_that_is_full_turns_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = relay(directory.path());
    command.args(["--max-clients", "2"]);
    let running = Running::start(command, directory.path());
    let (_one, two) = (Client::log_in(running.http(), 1).await, Client::log_in(running.http(), 2).await);
    assert!(Client::try_log_in(running.http(), 3).await.is_none());
    assert_eq!(running.metrics().await["warren_relay_refused_total{reason=\"full\"}"], 1.0);
    drop(two);
    running.until("warren_relay_clients", |n| n == 1.0).await;
    Client::log_in(running.http(), 3).await;
}

/// Sends packets of 1,000 bytes as fast as it may, and counts at the other end what arrives.
fn flow(mut from: Client, mut to: Client) -> Arc<AtomicU64> {
    let (key, arrived) = (to.key, Arc::new(AtomicU64::new(0)));
    tokio::spawn(async move {
        let packets = Frame::SendPacket { to: key, bytes: &[7; 1_000] }.to_bytes().repeat(16);
        while from.io.write_all(&packets).await.is_ok() {}
    });
    let count = Arc::clone(&arrived);
    tokio::spawn(async move {
        loop {
            count.fetch_add(to.packet().await.len() as u64, Ordering::Relaxed);
        }
    });
    arrived
}

/// Bytes a second of each flow, over some seconds that begin once the burst has passed.
async fn rates(flows: &[Arc<AtomicU64>]) -> Vec<f64> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (since, before): (_, Vec<u64>) =
        (Instant::now(), flows.iter().map(|f| f.load(Ordering::Relaxed)).collect());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let seconds = since.elapsed().as_secs_f64();
    flows.iter().zip(before).map(|(f, b)| (f.load(Ordering::Relaxed) - b) as f64 / seconds).collect()
}

async fn pair(at: SocketAddr, n: u64) -> Arc<AtomicU64> {
    flow(Client::log_in(at, n).await, Client::log_in(at, n + 1).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_too_fast_is_slowed_and_slows_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = relay(directory.path());
    command.args(["--rate-limit-client", "500kB"]);
    let running = Running::start(command, directory.path());
    let flood = pair(running.http(), 1).await;
    let (mut calm, mut listener) =
        (Client::log_in(running.http(), 5).await, Client::log_in(running.http(), 6).await);
    let measured = tokio::spawn(async move { rates(&[flood]).await[0] });
    let mut slowest = Duration::ZERO;
    let mut sent = 0;
    while !measured.is_finished() {
        let since = Instant::now();
        calm.send(listener.key, b"ping").await;
        assert_eq!(listener.packet().await, b"ping");
        slowest = slowest.max(since.elapsed());
        sent += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The limit counts frames; of each, 37 bytes are no payload.
    let (rate, limit) = (measured.await.unwrap(), 500_000.0 * 1_000.0 / 1_037.0);
    assert!((rate / limit - 1.0).abs() < 0.05, "{rate} bytes a second, where {limit} are allowed");
    assert!(slowest < Duration::from_millis(250), "{sent} calm packets, the slowest {slowest:?}");
    let metrics = running.metrics().await;
    assert!(metrics["warren_relay_rate_limited_total"] > 100.0, "{metrics:#?}");
    assert!(metrics["warren_relay_rate_limited_seconds_total"] > 3.0, "{metrics:#?}");
    let dropped: f64 =
        metrics.iter().filter(|(name, _)| name.contains("packets_dropped")).map(|(_, value)| value).sum();
    assert_eq!(dropped, 0.0, "a limit slows, it drops nothing: {metrics:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_together_share_the_total_evenly() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = relay(directory.path());
    command.args(["--rate-limit-total", "1MB"]);
    let running = Running::start(command, directory.path());
    let mut flows = Vec::new();
    for n in 0..4 {
        flows.push(pair(running.http(), 1 + 2 * n).await);
    }
    let rates = rates(&flows).await;
    let (sum, limit) = (rates.iter().sum::<f64>(), 1_000_000.0 * 1_000.0 / 1_037.0);
    assert!((sum / limit - 1.0).abs() < 0.05, "{rates:?}");
    for rate in &rates {
        assert!((rate * 4.0 / sum - 1.0).abs() < 0.1, "{rates:?}");
    }
}

#[tokio::test]
async fn a_relay_that_drains_lets_nobody_new_in_and_carries_those_who_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = relay(directory.path());
    command.args(["--drain-timeout", "30"]);
    let running = Running::start(command, directory.path());
    let at = running.http();
    let mut tcp = TcpStream::connect(at).await.unwrap();
    let request = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n";
    tcp.write_all(request).await.unwrap();
    let info = ClientInfo { app_name: "warren".into(), ..ClientInfo::default() };
    let mut ours = Client::begin(Box::new(tcp), 1, info).await.unwrap();
    let mut other = Client::log_in(at, 2).await;
    let since = Instant::now();
    running.signal("TERM");
    assert!(ours.until(|f| matches!(f, Frame::Restarting { .. })).await.is_some());
    assert_eq!(get(at, "/readyz").await, (503, "the relay is about to stop\n".to_owned()));
    assert_eq!(get(at, "/healthz").await.0, 200);
    let refused = support::ask(at, "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nConnection: close\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert_eq!(running.metrics().await["warren_relay_draining"], 1.0);
    let (to_ours, to_other): (NodePublic, NodePublic) = (ours.key, other.key);
    for _ in 0..20 {
        ours.send(to_other, b"to the other").await;
        assert_eq!(other.packet().await, b"to the other");
        other.send(to_ours, b"to ours").await;
        assert_eq!(ours.packet().await, b"to ours");
    }
    assert!(!other.is_told(), "who may not understand it is not told");
    drop((ours, other));
    assert!(running.end().status.success());
    assert!(since.elapsed() < Duration::from_secs(20), "it ends as soon as all have moved");
    let log = std::fs::read_to_string(directory.path().join("relay.log")).unwrap();
    assert!(log.contains("packets_dropped=0"), "{log}");
}

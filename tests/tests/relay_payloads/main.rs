//! Packets of every size on our relay, in every way to it, and on Tailscale's Go relay, which sets the measure.

mod client;

use client::{Client, PEER_GONE, PING, PONG, SEND_PACKET, Way, frame};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use tests::deployment::{Place, Running};
use tests::lab::{Lab, Nat};
use tests::relay::{Relay, metric};
use tests::{Result, tailscale};

/// From the least to the most that a packet may have, 64 KiB. 65,504 is the most that some clients take.
const FIT: [usize; 6] = [1, 1_280, 1_400, 65_504, 65_535, 65_536];
const TOO_MUCH: usize = 65_537;
/// Says to this program that it runs inside of a namespace, beside a Go relay on this port.
const INSIDE: &str = "GO_RELAY_PORT";

fn payload(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends packets of all sizes both ways; then one that is too long ends its sender's connection and no other.
async fn exchange(at: SocketAddr, ways: [Way; 2], number: u64) -> std::io::Result<()> {
    let mut a = Client::log_in(at, ways[0], number).await?;
    let mut b = Client::log_in(at, ways[1], number + 1).await?;
    for length in FIT {
        let sent = payload(length);
        a.send(b.key, &sent).await?;
        let (from, heard) = b.packet().await?;
        assert!(from == a.key && heard == sent, "{ways:?}: {} of {length} bytes", heard.len());
        b.send(a.key, &sent).await?;
        let (from, heard) = a.packet().await?;
        assert!(from == b.key && heard == sent, "{ways:?}: {} of {length} bytes, back", heard.len());
    }
    // The relay may close before it has heard all of it.
    let _ = a.send(b.key, &payload(TOO_MUCH)).await;
    a.closed().await?;
    assert_eq!(b.until(PEER_GONE).await?, [&a.key.0[..], &[0]].concat(), "{ways:?}: gone");
    b.write(&frame(PING, &[b"12345678"])).await?;
    assert_eq!(b.until(PONG).await?, b"12345678", "{ways:?}: the other connection lives");
    Ok(())
}

/// The header tells that a packet is too long: none of its bytes are waited for.
async fn closes_at_the_header(at: SocketAddr, way: Way, number: u64) -> std::io::Result<()> {
    let mut client = Client::log_in(at, way, number).await?;
    client.write(&frame(SEND_PACKET, &[&[7; 32], &payload(TOO_MUCH)])[..5 + 32]).await?;
    client.closed().await
}

fn run(test: impl Future<Output = std::io::Result<()>>) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| e.to_string())?.block_on(test).map_err(|e| e.to_string())
}

/// Our relay, with a certificate that nobody vouches for.
fn our_relay(dir: &Path) -> Result<Relay> {
    let certified =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(|e| e.to_string())?;
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| dir.join(name).display().to_string());
    std::fs::write(&certificate, certified.cert.pem()).map_err(|e| e.to_string())?;
    std::fs::write(&key, certified.signing_key.serialize_pem()).map_err(|e| e.to_string())?;
    let tls = ["--tls-address", "127.0.0.1:0", "--tls-cert-file", &certificate, "--tls-key-file", &key];
    Relay::start(Place::Here, "127.0.0.1", dir, &tls)
}

/// How many connections the relay has closed since a frame of theirs was too long.
fn too_long(metrics: SocketAddr) -> Result<u64> {
    let mut tcp = TcpStream::connect(metrics).map_err(|e| e.to_string())?;
    tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").map_err(|e| e.to_string())?;
    let mut page = String::new();
    tcp.read_to_string(&mut page).map_err(|e| e.to_string())?;
    metric(&page, "warren_relay_closed_total{reason=\"frame_too_long\"}")
}

#[test]
fn every_size_up_to_64_kib_passes_our_relay_in_every_way_and_more_ends_the_connection() -> Result {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let relay = our_relay(dir.path())?;
    let (http, tls) = (relay.address("http_address")?, relay.address("tls_address")?);
    let metrics = relay.address("metrics_address")?;
    let mut ended = 0;
    for way in [Way::Plain, Way::Tls, Way::WebSocket, Way::WebSocketTls] {
        let at = if way.is_tls() { tls } else { http };
        run(exchange(at, [way, way], 10 + ended))?;
        run(closes_at_the_header(at, way, 12 + ended))?;
        ended += 2;
        assert_eq!(too_long(metrics)?, ended, "{way:?}: the relay counts what was too long");
    }
    // Whichever way the other side has come.
    run(exchange(http, [Way::WebSocket, Way::Plain], 30))?;
    run(exchange(tls, [Way::Tls, Way::WebSocketTls], 32))
}

#[test]
fn the_go_relay_takes_and_refuses_the_same_sizes() -> Result {
    if let Ok(port) = std::env::var(INSIDE) {
        let at = SocketAddr::from(([127, 0, 0, 1], port.parse().map_err(|e| format!("{port}: {e}"))?));
        run(exchange(at, [Way::Tls, Way::Tls], 10))?;
        return run(closes_at_the_header(at, Way::Tls, 12));
    }
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (_relay, port) = go_relay(&lab, dir.path())?;
    // The same test again, beside it.
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut inside = lab.command("server", this);
    inside.env(INSIDE, port.to_string()).args([
        "--exact",
        "the_go_relay_takes_and_refuses_the_same_sizes",
        "--nocapture",
    ]);
    let out = inside.output().map_err(|e| e.to_string())?;
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

/// Tailscale's Go relay on the loopback of a lab's server, and its port.
fn go_relay(lab: &Lab, dir: &Path) -> Result<(Running, u16)> {
    let mut command = Place::Alone(lab).run("server", &tailscale::program()?);
    command.env("HOME", dir).env("TS_DEBUG_TAILCAT_LOCAL_DERP", "1");
    command.args(["--verbose", "serve", "--key=new", "--full-address", "1"]);
    let log = dir.join("go.log");
    let mut relay = Running::start(command, log.clone())?;
    let port = relay.wait("the Go relay", || {
        let log = std::fs::read_to_string(&log).ok()?;
        let (_, rest) = log.split_once("starting dev derp on ")?;
        rest.split_whitespace().next()?.rsplit(':').next()?.parse().ok()
    })?;
    Ok((relay, port))
}

//! The relay behind HTTPS: its key in the certificate, certificates exchanged while it runs, handshakes that fail.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use io_adapters::relay_stream::Dialer;
use io_adapters::relay_stream::fallback::{DerpIo, Fallback};
use io_adapters::relay_stream::proxy::Proxies;
use io_adapters::relay_stream::tls::Trust;
use io_adapters::transport::TokioNetwork;
use proto_core::machine::{StreamProtocol, StreamTarget, TlsCheck};
use proto_core::wire::derp::Frame;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;
use support::{Client, PATIENCE, Running, relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Puts a new certificate and its key where the relay reads them.
fn renew(directory: &Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2096, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
    certificate.der().clone()
}

/// Opens DERP as a node does that trusts this certificate alone; none if the relay has another.
async fn open(at: SocketAddr, trusted: &CertificateDer<'static>) -> Option<DerpIo<TcpStream>> {
    let target = StreamTarget {
        protocol: StreamProtocol::Derp,
        host: "127.0.0.1".into(),
        port: at.port(),
        addresses: vec![at.ip()],
        tls: Some(TlsCheck::Roots { name: "127.0.0.1".into() }),
        path: "/derp".into(),
        bearer: None,
    };
    let trust = Trust::only(vec![trusted.clone()]);
    let dialer = Dialer { network: TokioNetwork, trust, proxies: Proxies::default() };
    Fallback::default().open(&dialer, &target).await.ok()
}

async fn until_served(at: SocketAddr, trusted: &CertificateDer<'static>) -> DerpIo<TcpStream> {
    let since = Instant::now();
    loop {
        if let Some(io) = open(at, trusted).await {
            return io;
        }
        assert!(since.elapsed() < PATIENCE, "the new certificate is not served");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn certificates_tell_the_relays_key_and_are_exchanged_under_running_connections() {
    let directory = tempfile::tempdir().unwrap();
    let first = renew(directory.path());
    let mut command = relay(directory.path());
    command.args([
        "--tls-address",
        "127.0.0.1:0",
        "--tls-cert-file",
        "cert.pem",
        "--tls-key-file",
        "key.pem",
    ]);
    let running = Running::start(command, directory.path());
    let at = running.address("tls_address");
    let io = open(at, &first).await.unwrap();
    assert!(matches!(io, DerpIo::FastStart(_)), "the login goes with the request");
    let mut old = Client::begin(Box::new(io), 1, Default::default()).await.unwrap();
    let expiry = running.metrics().await["warren_relay_certificate_expiry_timestamp_seconds"];
    assert_eq!(expiry, 3_976_214_400.0, "2096-01-01");

    let second = renew(directory.path());
    let io = until_served(at, &second).await;
    assert!(matches!(io, DerpIo::FastStart(_)), "the new one tells the key, too");
    assert!(open(at, &first).await.is_none(), "the old one is gone");
    let mut new = Client::begin(Box::new(io), 2, Default::default()).await.unwrap();
    std::fs::write(directory.path().join("cert.pem"), "no certificate\n").unwrap();
    running.signal("HUP");
    let since = Instant::now();
    while !std::fs::read_to_string(directory.path().join("relay.log"))
        .unwrap()
        .contains("the old certificate stays")
    {
        assert!(since.elapsed() < PATIENCE, "the log does not tell of the bad one");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(open(at, &second).await.is_some(), "it stays");
    let third = renew(directory.path());
    running.signal("HUP");
    until_served(at, &third).await;
    // The first connection has outlived two certificates.
    new.send(old.key, b"over the first certificate").await;
    assert_eq!(old.packet().await, b"over the first certificate");
    old.write(&Frame::Ping(*b"12345678").to_bytes()).await;
    assert!(old.until(|f| matches!(f, Frame::Pong(_))).await.is_some());
}

#[tokio::test]
async fn who_speaks_no_tls_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    renew(directory.path());
    let mut command = relay(directory.path());
    command.args([
        "--tls-address",
        "127.0.0.1:0",
        "--tls-cert-file",
        "cert.pem",
        "--tls-key-file",
        "key.pem",
    ]);
    let running = Running::start(command, directory.path());
    let mut tcp = TcpStream::connect(running.address("tls_address")).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = tcp.read_to_end(&mut Vec::new()).await;
    running.until("warren_relay_http_failed_total{reason=\"tls_handshake\"}", |n| n == 1.0).await;
    let mut tcp = TcpStream::connect(running.http()).await.unwrap();
    tcp.write_all(b"\x16\x03\x01").await.unwrap();
    let _ = tcp.read_to_end(&mut Vec::new()).await;
    running.until("warren_relay_http_failed_total{reason=\"malformed\"}", |n| n == 1.0).await;
    // Whoever says nothing at all is not waited for longer than ten seconds.
    let _silent = TcpStream::connect(running.http()).await.unwrap();
    let since = Instant::now();
    running.until("warren_relay_http_failed_total{reason=\"slow_request\"}", |n| n == 1.0).await;
    assert!(since.elapsed() > std::time::Duration::from_secs(8));
}

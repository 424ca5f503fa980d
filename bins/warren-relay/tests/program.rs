//! The program itself: its help, its settings, its refusals, its pages, its signals.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use std::fmt::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use support::{Client, PATIENCE, Running, ask, get, program, relay, text};

#[test]
fn help_shows_every_flag_with_its_variable_and_default() {
    let directory = tempfile::tempdir().unwrap();
    let output = program(directory.path()).arg("--help").output().unwrap();
    assert!(output.status.success());
    insta::assert_snapshot!(text(&output).0);
}

#[test]
fn a_flag_beats_its_variable_which_beats_the_file_which_beats_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let file = "http-address = \"127.0.0.1:1\"\nrate-limit-client = \"1MB\"\nmax-clients = 10\n\
                verify-client-url = [\"https://a.example.com/derp/verify\", \"https://b.example.com/v\"]\n";
    std::fs::write(directory.path().join("relay.toml"), file).unwrap();
    let output = program(directory.path())
        .args(["--config", "relay.toml", "--http-address", "127.0.0.1:3", "--show-settings"])
        .env("WARREN_RELAY_HTTP_ADDRESS", "127.0.0.1:2")
        .env("WARREN_RELAY_RATE_LIMIT_CLIENT", "2MB")
        .output()
        .unwrap();
    let (shown, said) = text(&output);
    assert!(output.status.success(), "{said}");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_wrong_flag_is_a_usage_error_and_a_wrong_file_a_fault() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in
        [["--rate-limit-client", "10Mb"], ["--http-adress", "127.0.0.1:1"], ["--max-clients", "0"]]
    {
        let output = program(directory.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output).1);
    }
    let mut said = String::new();
    for file in ["rate-limit-client = \"10Mb\"\n", "# ours\nmax-client = 10\n", "verify-every = 0\n"] {
        std::fs::write(directory.path().join("relay.toml"), file).unwrap();
        let output = program(directory.path()).args(["--config", "relay.toml"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        writeln!(said, "## {}\n{}", file.trim(), text(&output).1).unwrap();
    }
    insta::assert_snapshot!(said);
    assert!(!directory.path().join(".local").exists(), "nothing is made before the settings are right");
}

#[test]
fn what_keeps_it_from_starting_is_one_sentence_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir(at("state")).unwrap();
    std::fs::write(at("keys"), "# ours\nnodekey:12\n").unwrap();
    std::fs::create_dir(at("damaged")).unwrap();
    std::fs::write(at("damaged/relay.key"), "not a key").unwrap();
    std::fs::write(at("file"), "").unwrap();
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (http, stun) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    let mut said = String::new();
    let mut refuse = |what: &str, arguments: &[&str]| {
        let mut command = program(directory.path());
        for default in [
            ["--state-dir", "state"],
            ["--http-address", "127.0.0.1:0"],
            ["--stun-address", "127.0.0.1:0"],
            ["--metrics-address", "none"],
            ["--log", "error"],
        ] {
            if !arguments.contains(&default[0]) {
                command.args(default);
            }
        }
        let output = command.args(arguments).output().unwrap();
        let (out, error) = text(&output);
        assert_eq!((output.status.code(), out.as_str()), (Some(1), ""), "{what}: {error}");
        let error = error.replace(&http.port().to_string(), "PORT").replace(&stun.port().to_string(), "PORT");
        writeln!(said, "## {what}\n{error}").unwrap();
    };
    refuse("a busy port", &["--http-address", &http.to_string()]);
    refuse("a busy STUN port", &["--stun-address", &stun.to_string()]);
    refuse("a busy metrics port", &["--metrics-address", &http.to_string()]);
    refuse("no listener", &["--http-address", "none"]);
    refuse("half of TLS", &["--tls-address", "127.0.0.1:0"]);
    refuse("a bad list of keys", &["--allow-keys-file", "keys"]);
    refuse("no list of keys", &["--allow-keys-file", "absent"]);
    refuse("a verifier that is no address", &["--verify-client-url", "warren.example.com"]);
    refuse("a damaged key", &["--state-dir", "damaged"]);
    refuse("a state directory that is a file", &["--state-dir", "file"]);
    refuse("a bad log filter", &["--log", "loud=="]);
    insta::assert_snapshot!(said);
    assert_eq!(std::fs::read_to_string(at("damaged/relay.key")).unwrap(), "not a key");
}

#[tokio::test]
async fn it_starts_with_nothing_says_how_it_is_and_keeps_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(relay(directory.path()), directory.path());
    let second = relay(directory.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second).1.contains("runs a relay in the state directory state already"), "{second:?}");

    let mut said = String::new();
    for request in
        ["GET /", "HEAD /", "GET /healthz", "GET /readyz", "GET /robots.txt", "POST /readyz", "GET /x"]
    {
        let answer = ask(running.http(), &format!("{request} HTTP/1.1\r\nConnection: close\r\n\r\n")).await;
        writeln!(said, "## {request}\n{}", answer.replace("\r\n", "\n")).unwrap();
    }
    for path in ["/healthz", "/readyz", "/"] {
        let (status, body) = get(running.address("metrics_address"), path).await;
        writeln!(said, "## metrics: {path}\n{status} {body}").unwrap();
    }
    insta::assert_snapshot!(said);

    // Packets pass, and are counted.
    let (mut a, mut b) = (Client::log_in(running.http(), 1).await, Client::log_in(running.http(), 2).await);
    a.send(b.key, b"0123456789").await;
    assert_eq!(b.packet().await, b"0123456789");
    let metrics = running.metrics().await;
    assert_eq!(metrics["warren_relay_clients"], 2.0, "{metrics:#?}");
    assert_eq!(metrics["warren_relay_packets_received_total{kind=\"data\"}"], 1.0);
    assert_eq!(metrics["warren_relay_bytes_received_total{kind=\"data\"}"], 10.0);
    assert_eq!(metrics["warren_relay_packets_sent_total{kind=\"data\"}"], 1.0);
    assert!(metrics["process_resident_memory_bytes"] > 1e6);
    let stun = UdpSocket::bind("127.0.0.1:0").unwrap();
    stun.send_to(b"no request", running.address("stun_address")).unwrap();
    running.until("warren_relay_stun_bad_total", |n| n == 1.0).await;

    let key = running.ready["public_key"].clone();
    running.signal("TERM");
    let output = running.end();
    assert!(output.status.success());
    let out = text(&output).0;
    assert!(out.starts_with("warren-relay is ready (http 127.0.0.1:"), "{out}");
    let again = Running::start(relay(directory.path()), directory.path());
    assert_eq!(again.ready["public_key"], key);
    again.signal("INT");
    assert!(again.end().status.success());
}

#[tokio::test]
async fn the_service_manager_hears_of_start_reload_and_stop() {
    for is_abstract in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("warren-relay-test-{}", std::process::id());
        let (socket, variable) = if is_abstract {
            let address = SocketAddr::from_abstract_name(&name).unwrap();
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
        } else {
            (UnixDatagram::bind(&path).unwrap(), path.display().to_string())
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let heard = || {
            let mut bytes = [0; 1_024];
            let n = socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..n]).into_owned()
        };
        let mut command = relay(directory.path());
        command.env("NOTIFY_SOCKET", variable);
        let running = Running::start(command, directory.path());
        assert_eq!(heard(), "READY=1\nSTATUS=ready");
        running.signal("HUP");
        let reloading = heard();
        let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|r| r.split_once('\n'));
        let micros: u64 = micros.unwrap_or_else(|| panic!("{reloading}")).0.parse().unwrap();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((uptime - micros as f64 / 1e6).abs() < 60.0, "{micros} of {uptime} s");
        assert_eq!(heard(), "READY=1\nSTATUS=ready");
        // Somebody who does not understand that it drains keeps it waiting.
        let client = Client::log_in(running.http(), 1).await;
        running.signal("TERM");
        assert_eq!(heard(), "STOPPING=1\nSTATUS=draining");
        assert_eq!(heard(), "STATUS=draining: 1 clients are still here");
        drop(client);
        assert!(running.end().status.success());
    }
}

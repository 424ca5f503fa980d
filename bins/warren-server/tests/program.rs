//! The program itself: its help, its settings, its refusals, its signals.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use serde_json::Value;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// For something that takes milliseconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren-server"));
    command.env_clear().env("HOME", directory).current_dir(directory);
    command
}

/// The program with ports of its own and its state in `directory`.
fn server(directory: &Path) -> Command {
    let mut command = program(directory);
    command.args(["--state-dir", "state", "--http-address", "127.0.0.1:0", "--stun-address", "127.0.0.1:0"]);
    command.args(["--metrics-address", "127.0.0.1:0"]);
    command
}

fn text(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

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
    let file = "http-address = \"127.0.0.1:1\"\naccess-url = \"http://file.example.com\"\n\n\
                derp-server-region-id = 901\nderp-server-enable = false\nstun-servers = [\"a.example.com:1\", \"b.example.com:2\"]\n\
                database-url = \"sqlite:file.db\"\n";
    std::fs::write(directory.path().join("warren.toml"), file).unwrap();
    let output = program(directory.path())
        .args(["--config", "warren.toml", "--http-address", "127.0.0.1:3", "--show-settings"])
        .env("WARREN_HTTP_ADDRESS", "127.0.0.1:2")
        .env("WARREN_ACCESS_URL", "http://variable.example.com")
        .env("WARREN_DATABASE_URL", "postgres://user:secret@host/db")
        .output()
        .unwrap();
    let (shown, said) = text(&output);
    assert!(output.status.success(), "{said}");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_bad_settings_file_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for file in [
        "http-address 1\n",
        "# comment\nhttp-adress = \"127.0.0.1:1\"\n",
        "state-dir = \"x\"\n\nhttp-address = \"localhost\"\n",
        "derp-server-region-id = 0\n",
        "stun-servers = [[\"a\"]]\n",
        "colour = \"red\"\n",
        "config = \"other.toml\"\n",
    ] {
        std::fs::write(directory.path().join("warren.toml"), file).unwrap();
        let output = program(directory.path()).args(["--config", "warren.toml"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        writeln!(said, "## {}\n{}", file.trim(), text(&output).1).unwrap();
    }
    let output = program(directory.path()).args(["--config", "absent.toml"]).output().unwrap();
    writeln!(said, "## absent\n{}", text(&output).1).unwrap();
    insta::assert_snapshot!(said);
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in
        [["--http-address", "localhost"], ["--http-adress", "127.0.0.1:1"], ["--access-url", "x"]]
    {
        let output = program(directory.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output).1);
    }
    assert!(!directory.path().join(".local").exists(), "nothing is made before the arguments are right");
}

#[test]
fn what_keeps_it_from_starting_is_one_sentence_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir(at("state")).unwrap();
    std::fs::write(at("state/warren.db"), "not a database, but something dear to somebody").unwrap();
    std::fs::write(at("bad-map.json"), "{\n \"Regions\": 7\n}").unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(at("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(at("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(at("other.pem"), other.signing_key.serialize_pem()).unwrap();
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
            ["--metrics-address", "127.0.0.1:0"],
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
    let tls = |cert: &'static str, key: &'static str| {
        ["--tls-address", "127.0.0.1:0", "--tls-cert-file", cert, "--tls-key-file", key]
    };
    refuse("a damaged database", &[]);
    refuse("a busy port", &["--http-address", &http.to_string()]);
    refuse("a busy STUN port", &["--stun-address", &stun.to_string()]);
    refuse("an address of another machine", &["--http-address", "192.0.2.1:7080"]);
    refuse("a bad relay map", &["--database-url", "sqlite::memory:", "--derp-config-path", "bad-map.json"]);
    refuse("an absent certificate", &tls("absent.pem", "key.pem"));
    refuse("a certificate that is none", &tls("bad-map.json", "key.pem"));
    refuse("a key that is none", &tls("cert.pem", "bad-map.json"));
    refuse("another certificate's key", &tls("cert.pem", "other.pem"));
    refuse("half of TLS", &["--tls-address", "127.0.0.1:0"]);
    refuse("no listener", &["--http-address", "none"]);
    refuse("PostgreSQL", &["--database-url", "postgres://user:secret@host/db"]);
    refuse("a state directory that is a file", &["--state-dir", "file"]);
    refuse("a bad log filter", &["--log", "loud=="]);
    insta::assert_snapshot!(said);
    assert_eq!(
        std::fs::read_to_string(at("state/warren.db")).unwrap(),
        "not a database, but something dear to somebody"
    );
}

/// A running program, killed at the test's end. What it says goes to `said.log`, so that it can be awaited.
struct Running {
    child: std::process::Child,
    log: PathBuf,
}

impl Running {
    fn start(mut command: Command, directory: &Path) -> (Self, Value) {
        let ready = directory.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = directory.join("said.log");
        let said = std::fs::File::create(&log).unwrap();
        let child = command.args(["--ready-file", "ready.json"]).stdout(Stdio::piped()).stderr(said);
        let mut running = Self { child: child.spawn().unwrap(), log };
        let since = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                return (running, serde_json::from_str(&text).unwrap());
            }
            assert!(since.elapsed() < PATIENCE, "it does not become ready");
            assert!(running.child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has said `words`.
    async fn hears(&self, words: &str) {
        let since = Instant::now();
        while !std::fs::read_to_string(&self.log).unwrap().contains(words) {
            assert!(since.elapsed() < PATIENCE, "it does not say '{words}'");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn end(mut self) -> Output {
        let child = std::mem::replace(&mut self.child, Command::new("true").spawn().unwrap());
        let mut output = child.wait_with_output().unwrap();
        output.stderr = std::fs::read(&self.log).unwrap();
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(ready: &Value, name: &str) -> SocketAddr {
    ready[name].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_first_start_prints_a_link_and_sigterm_ends_it_in_order() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (running, ready) = Running::start(server(directory.path()), directory.path());
    let http = address(&ready, "http_address");
    let token = ready["setup_token"].as_str().unwrap().to_owned();
    let body = serde_json::json!({ "token": token, "username": "alice", "password": "correct horse" });
    let made = support::ask(http, "POST", "/api/v1/setup", "", Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    for (name, mode) in [("ready.json", 0o600), ("state", 0o700), ("state/warren.db", 0o600)] {
        let data = std::fs::metadata(directory.path().join(name)).unwrap();
        assert_eq!(data.permissions().mode() & 0o777, mode, "{name}");
    }
    let second = server(directory.path()).output().unwrap();
    let (_, error) = text(&second);
    assert_eq!(second.status.code(), Some(1));
    assert!(error.contains("runs a server in the state directory state already"), "{error}");

    running.signal("TERM");
    let output = running.end();
    let (out, error) = text(&output);
    assert!(output.status.success(), "{error}");
    let plain = out.replace(&token, "TOKEN").replace(&http.port().to_string(), "PORT");
    let stun = address(&ready, "stun_address").port().to_string();
    let metrics = address(&ready, "metrics_address").port().to_string();
    let rule = plain.lines().next().unwrap().to_owned();
    insta::assert_snapshot!(plain.replace(&stun, "PORT").replace(&metrics, "PORT").replace(&rule, "━━━"));
    assert!(!directory.path().join("state/warren.db-wal").exists(), "the log went into the database");

    // The owner is still there at the next start, and nothing is printed to make another.
    let (running, ready) = Running::start(server(directory.path()), directory.path());
    assert_eq!(ready["setup_token"], Value::Null);
    let login = serde_json::json!({ "username": "alice", "password": "correct horse" });
    let answer =
        support::ask(address(&ready, "http_address"), "POST", "/api/v1/login", "", Some(login)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    running.signal("INT");
    assert!(running.end().status.success());
}

#[tokio::test]
async fn sighup_reads_the_relay_map_again_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let map = |code: &str| {
        format!(
            "{{\"Regions\": {{\"900\": {{\"RegionID\": 900, \"RegionCode\": \"{code}\", \"Nodes\": [{{\"Name\": \"a\", \
             \"RegionID\": 900, \"HostName\": \"relay.example.com\"}}]}}}}}}"
        )
    };
    let path = directory.path().join("map.json");
    std::fs::write(&path, map("first")).unwrap();
    let mut command = server(directory.path());
    command.args(["--derp-config-path", "map.json"]);
    let (running, ready) = Running::start(command, directory.path());
    let http = address(&ready, "http_address");
    let code = || async {
        let answer = support::ask(http, "GET", "/api/v1/derp-map", "", None).await;
        answer.text_at("/Regions/900/RegionCode")
    };
    assert_eq!(code().await, "first");
    std::fs::write(&path, map("second")).unwrap();
    running.signal("HUP");
    let since = Instant::now();
    while code().await != "second" {
        assert!(since.elapsed() < PATIENCE, "the new map is not taken");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::write(&path, "{").unwrap();
    running.signal("HUP");
    running.hears("the old relay map stays").await;
    assert_eq!(code().await, "second");
    running.signal("TERM");
    assert!(running.end().status.success());
}

/// Whatever is asked, however badly: at the most talkative, and in what it keeps.
#[tokio::test]
async fn no_secret_is_logged_and_none_is_kept_readable() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = server(directory.path());
    command.args(["--log", "trace"]);
    let (running, ready) = Running::start(command, directory.path());
    let http = address(&ready, "http_address");
    let setup = ready["setup_token"].as_str().unwrap().to_owned();
    let post = async |path: &str, token: &str, body: Value| {
        support::ask(http, "POST", &format!("/api/v1{path}"), token, Some(body)).await
    };
    let login = serde_json::json!({ "token": setup, "username": "alice", "password": "correct horse" });
    let session = post("/setup", "", login.clone()).await.text_at("/token");
    let api = serde_json::json!({ "name": "ci", "scope": "all" });
    let api = post("/tokens", &session, api).await.text_at("/token");
    let agent = post("/workspaces", &session, serde_json::json!({ "name": "dev" })).await;
    let agent = agent.text_at("/agent_token");
    let device = post("/login/device", "", Value::Null).await.text_at("/device_code");
    let wrong = serde_json::json!({ "username": "alice", "password": "battery staple" });
    assert_eq!(post("/login", "", wrong).await.status, 401);
    assert_eq!(post("/login", "", Value::from(session.clone())).await.status, 422);
    post("/login/device/token", "", serde_json::json!({ "device_code": device })).await;
    for secret in [&setup, &session, &api, &agent, &device] {
        for target in [
            format!("/api/v1/me?token={secret}"),
            format!("/api/v1/workspaces/{secret}"),
            format!("/api/v1/coordinate?access_token={secret}"),
            format!("/api/v1/login/oidc/callback?state={secret}&code={secret}"),
            format!("/api/v1/login/oidc?next={secret}"),
            format!("/setup?token={secret}"),
            format!("/{secret}"),
            format!("/derp?{secret}"),
        ] {
            support::ask(http, "GET", &target, secret, None).await;
            support::ask(http, "PUT", &target, "", None).await;
        }
        let upgrade = hyper::Request::get(format!("/api/v1/coordinate?token={secret}"))
            .header("Host", "x")
            .header("Cookie", format!("warren_session={secret}"))
            .header("Authorization", format!("Bearer {secret}"))
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        support::head(http, upgrade.body(http_body_util::Full::default()).unwrap()).await;
    }
    running.signal("TERM");
    let output = running.end();
    let (out, said) = text(&output);
    assert!(output.status.success() && said.contains(" DEBUG "), "{said}");
    let secrets = [&session, &api, &agent, &device].map(String::as_str);
    let secrets = [&secrets[..], &["correct horse", "battery staple"]].concat();
    for secret in &secrets {
        assert!(!out.contains(secret), "{secret} was printed");
    }
    let mut kept = Vec::new();
    for file in std::fs::read_dir(directory.path().join("state")).unwrap() {
        kept.extend(std::fs::read(file.unwrap().path()).unwrap_or_default());
    }
    assert!(String::from_utf8_lossy(&kept).contains("alice"), "the database was read");
    for secret in secrets.iter().chain([&setup.as_str()]) {
        let line = said.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} was logged");
        assert!(!kept.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} is kept");
    }
}

//! The program as a process, and a relay's client spoken by hand.
#![allow(dead_code, reason = "each test program uses its own part")]

use proto_core::key::{NodePublic, NodeSecret};
use proto_core::seed::{Rng, Seed};
use proto_core::wire::derp::{ClientInfo, Decoder, Frame, decode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For something that takes milliseconds, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program, without anything of the caller's environment.
pub(crate) fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren-relay"));
    command.env_clear().env("HOME", directory).current_dir(directory);
    command
}

/// The program with ports of its own and its state in `directory`.
pub(crate) fn relay(directory: &Path) -> Command {
    let mut command = program(directory);
    command.args(["--state-dir", "state", "--http-address", "127.0.0.1:0", "--stun-address", "127.0.0.1:0"]);
    command.args(["--metrics-address", "127.0.0.1:0"]);
    command
}

pub(crate) fn text(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A running program, killed at the test's end.
pub(crate) struct Running {
    child: Option<Child>,
    pub(crate) ready: Value,
}

impl Running {
    pub(crate) fn start(mut command: Command, directory: &Path) -> Self {
        let ready = directory.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::File::create(directory.join("relay.log")).unwrap();
        command.args(["--ready-file", "ready.json"]).stdout(Stdio::piped()).stderr(log);
        let mut running = Self { child: Some(command.spawn().unwrap()), ready: Value::Null };
        let since = Instant::now();
        loop {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                running.ready = serde_json::from_str(&text).unwrap();
                return running;
            }
            let log = || std::fs::read_to_string(directory.join("relay.log")).unwrap_or_default();
            assert!(since.elapsed() < PATIENCE, "it does not become ready: {}", log());
            assert!(running.child.as_mut().unwrap().try_wait().unwrap().is_none(), "it ended: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), id]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Output {
        self.child.take().unwrap().wait_with_output().unwrap()
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.ready[name].as_str().unwrap_or_else(|| panic!("{name}: {}", self.ready)).parse().unwrap()
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.address("http_address")
    }

    /// All samples, by name and labels.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, body) = get(self.address("metrics_address"), "/metrics").await;
        assert_eq!(status, 200);
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(n, v)| (n.into(), v.parse().unwrap()))
            .collect()
    }

    /// Waits until a sample has a value.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        let since = Instant::now();
        loop {
            let metrics = self.metrics().await;
            let value = *metrics.get(name).unwrap_or_else(|| panic!("no {name} in {metrics:#?}"));
            if wanted(value) {
                return value;
            }
            assert!(since.elapsed() < PATIENCE, "{name} stays {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The status and the body of an answer.
pub(crate) async fn get(at: SocketAddr, path: &str) -> (u16, String) {
    let answer = ask(at, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A whole answer to a request that closes its connection.
pub(crate) async fn ask(at: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, tcp.read_to_string(&mut answer)).await.expect("no answer").unwrap();
    answer
}

pub(crate) fn secret(n: u64) -> NodeSecret {
    NodeSecret::generate(&Seed::from_u64(n))
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A relay's client.
pub(crate) struct Client {
    pub(crate) io: Box<dyn Io>,
    decoder: Decoder,
    frames: Vec<Vec<u8>>,
    pub(crate) key: NodePublic,
}

impl Client {
    /// Logs in with the key of this number; none if the relay closes the connection instead.
    pub(crate) async fn try_log_in(at: SocketAddr, n: u64) -> Option<Self> {
        let mut tcp = TcpStream::connect(at).await.unwrap();
        let request = b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n";
        tcp.write_all(request).await.unwrap();
        Self::begin(Box::new(tcp), n, ClientInfo::default()).await
    }

    pub(crate) async fn log_in(at: SocketAddr, n: u64) -> Self {
        Self::try_log_in(at, n).await.expect("the relay lets nobody in")
    }

    /// Logs in where DERP has begun.
    pub(crate) async fn begin(io: Box<dyn Io>, n: u64, info: ClientInfo) -> Option<Self> {
        let (secret, mut rng): (_, Rng) = (secret(n), Seed::from_u64(n).rng());
        let mut client = Self { io, decoder: Decoder::new(), frames: Vec::new(), key: secret.public() };
        let said = client.until(|f| matches!(f, Frame::ServerKey { .. })).await?;
        let Some((Frame::ServerKey { key }, _)) = decode(&said).unwrap() else { panic!("no key: {said:?}") };
        let mut hello = Vec::new();
        info.emit(&secret, &key, &mut rng, &mut hello);
        client.write(&hello).await;
        client.until(|f| matches!(f, Frame::ServerInfo { .. })).await?;
        Some(client)
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    pub(crate) async fn send(&mut self, to: NodePublic, bytes: &[u8]) {
        self.write(&Frame::SendPacket { to, bytes }.to_bytes()).await;
    }

    /// The next frame that is wanted; none if the relay closes the connection.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Frame<'_>) -> bool) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let fits = |f: &Vec<u8>| decode(f).unwrap().is_some_and(|(frame, _)| wanted(&frame));
            if let Some(at) = self.frames.iter().position(fits) {
                return Some(self.frames.remove(at));
            }
            let n = timeout(PATIENCE, self.io.read(&mut buffer)).await.expect("silence").unwrap_or(0);
            if n == 0 {
                return None;
            }
            let mut frames = self.decoder.feed(&buffer[..n]);
            while let Some(frame) = frames.next().unwrap() {
                self.frames.push(frame.to_bytes());
            }
        }
    }

    /// The next packet's payload.
    pub(crate) async fn packet(&mut self) -> Vec<u8> {
        let frame = self.until(|f| matches!(f, Frame::RecvPacket { .. })).await.expect("the relay closed");
        frame[5 + 32..].to_vec()
    }

    /// Whether it was told that the relay restarts, among what it has read.
    pub(crate) fn is_told(&self) -> bool {
        let restarting = |f: &Vec<u8>| matches!(decode(f), Ok(Some((Frame::Restarting { .. }, _))));
        self.frames.iter().any(restarting)
    }

    /// Whether the relay has closed the connection, after whatever it said before.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.until(|_| false).await.is_none()
    }
}

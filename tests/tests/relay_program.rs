//! `warren-relay` beside a deployment: it admits the deployment's nodes and nobody else, whatever happens to the
//! server, and a pair that it carries loses nothing when it stops.

use proto_core::key::{NodeSecret, unhex};
use proto_core::seed::Seed;
use proto_core::wire::derp::{ClientInfo, Decoder, Frame};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place, Running, free_address};

/// How long something may take that takes a second, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running relay.
struct Relay {
    running: Running,
    metrics: String,
}

impl Relay {
    /// Starts a relay at this address, with its state in a folder of this name, and with further arguments.
    fn start(deployment: &Deployment<'_>, name: &str, http: &str, arguments: &[&str]) -> Result<Self> {
        let ready = deployment.path(&format!("{name}.json"));
        let _ = std::fs::remove_file(&ready);
        let mut command = Place::Here.command("relay", "warren-relay")?;
        command.args(["--http-address", http, "--stun-address", "127.0.0.1:0"]);
        command.args(["--metrics-address", "127.0.0.1:0", "--state-dir"]).arg(deployment.path(name));
        command.arg("--ready-file").arg(&ready).args(arguments);
        let mut running = Running::start(command, deployment.path(&format!("{name}.log")))?;
        let said: Value = running.wait("warren-relay", || {
            std::fs::read(&ready).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
        })?;
        let metrics = said["metrics_address"].as_str().ok_or("no metrics address")?.to_owned();
        Ok(Self { running, metrics })
    }

    fn signal(&self, name: &str) -> Result {
        signal(self.running.id(), name)
    }

    /// Waits until it has ended by itself; how long that took.
    fn end(&mut self) -> Result<Duration> {
        let began = Instant::now();
        while self.running.is_alive() {
            if began.elapsed() > PATIENCE {
                return Err(format!("the relay does not end:\n{}", self.running.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(began.elapsed())
    }

    /// All samples, by name and labels.
    fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let failed = |e: std::io::Error| format!("metrics: {e}");
        let mut tcp = TcpStream::connect(&self.metrics).map_err(failed)?;
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").map_err(failed)?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).map_err(failed)?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let samples =
            body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Ok(samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    fn metric(&self, name: &str) -> Result<f64> {
        let metrics = self.metrics()?;
        metrics.get(name).copied().ok_or_else(|| format!("no {name} in {metrics:#?}"))
    }

    fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) -> Result {
        let began = Instant::now();
        loop {
            let value = self.metric(name)?;
            if wanted(value) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{name} stays {value}:\n{}", self.running.log()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn signal(process: u32, name: &str) -> Result {
    let done = Command::new("kill").args([format!("-{name}"), process.to_string()]).status();
    let done = done.map_err(|e| format!("kill: {e}"))?;
    if done.success() { Ok(()) } else { Err(format!("kill: {done}")) }
}

/// A relay map of these relays, each in a region of its own.
fn map(relays: &[(u64, &str, &str)]) -> Value {
    let regions = relays.iter().map(|(id, code, http)| {
        let port = http.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let node = json!({
            "Name": format!("{id}a"), "RegionID": id, "HostName": "127.0.0.1", "IPv4": "127.0.0.1", "IPv6": "none",
            "DERPPort": port, "STUNPort": -1, "ForceHTTP": true,
        });
        let region = json!({ "RegionID": id, "RegionCode": code, "RegionName": code, "Nodes": [node] });
        (id.to_string(), region)
    });
    json!({ "Regions": regions.collect::<serde_json::Map<_, _>>() })
}

/// A deployment whose nodes use these relays alone.
fn deployment(relays: &[(u64, &str, &str)]) -> Result<Deployment<'static>> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = dir.path().join("map.json");
    std::fs::write(&path, map(relays).to_string()).map_err(|e| e.to_string())?;
    let path = path.to_str().ok_or("a path of text")?;
    Deployment::start(Place::Here, &["--derp-server-enable", "false", "--derp-config-path", path])
}

/// A relay's client, spoken by hand.
struct Client {
    tcp: TcpStream,
    decoder: Decoder,
}

impl Client {
    /// Logs in; none if the relay closes the connection instead.
    fn log_in(at: &str, secret: &NodeSecret) -> Result<Option<Self>> {
        let failed = |e: std::io::Error| format!("relay at {at}: {e}");
        let mut tcp = TcpStream::connect(at).map_err(failed)?;
        tcp.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        tcp.write_all(b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n")
            .map_err(failed)?;
        let mut client = Self { tcp, decoder: Decoder::new() };
        let mut hello = Vec::new();
        let greeted = client.until(|frame| {
            let Frame::ServerKey { key } = frame else { return false };
            ClientInfo::default().emit(secret, key, &mut Seed::from_u64(1).rng(), &mut hello);
            true
        })?;
        if !greeted {
            return Ok(None);
        }
        client.tcp.write_all(&hello).map_err(failed)?;
        let joined = client.until(|frame| matches!(frame, Frame::ServerInfo { .. }))?;
        Ok(joined.then_some(client))
    }

    /// Reads up to a frame; false if the relay closes the connection before.
    fn until(&mut self, mut wanted: impl FnMut(&Frame<'_>) -> bool) -> Result<bool> {
        let mut buffer = [0; 16_384];
        loop {
            let n = match self.tcp.read(&mut buffer) {
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err("the relay says nothing".into());
                }
                read => read.unwrap_or(0),
            };
            if n == 0 {
                return Ok(false);
            }
            let mut frames = self.decoder.feed(&buffer[..n]);
            while let Some(frame) = frames.next().map_err(|e| e.to_string())? {
                if wanted(&frame) {
                    return Ok(true);
                }
            }
        }
    }

    /// Whether the relay answers a ping, and so has not closed the connection.
    fn is_there(&mut self) -> Result<bool> {
        let ping = Frame::Ping([1; 8]).to_bytes();
        Ok(self.tcp.write_all(&ping).is_ok() && self.until(|frame| matches!(frame, Frame::Pong(_)))?)
    }
}

fn key_in(path: &Path) -> Result<NodeSecret> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    unhex(text.trim()).map(NodeSecret::from_bytes).ok_or_else(|| format!("no key in {}", path.display()))
}

fn stranger(n: u64) -> NodeSecret {
    NodeSecret::generate(&Seed::from_u64(n))
}

#[test]
fn a_relay_that_asks_the_server_admits_its_nodes_and_nobody_else() -> Result {
    let http = free_address()?;
    let mut deployment = deployment(&[(900, "own", &http)])?;
    let verifier = format!("{}/derp/verify", deployment.url());
    let arguments = ["--verify-client-url", &verifier, "--verify-every", "1"];
    let mut relay = Relay::start(&deployment, "relay", &http, &arguments)?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let ping = ["ping", "dev", "--count", "5", "--interval", "0.1", "--disable-direct-connections"];
    let report = deployment.json(&ping)?;
    assert_eq!(
        (&report["path"], &report["summary"]["received"]),
        (&json!("relay own"), &json!(5)),
        "{report:#}"
    );
    let metrics = relay.metrics()?;
    assert!(metrics["warren_relay_packets_received_total{kind=\"data\"}"] >= 10.0, "{metrics:#?}");
    assert!(metrics["warren_relay_verifier_answers_total{answer=\"yes\"}"] >= 2.0, "{metrics:#?}");
    assert!(Client::log_in(&http, &stranger(1))?.is_none(), "a stranger");
    assert_eq!(relay.metric("warren_relay_refused_total{reason=\"denied\"}")?, 1.0);

    // The agent's machine, as a relay's client of ours. It has been asked about several times before the server dies.
    let ours = key_in(&deployment.path("agent-dev/node.key"))?;
    let mut client = Client::log_in(&http, &ours)?.ok_or("the agent's key is not let in")?;
    deployment.stop_server();
    relay.until("warren_relay_verifier_up", |up| up == 0.0)?;
    std::thread::sleep(Duration::from_secs(3));
    assert!(client.is_there()?, "who was admitted stays: {}", relay.running.log());
    drop(client);
    assert!(Client::log_in(&http, &ours)?.is_some(), "and comes back");
    assert!(Client::log_in(&http, &stranger(2))?.is_none(), "a new one does not");
    assert_eq!(relay.metric("warren_relay_refused_total{reason=\"verifier_unreachable\"}")?, 1.0);

    // The relay restarts while the server is away: it remembers whom it has admitted.
    relay.signal("KILL")?;
    relay.end()?;
    let mut relay = Relay::start(&deployment, "relay", &http, &arguments)?;
    assert!(Client::log_in(&http, &ours)?.is_some(), "{}", relay.running.log());
    relay.signal("KILL")?;
    relay.end()?;
    let file = deployment.path("relay/admitted");
    let text = std::fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let at = text.find(&ours.public().to_string()).ok_or("the agent's key is remembered")?;
    std::fs::write(&file, &text[..at + 20]).map_err(|e| e.to_string())?;
    let relay = Relay::start(&deployment, "relay", &http, &arguments)?;
    assert!(relay.running.log().contains("is damaged: it was set aside"), "{}", relay.running.log());
    assert!(Client::log_in(&http, &ours)?.is_none(), "what was lost must be asked about again");

    // The server comes back, and knows its nodes though not all of them have come back to it.
    drop(agent);
    let path = deployment.path("map.json");
    std::fs::write(&path, map(&[(900, "own", &http)]).to_string()).map_err(|e| e.to_string())?;
    let path = path.to_str().ok_or("a path of text")?.to_owned();
    let _ = deployment.start_server(&["--derp-server-enable", "false", "--derp-config-path", &path])?;
    let mut client = Client::log_in(&http, &ours)?.ok_or("the server has forgotten its agent")?;
    relay.until("warren_relay_verifier_up", |up| up == 1.0)?;
    let out = deployment.warren(&["workspaces", "delete", "dev"])?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(!client.until(|_| false)?, "a deleted workspace's agent is expelled");
    assert!(Client::log_in(&http, &ours)?.is_none());
    assert_eq!(relay.metric("warren_relay_expelled_keys_total")?, 1.0);
    Ok(())
}

/// Two relays and a workspace that is reached through them alone.
struct Two {
    deployment: Deployment<'static>,
    relays: [Relay; 2],
    _agent: Running,
}

impl Two {
    fn start() -> Result<Self> {
        let (first, second) = (free_address()?, free_address()?);
        let deployment = deployment(&[(901, "first", &first), (902, "second", &second)])?;
        let relays = [
            Relay::start(&deployment, "first", &first, &[])?,
            Relay::start(&deployment, "second", &second, &[])?,
        ];
        let token = deployment.create_workspace("dev")?;
        let mut agent = deployment.agent_command("dev", &token)?;
        agent.arg("--disable-direct-connections");
        let agent = deployment.start_agent_by(agent, "dev")?;
        Ok(Self { deployment, relays, _agent: agent })
    }

    /// The relay that carries the packets, and the other.
    fn home(&mut self) -> Result<(&mut Relay, &mut Relay)> {
        let began = Instant::now();
        let second_is_home = loop {
            let homes = [
                self.relays[0].metric("warren_relay_home_clients")?,
                self.relays[1].metric("warren_relay_home_clients")?,
            ];
            match homes {
                // The agent, the client, and the server's own node.
                [3.0, 0.0] => break false,
                [0.0, 3.0] => break true,
                _ if began.elapsed() > PATIENCE => return Err(format!("homes: {homes:?}")),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let [first, second] = &mut self.relays;
        Ok(if second_is_home { (second, first) } else { (first, second) })
    }
}

fn dropped(metrics: &BTreeMap<String, f64>) -> f64 {
    metrics.iter().filter(|(name, _)| name.contains("packets_dropped")).map(|(_, value)| value).sum()
}

#[test]
fn a_relayed_pair_loses_nothing_when_its_relay_drains() -> Result {
    let mut two = Two::start()?;
    let mut ping = two.deployment.command()?;
    ping.args(["ping", "dev", "--disable-direct-connections", "--count", "1500", "--interval", "0.005"]);
    let ping = ping.args(["-o", "json"]).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    std::thread::sleep(Duration::from_millis(1_500));
    let (home, other) = two.home()?;
    let carried = home.metric("warren_relay_packets_received_total{kind=\"data\"}")?;
    home.signal("TERM")?;
    let took = home.end()?;
    assert!(took < Duration::from_secs(9), "the clients moved before the deadline of 10 s: {took:?}");
    assert!(home.running.log().contains("packets_dropped=0"), "{}", home.running.log());
    let metrics = other.metrics()?;
    let out = ping.wait_with_output().map_err(|e| e.to_string())?;
    let report: Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
    let summary = &report["summary"];
    assert!(carried > 100.0, "the relay that stopped carried them before: {carried}");
    assert_eq!((&summary["sent"], &summary["received"]), (&json!(1_500), &json!(1_500)), "{summary:#}");
    assert!(
        summary["max_ms"].as_f64().is_some_and(|ms| ms < 250.0),
        "nobody waited for anything: {summary:#}"
    );
    assert_eq!(dropped(&metrics), 0.0, "{metrics:#?}");
    assert!(metrics["warren_relay_packets_received_total{kind=\"data\"}"] > 100.0, "{metrics:#?}");
    let path = |pong: Option<&Value>| pong.and_then(|pong| pong["path"].as_str()).map(str::to_owned);
    let pongs = report["pongs"].as_array().ok_or("no pongs")?;
    assert!(path(pongs.first()) != path(pongs.last()), "{:?} {:?}", pongs.first(), pongs.last());
    Ok(())
}

#[test]
fn a_stream_arrives_whole_though_its_relay_drains() -> Result {
    let mut two = Two::start()?;
    let mut test = two.deployment.command()?;
    test.args(["speedtest", "dev", "--disable-direct-connections", "--time", "8", "-o", "json"]);
    let test = test.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    std::thread::sleep(Duration::from_secs(2));
    let (home, other) = two.home()?;
    home.signal("TERM")?;
    home.end()?;
    let before = other.metric("warren_relay_bytes_received_total{kind=\"data\"}")?;
    // Every block of the stream is compared with what was sent.
    let out = test.wait_with_output().map_err(|e| e.to_string())?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
    assert!(report["total"]["bytes"].as_u64().is_some_and(|bytes| bytes > 10_000_000), "{report:#}");
    let after = other.metric("warren_relay_bytes_received_total{kind=\"data\"}")?;
    assert!(after - before > 1_000_000.0, "the other relay carried on: {before} {after}");
    Ok(())
}

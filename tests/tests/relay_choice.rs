//! Which relay is used: the one that a person, an administrator or a changed map says, with the programs.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tests::relay::Relay;

/// How long something may take that takes seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);
const DATA: &str = "warren_relay_packets_received_total{kind=\"data\"}";
/// The server sends itself a message through each relay now and then, to see whether it works: at its start, each minute.
const CHECKS: u64 = 2;
const BYTES: &str = "warren_relay_bytes_received_total{kind=\"data\"}";

/// Relays, each with a region of its own, and the folder where they and the map are.
struct Relays {
    dir: TempDir,
    relays: Vec<(u64, &'static str, Relay, SocketAddr)>,
}

impl Relays {
    fn start(regions: &[(u64, &'static str)]) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let start = |(id, code): &(u64, &'static str)| {
            let folder = dir.path().join(code);
            std::fs::create_dir(&folder).map_err(|e| e.to_string())?;
            let relay = Relay::start(Place::Here, "127.0.0.1", &folder, &[])?;
            let at = relay.address("http_address")?;
            Ok((*id, *code, relay, at))
        };
        let relays = regions.iter().map(start).collect::<Result<_>>()?;
        Ok(Self { dir, relays })
    }

    fn get(&self, code: &str) -> &Relay {
        &self.relays.iter().find(|relay| relay.1 == code).expect("a relay of this code").2
    }

    fn number(&self, code: &str, name: &str) -> Result<u64> {
        self.get(code).number(name)
    }

    /// Kills a relay, without a word to anyone.
    fn kill(&mut self, code: &str) -> Result {
        signal(self.get(code).process.id(), "KILL")
    }

    /// Starts it again, where it was.
    fn restart(&mut self, code: &str) -> Result {
        let folder = self.dir.path().join(code);
        let relay = self.relays.iter_mut().find(|relay| relay.1 == code).ok_or("no such relay")?;
        relay.2 = Relay::start_at(Place::Here, &relay.3.to_string(), &folder, &[])?;
        Ok(())
    }

    /// A map with these of them.
    fn map(&self, codes: &[&str]) -> String {
        let regions = self.relays.iter().filter(|relay| codes.contains(&relay.1)).map(|(id, code, _, at)| {
            let node = json!({
                "Name": format!("{id}a"), "RegionID": id, "HostName": "127.0.0.1", "IPv6": "none",
                "DERPPort": at.port(), "STUNPort": -1, "ForceHTTP": true,
            });
            let name = format!("The {code}");
            (
                id.to_string(),
                json!({ "RegionID": id, "RegionCode": code, "RegionName": name, "Nodes": [node] }),
            )
        });
        json!({ "Regions": regions.collect::<serde_json::Map<_, _>>() }).to_string()
    }

    /// Writes a map with these of them, as one step for whoever reads it.
    fn write(&self, codes: &[&str]) -> Result<PathBuf> {
        let (new, file) = (self.dir.path().join("map.new"), self.dir.path().join("map.json"));
        std::fs::write(&new, self.map(codes)).map_err(|e| e.to_string())?;
        std::fs::rename(&new, &file).map_err(|e| e.to_string())?;
        Ok(file)
    }
}

/// The arguments of a server whose nodes have a map's relays alone.
fn only(map: &Path) -> Vec<&str> {
    vec!["--derp-server-enable", "false", "--derp-config-path", map.to_str().unwrap_or_default()]
}

fn signal(process: u32, name: &str) -> Result {
    let done = Command::new("kill").args([format!("-{name}"), process.to_string()]).status();
    let done = done.map_err(|e| format!("kill: {e}"))?;
    if done.success() { Ok(()) } else { Err(format!("kill: {done}")) }
}

fn until(what: &str, mut wanted: impl FnMut() -> Result<bool>) -> Result {
    let began = Instant::now();
    while !wanted()? {
        if began.elapsed() > PATIENCE {
            return Err(format!("in vain: {what}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// STUN finds the relay and TLS does not, since nobody trusts its certificate: an authority's, what `openssl req -x509`
/// makes by itself.
#[test]
fn a_ping_says_which_relay_is_not_connected() -> Result {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-subj", "/CN=relay", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "9"]);
    let made = openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output();
    let made = made.map_err(|e| format!("openssl: {e}"))?;
    assert!(made.status.success(), "{made:?}");
    let [certificate, key] = [&certificate, &key].map(|path| path.display().to_string());
    let tls = ["--tls-address", "127.0.0.1:0", "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let relay = Relay::start(Place::Here, "127.0.0.1", dir.path(), &tls)?;
    let node = json!({
        "Name": "1a", "RegionID": 1, "HostName": "127.0.0.1", "IPv6": "none",
        "DERPPort": relay.address("tls_address")?.port(), "STUNPort": relay.address("stun_address")?.port(),
    });
    let region = json!({ "RegionID": 1, "RegionCode": "bad", "RegionName": "The bad", "Nodes": [node] });
    let map = dir.path().join("map.json");
    std::fs::write(&map, json!({ "Regions": { "1": region } }).to_string()).map_err(|e| e.to_string())?;
    let roots = [("SSL_CERT_FILE", certificate.as_str())];
    let deployment = Deployment::start(Place::Here, &["--derp-config-path", &map.display().to_string()])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = agent(&deployment, &token, &[])?;
    let mut ping = deployment.command()?;
    ping.args(["ping", "dev", "-c", "1", "--relay", "bad", "--disable-direct-connections"]);
    let out = ping.envs(roots).output().map_err(|e| e.to_string())?;
    let (shown, said) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{shown}{said}");
    let step = "relay          warren, while bad, the nearest or chosen one, is not connected";
    assert!(shown.contains(step), "{shown}{said}");
    Ok(())
}

/// An agent that uses relays alone, with further arguments.
fn agent(deployment: &Deployment<'_>, token: &str, arguments: &[&str]) -> Result<Running> {
    let mut agent = deployment.agent_command("dev", token)?;
    agent.arg("--disable-direct-connections").args(arguments);
    deployment.start_agent_by(agent, "dev")
}

/// Pings over relays alone; by which way the last one went.
fn path(deployment: &Deployment<'_>, arguments: &[&str]) -> Result<String> {
    let ping = ["ping", "dev", "--count", "3", "--interval", "0.1", "--disable-direct-connections"];
    let report = deployment.json(&[&ping[..], arguments].concat())?;
    assert_eq!(report["summary"]["received"], 3, "{report:#}");
    Ok(report["path"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_relay_that_somebody_chose_carries_the_packets() -> Result {
    let mut relays = Relays::start(&[(901, "first"), (902, "second"), (903, "third")])?;
    let file = relays.write(&["first", "second"])?;
    let mut deployment = Deployment::start(Place::Here, &only(&file))?;
    let token = deployment.create_workspace("dev")?;

    // Nobody chooses.
    let running = agent(&deployment, &token, &[])?;
    assert_eq!(path(&deployment, &[])?, "relay first");
    assert!(relays.number("second", DATA)? <= CHECKS);
    drop(running);

    // Both sides do, by name and by number.
    let before = relays.number("first", DATA)?;
    let running = agent(&deployment, &token, &["--relay", "the second"])?;
    assert_eq!(path(&deployment, &["--relay", "902"])?, "relay second");
    assert!(relays.number("first", DATA)? <= before + CHECKS, "nothing goes by the other");
    assert!(relays.number("second", DATA)? >= 6);

    // Their relay dies: they meet at the other until it is back.
    relays.kill("second")?;
    until("the agent leaves the relay that died", || {
        Ok(relays.number("first", "warren_relay_home_clients")? == 1)
    })?;
    assert_eq!(path(&deployment, &["--relay", "second"])?, "relay first");
    relays.restart("second")?;
    until("the agent returns", || Ok(relays.number("second", "warren_relay_home_clients")? == 1))?;
    assert_eq!(path(&deployment, &["--relay", "second"])?, "relay second");
    drop(running);

    // The administrator chooses for all who choose none.
    deployment.stop_server();
    deployment.start_server(&[&only(&file)[..], &["--relay", "second"]].concat())?;
    let running = agent(&deployment, &token, &[])?;
    assert_eq!(path(&deployment, &[])?, "relay second");
    let choice = |arguments: &[&str]| -> Result<Value> {
        Ok(deployment.json(&[&["netcheck"], arguments].concat())?["relay_choice"].clone())
    };
    assert_eq!(
        choice(&[])?,
        json!({ "region": "second", "by": "the server, for all who choose none", "known": true, "in_use": true })
    );
    assert_eq!(
        choice(&["--relay", "FIRST"])?,
        json!({ "region": "first", "by": "--relay", "known": true, "in_use": true })
    );
    let status = deployment.warren(&["status"])?;
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(said.contains("home relay: second, chosen by the server, for all who choose none"), "{said}");
    drop(running);

    // An agent's choice that no map has, until one has.
    let running = agent(&deployment, &token, &["--relay", "third"])?;
    let warned =
        "--relay: there is no relay region \"third\": the regions are first, second; the nearest is used";
    until("the agent warns", || Ok(running.log().contains(warned)))?;
    assert_eq!(path(&deployment, &[])?, "relay first");
    relays.write(&["first", "second", "third"])?;
    until("the agent takes it up", || Ok(relays.number("third", "warren_relay_home_clients")? == 1))?;
    assert_eq!(path(&deployment, &[])?, "relay third");
    assert!(relays.number("third", DATA)? >= 3);
    Ok(())
}

#[test]
fn a_region_that_there_is_not_is_refused_with_those_that_there_are() -> Result {
    let relays = Relays::start(&[(901, "first"), (902, "second")])?;
    let file = relays.write(&["first", "second"])?;
    let deployment = Deployment::start(Place::Here, &only(&file))?;
    let token = deployment.create_workspace("dev")?;
    let _agent = agent(&deployment, &token, &[])?;
    for arguments in [&["ping", "dev"][..], &["speedtest", "dev"], &["netcheck"]] {
        let out = deployment.warren(&[arguments, &["--relay", "mars"]].concat())?;
        assert_eq!((out.status.code(), out.stdout.len()), (Some(4), 0), "{arguments:?}");
        insta::allow_duplicates!(insta::assert_snapshot!(String::from_utf8_lossy(&out.stderr), @r#"
        error: there is no relay region "mars": the regions are first, second

          chosen by  --relay

        hint: name one of these, or leave it out to use the nearest; `warren netcheck` shows them all
        code: RELAY_UNKNOWN
        "#));
    }
    let refused =
        Deployment::start(Place::Here, &[&only(&file)[..], &["--relay", "mars"]].concat()).unwrap_err();
    let said = "--relay: there is no relay region \"mars\": the regions are first, second";
    assert!(refused.contains(said), "{refused}");
    Ok(())
}

#[test]
fn relays_are_asked_for_websockets_alone_where_the_server_says_so() -> Result {
    for forced in [false, true] {
        let relays = Relays::start(&[(901, "first")])?;
        let file = relays.write(&["first"])?;
        let flag: &[&str] = if forced { &["--derp-force-websockets"] } else { &[] };
        let deployment = Deployment::start(Place::Here, &[&only(&file)[..], flag].concat())?;
        let token = deployment.create_workspace("dev")?;
        let _agent = agent(&deployment, &token, &[])?;
        assert_eq!(path(&deployment, &[])?, "relay first");
        let logins = relays.number("first", "warren_relay_logins_total")?;
        let connections = relays.number("first", "warren_relay_connections_total")?;
        let websockets = relays.number("first", "warren_relay_websocket_requests_total")?;
        assert!(logins >= 2, "{logins}");
        if forced {
            assert!(websockets >= 3 && websockets >= connections, "{websockets} of {connections}");
        } else {
            assert_eq!(websockets, 0);
        }
    }
    Ok(())
}

/// A speed test of this many seconds by relays alone, under way.
fn speedtest(deployment: &Deployment<'_>, seconds: &str) -> Result<std::process::Child> {
    let mut test = deployment.command()?;
    test.args(["speedtest", "dev", "--disable-direct-connections", "--time", seconds, "-o", "json"]);
    test.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())
}

#[test]
fn a_stream_goes_on_by_the_relay_of_a_changed_map() -> Result {
    let relays = Relays::start(&[(901, "first"), (902, "second")])?;
    let file = relays.write(&["first"])?;
    let deployment = Deployment::start(Place::Here, &only(&file))?;
    let token = deployment.create_workspace("dev")?;
    let _agent = agent(&deployment, &token, &[])?;
    let test = speedtest(&deployment, "10")?;
    until("the stream runs", || Ok(relays.number("first", BYTES)? > 1_000_000))?;
    assert_eq!(relays.number("second", BYTES)?, 0);
    relays.write(&["second"])?;
    let server = deployment.server().ok_or("a server")?;
    signal(server.id(), "HUP")?;
    until("the pair moves", || Ok(relays.number("second", "warren_relay_home_clients")? == 2))?;
    until("the old relay is left", || Ok(relays.number("first", "warren_relay_clients")? == 0))?;
    // Every block of the stream is compared with what was sent.
    let out = test.wait_with_output().map_err(|e| e.to_string())?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(relays.number("second", BYTES)? > 1_000_000, "the other relay carried on");
    Ok(())
}

/// An HTTP server that answers with whatever stands in the slot; nothing there closes the connection.
fn web(slot: Arc<Mutex<String>>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let Ok(mut tcp) = tcp else { return };
            let body = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let _ = tcp.read(&mut [0; 4096]);
            if !body.is_empty() {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = tcp.write_all(answer.as_bytes());
            }
        }
    });
    Ok(format!("http://{address}/derpmap"))
}

#[test]
fn a_file_and_a_url_add_to_the_servers_own_relay_and_are_read_again() -> Result {
    let relays = Relays::start(&[(901, "file"), (902, "web"), (903, "late")])?;
    let slot = Arc::new(Mutex::new(relays.map(&["web"])));
    let url = web(Arc::clone(&slot))?;
    let say = |text: String| *slot.lock().unwrap_or_else(PoisonError::into_inner) = text;
    let file = relays.write(&["file"])?;
    let file = file.to_str().ok_or("a path of text")?.to_owned();
    let arguments = [
        "--derp-config-path",
        &file,
        "--derp-config-url",
        &url,
        "--derp-config-refresh",
        "1",
        "--relay",
        "web",
    ];
    let mut deployment = Deployment::start(Place::Here, &arguments)?;
    let token = deployment.create_workspace("dev")?;
    let mut running = agent(&deployment, &token, &[])?;
    assert_eq!(path(&deployment, &[])?, "relay web");
    let regions = |deployment: &Deployment<'_>| -> Result<Vec<String>> {
        let report = deployment.json(&["netcheck"])?;
        let relays = report["relays"].as_array().ok_or("no relays")?;
        let mut codes: Vec<_> =
            relays.iter().filter_map(|relay| relay["region"].as_str().map(str::to_owned)).collect();
        codes.sort();
        Ok(codes)
    };
    assert_eq!(regions(&deployment)?, ["file", "warren", "web"]);

    // The URL's map changes, by itself; then it is bad, and the good one stays.
    say(relays.map(&["web", "late"]));
    until("the map is polled", || Ok(regions(&deployment)?.len() == 4))?;
    say("{\"Regions\": {\"904\": {\"RegionID\": 904, \"RegionCode\": \"bad\", \"Nodes\": []}}}".into());
    let log = |deployment: &Deployment<'_>| deployment.server().map(Running::log).unwrap_or_default();
    let named = "line 1: Regions.904.Nodes: ";
    until("the bad map is told by its field", || Ok(log(&deployment).contains(named)))?;
    assert_eq!(regions(&deployment)?, ["file", "late", "warren", "web"]);

    // The server starts anew while the URL gives nothing: its last good copy serves.
    deployment.stop_server();
    say(String::new());
    deployment.start_server(&arguments)?;
    assert!(log(&deployment).contains("its last good copy is used"), "{}", log(&deployment));
    assert_eq!(regions(&deployment)?, ["file", "late", "warren", "web"]);
    until("the agent is back", || Ok(path(&deployment, &[]).is_ok_and(|path| path == "relay web")))?;
    assert!(running.is_alive());
    Ok(())
}

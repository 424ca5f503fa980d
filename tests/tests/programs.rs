//! The built programs together, on this host: the whole path, and what a person reads when something is wrong.

use io_adapters::stun_listener;
use io_adapters::transport::{Network, TokioNetwork, UdpLink};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Runs `warren`, which must fail with this status; what it said.
fn fails(deployment: &Deployment<'_>, arguments: &[&str], status: i32) -> Result<String> {
    let out = deployment.warren(arguments)?;
    assert_eq!(out.status.code(), Some(status), "{arguments:?}: {}", stderr(&out));
    assert!(out.stdout.is_empty(), "{arguments:?}: a failure has no result");
    let port = deployment.url().rsplit(':').next().unwrap_or_default();
    Ok(stderr(&out).replace(deployment.url(), "URL").replace(port, "PORT"))
}

#[test]
fn a_workspace_is_reached_by_relay_and_directly() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;

    let relayed = deployment.json(&[
        "ping",
        "dev",
        "--count",
        "2",
        "--interval",
        "0.1",
        "--disable-direct-connections",
    ])?;
    assert_eq!(relayed["path"], "relay warren", "{relayed:#}");
    assert_eq!(relayed["summary"]["received"], 2, "{relayed:#}");

    let direct = deployment.json(&["ping", "dev", "--until-direct", "--timeout", "20"])?;
    assert!(direct["path"].as_str().unwrap_or_default().starts_with("direct "), "{direct:#}");

    for arguments in
        [["--direct", "--direction", "up"], ["--disable-direct-connections", "--direction", "down"]]
    {
        let report = deployment.json(&[&["speedtest", "dev", "--time", "1"], &arguments[..]].concat())?;
        assert!(report["total"]["bytes"].as_u64().unwrap_or(0) > 1_000_000, "{report:#}");
    }

    let status = deployment.json(&["status"])?;
    assert_eq!(status[0]["status"], "connected", "{status:#}");
    assert!(status[0]["path"].as_str().unwrap_or_default().starts_with("direct"), "{status:#}");

    let netcheck = deployment.json(&["netcheck"])?;
    assert_eq!(netcheck["udp"], true, "{netcheck:#}");
    assert_eq!(netcheck["relays"][0]["region"], "warren", "{netcheck:#}");
    let latency = netcheck["relays"][0]["latency_ms"].as_f64().ok_or("no latency of the relay")?;
    assert!(latency > 0.0 && latency < 5_000.0, "{netcheck:#}");
    Ok(())
}

#[test]
fn netcheck_waits_until_it_knows_the_mapping() -> Result {
    // The loopback tells nothing of a NAT, so one server is asked at this machine's own address. Connecting a UDP
    // socket sends nothing: it only asks the routing table.
    let outward = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let outward = outward.map_err(|e| format!("this machine has no network: {e}"))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    let address = SocketAddr::new(outward.ip(), 0);
    let other = runtime.block_on(TokioNetwork.bind_udp(address)).map_err(|e| e.to_string())?;
    let stun = other.local_addr().to_string();
    runtime.spawn(async move { stun_listener::serve(&other, &Default::default()).await });
    let deployment = Deployment::start(Place::Here, &["--stun-servers", &stun])?;
    let netcheck = deployment.json(&["netcheck"])?;
    assert_eq!(netcheck["mapping"], "none", "nothing is between a machine and itself: {netcheck:#}");
    let latency = netcheck["relays"].as_array().ok_or("no relays")?.iter().find(|r| r["region"] == "warren");
    assert!(latency.is_some_and(|relay| relay["latency_ms"].is_number()), "{netcheck:#}");
    Ok(())
}

#[test]
fn settings_stand_in_files_too() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let write = |name: &str, text: &str| {
        std::fs::write(deployment.path(name), text).map_err(|e| format!("{name}: {e}"))
    };
    // The agent has nothing but its file, the command line its file at the usual place.
    let state = deployment.path("agent-state");
    let file = format!("url = {:?}\ntoken = {token:?}\nstate-dir = {state:?}\n", deployment.url());
    write("agent.toml", &file)?;
    let mut agent = Place::Here.command("bob", "warren-agent")?;
    agent.arg("--config").arg(deployment.path("agent.toml"));
    let _agent = deployment.start_agent_by(agent, "dev")?;
    write("config/config.toml", "disable-direct-connections = true\n[ping]\ncount = 2\ninterval = 0.1\n")?;
    let report = deployment.json(&["ping", "dev"])?;
    assert_eq!(report["summary"]["sent"], 2, "{report:#}");
    insta::assert_snapshot!(report["why_relayed"].as_str().unwrap_or_default(), @"relayed: you have turned direct connections off, by disable-direct-connections in your settings file (take the line out to allow them)");
    let report = deployment.json(&["ping", "dev", "--count", "1", "--disable-direct-connections"])?;
    insta::assert_snapshot!(report["why_relayed"].as_str().unwrap_or_default(), @"relayed: you have turned direct connections off, by --disable-direct-connections (leave the flag out to allow them)");
    let report = deployment.json(&["ping", "dev", "--until-direct", "--disable-direct-connections=false"])?;
    assert!(report["path"].as_str().unwrap_or_default().starts_with("direct"), "{report:#}");

    let home = deployment.dir().display().to_string();
    let mut said = String::new();
    for bad in [
        "outputs = \"json\"",
        "[ping]\ncuont = 2",
        "[pnig]\ncount = 2",
        "[ping]\ncount = 0",
        "output = \"xml\"",
    ] {
        write("config/config.toml", &format!("# mine\n{bad}\n"))?;
        let out = fails(&deployment, &["ping", "dev"], 2)?.replace(&home, "HOME");
        said += &format!("## {}\n{out}", bad.replace('\n', " / "));
    }
    write("agent.toml", &format!("{file}tokken-file = 1\n"))?;
    let mut agent = Place::Here.command("bob", "warren-agent")?;
    let out = agent.arg("--config").arg(deployment.path("agent.toml")).output().map_err(|e| e.to_string())?;
    assert_eq!(out.status.code(), Some(2));
    said += &format!("## the agent\n{}", stderr(&out).replace(&home, "HOME"));
    insta::assert_snapshot!("bad_settings_files", said);
    Ok(())
}

#[test]
fn what_forbids_direct_connections_is_named() -> Result {
    let why = |deployment: &Deployment<'_>, arguments: &[&str]| {
        let report = deployment.json(&[&["ping", "dev", "--count", "1"], arguments].concat())?;
        Ok::<_, String>(report["why_relayed"].as_str().unwrap_or_default().to_owned())
    };
    let deployment = Deployment::start(Place::Here, &["--block-direct-connections"])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let mut said = format!("server: {}\n", why(&deployment, &[])?);
    said += &format!("server, flag: {}\n", why(&deployment, &["--disable-direct-connections"])?);

    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let mut agent = deployment.agent_command("dev", &token)?;
    agent.env("WARREN_DISABLE_DIRECT_CONNECTIONS", "1");
    let _agent = deployment.start_agent_by(agent, "dev")?;
    said += &format!("agent's variable: {}\n", why(&deployment, &[])?);
    said += &format!("flag, agent's variable: {}\n", why(&deployment, &["--disable-direct-connections"])?);
    insta::assert_snapshot!("direct_forbidden", said);
    Ok(())
}

#[test]
fn a_session_outlives_its_server() -> Result {
    let mut deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let mut ping = deployment.command()?;
    ping.args(["ping", "dev", "--count", "40", "--interval", "0.2", "-o", "json"]);
    let running = ping.stdout(std::process::Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    std::thread::sleep(Duration::from_secs(2));
    deployment.stop_server();
    std::thread::sleep(Duration::from_secs(3));
    let _ = deployment.start_server(&[])?;
    let out = running.wait_with_output().map_err(|e| e.to_string())?;
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
    assert_eq!(report["summary"]["sent"], 40, "{report:#}");
    assert_eq!(report["summary"]["received"], 40, "the direct path needs no server: {report:#}");
    // The agent comes back to the new server by itself, and can be reached anew.
    let began = Instant::now();
    loop {
        if deployment.warren(&["ping", "dev", "--count", "1"])?.status.success() {
            return Ok(());
        }
        assert!(began.elapsed() < Duration::from_secs(30), "the agent did not come back");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn an_unknown_workspace_names_the_nearest() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let _ = deployment.create_workspace("dev")?;
    let _ = deployment.create_workspace("database")?;
    insta::assert_snapshot!("unknown_workspace", fails(&deployment, &["ping", "dve"], 4)?);
    Ok(())
}

#[test]
fn an_agent_with_a_new_key_is_refused_until_it_is_trusted() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let _ = deployment.json(&["ping", "dev", "--count", "1"])?;
    drop(agent);
    let state = deployment.path("agent-dev/node.key");
    std::fs::remove_file(&state).map_err(|e| e.to_string())?;
    let _agent = deployment.start_agent("dev", &token)?;

    let redacted = |text: String| {
        let is_key = |word: &&str| word.starts_with("nodekey:");
        let keys: Vec<&str> = text.split([' ', ',', '\n']).filter(is_key).collect();
        keys.iter().fold(text.clone(), |text, key| text.replace(key, "KEY"))
    };
    let workspaces = deployment.json(&["workspaces", "list"])?;
    let id = workspaces[0]["agents"][0]["id"].as_str().ok_or("no agent")?.to_owned();
    let refusal = fails(&deployment, &["ping", "dev"], 3)?.replace(&id, "AGENT");
    insta::assert_snapshot!("key_changed", redacted(refusal));
    let trusted = deployment.warren(&["workspaces", "trust", "dev"])?;
    assert!(trusted.status.success(), "{}", stderr(&trusted));
    insta::assert_snapshot!(redacted(stderr(&trusted)), @"trusts workspace dev with the key KEY now, no longer KEY");
    let report = deployment.json(&["ping", "dev", "--count", "1"])?;
    assert_eq!(report["summary"]["received"], 1, "{report:#}");
    let again = deployment.warren(&["workspaces", "trust", "dev"])?;
    insta::assert_snapshot!(redacted(stderr(&again)), @"workspace dev has the key KEY, which is trusted already");
    Ok(())
}

#[test]
fn one_node_looks_at_all_workspaces() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let mut agents = Vec::new();
    for name in ["dev", "database", "web"] {
        let token = deployment.create_workspace(name)?;
        agents.push(deployment.start_agent(name, &token)?);
    }
    let status = deployment.json(&["status"])?;
    let rows = status.as_array().ok_or("no rows")?;
    assert_eq!(rows.len(), 3, "{status:#}");
    for row in rows {
        assert!(row["latency_ms"].is_number(), "{status:#}");
    }
    let visitors: std::collections::BTreeSet<String> = agents
        .iter()
        .flat_map(|agent| agent.log().lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| Some(line.split_once("a peer may come")?.1.to_owned()))
        .collect();
    assert_eq!(visitors.len(), 1, "one node has come to all: {visitors:?}");
    Ok(())
}

#[test]
fn an_agent_that_is_not_there_is_named() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let _ = deployment.create_workspace("dev")?;
    insta::assert_snapshot!("agent_offline", fails(&deployment, &["ping", "dev"], 5)?);
    Ok(())
}

#[test]
fn a_login_that_is_not_there_or_no_longer_good_is_told() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let elsewhere = deployment.path("elsewhere");
    let elsewhere = elsewhere.to_str().ok_or("a path of text")?;
    insta::assert_snapshot!("not_logged_in", fails(&deployment, &["--config-dir", elsewhere, "status"], 3)?);
    let session = deployment.path("config/session.json");
    let text = std::fs::read_to_string(&session).map_err(|e| e.to_string())?;
    let (before, after) = text.split_once("warren_session_").ok_or("a session token")?;
    let end = after.find('"').ok_or("a token ends")?;
    let wrong = format!("{before}warren_session_{}{}", "A".repeat(end), &after[end..]);
    std::fs::write(&session, wrong).map_err(|e| e.to_string())?;
    insta::assert_snapshot!("wrong_token", fails(&deployment, &["status"], 3)?);
    Ok(())
}

#[test]
fn a_server_that_cannot_be_reached_is_named() -> Result {
    let mut deployment = Deployment::start(Place::Here, &[])?;
    deployment.stop_server();
    insta::assert_snapshot!("server_unreachable", fails(&deployment, &["status"], 5)?);
    Ok(())
}

#[test]
fn an_agent_with_a_wrong_token_ends_with_a_sentence() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let _ = deployment.create_workspace("dev")?;
    let out = Place::Here
        .command("bob", "warren-agent")?
        .args(["--url", deployment.url(), "--log", "off", "--state-dir"])
        .arg(deployment.path("agent"))
        .env("WARREN_AGENT_TOKEN", format!("warren_agent_{}", "a".repeat(43)))
        .output()
        .map_err(|e| e.to_string())?;
    assert_eq!(out.status.code(), Some(3), "{}", stderr(&out));
    insta::assert_snapshot!("agent_wrong_token", stderr(&out));
    Ok(())
}

/// A front before the server that gives these answers to the first connections and passes on the later ones; its
/// address.
fn front(deployment: &Deployment<'_>, answers: Vec<String>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let server = deployment.url().trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        for client in listener.incoming() {
            let mut client = client?;
            if let Some(answer) = answers.next() {
                let _ = client.read(&mut [0; 4_096])?;
                client.write_all(answer.as_bytes())?;
                continue;
            }
            let server = TcpStream::connect(&server)?;
            for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
        std::io::Result::Ok(())
    });
    Ok(format!("http://{address}"))
}

#[test]
fn an_agent_outlasts_a_proxy_and_a_server_that_turn_it_away_for_a_while() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = |url: &str| {
        let mut agent = Place::Here.command("bob", "warren-agent")?;
        agent.args(["--url", url, "--state-dir"]).arg(deployment.path("agent"));
        agent.env("WARREN_AGENT_TOKEN", &token);
        Ok::<_, String>(agent)
    };
    let page = "<h1>The gateway is being updated</h1>";
    let page = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    let came = deployment.start_agent_by(agent(&front(&deployment, vec![page])?)?, "dev")?;
    assert!(came.log().contains("The gateway is being updated"), "{}", came.log());
    drop(came);

    let body = r#"{"type":"refused","code":"TOO_MANY","message":"the server has too many connections"}"#;
    let full = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let url = front(&deployment, vec![full])?;
    let mut waits = Running::start(agent(&url)?, deployment.path("waits.log"))?;
    let began = Instant::now();
    while !waits.log().contains("too many connections") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", waits.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(waits.is_alive(), "{}", waits.log());
    Ok(())
}

#[test]
fn a_log_filter_that_is_none_is_told() -> Result {
    let mut agent = Place::Here.command("bob", "warren-agent")?;
    agent.args(["--url", "http://127.0.0.1:1", "--log", "info,stack=loud"]);
    let agent = agent.output().map_err(|e| e.to_string())?;
    let mut person = Place::Here.command("alice", "warren")?;
    let person = person.arg("version").env("WARREN_LOG", "=").output().map_err(|e| e.to_string())?;
    assert_eq!((agent.status.code(), person.status.code()), (Some(2), Some(2)));
    insta::assert_snapshot!("log_filter", [stderr(&agent), stderr(&person)].concat());
    Ok(())
}

#[test]
fn a_password_is_not_shown_as_it_is_typed() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let text = |e: rustix::io::Errno| e.to_string();
    let mut terminal = std::fs::File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(text)?);
    grantpt(&terminal).map_err(text)?;
    unlockpt(&terminal).map_err(text)?;
    let keyboard = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(text)?;
    let mut login = {
        // Its ends of the terminal go with the command, so that the terminal ends with the process.
        let shown = keyboard.try_clone().map_err(|e| e.to_string())?;
        let mut login = deployment.command()?;
        login.args(["login", deployment.url(), "--username", "alice"]);
        login.stdin(keyboard).stderr(shown).spawn().map_err(|e| e.to_string())?
    };

    let mut screen = Vec::new();
    let read = |screen: &mut Vec<u8>, terminal: &mut std::fs::File| {
        let mut some = [0; 1_024];
        // The terminal ends with an error once nobody has its other side any more.
        let n = terminal.read(&mut some).unwrap_or(0);
        screen.extend_from_slice(&some[..n]);
        n > 0
    };
    while !String::from_utf8_lossy(&screen).contains("Password of alice:") {
        assert!(read(&mut screen, &mut terminal), "{}", String::from_utf8_lossy(&screen));
    }
    terminal.write_all(b"correct horse battery staple\n").map_err(|e| e.to_string())?;
    while read(&mut screen, &mut terminal) {}
    let screen = String::from_utf8_lossy(&screen).replace(deployment.url(), "URL");
    assert!(login.wait().map_err(|e| e.to_string())?.success(), "{screen}");
    insta::assert_snapshot!(screen.replace('\r', ""), @r"
    Password of alice:

    logged in to URL as alice
    ");
    Ok(())
}

#[test]
fn a_login_is_confirmed_by_browser() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let (seen, browser) = (deployment.path("seen"), deployment.path("browser"));
    let script = format!("#!/bin/sh\nprintf %s \"$1\" > {0}.new\nmv {0}.new {0}\n", seen.display());
    std::fs::write(&browser, script).map_err(|e| e.to_string())?;
    std::fs::set_permissions(&browser, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    let mut login = deployment.command()?;
    login.arg("--config-dir").arg(deployment.path("other")).env("BROWSER", &browser);
    login.args(["login", deployment.url(), "--browser"]).stderr(Stdio::piped());
    let login = login.spawn().map_err(|e| e.to_string())?;
    let began = Instant::now();
    let page = loop {
        if let Ok(page) = std::fs::read_to_string(&seen) {
            break page;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "no browser was opened");
        std::thread::sleep(Duration::from_millis(20));
    };
    let (page, code) = page.split_once('#').ok_or_else(|| format!("no code in {page}"))?;
    let curl = |arguments: &[&str]| {
        let mut curl = std::process::Command::new("curl");
        let out =
            curl.args(["--silent", "--show-error", "--fail", "--max-time", "30"]).args(arguments).output();
        let out = out.map_err(|e| format!("curl: {e}"))?;
        if out.status.success() {
            Ok(String::from_utf8_lossy(&out.stdout).into_owned())
        } else {
            Err(stderr(&out))
        }
    };
    // What the page then asks and shows is tested in a browser.
    assert!(curl(&[page])?.contains("<title>Warren</title>"));
    let approval = serde_json::json!({
        "user_code": code, "username": "alice", "password": "correct horse battery staple",
    });
    let approve = format!("{}/api/v1/login/device/approve", deployment.url());
    curl(&["--header", "Content-Type: application/json", "--data", &approval.to_string(), &approve])?;
    let out = login.wait_with_output().map_err(|e| e.to_string())?;
    let said = stderr(&out).replace(deployment.url(), "URL").replace(code, "CODE");
    assert!(out.status.success(), "{said}");
    insta::assert_snapshot!(said, @r"
    the code is CODE
    confirm it in the browser, at URL/login#CODE
    logged in to URL as alice
    ");
    Ok(())
}

#[test]
fn a_deleted_workspace_ends_its_agent() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let out = deployment.warren(&["workspaces", "delete", "dev"])?;
    assert!(out.status.success(), "{}", stderr(&out));
    let began = Instant::now();
    while !agent.log().contains("refuses this agent") {
        assert!(began.elapsed() < Duration::from_secs(30), "the agent goes on: {}", agent.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn logging_out_ends_what_the_login_opened_and_nothing_else() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let other = deployment.path("other");
    let mut login = deployment.command()?;
    login.arg("--config-dir").arg(&other).args(["login", deployment.url(), "--username", "alice"]);
    let done = login.env("WARREN_PASSWORD", "correct horse battery staple").output();
    let done = done.map_err(|e| e.to_string())?;
    assert!(done.status.success(), "{}", stderr(&done));
    let ping = |command: &mut std::process::Command, count: &str| {
        command.args(["ping", "dev", "--count", count, "--interval", "0.1", "-o", "json"]);
        let command = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().map_err(|e| e.to_string())
    };
    let began = Instant::now();
    let ended = ping(&mut deployment.command()?, "600")?;
    let stays = ping(deployment.command()?.arg("--config-dir").arg(&other), "60")?;
    std::thread::sleep(Duration::from_secs(2));
    assert!(deployment.warren(&["logout"])?.status.success());
    let ended = ended.wait_with_output().map_err(|e| e.to_string())?;
    assert!(began.elapsed() < Duration::from_secs(30), "it ended by itself: {}", stderr(&ended));
    let error: serde_json::Value = serde_json::from_str(stderr(&ended).trim()).map_err(|e| e.to_string())?;
    assert_eq!(ended.status.code(), Some(3), "{error:#}");
    insta::assert_snapshot!(error["error"]["hint"].as_str().unwrap_or_default(), @"log in again with `warren login URL`");
    insta::assert_snapshot!(error["error"]["message"].as_str().unwrap_or_default(), @r#"lost workspace "dev": the session was ended by logging out"#);
    let stays = stays.wait_with_output().map_err(|e| e.to_string())?;
    let report: serde_json::Value = serde_json::from_slice(&stays.stdout).map_err(|e| e.to_string())?;
    assert_eq!(report["summary"]["received"], 60, "another login of the same person goes on: {report:#}");
    assert!(agent.log().contains("the session was ended by logging out"), "{}", agent.log());
    Ok(())
}

#[test]
fn help_reads_well() -> Result {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("help_ping", &["ping", "--help"]),
        ("help_speedtest", &["speedtest", "--help"]),
        ("help_ssh", &["ssh", "--help"]),
        ("help_config_ssh", &["config-ssh", "--help"]),
        ("help_port_forward", &["port-forward", "--help"]),
        ("help_login", &["login", "--help"]),
        ("help_workspaces", &["workspaces", "--help"]),
    ] {
        let out =
            Place::Here.command("alice", "warren")?.args(arguments).output().map_err(|e| e.to_string())?;
        insta::assert_snapshot!(name, String::from_utf8_lossy(&out.stdout));
    }
    let out =
        Place::Here.command("bob", "warren-agent")?.arg("--help").output().map_err(|e| e.to_string())?;
    insta::assert_snapshot!("help_agent", String::from_utf8_lossy(&out.stdout));
    Ok(())
}

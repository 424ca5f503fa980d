//! What measures and tells of the way to a workspace, with the real programs: ping, speedtest, netcheck, status, and
//! the bundle for whoever helps.

#[path = "measures/units.rs"]
mod units;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tests::deployment::{Deployment, Place};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn result(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Each run of digits (with its point) as one `N`, so that what is measured has one form; whether it is the right
/// number in the right unit is seen in `units.rs`.
fn measured(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' | '.' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            _ => out.push(c),
        }
    }
    out
}

/// A deployment with the workspace `dev` and its agent.
macro_rules! dev {
    ($deployment:ident, $agent:ident) => {
        let $deployment = Deployment::start(Place::Here, &[])?;
        let token = $deployment.create_workspace("dev")?;
        let $agent = $deployment.start_agent("dev", &token)?;
    };
}

#[test]
fn a_ping_tells_what_happened_on_the_way() -> Result {
    dev!(deployment, _agent);
    let relayed =
        deployment.warren(&["ping", "dev", "-c", "2", "-i", "0.1", "--disable-direct-connections"])?;
    assert!(relayed.status.success(), "{}", said(&relayed));
    insta::assert_snapshot!(measured(&result(&relayed)), @r"
    ✔ relay          warren (Nms)
    ✔ coordinator    sent and received peer data
    ✔ wireguard      handshake done
    pong from dev via relay warren in Nms
    pong from dev via relay warren in Nms
    not direct: relayed: you have turned direct connections off, by --disable-direct-connections (leave the flag out to allow them)
    N sent, N received, N% loss · min/avg/max N/N/N ms · relay warren
    ");
    let direct = deployment.warren(&["ping", "dev", "--until-direct", "--timeout", "20"])?;
    assert!(direct.status.success(), "{}", said(&direct));
    let text = result(&direct);
    let pongs: Vec<&str> = text.lines().filter(|line| line.starts_with("pong from dev")).collect();
    let turned: Vec<_> = pongs.iter().filter(|line| line.contains("     (direct after ")).collect();
    assert_eq!(turned.len(), 1, "the moment it turned direct is told once: {text}");
    assert!(pongs.last().is_some_and(|last| last.contains(" direct ") && last.ends_with("ms)")), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains(" · direct ")), "{text}");
    Ok(())
}

#[test]
fn an_interrupted_ping_tells_what_it_has_found_out() -> Result {
    dev!(deployment, _agent);
    let mut ping = deployment.command()?;
    ping.args(["ping", "dev", "-c", "1000", "-i", "0.1"]).stdout(Stdio::piped());
    let mut child = ping.spawn()?;
    let mut out = child.stdout.take().ok_or("no stdout")?;
    let (mut text, mut some) = (String::new(), [0; 4_096]);
    while text.matches("pong from").count() < 3 {
        let n = out.read(&mut some)?;
        assert!(n > 0, "it ended by itself: {text}");
        text.push_str(&String::from_utf8_lossy(&some[..n]));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    out.read_to_string(&mut text)?;
    assert!(child.wait()?.success(), "{text}");
    assert!(
        text.lines().last().is_some_and(|line| line.contains(" received, 0% loss · min/avg/max ")),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_ping_interrupted_before_any_answer_blames_nobody() -> Result {
    dev!(deployment, agent);
    Command::new("kill").args(["-STOP", &agent.id().to_string()]).status()?;
    let mut ping = deployment.command()?;
    ping.args(["ping", "dev", "-t", "60"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = ping.spawn()?;
    let mut out = child.stdout.take().ok_or("no stdout")?;
    let (mut text, mut some) = (String::new(), [0; 4_096]);
    while !text.contains("coordinator") {
        let n = out.read(&mut some)?;
        assert!(n > 0, "it ended by itself: {text}");
        text.push_str(&String::from_utf8_lossy(&some[..n]));
    }
    // The first ping is on its way then, and so is whoever listens for signals.
    std::thread::sleep(Duration::from_millis(500));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    let out = child.wait_with_output()?;
    Command::new("kill").args(["-CONT", &agent.id().to_string()]).status()?;
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    insta::assert_snapshot!(said(&out), @"
    error: interrupted before any answer came
    code: INTERRUPTED
    ");
    Ok(())
}

#[test]
fn a_speed_test_that_is_interrupted_tells_what_it_measured() -> Result {
    dev!(deployment, _agent);
    let mut test = deployment.command()?;
    test.args(["speedtest", "dev", "-t", "60", "--direction", "both", "-o", "json"]).stdout(Stdio::piped());
    let child = test.spawn()?;
    std::thread::sleep(Duration::from_secs(5));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    let out = child.wait_with_output()?;
    assert!(out.status.success(), "{}", said(&out));
    let tests: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let test = &tests[0];
    assert_eq!(tests.as_array().map(Vec::len), Some(1), "the second one has not begun: {tests}");
    assert_eq!((&test["direction"], &test["interrupted"]), (&"download".into(), &true.into()));
    let bytes = |interval: &serde_json::Value| interval["bytes"].as_u64().unwrap_or_default();
    let seconds = test["intervals"].as_array().ok_or("no seconds")?;
    assert!((1..60).contains(&seconds.len()), "{test}");
    assert_eq!(seconds.iter().map(bytes).sum::<u64>(), bytes(&test["total"]));
    assert!(bytes(&test["total"]) > 0, "{test}");
    Ok(())
}

#[test]
fn a_ping_that_nothing_answers_fails() -> Result {
    dev!(deployment, agent);
    let mut ping = deployment.command()?;
    ping.args(["ping", "dev", "-c", "2", "-i", "0.1", "-t", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // It holds its place at the server and answers nobody.
    Command::new("kill").args(["-STOP", &agent.id().to_string()]).status()?;
    let out = ping.output()?;
    Command::new("kill").args(["-CONT", &agent.id().to_string()]).status()?;
    assert_eq!(out.status.code(), Some(1), "{}{}", result(&out), said(&out));
    insta::assert_snapshot!(said(&out), @r#"
    error: no reply from "dev"
    hint: is the agent still running? See `warren status`
    code: NO_REPLY
    "#);
    let text = measured(&result(&out));
    assert!(text.contains("✘ wireguard      nothing has come back yet"), "{text}");
    assert!(text.contains("no reply after Ns from dev by relay warren"), "{text}");
    Ok(())
}

#[test]
fn several_streams_are_measured_as_one() -> Result {
    dev!(deployment, _agent);
    let arguments = ["speedtest", "dev", "--direct", "--parallel", "4", "--time", "1", "--direction", "both"];
    let report = deployment.json(&arguments)?;
    let tests = report.as_array().ok_or("two tests")?;
    assert_eq!(
        tests.iter().map(|t| t["direction"].as_str()).collect::<Vec<_>>(),
        [Some("download"), Some("upload")]
    );
    for test in tests {
        let bytes = |of: &serde_json::Value| of["bytes"].as_u64().unwrap_or(0);
        let parts: u64 = test["intervals"].as_array().into_iter().flatten().map(bytes).sum();
        assert!(bytes(&test["total"]) > 1_000_000 && test["parallel"] == 4, "{test:#}");
        assert_eq!(parts, bytes(&test["total"]), "{test:#}");
        assert!(test["path"].as_str().unwrap_or_default().starts_with("direct "), "{test:#}");
        assert!(test["why_relayed"].is_null(), "{test:#}");
    }
    let arguments = ["speedtest", "dev", "--time", "1", "--parallel", "2", "--disable-direct-connections"];
    let table = deployment.warren(&arguments)?;
    assert!(table.status.success(), "{}", said(&table));
    let text = measured(&result(&table));
    let mut lines: Vec<String> = text.lines().map(squeezed).collect();
    // How many seconds there are depends on when the last bytes come.
    lines.dedup();
    insta::assert_snapshot!(lines.join("\n"), @r"
    Nms via relay warren
    Starting a Ns download test by N streams...
    INTERVAL  TRANSFER  BANDWIDTH
    N-N sec  N MBits  N Mbits/sec
    ----------------------------------------------------
    N-N sec  N MBits  N Mbits/sec
    relayed: you have turned direct connections off, by --disable-direct-connections (leave the flag out to allow them)
    ");
    Ok(())
}

/// Runs of spaces as two.
fn squeezed(line: &str) -> String {
    line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("  ")
}

#[test]
fn a_capture_is_read_by_tshark_and_holds_the_test_s_own_bytes() -> Result {
    dev!(deployment, _agent);
    let file = deployment.path("dev.pcap");
    let name = file.display().to_string();
    let mut test = deployment.command()?;
    test.args(["speedtest", "dev", "--time", "1", "--disable-direct-connections", "--pcap-file", &name]);
    let out = test.output()?;
    assert!(out.status.success(), "{}", said(&out));
    let told = said(&out).replace(&name, "FILE");
    insta::assert_snapshot!(measured(&told), @r"
    warning: FILE will hold what travels inside the tunnel, decrypted; only you can read it
    N packets are in FILE: `wireshark FILE` or `tshark -r FILE` shows them
    ");
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let packets: usize = told
        .lines()
        .find_map(|line| {
            line.strip_suffix(" packets are in FILE: `wireshark FILE` or `tshark -r FILE` shows them")
        })
        .ok_or("no count")?
        .parse()?;
    let fields = ["-T", "fields", "-e", "ipv6.src", "-e", "udp.length", "-e", "frame.time_epoch"];
    let read = Command::new("tshark").args(["-n", "-r", &name]).args(fields).output()?;
    assert!(read.status.success(), "{}", said(&read));
    let text = result(&read);
    assert_eq!(text.lines().count(), packets);
    let sources: std::collections::BTreeSet<&str> =
        text.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(sources.len(), 2, "both directions: {sources:?}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    let first: f64 =
        text.lines().next().and_then(|line| line.split('\t').nth(2)).unwrap_or_default().parse()?;
    assert!((now - first).abs() < 600.0, "{first}");
    // What QUIC holds is ours: by heuristics tshark takes some of it for other protocols, and those for malformed.
    let ours = ["-d", "udp.port==1-65535,data"];
    let bad = Command::new("tshark").args(["-n", "-r", &name, "-Y", "_ws.malformed"]).args(ours).output()?;
    assert!(bad.status.success(), "{}", said(&bad));
    assert_eq!(result(&bad), "", "no packet is malformed");
    let bytes = std::fs::read(&file)?;
    let known = &io_adapters::speedtest::PATTERN[..32];
    assert!(bytes.windows(32).any(|window| window == known), "the packets are decrypted");

    let mut test = deployment.command()?;
    let out = test.args(["speedtest", "dev", "--pcap-file", "/nowhere/dev.pcap"]).output()?;
    assert_eq!(out.status.code(), Some(1));
    insta::assert_snapshot!(said(&out), @r"
    error: can't write /nowhere/dev.pcap: No such file or directory (os error 2)
    hint: name a file that you may write, on a disk with room, with --pcap-file
    code: CAPTURE_FAILED
    ");
    Ok(())
}

#[test]
fn a_speed_test_that_cannot_be_direct_says_so_at_once() -> Result {
    dev!(deployment, _agent);
    let began = Instant::now();
    let out = deployment.warren(&["speedtest", "dev", "--direct", "--disable-direct-connections"])?;
    assert_eq!(out.status.code(), Some(2));
    assert!(began.elapsed() < Duration::from_secs(5));
    insta::assert_snapshot!(said(&out), @r"
    error: can't wait for a direct path: direct connections are turned off
    hint: leave out --direct, or say --disable-direct-connections=false
    code: DIRECT_FORBIDDEN
    ");
    Ok(())
}

#[test]
fn the_status_tells_what_was_carried_and_why_it_is_relayed() -> Result {
    dev!(deployment, _agent);
    deployment.create_workspace("idle")?;
    let _ = deployment.json(&["speedtest", "dev", "--time", "1", "--direction", "up"])?;
    let status = deployment.json(&["status", "--disable-direct-connections"])?;
    let row = &status[0];
    assert!(row["received_bytes"].as_u64().unwrap_or(0) > 1_000_000, "{status:#}");
    assert!(row["sent_bytes"].as_u64().unwrap_or(0) > 1_000, "{status:#}");
    assert!(row["uptime_seconds"].as_u64().is_some_and(|seconds| seconds < 600), "{status:#}");
    insta::assert_snapshot!(row["why_relayed"].as_str().unwrap_or_default(), @"relayed: you have turned direct connections off, by --disable-direct-connections (leave the flag out to allow them)");
    assert!(status[1]["received_bytes"].is_null() && status[1]["path"].is_null(), "{status:#}");
    let table = deployment.warren(&["status", "--disable-direct-connections"])?;
    // How much a second carries, and so its unit, is the machine's.
    let unit = |line: &str| line.replace("N GiB", "N B").replace("N MiB", "N B").replace("N KiB", "N B");
    let lines: Vec<_> = result(&table).lines().map(|line| unit(&squeezed(&measured(line)))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    NAME  OWNER  STATUS  PATH  LATENCY  RX/TX  VERSION  LAST SEEN
    dev  alice  connected  relay warren  Nms  N B/N B  warren-agent N  now
    idle  alice  offline  -  -  -  -  never
    ");
    Ok(())
}

#[test]
fn netcheck_tells_the_interface_and_whether_a_portal_is_in_the_way() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let report = deployment.json(&["netcheck"])?;
    assert_eq!(report["captive_portal"], false, "{report:#}");
    let script = "ip -o route get 192.0.2.1 | sed 's/.* dev \\([^ ]*\\).*/\\1/'";
    let mut route = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn()?;
    let mut name = String::new();
    route.stdout.take().ok_or("no stdout")?.read_to_string(&mut name)?;
    route.wait()?;
    let name = name.trim();
    if !name.is_empty() {
        assert_eq!(report["interface"]["name"], name, "{report:#}");
        let mtu: u64 = std::fs::read_to_string(format!("/sys/class/net/{name}/mtu"))?.trim().parse()?;
        assert_eq!(report["interface"]["mtu_bytes"], mtu, "{report:#}");
    }
    let table = deployment.warren(&["netcheck"])?;
    let text = result(&table);
    let names: Vec<_> =
        text.lines().filter_map(|line| line.split("  ").find(|word| !word.is_empty())).collect();
    let first = &names[..names.len() - 1];
    insta::assert_snapshot!(first.join("\n"), @r"
    UDP
    IPv4
    IPv6
    NAT
    Filtering
    Port mapping
    Captive portal
    MTU
    Relays
    warren
    ");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("Verdict: UDP works over ")), "{text}");

    // A portal answers every plain request with its own page.
    let portal = TcpListener::bind("127.0.0.1:0")?;
    let address = portal.local_addr()?;
    let server = deployment.url().trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for mut client in portal.incoming().flatten() {
            let mut head = [0; 4_096];
            let n = client.read(&mut head)?;
            if head[..n].starts_with(b"GET /generate_204") {
                client.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://login.hotel.example/\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            let mut server = std::net::TcpStream::connect(&server)?;
            server.write_all(&head[..n])?;
            let (mut back, mut forth) = (server.try_clone()?, client.try_clone()?);
            std::thread::spawn(move || std::io::copy(&mut client, &mut server));
            std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
        }
        std::io::Result::Ok(())
    });
    let session = deployment.path("config/session.json");
    let text = std::fs::read_to_string(&session)?;
    std::fs::write(&session, text.replace(deployment.url(), &format!("http://{address}")))?;
    let report = deployment.json(&["netcheck"])?;
    assert_eq!(report["captive_portal"], true, "{report:#}");
    insta::assert_snapshot!(report["verdict"].as_str().unwrap_or_default(), @"something else answers in the server's place, probably this network's log-in page (open a browser and log in to the network)");
    Ok(())
}

#[test]
fn a_bundle_has_what_helps_and_no_secret() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let agent_token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &agent_token)?;
    let session: serde_json::Value =
        serde_json::from_slice(&std::fs::read(deployment.path("config/session.json"))?)?;
    let token = session["token"].as_str().ok_or("a token")?.to_owned();
    let _ = deployment.json(&["ping", "dev", "-c", "1"])?;
    let key = std::fs::read_to_string(deployment.path("config/node.key"))?.trim().to_owned();
    std::fs::write(deployment.path("config/config.toml"), "[login]\npassword = \"hunter2hunter2\"\n")?;
    let log = deployment.path("mine.log");
    std::fs::write(
        &log,
        format!("sent Bearer {token}\nWARREN_AGENT_TOKEN={agent_token} key {key}\nline that helps\n"),
    )?;
    let file = deployment.path("bundle.zip");
    let bundle = |arguments: &[&str]| -> Result<Output> {
        let mut bundle = deployment.command()?;
        bundle.arg("support-bundle").args(arguments).arg("--log").arg(&log);
        bundle
            .env("WARREN_PASSWORD", "hunter3hunter3")
            .env("HTTPS_PROXY", "http://bob:hunter4hunter4@127.0.0.1:9");
        Ok(bundle.output()?)
    };
    let dry = bundle(&["--dry-run"])?;
    assert!(dry.status.success(), "{}", said(&dry));
    // A path's history has as many entries as the machine gave it time for, so its size may need the larger unit.
    let sized = |line: &str| squeezed(&measured(line)).replace("  N KiB  ", "  N B  ");
    let lines: Vec<_> = result(&dry).lines().map(sized).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    FILE  SIZE  WHAT
    versions.json  N B  programs and system
    settings.txt  N B  the settings file and the variables, without secrets
    servers.json  N B  the servers that you are logged in to
    netcheck.json  N B  what this machine's network lets through
    workspaces.json  N B  the workspaces, as the server tells them
    paths.json  N B  the path to each workspace, its history, and what its agent says
    logs/N-mine.log  N B  a log of yours
    ");
    assert!(!file.exists());

    let name = file.display().to_string();
    let out = bundle(&["--output-file", &name, "-o", "json"])?;
    assert!(out.status.success(), "{}", said(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    assert_eq!(report["file"], name, "{report:#}");
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let unpacked = deployment.path("unpacked");
    let unzip = Command::new("unzip").arg("-q").arg(&file).arg("-d").arg(&unpacked).output()?;
    assert!(unzip.status.success(), "{}", said(&unzip));
    for secret in [&token, &agent_token, &key, "hunter2hunter2", "hunter3hunter3", "hunter4hunter4"] {
        let found = Command::new("grep").args(["-rlF", "-e", secret]).arg(&unpacked).output()?;
        assert_eq!(found.status.code(), Some(1), "a secret is in {}", result(&found));
    }
    let read = |name: &str| std::fs::read_to_string(unpacked.join(name));
    assert!(read("logs/1-mine.log")?.contains("line that helps"));
    let paths: serde_json::Value = serde_json::from_str(&read("paths.json")?)?;
    assert_eq!(paths[0]["workspace"], "alice/dev", "{paths:#}");
    assert!(paths[0]["history"].as_array().is_some_and(|history| !history.is_empty()), "{paths:#}");
    assert!(
        paths[0]["agent"]["build"].as_str().unwrap_or_default().starts_with("warren-agent "),
        "{paths:#}"
    );
    let netcheck: serde_json::Value = serde_json::from_str(&read("netcheck.json")?)?;
    assert!(netcheck["verdict"].is_string(), "{netcheck:#}");
    let versions: serde_json::Value = serde_json::from_str(&read("versions.json")?)?;
    assert_eq!(versions["warren"], env!("CARGO_PKG_VERSION"));
    assert_eq!(versions["server"]["name"], "warren-server", "{versions:#}");

    let again = bundle(&["--output-file", &name])?;
    assert_eq!(again.status.code(), Some(1));
    insta::assert_snapshot!(said(&again).replace(&name, "FILE"), @r"
    error: can't write FILE: File exists (os error 17)
    hint: a bundle replaces no file: name another with --output-file
    code: BUNDLE_UNWRITABLE
    ");
    Ok(())
}

#[test]
fn a_bundle_is_made_when_nothing_can_be_reached_too() -> Result {
    let mut deployment = Deployment::start(Place::Here, &[])?;
    deployment.stop_server();
    let file = deployment.path("bundle.zip");
    let out = deployment.warren(&["support-bundle", "--output-file", &file.display().to_string()])?;
    assert!(out.status.success(), "{}", said(&out));
    let shown = Command::new("unzip").arg("-p").arg(&file).arg("workspaces.json").output()?;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout)?;
    assert_eq!(shown["error"]["code"], "SERVER_UNREACHABLE", "{shown:#}");
    Ok(())
}

#[test]
fn help_of_the_measures_reads_well() -> Result {
    for command in ["support-bundle", "status", "netcheck"] {
        let out = Command::new(tests::program("warren")?).args([command, "--help"]).output()?;
        insta::assert_snapshot!(format!("help_{}", command.replace('-', "_")), result(&out));
    }
    Ok(())
}

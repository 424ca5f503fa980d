//! Errors that a server, an agent or the way to them is the reason of.

use super::old_agent::old_agent;
use super::{Result, Transcript};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::deployment::{Deployment, Place, Running};

const PASSWORD: &str = "correct horse battery staple";

/// Runs commands that must fail, and writes them down.
struct Failing<'a> {
    deployment: &'a Deployment<'a>,
    /// Of the login.
    folder: &'static str,
    told: Transcript,
}

impl<'a> Failing<'a> {
    fn new(deployment: &'a Deployment<'a>) -> Self {
        let mut told = Transcript::default();
        let host = deployment.url().trim_start_matches("http://");
        told.hide(deployment.url(), "URL")
            .hide(host, "HOST")
            .hide(deployment.dir().display().to_string(), "DIR");
        Self { deployment, folder: "config", told }
    }

    /// `warren` with the login, and with the owner's password where it asks for that.
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.deployment.command()?;
        command.env("WARREN_CONFIG_DIR", self.deployment.path(self.folder)).args(arguments);
        if !arguments.contains(&"--token") {
            command.env("WARREN_PASSWORD", PASSWORD);
        }
        Ok(command)
    }

    fn run(&mut self, arguments: &[&str]) -> Result {
        let out = self.told.run(&mut self.command(arguments)?)?;
        assert!(!out.status.success() && out.stdout.is_empty(), "{arguments:?}: {out:?}");
        Ok(())
    }

    /// Takes a login of its own, which leads to the server by this address.
    fn lead_by(&mut self, address: &str) -> Result {
        let session = std::fs::read_to_string(self.deployment.path("config/session.json"))?;
        self.folder = "led";
        std::fs::create_dir_all(self.deployment.path(self.folder))?;
        let session = session.replace(self.deployment.url(), address);
        std::fs::write(self.deployment.path(self.folder).join("session.json"), session)?;
        self.told.hide(address, "FRONT");
        Ok(())
    }
}

#[test]
fn of_what_the_server_refuses() -> Result {
    let deployment = Deployment::start(Place::Here, &["--disable-path-apps"])?;
    let agent_token = deployment.create_workspace("dev")?;
    let url = deployment.url();
    let reader = serde_json::json!({ "name": "reader", "scope": "read" });
    let reader = deployment.api("POST", "/tokens", Some(&reader))?;
    let reader = reader["token"].as_str().ok_or("no token")?;
    let mut fails = Failing::new(&deployment);
    fails.folder = "nobody";
    fails.told.hide(&agent_token, "AGENT_TOKEN").hide(reader, "READER");
    fails.run(&["login", url, "--username", "alice", "--password", "wrong"])?;
    fails.run(&["login", url, "--username", "alice", "--setup-token", "warren_setup_x"])?;
    fails.run(&["login", url, "--token", &agent_token])?;
    fails.run(&["login", url, "--token", "warren_session_x"])?;
    fails.run(&["login", url, "--username", "alice", "--name", "my work"])?;
    let work = serde_json::json!({ "others": [
        { "url": "http://work.example", "token": "t", "username": "alice", "name": "work" },
    ]});
    std::fs::create_dir_all(deployment.path("nobody"))?;
    std::fs::write(deployment.path("nobody/session.json"), work.to_string())?;
    fails.run(&["login", url, "--username", "alice", "--name", "work"])?;
    fails.folder = "config";
    for arguments in [
        &["workspaces", "create", "dev"][..],
        &["workspaces", "create", "Dev 1"],
        &["workspaces", "create", ""],
        &["workspaces", "delete", "dve"],
        &["workspaces", "delete", "bob/dev", "-o", "json"],
        &["workspaces", "trust", "dev"],
        &["ping", "dve"],
        &["status", "dve"],
        &["version", "dve"],
        &["open", "dev", "notebook"],
        &["ports", "dev"],
        &["speedtest", "dev", "-o", "json"],
        &["ssh", "dev", "true"],
        &["context", "use", "wrok"],
        &["context", "remove", "work"],
    ] {
        fails.run(arguments)?;
    }
    let app = serde_json::json!({ "name": "Notebook", "port": 8888 });
    deployment.api("PUT", "/workspaces/alice/dev/apps/notebook", Some(&app))?;
    fails.run(&["open", "dev", "notebook"])?;
    fails.folder = "reader";
    let out = fails.command(&["login", url, "--token", reader])?.output()?;
    assert!(out.status.success(), "{out:?}");
    fails.run(&["workspaces", "create", "more"])?;
    insta::assert_snapshot!(fails.told.all());
    Ok(())
}

/// What is no server of ours: it answers each path that ends so with this status and text, and all others with the last.
fn stranger(answers: &'static [(&'static str, u16, &'static str)]) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut visitor in listener.incoming().flatten() {
            let mut head = [0; 8_192];
            let Ok(length) = visitor.read(&mut head) else { continue };
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let known = answers.iter().find(|(ending, ..)| path.ends_with(ending));
            let Some((_, status, text)) = known.or(answers.last()) else { continue };
            let length = text.len();
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
            let _ = visitor.write_all(answer.as_bytes());
        }
    });
    Ok(url)
}

#[test]
fn of_what_is_no_server() -> Result {
    let folder = tempfile::tempdir()?;
    let mut told = Transcript::default();
    let mut fails = |what: &str, url: &str, arguments: &[&str]| -> Result {
        told.text.push_str(&format!("# {what}\n"));
        told.hide(url, "URL");
        let session = serde_json::json!({ "url": url, "token": "t", "username": "alice" });
        std::fs::write(folder.path().join("session.json"), session.to_string())?;
        let mut command = Command::new(tests::program("warren")?);
        command.env("WARREN_CONFIG_DIR", folder.path()).args(arguments).env("BROWSER", "/bin/true");
        let out = told.run(&mut command)?;
        assert!(!out.status.success() && out.stdout.is_empty(), "{what}: {out:?}");
        Ok(())
    };
    let page = stranger(&[("", 200, "<h1>Welcome to the hotel</h1>")])?;
    fails("a page", &page, &["status"])?;
    fails("a page", &page, &["ping", "dev"])?;
    let gateway = stranger(&[("", 502, "<h1>Bad gateway</h1>")])?;
    fails("a proxy without its server", &gateway, &["workspaces", "list", "-o", "json"])?;
    fails("a proxy without its server", &gateway, &["ssh", "dev"])?;
    let missing = stranger(&[("", 404, "not found")])?;
    fails("another program", &missing, &["workspaces", "list"])?;
    fails("a server too old for it", &missing, &["login", &missing, "--browser"])?;
    const DEVICE: &str = r#"{"device_code":"d","user_code":"ABCD-EFGH","verification_url":"http://server.example/login","interval":1,"expires_in":1}"#;
    let slow = stranger(&[("/login/device", 200, DEVICE), ("", 200, "{}")])?;
    fails("nobody confirms", &slow, &["login", &slow, "--browser"])?;
    insta::assert_snapshot!(told.all());
    Ok(())
}

/// A front before the server that never answers whoever wants to coordinate; its address.
fn uncoordinated(deployment: &Deployment<'_>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = deployment.url().trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut visitor in listener.incoming().flatten() {
            let mut head = vec![0; 8_192];
            let length = visitor.read(&mut head)?;
            head.truncate(length);
            if String::from_utf8_lossy(&head).contains("/coordinate") {
                kept.push(visitor);
                continue;
            }
            let mut server = TcpStream::connect(&server)?;
            server.write_all(&head)?;
            for (mut from, mut to) in [(visitor.try_clone()?, server.try_clone()?), (server, visitor)] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
        std::io::Result::Ok(())
    });
    Ok(format!("http://{address}"))
}

#[test]
fn of_a_server_that_does_not_coordinate() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let mut fails = Failing::new(&deployment);
    fails.lead_by(&uncoordinated(&deployment)?)?;
    fails.run(&["ping", "dev"])?;
    fails.run(&["netcheck", "--timeout", "2"])?;
    // When it was seen is another moment each time.
    let text = fails.told.all();
    let lines = text.lines().map(|line| match line.split_once("agent last seen  ") {
        Some((before, _)) => format!("{before}agent last seen  MOMENT"),
        None => line.to_owned(),
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// A front before the server by which it speaks another version of the coordination protocol; its address.
fn other_protocol(deployment: &Deployment<'_>, version: &'static str) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = deployment.url().trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for mut visitor in listener.incoming().flatten() {
            let mut to = TcpStream::connect(&server)?;
            let (mut from, mut back) = (to.try_clone()?, visitor.try_clone()?);
            std::thread::spawn(move || std::io::copy(&mut visitor, &mut to));
            std::thread::spawn(move || -> std::io::Result<()> {
                let (ours, theirs) = (r#""version":"1.0""#, format!(r#""version":"{version}""#));
                let mut some = [0; 65_536];
                loop {
                    let n = from.read(&mut some)?;
                    let at = some[..n].windows(ours.len()).position(|bytes| bytes == ours.as_bytes());
                    if let Some(at) = at {
                        some[at..at + ours.len()].copy_from_slice(theirs.as_bytes());
                    }
                    if n == 0 {
                        return back.shutdown(std::net::Shutdown::Write);
                    }
                    back.write_all(&some[..n])?;
                }
            });
        }
        std::io::Result::Ok(())
    });
    Ok(format!("http://{address}"))
}

#[test]
fn of_a_server_that_is_much_older_or_newer() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let mut fails = Failing::new(&deployment);
    for version in ["0.9", "2.0"] {
        fails.lead_by(&other_protocol(&deployment, version)?)?;
        fails.told.text.push_str(&format!("# the server speaks {version}\n"));
        fails.run(&["ping", "dev"])?;
        fails.run(&["ssh", "dev", "true"])?;
        fails.run(&["port-forward", "dev", "--tcp", "0:80", "-o", "json"])?;
        // What needs no coordination works.
        assert!(fails.command(&["workspaces", "list"])?.output()?.status.success());
    }
    insta::assert_snapshot!(fails.told.all());
    Ok(())
}

#[test]
fn of_an_agent_that_is_too_old() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    old_agent(&deployment, &token)?;
    let mut fails = Failing::new(&deployment);
    for arguments in [
        &["ports", "dev"][..],
        &["ports", "dev", "-o", "json"],
        &["ssh", "dev", "true"],
        &["port-forward", "dev", "--reverse", "8080:80"],
    ] {
        fails.run(arguments)?;
    }
    insta::assert_snapshot!(fails.told.all());
    Ok(())
}

#[test]
fn of_an_agent_whose_system_does_not_tell_its_ports() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let usual = deployment.agent_command("dev", &token)?;
    let mut agent = Command::new("unshare");
    agent.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "agent"]);
    agent.arg(usual.get_program()).args(usual.get_args());
    agent.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let _agent = deployment.start_agent_by(agent, "dev")?;
    let mut fails = Failing::new(&deployment);
    fails.run(&["ports", "dev"])?;
    insta::assert_snapshot!(fails.told.all());
    Ok(())
}

#[test]
fn of_an_agent_that_stands_still_or_goes() -> Result {
    let deployment = Deployment::start(Place::Here, &["--block-direct-connections"])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let second = deployment.create_workspace("second")?;
    let second = deployment.start_agent("second", &second)?;
    let both = [&agent, &second].map(|agent| agent.id().to_string());
    let signal = |name: &str| Command::new("kill").arg(name).args(&both).status();
    let mut fails = Failing::new(&deployment);
    let out = fails.told.run(deployment.command()?.args([
        "ping",
        "dev",
        "--until-direct",
        "-t",
        "2",
        "-o",
        "json",
    ]))?;
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    // Its document is beside the point here, and each number of it another one each time.
    let document = String::from_utf8_lossy(&out.stdout).into_owned();
    fails.told.text = fails.told.text.replace(&document, "(a document)\n");

    // The one while it stands still, so that nobody waits twice.
    signal("-STOP")?;
    let forward = ["port-forward", "dev", "--reverse", "8080:80"];
    let standing =
        deployment.command()?.args(forward).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let out = standing.wait_with_output()?;
    fails.told.note(&format!("warren {}", forward.join(" ")), &out);
    let out = fails.told.run(deployment.command()?.args(["status", "--timeout", "1"]))?;
    assert_eq!(out.status.code(), Some(5), "{out:?}");
    let table = String::from_utf8_lossy(&out.stdout).into_owned();
    fails.told.text = fails.told.text.replace(&table, "(a table)\n");
    signal("-CONT")?;
    let test = ["speedtest", "dev", "-t", "30"];
    let going = deployment.command()?.args(test).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let began = Instant::now();
    while deployment.tunnels("dev")?.iter().all(|tunnel| tunnel["rx_bytes"].as_u64() < Some(1_000_000)) {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is measured");
        std::thread::sleep(Duration::from_millis(100));
    }
    signal("-KILL")?;
    let out = going.wait_with_output()?;
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    fails.told.text.push_str("# its agent is killed under a speed test\n");
    fails.told.text.push_str(&String::from_utf8_lossy(&out.stderr));
    insta::assert_snapshot!(fails.told.all());
    Ok(())
}

#[test]
fn warnings_are_documents_for_scripts() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let mut told = Transcript::default();
    told.hide(deployment.url(), "URL");
    let mut command = deployment.command()?;
    command.env("BROWSER", "/bin/false").env_remove("DISPLAY");
    told.run(command.args(["open", "-o", "json"]))?;
    let mut command = deployment.command()?;
    told.run(command.env_remove("SSH_AUTH_SOCK").args(["ssh", "-A", "dev", "true", "-o", "json"]))?;
    let mut command = deployment.command()?;
    told.run(command.env_remove("SSH_AUTH_SOCK").args(["-o", "json", "ssh", "-A", "dev", "true"]))?;
    insta::assert_snapshot!(told.all());
    Ok(())
}

#[test]
fn what_a_forward_tells_meanwhile_is_a_document_a_line() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let (service, nobody) = (TcpListener::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let (service_port, nobody_port) = (service.local_addr()?.port(), nobody.local_addr()?.port());
    drop(nobody);
    let (tcp, udp) = (format!("0:{service_port}"), format!("0:{nobody_port}"));
    let mut forward = deployment.command()?;
    forward.args(["port-forward", "dev", "-o", "json", "--tcp", &tcp, "--udp", &udp, "--reverse", "0:9"]);
    let log = deployment.path("forward.log");
    let mut forward = Running::start(forward, log.clone())?;
    let read = || std::fs::read_to_string(&log).ok();
    let shown: serde_json::Value = forward.wait("the document", || serde_json::from_str(&read()?).ok())?;
    let at = |n: usize| shown[n]["local"][0].as_str().unwrap_or_default().to_owned();
    let says = |forward: &mut Running, code: &str| {
        let code = format!("\"code\":\"{code}\"");
        forward.wait(&code, || read()?.contains(&code).then_some(()))
    };
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"anybody?", at(0))?;
    says(&mut forward, "DATAGRAMS_DROPPED")?;
    let mut held = TcpStream::connect(at(1))?;
    let (mut far, _) = service.accept()?;
    far.write_all(b"!")?;
    held.read_exact(&mut [0])?;
    drop(agent);
    says(&mut forward, "CONNECTION_CLOSED")?;
    let _next = TcpStream::connect(at(1))?;
    says(&mut forward, "WORKSPACE_LOST")?;
    let _agent = deployment.start_agent("dev", &token)?;
    says(&mut forward, "WORKSPACE_BACK")?;
    says(&mut forward, "LISTENS_AGAIN")?;
    let text = read().unwrap_or_default();
    let mut lines: Vec<_> = text.lines().filter(|line| line.starts_with("{\"")).collect();
    // Several wait for the agent, and each may be the first to see it.
    lines.sort_unstable();
    lines.dedup();
    let address = shown[2]["remote"].to_string();
    let ports = address.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() > 3);
    let text = lines.join("\n").replace(&service_port.to_string(), "SERVICE");
    let text = ports.fold(text, |text, port| text.replace(port, "PORT"));
    insta::assert_snapshot!(text.replace(&nobody_port.to_string(), "NOBODY"));
    Ok(())
}

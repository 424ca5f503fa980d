//! `warren port-forward` with the real programs: what goes in at a local port comes out of the workspace's.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tests::deployment::{Deployment, Place, Running};

#[path = "../old_agent/mod.rs"]
mod agent_of_old;
mod ends;
mod kinds;
mod many;
mod moves;
mod old_agent;
mod terminal;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bytes of the long transfer.
const LONG: usize = 64 << 20;
/// Connections at once.
const MANY: usize = 200;

/// A program in the workspace that sends everything back and ends when its visitor has.
fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for visitor in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut back = visitor.try_clone()?;
                std::io::copy(&mut &visitor, &mut back)?;
                visitor.shutdown(Shutdown::Write)
            });
        }
    });
    Ok(address)
}

/// `warren port-forward`, forwarding.
struct Forwarding {
    running: Running,
    /// Its lines of what leads where.
    lines: Vec<String>,
}

impl Forwarding {
    /// Starts it with these arguments beside the workspace's name, and waits for what it shows.
    fn start(deployment: &Deployment<'_>, arguments: &[&str]) -> Result<Self> {
        let mut command = deployment.command()?;
        command.args(["port-forward", "dev"]).args(arguments);
        let mut running = Running::start(command, deployment.path("port-forward.log"))?;
        let log = deployment.path("port-forward.log");
        let wanted = arguments.iter().filter(|argument| !argument.starts_with("--")).count();
        let shown = |said: &String| said.lines().filter(|line| line.contains(" -> ")).count() >= wanted;
        let said = running.wait("port-forward", || std::fs::read_to_string(&log).ok().filter(shown))?;
        let lines = said.lines().filter(|line| line.contains(" -> ")).map(str::to_owned).collect();
        Ok(Self { running, lines })
    }

    /// Where a line says that somebody listens.
    fn at(&self, line: usize) -> Vec<SocketAddr> {
        let (from, _) = self.lines[line].split_once(" -> ").unwrap_or_default();
        let from = from.split(" of dev").next().unwrap_or(from);
        from.split(" and ").filter_map(|address| address.parse().ok()).collect()
    }

    /// Waits for a line on its standard error, and gives it.
    fn says(&mut self, what: &str) -> Result<String> {
        let log = self.running.log_path().to_owned();
        let said = self.running.wait(what, || {
            let said = std::fs::read_to_string(&log).ok()?;
            said.lines().find(|line| line.contains(what)).map(str::to_owned)
        })?;
        Ok(said)
    }

    /// Stops it as a person does, which is to go well.
    fn stop(mut self) -> Result {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.running.id())?).ok_or("no process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let status = self.running.end(Duration::from_secs(5))?;
        assert_eq!(status.code(), Some(0), "{}", self.running.log());
        Ok(())
    }
}

/// `warren port-forward` of TCP ports, and where it listens, in the order of its lines.
fn forward(deployment: &Deployment<'_>, specs: &str) -> Result<(Forwarding, Vec<Vec<SocketAddr>>)> {
    let forwarding = Forwarding::start(deployment, &["--tcp", specs])?;
    let at = (0..forwarding.lines.len()).map(|line| forwarding.at(line)).collect();
    Ok((forwarding, at))
}

/// A server, an agent, and its token.
fn deployed() -> Result<(Deployment<'static>, Running, String)> {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    Ok((deployment, agent, token))
}

fn round_trip(to: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&stream).write_all(bytes)?;
            // Our half ends, and the echo's answer must come all the same.
            stream.shutdown(Shutdown::Write)
        });
        (&stream).read_to_end(&mut back)
    })?;
    Ok(back)
}

#[test]
fn bytes_come_back_whole_by_both_loopbacks_and_many_at_once() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let echo = echo()?;
    let (_running, at) = forward(&deployment, &format!("0:{}", echo.port()))?;
    assert_eq!(at[0].len(), 2, "{at:?}");

    let long: Vec<u8> = (0..LONG).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    assert!(round_trip(at[0][0], &long)? == long, "the bytes that came back are others");
    assert_eq!(round_trip(at[0][1], b"the other family")?, b"the other family");

    let visitors: Vec<_> = (0..MANY)
        .map(|n| {
            let to = at[0][n % 2];
            std::thread::spawn(move || {
                let said = format!("visitor {n}").repeat(100);
                round_trip(to, said.as_bytes()).map(|back| back == said.as_bytes()).unwrap_or(false)
            })
        })
        .collect();
    let well = visitors.into_iter().filter_map(|visitor| visitor.join().ok()).filter(|well| *well).count();
    assert_eq!(well, MANY);
    Ok(())
}

#[test]
fn a_refused_connection_is_closed_at_once_and_said() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let (mut running, at) = forward(&deployment, &format!("0:{nobody}"))?;
    let began = Instant::now();
    // It may end by a reset or by an end: there is nobody either way.
    let back = round_trip(at[0][0], b"").unwrap_or_default();
    assert!(back.is_empty() && began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let line = running.says("warning: a connection")?;
    assert_eq!(
        line,
        format!(
            "warning: a connection to port {nobody} was closed: \
             the workspace refused it: nothing listens there"
        )
    );
    Ok(())
}

#[test]
fn connections_work_again_after_the_agent_was_killed() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let echo = echo()?;
    let (_running, at) = forward(&deployment, &format!("0:{}", echo.port()))?;
    assert_eq!(round_trip(at[0][0], b"before")?, b"before");
    drop(agent);
    let _agent = deployment.start_agent("dev", &token)?;
    assert_eq!(round_trip(at[0][0], b"after")?, b"after");
    Ok(())
}

#[test]
fn what_cannot_be_forwarded_is_said_in_a_sentence() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    deployment.create_workspace("dev")?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let fails = |spec: &str, status: i32| -> Result<String> {
        let out = deployment.warren(&["port-forward", "dev", "--tcp", spec])?;
        assert_eq!(out.status.code(), Some(status), "{out:?}");
        Ok(String::from_utf8_lossy(&out.stderr).replace(&port.to_string(), "PORT"))
    };
    insta::assert_snapshot!(fails("8080:8o", 2)?, @r"
    error: a port is a number

      8080:8o
            ^
    hint: write [BIND:]LOCAL[:REMOTE], such as 8080:80 or 127.0.0.1:3000-3010
    code: BAD_PORT_SPEC
    ");
    insta::assert_snapshot!(fails("8080:80,9000-9001,[::1]:8080:81", 2)?, @r"
    error: port 8080 is to lead to port 80 already

      8080:80,9000-9001,[::1]:8080:81
                        ^
    hint: one port here leads to one there: take another, or 0 for any that is free
    code: DUPLICATE_PORT
    ");
    insta::assert_snapshot!(fails(&format!("{port}:80"), 1)?, @r"
    error: can't listen on 127.0.0.1:PORT: another program listens there
    hint: stop the program that has it, or take another: --tcp 0:80 takes any free port and prints it
    code: PORT_IN_USE
    ");
    insta::assert_snapshot!(fails("0:80", 5)?, @r#"
    error: can't reach workspace "dev": its agent is not connected

      last seen  never

    hint: start the agent in the workspace; the command was printed by `warren workspaces create`
    code: AGENT_OFFLINE
    "#);
    Ok(())
}

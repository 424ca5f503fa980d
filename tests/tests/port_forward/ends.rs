//! How connections end, and what of that the other end learns.

use super::*;
use socket2::SockRef;
use std::io::ErrorKind;

/// Bounds every wait of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// The two ends of a connection that is forwarded.
struct Joined {
    near: TcpStream,
    far: TcpStream,
}

fn join(to: SocketAddr, service: &TcpListener) -> Result<Joined> {
    let near = TcpStream::connect(to)?;
    let (far, _) = service.accept()?;
    for end in [&near, &far] {
        end.set_read_timeout(Some(PATIENCE))?;
        end.set_nodelay(true)?;
    }
    // Both directions work before anything ends.
    (&near).write_all(b"hello")?;
    (&far).write_all(b"HELLO")?;
    for (end, said) in [(&far, b"hello"), (&near, b"HELLO")] {
        let mut heard = [0; 5];
        let mut end = end;
        end.read_exact(&mut heard)?;
        assert_eq!(&heard, said);
    }
    Ok(Joined { near, far })
}

/// Ends a connection without the usual goodbye.
fn reset(end: TcpStream) -> Result {
    SockRef::from(&end).set_linger(Some(Duration::ZERO))?;
    drop(end);
    Ok(())
}

/// What a read meets: the end, or an error of this kind.
fn meets(mut end: &TcpStream) -> std::result::Result<usize, ErrorKind> {
    end.read(&mut [0; 16]).map_err(|error| error.kind())
}

#[test]
fn resets_halves_and_ends_are_carried_both_ways() -> Result {
    let (deployment, _agent, _) = deployed()?;
    let service = TcpListener::bind("127.0.0.1:0")?;
    let port = service.local_addr()?.port();
    let (forwarding, at) = forward(&deployment, &format!("0:{port}"))?;
    for turned in [false, true] {
        let joined = || -> Result<(TcpStream, TcpStream)> {
            let Joined { near, far } = join(at[0][0], &service)?;
            Ok(if turned { (far, near) } else { (near, far) })
        };
        // A reset, while both halves are open.
        let (one, other) = joined()?;
        reset(one)?;
        assert_eq!(meets(&other), Err(ErrorKind::ConnectionReset), "turned: {turned}");

        // A reset by one whose half has ended, though nobody writes any more.
        let (one, other) = joined()?;
        one.shutdown(Shutdown::Write)?;
        assert_eq!(meets(&other), Ok(0));
        reset(one)?;
        let until = Instant::now() + PATIENCE;
        let failed = loop {
            match other.take_error()? {
                Some(error) => break error.kind(),
                None if Instant::now() > until => break ErrorKind::TimedOut,
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert!(matches!(failed, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{turned} {failed:?}");

        // One half ends, the other goes on, and ends in order.
        let (one, other) = joined()?;
        one.shutdown(Shutdown::Write)?;
        assert_eq!(meets(&other), Ok(0));
        (&other).write_all(b"still here")?;
        drop(other);
        let mut rest = Vec::new();
        (&one).read_to_end(&mut rest)?;
        assert_eq!(rest, b"still here", "turned: {turned}");

        // An end in order is no reset.
        let (one, other) = joined()?;
        drop(one);
        assert_eq!(meets(&other), Ok(0), "turned: {turned}");
    }
    forwarding.stop()
}

/// Waits until the only tunnel goes directly.
fn wait_direct(deployment: &Deployment<'_>) -> Result {
    let until = Instant::now() + PATIENCE;
    loop {
        let tunnels = deployment.tunnels("dev")?;
        if matches!(&tunnels[..], [tunnel] if tunnel["path"]["kind"] == "direct") {
            return Ok(());
        }
        assert!(Instant::now() < until, "{tunnels:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How long after its agent's death a person may hold a connection that is over.
const TOLD: Duration = Duration::from_secs(3);

#[test]
fn what_is_held_ends_within_three_seconds_of_the_agents_death_and_new_ones_wait_for_the_next() -> Result {
    let (deployment, mut agent, token) = deployed()?;
    let service = TcpListener::bind("127.0.0.1:0")?;
    let port = service.local_addr()?.port();
    for relayed in [false, true] {
        let mut took = Vec::new();
        // A machine that is busy with others makes some attempts slower, never quicker.
        while took.iter().all(|took| *took >= TOLD) {
            assert!(took.len() < 3, "relayed: {relayed}: {took:?}");
            let spec = format!("0:{port}");
            let arguments = ["--tcp", &spec, "--disable-direct-connections"];
            let mut forwarding =
                Forwarding::start(&deployment, if relayed { &arguments } else { &arguments[..2] })?;
            let to = forwarding.at(0)[0];
            let held = join(to, &service)?;
            if !relayed {
                wait_direct(&deployment)?;
            }
            agent.kill()?;
            let killed = Instant::now();
            assert_eq!(meets(&held.near), Err(ErrorKind::ConnectionReset));
            took.push(killed.elapsed());
            println!("relayed: {relayed}: ended {:?} after its agent", killed.elapsed());
            let line = forwarding.says("warning: a connection was closed")?;
            insta::allow_duplicates!(
                insta::assert_snapshot!(line, @r#"warning: a connection was closed: lost workspace "dev": it has ended: its connection to the server closed, and nothing was heard of it since"#)
            );

            // One that comes now waits for the agent's return.
            let waiting = TcpStream::connect(to)?;
            forwarding.says("connections wait up to 15s for it")?;
            agent = deployment.start_agent("dev", &token)?;
            let (mut far, _) = service.accept()?;
            (&waiting).write_all(b"thanks")?;
            let mut heard = [0; 6];
            far.read_exact(&mut heard)?;
            assert_eq!(&heard, b"thanks");
            forwarding.says("workspace \"dev\" is back")?;
            forwarding.stop()?;
        }
    }
    Ok(())
}

#[test]
fn a_server_that_restarts_ends_nothing() -> Result {
    let (mut deployment, _agent, _) = deployed()?;
    let service = TcpListener::bind("127.0.0.1:0")?;
    let port = service.local_addr()?.port();
    let (forwarding, at) = forward(&deployment, &format!("0:{port}"))?;
    let held = join(at[0][0], &service)?;
    deployment.stop_server();
    std::thread::sleep(Duration::from_secs(4));
    deployment.start_server(&[])?;
    std::thread::sleep(Duration::from_secs(4));
    (&held.near).write_all(b"hello")?;
    let mut heard = [0; 5];
    (&held.far).read_exact(&mut heard)?;
    assert_eq!(&heard, b"hello");
    forwarding.stop()
}

#[test]
fn an_agent_that_nobody_starts_again_is_named_as_offline() -> Result {
    let (deployment, agent, _) = deployed()?;
    let (mut forwarding, at) = forward(&deployment, "0:9")?;
    agent.kill()?;
    forwarding.running.wait("the agent's end", || {
        let list = deployment.json(&["workspaces", "list"]).ok()?;
        (list[0]["status"] == "offline").then_some(())
    })?;
    let began = Instant::now();
    let visitors: Vec<_> =
        (0..20).map(|n| TcpStream::connect(at[0][n % 2])).collect::<std::result::Result<_, _>>()?;
    for visitor in &visitors {
        visitor.set_read_timeout(Some(PATIENCE))?;
        assert_eq!(meets(visitor), Err(ErrorKind::ConnectionReset));
    }
    assert!(began.elapsed() >= Duration::from_secs(10), "{:?}", began.elapsed());
    let line = forwarding.says("warning: a connection to port 9 was closed")?;
    insta::assert_snapshot!(line, @r#"warning: a connection to port 9 was closed: can't reach workspace "dev": its agent is not connected"#);
    forwarding.stop()
}

#[test]
fn who_has_had_enough_waits_for_no_server() -> Result {
    let (deployment, agent, _) = deployed()?;
    let (mut forwarding, at) = forward(&deployment, "0:9")?;
    agent.kill()?;
    let _visitor = TcpStream::connect(at[0][0])?;
    forwarding.says("connections wait up to 15s for it")?;
    // Whoever asks it waits from now on.
    let server = deployment.server().ok_or("no server")?.id();
    let signal = |name: &str| std::process::Command::new("kill").args([name, &server.to_string()]).status();
    signal("-STOP")?;
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    let stopped = forwarding.stop();
    let took = began.elapsed();
    signal("-CONT")?;
    stopped?;
    // It is 0.7 seconds; the rest is for a busy machine.
    assert!(took < Duration::from_secs(3), "{took:?}");
    Ok(())
}

#[test]
fn warnings_are_documents_where_those_were_asked_for() -> Result {
    let (deployment, _agent, _) = deployed()?;
    let mut command = deployment.command()?;
    command.args(["port-forward", "dev", "--tcp", "0:9", "-o", "json"]);
    let (out, log) = (deployment.path("forwards.json"), deployment.path("notes"));
    command.stdout(std::fs::File::create(&out)?).stderr(std::fs::File::create(&log)?);
    let mut child = command.spawn()?;
    let until = Instant::now() + PATIENCE;
    let to: SocketAddr = loop {
        let shown: serde_json::Value = serde_json::from_slice(&std::fs::read(&out)?).unwrap_or_default();
        match shown[0]["local"][0].as_str() {
            Some(address) => break address.parse()?,
            None if Instant::now() > until => return Err("it does not forward".into()),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let _ = round_trip(to, b"");
    let text = loop {
        let text = std::fs::read_to_string(&log)?;
        if text.ends_with('\n') || Instant::now() > until {
            break text;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    assert!(child.wait()?.success());
    insta::assert_snapshot!(text, @r#"{"warning":{"code":"CONNECTION_CLOSED","message":"a connection to port 9 was closed: the workspace refused it: nothing listens there"}}"#);
    Ok(())
}

#[test]
fn forwarding_ends_with_the_login() -> Result {
    let (deployment, _agent, _) = deployed()?;
    let (mut forwarding, at) = forward(&deployment, "0:9")?;
    assert!(deployment.warren(&["logout"])?.status.success());
    let status = forwarding.running.end(PATIENCE)?;
    let log = forwarding.running.log();
    assert_eq!(status.code(), Some(3), "{log}");
    let error = log.find("error: ").and_then(|at| log.get(at..)).unwrap_or_default();
    insta::assert_snapshot!(error, @r#"
    error: lost workspace "dev": the session was ended by logging out
    hint: log in again with `warren login URL`
    code: EXPELLED
    "#);
    assert!(TcpStream::connect(at[0][0]).is_err(), "nothing listens any more");
    Ok(())
}

//! Many sessions: on one connection and on connections of their own, long ones, quiet ones.

use super::Result;
use super::workspace::{Ends, PATIENCE, Workspace, alone, finish, wait};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

/// Sessions at once.
const MANY: usize = 100;
/// Bytes that pass while keys are agreed on anew every few.
const LONG: usize = 96 << 20;

/// What those said that have ended already.
fn early<T>(started: &mut [(Ends, T)]) -> Result<String> {
    let mut said = String::new();
    for (child, _) in started {
        if let Some(status) = child.0.try_wait()? {
            said.push_str(&format!("{status}: "));
            child.0.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
        }
    }
    Ok(said)
}

/// Starts this command so often, sees that all are there at the same moment, and looks at what each says.
fn all_at_once(command: impl Fn(&str) -> Result<Command>) -> Result {
    let _alone = alone();
    let (here, come) = mpsc::channel();
    let mut started = Vec::new();
    for n in 0..MANY {
        // Each waits for the end of its input, which none is given before all have come.
        let mut command = command(&format!("echo here; cat; echo {n}; exit {n}"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Ends(command.spawn()?);
        let mut out = BufReader::new(child.0.stdout.take().ok_or("no output")?);
        let here = here.clone();
        let heard = std::thread::spawn(move || -> std::io::Result<String> {
            let (mut first, mut rest) = (String::new(), String::new());
            out.read_line(&mut first)?;
            let _ = here.send(first);
            out.read_to_string(&mut rest)?;
            Ok(rest)
        });
        started.push((child, heard));
    }
    for n in 0..MANY {
        let first = come.recv_timeout(PATIENCE);
        if first.as_deref() != Ok("here\n") {
            return Err(format!("{n} of {MANY} were here at once: {}", early(&mut started)?).into());
        }
    }
    for (child, _) in &mut started {
        drop(child.0.stdin.take());
    }
    for (n, (mut child, heard)) in started.into_iter().enumerate() {
        let said = heard.join().map_err(|_| "a reader panicked")??;
        assert_eq!((child.0.wait()?.code(), said), (Some(n as i32), format!("{n}\n")));
    }
    Ok(())
}

#[test]
fn a_hundred_commands_share_a_connection() -> Result {
    let workspace = Workspace::start()?;
    let control = format!("ControlPath={}", workspace.path("control").display());
    let mut master = workspace.program("ssh");
    let _master = Ends(master.args(["-M", "-N", "-o", &control, "dev"]).spawn()?);
    wait("the shared connection", || workspace.path("control").exists().then_some(()))?;
    all_at_once(|script| {
        let mut ssh = workspace.program("ssh");
        ssh.args(["-o", &control, "dev", script]);
        Ok(ssh)
    })?;
    let began = Instant::now();
    for _ in 0..20 {
        let out = workspace.ssh(&["-o", &control, "dev", "true"])?;
        assert!(out.status.success(), "{out:?}");
    }
    let each = began.elapsed() / 20;
    println!("a command on a connection that is there: {each:?}");
    assert!(each.as_millis() < 500, "{each:?}");
    Ok(())
}

#[test]
fn a_hundred_commands_come_by_themselves() -> Result {
    let workspace = Workspace::start()?;
    all_at_once(|script| {
        let mut ssh = workspace.program("ssh");
        ssh.args(["dev", script]);
        Ok(ssh)
    })
}

#[test]
fn a_hundred_commands_come_without_openssh() -> Result {
    let workspace = Workspace::start()?;
    all_at_once(|script| workspace.native(&["dev", script]))
}

#[test]
fn keys_are_agreed_on_anew_under_way() -> Result {
    let workspace = Workspace::start()?;
    let long: Vec<u8> = (0..LONG).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    let mut ssh = workspace.program("ssh");
    // Compression is refused without a word, since the tunnel's packets would gain nothing.
    let out =
        finish(ssh.args(["-C", "-v", "-o", "LogLevel=DEBUG1", "-o", "RekeyLimit=4M", "dev", "cat"]), &long)?;
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && out.stdout == long, "{said}");
    assert!(
        said.matches("rekeying in progress").count() > 10
            || said.matches("SSH2_MSG_NEWKEYS sent").count() > 10,
        "{said}"
    );
    assert!(said.contains("compression: none"), "{said}");
    Ok(())
}

#[test]
fn quiet_sessions_stay() -> Result {
    let workspace = Workspace::start()?;
    let alive = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1", "dev", "sleep 4; echo here"];
    assert_eq!(workspace.ssh(&alive)?.stdout, b"here\n");
    Ok(())
}

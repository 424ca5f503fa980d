//! Many sessions: on one connection and on connections of their own, long ones, quiet ones.

use super::Result;
use super::workspace::{Ends, Workspace, finish, wait};
use std::process::{Child, Stdio};
use std::time::Instant;

/// Sessions at once.
const MANY: usize = 100;
/// Bytes that pass while keys are agreed on anew every few.
const LONG: usize = 96 << 20;

/// Starts them all, and looks at what each says.
fn all_at_once(workspace: &Workspace, options: &[&str]) -> Result {
    let started: Vec<Child> = (0..MANY)
        .map(|n| {
            let mut ssh = workspace.program("ssh");
            // They wait for one another, so that all are there at once.
            ssh.args(options).args(["dev", &format!("cat; echo {n}; exit {n}")]);
            ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        })
        .collect::<std::io::Result<_>>()?;
    for (n, child) in started.into_iter().enumerate() {
        let out = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!((out.status.code(), said), (Some(n as i32), format!("{n}\n")), "{out:?}");
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
    all_at_once(&workspace, &["-o", &control])?;
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
    all_at_once(&Workspace::start()?, &[])
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

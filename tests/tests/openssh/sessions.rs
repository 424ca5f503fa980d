//! Commands and shells without a terminal: data, ends, signals, variables, and what happens when one side is slow.

use super::Result;
use super::workspace::{Ends, Workspace, finish, signal, wait};
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes that are sent to the workspace and back.
const LONG: usize = 64 << 20;

#[test]
fn commands_have_input_output_errors_and_a_status() -> Result {
    let workspace = Workspace::start()?;
    let out = finish(workspace.program("ssh").args(["dev", "cat; echo wrong >&2; exit 7"]), b"to and fro")?;
    assert_eq!(out.status.code(), Some(7), "{out:?}");
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice()), (&b"to and fro"[..], &b"wrong\n"[..]));
    let known = std::fs::read_to_string(workspace.path("known_hosts"))?;
    assert!(known.starts_with("dev ssh-ed25519 "), "{known}");

    // The agent's host key stays the same: OpenSSH would refuse another one.
    assert_eq!(workspace.says("echo again")?, "again\n");
    let out = workspace.ssh(&["dev", "no-such-program-here"])?;
    assert_eq!(out.status.code(), Some(127), "{out:?}");
    Ok(())
}

#[test]
fn what_cannot_be_reached_is_said_with_the_status_of_ssh() -> Result {
    let workspace = Workspace::start()?;
    let warren = tests::program("warren")?;
    let out = finish(workspace.other(&warren.to_string_lossy()).args(["ssh", "--stdio", "dve"]), b"")?;
    assert_eq!(out.status.code(), Some(255), "{out:?}");
    let said = String::from_utf8(out.stderr)?;
    assert!(said.starts_with("error: ") && said.contains("dve") && said.contains("\ncode: "), "{said}");
    let out = workspace.ssh(&["dve", "true"])?;
    assert_eq!(out.status.code(), Some(255), "{out:?}");
    Ok(())
}

#[test]
fn a_session_whose_agent_was_killed_ends_within_three_seconds_with_a_sentence() -> Result {
    Workspace::start()?.told_in_time(
        |workspace| {
            let mut ssh = workspace.program("ssh");
            // The program itself outlives the agent, and is no use to anybody then.
            ssh.args(["dev", "echo up; exec sleep 60"]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut ssh = Ends(ssh.spawn()?);
            let mut up = [0; 3];
            ssh.0.stdout.as_mut().ok_or("no output")?.read_exact(&mut up)?;
            assert_eq!(&up, b"up\n");
            Ok(ssh)
        },
        |mut ssh| {
            let status = wait("ssh ends", || ssh.0.try_wait().ok().flatten())?;
            assert_eq!(status.code(), Some(255));
            let mut said = String::new();
            ssh.0.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
            assert!(said.contains("error: lost workspace \"dev\": it has ended"), "{said}");
            Ok(())
        },
    )
}

#[test]
fn the_host_key_survives_the_agent() -> Result {
    let mut workspace = Workspace::start()?;
    assert_eq!(workspace.says("echo one")?, "one\n");
    let key = std::fs::metadata(workspace.path("agent-dev/ssh_host_ed25519_key"))?;
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    workspace.new_agent()?;
    assert_eq!(workspace.says("echo two")?, "two\n");
    Ok(())
}

#[test]
fn output_and_errors_are_whole_and_in_order() -> Result {
    let workspace = Workspace::start()?;
    // Turns of a kilobyte, 64 of each, and the last of them after the program's own end.
    let turns = "for n in $(seq 64); do head -c 1024 /dev/zero | tr '\\0' o; head -c 1024 /dev/zero | tr '\\0' e >&2; \
                 done; (sleep 0.3; echo late; echo late >&2) & exit 3";
    let out = workspace.ssh(&["dev", turns])?;
    assert_eq!(out.status.code(), Some(3), "{:?}", out.status);
    let expected = |letter: &str| format!("{}late\n", letter.repeat(64 << 10));
    assert!(String::from_utf8(out.stdout)? == expected("o"), "the output is not what was written");
    assert!(String::from_utf8(out.stderr)? == expected("e"), "the errors are not what was written");

    // Both in one pipe: each line that was written first comes first.
    let both = workspace.path("both");
    let file = std::fs::File::create(&both)?;
    let mut ssh = workspace.program("ssh");
    ssh.args(["dev", "for n in $(seq 10); do echo out $n; sleep 0.1; echo err $n >&2; sleep 0.1; done"]);
    assert!(ssh.stdout(file.try_clone()?).stderr(file).status()?.success());
    let expected: String = (1..=10).map(|n| format!("out {n}\nerr {n}\n")).collect();
    assert_eq!(std::fs::read_to_string(both)?, expected);
    Ok(())
}

#[test]
fn signals_pass_both_ways() -> Result {
    let workspace = Workspace::start()?;
    let out = workspace.ssh(&["-v", "-o", "LogLevel=DEBUG1", "dev", "kill -TERM $$"])?;
    assert_eq!(out.status.code(), Some(255), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("rtype exit-signal"), "{out:?}");
    // OpenSSH's client has no way to send one: another client sends them, and tells what it is told of the end.
    let warren = tests::program("warren")?;
    let mut client = workspace.other("/usr/bin/python3");
    client.args(["-W", "ignore", "-c", include_str!("signals.py")]).arg(warren);
    let out = finish(&mut client, b"")?;
    insta::assert_snapshot!(String::from_utf8(out.stdout)? + &String::from_utf8(out.stderr)?, @r"
    TERM: killed by TERM
    HUP: killed by HUP
    INT: killed by INT
    QUIT: killed by QUIT
    KILL: killed by KILL
    USR1 that is caught: status 3 after heard
    ");
    Ok(())
}

#[test]
fn a_session_finds_itself_at_home() -> Result {
    let workspace = Workspace::start_with(&[("FROM_THE_IMAGE", "yes"), ("WARREN_LOG", "info")])?;
    let home = workspace.says("echo \"$HOME\"; pwd; echo \"$USER $LOGNAME\"; id -un; echo \"$SHELL\"")?;
    let [home, folder, names, user, shell] = home.lines().collect::<Vec<_>>()[..] else { panic!("{home}") };
    assert_eq!(home, folder);
    assert_eq!(names, format!("{user} {user}"));
    assert!(std::path::Path::new(shell).is_file(), "{shell}");
    let said = workspace.says("echo $WARREN_WORKSPACE; echo $SSH_CONNECTION; echo $FROM_THE_IMAGE; env")?;
    let [name, connection, image, env @ ..] = &said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert_eq!((*name, *image), ("dev", "yes"));
    assert!(connection.starts_with("fd77:6172:7265:") && connection.ends_with(" 22"), "{connection}");
    assert!(!env.iter().any(|line| line.starts_with("WARREN_AGENT_TOKEN")), "{said}");

    let mut ssh = workspace.program("ssh");
    ssh.args(["-o", "SetEnv=LC_ALL=C.UTF-8 COLORTERM=truecolor LD_PRELOAD=/no/such.so PATH=/none", "dev"]);
    let out = finish(ssh.arg("echo $LC_ALL $COLORTERM $LD_PRELOAD; echo $PATH"), b"")?;
    let said = String::from_utf8(out.stdout)?;
    assert!(said.starts_with("C.UTF-8 truecolor\n/"), "{said}");
    assert!(!said.contains("/none"), "{said}");
    // Without a command it is the shell, as a login.
    let out = finish(workspace.program("ssh").args(["-T", "dev"]), b"echo \"I am $0\"; exit 4\n")?;
    assert_eq!(out.status.code(), Some(4), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stdout).contains("I am -"), "{out:?}");
    Ok(())
}

#[test]
fn much_comes_back_whole_though_both_ways_are_full() -> Result {
    let workspace = Workspace::start()?;
    let long: Vec<u8> = (0..LONG).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    let out = finish(workspace.program("ssh").args(["dev", "cat"]), &long)?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout == long, "the bytes that came back are others");
    Ok(())
}

#[test]
fn who_does_not_read_is_waited_for() -> Result {
    let mut workspace = Workspace::start()?;
    let (control, count) = (workspace.path("control"), workspace.path("count"));
    let control = format!("ControlPath={}", control.display());
    let before = workspace.agent().resident_kib()?;
    // A program that reads nothing, and endless data for it.
    let mut full = workspace.program("ssh");
    full.args(["-M", "-o", &control, "dev", "echo here; sleep 1000"]);
    let mut full = Ends(full.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    full.0.stdout.as_mut().ok_or("no output")?.read_exact(&mut [0; 5])?;
    let mut into = full.0.stdin.take().ok_or("no input")?;
    let taken = Arc::new(AtomicUsize::new(0));
    std::thread::spawn({
        let taken = taken.clone();
        move || {
            while into.write_all(&[0; 64 << 10]).is_ok() {
                taken.fetch_add(64 << 10, Ordering::Relaxed);
            }
        }
    });
    let mut before_last = 0;
    wait("a sender at rest", || {
        std::thread::sleep(Duration::from_millis(500));
        let now = taken.load(Ordering::Relaxed);
        let rests = now == before_last && now > 0;
        before_last = now;
        rests.then_some(())
    })?;
    assert!(before_last < 64 << 20, "{before_last} bytes were taken for nobody");
    // A program that writes endlessly, for nobody who reads.
    let mut unread = workspace.program("ssh");
    let endless = format!("yes | tee >(dd status=none bs=1M of=/dev/null) | tee {} | cat", count.display());
    unread.args(["-o", &control, "dev", &format!("bash -c '{endless}'")]);
    let _unread = Ends(unread.stdout(Stdio::piped()).spawn()?);
    let mut size = 0;
    let written = || std::fs::metadata(&count).map_or(0, |file| file.len());
    wait("a writer at rest", || {
        std::thread::sleep(Duration::from_millis(500));
        let same = written() == size && size > 0;
        size = written();
        same.then_some(())
    })?;
    assert!(size < 64 << 20, "{size} bytes were written for nobody");
    // On the same connection others go on: waiting for those two would take for ever.
    let out = workspace.ssh(&["-o", &control, "dev", "echo still here"])?;
    assert_eq!(out.stdout, b"still here\n", "{out:?}");
    let grown = workspace.agent().resident_kib()?.saturating_sub(before);
    assert!(grown < 100 << 10, "the agent has grown by {grown} KiB");
    Ok(())
}

#[test]
fn a_program_ends_with_its_visitor() -> Result {
    let workspace = Workspace::start()?;
    let (ready, gone) = (workspace.path("ready"), workspace.path("gone"));
    let script = format!(
        "exec 2>/dev/null; trap 'echo hung up > {}; exit' HUP; echo > {}; while :; do sleep 0.1; done",
        gone.display(),
        ready.display()
    );
    let mut ssh = Ends(workspace.program("ssh").args(["dev", &script]).spawn()?);
    wait("the program", || ready.exists().then_some(()))?;
    signal(ssh.0.id(), "KILL");
    ssh.0.wait()?;
    wait("its last word", || std::fs::read_to_string(&gone).ok().filter(|said| said == "hung up\n"))?;
    Ok(())
}

#[test]
fn the_end_of_input_reaches_a_program_that_goes_on() -> Result {
    let workspace = Workspace::start()?;
    let mut ssh = workspace.program("ssh");
    let mut ssh = Ends(
        ssh.args(["dev", "wc -c; sleep 0.2; echo later"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut stdin = ssh.0.stdin.take().ok_or("no input")?;
    stdin.write_all(b"12345")?;
    drop(stdin);
    let mut said = String::new();
    ssh.0.stdout.take().ok_or("no output")?.read_to_string(&mut said)?;
    assert_eq!(said, "5\nlater\n");
    Ok(())
}

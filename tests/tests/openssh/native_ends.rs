//! What becomes of a session by `warren ssh` when the path, the server or the agent is away.

use super::Result;
use super::native_terminal::{CAT, with_terminal};
use super::screen::{Screen, plain};
use super::workspace::{Ends, Workspace, signal, wait};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tests::deployment::{Deployment, Place};
use tests::lab::{Lab, Nat};

#[test]
fn a_killed_agent_ends_it_within_three_seconds_with_a_sentence() -> Result {
    Workspace::start()?.told_in_time(
        |workspace| {
            // The program itself outlives the agent, and is no use to anybody then.
            let mut command = workspace.native(&["dev", "echo up; exec sleep 60"])?;
            let mut ssh = Ends(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
            ssh.0.stdout.as_mut().ok_or("no output")?.read_exact(&mut [0; 3])?;
            Ok(ssh)
        },
        |mut ssh| {
            let status = wait("the end", || ssh.0.try_wait().ok().flatten())?;
            assert_eq!(status.code(), Some(255));
            let mut said = String::new();
            ssh.0.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
            insta::allow_duplicates!(insta::assert_snapshot!(said, @r#"
            error: lost workspace "dev": it has ended: its connection to the server closed, and nothing was heard of it since
            hint: `warren status` shows what there is
            code: AGENT_GONE
            "#));
            Ok(())
        },
    )
}

#[test]
fn a_shell_on_a_terminal_is_told_as_soon() -> Result {
    Workspace::start()?.told_in_time(
        |workspace| {
            let mut screen = Screen::start(with_terminal(&workspace.native(&["dev"])?), 80, 24)?;
            screen.types("PS1=; echo read''y\r")?;
            screen.shows("ready\r\n")?;
            Ok(screen)
        },
        |mut screen| {
            let ended = wait("the end", || screen.program.0.try_wait().ok().flatten())?;
            let text = screen.shows("code: AGENT_GONE\r\n")?;
            assert_eq!(ended.code(), Some(255), "{text}");
            insta::allow_duplicates!(insta::assert_snapshot!(plain(&text), @r#"

            error: lost workspace "dev": it has ended: its connection to the server closed, and nothing was heard of it since
            hint: `warren status` shows what there is
            code: AGENT_GONE
            "#));
            Ok(())
        },
    )
}

/// The text with `TIME` for each moment in UTC.
fn without_moments(text: &str) -> String {
    let moment = |at: usize| text.get(at.checked_sub(10)?..at + 10).filter(|moment| moment.ends_with('Z'));
    let moments = text.match_indices('T').filter_map(|(at, _)| moment(at));
    moments.fold(text.to_owned(), |text, moment| text.replace(moment, "TIME"))
}

#[test]
fn an_agent_that_gives_no_sign_of_life_is_not_waited_for() -> Result {
    let mut workspace = Workspace::start()?;
    let agent = workspace.agent().id();
    signal(agent, "STOP");
    // All at once: each has the same patience, and the server takes the agent for connected for a while.
    let asked = [&["dev", "true"][..], &["-o", "json", "dev"], &["--stdio", "dev"]];
    let mut sessions = Vec::new();
    for arguments in asked {
        let mut command = workspace.native(arguments)?;
        sessions.push(Ends(command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?));
    }
    let mut said = String::new();
    for mut ssh in sessions {
        let status = wait("the end", || ssh.0.try_wait().ok().flatten())?;
        ssh.0.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
        assert_eq!(status.code(), Some(255), "{said}");
    }
    signal(agent, "CONT");
    insta::assert_snapshot!("silent", without_moments(&said));
    let out = workspace.ssh(&["dev", "echo awake"])?;
    assert_eq!(out.stdout, b"awake\n", "{out:?}");
    Ok(())
}

#[test]
fn a_server_that_is_started_anew_is_not_noticed() -> Result {
    let mut workspace = Workspace::start()?;
    let mut screen = Screen::start(with_terminal(&workspace.native(&["-t", "dev", CAT])?), 80, 24)?;
    screen.shows("up\r\n")?;
    screen.types("before\r")?;
    screen.shows("before\r\nbefore\r\n")?;
    workspace.deployment().stop_server();
    // Long enough that both have noticed.
    std::thread::sleep(Duration::from_secs(4));
    screen.types("without\r")?;
    screen.shows("without\r\nwithout\r\n")?;
    workspace.deployment().start_server(&[])?;
    std::thread::sleep(Duration::from_secs(4));
    screen.types("after\r")?;
    let text = screen.shows("after\r\nafter\r\n")?;
    assert_eq!(text, "after\r\nafter\r\n", "nothing else is shown");
    screen.types("\x04")?;
    assert_eq!(wait("the end", || screen.program.0.try_wait().ok().flatten())?.code(), Some(0));
    assert_eq!(screen.text(), "");
    Ok(())
}

#[test]
fn a_path_that_is_cut_is_waited_for() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let mut command = deployment.command()?;
    command.args(["ssh", "-t", "dev", CAT]);
    let mut screen = Screen::start(with_terminal(&command), 80, 24)?;
    screen.shows("up\r\n")?;
    screen.types("before\r")?;
    screen.shows("before\r\nbefore\r\n")?;
    let cut = "table ip cut {
        counter dropped {}
        chain cutting { type filter hook forward priority filter; counter name dropped drop; }
    }";
    lab.ok("inet", &["nft", cut])?;
    screen.types("lost\r")?;
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(screen.text(), "", "nothing is shown meanwhile");
    assert_eq!(screen.program.0.try_wait()?, None, "it waits");
    let dropped = lab.ok("inet", &["nft", "list", "counter", "ip", "cut", "dropped"])?;
    assert!(!dropped.contains("packets 0 "), "nothing was cut: {dropped}");
    lab.ok("inet", &["nft", "delete", "table", "ip", "cut"])?;
    let healed = Instant::now();
    let text = screen.shows("lost\r\nlost\r\n")?;
    println!("back {:?} after the path", healed.elapsed());
    assert_eq!(text, "lost\r\nlost\r\n", "nothing else is shown");
    screen.types("\x04")?;
    assert_eq!(wait("the end", || screen.program.0.try_wait().ok().flatten())?.code(), Some(0));
    Ok(())
}

#[test]
fn a_person_who_moves_stays_in() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let mut command = deployment.command()?;
    command.args(["ssh", "-t", "dev", CAT]);
    let mut screen = Screen::start(with_terminal(&command), 80, 24)?;
    screen.shows("up\r\n")?;
    screen.types("here\r")?;
    screen.shows("here\r\nhere\r\n")?;
    // Another network: no address, no route, then others.
    lab.ok("alice", &["ip", "addr", "flush", "dev", "eth0"])?;
    screen.types("between\r")?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(screen.text(), "", "nothing comes without an address");
    lab.ok("alice", &["ip", "addr", "add", "10.1.0.77/24", "dev", "eth0"])?;
    lab.ok("alice", &["ip", "route", "add", "default", "via", "10.1.0.1"])?;
    let moved = Instant::now();
    let text = screen.shows("between\r\nbetween\r\n")?;
    println!("back {:?} after the move", moved.elapsed());
    assert_eq!(text, "between\r\nbetween\r\n", "nothing else is shown");
    screen.types("\x04")?;
    assert_eq!(wait("the end", || screen.program.0.try_wait().ok().flatten())?.code(), Some(0));
    Ok(())
}

#[test]
fn who_logs_out_is_out_of_the_workspace_too() -> Result {
    let mut workspace = Workspace::start()?;
    let mut command = workspace.native(&["dev", "echo up; exec sleep 60"])?;
    let mut ssh = Ends(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    ssh.0.stdout.as_mut().ok_or("no output")?.read_exact(&mut [0; 3])?;
    let out = workspace.deployment().warren(&["logout"])?;
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let logged_out = Instant::now();
    let status = wait("the end", || ssh.0.try_wait().ok().flatten())?;
    println!("ended {:?} after the login", logged_out.elapsed());
    assert!(logged_out.elapsed() < Duration::from_secs(10), "{:?}", logged_out.elapsed());
    assert_eq!(status.code(), Some(255));
    let mut said = String::new();
    ssh.0.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
    insta::assert_snapshot!(said, @r#"
    error: lost workspace "dev": the session was ended by logging out
    hint: log in again with `warren login URL`
    code: EXPELLED
    "#);
    Ok(())
}

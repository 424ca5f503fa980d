//! Shells and programs on a terminal, by `warren ssh` itself.

use super::Result;
use super::screen::Screen;
use super::workspace::{Workspace, signal, wait};
use std::process::Command;
use std::time::{Duration, Instant};

/// Sends back what is typed, once it has said that it is there: what is typed before is shown twice.
pub(crate) const CAT: &str = "echo up; exec cat";

/// `warren ssh` that has the terminal for its own.
fn on_terminal(workspace: &Workspace, arguments: &[&str]) -> Result<Command> {
    Ok(with_terminal(&workspace.native(arguments)?))
}

/// A command that has the terminal for its own.
pub(crate) fn with_terminal(command: &Command) -> Command {
    let mut own = Command::new("setsid");
    own.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
    own.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("TERM", "xterm-256color");
    own
}

/// How a terminal behaves, in words.
fn behaviour(screen: &Screen) -> Result<String> {
    Ok(format!("{:?}", screen.settings()?))
}

#[test]
fn a_shell_has_a_terminal_like_the_persons() -> Result {
    let workspace = Workspace::start()?;
    let mut screen = Screen::start(on_terminal(&workspace, &["-t", "dev", "sh"])?, 90, 30)?;
    screen.types("PS1=; stty size; echo $TERM; tty; echo $SSH_TTY; echo read''y\r")?;
    let text = screen.shows("ready\r\n")?;
    assert!(text.contains("30 90\r\n") && text.contains("xterm-256color\r\n"), "{text}");
    assert_eq!(text.matches("\n/dev/pts/").count(), 2, "{text}");
    screen.types("trap 'stty size; echo chang''ed' WINCH; echo wait''ing\r")?;
    screen.shows("waiting\r\n")?;
    screen.resize(123, 45)?;
    // The shell runs its trap when a command has ended, and a key may come before the signal.
    wait("the new size", || {
        std::thread::sleep(Duration::from_millis(200));
        screen.types("\r").ok().filter(|()| screen.text().contains("changed"))
    })?;
    let text = screen.shows("changed")?;
    assert!(text.contains("45 123\r\n"), "{text}");
    // It is the controlling terminal: what is typed interrupts the program, and /dev/tty is it.
    screen.types("echo seen > /dev/tty; sleep 100 || echo stopp''ed\r")?;
    screen.shows("seen\r\n")?;
    screen.types("\x03")?;
    screen.types("echo after\r")?;
    screen.shows("after\r\n")?;
    screen.types("exit 5\r")?;
    assert_eq!(screen.program.0.wait()?.code(), Some(5), "{}", screen.text());
    Ok(())
}

#[test]
fn the_login_shell_begins_by_itself_and_a_long_text_scrolls_by() -> Result {
    let workspace = Workspace::start()?;
    let mut screen = Screen::start(on_terminal(&workspace, &["dev"])?, 80, 24)?;
    screen.types("echo \"I am $0\"; tty; seq 1 200000 | tail -c 1000000; echo do''ne\r")?;
    let text = screen.shows("done\r\n")?;
    assert!(text.contains("I am -") && text.contains("/dev/pts/"), "{:?}", text.get(..2_000));
    assert!(text.contains("199999\r\n200000\r\n"), "the end of it is not there");
    screen.types("exit 0\r")?;
    assert_eq!(screen.program.0.wait()?.code(), Some(0));
    // Without a terminal here there is none there, unless it is asked for.
    let out = super::workspace::finish(&mut workspace.native(&["-t", "dev", "tty; stty size"])?, b"")?;
    assert!(String::from_utf8_lossy(&out.stdout).ends_with("\r\n24 80\r\n"), "{out:?}");
    let mut screen = Screen::start(on_terminal(&workspace, &["-T", "dev"])?, 80, 24)?;
    screen.types("tty; exit 3\n")?;
    screen.shows("not a tty")?;
    assert_eq!(screen.program.0.wait()?.code(), Some(3));
    Ok(())
}

#[test]
fn the_terminal_is_as_it_was_whatever_happens() -> Result {
    let mut workspace = Workspace::start()?;
    let agent = workspace.agent().id();
    let endings: [(&str, Option<i32>); 5] = [
        ("exit", Some(0)),
        ("~.", Some(255)),
        ("TERM", Some(143)),
        ("HUP", Some(129)),
        // The last: the agent is no more then.
        ("killed", Some(255)),
    ];
    for (ending, status) in endings {
        let mut screen = Screen::start(on_terminal(&workspace, &["dev"])?, 80, 24)?;
        let before = behaviour(&screen)?;
        screen.types("PS1=; echo read''y\r")?;
        screen.shows("ready\r\n")?;
        assert_ne!(behaviour(&screen)?, before, "{ending}: it is in raw mode");
        let began = Instant::now();
        match ending {
            "exit" => screen.types("exit\r")?,
            "~." => screen.types("\r~.")?,
            "killed" => signal(agent, "KILL"),
            name => {
                let child = format!("/proc/{0}/task/{0}/children", screen.program.0.id());
                let child = std::fs::read_to_string(child)?;
                // `setsid` starts it as a child, or becomes it.
                let child = child.trim().parse().unwrap_or(screen.program.0.id());
                signal(child, name);
            }
        }
        let ended = wait("the end", || screen.program.0.try_wait().ok().flatten())?;
        assert!(began.elapsed() < Duration::from_secs(12), "{ending}: {:?}", began.elapsed());
        assert_eq!(ended.code(), status, "{ending}: {}", screen.text());
        assert_eq!(behaviour(&screen)?, before, "{ending}");
        let errors = screen.text().matches("error: ").count();
        match ending {
            "killed" => {
                let text = screen.shows("code: AGENT_GONE")?;
                assert_eq!(text.matches("error: lost workspace \"dev\"").count(), 1, "{text}");
                assert!(text.contains("it has ended"), "{text}");
            }
            "~." => _ = screen.shows("left workspace \"dev\"\r\n")?,
            _ => assert_eq!(errors, 0, "{ending}: {}", screen.text()),
        }
    }
    Ok(())
}

#[test]
fn a_hung_session_is_left_by_the_escape() -> Result {
    let mut workspace = Workspace::start()?;
    let agent = workspace.agent().id();
    let mut screen = Screen::start(on_terminal(&workspace, &["-t", "dev", CAT])?, 80, 24)?;
    screen.shows("up\r\n")?;
    screen.types("~~ a ~. b\r")?;
    screen.shows("~ a ~. b\r\n~ a ~. b\r\n")?;
    screen.types("~?")?;
    let text = screen.shows("types ~\r\n")?;
    assert!(text.contains("~.   ends the session\r\n"), "{text}");
    signal(agent, "STOP");
    screen.types("nobody hears\r")?;
    std::thread::sleep(Duration::from_millis(500));
    assert!(!screen.text().contains("nobody"), "{}", screen.text());
    let began = Instant::now();
    screen.types("~.")?;
    let ended = wait("the end", || screen.program.0.try_wait().ok().flatten())?;
    signal(agent, "CONT");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(ended.code(), Some(255));
    // Another character, and none.
    let mut screen = Screen::start(on_terminal(&workspace, &["-t", "-e", "^]", "dev", CAT])?, 80, 24)?;
    screen.shows("up\r\n")?;
    screen.types("~.\r")?;
    screen.shows("~.\r\n~.\r\n")?;
    screen.types("\x1d.")?;
    assert_eq!(wait("the end", || screen.program.0.try_wait().ok().flatten())?.code(), Some(255));
    let mut screen = Screen::start(on_terminal(&workspace, &["-te", "none", "dev", CAT])?, 80, 24)?;
    screen.shows("up\r\n")?;
    screen.types("~.\r")?;
    screen.shows("~.\r\n~.\r\n")?;
    screen.types("\x04")?;
    assert_eq!(wait("the end", || screen.program.0.try_wait().ok().flatten())?.code(), Some(0));
    Ok(())
}

#[test]
fn a_session_is_suspended_and_comes_back() -> Result {
    let workspace = Workspace::start()?;
    let warren = tests::program("warren")?;
    let mut shell = workspace.other("bash");
    shell.args(["--norc", "--noprofile", "-i"]).env("PS1", "");
    let mut screen = Screen::start(with_terminal(&shell), 80, 24)?;
    screen.types(&format!("{} ssh -t dev 'echo it is u\"\"p; exec cat'\r", warren.display()))?;
    screen.shows("it is up\r\n")?;
    screen.types("here\r")?;
    screen.shows("here\r\nhere\r\n")?;
    screen.types("~\x1a")?;
    screen.shows("Stopped")?;
    screen.types("echo in the sh''ell\r")?;
    screen.shows("in the shell\r\n")?;
    screen.types("fg\r")?;
    std::thread::sleep(Duration::from_millis(500));
    screen.types("back\r")?;
    screen.shows("back\r\nback\r\n")?;
    screen.types("\x04")?;
    screen.shows("\u{1b}[?2004h")?;
    screen.types("echo status $?; exit\r")?;
    screen.shows("status 0\r\n")?;
    Ok(())
}

//! Shells and programs on a terminal.

use super::Result;
use super::screen::Screen;
use super::workspace::Workspace;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A program of OpenSSH that has the terminal for its own.
fn on_terminal(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.other("setsid");
    command.args(["--ctty", "--wait", "ssh", "-F"]).arg(workspace.path("ssh_config")).args(arguments);
    command.env("TERM", "xterm-256color").arg0("setsid");
    command
}

#[test]
fn a_shell_has_a_terminal_of_the_right_size_and_follows_it() -> Result {
    let workspace = Workspace::start()?;
    let mut screen = Screen::start(on_terminal(&workspace, &["-t", "dev", "sh"]), 90, 30)?;
    screen.types("PS1=; stty size; echo $TERM; tty; echo $SSH_TTY; echo read''y\n")?;
    let text = screen.shows("ready\r\n")?;
    assert!(text.contains("30 90\r\n") && text.contains("xterm-256color\r\n"), "{text}");
    assert_eq!(text.matches("\n/dev/pts/").count(), 2, "{text}");
    screen.types("trap 'stty size; echo chang''ed' WINCH; echo wait''ing\n")?;
    screen.shows("waiting\r\n")?;
    screen.resize(123, 45)?;
    screen.types("\n")?;
    let text = screen.shows("changed")?;
    assert!(text.contains("45 123\r\n"), "{text}");
    // It is the controlling terminal: what is typed interrupts the program, and /dev/tty is it.
    screen.types("echo seen > /dev/tty; sleep 100 || echo stopp''ed\n")?;
    screen.shows("seen\r\n")?;
    screen.types("\x03")?;
    screen.types("echo after\n")?;
    screen.shows("after\r\n")?;
    screen.types("exit 5\n")?;
    assert_eq!(screen.program.0.wait()?.code(), Some(5), "{}", screen.text());
    Ok(())
}

#[test]
fn the_end_of_input_ends_a_shell_on_a_terminal() -> Result {
    let workspace = Workspace::start()?;
    let out =
        super::workspace::finish(workspace.program("ssh").args(["-tt", "dev", "sh"]), b"echo $((6*7))\n")?;
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains("42\r\n"), "{out:?}");
    Ok(())
}

#[test]
fn programs_that_draw_follow_the_size() -> Result {
    let workspace = Workspace::start()?;
    let mut screen = Screen::start(on_terminal(&workspace, &["-t", "dev", "top -d 1"]), 100, 30)?;
    screen.shows("load average")?;
    screen.types("q")?;
    assert_eq!(screen.program.0.wait()?.code(), Some(0), "{}", screen.text());

    let socket = workspace.path("tmux");
    let tmux = format!("tmux -f /dev/null -S {} new-session -s work sh", socket.display());
    let mut screen = Screen::start(on_terminal(&workspace, &["-t", "dev", &tmux]), 100, 30)?;
    let size = |wanted: &str| {
        let list =
            format!("tmux -S {} list-windows -F '#{{window_width}}x#{{window_height}}'", socket.display());
        super::workspace::wait(wanted, || workspace.says(&list).ok().filter(|size| size.trim() == wanted))
    };
    super::workspace::wait("tmux", || socket.exists().then_some(()))?;
    // One line is its own.
    size("100x29")?;
    screen.resize(120, 40)?;
    size("120x39")?;
    screen.types("echo in''side\n")?;
    screen.shows("inside")?;
    // It stays when its visitor goes, as it is meant to.
    drop(screen);
    size("120x39")?;
    workspace.says(&format!("tmux -S {} kill-server", socket.display()))?;
    Ok(())
}

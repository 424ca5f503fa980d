//! What a person at a terminal sees, and what a script reads.

use super::*;
use std::os::fd::AsFd;
use std::process::Stdio;

#[test]
fn totals_are_drawn_in_place_on_a_terminal() -> Result {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let (deployment, _agent, _) = deployed()?;
    let echo = echo()?;
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let name = ptsname(&terminal, Vec::new())?.into_string()?;
    let end = std::fs::File::options().read(true).write(true).open(name)?;
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&end, size)?;
    let mut command = deployment.command()?;
    command.args(["port-forward", "dev", "--tcp", &format!("0:{}", echo.port())]).env("TERM", "xterm");
    let mut child = command.stdout(Stdio::piped()).stderr(end.try_clone()?).spawn()?;
    drop((end, command));
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.take().ok_or("no stdout")?),
        &mut line,
    )?;
    let to: SocketAddr = line.split(" and ").next().ok_or("no address")?.parse()?;
    assert_eq!(round_trip(to, &[7; 2_500])?.len(), 2_500);
    // It is drawn every second.
    let mut seen = Vec::new();
    let until = Instant::now() + Duration::from_secs(15);
    let wanted = "0 of 1 connections open · 2.5 kB out · 2.5 kB in";
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        assert!(Instant::now() < until, "{}", String::from_utf8_lossy(&seen));
        let mut buffer = [0; 1_024];
        let len = rustix::io::read(terminal.as_fd(), &mut buffer)?;
        seen.extend_from_slice(&buffer[..len]);
    }
    let seen = String::from_utf8_lossy(&seen).into_owned();
    let drawn: Vec<_> = seen.split("\r\u{1b}[2K").skip(1).collect();
    assert!(drawn.iter().all(|line| line.contains("connections open") && !line.contains('\n')), "{drawn:?}");
    assert!(drawn.iter().any(|line| line.contains("ms · ")), "the latency is shown: {drawn:?}");
    child.kill()?;
    child.wait()?;
    Ok(())
}

#[test]
fn scripts_read_json() -> Result {
    let (deployment, _agent, _) = deployed()?;
    let mut command = deployment.command()?;
    command.args([
        "port-forward",
        "dev",
        "-o",
        "json",
        "--tcp",
        "0:80",
        "--udp",
        "0:53",
        "--reverse",
        "0:3000",
    ]);
    let socket = deployment.path("s");
    command.args(["--unix", &format!("{}:/run/x", socket.display())]);
    let log = deployment.path("json.log");
    let mut running = Running::start(command, log.clone())?;
    let said: serde_json::Value = running.wait("the document", || {
        std::fs::read(&log).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
    })?;
    let digits = |text: String| {
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '0'..='9' if out.ends_with(":") || out.ends_with('N') => {
                    if !out.ends_with('N') {
                        out.push('N')
                    }
                }
                c => out.push(c),
            }
        }
        out
    };
    let said = said.to_string().replace(&deployment.dir().display().to_string(), "DIR");
    insta::assert_snapshot!(digits(said));
    Ok(())
}

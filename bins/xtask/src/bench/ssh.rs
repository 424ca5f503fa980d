//! `cargo xtask bench ssh`: how long a command takes by `warren ssh`, from a cold start, beside the same by OpenSSH over
//! `warren ssh --stdio`: on loopback, and from 50 ms away, where its round trips are listed.

use super::Figure;
use crate::setup;
use crate::shell::Result;
use ::tests::deployment::{Deployment, Place};
use ::tests::lab::Lab;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// From the person to the server and its relay, and back.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// From one run to the next: what is on its way is not counted with the next one's.
const PAUSE: Duration = Duration::from_millis(300);

/// Measures.
///
/// # Errors
/// If a program fails, with what it said.
pub(super) fn run(runs: usize) -> Result<Vec<Figure>> {
    setup::install(setup::NAT_LAB)?;
    setup::install(setup::OPENSSH)?;
    setup::install(setup::SLOW_WIRE)?;
    let mut figures = near(runs)?;
    figures.extend(far(runs)?);
    Ok(figures)
}

/// On loopback.
fn near(runs: usize) -> Result<Vec<Figure>> {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let mut native = Vec::new();
    let mut by_ssh = Vec::new();
    for _ in 0..runs {
        let mut ssh = deployment.command()?;
        native.push(took(ssh.args(["ssh", "dev", "true"]))?);
        by_ssh.push(took(&mut openssh(&deployment, Command::new("ssh"))?)?);
    }
    Ok(vec![Figure::median("ssh_true", "ms", native).compared("ssh over --stdio", &by_ssh)])
}

/// From far away.
fn far(runs: usize) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let (lab, wire) = Lab::slow(ROUND_TRIP / 2, folder.path())?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let (mut direct, mut relayed, mut by_ssh, mut trips) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 1..=runs {
        std::thread::sleep(PAUSE);
        wire.forget()?;
        let mut ssh = deployment.command()?;
        direct.push(took(ssh.args(["ssh", "dev", "true"]))?);
        let each = wire.round_trips()?;
        trips.push(each.len() as f64);
        if run == runs {
            tell(&each);
        }
        std::thread::sleep(PAUSE);
        let mut ssh = deployment.command()?;
        relayed.push(took(ssh.args(["ssh", "--disable-direct-connections", "dev", "true"]))?);
        by_ssh.push(took(&mut openssh(&deployment, lab.command("alice", "ssh"))?)?);
    }
    Ok(vec![
        Figure::median("ssh_true_far", "ms", direct).compared("ssh over --stdio", &by_ssh),
        Figure::median("ssh_true_far_relayed", "ms", relayed),
        Figure::median("ssh_true_far_trips", "round trips", trips),
    ])
}

/// The same command by OpenSSH.
fn openssh(deployment: &Deployment<'_>, mut ssh: Command) -> Result<Command> {
    let warren = ::tests::program("warren")?;
    let proxy = format!("ProxyCommand={} ssh --stdio %h", warren.display());
    let known = format!("UserKnownHostsFile={}", deployment.path("known_hosts").display());
    ssh.env("WARREN_CONFIG_DIR", deployment.path("config"));
    ssh.args(["-F", "none", "-o", &proxy, "-o", &known, "-o", "StrictHostKeyChecking=accept-new"]);
    ssh.args(["-o", "LogLevel=ERROR", "dev", "true"]);
    Ok(ssh)
}

/// How long a program takes that must succeed, in milliseconds.
fn took(command: &mut Command) -> Result<f64> {
    let began = Instant::now();
    let out = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let took = began.elapsed();
    if out.status.success() {
        Ok(took.as_secs_f64() * 1e3)
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr)))
    }
}

fn tell(trips: &[Vec<String>]) {
    println!("\nround trips of `warren ssh dev true` from {} ms away:", ROUND_TRIP.as_millis());
    for (index, said) in trips.iter().enumerate() {
        println!("{:>3}  {}", index + 1, said.join(", "));
    }
}

//! What people and scripts meet at the command line of `warren` when something is not as it should be: the built
//! programs, with settings, files, servers and agents that are wrong, slow or hostile.

use std::process::Output;
use std::time::{Duration, Instant};
use tests::deployment::{Deployment, Place, Running};

mod bundle;
mod hostile;
mod lost;
mod refused;
mod speed;
mod trust;
mod usage;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Bounds every wait of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn result(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A deployment with the workspace `dev` and its agent.
fn dev(arguments: &[&str]) -> Result<(Deployment<'static>, Running, String)> {
    let deployment = Deployment::start(Place::Here, arguments)?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    Ok((deployment, agent, token))
}

/// Sends a signal to a process.
fn signal(process: u32, name: &str) -> Result {
    let status =
        std::process::Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status()?;
    if status.success() { Ok(()) } else { Err(format!("kill -{name} {process}: {status}").into()) }
}

/// Waits until something is there.
fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(value) = ready() {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("{what} is not there after {} s", PATIENCE.as_secs()).into())
}

//! `cargo xtask bench terminal`: terminals in the browser: how long a key takes to be echoed while 200 others are open, and
//! what 1,000 of them cost the server.

use super::{Figure, percentile};
use crate::shell::{self, Result};
use ::tests::deployment::{Deployment, Place};
use serde::Deserialize;
use std::process::{Command, Stdio};

/// Terminals open beside the one that is timed.
const QUIET: &str = "200";
/// Terminals open in the end.
const MANY: &str = "1000";
/// An agent has 512 at most: two have them all.
const WORKSPACES: [&str; 2] = ["one", "two"];

/// What `terminal_load` prints.
#[derive(Deserialize)]
struct Told {
    echo_ms: Vec<f64>,
    echo_beside_flood_ms: Vec<f64>,
    flood_mb_per_s: f64,
    before_kib: f64,
    quiet_kib: f64,
    many_kib: f64,
}

/// Measures.
///
/// # Errors
/// If a program fails, with what it said.
pub(super) fn run(runs: usize) -> Result<Vec<Figure>> {
    let (mut middle, mut slow, mut quiet, mut many) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut beside, mut flood) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let told = once()?;
        beside.push(percentile(&told.echo_beside_flood_ms, 99));
        flood.push(told.flood_mb_per_s);
        middle.push(percentile(&told.echo_ms, 50));
        slow.push(percentile(&told.echo_ms, 99));
        quiet.push((told.quiet_kib - told.before_kib) / 1024.0);
        many.push(told.many_kib / 1024.0);
    }
    Ok(vec![
        Figure::median("terminal_echo_p50", "ms", middle),
        Figure::median("terminal_echo_p99", "ms", slow),
        Figure::median("terminal_echo_p99_flood", "ms", beside),
        Figure::median("terminal_flood", "MB/s", flood),
        Figure::median("terminals_200_added", "MiB", quiet),
        Figure::median("server_1000_terminals", "MiB", many),
    ])
}

fn once() -> Result<Told> {
    // A thousand terminals of one person within a minute is what no page does.
    let deployment = Deployment::start(Place::Here, &["--api-rate-limit", "100000"])?;
    let mut agents = Vec::new();
    for workspace in WORKSPACES {
        let token = deployment.create_workspace(workspace)?;
        agents.push(deployment.start_agent(workspace, &token)?);
    }
    let server = deployment.server().ok_or("the server has gone")?.id().to_string();
    let mut load = Command::new(shell::program("examples/terminal_load"));
    load.args([deployment.url(), &server, QUIET, MANY]).args(WORKSPACES).stderr(Stdio::inherit());
    let out = load.output().map_err(|e| format!("terminal_load: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(&text).map_err(|e| format!("terminal_load: {e}: {text}"))
}

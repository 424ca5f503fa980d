//! `cargo xtask bench dashboard`: the dashboard's first view in Chromium: what it weighs, and when it can be used.

use super::Figure;
use crate::shell::Result;
use crate::{browser, setup};
use ::tests::deployment::{Deployment, Place};
use serde::Deserialize;
use std::process::{Command, Stdio};

/// What `first-view.mjs` prints.
#[derive(Deserialize)]
struct Told {
    bytes: f64,
    interactive_ms: Vec<f64>,
    faults: Vec<String>,
}

/// What is needed before anything is built: the dashboard itself is.
///
/// # Errors
/// If it cannot be installed.
pub(super) fn prepare() -> Result {
    setup::install(setup::BROWSER)
}

/// Measures.
///
/// # Errors
/// If a program fails, with what it said.
pub(super) fn run(runs: usize) -> Result<Vec<Figure>> {
    let folder = browser::prepare()?;
    let deployment = Deployment::start(Place::Here, &[])?;
    let mut node = Command::new("node");
    node.current_dir(&folder).arg("support/first-view.mjs").arg(deployment.url()).arg(runs.to_string());
    let out = node.stderr(Stdio::inherit()).output().map_err(|e| format!("node: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let told: Told = serde_json::from_str(&text).map_err(|e| format!("first-view.mjs: {e}: {text}"))?;
    if !told.faults.is_empty() {
        return Err(told.faults.join("\n"));
    }
    Ok(vec![
        Figure::median("dashboard_first_view_kib", "KiB", vec![told.bytes / 1024.0]),
        Figure::median("dashboard_interactive_ms", "ms", told.interactive_ms),
    ])
}

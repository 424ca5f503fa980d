//! What the scenario tests, the demo and the benchmarks share: the built programs, a running deployment of them,
//! and a lab of real Linux NATs.

pub mod deployment;
pub mod lab;
pub mod relay;
pub mod tailscale;

use std::path::{Path, PathBuf};

/// What went wrong, as a sentence.
pub type Result<T = ()> = std::result::Result<T, String>;

/// A program of this workspace, from the folder that the asking program or test was built into; for tests that are
/// built elsewhere, from the usual one.
///
/// # Errors
/// If it is not there: with the command that builds it.
pub fn program(name: &str) -> Result<PathBuf> {
    let asking = std::env::current_exe().map_err(|e| format!("this program has no path: {e}"))?;
    // Programs lie in target/debug, tests in target/debug/deps.
    let usual = root().join("target/debug");
    let folders = asking.ancestors().skip(1).take(2).chain([usual.as_path()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let asking = asking.display();
        format!("{name} is not built beside {asking}\nhint: run `cargo build --workspace --bins`")
    })
}

/// The repository's root.
#[must_use]
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

//! The tests of `tests/browser`: the built programs and the dashboard in a real Chromium.

use crate::setup;
use crate::shell::{self, Result, command};
use crate::test::{Args, Tally, counted};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Runs them, from a copy beside what cargo builds, so that npm writes nothing into the source tree.
///
/// # Errors
/// If their packages cannot be fetched, or one fails.
pub(crate) fn run(args: &Args, tally: &mut Tally) -> Result {
    if args.fast {
        return Ok(());
    }
    let mut build = command("cargo", &["build", "--workspace", "--bins", "--quiet"]);
    build.env("WARREN_DASHBOARD_REQUIRED", "1");
    shell::run(build)?;
    let folder = prepare()?;
    let pictures = shell::target().join("screenshots");
    println!("screenshots in {}", pictures.display());
    let mut tests = command("node", &["--test", "--test-concurrency=1", "--test-reporter=tap"]);
    tests.current_dir(&folder).env("WARREN_SCREENSHOTS", pictures);
    tests.env("WARREN_JUPYTER", setup::jupyter()?);
    tests.env("WARREN_PROGRAMS", shell::target().join("debug"));
    counted(tests, tally)
}

/// Makes the folder that they are run in, with their packages, and says where it is.
///
/// # Errors
/// If it cannot be written, or the packages cannot be fetched.
pub(crate) fn prepare() -> Result<PathBuf> {
    let (source, folder) = (shell::root().join("tests/browser"), shell::target().join("browser"));
    copy(&source, &folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut packages = command(
        "npm",
        &["ci", "--no-audit", "--no-fund", "--prefer-offline", "--ignore-scripts", "--silent"],
    );
    packages.current_dir(&folder);
    shell::run(packages)?;
    Ok(folder)
}

/// Makes `to` what `from` is, but for the packages of npm on either side.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if entry.file_name() != "node_modules" && !from.join(entry.file_name()).exists() {
            fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()))?;
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (here, there) = (entry.path(), to.join(entry.file_name()));
        if entry.file_name() == "node_modules" {
            continue;
        }
        if here.is_dir() {
            copy(&here, &there)?;
        } else {
            fs::copy(&here, &there)?;
        }
    }
    Ok(())
}

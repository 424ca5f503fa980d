//! Running programs and saying what runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What went wrong, as a sentence.
pub(crate) type Error = String;
/// The result of a task.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A built program of this workspace.
pub(crate) fn program(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// A command that runs at the root.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs a command to its end; its output is the user's.
pub(crate) fn run(mut command: Command) -> Result {
    let shown = shown(&command);
    let status = command.status().map_err(|e| format!("cannot start {shown}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown} failed ({status})")) }
}

/// Runs a command to its end and gives what it printed on stdout.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let shown = shown(&command);
    let out = command.stderr(Stdio::inherit()).output().map_err(|e| format!("cannot start {shown}: {e}"))?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(format!("{shown} failed ({}): {}", out.status, String::from_utf8_lossy(&out.stdout).trim()))
    }
}

/// Builds what is measured: as always, but our own crates as fast as an operator's release has them. The
/// dependencies are the same, so that nothing but our crates is built again.
pub(crate) fn build_for_bench() -> Result {
    let mut build = command(
        "cargo",
        &["build", "--workspace", "--bins", "--example", "relay_load", "--example", "terminal_load"],
    );
    build.env("CARGO_PROFILE_DEV_OPT_LEVEL", "3").env("CARGO_PROFILE_DEV_OVERFLOW_CHECKS", "false");
    build.env("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false");
    run(build)
}

/// Builds every program of the workspace.
pub(crate) fn build_programs() -> Result {
    run(command("cargo", &["build", "--workspace", "--bins"]))
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(std::ffi::OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

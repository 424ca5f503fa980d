//! `cargo xtask man`: what a packager puts beside the programs.

use crate::shell::{self, Result};
use std::path::PathBuf;

/// Where to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder that takes man1/ and completions/ [default: target/share]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Builds the programs, and has each write its man pages and `warren` its completion scripts.
///
/// # Errors
/// If one of them can't.
pub(crate) fn run(args: &Args) -> Result {
    shell::build_programs()?;
    let share = args.dir.clone().unwrap_or_else(|| shell::target().join("share"));
    let pages = share.join("man1");
    for name in ["warren", "warren-server", "warren-agent", "warren-relay"] {
        shell::run(shell::command(shell::program(name), &["--man-pages", &pages.to_string_lossy()]))?;
    }
    let scripts = share.join("completions");
    std::fs::create_dir_all(&scripts).map_err(|e| format!("{}: {e}", scripts.display()))?;
    for (shell, file) in [("bash", "warren"), ("zsh", "_warren"), ("fish", "warren.fish")] {
        let script = shell::output(shell::command(shell::program("warren"), &["completion", shell]))?;
        let path = scripts.join(file);
        std::fs::write(&path, script).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    println!("the man pages are in {}, the completion scripts in {}", pages.display(), scripts.display());
    Ok(())
}

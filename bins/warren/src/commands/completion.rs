//! `warren completion`: a script by which a shell completes this program's commands and flags.

use crate::output;
use clap::{CommandFactory, ValueEnum};

/// Print the script by which a shell completes commands and flags
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  source <(warren completion bash)                                  for this shell
  warren completion bash > ~/.local/share/bash-completion/completions/warren
  warren completion zsh > ~/.zfunc/_warren                          with ~/.zfunc in $fpath
  warren completion fish > ~/.config/fish/completions/warren.fish")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub(crate) fn run(args: &Args) {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::Cli::command(), "warren", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end());
}

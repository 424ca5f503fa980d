//! The command line.

use crate::commands::{login, netcheck, ping, speedtest, status, version, workspaces};
use crate::error::Result;
use crate::output::Format;
use crate::session::ConfigDir;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Reach your remote workspaces from anywhere
#[derive(Parser, Debug)]
#[command(name = "warren", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Get started:
  warren login https://warren.example.com --username alice
  warren workspaces create dev
  warren ping dev

Exit status: 0 ok, 1 failed, 2 usage, 3 not logged in or forbidden, 4 not found, 5 unreachable.")]
pub(crate) struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args, Debug)]
struct Options {
    /// The form of results
    #[arg(short, long, global = true, value_enum, default_value_t, env = "WARREN_OUTPUT")]
    output: Format,
    /// Where the login and the keys are kept [default: warren in your configuration folder]
    #[arg(long, global = true, env = "WARREN_CONFIG_DIR", value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Use relays alone, never a direct path
    #[arg(long, global = true, env = "WARREN_DISABLE_DIRECT_CONNECTIONS")]
    disable_direct_connections: bool,
    /// Say more on standard error; twice for every step
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand, Debug)]
enum Command {
    Login(login::Args),
    /// End the session and forget it
    Logout,
    #[command(subcommand, alias = "workspace")]
    Workspaces(workspaces::Command),
    Ping(ping::Args),
    Speedtest(speedtest::Args),
    Netcheck(netcheck::Args),
    Status(status::Args),
    /// Print the versions of this program and of the server
    Version,
}

/// What every command may use.
#[derive(Debug)]
pub(crate) struct Global {
    /// The form of results.
    pub output: Format,
    /// The folder of this program's files.
    pub config: ConfigDir,
    /// Whether direct paths may be used.
    pub direct: bool,
}

impl Cli {
    /// The form that results and errors take.
    pub(crate) fn format(&self) -> Format {
        self.options.output
    }

    /// How much is to be said on standard error.
    pub(crate) fn verbosity(&self) -> u8 {
        self.options.verbose
    }

    /// Runs the command.
    pub(crate) async fn run(self) -> Result {
        let global = Global {
            output: self.options.output,
            config: ConfigDir::new(self.options.config_dir)?,
            direct: !self.options.disable_direct_connections,
        };
        match self.command {
            Command::Login(args) => login::run(&global, args).await,
            Command::Logout => login::logout(&global).await,
            Command::Workspaces(command) => workspaces::run(&global, command).await,
            Command::Ping(args) => ping::run(&global, args).await,
            Command::Speedtest(args) => speedtest::run(&global, args).await,
            Command::Netcheck(args) => netcheck::run(&global, args).await,
            Command::Status(args) => status::run(&global, args).await,
            Command::Version => version::run(&global).await,
        }
    }
}

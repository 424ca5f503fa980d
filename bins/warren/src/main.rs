//! `warren`, the command line of a person: reads the arguments and hands over.

mod api;
mod browser;
mod cli;
mod commands;
mod contexts;
mod error;
mod forward;
mod netinfo;
mod output;
mod redact;
mod remote;
mod session;
mod skew;
mod ssh_config;
mod stdio;
mod tunnel;

use error::{CliError, Exit};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;
use warren_settings::Stop;

static STARTED: OnceLock<Instant> = OnceLock::new();

/// When this process began its work.
fn started() -> Instant {
    *STARTED.get_or_init(Instant::now)
}

fn main() -> ExitCode {
    warren_settings::run_on_one_thread(start()).unwrap_or_else(|fault| end(Stop::Fault(fault)))
}

async fn start() -> ExitCode {
    started();
    let cli = match cli::Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(stop) => return end(stop),
    };
    let format = cli.format();
    output::begin(format, cli.verbosity() > 0 || std::env::var_os("WARREN_LOG").is_some());
    let level = ["warn", "info", "debug"][usize::from(cli.verbosity().min(2))];
    let filter = std::env::var("WARREN_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = match tracing_subscriber::EnvFilter::try_new(&filter) {
        Ok(read) => read,
        Err(error) => return end(Stop::Fault(warren_settings::bad_log_filter(&filter, &error))),
    };
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_ansi(colours).with_writer(|| output::Log).with_env_filter(filter).init();
    match cli.run().await {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            output::note(output::said(&error));
            ExitCode::from(error.exit as u8)
        }
    }
}

/// Ends before anything has begun.
fn end(stop: Stop) -> ExitCode {
    match stop {
        Stop::Print(text) => {
            if !text.is_empty() {
                output::line(text.trim_end());
            }
            ExitCode::SUCCESS
        }
        Stop::Usage(error) => error.exit(),
        Stop::Fault(fault) => {
            output::note(
                CliError::new(Exit::Usage, fault.code, fault.message).hint(fault.hint).text().trim_end(),
            );
            ExitCode::from(Exit::Usage as u8)
        }
    }
}

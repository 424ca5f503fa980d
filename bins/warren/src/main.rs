//! `warren`, the command line of a person: reads the arguments and hands over.

mod api;
mod browser;
mod cli;
mod commands;
mod contexts;
mod error;
mod forward;
mod known_hosts;
mod netinfo;
mod output;
mod plain;
mod redact;
mod remote;
mod session;
mod skew;
mod ssh_config;
mod stdio;
mod stop;
mod tunnel;

use error::{CliError, Exit};
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
    let args: Vec<_> = std::env::args_os().collect();
    let cli = match cli::Cli::read(args.iter().cloned()) {
        Ok(cli) => cli,
        Err(stop) => {
            output::begin(cli::Cli::format_of_errors(&args), false);
            return end(stop);
        }
    };
    let format = cli.format();
    output::begin(format, cli.verbosity() > 0 || std::env::var_os("WARREN_LOG").is_some());
    let level = ["warn", "info", "debug"][usize::from(cli.verbosity().min(2))];
    let filter = std::env::var("WARREN_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = match tracing_subscriber::EnvFilter::try_new(&filter) {
        Ok(read) => read,
        Err(error) => return end(Stop::Fault(warren_settings::bad_log_filter(&filter, &error))),
    };
    let colours = output::may_colour(&std::io::stderr());
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
        // In clap's own words and colours.
        Stop::Usage(error) if !output::is_json() => error.exit(),
        Stop::Usage(error) => refuse(&CliError::usage(&error)),
        Stop::Fault(fault) => refuse(&CliError::new(Exit::Usage, fault.code, fault.message).hint(fault.hint)),
    }
}

fn refuse(error: &CliError) -> ExitCode {
    output::note(output::said(error));
    ExitCode::from(error.exit as u8)
}

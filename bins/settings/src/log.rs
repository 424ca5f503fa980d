//! What a server logs, and how it looks.

use crate::{Fault, bad_log_filter};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs, one JSON object a line.
    Json,
}

/// Whether this process may colour what it writes to a terminal: unless `NO_COLOR` is set to anything
/// (<https://no-color.org>).
#[must_use]
pub fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Logs to stderr from now on, by this filter. To be called once.
///
/// # Errors
/// If the filter can't be read.
pub fn log(filter: &str, format: LogFormat) -> Result<(), Fault> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| bad_log_filter(filter, &error))?;
    let lines = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            use std::io::IsTerminal;
            let colour = std::io::stderr().is_terminal() && wants_colours();
            lines.with_ansi(colour).init();
        }
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

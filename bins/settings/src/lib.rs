//! How the programs read their settings: each is a flag, an environment variable and a line of a TOML file,
//! declared once, as a clap argument with a variable.
//!
//! A flag beats the variable, the variable beats the file, the file beats the default. All four are read by
//! clap: the file's values are put in as the defaults. The settings of a subcommand stand in a table of its
//! name; every program has an argument `config` that names the file.
//!
//! Beside it stands what servers share from their start: the [`Fault`] that keeps one from starting, addresses to
//! [`Listen`] on, the [`StateDirectory`], the [`log()`]; and what programs on one thread do, [`run_on_one_thread`].

#![forbid(unsafe_code)]

mod file;
mod listening;
mod log;
mod man;
mod names;
mod runtime;
mod state;

pub use io_adapters::words::{io_words, words};
pub use listening::{Listen, bad_certificate, busy, certificate, second_address};
pub use log::{LogFormat, log, wants_colours};
pub use names::nearest;
pub use runtime::run_on_one_thread;
pub use state::{StateDirectory, state_directory};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use core::fmt;
use file::File;
use proto_core::wire::control::Forbidder;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The argument that names the file.
const CONFIG: &str = "config";

/// What was given, and from where.
#[derive(Debug)]
pub struct Given {
    /// What clap made of arguments, environment, file and defaults.
    pub matches: ArgMatches,
    file: File,
}

/// Why there is nothing to start with.
#[derive(Debug)]
pub enum Stop {
    /// Text to print on stdout: help or the version.
    Print(String),
    /// A usage error in clap's words.
    Usage(clap::Error),
    /// A fault in the file.
    Fault(Fault),
}

/// Why a program does not start or run, said so that an operator can act on it. [`fmt::Display`] prints all three
/// lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// A code that programs may rely on, such as `CONFIG_INVALID`.
    pub code: &'static str,
    /// What is wrong: one lower-case sentence with the facts.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Fault {
    /// A fault of these three parts.
    pub fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n\nhint: {}\ncode: {}", self.message, self.hint, self.code)
    }
}

impl core::error::Error for Fault {}

/// Where a setting's value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A flag.
    Flag,
    /// A variable of the environment.
    Variable,
    /// The file.
    File {
        /// Which.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// Nobody has set it.
    Default,
}

/// Reads the arguments (the program's name first), the environment and the file: the one that is named, else
/// the one at its usual place, which `usual` tells and which need not be there.
///
/// # Errors
/// If there is nothing to start with: help or man pages were asked for, the usage is wrong, or the file is.
pub fn read(
    command: &Command,
    args: impl IntoIterator<Item = OsString>,
    usual: impl FnOnce(&ArgMatches) -> Option<PathBuf>,
) -> Result<Given, Stop> {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(stop) = man::asked_for(command, &args) {
        return Err(stop);
    }
    // What is missing here may stand in the file, so errors wait until that has been read.
    let early = command.clone().ignore_errors(true).try_get_matches_from(&args);
    let early = early.map_err(stop)?;
    let file = match early.get_one::<PathBuf>(CONFIG) {
        Some(path) => File::read(command, path).map_err(Stop::Fault)?,
        None => match usual(&early) {
            Some(path) => File::read_if_there(command, &path).map_err(Stop::Fault)?,
            None => File::default(),
        },
    };
    match file.under(command.clone(), &early).try_get_matches_from(&args) {
        Ok(matches) => Ok(Given { matches, file }),
        Err(error) => match file.fault(command, &early, &error) {
            Some(fault) => Err(Stop::Fault(fault)),
            None => Err(stop(error)),
        },
    }
}

/// What can be made of arguments, environment and file that [`read`] did not take, as far as they can be understood.
#[must_use]
pub fn understood(
    command: &Command,
    args: impl IntoIterator<Item = OsString>,
    usual: impl FnOnce(&ArgMatches) -> Option<PathBuf>,
) -> Option<ArgMatches> {
    let args: Vec<OsString> = args.into_iter().collect();
    let early = command.clone().ignore_errors(true).try_get_matches_from(&args).ok()?;
    let path = early.get_one::<PathBuf>(CONFIG).cloned().or_else(|| usual(&early));
    let file = path.and_then(|path| File::read_if_there(command, &path).ok()).unwrap_or_default();
    file.under(command.clone(), &early).ignore_errors(true).try_get_matches_from(&args).ok()
}

/// The fault of a log filter that can't be read.
#[must_use]
pub fn bad_log_filter(filter: &str, why: &dyn core::fmt::Display) -> Fault {
    Fault {
        code: "LOG_FILTER_INVALID",
        message: format!("\"{filter}\" is not a log filter: {why}"),
        hint: "write a level (error, warn, info, debug, trace), or `info,io_adapters=debug`".to_owned(),
    }
}

fn stop(error: clap::Error) -> Stop {
    if error.use_stderr() { Stop::Usage(error) } else { Stop::Print(error.to_string()) }
}

impl Given {
    /// Where the value of a setting comes from that belongs to no subcommand.
    #[must_use]
    pub fn origin(&self, id: &str) -> Origin {
        match self.matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::Flag,
            Some(ValueSource::EnvVariable) => Origin::Variable,
            _ => match self.file.line_of(&id.replace('_', "-")) {
                Some(line) => Origin::File { path: self.file.path().to_owned(), line },
                None => Origin::Default,
            },
        }
    }
}

impl Given {
    /// Every setting of `command` that belongs to no subcommand, with its value and where that comes from.
    #[must_use]
    pub fn table(&self, command: &Command) -> String {
        let mut out = String::new();
        for Row { name, value, origin, variable, .. } in self.rows(command) {
            let origin = match origin {
                Origin::Flag => format!("--{name}"),
                Origin::Variable => format!("${variable}"),
                Origin::File { path, line } => format!("{}:{line}", path.display()),
                Origin::Default => "default".to_owned(),
            };
            let value = value.unwrap_or_else(|| "-".to_owned());
            // Writing to a string does not fail.
            let _ = writeln!(out, "{name:<26} {value:<26} {origin}");
        }
        out
    }

    /// The same for programs.
    #[must_use]
    pub fn rows(&self, command: &Command) -> Vec<Row> {
        let settings = command.get_arguments().filter(|arg| arg.get_env().is_some());
        settings
            .map(|arg| {
                let id = arg.get_id().as_str();
                let raw = self.matches.get_raw(id).into_iter().flatten();
                let raw: Vec<String> = raw.map(|value| redact(&value.to_string_lossy()).to_owned()).collect();
                Row {
                    name: arg.get_long().unwrap_or_default().to_owned(),
                    value: (!raw.is_empty()).then(|| raw.join(",")),
                    origin: self.origin(id),
                    variable: arg.get_env().map(|v| v.to_string_lossy().into_owned()).unwrap_or_default(),
                    help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
                    secret: arg.is_hide_env_values_set(),
                }
            })
            .collect()
    }
}

/// A setting as it is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its flag without the dashes, and its key in the file.
    pub name: String,
    /// Its value as it was written, passwords in URLs aside; none if it has none.
    pub value: Option<String>,
    /// Where that comes from.
    pub origin: Origin,
    /// Its environment variable.
    pub variable: String,
    /// What it is for.
    pub help: String,
    /// Whether its value may hold a secret, and is to be shown to nobody.
    pub secret: bool,
}

/// A URL without its password.
fn redact(value: &str) -> &str {
    match (value.find("://"), value.rfind('@')) {
        (Some(start), Some(at)) if at > start => "(hidden: it may hold a password)",
        _ => value,
    }
}

impl Given {
    /// By what a setting was given, in words for a person: the flag, the variable or the line of the file.
    #[must_use]
    pub fn said_by(&self, id: &str) -> String {
        let name = id.replace('_', "-");
        match self.origin(id) {
            Origin::Flag => format!("--{name}"),
            Origin::Variable => format!("the variable WARREN_{}", id.to_ascii_uppercase()),
            Origin::File { path, line } => format!("{name} in {}:{line}", path.display()),
            Origin::Default => "default".to_owned(),
        }
    }

    /// What forbids direct connections, if the switch of that name does.
    #[must_use]
    pub fn direct_forbidden(&self) -> Option<Forbidder> {
        const SWITCH: &str = "disable_direct_connections";
        let off = self.matches.get_one::<bool>(SWITCH).copied().unwrap_or(false);
        off.then(|| match self.origin(SWITCH) {
            Origin::Flag => Forbidder::Flag,
            Origin::Variable => Forbidder::Variable,
            Origin::File { .. } => Forbidder::File,
            Origin::Default => Forbidder::Unknown,
        })
    }
}

#[cfg(test)]
mod tests;

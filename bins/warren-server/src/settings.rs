//! The settings: each is a flag, an environment variable and a line of the file, declared once.
//!
//! A flag beats the environment, the environment beats the file, the file beats the default. All four are
//! read by clap: the file's values are put in as the defaults.

use crate::fault::{Fault, io_words};
use crate::names;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

mod values;

pub use values::{AccessUrl, HostPort, Listen, LogFormat};

/// Everything that an operator can set.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// A TOML file of settings, named like the flags without their dashes
    #[arg(long, env = "WARREN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where the server keeps its database, its relay's key and its copies of relay maps
    /// [default: $STATE_DIRECTORY, $XDG_STATE_HOME/warren or ~/.local/state/warren]
    #[arg(long, env = "WARREN_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Where users and agents find this server [default: derived from the address it listens on]
    #[arg(long, env = "WARREN_ACCESS_URL", value_name = "URL")]
    pub access_url: Option<AccessUrl>,

    /// Where to listen for plain HTTP, or "none"
    #[arg(long, env = "WARREN_HTTP_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:7080")]
    pub http_address: Listen,

    /// Where to listen for HTTPS; needs a certificate and its key
    #[arg(long, env = "WARREN_TLS_ADDRESS", value_name = "ADDRESS", default_value = "none")]
    pub tls_address: Listen,

    /// The certificate and its chain, PEM; read again when it changes, and at SIGHUP
    #[arg(long, env = "WARREN_TLS_CERT_FILE", value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,

    /// The certificate's private key, PEM; read again with it
    #[arg(long, env = "WARREN_TLS_KEY_FILE", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// The database, sqlite:PATH or sqlite::memory: [default: warren.db in the state directory]
    #[arg(long, env = "WARREN_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// A relay map (DERPMap JSON) to fetch, and fetch again while running; its last good copy is kept
    #[arg(long, env = "WARREN_DERP_CONFIG_URL", value_name = "URL")]
    pub derp_config_url: Option<String>,

    /// A relay map (DERPMap JSON) to read; read again at SIGHUP
    #[arg(long, env = "WARREN_DERP_CONFIG_PATH", value_name = "FILE")]
    pub derp_config_path: Option<PathBuf>,

    /// How often to read the relay maps again, in seconds
    #[arg(
        long,
        env = "WARREN_DERP_CONFIG_REFRESH",
        value_name = "SECONDS",
        default_value = "600",
        value_parser = clap::value_parser!(u64).range(1..=604_800)
    )]
    pub derp_config_refresh: u64,

    /// Whether to run the embedded relay
    #[arg(long, env = "WARREN_DERP_SERVER_ENABLE", value_name = "BOOL", default_value = "true",
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub derp_server_enable: bool,

    /// The embedded relay's region number
    #[arg(long, env = "WARREN_DERP_SERVER_REGION_ID", value_name = "NUMBER", default_value = "999",
          value_parser = clap::value_parser!(u64).range(1..=values::REGION_ID_MAX))]
    pub derp_server_region_id: u64,

    /// The embedded relay's region code
    #[arg(long, env = "WARREN_DERP_SERVER_REGION_CODE", value_name = "CODE", default_value = "warren")]
    pub derp_server_region_code: String,

    /// The embedded relay's region name
    #[arg(
        long,
        env = "WARREN_DERP_SERVER_REGION_NAME",
        value_name = "NAME",
        default_value = "Warren Embedded Relay"
    )]
    pub derp_server_region_name: String,

    /// This server's own address for its siblings, when several servers form one deployment
    #[arg(long, env = "WARREN_DERP_SERVER_RELAY_URL", value_name = "URL")]
    pub derp_server_relay_url: Option<AccessUrl>,

    /// Where the STUN server listens (UDP), or "none"
    #[arg(long, env = "WARREN_STUN_ADDRESS", value_name = "ADDRESS", default_value = "0.0.0.0:3478")]
    pub stun_address: Listen,

    /// Where others reach the STUN server, if not at the access URL's host: behind a proxy that carries no
    /// UDP, or when the server is on its clients' own network and must be asked by way of the public address
    #[arg(long, env = "WARREN_STUN_ADVERTISE", value_name = "HOST:PORT")]
    pub stun_advertise: Option<HostPort>,

    /// STUN servers to offer besides, separated by commas
    #[arg(long, env = "WARREN_STUN_SERVERS", value_name = "HOST:PORT", value_delimiter = ',')]
    pub stun_servers: Vec<HostPort>,

    /// Send everything through relays
    #[arg(long, env = "WARREN_BLOCK_DIRECT_CONNECTIONS", value_name = "BOOL", default_value = "false",
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub block_direct_connections: bool,

    /// A file to write once the server is ready: JSON with its addresses and, at first start, the setup token
    #[arg(long, env = "WARREN_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// What to log to stderr: a level, or levels for parts of the program (tracing's filter)
    #[arg(long, env = "WARREN_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How to log
    #[arg(long, env = "WARREN_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// What reading the arguments, the environment and the file came to.
pub enum Reading {
    /// Settings to start with.
    Start(Box<Settings>),
    /// Text to print on stdout, then stop: help, the version, or where each setting came from.
    Print(String),
    /// A usage error in clap's words (exit code 2).
    Usage(clap::Error),
    /// A fault in the file (exit code 1).
    Fault(Fault),
}

/// The command line: what `--help` shows.
#[must_use]
pub fn command() -> Command {
    let show = Arg::new("show_settings")
        .long("show-settings")
        .action(ArgAction::SetTrue)
        .help("Print every setting with its value and where it came from, and stop");
    Settings::augment_args(Command::new("warren-server"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("The server of Warren: coordination, embedded relay and STUN server, API")
        .after_help(
            "Without any setting it keeps a SQLite database in the state directory, listens on loopback and \
             prints a one-time link to make the owner.\nA flag beats its variable, the variable beats the \
             file, the file beats the default.\nSIGTERM drains and stops, SIGHUP reads relay maps and \
             certificates again.",
        )
        .max_term_width(100)
        .arg(show)
}

impl Settings {
    /// Reads the arguments (the program's name first), the environment and the file.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Reading {
        let args: Vec<OsString> = args.into_iter().collect();
        let bare = match command().try_get_matches_from(&args) {
            Ok(matches) => matches,
            Err(error) if error.use_stderr() => return Reading::Usage(error),
            Err(error) => return Reading::Print(error.to_string()),
        };
        let file = match bare.get_one::<PathBuf>("config").map(|path| File::read(path)).transpose() {
            Ok(file) => file.unwrap_or_default(),
            Err(fault) => return Reading::Fault(fault),
        };
        let matches = match file.under(command()).try_get_matches_from(&args) {
            Ok(matches) => matches,
            // The arguments alone were fine, so it is the file that is wrong.
            Err(error) => return Reading::Fault(file.fault(&error)),
        };
        if matches.get_flag("show_settings") {
            return Reading::Print(show(&matches, &file));
        }
        match Self::from_arg_matches(&matches) {
            Ok(settings) => Reading::Start(Box::new(settings)),
            Err(error) => Reading::Usage(error),
        }
    }

    /// The settings of no flags, no environment and no file: where a test starts from.
    #[must_use]
    pub fn defaults() -> Self {
        // Variables are taken off, so that the caller's environment does not count.
        let command = command().mut_args(|arg| arg.env(None::<&'static str>));
        let matches = command.get_matches_from(["warren-server"]);
        Self::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
    }

    /// The directory of the server's state.
    ///
    /// # Errors
    /// If none is given and the environment names no home.
    pub fn state_directory(&self) -> Result<PathBuf, Fault> {
        if let Some(directory) = &self.state_dir {
            return Ok(directory.clone());
        }
        if let Some(directory) = std::env::var_os("STATE_DIRECTORY").filter(|v| !v.is_empty()) {
            return Ok(PathBuf::from(directory));
        }
        use etcetera::base_strategy::{BaseStrategy, Xdg};
        let directory = Xdg::new().ok().and_then(|xdg| xdg.state_dir()).map(|state| state.join("warren"));
        directory.ok_or_else(|| {
            Fault::new(
                "STATE_DIR_UNKNOWN",
                "no state directory is set and there is no home directory to keep it in",
                "name one with `--state-dir DIR`",
            )
        })
    }
}

/// A settings file: values by key, as clap would read them from a flag, and the lines they stand on.
#[derive(Default)]
struct File {
    path: PathBuf,
    entries: BTreeMap<String, (Vec<String>, usize)>,
}

impl File {
    fn read(path: &Path) -> Result<Self, Fault> {
        let wrong = |line: Option<usize>, what: String, hint: String| {
            let place = line.map(|line| format!(", line {line}")).unwrap_or_default();
            Fault::new("CONFIG_INVALID", format!("the settings file {}{place}: {what}", path.display()), hint)
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Fault::new(
                "CONFIG_UNREADABLE",
                format!("can't read the settings file {}: {}", path.display(), io_words(&error)),
                "check the path and its permissions, or leave `--config` out to start with the defaults",
            )
        })?;
        let table: BTreeMap<String, toml::Spanned<toml::Value>> = toml::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| line_of(&text, span.start));
            let what = error.message().lines().next().unwrap_or("not TOML").to_owned();
            wrong(line, what, "a line looks like `http-address = \"127.0.0.1:7080\"`".to_owned())
        })?;
        let known: Vec<String> = command().get_arguments().filter_map(file_key).collect();
        let mut entries = BTreeMap::new();
        for (key, value) in table {
            let line = line_of(&text, value.span().start);
            if !known.contains(&key) {
                let near = names::nearest(&key, known.iter().cloned());
                let hint = match near.first() {
                    Some(name) => format!("did you mean \"{name}\"?"),
                    None => {
                        "`warren-server --help` lists the settings; here they have no dashes in front".into()
                    }
                };
                return Err(wrong(Some(line), format!("there is no setting \"{key}\""), hint));
            }
            let Some(words) = words(value.get_ref()) else {
                let hint = "write it as a string, a number, true or false, or a list of strings";
                return Err(wrong(Some(line), format!("\"{key}\" has no plain value"), hint.to_owned()));
            };
            entries.insert(key, (words, line));
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    /// `command` with this file's values as its defaults.
    fn under(&self, command: Command) -> Command {
        command.mut_args(|arg| match file_key(&arg).and_then(|key| self.entries.get(&key)) {
            Some((words, _)) => arg.default_values(words.clone()),
            None => arg,
        })
    }

    /// The fault behind clap's refusal of one of this file's values.
    fn fault(&self, error: &clap::Error) -> Fault {
        use clap::error::{ContextKind, ContextValue};
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            _ => None,
        };
        let flag = text(ContextKind::InvalidArg).unwrap_or_default();
        let key = flag.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default().to_owned();
        let line = self.entries.get(&key).map(|(_, line)| format!(", line {line}")).unwrap_or_default();
        let value = text(ContextKind::InvalidValue).unwrap_or_default();
        let reason = core::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
        Fault::new(
            "CONFIG_INVALID",
            format!(
                "the settings file {}{line}: \"{value}\" will not do for {key}{reason}",
                self.path.display()
            ),
            format!("`warren-server --help` says what {key} takes"),
        )
    }
}

/// An argument's key in the file, if it may stand there: whatever has a variable, but the file itself.
fn file_key(arg: &Arg) -> Option<String> {
    (arg.get_env().is_some() && arg.get_id() != "config")
        .then(|| arg.get_long().unwrap_or_default().to_owned())
}

/// A TOML value as it would be written on a command line.
fn words(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(yes) => Some(vec![yes.to_string()]),
        toml::Value::Array(all) => all
            .iter()
            .map(|one| match one {
                toml::Value::Array(_) => None,
                one => words(one).and_then(|mut w| w.pop()),
            })
            .collect(),
        _ => None,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&b| b == b'\n').count() + 1
}

/// The table that `--show-settings` prints.
fn show(matches: &ArgMatches, file: &File) -> String {
    let mut out = String::new();
    for arg in command().get_arguments().filter(|arg| arg.get_env().is_some()) {
        let (id, name) = (arg.get_id().as_str(), arg.get_long().unwrap_or_default());
        let raw: Vec<String> = matches
            .get_raw(id)
            .into_iter()
            .flatten()
            .map(|value| redact(&value.to_string_lossy()).to_owned())
            .collect();
        let origin = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => format!("--{name}"),
            Some(ValueSource::EnvVariable) => {
                arg.get_env().map(|v| format!("${}", v.to_string_lossy())).unwrap_or_default()
            }
            _ => match file.entries.get(name) {
                Some((_, line)) => format!("{}:{line}", file.path.display()),
                None => "default".to_owned(),
            },
        };
        let value = if raw.is_empty() { "-".to_owned() } else { raw.join(",") };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<26} {value:<26} {origin}");
    }
    out
}

/// A URL without its password.
fn redact(value: &str) -> &str {
    match (value.find("://"), value.rfind('@')) {
        (Some(start), Some(at)) if at > start => "(hidden: it may hold a password)",
        _ => value,
    }
}

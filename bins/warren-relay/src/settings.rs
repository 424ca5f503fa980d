//! The settings: each is a flag, an environment variable and a line of the file, declared once.
//!
//! `warren_settings` reads them.

mod neighbour;
mod rate;

pub(crate) use neighbour::Neighbour;
pub(crate) use rate::Rate;

use clap::{Arg, ArgAction, Args, Command, FromArgMatches};
use proto_core::limits::RELAY_CONNECTIONS_MAX;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use warren_settings::{Fault, Listen, LogFormat, Stop};

/// Everything that an operator can set.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// A TOML file of settings, named like the flags without their dashes
    #[arg(long, env = "WARREN_RELAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where the relay keeps its key and the keys it has admitted
    /// [default: $STATE_DIRECTORY, $XDG_STATE_HOME/warren-relay or ~/.local/state/warren-relay]
    #[arg(long, env = "WARREN_RELAY_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Where to listen for plain HTTP, or "none"
    #[arg(long, env = "WARREN_RELAY_HTTP_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:3340")]
    pub(crate) http_address: Listen,

    /// Where to listen for HTTPS; needs a certificate and its key
    #[arg(long, env = "WARREN_RELAY_TLS_ADDRESS", value_name = "ADDRESS", default_value = "none")]
    pub(crate) tls_address: Listen,

    /// The certificate and its chain, PEM; read again when it changes, and at SIGHUP
    #[arg(long, env = "WARREN_RELAY_TLS_CERT_FILE", value_name = "FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,

    /// The certificate's private key, PEM; read again with it
    #[arg(long, env = "WARREN_RELAY_TLS_KEY_FILE", value_name = "FILE")]
    pub(crate) tls_key_file: Option<PathBuf>,

    /// Where the STUN server listens (UDP), or "none"
    #[arg(long, env = "WARREN_RELAY_STUN_ADDRESS", value_name = "ADDRESS", default_value = "0.0.0.0:3478")]
    pub(crate) stun_address: Listen,

    /// Another address of this machine, from which the STUN server answers clients that want to know how their NAT
    /// filters; --stun-address must then name one address and not all
    #[arg(long, env = "WARREN_RELAY_STUN_SECOND_ADDRESS", value_name = "IP")]
    pub(crate) stun_second_address: Option<IpAddr>,

    /// Node keys that may use the relay, one `nodekey:...` a line, # begins a comment; read again at SIGHUP.
    /// Without this and --verify-client-url everybody may
    #[arg(long, env = "WARREN_RELAY_ALLOW_KEYS_FILE", value_name = "FILE")]
    pub(crate) allow_keys_file: Option<PathBuf>,

    /// Where to ask about keys that are on no list, such as `https://warren.example.com/derp/verify`; of
    /// several, separated by commas, one yes is enough
    #[arg(long, env = "WARREN_RELAY_VERIFY_CLIENT_URL", value_name = "URL", value_delimiter = ',')]
    pub(crate) verify_client_url: Vec<String>,

    /// How often to ask about a connected key again, in seconds
    #[arg(
        long,
        env = "WARREN_RELAY_VERIFY_EVERY",
        value_name = "SECONDS",
        default_value = "300",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub(crate) verify_every: u64,

    /// How fast each client may send, in bytes a second such as 10MB or 512KiB; 0 for no limit
    #[arg(long, env = "WARREN_RELAY_RATE_LIMIT_CLIENT", value_name = "RATE", default_value = "0")]
    pub(crate) rate_limit_client: Rate,

    /// How fast all clients together may send, shared evenly among those who do; 0 for no limit
    #[arg(long, env = "WARREN_RELAY_RATE_LIMIT_TOTAL", value_name = "RATE", default_value = "0")]
    pub(crate) rate_limit_total: Rate,

    /// File with the secret that the relays of one region share: 64 hexadecimal digits
    #[arg(long, env = "WARREN_RELAY_MESH_KEY_FILE", value_name = "FILE")]
    pub(crate) mesh_key_file: Option<PathBuf>,

    /// The relays of this region, which send on for one another: `HOST[:PORT][/DIALHOST]`, separated by commas, reached
    /// over HTTPS unless http:// stands before. This relay may be among them, so that all may have the same list
    #[arg(
        long,
        env = "WARREN_RELAY_MESH_WITH",
        value_name = "RELAY",
        value_delimiter = ',',
        requires = "mesh_key_file"
    )]
    pub(crate) mesh_with: Vec<Neighbour>,

    /// Clients at once; more are turned away
    #[arg(
        long,
        env = "WARREN_RELAY_MAX_CLIENTS",
        value_name = "NUMBER",
        default_value_t = RELAY_CONNECTIONS_MAX as u64,
        value_parser = clap::value_parser!(u64).range(1..=RELAY_CONNECTIONS_MAX as u64)
    )]
    pub(crate) max_clients: u64,

    /// Where to serve metrics in Prometheus's text form at /metrics, or "none"
    #[arg(
        long,
        env = "WARREN_RELAY_METRICS_ADDRESS",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:2113"
    )]
    pub(crate) metrics_address: Listen,

    /// How long clients may take to move elsewhere when the relay stops, in seconds
    #[arg(
        long,
        env = "WARREN_RELAY_DRAIN_TIMEOUT",
        value_name = "SECONDS",
        default_value = "10",
        value_parser = clap::value_parser!(u64).range(0..=600)
    )]
    pub(crate) drain_timeout: u64,

    /// A file to write once the relay is ready: JSON with its addresses and its public key
    #[arg(long, env = "WARREN_RELAY_READY_FILE", value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,

    /// What to log to stderr: a level, or levels for parts of the program (tracing's filter)
    #[arg(long, env = "WARREN_RELAY_LOG", value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,

    /// How to log
    #[arg(long, env = "WARREN_RELAY_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// What reading the arguments, the environment and the file came to.
pub(crate) enum Reading {
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
fn command() -> Command {
    let show = Arg::new("show_settings")
        .long("show-settings")
        .action(ArgAction::SetTrue)
        .help("Print every setting with its value and where it came from, and stop");
    Settings::augment_args(Command::new("warren-relay"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("A DERP relay and STUN server on its own")
        .after_help(
            "Without any setting it listens on loopback and lets everybody in.\nA flag beats its variable, the \
             variable beats the file, the file beats the default.\nSIGTERM drains and stops, SIGHUP reads the \
             certificate and the list of keys again.",
        )
        .max_term_width(100)
        .arg(show)
}

impl Settings {
    /// Reads the arguments (the program's name first), the environment and the file.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Reading {
        let given = match warren_settings::read(&command(), args, |_| None) {
            Ok(given) => given,
            Err(Stop::Print(text)) => return Reading::Print(text),
            Err(Stop::Usage(error)) => return Reading::Usage(error),
            Err(Stop::Fault(fault)) => return Reading::Fault(fault),
        };
        if given.matches.get_flag("show_settings") {
            return Reading::Print(given.table(&command()));
        }
        match Self::from_arg_matches(&given.matches) {
            Ok(settings) => Reading::Start(Box::new(settings)),
            Err(error) => Reading::Usage(error),
        }
    }

    /// The directory of the relay's state.
    ///
    /// # Errors
    /// If none is given and the environment names no home.
    pub(crate) fn state_directory(&self) -> Result<PathBuf, Fault> {
        warren_settings::state_directory(self.state_dir.as_deref(), "warren-relay")
    }
}

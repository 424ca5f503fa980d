//! The settings: each is a flag, an environment variable and a line of the file, declared once.
//!
//! `warren_settings` reads them.

use crate::apps::address::WildcardUrl;
use crate::fault::Fault;
use clap::{Arg, ArgAction, Args, Command, FromArgMatches};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use warren_settings::{Row, Stop};

mod values;

pub use io_adapters::access_url::AccessUrl;
pub use values::{HostPort, MaxSharing, Network};
pub use warren_settings::{Listen, LogFormat};

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

    /// Where web apps have origins of their own: *.apps.example.com, with a scheme and a port if they are not the access
    /// URL's. The names, and a certificate's, are the operator's to set up
    #[arg(long, env = "WARREN_WILDCARD_ACCESS_URL", value_name = "URL")]
    pub wildcard_access_url: Option<WildcardUrl>,

    /// Open no web apps on paths of the dashboard's own origin
    #[arg(long, env = "WARREN_DISABLE_PATH_APPS", value_name = "BOOL", default_value = "false",
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub disable_path_apps: bool,

    /// The most that web apps may be shared
    #[arg(long, env = "WARREN_MAX_APP_SHARING", value_name = "LEVEL", default_value = "public")]
    pub max_app_sharing: MaxSharing,

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

    /// A relay map (DERPMap JSON) to read; read again when it changes, and at SIGHUP
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

    /// Have relay connections be WebSockets from the start: something on the nodes' way breaks the other upgrade
    #[arg(long, env = "WARREN_DERP_FORCE_WEBSOCKETS", value_name = "BOOL", default_value = "false",
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub derp_force_websockets: bool,

    /// The home relay's region for nodes that choose none themselves: its code, name or number [default: to each
    /// the nearest]
    #[arg(long, env = "WARREN_RELAY", value_name = "REGION")]
    pub relay: Option<String>,

    /// Where the STUN server listens (UDP), or "none"
    #[arg(long, env = "WARREN_STUN_ADDRESS", value_name = "ADDRESS", default_value = "0.0.0.0:3478")]
    pub stun_address: Listen,

    /// Another address of this machine, from which the STUN server answers clients that want to know how their NAT
    /// filters; --stun-address must then name one address and not all
    #[arg(long, env = "WARREN_STUN_SECOND_ADDRESS", value_name = "IP")]
    pub stun_second_address: Option<IpAddr>,

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

    /// Let people in by browser only: terminal and web apps. Tunnels of command-line clients are refused, and those
    /// there are end
    #[arg(long, env = "WARREN_BROWSER_ONLY", value_name = "BOOL", default_value = "false",
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub browser_only: bool,

    /// Proxies in front of the server, whose X-Forwarded-For tells the client's address: networks, with commas
    /// between [default: none]
    #[arg(long, env = "WARREN_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// How many requests to the API a minute each token and each address may make, 0 for any number; a third of them
    /// at once
    #[arg(long, env = "WARREN_API_RATE_LIMIT", value_name = "REQUESTS", default_value = "1200",
          value_parser = clap::value_parser!(u32).range(0..=6_000_000))]
    pub api_rate_limit: u32,

    /// Where to serve metrics in Prometheus's text form at /metrics, or "none"
    #[arg(long, env = "WARREN_METRICS_ADDRESS", value_name = "ADDRESS", default_value = "127.0.0.1:2112")]
    pub metrics_address: Listen,

    /// An OpenID Connect provider to log in by: its issuer's URL. The callback to register there is
    /// ACCESS-URL/api/v1/login/oidc/callback
    #[arg(long, env = "WARREN_OIDC_ISSUER_URL", value_name = "URL")]
    pub oidc_issuer_url: Option<String>,

    /// What the provider calls this server
    #[arg(long, env = "WARREN_OIDC_CLIENT_ID", value_name = "ID")]
    pub oidc_client_id: Option<String>,

    /// A file with the secret that the provider gave this server, if it gave one
    #[arg(long, env = "WARREN_OIDC_CLIENT_SECRET_FILE", value_name = "FILE")]
    pub oidc_client_secret_file: Option<PathBuf>,

    /// What people call the provider
    #[arg(long, env = "WARREN_OIDC_NAME", value_name = "NAME", default_value = "single sign-on")]
    pub oidc_name: String,

    /// Whether people whom the provider knows, and nobody here, become members
    #[arg(long, env = "WARREN_OIDC_SIGN_UP", value_name = "BOOL", default_value = "true",
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub oidc_sign_up: bool,

    /// A file to write once the server is ready: JSON with its addresses and, at first start, the setup token
    #[arg(long, env = "WARREN_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// What to log to stderr: a level, or levels for parts of the program (tracing's filter)
    #[arg(long, env = "WARREN_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// How to log
    #[arg(long, env = "WARREN_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// All of these as they were given, for people who ask.
    #[arg(skip)]
    pub rows: Vec<Row>,
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
            Ok(settings) => Reading::Start(Box::new(Self { rows: given.rows(&command()), ..settings })),
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
        warren_settings::state_directory(self.state_dir.as_deref(), "warren")
    }
}

//! The command line of the agent.

use crate::Failure;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};
use proto_core::wire::control::Forbidder;
use std::ffi::OsString;
use std::path::PathBuf;
use warren_settings::Stop;

/// Make this workspace reachable through a Warren server
#[derive(Parser, Debug)]
#[command(name = "warren-agent", version, max_term_width = 100)]
#[command(after_help = "Example:
  WARREN_AGENT_TOKEN=warren_agent_... warren-agent --url https://warren.example.com

`warren workspaces create NAME` prints the command with its token.")]
pub(crate) struct Args {
    /// A TOML file of settings, named like the flags without their dashes [default: /etc/warren/agent.toml as
    /// root, else warren/agent.toml in the user's configuration folder]
    // A variable of its own: what runs in the workspace inherits the agent's, and `warren` has a file too.
    #[arg(long, env = "WARREN_AGENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's address
    #[arg(long, env = "WARREN_URL")]
    pub url: String,
    /// The agent's token; better given by the environment or a file than here
    #[arg(long, env = "WARREN_AGENT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the token
    #[arg(long, env = "WARREN_AGENT_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Where the agent keeps its node key [default: /var/lib/warren-agent as root, else in the user's state folder]
    #[arg(long, env = "WARREN_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Use relays alone, never a direct path
    #[arg(long, env = "WARREN_DISABLE_DIRECT_CONNECTIONS", value_name = "BOOL", default_value = "false",
          action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    disable_direct_connections: bool,
    /// Who says so, if direct paths are not to be used.
    #[arg(skip)]
    pub direct_forbidden: Option<Forbidder>,
    /// Never guess the ports of a NAT that takes another one for each destination: such paths are relayed then
    #[arg(long, env = "WARREN_DISABLE_PORT_GUESSING", value_name = "BOOL", default_value = "false",
          action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub disable_port_guessing: bool,
    /// Never ask the router to let peers in, by UPnP, NAT-PMP or PCP
    #[arg(long, env = "WARREN_DISABLE_PORT_MAPPING", value_name = "BOOL", default_value = "false",
          action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub disable_port_mapping: bool,
    /// The home relay's region: its code, name or number [default: the server's choice, else the nearest]
    #[arg(long, env = "WARREN_RELAY", value_name = "REGION")]
    pub relay: Option<String>,
    /// How long a terminal of the browser stays when nobody sees it, in seconds; its programs are hung up then
    #[arg(long, env = "WARREN_TERMINAL_IDLE_LIMIT", value_name = "SECONDS", default_value = "86400",
          value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub terminal_idle_limit: u64,
    /// What to say on standard error: error, warn, info, debug, or a filter by room
    #[arg(long, env = "WARREN_LOG", default_value = "info")]
    pub log: String,
}

impl Args {
    /// Reads the arguments (the program's name first), the environment and the file.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, Stop> {
        let given = warren_settings::read(&Self::command(), args, |_| usual_config())?;
        let read = Self::from_arg_matches(&given.matches).map_err(Stop::Usage)?;
        Ok(Self { direct_forbidden: given.direct_forbidden(), ..read })
    }

    /// The token, from the flag, the environment or the file.
    pub(crate) fn token(&self) -> Result<String, Failure> {
        let missing = |sentence: String| Failure {
            exit: 2,
            sentence,
            hint: "`warren workspaces create NAME` prints a token once; set WARREN_AGENT_TOKEN or --token-file",
        };
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|e| missing(format!("can't read the token in {}: {e}", file.display())))?,
            (None, None) => return Err(missing("the agent needs its token".into())),
        };
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(missing("the token is empty or has characters that no token has".into()));
        }
        Ok(token.to_owned())
    }

    /// The folder for the node key.
    pub(crate) fn state_dir(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.state_dir {
            return Ok(dir.clone());
        }
        if is_root() {
            return Ok(PathBuf::from("/var/lib/warren-agent"));
        }
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        state.or(home).map(|base| base.join("warren-agent")).ok_or(Failure {
            exit: 2,
            sentence: "can't find a folder for the agent's key: neither HOME nor XDG_STATE_HOME is set"
                .into(),
            hint: "name one with --state-dir",
        })
    }
}

fn usual_config() -> Option<PathBuf> {
    if is_root() {
        return Some(PathBuf::from("/etc/warren/agent.toml"));
    }
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    folder.or(home).map(|base| base.join("warren/agent.toml"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

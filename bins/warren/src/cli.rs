//! The command line.

use crate::commands::{
    completion, config_ssh, context, login, netcheck, open, ping, port_forward, ports, speedtest, ssh,
    status, support_bundle, version, workspaces,
};
use crate::error::Result;
use crate::output::Format;
use crate::session::ConfigDir;
use clap::builder::BoolishValueParser;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use proto_core::wire::control::Forbidder;
use std::ffi::OsString;
use std::path::PathBuf;
use warren_settings::{Given, Origin, Stop};

/// Reach your remote workspaces from anywhere
#[derive(Parser, Debug)]
#[command(name = "warren", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Get started:
  warren login https://warren.example.com --username alice
  warren workspaces create dev
  warren ping dev
  warren ssh dev

Exit status: 0 ok, 1 failed, 2 usage, 3 not logged in or forbidden, 4 not found, 5 unreachable.")]
pub(crate) struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

/// Those that every command has come after its own.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Options of all commands")]
struct Options {
    /// A TOML file of settings, named like the flags without their dashes, those of a command in a table of its
    /// name [default: config.toml in the folder of --config-dir]
    #[arg(long, global = true, env = "WARREN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The form of results
    #[arg(short, long, global = true, value_enum, default_value_t, env = "WARREN_OUTPUT")]
    output: Format,
    /// The server that this command is for, by its name or address [default: the one in use, see `warren context`]
    #[arg(long, global = true, env = "WARREN_SERVER", value_name = "NAME")]
    server: Option<String>,
    /// Where the login and the keys are kept [default: warren in your configuration folder]
    #[arg(long, global = true, env = "WARREN_CONFIG_DIR", value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// Use relays alone, never a direct path
    #[arg(long, global = true, env = "WARREN_DISABLE_DIRECT_CONNECTIONS", value_name = "BOOL",
          default_value = "false", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    disable_direct_connections: bool,
    /// Who says so, if direct paths are not to be used.
    #[arg(skip)]
    direct_forbidden: Option<Forbidder>,
    /// Never guess the ports of a NAT that takes another one for each destination: such paths are relayed then
    #[arg(long, global = true, env = "WARREN_DISABLE_PORT_GUESSING", value_name = "BOOL",
          default_value = "false", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    disable_port_guessing: bool,
    /// Never ask the router to let peers in, by UPnP, NAT-PMP or PCP
    #[arg(long, global = true, env = "WARREN_DISABLE_PORT_MAPPING", value_name = "BOOL",
          default_value = "false", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    disable_port_mapping: bool,
    /// The home relay's region: its code, name or number [default: the server's choice, else the nearest]
    #[arg(long, global = true, env = "WARREN_RELAY", value_name = "REGION")]
    relay: Option<String>,
    /// By what it was chosen, if it was.
    #[arg(skip)]
    relay_by: String,
    /// What of these was said by a flag or a variable, as flags.
    #[arg(skip)]
    again: Vec<String>,
    /// Say more on standard error; twice for every step
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand, Debug)]
enum Command {
    Login(login::Args),
    /// End the session and forget it
    Logout,
    #[command(subcommand, alias = "contexts")]
    Context(context::Command),
    Open(open::Args),
    #[command(subcommand, alias = "workspace")]
    Workspaces(workspaces::Command),
    Ping(ping::Args),
    ConfigSsh(config_ssh::Args),
    PortForward(port_forward::Args),
    Ports(ports::Args),
    Speedtest(speedtest::Args),
    Ssh(ssh::Args),
    Netcheck(netcheck::Args),
    Status(status::Args),
    SupportBundle(support_bundle::Args),
    Completion(completion::Args),
    Version(version::Args),
}

/// What every command may use.
#[derive(Clone, Debug)]
pub(crate) struct Global {
    /// The form of results.
    pub output: Format,
    /// The folder of this program's files.
    pub config: ConfigDir,
    /// The file that settings were read from, if it is there.
    pub settings_file: PathBuf,
    /// What forbids direct paths, if anything does.
    pub direct_forbidden: Option<Forbidder>,
    /// Whether ports of hard NATs may be guessed.
    pub guess_ports: bool,
    /// Whether the router may be asked to let peers in.
    pub map_ports: bool,
    /// The home relay that was chosen, if any was.
    pub relay: Option<RelayWish>,
    /// The flags by which another process of this program is told what this one was, but for the server.
    pub again: Vec<String>,
}

/// A home relay that the person chose.
#[derive(Clone, Debug)]
pub(crate) struct RelayWish {
    /// The region's code, name or number.
    pub region: String,
    /// By what it was chosen: the flag, the variable or the file, in words.
    pub by: String,
}

impl Cli {
    /// Reads the arguments (the program's name first), the environment and the file.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> std::result::Result<Self, Stop> {
        let given = warren_settings::read(&Self::command(), args, usual_config)?;
        let mut read = Self::from_arg_matches(&given.matches).map_err(Stop::Usage)?;
        read.options.direct_forbidden = given.direct_forbidden();
        read.options.relay_by = given.said_by("relay");
        read.options.again = read.options.again(&given);
        Ok(read)
    }

    /// The form in which to say what is wrong with arguments that could not be read.
    pub(crate) fn format_of_errors(args: &[OsString]) -> Format {
        // What stands after the fault is not understood, but it was meant.
        let words = args.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--");
        let said = words.clone().zip(words.skip(1)).any(|pair| matches!(pair, ("-o" | "--output", "json")));
        let joined = |word: &OsString| word == "-ojson" || word == "-o=json" || word == "--output=json";
        if said || args.iter().take_while(|word| *word != "--").any(joined) {
            return Format::Json;
        }
        let read = warren_settings::understood(&Self::command(), args.iter().cloned(), usual_config);
        read.and_then(|read| read.get_one("output").copied()).unwrap_or_default()
    }

    /// The form that results and errors take.
    pub(crate) fn format(&self) -> Format {
        self.options.output
    }

    /// How much is to be said on standard error.
    pub(crate) fn verbosity(&self) -> u8 {
        self.options.verbose
    }

    /// Runs the command: the status to exit with, if it went well.
    pub(crate) async fn run(self) -> Result<u8> {
        let config = ConfigDir::new(self.options.config_dir)?.for_server(self.options.server);
        let global = Global {
            output: self.options.output,
            settings_file: self.options.config.unwrap_or_else(|| config.settings_file()),
            config,
            direct_forbidden: self.options.direct_forbidden,
            guess_ports: !self.options.disable_port_guessing,
            map_ports: !self.options.disable_port_mapping,
            again: self.options.again,
            relay: self.options.relay.map(|region| RelayWish { region, by: self.options.relay_by }),
        };
        let done = match self.command {
            Command::Login(args) => login::run(&global, args).await,
            Command::Logout => login::logout(&global).await,
            Command::Context(command) => context::run(&global, command).await,
            Command::Open(args) => open::run(&global, args).await,
            Command::Workspaces(command) => workspaces::run(&global, command).await,
            Command::Ping(args) => ping::run(&global, args).await,
            Command::ConfigSsh(args) => config_ssh::run(&global, &args),
            Command::PortForward(args) => port_forward::run(&global, args).await,
            Command::Ports(args) => ports::run(&global, args).await,
            Command::Speedtest(args) => speedtest::run(&global, args).await,
            // The status of the program in the workspace.
            Command::Ssh(args) => return ssh::run(&global, args).await,
            Command::Netcheck(args) => netcheck::run(&global, args).await,
            Command::Status(args) => status::run(&global, args).await,
            Command::SupportBundle(args) => support_bundle::run(&global, args).await,
            Command::Completion(args) => {
                completion::run(&args);
                Ok(())
            }
            Command::Version(args) => version::run(&global, args).await,
        };
        done.map(|()| 0)
    }
}

impl Options {
    /// What another process is to be told, since it may run elsewhere and with other variables. It reads files itself.
    fn again(&self, given: &Given) -> Vec<String> {
        let path =
            |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        let said = |id: &str| matches!(given.origin(id), Origin::Flag | Origin::Variable);
        let values = [
            ("--config-dir", self.config_dir.as_ref().map(path)),
            ("--config", self.config.as_ref().map(path)),
            ("--relay", self.relay.clone().filter(|_| said("relay"))),
        ];
        let mut again: Vec<_> =
            values.into_iter().filter_map(|(flag, value)| Some(format!("{flag}={}", value?))).collect();
        if self.disable_direct_connections && said("disable_direct_connections") {
            again.push("--disable-direct-connections".to_owned());
        }
        if self.disable_port_guessing && said("disable_port_guessing") {
            again.push("--disable-port-guessing".to_owned());
        }
        if self.disable_port_mapping && said("disable_port_mapping") {
            again.push("--disable-port-mapping".to_owned());
        }
        again
    }
}

fn usual_config(given: &ArgMatches) -> Option<PathBuf> {
    let folder = given.get_one::<PathBuf>("config_dir").cloned();
    ConfigDir::new(folder).ok().map(|dir| dir.settings_file())
}

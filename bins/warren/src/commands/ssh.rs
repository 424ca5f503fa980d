//! `warren ssh`: a shell or a command in a workspace, and the way to its SSH server for other clients.

use crate::cli::Global;
use crate::commands::config_ssh::SUFFIX;
use crate::error::{CliError, Exit, Result};
use crate::netinfo::{self, NetworkInfo};
use crate::output::{self, Lent};
use crate::remote::session::{self, Over, Wish};
use crate::remote::{escape, keys, terminal};
use crate::stdio;
use crate::tunnel::{self, Tunnel};
use clap::builder::BoolishValueParser;
use clap::builder::NonEmptyStringValueParser;
use io_adapters::streams::StreamError;
use proto_core::stream::exec::{FRAME_MAX, Start};
use proto_core::stream::{CODE_UNKNOWN_SERVICE, Header};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Open a shell in a workspace, or run a command there
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren ssh dev                            a shell
  warren ssh dev make -C src check          a command, by the workspace's shell
  warren ssh -t dev htop                    a command on a terminal
  tar c . | warren ssh dev 'tar x -C /tmp'
  ssh -o ProxyCommand='warren ssh --stdio %h' dev     the same by OpenSSH

On a terminal, at the start of a line: ~. ends the session, ~^Z suspends it, ~? shows this.

Exit status: the command's, 128 and the signal's number if one ended it, 255 if the
workspace cannot be reached or is lost.")]
pub(crate) struct Args {
    /// The workspace, NAME or OWNER/NAME
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    workspace: String,
    /// What to run, by the workspace's shell [default: that shell itself, as a login]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    /// Give the command a terminal
    #[arg(short = 't', long, overrides_with = "no_tty")]
    tty: bool,
    /// Give it none [default: a shell has one if this is run on one]
    #[arg(short = 'T', long, overrides_with = "tty")]
    no_tty: bool,
    /// What is typed at the start of a line for this side: a character, ^ and a letter, or none
    #[arg(short, long, env = "WARREN_SSH_ESCAPE_CHAR", value_name = "CHAR", default_value = "~")]
    escape_char: String,
    /// Let the workspace use the SSH agent of this machine
    #[arg(short = 'A', long, env = "WARREN_SSH_FORWARD_AGENT", value_parser = BoolishValueParser::new())]
    forward_agent: bool,
    /// Carry the SSH protocol between standard input and output, for another SSH client
    #[arg(long, conflicts_with_all = ["command", "tty", "no_tty"])]
    stdio: bool,
    /// What is taken off the workspace's name, a dot before it: `dev.alice.warren` is then alice/dev
    #[arg(long, value_name = "SUFFIX")]
    hostname_suffix: Option<String>,
    #[command(flatten)]
    network_info: netinfo::Args,
}

impl Args {
    /// The workspace's name as the server knows it.
    fn workspace(&self) -> String {
        workspace_of(&self.workspace, self.hostname_suffix.as_deref())
    }

    /// What is to run there.
    fn wish(&self) -> Result<Wish> {
        let escape = escape::named(&self.escape_char).map_err(|why| {
            let sentence = format!("\"{}\" is no escape character: {why}", self.escape_char);
            CliError::new(Exit::Usage, "BAD_ESCAPE", sentence).hint("-e none switches it off")
        })?;
        let command = (!self.command.is_empty()).then(|| self.command.join(" ".as_ref()).into_vec());
        if command.as_ref().is_some_and(|text| text.len() > FRAME_MAX) {
            let sentence = format!("the command is longer than {} KiB", FRAME_MAX >> 10);
            return Err(CliError::new(Exit::Usage, "COMMAND_TOO_LONG", sentence)
                .hint("give a script to a shell's input: warren ssh dev sh < script"));
        }
        let usual = command.is_none() && io::stdin().is_terminal();
        let has_terminal = self.tty || (usual && !self.no_tty);
        let start = Start {
            variables: variables(),
            terminal: has_terminal.then(terminal::wanted),
            keys: self.forward_agent.then_some(keys::LISTENER),
        };
        Ok(Wish { command, start, escape })
    }
}

/// The variables that say how a person reads: what OpenSSH is told to send on most systems.
fn variables() -> std::collections::BTreeMap<String, String> {
    let says_how = |name: &str| {
        matches!(name, "LANG" | "LANGUAGE" | "COLORTERM" | "NO_COLOR") || name.starts_with("LC_")
    };
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| says_how(name))
        .collect()
}

/// The workspace of a host name that ends with the suffix: `WORKSPACE` or `WORKSPACE.OWNER` stands before it.
fn workspace_of(host: &str, suffix: Option<&str>) -> String {
    let name = suffix.and_then(|suffix| host.strip_suffix(suffix.trim_start_matches('.'))?.strip_suffix('.'));
    match name.map(|name| name.split_once('.')) {
        Some(Some((workspace, owner))) => format!("{owner}/{workspace}"),
        Some(None) => name.unwrap_or_default().to_owned(),
        None => host.to_owned(),
    }
}

/// Runs a program there, or carries a connection of another client: the status to exit with.
pub(crate) async fn run(global: &Global, args: Args) -> Result<u8> {
    let wish = if args.stdio { None } else { Some(args.wish()?) };
    let reached = async {
        let name = args.workspace();
        if name.is_empty() || name.starts_with('/') || name.ends_with('/') {
            let sentence = format!("\"{}\" names no workspace", args.workspace);
            return Err(CliError::new(Exit::NoSession, "BAD_WORKSPACE", sentence)
                .hint("a host name is WORKSPACE or WORKSPACE.OWNER, a dot and the suffix"));
        }
        let tunnel = tunnel::open(global, &name).await?;
        let info = NetworkInfo::keep(&args.network_info, args.stdio, &tunnel)?;
        let lent = Lent::begin();
        let status = match wish {
            Some(wish) => program(&tunnel, wish).await,
            None => carry(&tunnel).await,
        };
        drop((info, lent));
        tunnel.client.node.shutdown().await;
        status
    };
    // Any other status than this one could be the remote program's.
    reached.await.map_err(|error: CliError| error.exit(Exit::NoSession))
}

async fn program(tunnel: &Tunnel, wish: Wish) -> Result<u8> {
    let name = tunnel.workspace.name.clone();
    let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()).map(PathBuf::from);
    if wish.start.keys.is_some() && socket.is_none() {
        output::warning("NO_SSH_AGENT", "no SSH agent is running here: SSH_AUTH_SOCK is not set");
    }
    let on_terminal = wish.start.terminal.is_some();
    let header = Header::Exec { workspace: name.clone() };
    let stream = tunnel.peer.open(&header).await.map_err(|e| tunnel.gone(&e.to_string()))?;
    let socket = socket.filter(|_| wish.start.keys.is_some());
    let keys = async {
        if let Some(socket) = socket {
            keys::serve(tunnel, socket).await;
        }
        std::future::pending().await
    };
    let over = tokio::select! {
        biased;
        over = session::run(stream, wish) => over,
        silent = tunnel.silence() => return Err(silent),
        over = keys => over,
    };
    match over {
        Ok(Over::Ended(end)) => Ok(end.status),
        Ok(Over::Unwritable(error)) => Err(output::unwritable(&error)),
        Ok(Over::Told(signal)) => Ok(128 + signal),
        Ok(Over::Left) => {
            output::note(format!("\nleft workspace \"{name}\""));
            Ok(Exit::NoSession as u8)
        }
        Err(error) => {
            if on_terminal {
                // The cursor is wherever the program has left it.
                output::note("");
            }
            Err(lost(tunnel, &error, Kind::Own))
        }
    }
}

async fn carry(tunnel: &Tunnel) -> Result<u8> {
    let header = Header::Ssh { workspace: tunnel.workspace.name.clone() };
    let stream = tunnel.peer.open(&header).await.map_err(|e| tunnel.gone(&e.to_string()))?;
    // The client that started this tells it to end by a signal.
    let mut signals = session::Signals::new().map_err(|e| tunnel.gone(&e.to_string()))?;
    tokio::select! {
        biased;
        carried = stdio::splice(stream) => carried.map(|()| 0).map_err(|e| lost(tunnel, &e, Kind::Ssh)),
        silent = tunnel.silence() => Err(silent),
        (_, number) = signals.ending() => Ok(128 + number),
    }
}

/// The error of a session that broke: of this program's own kind, or of SSH's.
fn lost(tunnel: &Tunnel, error: &io::Error, kind: Kind) -> CliError {
    let reason = StreamError::of(error);
    if let Some(StreamError::Reset(code) | StreamError::Stopped(code)) = reason
        && code == u64::from(CODE_UNKNOWN_SERVICE)
    {
        let name = &tunnel.workspace.name;
        return match kind {
            Kind::Own => CliError::new(
                Exit::NoSession,
                "EXEC_UNSUPPORTED",
                format!("workspace \"{name}\" can't be entered this way: its agent is too old"),
            )
            .hint(format!(
                "install a newer warren-agent there; until then `warren config-ssh` and `ssh {name}.{SUFFIX}` may do"
            )),
            Kind::Ssh => CliError::new(
                Exit::NoSession,
                "SSH_UNSUPPORTED",
                format!("workspace \"{name}\" has no SSH server: its agent is too old"),
            )
            .hint("install a newer warren-agent in the workspace; `warren version` prints this one's version"),
        };
    }
    tunnel.gone(&error.to_string())
}

/// By which service of the agent.
#[derive(Clone, Copy)]
enum Kind {
    Own,
    Ssh,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_workspaces() {
        let names = |suffix| {
            ["dev", "dev.warren", "dev.alice.warren", ".warren", "devwarren"].map(|h| workspace_of(h, suffix))
        };
        assert_eq!(names(Some("warren")), ["dev", "dev", "alice/dev", "", "devwarren"]);
        assert_eq!(names(Some(".warren")), names(Some("warren")));
        assert_eq!(names(None), ["dev", "dev.warren", "dev.alice.warren", ".warren", "devwarren"]);
    }
}

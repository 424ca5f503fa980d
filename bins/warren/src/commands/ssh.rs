//! `warren ssh`: the workspace's SSH server.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::stdio;
use crate::tunnel::{self, Tunnel};
use io_adapters::streams::StreamError;
use proto_core::stream::{CODE_UNKNOWN_SERVICE, Header};
use std::io;

/// Reach the SSH server of a workspace
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  ssh -o ProxyCommand='warren ssh --stdio %h' dev     a shell, by OpenSSH

Exit status: 255 if the workspace cannot be reached or is lost.")]
pub(crate) struct Args {
    /// The workspace, NAME or OWNER/NAME
    workspace: String,
    /// Carry the SSH protocol between standard input and output, for another SSH client
    #[arg(long, required = true)]
    stdio: bool,
    /// What is taken off the workspace's name, a dot before it: `dev.alice.warren` is then alice/dev
    #[arg(long, value_name = "SUFFIX")]
    hostname_suffix: Option<String>,
}

impl Args {
    /// The workspace's name as the server knows it.
    fn workspace(&self) -> String {
        workspace_of(&self.workspace, self.hostname_suffix.as_deref())
    }
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

/// Carries a connection of another client.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    // Any other status than this one could be the remote program's.
    carry(global, &args.workspace()).await.map_err(|error| error.exit(Exit::NoSession))
}

async fn carry(global: &Global, name: &str) -> Result {
    let tunnel = tunnel::open(global, name).await?;
    let header = Header::Ssh { workspace: tunnel.workspace.name.clone() };
    let stream = tunnel.peer.open(&header).await.map_err(|e| tunnel.gone(&e.to_string()))?;
    let ended = stdio::splice(stream).await.map_err(|error| lost(&tunnel, &error));
    tunnel.client.node.shutdown().await;
    ended
}

fn lost(tunnel: &Tunnel, error: &io::Error) -> CliError {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<StreamError>());
    if let Some(StreamError::Reset(code) | StreamError::Stopped(code)) = reason
        && *code == u64::from(CODE_UNKNOWN_SERVICE)
    {
        let name = &tunnel.workspace.name;
        let sentence = format!("workspace \"{name}\" has no SSH server: its agent is too old");
        return CliError::new(Exit::NoSession, "SSH_UNSUPPORTED", sentence).hint(
            "install a newer warren-agent in the workspace; `warren version` prints this one's version",
        );
    }
    tunnel.gone(&error.to_string())
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

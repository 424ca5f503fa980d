//! `warren workspaces create | list | delete`.

use crate::api::Api;
use crate::cli::Global;
use crate::error::Result;
use crate::output::{self, Format};
use proto_core::wire::api::{AgentStatus, Workspace};
use std::time::SystemTime;

/// Make, list and delete workspaces
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a workspace; prints the command that starts its agent, with a token shown only once
    Create {
        /// The workspace's name
        name: String,
    },
    /// List your workspaces
    #[command(alias = "ls")]
    List,
    /// Delete a workspace: its agent's token is revoked and its tunnels end
    #[command(alias = "rm")]
    Delete {
        /// The workspace, NAME or OWNER/NAME
        name: String,
    },
}

/// Runs one of them.
pub(crate) async fn run(global: &Global, command: Command) -> Result {
    let api = Api::logged_in(&global.config.session()?);
    match command {
        Command::Create { name } => {
            let created = api.create_workspace(&name).await?;
            if global.output == Format::Json {
                output::json(&created);
            } else {
                output::note(format!("created workspace {name}; start its agent with:"));
                output::line(&created.command);
            }
        }
        Command::List => {
            let workspaces = api.workspaces().await?;
            if global.output == Format::Json {
                output::json(&workspaces);
            } else if workspaces.is_empty() {
                output::note("no workspaces yet: make one with `warren workspaces create NAME`");
            } else {
                output::line(list(&workspaces));
            }
        }
        Command::Delete { name } => {
            api.delete_workspace(&name).await?;
            output::note(format!("deleted workspace {name}"));
        }
    }
    Ok(())
}

fn list(workspaces: &[Workspace]) -> String {
    let rows: Vec<_> = workspaces
        .iter()
        .map(|w| {
            let agent = w.agents.first();
            vec![
                w.name.clone(),
                w.owner.clone(),
                status(w).into(),
                agent.and_then(|a| a.version.clone()).unwrap_or_else(|| "-".into()),
                last_seen(w),
            ]
        })
        .collect();
    output::table(&["NAME", "OWNER", "STATUS", "VERSION", "LAST SEEN"], &rows)
}

/// A workspace's status in a word.
pub(crate) fn status(workspace: &Workspace) -> &'static str {
    match workspace.status {
        AgentStatus::Connected => "connected",
        AgentStatus::Offline => "offline",
    }
}

fn last_seen(workspace: &Workspace) -> String {
    let moment = workspace.agents.first().and_then(|a| a.last_seen.as_deref());
    moment.map_or_else(|| "never".into(), |at| output::ago(at, SystemTime::now()))
}

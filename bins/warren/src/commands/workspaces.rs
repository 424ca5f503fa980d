//! `warren workspaces create | list | trust | delete`.

use crate::api::Api;
use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use crate::tunnel;
use clap::builder::NonEmptyStringValueParser;
use proto_core::wire::api::{AgentStatus, Workspace};
use serde_json::json;
use std::time::SystemTime;

/// Make, list, trust and delete workspaces
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a workspace; prints the command that starts its agent, with a token shown only once
    Create {
        /// The workspace's name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
    /// List your workspaces
    #[command(alias = "ls")]
    List,
    /// Trust the key that a workspace's agent has now, in the place of the one seen before
    Trust {
        /// The workspace, NAME or OWNER/NAME
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
    },
    /// Delete a workspace: its agent's token is revoked and its tunnels end
    #[command(alias = "rm")]
    Delete {
        /// The workspace, NAME or OWNER/NAME
        #[arg(value_parser = NonEmptyStringValueParser::new())]
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
        Command::Trust { name } => trust(global, &api.workspace(&name).await?)?,
        Command::Delete { name } => {
            api.delete_workspace(&name).await?;
            output::done(&json!({ "deleted": name }), format!("deleted workspace {name}"));
        }
    }
    Ok(())
}

fn trust(global: &Global, workspace: &Workspace) -> Result {
    let agent = tunnel::agent(workspace)?;
    let key = agent.node_key.ok_or_else(|| {
        CliError::new(Exit::Unreachable, "NO_KEY", "the server does not tell the agent's key")
            .hint("try again")
    })?;
    let before = global.config.trust(&agent.id.0, key)?;
    let name = &workspace.name;
    // A workspace that was set up anew has another host key, too.
    let forgot_host_key = global.config.forget_host_key(name)?;
    let mut words = match before {
        Some(before) if before == key => {
            format!("workspace {name} has the key {key}, which is trusted already")
        }
        Some(before) => format!("trusts workspace {name} with the key {key} now, no longer {before}"),
        None => format!("trusts workspace {name} with the key {key} from now on"),
    };
    if forgot_host_key {
        words.push_str("; ssh learns its host key anew");
    }
    let document = json!({
        "workspace": name,
        "key": key,
        "key_before": before,
        "ssh_host_key_forgotten": forgot_host_key,
    });
    output::done(&document, words);
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

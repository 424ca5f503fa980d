//! `warren version`: who of the two or three has which, and whether they go together.

use crate::api::Api;
use crate::cli::Global;
use crate::error::Result;
use crate::output::{self, Format};
use crate::skew::{self, OURS};
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

/// Print the versions of this program, of the server and of a workspace's agent
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren version        this program and the server
  warren version dev    the agent of workspace dev as well")]
pub(crate) struct Args {
    /// A workspace whose agent's version is to be told as well, NAME or OWNER/NAME
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    workspace: Option<String>,
}

#[derive(Serialize)]
struct Document {
    version: &'static str,
    server_url: Option<String>,
    server_version: Option<String>,
    /// Program and version; none if it was never there.
    agent_version: Option<String>,
    /// What does not go together, one sentence each.
    warnings: Vec<String>,
}

/// Prints them.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut document = Document {
        version: OURS,
        server_url: None,
        server_version: None,
        agent_version: None,
        warnings: Vec::new(),
    };
    let mut lines = vec![format!("warren {OURS}")];
    let session = match &args.workspace {
        Some(_) => Some(global.config.session()?),
        None => global.config.session().ok(),
    };
    if let Some(session) = session {
        let api = Api::logged_in(&session).without_warning();
        match api.build_info().await {
            Ok(info) => {
                lines.push(format!("{} {} at {}", info.name, info.version, session.url));
                document.warnings.extend(skew::sentence("the server", &info.version));
                document.server_version = Some(info.version);
            }
            // Without the server the workspace cannot be asked for either.
            Err(error) if args.workspace.is_some() => return Err(error),
            Err(error) => output::warning(&error.code, &error.message),
        }
        document.server_url = Some(session.url);
        if let Some(name) = &args.workspace {
            let workspace = api.workspace(name).await?;
            document.agent_version = workspace.agents.into_iter().find_map(|agent| agent.version);
            let version = document.agent_version.as_deref();
            lines.push(version.map_or_else(
                || format!("the agent of {name} has not been there yet"),
                |version| format!("{version} in {name}"),
            ));
            let whose = format!("the agent of {name}");
            document.warnings.extend(version.and_then(|version| skew::sentence(&whose, version)));
        }
    }
    match global.output {
        Format::Json => output::json(&document),
        Format::Table => {
            lines.iter().for_each(output::line);
            document.warnings.iter().for_each(|words| output::warning("VERSION_SKEW", words));
        }
    }
    Ok(())
}

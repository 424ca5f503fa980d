//! `warren context list | use | remove`: the servers that a person is logged in to.

use crate::cli::Global;
use crate::commands::login;
use crate::error::Result;
use crate::output::{self, Format};
use serde::Serialize;
use serde_json::json;

/// List, choose and forget the servers that you are logged in to
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// List the servers that you are logged in to
    #[command(alias = "ls")]
    List,
    /// Use a server from now on; --server NAME does so for one command
    Use {
        /// The server's name or address
        name: String,
    },
    /// End the session at a server and forget it
    #[command(alias = "rm")]
    Remove {
        /// The server's name or address
        name: String,
    },
}

#[derive(Serialize)]
struct Row {
    name: String,
    url: String,
    username: String,
    current: bool,
}

/// Runs one of them.
pub(crate) async fn run(global: &Global, command: Command) -> Result {
    match command {
        Command::List => list(global),
        Command::Use { name } => {
            let (name, url) = global.config.change_contexts(|contexts| {
                let session = contexts.switch(&name)?;
                Ok((session.name().to_owned(), session.url.clone()))
            })?;
            let words = format!("uses {name} ({url}) from now on");
            output::done(&json!({ "name": name, "url": url }), words);
            Ok(())
        }
        Command::Remove { name } => {
            let session = global.config.contexts()?.chosen(Some(&name))?.clone();
            login::forget(global, &session).await
        }
    }
}

fn list(global: &Global) -> Result {
    let contexts = global.config.contexts()?;
    let named = global.config.session().ok();
    let rows: Vec<Row> = contexts
        .all()
        .into_iter()
        .map(|(session, _)| Row {
            name: session.name().to_owned(),
            url: session.url.clone(),
            username: session.username.clone(),
            // By --server another may be in use than the one that was chosen for good.
            current: named.as_ref().is_some_and(|named| named.url == session.url),
        })
        .collect();
    if global.output == Format::Json {
        output::json(&rows);
    } else if rows.is_empty() {
        output::note("you are logged in to no server: `warren login URL` adds one");
    } else {
        let mark = |row: &Row| (if row.current { "*" } else { "" }).to_owned();
        let cells: Vec<_> = rows
            .iter()
            .map(|row| vec![mark(row), row.name.clone(), row.url.clone(), row.username.clone()])
            .collect();
        output::line(output::table(&["IN USE", "NAME", "SERVER", "USER"], &cells));
    }
    Ok(())
}

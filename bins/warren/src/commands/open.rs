//! `warren open`: the server's pages in the browser.

use crate::api::Api;
use crate::browser;
use crate::cli::Global;
use crate::error::Result;
use crate::output::{self, Format};
use serde::Serialize;

/// Open the server's page, or a workspace's, in the browser
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren open                     the server's first page
  warren open dev                 the page of workspace dev
  warren open --no-browser        print the address alone

$BROWSER is used where it is set. Without a display the address is printed alone.")]
pub(crate) struct Args {
    /// The workspace whose page to open, NAME or OWNER/NAME
    workspace: Option<String>,
    /// Print the address and open nothing
    #[arg(long, env = "WARREN_OPEN_NO_BROWSER", value_parser = clap::builder::BoolishValueParser::new())]
    no_browser: bool,
}

#[derive(Serialize)]
struct Document {
    url: String,
    /// Whether a browser was started.
    opened: bool,
}

/// Opens.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let session = global.config.session()?;
    let url = match &args.workspace {
        None => format!("{}/", session.url),
        Some(name) => {
            // By its full name, whoever is logged in to the browser.
            let workspace = Api::logged_in(&session).workspace(name).await?;
            format!("{}/workspaces/{}/{}", session.url, workspace.owner, workspace.name)
        }
    };
    if global.output == Format::Table {
        output::line(&url);
    }
    let opened = !args.no_browser && browser::open_or_warn(&url).await;
    if global.output == Format::Json {
        output::json(&Document { url, opened });
    }
    Ok(())
}

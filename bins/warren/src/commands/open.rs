//! `warren open`: the server's pages, and the web apps of workspaces, in the browser.

use crate::api::Api;
use crate::browser;
use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

/// Open the server's page, a workspace's, or an app of one, in the browser
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren open                     the server's first page
  warren open dev                 the page of workspace dev
  warren open dev notebook        its web app notebook
  warren open --no-browser        print the address alone

$BROWSER is used where it is set. Without a display the address is printed alone.")]
pub(crate) struct Args {
    /// The workspace whose page to open, NAME or OWNER/NAME
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    workspace: Option<String>,
    /// The app to open instead, by its short name
    #[arg(requires = "workspace")]
    app: Option<String>,
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

/// Where an app opens.
async fn app_url(api: &Api, workspace: &str, slug: &str) -> Result<String> {
    // By the full name, since the API's address of an app has it.
    let workspace = api.workspace(workspace).await?;
    let app = api.app(&workspace, slug).await?;
    if app.url.is_empty() {
        let sentence = format!("app \"{slug}\" has no address: this server opens no web apps");
        return Err(CliError::new(Exit::Failed, "APPS_DISABLED", sentence).hint(
            "an operator can give apps origins of their own with `warren-server --wildcard-access-url`",
        ));
    }
    Ok(app.url)
}

/// Opens.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let session = global.config.session()?;
    let url = match (&args.workspace, &args.app) {
        (None, _) => format!("{}/", session.url),
        (Some(workspace), Some(app)) => app_url(&Api::logged_in(&session), workspace, app).await?,
        (Some(name), None) => {
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

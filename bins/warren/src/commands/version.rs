//! `warren version`.

use crate::api::Api;
use crate::cli::Global;
use crate::error::Result;
use crate::output::{self, Format};

/// Prints this program's version, and the server's if there is a login.
pub(crate) async fn run(global: &Global) -> Result {
    let ours = env!("CARGO_PKG_VERSION");
    let server = match global.config.session() {
        Ok(session) => Api::logged_in(&session).build_info().await.ok(),
        Err(_) => None,
    };
    if global.output == Format::Json {
        output::json(&serde_json::json!({ "version": ours, "server_version": server.map(|s| s.version) }));
        return Ok(());
    }
    output::line(format!("warren {ours}"));
    if let Some(server) = server {
        output::line(format!("{} {}", server.name, server.version));
        if server.version != ours {
            output::note("the versions differ; they work together as long as the first number is the same");
        }
    }
    Ok(())
}

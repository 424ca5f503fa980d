//! `warren status`: the workspaces, and the path to each that is connected.

use crate::api::Api;
use crate::cli::Global;
use crate::commands::workspaces;
use crate::error::Result;
use crate::output::{self, Format};
use crate::tunnel;
use proto_core::stream::Header;
use proto_core::wire::api::{AgentStatus, Workspace};
use serde::Serialize;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// List workspaces with the path to each
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only this workspace, NAME or OWNER/NAME
    workspace: Option<String>,
    /// Seconds to look for the best path to each
    #[arg(short, long, env = "WARREN_STATUS_TIMEOUT", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

#[derive(Serialize)]
struct Row {
    name: String,
    owner: String,
    status: &'static str,
    path: Option<String>,
    latency_ms: Option<f64>,
    version: Option<String>,
    last_seen: Option<String>,
    error: Option<String>,
}

/// Lists.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let api = Api::logged_in(&global.config.session()?);
    let workspaces = match &args.workspace {
        Some(name) => vec![api.workspace(name).await?],
        None => api.workspaces().await?,
    };
    let patience = Duration::from_secs(args.timeout);
    let mut rows = Vec::new();
    for workspace in &workspaces {
        rows.push(row(global, workspace, patience).await);
    }
    if global.output == Format::Json {
        output::json(&rows);
    } else if rows.is_empty() {
        output::note("no workspaces yet: make one with `warren workspaces create NAME`");
    } else {
        output::line(table(&rows));
    }
    Ok(())
}

async fn row(global: &Global, workspace: &Workspace, patience: Duration) -> Row {
    let agent = workspace.agents.first();
    let mut row = Row {
        name: workspace.name.clone(),
        owner: workspace.owner.clone(),
        status: workspaces::status(workspace),
        path: None,
        latency_ms: None,
        version: agent.and_then(|a| a.version.clone()),
        last_seen: agent.and_then(|a| a.last_seen.clone()),
        error: None,
    };
    if workspace.status == AgentStatus::Connected {
        match reach(global, workspace, patience).await {
            Ok((path, latency)) => {
                row.path = Some(path);
                row.latency_ms = Some((latency.as_secs_f64() * 1e6).round() / 1e3);
            }
            Err(error) => row.error = Some(error.message),
        }
    }
    row
}

/// The best path found in time, and its round trip.
async fn reach(global: &Global, workspace: &Workspace, patience: Duration) -> Result<(String, Duration)> {
    let name = format!("{}/{}", workspace.owner, workspace.name);
    let tunnel = tunnel::open(global, &name).await?;
    let echo = async {
        let mut stream = tunnel.peer.open(&Header::Ping).await.map_err(std::io::Error::other)?;
        // The first echo carries the handshakes; the second is the round trip, on the best path there is.
        stream.write_u32(1).await?;
        stream.read_u32().await?;
        if global.direct_forbidden.is_none() {
            let _ = tokio::time::timeout(patience / 2, tunnel.peer.wait_direct()).await;
        }
        let sent = Instant::now();
        stream.write_u32(2).await?;
        stream.read_u32().await?;
        std::io::Result::Ok(sent.elapsed())
    };
    let latency = match tokio::time::timeout(patience, echo).await {
        Ok(latency) => latency.map_err(|e| tunnel.gone(&e.to_string()))?,
        Err(_) => return Err(tunnel.gone(&format!("no reply after {}s", patience.as_secs()))),
    };
    let path = tunnel.path();
    tunnel.node.shutdown().await;
    Ok((path, latency))
}

fn table(rows: &[Row]) -> String {
    let or = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.into());
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                r.name.clone(),
                r.owner.clone(),
                r.status.into(),
                or(&r.path, or(&r.error, "-").as_str()),
                r.latency_ms.map_or_else(|| "-".into(), |ms| output::latency((ms * 1e3) as u64)),
                or(&r.version, "-"),
                r.last_seen
                    .as_deref()
                    .map_or_else(|| "never".into(), |at| output::ago(at, SystemTime::now())),
            ]
        })
        .collect();
    output::table(&["NAME", "OWNER", "STATUS", "PATH", "LATENCY", "VERSION", "LAST SEEN"], &cells)
}

//! `warren status`: the workspaces, and the path to each that is connected.

use crate::api::Api;
use crate::cli::Global;
use crate::commands::workspaces;
use crate::error::Result;
use crate::output::{self, Format};
use crate::tunnel::{self, Client};
use futures_util::stream::{self, StreamExt};
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

/// Tunnels that are looked at together: more would spoil each other's round trips.
const TUNNELS_AT_ONCE: usize = 32;

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
    // One node for all of them, and none of them waits for another.
    let client = match workspaces.iter().any(is_connected) {
        true => Some(tunnel::start(global).await?),
        false => None,
    };
    let rows = workspaces.into_iter().map(|workspace| row(global, client.as_ref(), workspace, patience));
    let rows: Vec<Row> = stream::iter(rows).buffered(TUNNELS_AT_ONCE).collect().await;
    let choice = match &client {
        Some(client) => client.choice(global).await,
        None => None,
    };
    if let Some(client) = client {
        client.node.shutdown().await;
    }
    if global.output == Format::Json {
        output::json(&rows);
    } else if rows.is_empty() {
        output::note("no workspaces yet: make one with `warren workspaces create NAME`");
    } else {
        output::line(table(&rows));
    }
    if let Some(choice) = choice {
        output::note(format!("home relay: {choice}"));
    }
    Ok(())
}

fn is_connected(workspace: &Workspace) -> bool {
    workspace.status == AgentStatus::Connected
}

async fn row(global: &Global, client: Option<&Client>, workspace: Workspace, patience: Duration) -> Row {
    let agent = workspace.agents.first();
    let mut row = Row {
        name: workspace.name.clone(),
        owner: workspace.owner.clone(),
        status: workspaces::status(&workspace),
        path: None,
        latency_ms: None,
        version: agent.and_then(|a| a.version.clone()),
        last_seen: agent.and_then(|a| a.last_seen.clone()),
        error: None,
    };
    if let Some(client) = client.filter(|_| is_connected(&workspace)) {
        match reach(global, client, workspace, patience).await {
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
async fn reach(
    global: &Global,
    client: &Client,
    workspace: Workspace,
    patience: Duration,
) -> Result<(String, Duration)> {
    let tunnel = client.open(global, workspace).await?;
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
    Ok((tunnel.path(), latency))
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

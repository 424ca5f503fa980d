//! `warren status`: the workspaces, and the path to each that is connected.

use crate::api::Api;
use crate::cli::Global;
use crate::commands::workspaces;
use crate::error::{CliError, Result};
use crate::output::{self, Format};
use crate::tunnel::{self, Client};
use clap::builder::NonEmptyStringValueParser;
use futures_util::stream::{self, StreamExt};
use proto_core::id::RegionId;
use proto_core::stream::Header;
use proto_core::stream::report::{ANSWER_MAX, Report};
use proto_core::wire::api::{AgentStatus, Workspace};
use serde::Serialize;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// List workspaces with the path to each, its latency, and what was carried
#[derive(clap::Args, Debug)]
#[command(
    after_help = "RX/TX is what the workspace's agent has received and sent in all tunnels since it started.

Examples:
  warren status
  warren status dev -o json"
)]
pub(crate) struct Args {
    /// Only this workspace, NAME or OWNER/NAME
    #[arg(value_parser = NonEmptyStringValueParser::new())]
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
    /// Why packets go through a relay, if they do.
    why_relayed: Option<String>,
    /// Bytes in the workspace's tunnels, all of them, since its agent started; none if it does not say.
    received_bytes: Option<u64>,
    sent_bytes: Option<u64>,
    uptime_seconds: Option<u64>,
    version: Option<String>,
    last_seen: Option<String>,
    /// Why it could not be reached, if it is connected.
    error: Option<String>,
    error_code: Option<String>,
    #[serde(skip)]
    failed: Option<CliError>,
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
    let mut choice = None;
    let mut troubles = Vec::new();
    if let Some(client) = client {
        choice = client.choice(global).await;
        let words = |(region, why): (RegionId, String)| {
            format!("relay {} cannot be used: {why}", client.region(region))
        };
        troubles.extend(client.relay_troubles().into_iter().map(words));
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
    troubles.iter().for_each(|words| output::warning("RELAY_TROUBLE", words));
    judge(rows)
}

/// Says what failed. It is no failure of this command while anything was reached, or nothing was to be.
fn judge(rows: Vec<Row>) -> Result {
    let tried = rows.iter().filter(|row| row.path.is_some() || row.failed.is_some()).count();
    let mut failed: Vec<CliError> = rows.into_iter().filter_map(|row| row.failed).collect();
    match failed.len() {
        1 if tried == 1 => Err(failed.remove(0)),
        all => {
            for error in &failed {
                output::warning(&error.code, &error.message);
            }
            let Some(first) = failed.into_iter().next().filter(|_| all == tried) else { return Ok(()) };
            let sentence = format!("none of the {all} workspaces that are connected could be reached");
            Err(CliError::new(first.exit, "NONE_REACHED", sentence)
                .hint("`warren netcheck` looks at this machine's network"))
        }
    }
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
        why_relayed: None,
        received_bytes: None,
        sent_bytes: None,
        uptime_seconds: None,
        version: agent.and_then(|a| a.version.clone()),
        last_seen: agent.and_then(|a| a.last_seen.clone()),
        error: None,
        error_code: None,
        failed: None,
    };
    if let Some(client) = client.filter(|_| is_connected(&workspace)) {
        match reach(global, client, workspace, patience).await {
            Ok(reached) => {
                row.path = Some(reached.path);
                row.latency_ms = Some((reached.latency.as_secs_f64() * 1e6).round() / 1e3);
                row.why_relayed = reached.why_relayed;
                row.received_bytes = reached.report.as_ref().map(|report| report.received_bytes);
                row.sent_bytes = reached.report.as_ref().map(|report| report.sent_bytes);
                row.uptime_seconds = reached.report.map(|report| report.uptime_seconds);
            }
            Err(error) => {
                row.error = Some(error.message.clone());
                row.error_code = Some(error.code.clone());
                row.failed = Some(error);
            }
        }
    }
    row
}

/// What was found out of a workspace.
struct Reached {
    path: String,
    latency: Duration,
    why_relayed: Option<String>,
    /// What its agent says of itself; none if it is of a version that says nothing.
    report: Option<Report>,
}

/// The best path found in time, and its round trip.
async fn reach(
    global: &Global,
    client: &Client,
    workspace: Workspace,
    patience: Duration,
) -> Result<Reached> {
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
    let asked = tunnel.ask(&Header::Report, ANSWER_MAX);
    let report = tokio::time::timeout(patience, asked).await.ok().and_then(std::result::Result::ok);
    let why_relayed = tunnel.why_relayed().await;
    Ok(Reached { path: tunnel.path(), latency, why_relayed, report })
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
                or(&r.path, "-"),
                r.latency_ms.map_or_else(|| "-".into(), |ms| output::latency((ms * 1e3) as u64)),
                match (r.received_bytes, r.sent_bytes) {
                    (Some(received), Some(sent)) => {
                        format!("{}/{}", output::bytes(received), output::bytes(sent))
                    }
                    _ => "-".into(),
                },
                or(&r.version, "-"),
                r.last_seen
                    .as_deref()
                    .map_or_else(|| "never".into(), |at| output::ago(at, SystemTime::now())),
            ]
        })
        .collect();
    output::table(&["NAME", "OWNER", "STATUS", "PATH", "LATENCY", "RX/TX", "VERSION", "LAST SEEN"], &cells)
}

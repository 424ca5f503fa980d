//! The tunnels to a workspace: their paths, speeds and stories.

use super::bearer::Person;
use super::problem::ApiError;
use super::workspaces;
use crate::app::{App, Shared};
use crate::clock::rfc3339;
use crate::tunnels::Tunnel;
use axum::Json;
use axum::extract::{Path, State};
use proto_core::id::NodeId;
use proto_core::wire::api::{PathKind, WorkspacePath};
use proto_core::wire::control::PathReport;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The tunnels to a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TunnelsDocument {
    /// Ordered by their agent and node.
    tunnels: Vec<TunnelDocument>,
}

/// A tunnel to a workspace's agent, as the node at its other end sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TunnelDocument {
    /// Its name: the agent's and the node's.
    id: String,
    /// The node at the other end.
    node: String,
    /// Whose node it is; absent for a server's own.
    user: Option<String>,
    /// `client` or `server`.
    kind: &'static str,
    /// Which way it leads.
    path: WorkspacePath,
    /// The round trip of a direct path.
    latency_ms: Option<f64>,
    /// Bytes of data that came to the node.
    rx_bytes: u64,
    /// Bytes of data that went from it.
    tx_bytes: u64,
    /// Since when it is known.
    since: String,
    /// Why its path is direct or not.
    verdict: VerdictDocument,
    /// What happened, oldest first; the latest 100.
    history: Vec<HappenedDocument>,
    /// How fast it was while in use, every 5 s, oldest first; the latest 360.
    samples: Vec<SampleDocument>,
}

/// Why a path is direct or not.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerdictDocument {
    /// One sentence for the person at the node.
    sentence: String,
    /// On whose side the reason is: `client` or `server`, `workspace`, `both` or `between`.
    whose: String,
    /// What would change it.
    remedy: Option<String>,
}

/// Something that happened to a path.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HappenedDocument {
    /// When.
    at: String,
    /// `opened`, `path` when it leads another way, `lost` when an end lost the coordinator.
    event: &'static str,
    /// The path from then on.
    path: WorkspacePath,
    /// In words.
    detail: String,
}

/// One moment of a tunnel in use.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SampleDocument {
    /// When.
    at: String,
    /// The round trip of a direct path.
    latency_ms: Option<f64>,
    /// What came to the node since the sample before.
    rx_bits_per_s: Option<u64>,
    /// What went from it.
    tx_bits_per_s: Option<u64>,
}

/// The tunnels to a workspace, and how their paths are and were.
#[utoipa::path(
    get,
    path = "/workspaces/{owner}/{name}/tunnels",
    tag = "network",
    responses((status = 200, description = "Those that are open", body = TunnelsDocument))
)]
pub(super) async fn tunnels(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<TunnelsDocument>, ApiError> {
    let row = workspaces::find(&app, &person, &owner, &name).await?;
    let names: BTreeMap<_, _> =
        app.store.users().await?.into_iter().map(|user| (user.id, user.name)).collect();
    let mut tunnels = Vec::new();
    for agent in &row.agents {
        let agent = NodeId(agent.id.clone());
        let of = app.tunnels.of(&agent);
        tunnels.extend(of.iter().map(|tunnel| document(&app, &agent, tunnel, &names)));
    }
    Ok(Json(TunnelsDocument { tunnels }))
}

fn document(app: &App, agent: &NodeId, tunnel: &Tunnel, names: &BTreeMap<String, String>) -> TunnelDocument {
    let kind = if tunnel.user_id.is_some() { "client" } else { "server" };
    let whose = match tunnel.path.side.as_str() {
        "ours" => kind,
        "theirs" => "workspace",
        other => other,
    };
    TunnelDocument {
        id: format!("{agent}/{}", tunnel.node),
        node: tunnel.node.0.clone(),
        user: tunnel.user_id.as_ref().and_then(|id| names.get(id).cloned()),
        kind,
        path: path(app, &tunnel.path),
        latency_ms: tunnel.path.latency_us.map(milliseconds),
        rx_bytes: tunnel.path.received_bytes,
        tx_bytes: tunnel.path.sent_bytes,
        since: rfc3339(tunnel.since),
        verdict: VerdictDocument {
            sentence: tunnel.path.sentence.clone(),
            whose: whose.to_owned(),
            remedy: tunnel.path.remedy.clone(),
        },
        history: tunnel
            .history
            .iter()
            .map(|it| HappenedDocument {
                at: rfc3339(it.at),
                event: it.event,
                path: path(app, &it.path),
                detail: it.path.sentence.clone(),
            })
            .collect(),
        samples: tunnel
            .samples
            .iter()
            .map(|sample| SampleDocument {
                at: rfc3339(sample.at),
                latency_ms: sample.latency_us.map(milliseconds),
                rx_bits_per_s: sample.rates.map(|(came, _)| came),
                tx_bits_per_s: sample.rates.map(|(_, went)| went),
            })
            .collect(),
    }
}

/// A path for people: relays by their short names.
pub(super) fn path(app: &App, report: &PathReport) -> WorkspacePath {
    let kind = match (report.address, report.relay) {
        (Some(_), _) => PathKind::Direct,
        (None, Some(_)) => PathKind::Relay,
        (None, None) => PathKind::None,
    };
    let map = app.relay_map.borrow();
    let relay = report.relay.map(|id| map.region(id).map_or_else(|| id.to_string(), |r| r.code.clone()));
    WorkspacePath { kind, relay, address: report.address.map(|address| address.to_string()) }
}

/// Microseconds in milliseconds.
pub(super) fn milliseconds(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64() * 1e3
}

//! The way from a request into a workspace: its agent, a stream to it by the server's own node, and why there is none.

use super::bearer::Person;
use super::problem::ApiError;
use super::workspaces;
use crate::app::{App, Shared};
use crate::node::{self, Unreachable};
use crate::store::{AgentRow, WorkspaceRow};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use io_adapters::handle::TunnelStream;
use proto_core::id::NodeId;
use proto_core::stream::Header;
use proto_core::stream::ports::{self, Ports};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

/// The workspace of this owner and name, if the asker may use it: whoever only administers it may not look into it.
///
/// # Errors
/// 404 as for everything of workspaces, 403 for those who see it and may not use it.
pub(crate) async fn usable(
    app: &App,
    person: &Person,
    owner: &str,
    name: &str,
) -> Result<WorkspaceRow, ApiError> {
    let row = workspaces::find(app, person, owner, name).await?;
    if row.is_of(&person.user) {
        return Ok(row);
    }
    for agent in &row.agents {
        // Those it is shared with.
        if app.store.may_reach(&person.user.id, &agent.id).await? {
            return Ok(row);
        }
    }
    let kind = (StatusCode::FORBIDDEN, "WORKSPACE_FOREIGN", "the workspace is somebody else's");
    let detail =
        format!("workspace \"{}/{}\" is {}'s: you may manage it, not use it", row.owner, row.name, row.owner);
    Err(ApiError::new(kind, detail, format!("ask {} to share it with you", row.owner)))
}

/// Opens a stream to the agent of a workspace that the asker may use.
///
/// # Errors
/// 409 if the agent is not connected, 502 or 504 if it cannot be reached.
pub(crate) async fn open(app: &App, row: &WorkspaceRow, header: &Header) -> Result<TunnelStream, ApiError> {
    let agent = agent(app, row)?;
    app.node.open(&agent, header).await.map_err(|error| unreachable(&row.name, &error))
}

/// Asks the agent of a workspace for a document.
///
/// # Errors
/// As [`open`]; 502 if it answers something else or breaks off.
pub(crate) async fn ask<T: DeserializeOwned>(
    app: &App,
    row: &WorkspaceRow,
    header: &Header,
    longest: usize,
) -> Result<T, ApiError> {
    let stream = open(app, row, header).await?;
    let answer = node::answer(stream, longest).await.map_err(|error| error.to_string());
    let answer = answer.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()));
    answer.map_err(|why| {
        let kind = (StatusCode::BAD_GATEWAY, "AGENT_ANSWER", "the agent did not answer as it should");
        let detail = format!("the agent of \"{}\" did not answer as it should: {why}", row.name);
        ApiError::new(kind, detail, "an older agent may not know the question: update it")
    })
}

/// The agent of a workspace, if it is connected.
fn agent(app: &App, row: &WorkspaceRow) -> Result<NodeId, ApiError> {
    let here = |agent: &&AgentRow| app.hub.presence(&NodeId(agent.id.clone())).is_some();
    let Some(agent) = row.agents.iter().find(here) else {
        let kind = (StatusCode::CONFLICT, "AGENT_OFFLINE", "the workspace's agent is not connected");
        let detail = format!("the agent of workspace \"{}\" is not connected", row.name);
        return Err(ApiError::new(kind, detail, "start the agent in the workspace, then try again"));
    };
    Ok(NodeId(agent.id.clone()))
}

fn unreachable(workspace: &str, error: &Unreachable) -> ApiError {
    let (status, code) = match error {
        Unreachable::Slow => (StatusCode::GATEWAY_TIMEOUT, "AGENT_SILENT"),
        Unreachable::Tunnel(_) | Unreachable::Stream(_) => (StatusCode::BAD_GATEWAY, "AGENT_UNREACHABLE"),
    };
    let detail = format!("can't reach workspace \"{workspace}\": {error}");
    let hint = "try again in a moment; if it stays so, look at the agent's log and the page \"Relays\"";
    ApiError::new((status, code, "the workspace can't be reached"), detail, hint)
}

/// The answer to `GET /workspaces/{owner}/{name}/ports`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListeningPorts {
    /// Ordered by number.
    ports: Vec<ListeningPort>,
    /// Why there is nothing to tell, if the workspace's system does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// A TCP port that a program of the workspace listens on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListeningPort {
    /// Its number.
    port: u16,
    /// The program's name; empty if the agent may not see whose it is.
    process: String,
    /// `tcp`.
    protocol: &'static str,
    /// Where it opens in a browser, if ports have addresses here.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// The TCP ports that programs of a workspace listen on, as its agent sees them.
#[utoipa::path(
    get,
    path = "/workspaces/{owner}/{name}/ports",
    tag = "workspaces",
    responses((status = 200, description = "Ordered by number", body = ListeningPorts))
)]
pub(super) async fn ports(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<ListeningPorts>, ApiError> {
    let row = usable(&app, &person, &owner, &name).await?;
    let Ports { ports, problem, .. } = ask(&app, &row, &Header::Ports, ports::ANSWER_MAX).await?;
    let ports = ports.into_iter().map(|port| ListeningPort {
        port: port.port,
        process: port.programs.into_iter().next().map(|program| program.name).unwrap_or_default(),
        protocol: "tcp",
        url: app.port_url(&row, port.port),
    });
    Ok(Json(ListeningPorts { ports: ports.collect(), problem }))
}

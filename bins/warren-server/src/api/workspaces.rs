//! Workspaces: made, listed, looked at and deleted; by name, one's own or `OWNER/NAME`.

use super::account::forbidden;
use super::bearer::Person;
use super::problem::{ApiError, Document};
use super::tunnels;
use crate::app::{App, Shared};
use crate::auth::{Token, TokenKind};
use crate::clock::rfc3339;
use crate::names;
use crate::settings::AccessUrl;
use crate::store::{AgentRow, StoreError, WORKSPACES_PER_OWNER_MAX, WorkspaceRow};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use proto_core::id::NodeId;
use proto_core::wire::api::{
    Access, Agent, AgentStatus, CreateWorkspace, CreatedWorkspace, Workspace, Workspaces,
};

/// The owner's name that stands for whoever asks.
pub(super) const ME: &str = "me";

/// The workspaces that the asker may see.
#[utoipa::path(
    get,
    path = "/workspaces",
    tag = "workspaces",
    responses((status = 200, description = "Ordered by owner and name", body = Workspaces)),
)]
pub(super) async fn list(State(app): State<Shared>, person: Person) -> Result<Json<Workspaces>, ApiError> {
    let rows = visible(&app, &person).await?;
    Ok(Json(Workspaces { workspaces: rows.iter().map(|row| document(&app, &person, row)).collect() }))
}

/// Makes a workspace of one's own, with one agent.
#[utoipa::path(
    post,
    path = "/workspaces",
    tag = "workspaces",
    request_body = CreateWorkspace,
    responses((status = 201, description = "The workspace and its agent's token", body = CreatedWorkspace)),
)]
pub(super) async fn create(
    State(app): State<Shared>,
    person: Person,
    Document(wanted): Document<CreateWorkspace>,
) -> Result<(StatusCode, Json<CreatedWorkspace>), ApiError> {
    let name = wanted.name;
    if let Some(why) = names::objection("a workspace's name", &name) {
        return Err(ApiError::field("name", why));
    }
    let token = Token::generate(TokenKind::Agent).map_err(|fault| ApiError::internal(&fault.message))?;
    let made = app.store.create_workspace(&person.user, &name, token.sha256(), app.clock.now()).await;
    let row = made.map_err(|error| match error {
        StoreError::Taken => ApiError::new(
            (StatusCode::CONFLICT, "WORKSPACE_EXISTS", "the name is taken"),
            format!("you have a workspace \"{name}\" already"),
            format!("take another name, or delete it first with `warren workspaces delete {name}`"),
        ),
        StoreError::TooMany => ApiError::new(
            (StatusCode::CONFLICT, "TOO_MANY_WORKSPACES", "too many workspaces"),
            format!("you have {WORKSPACES_PER_OWNER_MAX} workspaces, as many as one person may have"),
            "delete one with `warren workspaces delete NAME`",
        ),
        other => other.into(),
    })?;
    person.note(&app, "workspace.create", &row.path(), "").await;
    app.changes.workspaces();
    let created = CreatedWorkspace {
        workspace: document(&app, &person, &row),
        agent_token: token.text().to_owned(),
        command: command(&app.access_url, &token),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// What to run in the workspace. The token is in the environment, where other users' `ps` does not see it.
pub(super) fn command(access_url: &AccessUrl, token: &Token) -> String {
    format!("WARREN_AGENT_TOKEN={} warren-agent --url {access_url}", token.text())
}

/// A workspace of one's own.
#[utoipa::path(
    get,
    path = "/workspaces/{name}",
    tag = "workspaces",
    responses((status = 200, description = "The workspace", body = Workspace)),
)]
pub(super) async fn one(
    State(app): State<Shared>,
    person: Person,
    Path(name): Path<String>,
) -> Result<Json<Workspace>, ApiError> {
    Ok(Json(document(&app, &person, &find(&app, &person, ME, &name).await?)))
}

/// A workspace; the owner "me" is whoever asks.
#[utoipa::path(
    get,
    path = "/workspaces/{owner}/{name}",
    tag = "workspaces",
    responses((status = 200, description = "The workspace", body = Workspace)),
)]
pub(super) async fn one_of(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Workspace>, ApiError> {
    Ok(Json(document(&app, &person, &find(&app, &person, &owner, &name).await?)))
}

/// Deletes a workspace of one's own, and ends its tunnels.
#[utoipa::path(
    delete,
    path = "/workspaces/{name}",
    tag = "workspaces",
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn delete(
    State(app): State<Shared>,
    person: Person,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    remove(&app, &person, ME, &name).await
}

/// Deletes a workspace, and ends its tunnels.
#[utoipa::path(
    delete,
    path = "/workspaces/{owner}/{name}",
    tag = "workspaces",
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn delete_of(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    remove(&app, &person, &owner, &name).await
}

async fn remove(app: &App, person: &Person, owner: &str, name: &str) -> Result<StatusCode, ApiError> {
    let row = find(app, person, owner, name).await?;
    if !row.is_of(&person.user) && !person.user.role.administers() {
        return Err(forbidden("the workspace is shared with you: only its owner deletes it"));
    }
    match app.store.delete_workspace(&row.id).await {
        // Somebody else was faster: it is gone, as was asked.
        Ok(()) | Err(StoreError::Missing) => {}
        Err(error) => return Err(error.into()),
    }
    // Whoever was let to its apps may not any more, nor to those of a next one of its name.
    app.revoked();
    person.note(app, "workspace.delete", &row.path(), "").await;
    app.changes.workspaces();
    for agent in row.agents {
        app.hub.expel_agent(NodeId(agent.id), &format!("the workspace \"{}\" was deleted", row.name)).await;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn visible(app: &App, person: &Person) -> Result<Vec<WorkspaceRow>, ApiError> {
    let id = person.user.id.as_str();
    if !person.user.role.administers() {
        return Ok(app.store.workspaces(Some(id)).await?);
    }
    // All of them; those that are shared with them, administrators use as others do.
    let mut rows = app.store.workspaces(None).await?;
    let shared = app.store.shared_with(id).await?;
    rows.iter_mut().for_each(|row| row.shared = shared.contains(&row.id));
    Ok(rows)
}

/// The workspace of this owner and name, if the person may see it; else a 404 that does not tell whether it
/// exists, with the nearest names among those that the person may see.
pub(super) async fn find(
    app: &App,
    person: &Person,
    owner: &str,
    name: &str,
) -> Result<WorkspaceRow, ApiError> {
    let me = person.user.name.as_str();
    let owner = if owner == ME { me } else { owner };
    let rows = visible(app, person).await?;
    let address = |row: &WorkspaceRow| {
        if row.owner == me { row.name.clone() } else { format!("{}/{}", row.owner, row.name) }
    };
    if let Some(row) = rows.iter().find(|row| row.owner == owner && row.name == name) {
        return Ok(row.clone());
    }
    let wanted = if owner == me { name.to_owned() } else { format!("{owner}/{name}") };
    let near = names::nearest(&wanted, rows.iter().map(address));
    let hint = match near.as_slice() {
        [] if rows.is_empty() => {
            "there is none yet: make one with `warren workspaces create NAME`".to_owned()
        }
        [] => "`warren workspaces list` shows those there are".to_owned(),
        [one] => format!("did you mean \"{one}\"?"),
        several => format!("the nearest names are {}", several.join(", ")),
    };
    let kind = (StatusCode::NOT_FOUND, "WORKSPACE_NOT_FOUND", "there is no such workspace");
    Err(ApiError::new(kind, format!("there is no workspace \"{wanted}\""), hint).nearest(near))
}

pub(super) fn document(app: &App, person: &Person, row: &WorkspaceRow) -> Workspace {
    let agents: Vec<Agent> = row.agents.iter().map(|agent| agent_document(app, agent)).collect();
    let connected = agents.iter().any(|agent| agent.status == AgentStatus::Connected);
    let ids: Vec<_> = agents.iter().map(|agent| agent.id.clone()).collect();
    let best = app.tunnels.best(ids.iter());
    Workspace {
        path: best.as_ref().map(|best| tunnels::path(app, best)),
        latency_ms: best.as_ref().and_then(|best| best.latency_us).map(tunnels::milliseconds),
        rx_bytes: best.as_ref().map(|best| best.received_bytes),
        tx_bytes: best.as_ref().map(|best| best.sent_bytes),
        id: row.id.clone(),
        name: row.name.clone(),
        owner: row.owner.clone(),
        access: match () {
            () if row.is_of(&person.user) => Access::Owner,
            () if person.user.role.administers() && !row.shared => Access::Admin,
            () => Access::Shared,
        },
        status: if connected { AgentStatus::Connected } else { AgentStatus::Offline },
        created_at: rfc3339(row.created_at),
        agents,
    }
}

fn agent_document(app: &App, row: &AgentRow) -> Agent {
    let id = NodeId(row.id.clone());
    let here = app.hub.presence(&id);
    // Who is here is seen now; the database knows the last time of those who are not.
    let last_seen = if here.is_some() { Some(app.clock.now()) } else { row.last_seen_at };
    Agent {
        id,
        name: row.name.clone(),
        status: if here.is_some() { AgentStatus::Connected } else { AgentStatus::Offline },
        last_seen: last_seen.map(rfc3339),
        version: here.as_ref().map(|here| here.build.clone()).or_else(|| row.version.clone()),
        home_relay: here.as_ref().and_then(|here| here.home),
        node_key: here.map(|here| here.node_key),
    }
}

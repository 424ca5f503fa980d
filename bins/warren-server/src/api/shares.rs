//! Whom a workspace is shared with, and its agents' tokens.

use super::account::forbidden;
use super::bearer::Person;
use super::problem::ApiError;
use super::users::no_such_user;
use super::workspaces::{command, find};
use crate::app::{App, Shared};
use crate::auth::{Token, TokenKind};
use crate::clock::rfc3339;
use crate::store::people::SHARES_PER_WORKSPACE_MAX;
use crate::store::{StoreError, WorkspaceRow};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use proto_core::id::NodeId;
use proto_core::wire::api::{AgentToken, Role, Share, Shares};

/// Whom a workspace is shared with.
#[utoipa::path(
    get,
    path = "/workspaces/{owner}/{name}/shares",
    operation_id = "list_shares",
    tag = "workspaces",
    responses((status = 200, description = "Ordered by name", body = Shares)),
)]
pub(super) async fn list(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Shares>, ApiError> {
    let row = find(&app, &person, &owner, &name).await?;
    if !row.is_of(&person.user) && !person.user.role.administers() {
        return Err(forbidden("only its owner sees whom a workspace is shared with"));
    }
    let rows = app.store.shares(&row.id).await?;
    let document = |user: String, created_at| Share { user, created_at: rfc3339(created_at) };
    let shares = rows.into_iter().map(|row| document(row.user, row.created_at)).collect();
    Ok(Json(Shares { shares }))
}

/// Shares a workspace with a person.
#[utoipa::path(
    put,
    path = "/workspaces/{owner}/{name}/shares/{user}",
    operation_id = "share_workspace",
    tag = "workspaces",
    responses((status = 204, description = "It is shared")),
)]
pub(super) async fn share(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name, user)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let row = find(&app, &person, &owner, &name).await?;
    // An admin who could share could let himself in.
    own(&row, &person, "shares")?;
    let with = app.store.user_by_name(&user).await?.ok_or_else(|| no_such_user(&user))?;
    if row.is_of(&with) {
        return Err(ApiError::field("user", format!("the workspace is {}'s own", with.name)));
    }
    app.store.share(&row.id, &with.id, app.clock.now()).await.map_err(|error| match error {
        StoreError::TooMany => ApiError::new(
            (StatusCode::CONFLICT, "TOO_MANY_SHARES", "shared with too many"),
            format!(
                "the workspace is shared with {SHARES_PER_WORKSPACE_MAX} people, as many as there may be"
            ),
            "take it back from somebody first",
        ),
        StoreError::Missing => no_such_user(&user),
        other => other.into(),
    })?;
    app.changes.workspaces();
    person.note(&app, "share.add", &row.path(), &format!("with {}", with.name)).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a share back, or gives one's own up.
#[utoipa::path(
    delete,
    path = "/workspaces/{owner}/{name}/shares/{user}",
    operation_id = "unshare_workspace",
    tag = "workspaces",
    responses((status = 204, description = "It is shared no more")),
)]
pub(super) async fn unshare(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name, user)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let row = find(&app, &person, &owner, &name).await?;
    let leaves = user == person.user.name;
    if !row.is_of(&person.user) && !person.user.role.administers() && !leaves {
        return Err(forbidden("only its owner takes a workspace back from others"));
    }
    let with = app.store.user_by_name(&user).await?.ok_or_else(|| no_such_user(&user))?;
    app.store.unshare(&row.id, &with.id).await.map_err(|error| match error {
        StoreError::Missing => {
            let kind = (StatusCode::NOT_FOUND, "SHARE_NOT_FOUND", "it is not shared with them");
            ApiError::new(kind, format!("\"{}\" is not shared with \"{user}\"", row.path()), "")
        }
        other => other.into(),
    })?;
    app.changes.workspaces();
    withdraw(&app, &row, &with.id).await;
    person.note(&app, "share.remove", &row.path(), &format!("from {}", with.name)).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends what a person has open to a workspace.
async fn withdraw(app: &App, row: &WorkspaceRow, user_id: &str) {
    let why = format!("\"{}\" is shared with you no more", row.path());
    for agent in &row.agents {
        app.hub.withdraw(user_id, NodeId(agent.id.clone()), &why).await;
    }
    app.revoked();
}

/// Gives an agent, by its name or id, a new token. The old one is good no more, and its connection ends.
#[utoipa::path(
    post,
    path = "/workspaces/{owner}/{name}/agents/{agent}/token",
    operation_id = "replace_agent_token",
    tag = "workspaces",
    responses((status = 201, description = "The token, shown only here", body = AgentToken)),
)]
pub(super) async fn agent_token(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name, agent)): Path<(String, String, String)>,
) -> Result<(StatusCode, Json<AgentToken>), ApiError> {
    let row = find(&app, &person, &owner, &name).await?;
    own(&row, &person, "gives tokens to agents of")?;
    let found = row.agents.iter().find(|known| known.name == agent || known.id == agent);
    let agent = found.ok_or_else(|| {
        let kind = (StatusCode::NOT_FOUND, "AGENT_NOT_FOUND", "there is no such agent");
        let names: Vec<String> = row.agents.iter().map(|agent| agent.name.clone()).collect();
        let detail = format!("the workspace \"{}\" has no agent \"{agent}\"", row.path());
        ApiError::new(kind, detail, format!("it has {}", names.join(", "))).nearest(names)
    })?;
    let token = Token::generate(TokenKind::Agent).map_err(|fault| ApiError::internal(&fault.message))?;
    for old in app.store.replace_agent_token(&agent.id, token.sha256(), app.clock.now()).await? {
        app.hub.expel_token(&old, "the agent was given a new token").await;
    }
    person.note(&app, "agent.token", &row.path(), &format!("agent {}", agent.name)).await;
    let command = command(&app.access_url, &token);
    Ok((StatusCode::CREATED, Json(AgentToken { agent_token: token.text().to_owned(), command })))
}

/// Whether the workspace is the person's own, or the person owns the server.
pub(super) fn own(row: &WorkspaceRow, person: &Person, does: &str) -> Result<(), ApiError> {
    if row.is_of(&person.user) || person.user.role == Role::Owner {
        return Ok(());
    }
    Err(forbidden(&format!("only its owner {does} a workspace")))
}

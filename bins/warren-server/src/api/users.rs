//! People as administrators see them: who there is, made, changed, locked out and removed.
//!
//! Admins look after members and admins. Owners are looked after by owners alone, else an admin could become one by
//! giving one a new password. The last owner who can log in stays.

use super::account::{administering, document, forbidden, new_user};
use super::bearer::Person;
use super::problem::{ApiError, Document};
use crate::app::{App, Shared};
use crate::auth::password;
use crate::store::people::UserChange;
use crate::store::{StoreError, UserRow};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use proto_core::id::NodeId;
use proto_core::wire::api::{ChangeUser, CreateUser, Role, User, Users};

/// Everybody there is; for owners and admins.
#[utoipa::path(
    get,
    path = "/users",
    operation_id = "list_users",
    tag = "people",
    responses((status = 200, description = "Ordered by name", body = Users)),
)]
pub(super) async fn list(State(app): State<Shared>, person: Person) -> Result<Json<Users>, ApiError> {
    administering(&person)?;
    let users = app.store.users().await?;
    Ok(Json(Users { users: users.iter().map(document).collect() }))
}

/// Makes a user; for owners and admins.
#[utoipa::path(
    post,
    path = "/users",
    operation_id = "create_user",
    tag = "people",
    request_body = CreateUser,
    responses((status = 201, description = "The new user", body = User)),
)]
pub(super) async fn create(
    State(app): State<Shared>,
    person: Person,
    Document(create): Document<CreateUser>,
) -> Result<(StatusCode, Json<User>), ApiError> {
    administering(&person)?;
    gives(&person, create.role)?;
    let user = new_user(&app, create.username, create.password, create.role).await?;
    let name = user.name.clone();
    match app.store.create_user(user, app.clock.now()).await {
        Ok(user) => {
            person.note(&app, "user.create", &user.name, &format!("as {}", word(user.role))).await;
            Ok((StatusCode::CREATED, Json(document(&user))))
        }
        Err(StoreError::Taken) => {
            let kind = (StatusCode::CONFLICT, "USER_EXISTS", "the name is taken");
            Err(ApiError::new(kind, format!("there is a user \"{name}\" already"), "take another name"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Changes a person, sets a password or locks somebody out; for owners and admins.
#[utoipa::path(
    patch,
    path = "/users/{id}",
    operation_id = "change_user",
    tag = "people",
    request_body = ChangeUser,
    responses((status = 200, description = "The person as it is now", body = User)),
)]
pub(super) async fn change(
    State(app): State<Shared>,
    person: Person,
    Path(id): Path<String>,
    Document(wanted): Document<ChangeUser>,
) -> Result<Json<User>, ApiError> {
    let before = find(&app, &person, &id).await?;
    if let Some(role) = wanted.role {
        gives(&person, role)?;
    }
    let password_hash = match wanted.password {
        Some(password) => Some(password_hash(&app, "password", password).await?),
        None => None,
    };
    let ends_sessions = password_hash.is_some() || wanted.disabled == Some(true);
    let detail = words(&before, wanted.role, password_hash.is_some(), wanted.disabled);
    let change = UserChange { role: wanted.role, password_hash, disabled: wanted.disabled };
    let user = app.store.change_user(&id, change, app.clock.now()).await.map_err(|e| refused(e, &before))?;
    if ends_sessions {
        app.store.end_sessions(&user.id, None).await?;
        app.hub.expel_user(&user.id, "an administrator ended the person's sessions").await;
        app.revoked();
    }
    // Another role sees other workspaces.
    app.changes.workspaces();
    person.note(&app, "user.change", &user.name, &detail).await;
    Ok(Json(document(&user)))
}

/// Removes a person with all workspaces; for owners and admins.
#[utoipa::path(
    delete,
    path = "/users/{id}",
    operation_id = "delete_user",
    tag = "people",
    responses((status = 204, description = "The person is gone")),
)]
pub(super) async fn delete(
    State(app): State<Shared>,
    person: Person,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let user = find(&app, &person, &id).await?;
    let theirs = app.store.workspaces(Some(&user.id)).await?;
    let theirs: Vec<_> = theirs.into_iter().filter(|workspace| workspace.owner_id == user.id).collect();
    app.store.delete_user(&id).await.map_err(|error| refused(error, &user))?;
    app.hub.expel_user(&user.id, "the person was removed").await;
    for agent in theirs.iter().flat_map(|workspace| &workspace.agents) {
        app.hub.expel_agent(NodeId(agent.id.clone()), "the workspace's owner was removed").await;
    }
    app.revoked();
    let detail = format!("with {} workspaces", theirs.len());
    person.note(&app, "user.delete", &user.name, &detail).await;
    Ok(StatusCode::NO_CONTENT)
}

/// The user of this id, if the person may change it.
async fn find(app: &App, person: &Person, id: &str) -> Result<UserRow, ApiError> {
    administering(person)?;
    let user = app.store.user(id).await?.ok_or_else(|| no_such_user(id))?;
    if user.role == Role::Owner && person.user.role != Role::Owner {
        return Err(forbidden("only an owner changes owners"));
    }
    Ok(user)
}

/// Whether the person may give somebody this role.
fn gives(person: &Person, role: Role) -> Result<(), ApiError> {
    if role == Role::Owner && person.user.role != Role::Owner {
        return Err(forbidden("only an owner makes owners"));
    }
    Ok(())
}

pub(super) fn no_such_user(who: &str) -> ApiError {
    let kind = (StatusCode::NOT_FOUND, "USER_NOT_FOUND", "there is no such person");
    ApiError::new(kind, format!("there is no person \"{who}\""), "")
}

/// The hash of a new password, if it will do; `field` is what the request calls it.
pub(super) async fn password_hash(app: &App, field: &str, password: String) -> Result<String, ApiError> {
    if let Some(why) = password::objection(&password) {
        return Err(ApiError::field(field, why));
    }
    app.passwords.hash(password).await.map_err(|why| ApiError::internal(&why))
}

fn refused(error: StoreError, user: &UserRow) -> ApiError {
    match error {
        StoreError::LastOwner => ApiError::new(
            (StatusCode::CONFLICT, "LAST_OWNER", "the last owner stays"),
            format!("\"{}\" is the only owner who can log in", user.name),
            "make somebody else an owner first",
        ),
        StoreError::Missing => no_such_user(&user.name),
        other => other.into(),
    }
}

const fn word(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

fn words(before: &UserRow, role: Option<Role>, password: bool, disabled: Option<bool>) -> String {
    let role = role.filter(|role| *role != before.role);
    let role = role.map(|role| format!("from {} to {}", word(before.role), word(role)));
    let password = password.then(|| "new password".to_owned());
    let locked = disabled.map(|disabled| if disabled { "locked out" } else { "let in again" }.to_owned());
    [role, password, locked].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

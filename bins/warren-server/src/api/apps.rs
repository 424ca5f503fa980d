//! Web apps of workspaces: what there is and who may open it, and the way from a session to an app's own origin.

use super::account::forbidden;
use super::bearer::Person;
use super::problem::{ApiError, Document};
use super::shares::own;
use super::workspaces::find;
use crate::app::{App, Shared};
use crate::apps::address::{SLUG_MAX, is_reserved};
use crate::apps::path::redirect;
use crate::apps::subdomain::{self, DEPARTURE};
use crate::apps::ticket::Handover;
use crate::apps::{Name, access};
use crate::names;
use crate::settings::AccessUrl;
use crate::store::apps::{APPS_PER_WORKSPACE_MAX, AppRow};
use crate::store::{StoreError, WorkspaceRow};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use io_adapters::http::percent_encoded;
use proto_core::wire::api::{AppSharing, SetWebApp, WebApp, WebApps};
use serde::Deserialize;
use utoipa::IntoParams;

/// Letters of an app's name for people.
const NAME_MAX: usize = 64;
/// Origins that one app may name.
const ORIGINS_MAX: usize = 20;
/// Letters of all of them: they are in the cookie of whoever may open the app, which browsers keep up to 4,096 bytes of
/// (RFC 6265, section 6.1).
const ORIGINS_LETTERS_MAX: usize = 1_000;

/// The apps of a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{owner}/{name}/apps",
    operation_id = "list_apps",
    tag = "workspaces",
    responses((status = 200, description = "Ordered by slug", body = WebApps)),
)]
pub(super) async fn list(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<WebApps>, ApiError> {
    let row = find(&app, &person, &owner, &name).await?;
    let apps = app.store.apps(&row.id).await?;
    let apps = apps.into_iter().map(|one| document(&app, &row, one)).collect();
    Ok(Json(WebApps { apps, max_sharing: app.apps.max_sharing }))
}

/// An app of a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{owner}/{name}/apps/{slug}",
    operation_id = "get_app",
    tag = "workspaces",
    responses((status = 200, description = "The app", body = WebApp)),
)]
pub(super) async fn one(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name, slug)): Path<(String, String, String)>,
) -> Result<Json<WebApp>, ApiError> {
    let row = find(&app, &person, &owner, &name).await?;
    match app.store.app(&row.id, &slug).await? {
        Some(found) => Ok(Json(document(&app, &row, found))),
        None => Err(missing(&app, &row, &slug).await?),
    }
}

/// Makes an app of a workspace, or changes it.
#[utoipa::path(
    put,
    path = "/workspaces/{owner}/{name}/apps/{slug}",
    operation_id = "set_app",
    tag = "workspaces",
    request_body = SetWebApp,
    responses((status = 200, description = "The app as it is now", body = WebApp)),
)]
pub(super) async fn set(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name, slug)): Path<(String, String, String)>,
    Document(wanted): Document<SetWebApp>,
) -> Result<Json<WebApp>, ApiError> {
    let row = find(&app, &person, &owner, &name).await?;
    // An admin who could share an app could let himself in.
    own(&row, &person, "sets up apps of")?;
    let wanted = checked(&app, slug, wanted)?;
    app.store.set_app(&row.id, &wanted, app.clock.now()).await.map_err(|error| match error {
        StoreError::TooMany => ApiError::new(
            (StatusCode::CONFLICT, "TOO_MANY_APPS", "too many apps"),
            format!("the workspace has {APPS_PER_WORKSPACE_MAX} apps, as many as there may be"),
            "remove one first",
        ),
        other => other.into(),
    })?;
    // Whoever it was open for before may not any more.
    app.revoked();
    let AppRow { slug, port, sharing, .. } = &wanted;
    person.note(&app, "app.set", &row.path(), &format!("{slug}: port {port}, {}", sharing.name())).await;
    Ok(Json(document(&app, &row, wanted)))
}

/// Removes an app of a workspace. What runs there goes on.
#[utoipa::path(
    delete,
    path = "/workspaces/{owner}/{name}/apps/{slug}",
    operation_id = "remove_app",
    tag = "workspaces",
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn remove(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name, slug)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let row = find(&app, &person, &owner, &name).await?;
    if !row.is_of(&person.user) && !person.user.role.administers() {
        return Err(forbidden("only its owner removes apps of a workspace"));
    }
    match app.store.remove_app(&row.id, &slug).await {
        Ok(()) => {}
        Err(StoreError::Missing) => return Err(missing(&app, &row, &slug).await?),
        Err(error) => return Err(error.into()),
    }
    app.revoked();
    person.note(&app, "app.remove", &row.path(), &slug).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Which app a browser wants to open.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// The first label of the app's host.
    app: String,
    /// What the browser knows the origin of.
    mark: String,
}

/// Leads a browser that has logged in to an app's own origin, and another one to the login page. Only apps of this server
/// are led to.
#[utoipa::path(
    get,
    path = "/apps/open",
    operation_id = "open_app",
    tag = "workspaces",
    params(Wanted),
    responses((status = 302, description = "To the app, or to the login page")),
)]
pub(super) async fn open(
    State(app): State<Shared>,
    person: Result<Person, ApiError>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
    headers: axum::http::HeaderMap,
) -> Result<Response, ApiError> {
    let Query(Wanted { app: label, mark }) =
        wanted.map_err(|error| ApiError::field("app", error.body_text()))?;
    let nowhere = || {
        let kind = (StatusCode::NOT_FOUND, "APP_NOT_FOUND", "there is no such app here");
        let hint = "ask whoever told you of it to share it with you";
        crate::apps::Trouble::new(kind, "there is no such app here, or it is not for you", hint)
            .answer(&headers)
    };
    let mark_is_ours = !mark.is_empty()
        && mark.len() <= 64
        && mark.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let Some(name) = Name::parse(&label).filter(|_| mark_is_ours && app.apps.wildcard.is_some()) else {
        return Ok(nowhere());
    };
    let label = label.to_ascii_lowercase();
    let person = match person {
        Ok(person) => person,
        Err(error) if error.status() == StatusCode::UNAUTHORIZED => {
            let back = percent_encoded(&format!("{DEPARTURE}?app={}&mark={mark}", percent_encoded(&label)));
            return Ok(redirect(StatusCode::FOUND, &format!("/login?next={back}")));
        }
        Err(error) => return Err(error),
    };
    person.logged_in("opens apps in a browser")?;
    let token = app.store.token_of_id(&person.token_id).await?;
    match access::decide(&app, token.as_ref(), &name).await {
        Ok(_) => {}
        Err(access::Denied::Store(error)) => return Err(error.into()),
        Err(_) => return Ok(nowhere()),
    }
    let handover = Handover { label: label.clone(), token: person.token_id, mark, made_at: app.clock.now() };
    let to = subdomain::arrival(&app, &label, &handover);
    Ok(to.map_or_else(nowhere, |to| redirect(StatusCode::FOUND, &to)).into_response())
}

fn document(app: &App, workspace: &WorkspaceRow, row: AppRow) -> WebApp {
    let url = app.app_url(workspace, &row.slug);
    let AppRow { slug, name, port, scheme, sharing, cors } = row;
    WebApp { slug, name, port, scheme, sharing, cors, url }
}

/// What an app shall be, if it can be that here.
fn checked(app: &App, slug: String, wanted: SetWebApp) -> Result<AppRow, ApiError> {
    let SetWebApp { name, port, scheme, sharing, cors } = wanted;
    if let Some(why) = names::objection("an app's slug", &slug) {
        return Err(ApiError::field("slug", why));
    }
    if slug.len() > SLUG_MAX || is_reserved(&slug) {
        let why = format!("an app's slug has at most {SLUG_MAX} letters, and is neither a port nor \"xn\"");
        return Err(ApiError::field("slug", why));
    }
    let name = if name.trim().is_empty() { slug.clone() } else { name.trim().to_owned() };
    if name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(ApiError::field(
            "name",
            format!("an app's name has at most {NAME_MAX} letters, in one line"),
        ));
    }
    if port == 0 {
        return Err(ApiError::field("port", "a port is a number from 1 to 65535"));
    }
    let most = app.apps.max_sharing;
    if sharing.at_most(most) != sharing {
        let kind = (StatusCode::FORBIDDEN, "SHARING_TOO_WIDE", "apps may not be shared so widely here");
        let detail = format!("this server lets apps be shared up to \"{}\"", most.name());
        return Err(ApiError::new(kind, detail, "an operator can allow more with `--max-app-sharing`"));
    }
    if cors.len() > ORIGINS_MAX || cors.iter().map(String::len).sum::<usize>() > ORIGINS_LETTERS_MAX {
        let why = format!(
            "an app names at most {ORIGINS_MAX} origins, of {ORIGINS_LETTERS_MAX} letters altogether"
        );
        return Err(ApiError::field("cors", why));
    }
    for origin in &cors {
        let exact = origin.parse::<AccessUrl>().is_ok_and(|url| url.to_string() == *origin);
        let any = origin == "*" && sharing == AppSharing::Public;
        if !(exact || any) {
            let why = format!(
                "\"{origin}\" is no origin such as https://docs.example.com; \"*\" is for public apps alone"
            );
            return Err(ApiError::field("cors", why));
        }
    }
    Ok(AppRow { slug, name, port, scheme, sharing, cors })
}

async fn missing(app: &App, workspace: &WorkspaceRow, slug: &str) -> Result<ApiError, ApiError> {
    let known: Vec<String> = app.store.apps(&workspace.id).await?.into_iter().map(|app| app.slug).collect();
    let near = names::nearest(slug, known.iter().cloned());
    let hint = match near.as_slice() {
        [] if known.is_empty() => "it has none yet: add one on its page".to_owned(),
        [] => format!("it has {}", known.join(", ")),
        near => format!("did you mean {}?", near.join(", ")),
    };
    let kind = (StatusCode::NOT_FOUND, "APP_NOT_FOUND", "there is no such app");
    let detail = format!("workspace \"{}\" has no app \"{slug}\"", workspace.path());
    Ok(ApiError::new(kind, detail, hint).nearest(near))
}

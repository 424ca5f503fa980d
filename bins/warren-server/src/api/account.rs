//! People: the first owner, logging in and out, who I am, who there is.

use super::bearer::Person;
use super::call::Call;
use super::problem::{ApiError, Document};
use super::workspaces::ME;
use super::{audit, cookie, users};
use crate::app::{App, Shared};
use crate::auth::{Token, TokenKind, token};
use crate::clock::rfc3339;
use crate::names;
use crate::store::{NewToken, NewUser, StoreError, UserRow};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use proto_core::wire::api::{Grant, Login, LoginMethods, Me, OidcMethod, Role, Setup, User};

/// How long a session lasts, in milliseconds: 30 days.
pub(super) const SESSION_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// Makes the first user, the owner.
#[utoipa::path(
    post,
    path = "/setup",
    tag = "people",
    request_body = Setup,
    responses((status = 201, description = "The owner's first session", body = Grant)),
    security(())
)]
pub(super) async fn set_up(
    State(app): State<Shared>,
    call: Call,
    headers: HeaderMap,
    Document(setup): Document<Setup>,
) -> Result<(StatusCode, Granted), ApiError> {
    if setup.cookie {
        cookie::same_origin(&app.access_url, &headers)?;
    }
    let refused = || {
        let kind = (StatusCode::UNAUTHORIZED, "SETUP_TOKEN_UNKNOWN", "the setup token is not known");
        let hint = "take the token that the server printed at its last start; a restart prints a new one";
        ApiError::new(kind, "this is not the server's setup token", hint)
    };
    if !app.store.setup_required().await? {
        return Err(already_set_up());
    }
    // Before the costly hash, so that only the right token makes the server work.
    let sha256 = token::sha256_of(&setup.token);
    let known = app.store.token(sha256).await?;
    if !known.is_some_and(|row| row.kind == TokenKind::Setup && token::same(&row.sha256, &sha256)) {
        return Err(refused());
    }
    let owner = new_user(&app, setup.username, setup.password, Role::Owner).await?;
    let user = match app.store.set_up(sha256, owner, app.clock.now()).await {
        Ok(user) => user,
        Err(StoreError::Missing | StoreError::Taken) => return Err(already_set_up()),
        Err(error) => return Err(error.into()),
    };
    audit::note(&app, &call, &user.name, ("setup", &user.name, "")).await;
    Ok((StatusCode::CREATED, granted(&app, grant(&app, &user).await?, setup.cookie)?))
}

/// A session, in the answer or in a cookie.
type Granted = (Option<[(HeaderName, HeaderValue); 1]>, Json<Grant>);

fn granted(app: &App, mut grant: Grant, cookie: bool) -> Result<Granted, ApiError> {
    if !cookie {
        return Ok((None, Json(grant)));
    }
    let token = core::mem::take(&mut grant.token);
    let header = cookie::set(&app.access_url, &token, SESSION_MS / 1_000)?;
    Ok((Some([(SET_COOKIE, header)]), Json(grant)))
}

fn already_set_up() -> ApiError {
    let kind = (StatusCode::CONFLICT, "SETUP_DONE", "the server is set up already");
    ApiError::new(kind, "the server has its owner already", "log in with `warren login URL`")
}

/// How one may log in here.
#[utoipa::path(
    get,
    path = "/login/methods",
    operation_id = "login_methods",
    tag = "people",
    responses((status = 200, description = "The ways there are", body = LoginMethods)),
    security(())
)]
pub(super) async fn methods(State(app): State<Shared>) -> Json<LoginMethods> {
    let oidc = app.oidc.as_ref().map(|provider| OidcMethod { name: provider.name.clone() });
    Json(LoginMethods { password: true, oidc })
}

/// Begins a session.
#[utoipa::path(
    post,
    path = "/login",
    tag = "people",
    request_body = Login,
    responses((status = 200, description = "A new session", body = Grant)),
    security(())
)]
pub(super) async fn log_in(
    State(app): State<Shared>,
    call: Call,
    headers: HeaderMap,
    Document(login): Document<Login>,
) -> Result<Granted, ApiError> {
    let into_cookie = login.cookie;
    if into_cookie {
        // Else another's page could log its visitors in as somebody of its choice.
        cookie::same_origin(&app.access_url, &headers)?;
    }
    let user = check(&app, &call, login).await?;
    audit::note(&app, &call, &user.name, ("login", &user.name, "")).await;
    granted(&app, grant(&app, &user).await?, into_cookie)
}

/// Whose name and password these are.
pub(super) async fn check(app: &App, call: &Call, login: Login) -> Result<UserRow, ApiError> {
    // Counted by name and address: nobody can lock somebody else out from elsewhere.
    let address = call.address_text();
    let key = format!("{} {address}", login.username.chars().take(64).collect::<String>());
    may_guess(
        app,
        &key,
        ("too many wrong passwords", &format!("too many wrong passwords for \"{}\"", login.username)),
    )?;
    let user = app.store.user_by_name(&login.username).await?;
    let hash = user.as_ref().map(|user| user.password_hash.clone()).filter(|hash| !hash.is_empty());
    let name = login.username;
    let right = app.passwords.verify(login.password, hash).await;
    let Some(user) = user.filter(|_| right) else {
        app.guesses.wrong(&key, app.clock.now());
        audit::note_failed(app, call, (&name, "")).await;
        let kind = (StatusCode::UNAUTHORIZED, "LOGIN_FAILED", "wrong name or password");
        return Err(ApiError::new(kind, "the name or the password is wrong", "check both and try again"));
    };
    app.guesses.right(&key);
    may_enter(app, call, &user).await?;
    Ok(user)
}

/// Refuses who is locked out.
pub(super) async fn may_enter(app: &App, call: &Call, user: &UserRow) -> Result<(), ApiError> {
    if user.disabled_at.is_none() {
        return Ok(());
    }
    audit::note_failed(app, call, (&user.name, "locked out")).await;
    let kind = (StatusCode::FORBIDDEN, "USER_DISABLED", "locked out");
    Err(ApiError::new(kind, format!("\"{}\" is locked out", user.name), "ask an administrator"))
}

/// Whether there may be one more attempt by `key`, after those that were wrong; if not, with what words.
pub(super) fn may_guess(app: &App, key: &str, (title, detail): (&'static str, &str)) -> Result<(), ApiError> {
    let wait_ms = app.guesses.wait_ms(key, app.clock.now());
    if wait_ms == 0 {
        return Ok(());
    }
    let seconds = wait_ms / 1_000 + 1;
    let kind = (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_ATTEMPTS", title);
    Err(ApiError::new(kind, detail, format!("wait {seconds} s, then try again")).after(seconds))
}

/// Ends the session that asks, and its tunnels.
#[utoipa::path(
    post,
    path = "/logout",
    tag = "people",
    responses((status = 204, description = "It has ended")),
)]
pub(super) async fn log_out(
    State(app): State<Shared>,
    person: Person,
) -> Result<(StatusCode, [(HeaderName, HeaderValue); 1]), ApiError> {
    app.store.remove_token(&person.token_id).await?;
    // First the token, then what it opened: whoever comes in between finds the door closed.
    app.hub.expel_token(&person.token_id, "the session was ended by logging out").await;
    app.revoked();
    person.note(&app, "logout", &person.user.name, "").await;
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie::clear(&app.access_url)?)]))
}

/// Who asks.
#[utoipa::path(
    get,
    path = "/me",
    tag = "people",
    responses((status = 200, description = "The person", body = Me)),
)]
pub(super) async fn me(person: Person) -> Json<Me> {
    Json(Me { user: document(&person.user), expires_at: rfc3339(person.expires_at) })
}

pub(super) fn administering(person: &Person) -> Result<(), ApiError> {
    if person.user.role.administers() { Ok(()) } else { Err(forbidden("only owners and admins may do this")) }
}

pub(super) fn forbidden(detail: &str) -> ApiError {
    ApiError::new((StatusCode::FORBIDDEN, "FORBIDDEN", "not allowed"), detail, "ask an owner")
}

pub(super) async fn new_user(
    app: &App,
    name: String,
    password: String,
    role: Role,
) -> Result<NewUser, ApiError> {
    if let Some(why) = names::objection("a user's name", &name) {
        return Err(ApiError::field("username", why));
    }
    if name == ME {
        return Err(ApiError::field("username", format!("\"{ME}\" stands for whoever asks")));
    }
    let password_hash = users::password_hash(app, "password", password).await?;
    Ok(NewUser { name, role, password_hash, oidc: None })
}

/// A new session of this user.
pub(super) async fn grant(app: &App, user: &UserRow) -> Result<Grant, ApiError> {
    let token = Token::generate(TokenKind::Session).map_err(|fault| ApiError::internal(&fault.message))?;
    let now = app.clock.now();
    let expires_at = now + SESSION_MS;
    let row = NewToken::of_session(token.sha256(), &user.id, expires_at);
    app.store.add_token(row, now).await?;
    Ok(Grant { token: token.text().to_owned(), expires_at: rfc3339(expires_at), user: document(user) })
}

pub(super) fn document(user: &UserRow) -> User {
    User {
        id: user.id.clone(),
        name: user.name.clone(),
        role: user.role,
        created_at: rfc3339(user.created_at),
        disabled: user.disabled_at.is_some(),
    }
}

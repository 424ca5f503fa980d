//! One's logins, and tokens for programs.

use super::bearer::Person;
use super::problem::{ApiError, Document};
use super::users;
use crate::app::Shared;
use crate::auth::{Token, TokenKind};
use crate::clock::rfc3339;
use crate::store::people::{TOKENS_PER_USER_MAX, TokenListed};
use crate::store::{NewToken, StoreError};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use proto_core::wire::api::{
    ChangePassword, CreateToken, CreatedToken, TokenInfo, TokenScope, TokenUse, Tokens,
};

const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// How long a token is good if nobody says: a quarter of a year, so that what is forgotten ends by itself.
const DAYS: u32 = 90;
/// The longest that a token can be good.
const DAYS_MAX: u32 = 365;
/// Letters of a token's name.
const NAME_MAX: usize = 64;

/// One's logins, and tokens for programs.
#[utoipa::path(
    get,
    path = "/tokens",
    operation_id = "list_tokens",
    tag = "people",
    responses((status = 200, description = "The newest first", body = Tokens)),
)]
pub(super) async fn list(State(app): State<Shared>, person: Person) -> Result<Json<Tokens>, ApiError> {
    let rows = app.store.tokens_of(&person.user.id, app.clock.now()).await?;
    Ok(Json(Tokens { tokens: rows.iter().map(|row| document(row, &person.token_id)).collect() }))
}

/// Makes a token for a program; for people who have logged in.
#[utoipa::path(
    post,
    path = "/tokens",
    operation_id = "create_token",
    tag = "people",
    request_body = CreateToken,
    responses((status = 201, description = "The token, shown only here", body = CreatedToken)),
)]
pub(super) async fn create(
    State(app): State<Shared>,
    person: Person,
    Document(wanted): Document<CreateToken>,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    // Else one that ends could make one that ends later, and on and on.
    person.logged_in("makes tokens")?;
    let name = wanted.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(ApiError::field("name", format!("a token's name has 1 to {NAME_MAX} letters")));
    }
    let days = wanted.expires_in_days.unwrap_or(DAYS);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(ApiError::field("expires_in_days", format!("a token is good for 1 to {DAYS_MAX} days")));
    }
    let now = app.clock.now();
    let token = Token::generate(TokenKind::Api).map_err(|fault| ApiError::internal(&fault.message))?;
    let expires_at = now + i64::from(days) * DAY_MS;
    let row = NewToken {
        kind: TokenKind::Api,
        name: name.clone(),
        scope: wanted.scope,
        ..NewToken::of_session(token.sha256(), &person.user.id, expires_at)
    };
    let id = app.store.add_token(row, now).await.map_err(|error| match error {
        StoreError::TooMany => {
            let kind = (StatusCode::CONFLICT, "TOO_MANY_TOKENS", "too many tokens");
            let detail = format!("you have {TOKENS_PER_USER_MAX} tokens, as many as one person may have");
            ApiError::new(kind, detail, "revoke one that nobody uses any more")
        }
        other => other.into(),
    })?;
    person.note(&app, "token.create", &name, &format!("{} for {days} days", word(wanted.scope))).await;
    let listed = TokenListed {
        id,
        kind: TokenKind::Api,
        name,
        scope: wanted.scope,
        created_at: now,
        expires_at: Some(expires_at),
        last_used_at: None,
    };
    let info = document(&listed, &person.token_id);
    Ok((StatusCode::CREATED, Json(CreatedToken { token: token.text().to_owned(), info })))
}

/// Ends a login or token of one's own; owners and admins end anybody's.
#[utoipa::path(
    delete,
    path = "/tokens/{id}",
    operation_id = "revoke_token",
    tag = "people",
    responses((status = 204, description = "It is good no more")),
)]
pub(super) async fn revoke(
    State(app): State<Shared>,
    person: Person,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let only = (!person.user.role.administers()).then_some(person.user.id.as_str());
    app.store.revoke_token(&id, only).await.map_err(|error| match error {
        StoreError::Missing => {
            let kind = (StatusCode::NOT_FOUND, "TOKEN_NOT_FOUND", "there is no such token");
            ApiError::new(kind, format!("you have no token {id}"), "it may have ended already")
        }
        other => other.into(),
    })?;
    // First the token, then what it opened: whoever comes in between finds the door closed.
    app.hub.expel_token(&id, "the token was revoked").await;
    app.revoked();
    person.note(&app, "token.revoke", &id, "").await;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes one's own password; all other logins end.
#[utoipa::path(
    post,
    path = "/me/password",
    tag = "people",
    request_body = ChangePassword,
    responses((status = 204, description = "It is changed")),
)]
pub(super) async fn change_password(
    State(app): State<Shared>,
    person: Person,
    Document(wanted): Document<ChangePassword>,
) -> Result<StatusCode, ApiError> {
    person.logged_in("changes a password")?;
    // Who finds a browser open must not find out the password by trying.
    let key = format!("/password {}", person.user.id);
    super::account::may_guess(&app, &key, ("too many wrong passwords", "too many wrong passwords"))?;
    let hash = Some(person.user.password_hash.clone()).filter(|hash| !hash.is_empty());
    if !app.passwords.verify(wanted.old, hash).await {
        app.guesses.wrong(&key, app.clock.now());
        let kind = (StatusCode::FORBIDDEN, "PASSWORD_WRONG", "the old password is wrong");
        return Err(ApiError::new(kind, "the old password is wrong", "an administrator can set a new one"));
    }
    app.guesses.right(&key);
    let password_hash = Some(users::password_hash(&app, "new", wanted.new).await?);
    let change = crate::store::people::UserChange { password_hash, ..Default::default() };
    app.store.change_user(&person.user.id, change, app.clock.now()).await?;
    for ended in app.store.end_sessions(&person.user.id, Some(&person.token_id)).await? {
        app.hub.expel_token(&ended, "the password was changed").await;
    }
    app.revoked();
    person.note(&app, "password.change", &person.user.name, "").await;
    Ok(StatusCode::NO_CONTENT)
}

const fn word(scope: TokenScope) -> &'static str {
    match scope {
        TokenScope::All => "all",
        TokenScope::Read => "read",
    }
}

fn document(row: &TokenListed, current: &str) -> TokenInfo {
    TokenInfo {
        id: row.id.clone(),
        name: row.name.clone(),
        kind: if row.kind == TokenKind::Api { TokenUse::Api } else { TokenUse::Session },
        scope: row.scope,
        created_at: rfc3339(row.created_at),
        expires_at: row.expires_at.map(rfc3339),
        last_used_at: row.last_used_at.map(rfc3339),
        current: row.id == current,
    }
}

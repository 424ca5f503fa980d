//! Who asks: the token of a request, in its header or, from a browser, in a cookie.

use super::cookie;
use super::problem::ApiError;
use crate::app::{App, Shared};
use crate::auth::{TokenKind, token};
use crate::clock::rfc3339;
use crate::store::{TokenRow, UserRow};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};

/// A person with a session.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// Who.
    pub(crate) user: UserRow,
    /// The session's row.
    pub(crate) token_id: String,
    /// When the session ends, in unix milliseconds.
    pub(crate) expires_at: i64,
}

impl FromRequestParts<Shared> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, ApiError> {
        let row = authenticate(app, &parts.method, &parts.headers).await?;
        match (row.kind, row.user) {
            (TokenKind::Session, Some(user)) => {
                Ok(Self { user, token_id: row.id, expires_at: row.expires_at.unwrap_or(i64::MAX) })
            }
            (kind, _) => Err(wrong_kind(kind)),
        }
    }
}

fn wrong_kind(kind: TokenKind) -> ApiError {
    ApiError::new(
        (StatusCode::FORBIDDEN, "TOKEN_WRONG_KIND", "another kind of token is needed"),
        format!("this needs a person's session, and the token is of the kind \"{}\"", kind.name()),
        "log in with `warren login URL`",
    )
}

/// The valid token of a request.
///
/// # Errors
/// 401 if there is none, it is unknown here, or it has expired; 403 if a browser sent it for another's page.
pub(crate) async fn authenticate(
    app: &App,
    method: &Method,
    headers: &HeaderMap,
) -> Result<TokenRow, ApiError> {
    let refused = |code, title, detail: String, hint: &str| {
        Err(ApiError::new((StatusCode::UNAUTHORIZED, code, title), detail, hint))
    };
    let Some(text) = text(app, headers) else {
        let detail = "this needs a token, and the request has none".to_owned();
        return refused("TOKEN_MISSING", "not logged in", detail, "log in with `warren login URL`");
    };
    // Browsers add cookies by themselves, whoever's page asks.
    if bearer(headers).is_none() && !cookie::only_looks(method, headers) {
        cookie::same_origin(&app.access_url, headers)?;
    }
    let sha256 = token::sha256_of(text);
    let row = app.store.token(sha256).await?;
    let Some(row) = row.filter(|row| token::same(&row.sha256, &sha256)) else {
        let detail = "the token is not known here: it is mistyped, revoked, or another server's".to_owned();
        let hint =
            "log in again with `warren login URL`; an agent needs the token of a workspace that exists";
        return refused("TOKEN_UNKNOWN", "the token is not known", detail, hint);
    };
    match row.expires_at {
        Some(end) if row.has_ended(app.clock.now()) => {
            let detail = format!("the session ended at {}", rfc3339(end));
            refused("TOKEN_EXPIRED", "the session has ended", detail, "log in again with `warren login URL`")
        }
        _ => Ok(row),
    }
}

/// The token that a request comes with, good or not.
pub(super) fn text<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    bearer(headers).or_else(|| cookie::value(headers, cookie::name(&app.access_url)))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, text) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let text = text.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !text.is_empty()).then_some(text)
}

//! Who asks: the token of a request, in its header or, from a browser, in a cookie.

use super::call::Call;
use super::problem::ApiError;
use super::{audit, cookie};
use crate::app::{App, Shared};
use crate::auth::{TokenKind, token};
use crate::clock::rfc3339;
use crate::store::{TokenRow, UserRow};
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use proto_core::wire::api::TokenScope;

/// A person with a session.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    /// Who.
    pub(crate) user: UserRow,
    /// The token's row.
    pub(crate) token_id: String,
    /// Whether the person logged in, or else made the token for a program.
    pub(crate) kind: TokenKind,
    /// What was asked, and from where.
    pub(crate) call: Call,
    /// When the session ends, in unix milliseconds.
    pub(crate) expires_at: i64,
}

impl FromRequestParts<Shared> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, ApiError> {
        let row = authenticate(app, &parts.method, &parts.headers).await?;
        let call = parts.extensions.get::<Call>().cloned().unwrap_or_default();
        match (row.kind, row.user) {
            (kind @ (TokenKind::Session | TokenKind::Api), Some(user)) => {
                let expires_at = row.expires_at.unwrap_or(i64::MAX);
                Ok(Self { user, token_id: row.id, kind, call, expires_at })
            }
            (kind, _) => Err(wrong_kind(kind)),
        }
    }
}

impl Person {
    /// Refuses what a token for a program may not do, whatever its scope.
    ///
    /// # Errors
    /// 403 if the person did not log in.
    pub(crate) fn logged_in(&self, does: &str) -> Result<(), ApiError> {
        if self.kind == TokenKind::Session {
            return Ok(());
        }
        let kind = (StatusCode::FORBIDDEN, "SESSION_REQUIRED", "only who has logged in may do this");
        let detail =
            format!("only a person who has logged in {does}, and this came with a token for programs");
        Err(ApiError::new(kind, detail, "log in with `warren login URL`"))
    }

    /// Notes in the audit log what the person did.
    pub(crate) async fn note(&self, app: &App, action: &str, target: &str, detail: &str) {
        audit::note(app, &self.call, &self.user.name, (action, target, detail)).await;
    }
}

/// Whether the bearer is not a person who is locked out.
fn may_act(row: &TokenRow) -> bool {
    row.user.as_ref().is_none_or(|user| user.disabled_at.is_none())
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
        _ if !may_act(&row) => {
            let detail = "the person of this token is locked out".to_owned();
            refused("USER_DISABLED", "locked out", detail, "ask an administrator")
        }
        _ if row.scope == TokenScope::Read && !cookie::only_looks(method, headers) => {
            let kind = (StatusCode::FORBIDDEN, "SCOPE_TOO_SMALL", "the token may only look");
            let detail = "the token was made for looking, and this changes or opens something";
            Err(ApiError::new(kind, detail, "use a token of the scope \"all\""))
        }
        _ => {
            note_use(app, &row).await;
            Ok(row)
        }
    }
}

/// Notes that a person's token is in use, once a minute: more often it would only cost.
async fn note_use(app: &App, row: &TokenRow) {
    let now = app.clock.now();
    let fresh = row.last_used_at.is_some_and(|last| now - last < USE_NOTED_MS);
    if row.user.is_none() || fresh {
        return;
    }
    if let Err(error) = app.store.token_used(&row.id, now).await {
        tracing::error!("can't note that a token was used: {error}");
    }
}

/// How exactly the use of a token is noted, in milliseconds.
const USE_NOTED_MS: i64 = 60_000;

/// The token that a request comes with, good or not.
pub(super) fn text<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    bearer(headers).or_else(|| cookie::value(headers, cookie::name(&app.access_url)))
}

/// The token that a request for an app on a path comes with. The app's own pages may send tokens of the app's beside it.
pub(crate) fn to_app<'a>(app: &App, headers: &'a HeaderMap) -> Option<&'a str> {
    of_warren(headers).or_else(|| cookie::value(headers, cookie::name(&app.access_url)))
}

/// The token of Warren's that a program sent; what else is there is for the app.
pub(crate) fn of_warren(headers: &HeaderMap) -> Option<&str> {
    bearer(headers).filter(|text| text.starts_with("warren_"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, text) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let text = text.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !text.is_empty()).then_some(text)
}

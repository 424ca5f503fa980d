//! Logging in by an OpenID Connect provider. These are pages for browsers: whatever happens, they lead on.

use super::account::{SESSION_MS, grant};
use super::call::Call;
use super::workspaces::ME;
use super::{audit, cookie};
use crate::app::{App, Shared};
use crate::auth::oidc::{Identity, OidcError, Pending, Provider};
use crate::auth::token::same;
use crate::names;
use crate::store::{NewUser, StoreError, UserRow};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use proto_core::wire::api::Role;
use serde::Deserialize;

/// How long somebody may take at the provider, in seconds.
const PENDING_S: i64 = 600;
/// The longest path to go on to, in bytes.
const NEXT_MAX: usize = 512;
/// How many names are tried for somebody new.
const NAMES_TRIED: usize = 50;

/// Where to go on afterwards.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Begin {
    /// A path of this server; the front page if absent.
    next: Option<String>,
}

/// What the provider sends somebody back with.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Back {
    /// What the server was given when it sent him there.
    state: Option<String>,
    /// What to fetch the ID token with.
    code: Option<String>,
    /// Why there is no code.
    error: Option<String>,
}

/// A query, which browsers may have been given by anybody: what does not read is as good as none.
type Asked<T> = Result<Query<T>, QueryRejection>;

/// Sends a browser to the provider to log in.
#[utoipa::path(
    get,
    path = "/login/oidc",
    operation_id = "begin_oidc_login",
    tag = "people",
    params(Begin),
    responses((status = 303, description = "On to the provider, or back to the login page with the reason")),
    security(())
)]
pub(super) async fn begin(State(app): State<Shared>, query: Asked<Begin>) -> Response {
    let Some(provider) = &app.oidc else { return failed(&app, "OIDC_OFF") };
    let next = safe(query.ok().and_then(|Query(begin)| begin.next).as_deref());
    match provider.begin(app.clock.now()).await {
        Ok((url, pending)) => {
            let Pending { state, nonce, verifier } = pending;
            let value = format!("{state}.{nonce}.{verifier}.{}", BASE64.encode(next));
            onward(&app, &url, &[(cookie::oidc_name(&app.access_url), &value, PENDING_S)])
        }
        Err(error) => {
            tracing::error!("a login by {} could not begin: {error}", provider.name);
            failed(&app, "OIDC_PROVIDER_FAILED")
        }
    }
}

/// Takes a browser back from the provider and logs it in.
#[utoipa::path(
    get,
    path = "/login/oidc/callback",
    operation_id = "finish_oidc_login",
    tag = "people",
    params(Back),
    responses((status = 303, description = "On to where it was meant to go, or to the login page with the reason")),
    security(())
)]
pub(super) async fn finish(
    State(app): State<Shared>,
    call: Call,
    headers: HeaderMap,
    query: Asked<Back>,
) -> Response {
    let Query(back) = query.unwrap_or_default();
    match enter(&app, &call, &headers, back).await {
        Ok((user, next)) => {
            let Ok(granted) = grant(&app, &user).await else { return failed(&app, "INTERNAL") };
            audit::note(&app, &call, &user.name, ("login.oidc", &user.name, "")).await;
            let session = (cookie::name(&app.access_url), granted.token.as_str(), SESSION_MS / 1_000);
            onward(&app, &next, &[session, (cookie::oidc_name(&app.access_url), "", 0)])
        }
        Err(code) => {
            audit::note_failed(&app, &call, ("", code)).await;
            failed(&app, code)
        }
    }
}

/// Who comes back, and where to go on; or a code that says why not.
async fn enter(
    app: &App,
    call: &Call,
    headers: &HeaderMap,
    back: Back,
) -> Result<(UserRow, String), &'static str> {
    let provider = app.oidc.as_ref().ok_or("OIDC_OFF")?;
    let (pending, next) = pending(app, headers).ok_or("OIDC_LOGIN_UNKNOWN")?;
    // Another's page could send its visitors here with a code of its own.
    if !back.state.is_some_and(|state| same(state.as_bytes(), pending.state.as_bytes())) {
        return Err("OIDC_LOGIN_UNKNOWN");
    }
    if let Some(error) = back.error {
        tracing::info!("{} refused a login: {}", provider.name, error.chars().take(64).collect::<String>());
        return Err("OIDC_REFUSED");
    }
    let code = back.code.ok_or("OIDC_LOGIN_UNKNOWN")?;
    let identity = provider.finish(code, &pending, app.clock.now()).await.map_err(|error| {
        tracing::error!(request_id = call.request_id, "a login by {} failed: {error}", provider.name);
        match error {
            OidcError::Provider(_) => "OIDC_PROVIDER_FAILED",
            OidcError::Token(_) => "OIDC_TOKEN_INVALID",
        }
    })?;
    let user = member(app, provider, call, identity).await?;
    if user.disabled_at.is_some() { Err("USER_DISABLED") } else { Ok((user, next)) }
}

/// The person of this identity; a new member if there is none yet.
async fn member(
    app: &App,
    provider: &Provider,
    call: &Call,
    identity: Identity,
) -> Result<UserRow, &'static str> {
    let failed = |error: StoreError| {
        tracing::error!("can't look up who logs in: {error}");
        "INTERNAL"
    };
    let Identity { issuer, subject, name } = identity;
    if let Some(user) = app.store.user_by_oidc(&issuer, &subject).await.map_err(failed)? {
        return Ok(user);
    }
    if app.store.setup_required().await.map_err(failed)? {
        return Err("SETUP_REQUIRED");
    }
    if !provider.sign_up {
        return Err("OIDC_SIGN_UP_OFF");
    }
    // Never somebody who is here already, whatever the provider calls them: names are not proof.
    for name in free_names(name.as_deref().unwrap_or_default()).take(NAMES_TRIED) {
        let oidc = Some((issuer.clone(), subject.clone()));
        let new = NewUser { name, role: Role::Member, password_hash: String::new(), oidc };
        match app.store.create_user(new, app.clock.now()).await {
            Ok(user) => {
                audit::note(app, call, &user.name, ("user.create", &user.name, "by the provider")).await;
                return Ok(user);
            }
            // The name, or the same person in another tab.
            Err(StoreError::Taken) => {
                if let Some(user) = app.store.user_by_oidc(&issuer, &subject).await.map_err(failed)? {
                    return Ok(user);
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Err("OIDC_NO_NAME_LEFT")
}

/// Names of ours for somebody whom the provider calls so: `Zoë.Müller@example.com` becomes `zo-m-ller`, then
/// `zo-m-ller-2` and so on.
fn free_names(called: &str) -> impl Iterator<Item = String> + use<> {
    let local = called.split('@').next().unwrap_or_default().to_ascii_lowercase();
    let mut name = String::new();
    for c in local.chars().take(28) {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    let name = name.trim_end_matches('-').to_owned();
    let unfit = names::objection("a name", &name).is_some() || name == ME;
    let name = if unfit { "person".to_owned() } else { name };
    (1..).map(move |n| if n == 1 { name.clone() } else { format!("{name}-{n}") })
}

/// What the browser was sent to the provider with.
fn pending(app: &App, headers: &HeaderMap) -> Option<(Pending, String)> {
    let value = cookie::value(headers, cookie::oidc_name(&app.access_url))?;
    let mut parts = value.splitn(4, '.').map(str::to_owned);
    let (state, nonce, verifier, next) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let next = String::from_utf8(BASE64.decode(next).ok()?).ok()?;
    if state.is_empty() || nonce.is_empty() || verifier.is_empty() {
        return None;
    }
    Some((Pending { state, nonce, verifier }, safe(Some(&next))))
}

/// A path of this server, else the front page: nobody is sent elsewhere.
fn safe(next: Option<&str>) -> String {
    let ours = |next: &&str| {
        let visible = next.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'\\');
        next.starts_with('/') && !next.starts_with("//") && next.len() <= NEXT_MAX && visible
    };
    next.filter(ours).unwrap_or("/").to_owned()
}

fn failed(app: &App, code: &str) -> Response {
    onward(app, &format!("/login?error={code}"), &[(cookie::oidc_name(&app.access_url), "", 0)])
}

/// Sends the browser on, with cookies: name, value and seconds.
fn onward(app: &App, to: &str, cookies: &[(&str, &str, i64)]) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let Ok(location) = HeaderValue::from_str(to) else { return StatusCode::BAD_GATEWAY.into_response() };
    response.headers_mut().insert(LOCATION, location);
    for (name, value, seconds) in cookies {
        match cookie::line(&app.access_url, name, value, *seconds) {
            Ok(line) => response.headers_mut().append(SET_COOKIE, line),
            Err(error) => return error.into_response(),
        };
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for ours in ["/", "/workspaces/alice/dev?tab=paths", "/login#x"] {
            assert_eq!(safe(Some(ours)), ours);
        }
        let long = format!("/{}", "a".repeat(NEXT_MAX));
        for foreign in
            ["", "//evil.example", "/\\evil.example", "https://evil.example", "a", "/a\r\nb", &long]
        {
            assert_eq!(safe(Some(foreign)), "/", "{foreign}");
        }
        assert_eq!(safe(None), "/");
    }

    #[test]
    fn names_are_made_of_what_the_provider_says() {
        let first = |called: &str| free_names(called).next().unwrap();
        assert_eq!(first("Zoe"), "zoe");
        assert_eq!(first("zoe.m@example.com"), "zoe-m");
        assert_eq!(first("--Zo\u{eb}--"), "zo");
        assert_eq!(
            (first(""), first("@"), first("\u{4e00}")),
            ("person".into(), "person".into(), "person".into())
        );
        assert_eq!(first("me@example.com"), "person", "a name that stands for everybody");
        assert_eq!(free_names("zoe").nth(2).unwrap(), "zoe-3");
        let long = free_names(&"ab".repeat(40)).nth(NAMES_TRIED).unwrap();
        assert_eq!(names::objection("a name", &long), None, "{long}");
    }
}

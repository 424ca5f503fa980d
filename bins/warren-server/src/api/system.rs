//! The server itself: is it well, what is it, which relays are there.

use super::problem::ApiError;
use crate::app::Shared;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY};
use axum::response::{Html, IntoResponse, Redirect, Response};
use proto_core::wire::api::BuildInfo;
use proto_core::wire::control;

/// The program's name and version, as others are told.
pub(crate) const BUILD: &str = concat!("warren-server ", env!("CARGO_PKG_VERSION"));

/// The process runs.
pub(super) async fn healthz() -> &'static str {
    "OK\n"
}

/// The server takes work: its database answers, so does its STUN server, and it is not about to stop.
pub(super) async fn readyz(State(app): State<Shared>) -> Result<&'static str, ApiError> {
    if *app.draining.borrow() {
        return Err(ApiError::draining());
    }
    app.store.ping().await.map_err(|error| {
        let kind = (StatusCode::SERVICE_UNAVAILABLE, "DATABASE_UNREACHABLE", "the database does not answer");
        ApiError::new(kind, error.to_string(), "look at the server's log")
    })?;
    stun_answers(app.stun_down.borrow().as_deref())?;
    Ok("OK\n")
}

/// Without STUN, no node learns its address from this server, and new paths stay relayed.
fn stun_answers(down: Option<&str>) -> Result<(), ApiError> {
    let Some(why) = down else { return Ok(()) };
    let kind = (StatusCode::SERVICE_UNAVAILABLE, "STUN_DOWN", "the STUN server answers nobody");
    let detail = format!("the STUN server can't receive: {why}");
    Err(ApiError::new(kind, detail, "it is tried again by itself; look at the server's log"))
}

pub(super) async fn build_info(State(app): State<Shared>) -> Result<Json<BuildInfo>, ApiError> {
    Ok(Json(BuildInfo {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        coordination: control::VERSION.to_owned(),
        access_url: app.access_url.to_string(),
        setup_required: app.store.setup_required().await?,
    }))
}

/// The relay map in force. It is no secret: every node is told it, and relays admit by key.
pub(super) async fn derp_map(State(app): State<Shared>) -> Response {
    let json = app.relay_map.borrow().to_json();
    ([(CONTENT_TYPE, "application/json")], json).into_response()
}

pub(super) async fn home(State(app): State<Shared>) -> Result<Response, ApiError> {
    if app.store.setup_required().await? {
        return Ok(Redirect::temporary("/setup").into_response());
    }
    Ok(format!("{BUILD}\n\nLog in with `warren login {}`.\n", app.access_url).into_response())
}

/// The page behind the one-time link. The token is in the link's fragment, which browsers keep to themselves.
pub(super) async fn setup_page() -> Response {
    page(include_str!("setup.html"))
}

pub(super) async fn setup_script() -> Response {
    script(include_str!("setup.js"))
}

/// Where a person confirms a login that a program waits for.
pub(super) async fn login_page() -> Response {
    page(include_str!("login.html"))
}

pub(super) async fn login_script() -> Response {
    script(include_str!("login.js"))
}

fn page(text: &'static str) -> Response {
    const POLICY: &str = concat!(
        "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; form-action 'none'; ",
        "base-uri 'none'; frame-ancestors 'none'; script-src 'self'"
    );
    let headers: [(HeaderName, &str); 2] =
        [(CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer")];
    (headers, Html(text)).into_response()
}

fn script(text: &'static str) -> Response {
    ([(CONTENT_TYPE, "text/javascript")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_stun_is_not_ready() {
        assert!(stun_answers(None).is_ok());
        let answer = stun_answers(Some("the address is not there")).unwrap_err().into_response();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

//! The server itself: is it well, what is it, which relays are there.

use super::problem::ApiError;
use crate::app::Shared;
use crate::dashboard;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Redirect, Response};
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

/// What the server is.
#[utoipa::path(
    get,
    path = "/buildinfo",
    tag = "server",
    responses((status = 200, description = "Its version and address", body = BuildInfo)),
    security(())
)]
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
#[utoipa::path(
    get,
    path = "/derp-map",
    tag = "server",
    responses((status = 200, description = "Tailscale's DERPMap document", body = serde_json::Value)),
    security(())
)]
pub(super) async fn derp_map(State(app): State<Shared>) -> Response {
    let json = app.relay_map.borrow().to_json();
    ([(CONTENT_TYPE, "application/json")], json).into_response()
}

/// The dashboard, or what comes before it.
pub(super) async fn home(State(app): State<Shared>, headers: HeaderMap) -> Result<Response, ApiError> {
    if app.store.setup_required().await? {
        return Ok(Redirect::temporary("/setup").into_response());
    }
    Ok(dashboard::page(&headers))
}

/// A page of the dashboard. Tokens and codes in its link are in the fragment, which browsers keep to themselves.
pub(super) async fn page(headers: HeaderMap) -> Response {
    dashboard::page(&headers)
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

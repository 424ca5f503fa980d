//! The coordinator's door: a WebSocket, opened only for those whose token says who they are.

use super::Remote;
use super::bearer;
use super::problem::ApiError;
use crate::app::Shared;
use crate::hub::principal;
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::response::{IntoResponse, Response};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The coordinator's door, for nodes.
///
/// Refuses with a problem before the upgrade, so that the reason reaches the user; then hands the connection to
/// the coordinator.
#[utoipa::path(
    get,
    path = "/coordinate",
    tag = "nodes",
    responses((status = 101, description = "A WebSocket of coordination messages")),
)]
pub(super) async fn coordinate(
    State(app): State<Shared>,
    remote: Option<Extension<Remote>>,
    request: Request,
) -> Result<Response, ApiError> {
    open(app, remote, request).await.map_err(ApiError::for_node)
}

async fn open(
    app: Shared,
    remote: Option<Extension<Remote>>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let row = bearer::authenticate(&app, request.method(), request.headers()).await?;
    let Some(principal) = principal(&row) else {
        let status = (StatusCode::FORBIDDEN, "TOKEN_WRONG_KIND", "another kind of token is needed");
        let detail =
            format!("a token of the kind \"{}\" opens no connection to the coordinator", row.kind.name());
        return Err(ApiError::new(status, detail, "log in with `warren login URL`"));
    };
    if *app.draining.borrow() {
        return Err(ApiError::draining());
    }
    let Some(accept) = accept_key(request.headers()) else {
        let kind = (StatusCode::UPGRADE_REQUIRED, "WEBSOCKET_REQUIRED", "a WebSocket is needed");
        return Err(ApiError::new(kind, "this path speaks WebSocket (RFC 6455, version 13) only", ""));
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let from = remote.map(|Extension(Remote(from))| from);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => app.hub.serve_control(upgraded, principal, &row).await,
            Err(error) => tracing::debug!(?from, "the upgrade to WebSocket failed: {error}"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// The answer to a WebSocket handshake, if the request is one.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let says = |name, word: &str| {
        let value = headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        value.is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    if !(says(UPGRADE, "websocket") && says(CONNECTION, "upgrade") && says(SEC_WEBSOCKET_VERSION, "13")) {
        return None;
    }
    HeaderValue::from_str(&derive_accept_key(headers.get(SEC_WEBSOCKET_KEY)?.as_bytes())).ok()
}

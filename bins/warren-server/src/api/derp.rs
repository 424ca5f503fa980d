//! The embedded relay's door: `/derp`, its probes, and the captive portal check.

use super::Remote;
use super::problem::ApiError;
use crate::app::Shared;
use crate::hub;
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use io_adapters::relay_listener::http::{derp_fields, no_content_fields};

/// Turns an HTTP connection into a DERP one. Any method will do, and any form of target: clients differ.
pub(super) async fn derp(
    State(app): State<Shared>,
    remote: Option<Extension<Remote>>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let Some(relay) = app.hub.relay().cloned() else {
        let kind = (StatusCode::NOT_FOUND, "RELAY_OFF", "there is no relay here");
        return Err(ApiError::new(
            kind,
            "the embedded relay is off",
            "use a relay of the map /api/v1/derp-map",
        ));
    };
    if *app.draining.borrow() {
        return Err(ApiError::draining());
    }
    if !asks_for_derp(request.headers()) {
        let headers = [(UPGRADE, "DERP"), (CONNECTION, "Upgrade")];
        return Ok((StatusCode::UPGRADE_REQUIRED, headers, "DERP is spoken here\n").into_response());
    }
    let fields = derp_fields(&relay.public());
    let upgrade = hyper::upgrade::on(&mut request);
    let from = remote.map(|Extension(Remote(from))| from);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => hub::serve_relay(relay, upgraded).await,
            Err(error) => tracing::debug!(?from, "the upgrade to DERP failed: {error}"),
        }
    });
    Ok(with_fields(StatusCode::SWITCHING_PROTOCOLS, fields))
}

/// Old clients ask for a WebSocket without naming what they want in it, and mean DERP without one.
fn asks_for_derp(headers: &HeaderMap) -> bool {
    let asked = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    asked.eq_ignore_ascii_case("derp")
        || (asked.eq_ignore_ascii_case("websocket") && !headers.contains_key(SEC_WEBSOCKET_PROTOCOL))
}

fn with_fields(status: StatusCode, fields: impl IntoIterator<Item = (&'static str, String)>) -> Response {
    let mut response = status.into_response();
    for (name, value) in fields {
        // Their makers take care of what is in them.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// What clients time: an empty answer. It is there even when the relay is off.
pub(super) async fn probe(method: Method) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, [("Allow", "GET, HEAD")]).into_response();
    }
    ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], ()).into_response()
}

/// The captive portal check: whoever answers anything else is a portal. A challenge proves that it was us.
pub(super) async fn generate_204(headers: HeaderMap) -> Response {
    let challenge = headers.get("X-Tailscale-Challenge").and_then(|value| value.to_str().ok());
    with_fields(StatusCode::NO_CONTENT, no_content_fields(challenge))
}

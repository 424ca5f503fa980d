//! The embedded relay's door as far as it is HTTP: why there is no DERP, the probes, and the captive portal
//! check. Whoever asks rightly is let in before, by the listener.

use super::problem::ApiError;
use crate::app::Shared;
use axum::extract::State;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use io_adapters::relay_listener::http::no_content_fields;

/// Why this request gets no DERP.
pub(super) async fn derp(State(app): State<Shared>) -> Result<Response, ApiError> {
    if app.hub.relay().is_none() {
        let kind = (StatusCode::NOT_FOUND, "RELAY_OFF", "there is no relay here");
        return Err(ApiError::new(
            kind,
            "the embedded relay is off",
            "use a relay of the map /api/v1/derp-map",
        ));
    }
    if *app.draining.borrow() {
        return Err(ApiError::draining());
    }
    let headers = [(UPGRADE, "DERP"), (CONNECTION, "Upgrade")];
    Ok((StatusCode::UPGRADE_REQUIRED, headers, "DERP is spoken here\n").into_response())
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

//! The embedded relay's door: `/derp`, its probes, and the captive portal check.

use super::Remote;
use super::problem::ApiError;
use crate::app::Shared;
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONNECTION, HeaderMap, HeaderValue, UPGRADE,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

/// The version of DERP that the answer names (`derp-and-disco`, section 1.4).
const DERP_VERSION: &str = "2";

/// Turns an HTTP connection into a DERP one. Any method will do, and any form of target: clients differ.
pub(super) async fn derp(
    State(app): State<Shared>,
    remote: Option<Extension<Remote>>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let Some(public) = app.hub.relay_public() else {
        let kind = (StatusCode::NOT_FOUND, "RELAY_OFF", "there is no relay here");
        return Err(ApiError::new(kind, "the embedded relay is off", "use a relay of the map /api/v1/derp-map"));
    };
    if *app.draining.borrow() {
        return Err(ApiError::draining());
    }
    let asked = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
    if !asked.is_some_and(|asked| asked.eq_ignore_ascii_case("derp")) {
        let text = "DERP requires connection upgrade\n";
        return Ok((StatusCode::UPGRADE_REQUIRED, [(UPGRADE, "DERP"), (CONNECTION, "Upgrade")], text).into_response());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let from = remote.map(|Extension(Remote(from))| from);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => app.hub.serve_relay(upgraded, from).await,
            Err(error) => tracing::debug!(?from, "the upgrade to DERP failed: {error}"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("DERP"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert("Derp-Version", HeaderValue::from_static(DERP_VERSION));
    if let Ok(value) = HeaderValue::from_str(&public.to_hex()) {
        headers.insert("Derp-Public-Key", value);
    }
    Ok(response)
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
    const NEVER: &str = "no-cache, no-store, must-revalidate, no-transform, max-age=0";
    let mut response = (StatusCode::NO_CONTENT, [(CACHE_CONTROL, NEVER)]).into_response();
    let challenge = headers.get("X-Tailscale-Challenge").and_then(|value| value.to_str().ok());
    let plain = |c: &str| {
        (1..=64).contains(&c.len()) && c.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
    };
    if let Some(challenge) = challenge.filter(|c| plain(c))
        && let Ok(value) = HeaderValue::from_str(&format!("response {challenge}"))
    {
        response.headers_mut().insert("X-Tailscale-Response", value);
    }
    response
}

//! May this node use a relay? What relays ask, ours and Tailscale's `derper` alike (`--verify-client-url`).
//!
//! Anybody may ask, since a relay has no login here. All that an answer tells is whether a key belongs to this
//! deployment, and only to those who have the key already: 256 bits are not guessed. Nodes that are here are looked
//! up in memory and always get their yes. For all others the database is asked, a few times for each source: then
//! the answer is "not now", which costs nobody his place at a relay.

use super::problem::ApiError;
use super::{Remote, private};
use crate::app::Shared;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use core::net::IpAddr;
use proto_core::wire::verify::{VerifyAnswer, VerifyRequest};

/// Answers a relay's question. Relays do not say that they send JSON.
pub(super) async fn verify(
    State(app): State<Shared>,
    remote: Option<Extension<Remote>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let asked: VerifyRequest = serde_json::from_slice(&body).map_err(|why| {
        let kind = (StatusCode::BAD_REQUEST, "BODY_INVALID", "the request's body will not do");
        let form = r#"send {"NodePublic":"nodekey:...","Source":"192.0.2.1"}"#;
        ApiError::new(kind, format!("this is no question about a node: {why}"), form)
    })?;
    let allow = app.health.is_own_key(&asked.node_public)
        || app.hub.knows_key(asked.node_public).await
        || known(&app, remote, &asked).await?;
    Ok(private(Json(VerifyAnswer { allow }).into_response()).await)
}

/// Whether the database knows the key of a node that is not here.
async fn known(
    app: &Shared,
    remote: Option<Extension<Remote>>,
    asked: &VerifyRequest,
) -> Result<bool, ApiError> {
    let relay = remote.map(|Extension(Remote(from))| from.ip());
    // What it says of its client is a relay's own word, and counts for that relay alone.
    let source = format!("{relay:?} {:?}", asked.source.parse::<IpAddr>().ok());
    let now = app.clock.now();
    let wait = app.key_guesses.wait_ms(&source, now);
    if wait > 0 {
        let kind = (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_GUESSES", "too many unknown keys");
        let detail = "too many keys that nobody here has came from this source";
        return Err(ApiError::new(kind, detail, "ask again later").after(wait / 1_000 + 1));
    }
    let known = app.store.knows_node_key(asked.node_public.0, now).await?;
    if !known {
        app.key_guesses.wrong(&source, now);
    }
    Ok(known)
}

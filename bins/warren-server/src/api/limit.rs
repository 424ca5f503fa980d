//! How much of the API one token or one address may use.

use super::bearer;
use super::call::Call;
use super::problem::ApiError;
use crate::app::{App, Shared};
use crate::auth::rates::Key;
use crate::auth::token::sha256_of;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Counts a request (whose path is that below `/api/v1`) for its token, or else for its address. Tokens that are not good count for the address too, so
/// that nobody draws new ones to have more.
pub(super) async fn limit(State(app): State<Shared>, call: Call, request: Request, next: Next) -> Response {
    // As cheap as `/healthz`, and what the server asks itself to see where its access URL leads.
    if request.uri().path() == "/buildinfo" {
        return next.run(request).await;
    }
    let token = bearer::text(&app, request.headers()).map(|text| Key::Token(sha256_of(text)));
    let address = call.address.map(Key::address);
    let with_token = token.is_some();
    // A node reads its refusal in the coordinator's words.
    let to_node = request.uri().path() == "/coordinate";
    let refuse = |error: ApiError| if to_node { error.for_node() } else { error }.into_response();
    if let Some(refused) = token.or_else(|| address.clone()).and_then(|key| taken(&app, key).err()) {
        return refuse(refused);
    }
    let response = next.run(request).await;
    match address {
        Some(address) if with_token && response.status() == StatusCode::UNAUTHORIZED => {
            taken(&app, address).map_or_else(refuse, |()| response)
        }
        _ => response,
    }
}

fn taken(app: &App, key: Key) -> Result<(), ApiError> {
    let whose = match &key {
        Key::Token(_) => "with this token",
        Key::Address(_) => "from this address without a good token",
    };
    app.rates.take(key, app.clock.now()).map_err(|wait_ms| {
        let seconds = wait_ms / 1_000 + 1;
        let kind = (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", "too many requests");
        let hint = format!("wait {seconds} s; an operator can allow more with `--api-rate-limit`");
        ApiError::new(kind, format!("too many requests came {whose}"), hint).after(seconds)
    })
}

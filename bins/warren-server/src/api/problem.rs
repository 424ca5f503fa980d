//! Errors as RFC 9457 writes them: `application/problem+json` with a code, a sentence and a hint.

use crate::dashboard;
use crate::store::StoreError;
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use proto_core::wire::api::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// For a whole body; the greatest is 64 KiB.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a request was not done.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    problem: Box<Problem>,
    retry_after_s: Option<i64>,
    to_node: bool,
}

impl ApiError {
    /// A problem: status, code, and its kind in a few words; what happened; what to do.
    pub(crate) fn new(
        (status, code, title): (StatusCode, &str, &str),
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let problem = Problem {
            status: status.as_u16(),
            code: code.to_owned(),
            title: title.to_owned(),
            detail: detail.into(),
            hint: hint.into(),
            request_id: String::new(),
            nearest: Vec::new(),
        };
        Self { problem: Box::new(problem), retry_after_s: None, to_node: false }
    }

    /// A field of the request will not do.
    pub(crate) fn field(field: &str, why: impl Into<String>) -> Self {
        let kind = (StatusCode::UNPROCESSABLE_ENTITY, "FIELD_INVALID", "a field will not do");
        Self::new(kind, format!("{field}: {}", why.into()), "")
    }

    /// The database or the system failed: the log has the reason, the asker gets none.
    pub(crate) fn internal(why: &str) -> Self {
        tracing::error!("a request failed: {why}");
        let kind = (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "the server failed");
        Self::new(kind, "the server could not do this", "try again; the server's log says why")
    }

    /// The server is about to stop.
    pub(crate) fn draining() -> Self {
        let kind = (StatusCode::SERVICE_UNAVAILABLE, "DRAINING", "the server is about to stop");
        Self::new(kind, "the server is about to stop", "try again in a few seconds").after(5)
    }

    /// The answer's status.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Its code, its sentence and what to do, where it is told otherwise than by an answer.
    pub(crate) fn told(&self) -> (&str, &str, &str) {
        (&self.problem.code, &self.problem.detail, &self.problem.hint)
    }

    /// Adds names like the one that was not found.
    pub(crate) fn nearest(mut self, names: Vec<String>) -> Self {
        self.problem.nearest = names;
        self
    }

    /// Makes the answer a coordination message as well (`refused`), since it goes to a node: `type` is a
    /// reference in RFC 9457, so one document can be both.
    pub(crate) const fn for_node(mut self) -> Self {
        self.to_node = true;
        self
    }

    /// The same, of the request of this id.
    pub(super) fn named(mut self, request_id: &str) -> Self {
        request_id.clone_into(&mut self.problem.request_id);
        self
    }

    /// The document.
    pub(super) fn json(&self) -> Vec<u8> {
        let refusal = Refusal { r#type: "refused", message: &self.problem.detail, problem: &self.problem };
        let json =
            if self.to_node { serde_json::to_vec(&refusal) } else { serde_json::to_vec(&self.problem) };
        // Texts and a number: there is nothing in it that is not JSON.
        json.unwrap_or_default()
    }

    /// Adds how many seconds to wait.
    pub(crate) fn after(mut self, seconds: i64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.json()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // For [`super::call::name`], which knows what the request is called.
        response.extensions_mut().insert(self);
        response
    }
}

/// A problem that reads as [`proto_core::wire::control::ToNode::Refused`] too.
#[derive(Serialize)]
struct Refusal<'a> {
    r#type: &'static str,
    message: &'a str,
    #[serde(flatten)]
    problem: &'a Problem,
}

/// A JSON document in a request's body, whose faults are problems too.
pub(crate) struct Document<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Document<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match tokio::time::timeout(BODY_TIMEOUT, Json::<T>::from_request(request, state)).await {
            Ok(Ok(Json(document))) => Ok(Self(document)),
            Ok(Err(rejection)) => Err(refusal(&rejection)),
            Err(_) => {
                let kind = (StatusCode::REQUEST_TIMEOUT, "BODY_LATE", "the request's body is late");
                Err(ApiError::new(kind, "the request's body did not arrive in time", "send it at once"))
            }
        }
    }
}

fn refusal(rejection: &JsonRejection) -> ApiError {
    let why = core::error::Error::source(rejection)
        .and_then(|error| error.source())
        .map_or_else(|| rejection.body_text(), ToString::to_string);
    let kind = (rejection.status(), "BODY_INVALID", "the request's body will not do");
    let detail = match rejection {
        JsonRejection::MissingJsonContentType(_) => "the request's body is not declared as JSON".to_owned(),
        _ => format!("the request's body is not the JSON expected: {why}"),
    };
    ApiError::new(
        kind,
        detail,
        "send the header `Content-Type: application/json` and a document of the API's form",
    )
}

/// Bytes of a refusal in plain text: they are a sentence.
const REFUSAL_MAX: usize = 1024;

/// What axum refuses by itself, such as a parameter that is missing, as a problem like all others.
pub(crate) async fn in_one_form(response: Response) -> Response {
    let (status, headers) = (response.status(), response.headers());
    let is_plain = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !is_plain || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, REFUSAL_MAX).await.unwrap_or_default();
    let kind = (status, "REQUEST_INVALID", "the request will not do");
    let hint = "the API is described at /api/docs";
    let problem = ApiError::new(kind, String::from_utf8_lossy(&said), hint).into_response();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.extend(problem.headers().clone());
    parts.extensions.extend(problem.extensions().clone());
    Response::from_parts(parts, problem.into_body())
}

/// For paths that the API does not have: the dashboard's files, or nothing.
pub(crate) async fn other_path(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    dashboard::answer(&method, &uri, &headers).unwrap_or_else(|| no_such_path(&uri).into_response())
}

fn no_such_path(uri: &Uri) -> ApiError {
    let kind = (StatusCode::NOT_FOUND, "PATH_NOT_FOUND", "there is nothing at this path");
    ApiError::new(kind, format!("there is nothing at {}", uri.path()), "the API is under /api/v1")
}

/// For paths that exist, asked in another way. axum adds the methods that would do.
pub(crate) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let kind = (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this path is not asked that way");
    ApiError::new(kind, format!("{} does not take {method}", uri.path()), "")
}

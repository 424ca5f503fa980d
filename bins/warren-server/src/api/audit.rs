//! Who did what: noted as it happens, read by administrators.

use super::account::administering;
use super::bearer::Person;
use super::call::Call;
use super::problem::ApiError;
use crate::app::{App, Shared};
use crate::auth::rates::Key;
use crate::clock::rfc3339;
use crate::store::people::AuditRow;
use axum::Json;
use axum::extract::{Query, State};
use proto_core::wire::api::{Audit, AuditEntry};
use serde::Deserialize;
use uuid::Uuid;

/// Entries in an answer.
const LIMIT_MAX: i64 = 500;
/// The same if nobody says how many.
const LIMIT: i64 = 100;
/// How much of a text that somebody typed is kept, in letters.
const TEXT_MAX: usize = 200;

/// Notes what somebody did. That it cannot be noted is logged, and undoes nothing.
pub(crate) async fn note(app: &App, call: &Call, actor: &str, (action, target, detail): (&str, &str, &str)) {
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect();
    let entry = AuditRow {
        id: Uuid::now_v7().to_string(),
        at: app.clock.now(),
        actor: short(actor),
        action: action.to_owned(),
        target: short(target),
        address: call.address_text(),
        request_id: call.request_id.clone(),
        detail: short(detail),
    };
    if let Err(error) = app.store.note(entry).await {
        tracing::error!("can't note in the audit log that {actor} did {action} on {target}: {error}");
    }
}

/// Notes that somebody did not get in: the first ten times from an address, then once in half a minute, until it was quiet
/// for an hour. Whoever tries all day fills neither the disk nor the page.
pub(crate) async fn note_failed(app: &App, call: &Call, (target, detail): (&str, &str)) {
    let now = app.clock.now();
    let from = format!("{:?}", call.address.map(Key::address));
    if app.failed_logins.wait_ms(&from, now) == 0 {
        app.failed_logins.wrong(&from, now);
        note(app, call, "", ("login.failed", target, detail)).await;
    }
}

/// Which part of the log is asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Only entries before the one of this id.
    before: Option<String>,
    /// At most as many, 1 to 500; 100 if absent.
    limit: Option<i64>,
}

/// Who did what; for owners and admins.
#[utoipa::path(
    get,
    path = "/audit",
    operation_id = "read_audit",
    tag = "people",
    params(Part),
    responses((status = 200, description = "The newest first", body = Audit)),
)]
pub(super) async fn list(
    State(app): State<Shared>,
    person: Person,
    part: Result<Query<Part>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Audit>, ApiError> {
    administering(&person)?;
    let Query(part) = part.map_err(|error| ApiError::field("limit", error.body_text()))?;
    let limit = part.limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(ApiError::field("limit", format!("1 to {LIMIT_MAX} entries come at a time")));
    }
    let rows = app.store.noted(part.before.as_deref(), limit).await?;
    Ok(Json(Audit { entries: rows.into_iter().map(document).collect() }))
}

fn document(row: AuditRow) -> AuditEntry {
    AuditEntry {
        id: row.id,
        at: rfc3339(row.at),
        actor: row.actor,
        action: row.action,
        target: row.target,
        address: row.address,
        request_id: row.request_id,
        detail: row.detail,
    }
}

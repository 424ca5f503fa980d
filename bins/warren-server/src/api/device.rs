//! Logging in by browser: a program asks, a person confirms on the page `/login`, the program fetches its session.

use super::account::{check, grant, may_guess};
use super::audit;
use super::bearer::Person;
use super::call::Call;
use super::problem::{ApiError, Document};
use crate::app::{App, Shared};
use crate::auth::device::{INTERVAL_S, Progress, WAIT_MS};
use crate::store::UserRow;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto_core::wire::api::{ApproveDevice, AskDevice, ConfirmDevice, DeviceGrant, DeviceLogin};

/// The page where a login is confirmed.
pub(super) const PAGE: &str = "/login";

/// Begins a login that a person confirms in a browser (RFC 8628).
#[utoipa::path(
    post,
    path = "/login/device",
    tag = "people",
    responses((status = 201, description = "The codes", body = DeviceLogin)),
    security(())
)]
pub(super) async fn begin(
    State(app): State<Shared>,
    call: Call,
) -> Result<(StatusCode, Json<DeviceLogin>), ApiError> {
    let begun = app
        .devices
        .begin(call.address, app.clock.now())
        .map_err(|fault| ApiError::internal(&fault.message))?;
    // In the fragment, which browsers keep to themselves.
    let verification_url = format!("{}{PAGE}#{}", app.access_url, begun.user_code);
    let login = DeviceLogin {
        device_code: begun.device_code.text().to_owned(),
        user_code: begun.user_code,
        verification_url,
        expires_in: WAIT_MS.unsigned_abs() / 1_000,
        interval: INTERVAL_S,
    };
    Ok((StatusCode::CREATED, Json(login)))
}

/// Confirms a login that a program waits for.
#[utoipa::path(
    post,
    path = "/login/device/approve",
    tag = "people",
    request_body = ApproveDevice,
    responses((status = 204, description = "It is confirmed")),
    security(())
)]
pub(super) async fn approve(
    State(app): State<Shared>,
    call: Call,
    Document(approve): Document<ApproveDevice>,
) -> Result<StatusCode, ApiError> {
    waits(&app, &call, &approve.user_code)?;
    let user = check(&app, &call, approve.login).await?;
    confirmed(&app, &call, (&user, &approve.user_code)).await
}

/// Confirms a login that a program waits for, by the session that the question comes with: also for those who have no
/// password here.
#[utoipa::path(
    post,
    path = "/login/device/confirm",
    operation_id = "confirm_device_login",
    tag = "people",
    request_body = ConfirmDevice,
    responses((status = 204, description = "It is confirmed"))
)]
pub(super) async fn confirm(
    State(app): State<Shared>,
    person: Person,
    Document(confirm): Document<ConfirmDevice>,
) -> Result<StatusCode, ApiError> {
    person.logged_in("may let a program act as itself")?;
    waits(&app, &person.call, &confirm.user_code)?;
    confirmed(&app, &person.call, (&person.user, &confirm.user_code)).await
}

/// Refuses codes that no program shows.
fn waits(app: &App, call: &Call, code: &str) -> Result<(), ApiError> {
    // Who tries codes would give others a session of its own: by address, however many names it has.
    let key = format!("/code {}", call.address_text());
    may_guess(app, &key, ("too many wrong codes", "too many codes were tried that no program shows"))?;
    if app.devices.waits(code, app.clock.now()) {
        return Ok(());
    }
    app.guesses.wrong(&key, app.clock.now());
    Err(no_such_code())
}

async fn confirmed(app: &App, call: &Call, (user, code): (&UserRow, &str)) -> Result<StatusCode, ApiError> {
    if !app.devices.confirm(code, &user.name, app.clock.now()) {
        return Err(no_such_code());
    }
    audit::note(app, call, &user.name, ("login.device", &user.name, "")).await;
    Ok(StatusCode::NO_CONTENT)
}

fn no_such_code() -> ApiError {
    let kind = (StatusCode::NOT_FOUND, "NO_SUCH_CODE", "no program waits with this code");
    let hint =
        "compare it with what the program shows, or run `warren login` again: a code is good for 10 minutes";
    ApiError::new(kind, "no program waits with this code", hint)
}

/// Fetches the session of a confirmed login, once.
#[utoipa::path(
    post,
    path = "/login/device/token",
    tag = "people",
    request_body = AskDevice,
    responses((status = 200, description = "The session, once there is one", body = DeviceGrant)),
    security(())
)]
pub(super) async fn ask(
    State(app): State<Shared>,
    Document(ask): Document<AskDevice>,
) -> Result<Json<DeviceGrant>, ApiError> {
    let over = || {
        let kind = (StatusCode::GONE, "LOGIN_EXPIRED", "the login waited too long");
        ApiError::new(kind, "nobody confirmed this login in time", "run `warren login` again")
    };
    match app.devices.progress(&ask.device_code, app.clock.now()) {
        Progress::Waiting => Ok(Json(DeviceGrant::default())),
        Progress::Unknown => Err(over()),
        Progress::Confirmed(name) => {
            let user = app.store.user_by_name(&name).await?.ok_or_else(over)?;
            Ok(Json(DeviceGrant { grant: Some(grant(&app, &user).await?) }))
        }
    }
}

//! Terminals in the browser: a WebSocket on one side, a session in the workspace's agent on the other.
//!
//! Binary messages are the terminal's bytes, both ways. Text messages are JSON, one word each ([`Said`], [`Heard`]). The
//! session lives in the agent: when the WebSocket or the server ends, another one joins it by its name and is sent the
//! whole screen. Nothing piles up here: the agent sends no more than a browser says it has shown, and what is typed is read
//! only as fast as the tunnel takes it.

use super::bearer::Person;
use super::problem::ApiError;
use super::reach;
use crate::app::{App, Shared};
use crate::clock::rfc3339;
use crate::places::{Full, Places};
use crate::store::WorkspaceRow;
use axum::Json;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use io_adapters::frames::Frames;
use io_adapters::handle::TunnelStream;
use proto_core::stream::Header;
use proto_core::stream::terminal::{self, ALIVE_EVERY, Ask, Ended, Ready, Sessions, Told};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, MissedTickBehavior, interval};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Terminals open at once, and of one person. Each costs some 100 KiB while it is quiet.
const OPEN_MAX: usize = 5_000;
/// See [`OPEN_MAX`].
const OPEN_PER_PERSON_MAX: usize = 1_000;
/// Bytes of one message from a browser: a page that pastes much sends it in pieces, or as one of these.
const MESSAGE_MAX: usize = 256 << 10;
/// Silence after which a browser is given up: two pings unanswered.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// How often it is looked whether the person may still be here, if nothing is heard: who logs out or is shut out is
/// gone at once, or soon if another server did it.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// The least from one look to the next: somebody who logs in and out all the time must not make all others' terminals ask
/// the database all the time.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What a browser wants.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct Wish {
    /// The session's name, a UUID; a new one if it is left out.
    session: Option<String>,
    /// The window's width in characters.
    cols: u16,
    /// The window's height in characters.
    rows: u16,
    /// `write` or `watch`.
    mode: Mode,
}

/// What a visitor does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Types and sees.
    #[default]
    Write,
    /// Only sees.
    Watch,
}

/// What the server says beside the terminal's bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// The terminal is there; the whole screen follows.
    Ready(Opened),
    /// It has another size now: somebody with another window types.
    Size(Size),
    /// So many see it.
    Viewers(u32),
    /// Its program has ended; nothing follows.
    Exit(Exit),
    /// Nothing follows, and why.
    Problem(Problem),
}

/// The terminal as it is.
#[derive(Debug, Serialize)]
struct Opened {
    /// The session's name.
    session: String,
    /// Whether it was made just now.
    created: bool,
    /// What runs there.
    command: String,
    cols: u16,
    rows: u16,
    viewers: u32,
    /// Whether its program has ended.
    ended: bool,
}

/// A size in characters.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Size {
    cols: u16,
    rows: u16,
}

/// How a program ended.
#[derive(Debug, Serialize)]
struct Exit {
    /// As a shell counts: 128 and the number of a signal.
    status: u8,
    /// The signal's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
}

/// Why a terminal ends, or does not begin.
#[derive(Debug, Serialize)]
struct Problem {
    /// A code that programs may rely on.
    code: String,
    /// A sentence.
    detail: String,
    /// What to do.
    hint: String,
}

/// What a browser says beside what is typed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Heard {
    /// Its window has another size.
    Resize(Size),
    /// So many bytes have been shown since it was ready.
    Ack(u64),
}

/// Who has terminals open.
pub(crate) type Terminals = Places<String>;

/// The places for terminals.
pub(crate) fn places() -> Arc<Terminals> {
    Places::new(OPEN_MAX, OPEN_PER_PERSON_MAX)
}

fn full(full: Full) -> ApiError {
    let kind = (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_TERMINALS", "too many terminals are open");
    let detail = match full {
        Full::Own(own) => format!("you have {own} terminals open in browsers"),
        Full::All(all) => format!("{all} terminals are open on this server"),
    };
    ApiError::new(kind, detail, "close some of them").after(10)
}

/// The asker's claim to a workspace, which can be looked at again.
struct Claim {
    app: Shared,
    parts: Parts,
    owner: String,
    name: String,
}

impl Claim {
    /// Waits until it does not hold any more.
    async fn lost(&self) -> ApiError {
        let mut revoked = self.app.revocations.subscribe();
        loop {
            // Whoever takes something away here tells so; another server does not, and time neither.
            let _ = tokio::time::timeout(LOOK_AGAIN, revoked.changed()).await;
            let again = async {
                let person = Person::from_request_parts(&mut self.parts.clone(), &self.app).await?;
                reach::usable(&self.app, &person, &self.owner, &self.name).await
            };
            match again.await {
                Err(error) if error.status().is_client_error() => return error,
                // A database that does not answer for a moment shuts nobody out.
                _ => tokio::time::sleep(LOOK_PAUSE).await,
            }
        }
    }
}

/// Opens a terminal, or joins one.
///
/// Binary messages are the terminal's bytes. Text messages are JSON: `{"resize":{"cols","rows"}}` and `{"ack":BYTES}`, the
/// bytes shown in all, to the server, which sends no more than 256 KiB beyond them; `{"ready":{...}}`, `{"size":{...}}`,
/// `{"viewers":N}`, `{"exit":{"status"}}` and `{"problem":{"code","detail","hint"}}` from it.
#[utoipa::path(
    get,
    path = "/workspaces/{owner}/{name}/terminal",
    tag = "workspaces",
    params(Wish),
    responses((status = 101, description = "A WebSocket"))
)]
pub(super) async fn attach(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name)): Path<(String, String)>,
    mut parts: Parts,
) -> Result<Response, ApiError> {
    let row = reach::usable(&app, &person, &owner, &name).await?;
    let Query(wish): Query<Wish> =
        Query::try_from_uri(&parts.uri).map_err(|error| ApiError::field("query", error.body_text()))?;
    let session = match &wish.session {
        Some(text) => Uuid::parse_str(text).map_err(|error| ApiError::field("session", error.to_string()))?,
        None => Uuid::now_v7(),
    };
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &app).await.map_err(|_| {
        let kind = (StatusCode::UPGRADE_REQUIRED, "WEBSOCKET_REQUIRED", "a WebSocket is needed");
        ApiError::new(kind, "this path speaks WebSocket (RFC 6455, version 13) only", "")
    })?;
    let place = app.terminals.take(person.user.id.clone()).map_err(full)?;
    person.note(&app, "terminal.open", &row.path(), &format!("session {session}")).await;
    let claim = Claim { app, parts, owner, name };
    let upgrade = upgrade
        // Terminals are many and quiet: what is not needed all the time is not kept.
        .read_buffer_size(4 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(1 << 20)
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX);
    Ok(upgrade.on_upgrade(move |socket| async move {
        serve(&claim, &row, (wish, session), socket).await;
        drop(place);
    }))
}

async fn serve(claim: &Claim, row: &WorkspaceRow, wish: (Wish, Uuid), socket: WebSocket) {
    let app = &*claim.app;
    let (mut sink, source) = socket.split();
    let problem = match open(app, row, &wish).await {
        Err(error) => Some(error),
        Ok(stream) => {
            let (from, to) = split(stream);
            tokio::select! {
                biased;
                ended = down(&mut sink, Frames::new(from)) => ended.then(|| broken(app, row)),
                () = up(source, to) => None,
                lost = claim.lost() => Some(lost),
            }
        }
    };
    if let Some(problem) = problem {
        let (code, detail, hint) = problem.told();
        let said = Said::Problem(Problem { code: code.into(), detail: detail.into(), hint: hint.into() });
        let _ = sink.send(text(&said)).await;
    }
    let _ = tokio::time::timeout(Duration::from_secs(2), sink.close()).await;
}

async fn open(
    app: &App,
    row: &WorkspaceRow,
    (wish, session): &(Wish, Uuid),
) -> Result<TunnelStream, ApiError> {
    if *app.draining.borrow() {
        return Err(ApiError::draining());
    }
    let header = Header::Terminal {
        session: session.to_string(),
        columns: wish.cols,
        rows: wish.rows,
        watch: wish.mode == Mode::Watch,
        workspace: row.name.clone(),
    };
    reach::open(app, row, &header).await
}

fn broken(app: &App, row: &WorkspaceRow) -> ApiError {
    if *app.draining.borrow() {
        return ApiError::draining();
    }
    let kind = (StatusCode::BAD_GATEWAY, "AGENT_UNREACHABLE", "the workspace can't be reached");
    let detail = format!("the connection to workspace \"{}\" broke", row.name);
    ApiError::new(kind, detail, "it is tried again by itself; the terminal is as it was then")
}

/// Carries what the workspace sends. True if it broke off, false if it has said its last or the browser is gone.
async fn down(sink: &mut SplitSink<WebSocket, Message>, mut frames: Frames<ReadHalf<TunnelStream>>) -> bool {
    let mut ticks = ticks();
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.next() => frame,
            _ = ticks.tick() => {
                if sink.send(Message::Ping(bytes::Bytes::new())).await.is_err() {
                    return false;
                }
                continue;
            }
        };
        let Ok(Some((kind, held))) = frame else { return true };
        let (message, last) = match Told::parse(kind, &held) {
            Ok(Told::Output(_)) => (Message::Binary(held.clone()), false),
            Ok(Told::Ready(ready)) => (text(&Said::Ready(opened(ready))), false),
            Ok(Told::Viewers(count)) => (text(&Said::Viewers(count)), false),
            Ok(Told::Resized { columns, rows }) => (text(&Said::Size(Size { cols: columns, rows })), false),
            Ok(Told::End(end)) => (text(&Said::Exit(Exit { status: end.status, signal: end.signal })), true),
            Ok(Told::Problem(terminal::Problem { code, message })) => {
                let hint = "`warren ssh` works all the same".to_owned();
                (text(&Said::Problem(Problem { code, detail: message, hint })), true)
            }
            Ok(Told::Unknown) => continue,
            Err(_) => return true,
        };
        if sink.send(message).await.is_err() || last {
            return false;
        }
    }
}

/// Carries what the browser sends, until it leaves or is silent for too long.
async fn up(mut source: SplitStream<WebSocket>, mut to: WriteHalf<TunnelStream>) {
    let (mut ticks, mut heard, mut shown) = (ticks(), Instant::now(), 0);
    loop {
        let ask = tokio::select! {
            biased;
            message = source.next() => {
                heard = Instant::now();
                match message {
                    None | Some(Err(_) | Ok(Message::Close(_))) => return,
                    Some(Ok(Message::Binary(typed))) => Ask::Input(&typed).encode(),
                    Some(Ok(Message::Text(words))) => match serde_json::from_str(&words) {
                        Ok(Heard::Resize(Size { cols, rows })) => Ask::Resize { columns: cols, rows }.encode(),
                        Ok(Heard::Ack(total)) => {
                            let more = u32::try_from(total.saturating_sub(shown)).unwrap_or(u32::MAX);
                            shown = total.max(shown);
                            Ask::Shown(more).encode()
                        }
                        // A newer page's word.
                        Err(_) => continue,
                    },
                    Some(Ok(_)) => continue,
                }
            }
            _ = ticks.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return;
                }
                Ask::Alive.encode()
            }
        };
        if to.write_all(&ask).await.is_err() || to.flush().await.is_err() {
            // Why is said by what comes the other way.
            std::future::pending::<()>().await;
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(ALIVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

fn opened(Ready { created, session }: Ready) -> Opened {
    let terminal::Session { id, command, columns, rows, viewers, ended, .. } = session;
    Opened { session: id, created, command, cols: columns, rows, viewers, ended }
}

fn text(said: &Said) -> Message {
    // These types have only string keys and no failing serializers.
    Message::Text(serde_json::to_string(said).unwrap_or_default().into())
}

/// The answer to `GET /workspaces/{owner}/{name}/sessions`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionList {
    /// The oldest first.
    sessions: Vec<SessionInfo>,
}

/// A terminal of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionInfo {
    /// Its name, a UUID.
    id: String,
    /// When it began.
    started_at: String,
    /// What runs there now.
    command: String,
    /// Its width in characters.
    cols: u16,
    /// Its height in characters.
    rows: u16,
    /// How many see it.
    viewers: u32,
    /// When a visitor last came, typed or left.
    last_active_at: String,
    /// Whether its program has ended.
    ended: bool,
}

/// The terminals of a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{owner}/{name}/sessions",
    operation_id = "list_terminals",
    tag = "workspaces",
    responses((status = 200, description = "The oldest first", body = SessionList))
)]
pub(super) async fn list(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<SessionList>, ApiError> {
    let row = reach::usable(&app, &person, &owner, &name).await?;
    let Sessions { sessions } = reach::ask(&app, &row, &Header::Sessions, terminal::ANSWER_MAX).await?;
    let sessions = sessions.into_iter().take(terminal::SESSIONS_MAX).map(|session| SessionInfo {
        id: session.id,
        started_at: rfc3339(session.started_ms),
        command: session.command,
        cols: session.columns,
        rows: session.rows,
        viewers: session.viewers,
        last_active_at: rfc3339(session.active_ms),
        ended: session.ended,
    });
    Ok(Json(SessionList { sessions: sessions.collect() }))
}

/// Ends a terminal and its programs.
#[utoipa::path(
    delete,
    path = "/workspaces/{owner}/{name}/sessions/{session}",
    operation_id = "end_terminal",
    tag = "workspaces",
    responses((status = 204, description = "It ends"))
)]
pub(super) async fn end(
    State(app): State<Shared>,
    person: Person,
    Path((owner, name, session)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let row = reach::usable(&app, &person, &owner, &name).await?;
    let missing = || {
        let kind = (StatusCode::NOT_FOUND, "SESSION_NOT_FOUND", "there is no such terminal");
        let detail = format!("workspace \"{}\" has no such terminal", row.name);
        ApiError::new(kind, detail, "it may have ended already")
    };
    if !terminal::is_name(&session) {
        return Err(missing());
    }
    let detail = format!("session {session}");
    let ended: Ended = reach::ask(&app, &row, &Header::EndSession { session }, terminal::ANSWER_MAX).await?;
    if !ended.found {
        return Err(missing());
    }
    person.note(&app, "terminal.end", &row.path(), &detail).await;
    Ok(StatusCode::NO_CONTENT)
}

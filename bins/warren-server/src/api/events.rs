//! What the server tells by itself: a stream of server-sent events.

use super::bearer::{self, Person};
use super::problem::ApiError;
use super::workspaces;
use crate::app::Shared;
use crate::changes::Follower;
use crate::places::Full;
use crate::store::WorkspaceRow;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use core::convert::Infallible;
use futures_util::stream::{self, Stream};
use proto_core::id::NodeId;
use proto_core::wire::api::Workspaces;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

/// From one list to the next, however much happens.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the list and the follower's right to it are looked at without any sign of a change.
const LOOK: Duration = Duration::from_secs(5);
/// How often something is sent, so that proxies keep the connection.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The workspaces that the asker may see, at once and whenever they change, as events `workspaces`.
///
/// The list of an event is that of `GET /workspaces`. An event `tunnels` names a workspace whose tunnels have changed. Lists are at least a second apart. A comment comes every 15
/// seconds. The stream ends with the session.
#[utoipa::path(
    get,
    path = "/events",
    tag = "workspaces",
    responses((status = 200, description = "Server-sent events", body = String, content_type = "text/event-stream"))
)]
pub(super) async fn events(
    State(app): State<Shared>,
    person: Person,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    if *app.draining.borrow() {
        return Err(ApiError::draining());
    }
    let follower = app.changes.follow(&person.user.id).map_err(full)?;
    let draining = app.draining.clone();
    let state = Following {
        app,
        person,
        headers,
        follower,
        draining,
        sent: None,
        waiting: VecDeque::new(),
        next: Instant::now(),
    };
    let events = stream::unfold(state, |mut state| async {
        let event = state.event().await?;
        Some((Ok(event), state))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEPALIVE).text("keepalive")))
}

fn full(full: Full) -> ApiError {
    let kind = (StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_FOLLOWERS", "too many follow the server live");
    match full {
        Full::Own(own) => {
            let detail = format!("you follow this server live in {own} places");
            ApiError::new(kind, detail, "close some of its tabs")
        }
        Full::All(_) => ApiError::new(kind, "too many follow this server live", "ask again later"),
    }
    .after(10)
}

struct Following {
    app: Shared,
    person: Person,
    headers: HeaderMap,
    follower: Follower,
    draining: watch::Receiver<bool>,
    /// The list that was told last.
    sent: Option<String>,
    /// What is to be told besides.
    waiting: VecDeque<Event>,
    /// No list before then.
    next: Instant,
}

impl Following {
    /// The next event; none once the session has ended or the server is about to stop.
    async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            let mut draining = self.draining.clone();
            let pause = async {
                if self.sent.is_some() {
                    let _ = timeout_at(Instant::now() + LOOK, self.follower.changed()).await;
                }
                sleep_until(self.next).await;
            };
            tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return None,
                () = pause => {}
            }
            let token = bearer::authenticate(&self.app, &Method::GET, &self.headers).await.ok()?;
            // What the person may see may have changed with the role.
            self.person.user = token.user?;
            let rows = workspaces::visible(&self.app, &self.person).await.ok()?;
            let touched = self.follower.take_touched();
            let is_touched = |row: &&WorkspaceRow| {
                row.agents.iter().any(|agent| touched.contains(&NodeId(agent.id.clone())))
            };
            // The first list comes with what there is.
            for row in rows.iter().filter(is_touched).filter(|_| self.sent.is_some()) {
                let data = serde_json::json!({ "workspace": row.id }).to_string();
                self.waiting.push_back(Event::default().event("tunnels").data(data));
            }
            let list = rows.iter().map(|row| workspaces::document(&self.app, &self.person, row)).collect();
            let list = serde_json::to_string(&Workspaces { workspaces: list }).ok()?;
            self.next = Instant::now() + PAUSE;
            if self.sent.as_ref() != Some(&list) {
                let event = Event::default().event("workspaces").data(&list);
                self.sent = Some(list);
                return Some(event);
            }
        }
    }
}

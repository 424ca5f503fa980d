//! A request's way to an app and its answer's way back: streamed both ways, never held.

use super::Name;
use super::access::Denied;
use super::connect::{self, NoWay};
use super::credential::Credential;
use super::headers::{self, Place};
use super::http2::{self, Failed, Sent};
use super::page::Trouble;
use super::ticket::Target;
use crate::app::{App, Shared};
use crate::places::{self, Full};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use axum::http::{StatusCode, Uri, Version};
use axum::response::Response;
use bytes::Bytes;
use core::error::Error;
use core::pin::Pin;
use core::task::{Context, Poll};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use proto_core::id::NodeId;
use proto_core::stream::TcpAnswer;
use proto_core::wire::api::AppScheme;
use std::io;
use std::sync::Arc;
use tokio::io::copy_bidirectional_with_sizes;

/// Bytes under way in each direction of a WebSocket.
const PIECE: usize = 16 << 10;
/// Bytes of an answer that is not worth watching while it is on its way: it is there in a moment.
const SHORT: u64 = 256 << 10;

/// Passes a request on for whoever was let in by this to what is called so. It ends when that is good no more.
pub(crate) async fn forward(
    app: &Shared,
    target: &Target,
    place: &Place,
    mut request: Request,
    (credential, name): (Credential, Name),
) -> Response {
    let asked = request.headers().clone();
    let held = match take(app, &target.workspace) {
        Ok(held) => held,
        Err(trouble) => return trouble.answer(&asked),
    };
    let websocket = headers::wants_websocket(&asked);
    // It can be taken only while the request is whole.
    let browser = websocket.then(|| hyper::upgrade::on(&mut request));
    let Some(onward) = onward(app, target, place, (request, &credential)) else {
        let kind = (StatusCode::BAD_REQUEST, "REQUEST_UNFIT", "the request will not do");
        return Trouble::new(kind, "the request has no address that an app could be asked for", "")
            .answer(&asked);
    };
    let mut lost = credential.lost(Arc::clone(app), name);
    let answered = tokio::select! {
        biased;
        answered = ask(app, onward, &asked) => answered,
        () = &mut lost => return super::denied(&Denied::Nothing).answer(&asked),
    };
    match answered {
        Ok(answer) => {
            let mut answer = back(answer, place, (browser, lost, held), &asked);
            // On a path, the owner's answer is not everybody's, even if the app is.
            if !target.public || !place.base.is_empty() {
                headers::keep_private(answer.headers_mut());
            }
            answer
        }
        Err(way) => down(target, way).answer(&asked),
    }
}

/// Asks the app; if it did not answer, why there was no way to it, if there was none.
async fn ask(app: &App, mut onward: Request, asked: &HeaderMap) -> Result<Response, Option<NoWay>> {
    if http2::may(&onward) {
        match app.apps.http2.send(onward, http2::takes_trailers(asked)).await {
            Ok(Sent::Answered(answer)) => return Ok(answer),
            Ok(Sent::Not(request)) => onward = *request,
            Err(error) => {
                tracing::debug!("an app was not reached: {error}");
                return Err(if let Failed::NoWay(way) = error { Some(way) } else { None });
            }
        }
    }
    *onward.version_mut() = Version::HTTP_11;
    app.apps.client.request(onward).await.map(|answer| answer.map(Body::new)).map_err(|error| {
        tracing::debug!("an app was not reached: {error:?}");
        let mut cause: Option<&(dyn Error + 'static)> = error.source();
        let mut way = None;
        while let Some(error) = cause {
            way = way.or_else(|| error.downcast_ref::<NoWay>().cloned());
            cause = error.source();
        }
        way
    })
}

/// The request as the app gets it.
fn onward(
    app: &App,
    target: &Target,
    place: &Place,
    (request, credential): (Request, &Credential),
) -> Option<Request> {
    let (mut parts, body) = request.into_parts();
    let present = |id: &&String| app.hub.presence(&NodeId((*id).clone())).is_some();
    let agent = target.agents.iter().find(present).or(target.agents.first())?;
    let scheme = match target.scheme {
        AppScheme::Http => "http",
        AppScheme::Https => "https",
    };
    // What the address says counts, whatever the header does (RFC 9112, section 3.2.2). HTTP/2 has it there alone.
    let host = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str().rsplit('@').next()?).ok()?,
        None => parts.headers.get(HOST)?.clone(),
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = path.strip_prefix(&place.base).unwrap_or(path);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    parts.uri = Uri::builder()
        .scheme(scheme)
        .authority(connect::authority(&credential.tag(), agent, target.port))
        .path_and_query(path)
        .build()
        .ok()?;
    headers::to_app(&mut parts.headers, place);
    parts.headers.insert(HOST, host);
    parts.extensions.clear();
    let websocket = headers::wants_websocket(&parts.headers);
    // What follows an upgrade's request is not its body.
    let body = if websocket { Body::empty() } else { body };
    if websocket {
        parts.headers.remove(CONTENT_LENGTH);
    }
    Some(Request::from_parts(parts, body))
}

/// The answer as the browser gets it.
fn back(
    mut answer: Response,
    place: &Place,
    (browser, lost, held): (Option<OnUpgrade>, BoxFuture<'static, ()>, Taken),
    asked: &HeaderMap,
) -> Response {
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    match (switches, browser) {
        (true, Some(browser)) if headers::wants_websocket(answer.headers()) => {
            let workspace = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move {
                carry(browser, workspace, lost).await;
                drop(held);
            });
            headers::to_browser(answer.headers_mut(), place, true);
            return answer;
        }
        (true, _) => {
            let kind = (StatusCode::BAD_GATEWAY, "APP_ANSWER", "the app answered what it was not asked");
            return Trouble::new(kind, "the app changed to a protocol that nobody asked for", "")
                .answer(asked);
        }
        _ => {}
    }
    headers::to_browser(answer.headers_mut(), place, false);
    let short = answer.body().size_hint().exact().is_some_and(|size| size <= SHORT);
    let lost = (!short).then_some(lost);
    answer.map(|body| Body::new(Held { body, lost, _place: held }))
}

/// An app's answer on its way.
struct Held {
    body: Body,
    /// When it is not for whoever reads it any more.
    lost: Option<BoxFuture<'static, ()>>,
    _place: Taken,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // It breaks off: it was not all, and nobody shall take it for that. Nobody polls a body any more that has failed.
        if self.lost.as_mut().is_some_and(|lost| lost.poll_unpin(cx).is_ready()) {
            return Poll::Ready(Some(Err(axum::Error::new(io::Error::from(
                io::ErrorKind::PermissionDenied,
            )))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Carries a WebSocket's bytes until either end has enough or may no more.
async fn carry(browser: OnUpgrade, workspace: OnUpgrade, lost: BoxFuture<'static, ()>) {
    let (Ok(browser), Ok(workspace)) = tokio::join!(browser, workspace) else { return };
    let (mut browser, mut workspace) = (TokioIo::new(browser), TokioIo::new(workspace));
    tokio::select! {
        biased;
        // Either end tells why in its own words, if it does.
        _ = copy_bidirectional_with_sizes(&mut browser, &mut workspace, PIECE, PIECE) => {}
        () = lost => {}
    }
}

/// A request's place among those of its owner, and of its workspace.
type Taken = [places::Place<String>; 2];

fn take(app: &App, workspace: &str) -> Result<Taken, Box<Trouble>> {
    let owner = workspace.split('/').next().unwrap_or_default();
    let [of_owner, of_workspace] = &app.apps.open;
    let crowded = |full, whose: String| {
        let kind = (StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_APP_REQUESTS", "too much is open");
        let detail = match full {
            Full::Own(own) => format!("{own} requests and connections to apps of {whose} are under way"),
            Full::All(all) => format!("{all} requests and connections to apps are under way on this server"),
        };
        Box::new(Trouble::new(kind, detail, "close some of their pages, or wait for them to end").passing())
    };
    Ok([
        of_owner.take(owner.to_owned()).map_err(|full| crowded(full, owner.to_owned()))?,
        of_workspace
            .take(workspace.to_owned())
            .map_err(|full| crowded(full, format!("workspace {workspace}")))?,
    ])
}

/// Why an app was not reached, for people.
fn down(target: &Target, way: Option<NoWay>) -> Trouble {
    let Target { workspace, port, .. } = target;
    let starts = "start it in the workspace, or look at which port it listens on";
    let kind = |status, code| (status, code, "the app can't be reached");
    match way {
        Some(NoWay::Offline) => Trouble::new(
            kind(StatusCode::SERVICE_UNAVAILABLE, "AGENT_OFFLINE"),
            format!("the agent of workspace {workspace} is not connected"),
            "start the workspace and its agent",
        ),
        Some(NoWay::Answer(TcpAnswer::Refused)) => Trouble::new(
            kind(StatusCode::BAD_GATEWAY, "APP_DOWN"),
            format!("nothing listens on port {port} of workspace {workspace}"),
            starts,
        ),
        Some(NoWay::Unreachable(why)) => Trouble::new(
            kind(StatusCode::BAD_GATEWAY, "AGENT_UNREACHABLE"),
            format!("can't reach workspace {workspace}: {why}"),
            "try again in a moment; if it stays so, look at the agent's log",
        ),
        Some(NoWay::Slow) => Trouble::new(
            kind(StatusCode::GATEWAY_TIMEOUT, "APP_SILENT"),
            format!("port {port} of workspace {workspace} does not answer"),
            starts,
        ),
        Some(other) => Trouble::new(
            kind(StatusCode::BAD_GATEWAY, "APP_DOWN"),
            format!("port {port} of workspace {workspace} can't be used: {other}"),
            starts,
        ),
        None => Trouble::new(
            kind(StatusCode::BAD_GATEWAY, "APP_BROKE_OFF"),
            format!("port {port} of workspace {workspace} broke off before it had answered"),
            "it may have been restarted, or it does not speak HTTP there",
        ),
    }
    .passing()
}

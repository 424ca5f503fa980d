//! A request's way to an app and its answer's way back: streamed both ways, never held.

use super::connect::{self, NoWay};
use super::headers::{self, Place};
use super::page::Trouble;
use super::ticket::Target;
use crate::app::{App, Shared};
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use axum::http::{StatusCode, Uri, Version};
use axum::response::Response;
use core::error::Error;
use core::task::Poll;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use proto_core::id::NodeId;
use proto_core::stream::TcpAnswer;
use proto_core::wire::api::AppScheme;
use std::io;
use tokio::io::copy_bidirectional_with_sizes;

/// Bytes under way in each direction of a WebSocket.
const PIECE: usize = 16 << 10;

/// Passes a request on. What has no end that is known, a WebSocket or a stream of events, ends with `lost`.
pub(crate) async fn forward(
    app: &Shared,
    target: &Target,
    place: &Place,
    mut request: Request,
    lost: BoxFuture<'static, ()>,
) -> Response {
    let asked = request.headers().clone();
    let websocket = headers::wants_websocket(&asked);
    // It can be taken only while the request is whole.
    let browser = websocket.then(|| hyper::upgrade::on(&mut request));
    let Some(onward) = onward(app, target, place, request) else {
        let kind = (StatusCode::BAD_REQUEST, "REQUEST_UNFIT", "the request will not do");
        return Trouble::new(kind, "the request has no address that an app could be asked for", "")
            .answer(&asked);
    };
    match app.apps.client.request(onward).await {
        Ok(answer) => {
            let mut answer = back(answer.map(Body::new), place, (browser, lost), &asked);
            // On a path, the owner's answer is not everybody's, even if the app is.
            if !target.public || !place.base.is_empty() {
                headers::keep_private(answer.headers_mut());
            }
            answer
        }
        Err(error) => {
            tracing::debug!(
                workspace = target.workspace,
                port = target.port,
                "an app was not reached: {error:?}"
            );
            down(target, &error).answer(&asked)
        }
    }
}

/// The request as the app gets it.
fn onward(app: &App, target: &Target, place: &Place, request: Request) -> Option<Request> {
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
        .authority(connect::authority(agent, target.port))
        .path_and_query(path)
        .build()
        .ok()?;
    parts.version = Version::HTTP_11;
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
    (browser, lost): (Option<OnUpgrade>, BoxFuture<'static, ()>),
    asked: &HeaderMap,
) -> Response {
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    match (switches, browser) {
        (true, Some(browser)) if headers::wants_websocket(answer.headers()) => {
            let workspace = hyper::upgrade::on(&mut answer);
            tokio::spawn(carry(browser, workspace, lost));
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
    if answer.body().size_hint().exact().is_some() { answer } else { answer.map(|body| until(body, lost)) }
}

/// A body that breaks off with `lost`: it was not all, and nobody shall take it for that.
fn until(body: Body, mut lost: BoxFuture<'static, ()>) -> Body {
    let mut body = body.into_data_stream();
    Body::from_stream(stream::poll_fn(move |cx| {
        // Nobody polls a body any more that has failed.
        match lost.poll_unpin(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::PermissionDenied)))))
            }
            Poll::Pending => body.poll_next_unpin(cx),
        }
    }))
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

/// Why an app was not reached, for people.
fn down(target: &Target, error: &hyper_util::client::legacy::Error) -> Trouble {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    let mut way = None;
    while let Some(error) = cause {
        way = way.or_else(|| error.downcast_ref::<NoWay>().cloned());
        cause = error.source();
    }
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

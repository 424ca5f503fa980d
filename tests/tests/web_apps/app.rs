//! An app as somebody might run it in a workspace: it tells what it is asked, takes and gives much, streams and talks.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use io_adapters::transport::AnyStream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tests::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

type Body = BoxBody<Bytes, Infallible>;

/// How often an event comes.
const EVENT_EVERY: Duration = Duration::from_millis(200);

/// Serves one on a port of this host, by TLS if there is an acceptor.
pub(crate) async fn start(tls: Option<TlsAcceptor>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(crate::words)?;
    let address = listener.local_addr().map_err(crate::words)?;
    tokio::spawn(async move {
        let mut connections = 0_u64;
        while let Ok((tcp, _)) = listener.accept().await {
            connections += 1;
            tokio::spawn(serve(tcp, tls.clone(), connections));
        }
    });
    Ok(address)
}

/// Serves a connection, which has a number, by HTTP/2 if that was agreed on in its TLS handshake.
async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, number: u64) {
    let mut http2 = false;
    let stream: AnyStream = match tls {
        Some(tls) => match tls.accept(tcp).await {
            Ok(stream) => {
                http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Box::new(stream)
            }
            Err(_) => return,
        },
        None => Box::new(tcp),
    };
    let service = hyper::service::service_fn(move |request| answer(request, number));
    let stream = TokioIo::new(stream);
    if http2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(stream, service).await;
    } else {
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
        let _ = connection.with_upgrades().await;
    }
}

async fn answer(
    request: Request<Incoming>,
    connection: u64,
) -> std::result::Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let response = match path.as_str() {
        "/events" => events("text/event-stream"),
        "/drops" => events("text/plain"),
        "/talk" => talk(request),
        "/upload" => upload(request).await,
        "/away" => Response::builder().status(302).header("location", "/echo").body(full("")),
        "/switch" => Response::builder()
            .status(101)
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .body(full("")),
        _ => match path.strip_prefix("/bytes/").and_then(|many| many.parse().ok()) {
            Some(many) => many_bytes(many),
            None => echo(&request, connection),
        },
    };
    Ok(response.unwrap_or_else(|_| Response::new(full("bad"))))
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

/// What it was asked, and everything that an app should not be able to do.
fn echo(request: &Request<Incoming>, connection: u64) -> hyper::http::Result<Response<Body>> {
    let headers: Vec<Value> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let told = json!({
        "method": request.method().as_str(), "path": path, "headers": headers, "connection": connection,
        "http2": request.version() == Version::HTTP_2, "host": request.uri().authority().map(|at| at.as_str()),
    });
    Response::builder()
        .header("content-type", "application/json")
        .header("set-cookie", "mine=1; Path=/; Domain=localhost")
        .header("set-cookie", "warren_session=stolen; Path=/")
        .header("set-cookie", "warren_app=stolen; Path=/")
        .header("clear-site-data", "\"cookies\"")
        .header("service-worker-allowed", "/")
        .header("access-control-allow-origin", "*")
        .header("cache-control", "public, max-age=60")
        .body(full(told.to_string()))
}

fn many_bytes(many: usize) -> hyper::http::Result<Response<Body>> {
    const PIECE: usize = 64 << 10;
    let pieces = (0..many.div_ceil(PIECE)).map(move |n| {
        let length = PIECE.min(many - n * PIECE);
        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; length])))
    });
    Response::builder().body(BodyExt::boxed(StreamBody::new(stream::iter(pieces))))
}

async fn upload(request: Request<Incoming>) -> hyper::http::Result<Response<Body>> {
    use sha2::{Digest, Sha256};
    let (mut hash, mut many) = (Sha256::new(), 0);
    let mut body = request.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            hash.update(data);
            many += data.len();
        }
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Response::builder().body(full(json!({ "bytes": many, "sha256": hash }).to_string()))
}

fn events(kind: &str) -> hyper::http::Result<Response<Body>> {
    let events = stream::unfold(0_u32, |n| async move {
        tokio::time::sleep(EVENT_EVERY).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("data: {n}\n\n")))), n + 1))
    });
    let body = StreamBody::new(Box::pin(events));
    Response::builder().header("content-type", kind).body(BodyExt::boxed(body))
}

/// A WebSocket that says everything back.
fn talk(mut request: Request<Incoming>) -> hyper::http::Result<Response<Body>> {
    let Some(key) = request.headers().get("sec-websocket-key") else {
        return Response::builder().status(StatusCode::BAD_REQUEST).body(full("no key"));
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                return;
            }
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept)
        .body(full(""))
}

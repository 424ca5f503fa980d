//! HTTP/2 (RFC 9113), to browsers that ask for it by TLS: a page's many requests share one connection.

use super::{House, stopped};
use core::net::SocketAddr;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

/// Requests of one connection at once: what RFC 9113 (6.5.2) asks for at least, and browsers expect.
const REQUESTS_MAX: u32 = 100;
/// Bytes of a request's head: four times what browsers let a site's cookies be.
const HEAD_MAX: u32 = 64 << 10;
/// Bytes of one answer that wait for a slow reader; hyper's own 400 KiB times [`REQUESTS_MAX`] are 40 MiB a connection.
const SEND_BUFFER: usize = 64 << 10;
/// A silent connection is asked so often whether somebody is there, and ends if nobody is.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// For the answer to that.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection without a new request for so long takes no more; answers under way go on. Browsers open another.
const IDLE: Duration = Duration::from_secs(180);

/// Serves one connection to its end.
pub(super) async fn speak<S>(stream: S, from: SocketAddr, house: House, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let asked = Arc::new(Notify::new());
    let (answers, heard) = (house.answers(from), asked.clone());
    let service = hyper::service::service_fn(move |request| {
        heard.notify_one();
        answers(request)
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(REQUESTS_MAX)
        .max_header_list_size(HEAD_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(ASK_EVERY)
        .keep_alive_timeout(ASK_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = core::pin::pin!(connection);
    let idle = async { while tokio::time::timeout(IDLE, asked.notified()).await.is_ok() {} };
    let outcome = tokio::select! {
        biased;
        outcome = connection.as_mut() => outcome,
        () = async { tokio::select! { () = stopped(&mut stop) => {}, () = idle => {} } } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%from, "HTTP/2: {error}");
    }
}

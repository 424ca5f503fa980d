//! What a program has counted, in Prometheus's text form (version 0.0.4), behind a small listener of its own.

mod relay;
mod text;

pub use relay::{relay, stun};
pub use text::Text;

use crate::relay_listener::http::{Head, answer};
use crate::transport::{TcpAccept, TokioListener};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// For a whole request and its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests at once: whoever watches asks one at a time.
const REQUESTS_MAX: usize = 16;
/// The pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the numbers come from.
pub trait Source: Send + Sync + 'static {
    /// All of them, as they are now.
    fn text(&self) -> impl Future<Output = String> + Send;

    /// The answer to a request for another page, if there is one.
    fn page(&self, head: &Head) -> Option<Vec<u8>> {
        let _ = head;
        None
    }
}

/// Serves them at `/metrics` until the future is dropped.
pub async fn serve(listener: TokioListener, source: impl Source) {
    let source = Arc::new(source);
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = serving.join_next() => {}
            accepted = listener.accept(), if serving.len() < REQUESTS_MAX => match accepted {
                Ok((tcp, _)) => {
                    let source = Arc::clone(&source);
                    serving.spawn(async move { timeout(PATIENCE, one(tcp, source.as_ref())).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection for metrics could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One request and its answer.
async fn one(mut tcp: TcpStream, source: &impl Source) -> io::Result<()> {
    let Ok(Some(head)) = Head::read(&mut tcp, &mut Vec::new()).await else { return Ok(()) };
    let close = ("Connection", "close".to_owned());
    let bytes = match head.path.as_str() {
        "/metrics" if head.method == "GET" => {
            answer("200 OK", &[("Content-Type", CONTENT_TYPE.to_owned()), close], &source.text().await)
        }
        _ => source
            .page(&head)
            .unwrap_or_else(|| answer("404 Not Found", &[close], "the metrics are at /metrics\n")),
    };
    tcp.write_all(&bytes).await?;
    tcp.shutdown().await
}

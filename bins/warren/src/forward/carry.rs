//! Connections to local ports and sockets, each carried by a stream to the workspace.

use super::link::Link;
use crate::output;
use io_adapters::local::Listener;
use io_adapters::splice::{Socket, splice};
use proto_core::stream::Header;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// After a failure to accept (no file descriptors left), others get time to close theirs.
const PAUSE: Duration = Duration::from_millis(100);

/// The code of the warning that a connection could not go on.
pub(crate) const CONNECTION_CLOSED: &str = "CONNECTION_CLOSED";

/// Where a listener's connections go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// What is asked of the agent.
    pub header: Header,
    /// It in words: `port 80`.
    pub words: Arc<str>,
}

/// Serves a listener for ever.
pub(crate) async fn serve<L: Listener>(link: Arc<Link>, listener: L, target: Target)
where
    L::Socket: 'static,
{
    loop {
        match listener.accept().await {
            // Each in a task of its own: those that carry much must not keep others from being accepted.
            Ok(socket) => _ = tokio::spawn(carry(link.clone(), socket, target.clone())),
            Err(error) => {
                let words = format!("a connection could not be accepted: {error}");
                output::warning("CONNECTION_NOT_ACCEPTED", &words);
                sleep(PAUSE).await;
            }
        }
    }
}

async fn carry(link: Arc<Link>, socket: impl Socket, target: Target) {
    let _open = link.totals.connection();
    match link.connect(&target.header).await {
        Ok(stream) => match splice(&socket, stream, &link.totals.traffic).await {
            Ok(()) => {}
            Err(broken) if broken.is_lost() => link.lost(),
            Err(broken) => tracing::debug!(to = %target.words, error = %broken, "a connection ended early"),
        },
        Err(why) => {
            // Closed at once, as the workspace's own network would.
            socket.abort();
            let words = format!("a connection to {} was closed: {why}", target.words);
            output::warning(CONNECTION_CLOSED, &words);
        }
    }
}

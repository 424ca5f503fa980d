//! What the agent does for those who reach it: one stream, one service.

mod ping;
mod ports;
mod speedtest;
pub(crate) mod ssh;
mod tcp;

use io_adapters::handle::Incoming;
use proto_core::stream::{CODE_UNKNOWN_SERVICE, Header};
use std::sync::Arc;

/// What the services need that outlives a stream.
pub(crate) struct Services {
    /// The SSH server.
    pub ssh: ssh::Server,
}

/// Serves one stream to its end.
pub(crate) async fn serve(services: Arc<Services>, incoming: Incoming) {
    let Incoming { peer, header, stream } = incoming;
    let outcome = match header {
        Header::Ping => ping::serve(stream).await,
        Header::Speedtest { upload, duration_ms } => speedtest::serve(stream, upload, duration_ms).await,
        Header::Tcp { to } => tcp::serve(stream, to).await,
        Header::Ssh { workspace } => {
            services.ssh.serve(stream, ssh::Visit { peer: peer.clone(), workspace }).await
        }
        Header::Ports => ports::serve(stream).await,
        Header::Unknown => {
            stream.reset(CODE_UNKNOWN_SERVICE);
            Ok(())
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(peer = %peer.id(), %error, "a stream ended early");
    }
}

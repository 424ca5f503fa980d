//! What the agent does for those who reach it: one stream, one service.

mod ping;
mod speedtest;
mod tcp;

use io_adapters::handle::Incoming;
use proto_core::stream::{CODE_UNKNOWN_SERVICE, Header};

/// Serves one stream to its end.
pub(crate) async fn serve(incoming: Incoming) {
    let Incoming { peer, header, stream } = incoming;
    let outcome = match header {
        Header::Ping => ping::serve(stream).await,
        Header::Speedtest { upload, duration_ms } => speedtest::serve(stream, upload, duration_ms).await,
        Header::Tcp { to } => tcp::serve(stream, to).await,
        Header::Unknown => {
            stream.reset(CODE_UNKNOWN_SERVICE);
            Ok(())
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(peer = %peer.id(), %error, "a stream ended early");
    }
}

//! What the agent does for those who reach it: one stream, one service.

mod exec;
mod listen;
mod ping;
mod ports;
mod program;
mod report;
mod speedtest;
pub(crate) mod ssh;
mod tcp;
pub(crate) mod terminals;
mod udp;

use io_adapters::handle::{Incoming, NodeHandle};
use io_adapters::udp_flow::UdpFlow;
use proto_core::stream::udp::FlowTag;
use proto_core::stream::{CODE_UNKNOWN_SERVICE, Header};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What the services need that outlives a stream.
pub(crate) struct Services {
    /// The SSH server.
    pub ssh: ssh::Server,
    /// The terminals that outlive their visitors.
    pub terminals: terminals::Terminals,
    /// The agent itself.
    pub node: NodeHandle,
    /// Since when it runs.
    pub began: Instant,
}

/// Serves one stream to its end.
pub(crate) async fn serve(services: Arc<Services>, incoming: Incoming) {
    let Incoming { peer, header, stream } = incoming;
    let outcome = match header {
        Header::Ping => ping::serve(stream).await,
        Header::Speedtest { upload, duration_ms, tell } => {
            let test = speedtest::Test { upload, duration_ms, tell };
            speedtest::serve(stream, test).await
        }
        Header::Tcp { to } => tcp::serve(stream, to).await,
        Header::Ssh { workspace } => {
            services.ssh.serve(stream, ssh::Visit { peer: peer.clone(), workspace }).await
        }
        Header::Exec { workspace } => exec::serve(stream, peer.clone(), workspace, services.node.key()).await,
        Header::Ports => ports::serve(stream).await,
        Header::Unix { path } => tcp::serve_unix(stream, Path::new(&path)).await,
        Header::Udp { to, flow } => {
            let datagrams = peer.datagrams(FlowTag { flow, opener: false });
            udp::serve(UdpFlow::accepted(stream, datagrams), to).await
        }
        Header::Listen { at, listener } => listen::serve(peer.clone(), stream, at, listener).await,
        Header::Report => report::serve(stream, &services.node, services.began).await,
        Header::Terminal { session, columns, rows, watch, workspace } => {
            let wish = terminals::Wish { session, size: (columns, rows), watch, workspace };
            services.terminals.serve(stream, &peer, services.node.key(), wish).await
        }
        Header::Sessions => services.terminals.list(stream).await,
        Header::EndSession { session } => services.terminals.end(stream, &session).await,
        Header::Reverse { .. } | Header::Unknown => {
            stream.reset(CODE_UNKNOWN_SERVICE);
            Ok(())
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(peer = %peer.id(), %error, "a stream ended early");
    }
}

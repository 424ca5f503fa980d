//! How this agent is: for `warren status` and support bundles.

use io_adapters::handle::{NodeHandle, TunnelStream};
use proto_core::explain;
use proto_core::stream::report::Report;
use std::io;
use std::time::Instant;
use tokio::io::AsyncWriteExt;

/// Answers once.
pub(crate) async fn serve(mut stream: TunnelStream, node: &NodeHandle, began: Instant) -> io::Result<()> {
    let status = node.status().await.map_err(io::Error::other)?;
    let report = Report {
        build: crate::BUILD.to_owned(),
        uptime_seconds: began.elapsed().as_secs(),
        received_bytes: status.traffic.received_bytes,
        sent_bytes: status.traffic.sent_bytes,
        peers: status.peers.len() as u64,
        network: explain::network(&status.report, &status.router).to_string(),
    };
    stream.write_all(&serde_json::to_vec(&report)?).await?;
    stream.shutdown().await
}

//! The person's own SSH agent, for programs of the workspace.

use crate::tunnel::Tunnel;
use io_adapters::dial;
use io_adapters::handle::{Incoming, TunnelStream};
use io_adapters::splice::{Traffic, splice};
use proto_core::stream::{CODE_UNKNOWN_SERVICE, Header, TcpAnswer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

/// The number by which connections to it are named.
pub(crate) const LISTENER: u32 = 0;

/// Leads the workspace's connections to the agent's socket, for ever.
pub(crate) async fn serve(tunnel: &Tunnel, socket: PathBuf) {
    let socket = Arc::new(socket);
    while let Some(Incoming { peer, header, stream }) = tunnel.client.node.accept().await {
        let expected = header == Header::Reverse { listener: LISTENER } && peer.id() == tunnel.peer.id();
        if expected {
            let socket = socket.clone();
            tokio::spawn(async move { carry(stream, &socket).await });
        } else {
            stream.reset(CODE_UNKNOWN_SERVICE);
        }
    }
}

async fn carry(mut stream: TunnelStream, socket: &Path) {
    let dialled = dial::unix(socket).await;
    let answer = dialled.as_ref().err().copied().unwrap_or(TcpAnswer::Connected);
    if stream.write_u8(answer as u8).await.is_err() {
        return;
    }
    match dialled {
        Ok(socket) => {
            if let Err(error) = splice(&socket, stream, &Traffic::default()).await {
                tracing::debug!(%error, "a connection to the SSH agent ended early");
            }
        }
        Err(_) => _ = stream.shutdown().await,
    }
}

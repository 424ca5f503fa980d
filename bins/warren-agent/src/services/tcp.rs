//! Connections to the workspace's ports and Unix sockets.

use io_adapters::dial;
use io_adapters::handle::TunnelStream;
use io_adapters::splice::{Socket, Traffic, splice};
use proto_core::stream::TcpAnswer;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::AsyncWriteExt;

/// Connects to a port, says whether that went well, and carries the connection to its end.
pub(crate) async fn serve(stream: TunnelStream, to: SocketAddr) -> io::Result<()> {
    carry(stream, dial::tcp(to).await).await
}

/// The same with a Unix socket.
pub(crate) async fn serve_unix(stream: TunnelStream, path: &Path) -> io::Result<()> {
    carry(stream, dial::unix(path).await).await
}

async fn carry(mut stream: TunnelStream, dialled: Result<impl Socket, TcpAnswer>) -> io::Result<()> {
    match dialled {
        Ok(socket) => {
            stream.write_u8(TcpAnswer::Connected as u8).await?;
            splice(&socket, stream, &Traffic::default()).await.map_err(io::Error::other)
        }
        Err(answer) => {
            stream.write_u8(answer as u8).await?;
            stream.shutdown().await
        }
    }
}

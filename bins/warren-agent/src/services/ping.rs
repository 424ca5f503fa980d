//! Every byte comes back: what `warren ping` measures with.

use io_adapters::handle::TunnelStream;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Echoes until the other side ends.
pub(crate) async fn serve(mut stream: TunnelStream) -> io::Result<()> {
    let mut buffer = [0; 1_024];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

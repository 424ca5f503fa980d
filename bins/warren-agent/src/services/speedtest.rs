//! The agent's end of `warren speedtest`.

use io_adapters::handle::TunnelStream;
use io_adapters::speedtest::{LONGEST, receive, send, within};
use std::io;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Sends for as long as asked, or counts what comes and answers with bytes and microseconds (u64, big-endian).
pub(crate) async fn serve(stream: TunnelStream, upload: bool, duration_ms: u64) -> io::Result<()> {
    let time = if duration_ms == 0 { LONGEST } else { Duration::from_millis(duration_ms) };
    within(time, carry(stream, upload, time)).await
}

async fn carry(mut stream: TunnelStream, upload: bool, time: Duration) -> io::Result<()> {
    if upload {
        let carried = receive(&mut stream, |_, _| {}).await?;
        stream.write_u64(carried.bytes).await?;
        stream.write_u64(u64::try_from(carried.time.as_micros()).unwrap_or(u64::MAX)).await?;
        return stream.shutdown().await;
    }
    send(&mut stream, time, |_, _| {}).await.map(drop)
}

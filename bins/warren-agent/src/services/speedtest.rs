//! The agent's end of `warren speedtest`.

use io_adapters::handle::TunnelStream;
use io_adapters::speedtest::{Carried, LONGEST, Receiver, send, within};
use std::io;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Test {
    /// Whether we are sent to.
    pub upload: bool,
    /// For how long, in milliseconds; 0: until the end.
    pub duration_ms: u64,
    /// Whether each second is told.
    pub tell: bool,
}

/// Sends for as long as asked, or counts what comes and tells it.
pub(crate) async fn serve(stream: TunnelStream, test: Test) -> io::Result<()> {
    let time = if test.duration_ms == 0 { LONGEST } else { Duration::from_millis(test.duration_ms) };
    within(time, carry(stream, test, time)).await
}

async fn carry(mut stream: TunnelStream, test: Test, time: Duration) -> io::Result<()> {
    if !test.upload {
        return send(&mut stream, time, |_| {}).await.map(drop);
    }
    let mut counted = Receiver::new(&mut stream, time);
    while let Some(second) = counted.next().await? {
        if test.tell {
            let so_far = Carried { time: second.start + second.carried.time, bytes: second.so_far };
            tell(counted.stream(), so_far).await?;
        }
    }
    let total = counted.total();
    tell(&mut stream, total).await?;
    stream.shutdown().await
}

async fn tell(stream: &mut TunnelStream, carried: Carried) -> io::Result<()> {
    stream.write_all(&carried.encode()).await
}

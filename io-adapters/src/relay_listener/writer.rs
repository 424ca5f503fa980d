//! The writing side of one connection.

use super::ended::Ended;
use super::turn::{is_much, let_others_go};
use super::{Connection, lock, room};
use crate::transport::AnyStream;
use proto_core::limits::{MESH_WRITE_TIMEOUT, RELAY_WRITE_TIMEOUT};
use proto_core::time::Duration;
use std::io;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::time::timeout;

/// Bytes of one write: enough to be worth a system call, little enough that what is urgent gets ahead soon.
const WRITE: usize = 128 * 1024;

/// Writes `first` and then what the queue holds, until the connection shall end or takes nothing any more. The
/// relay's key is soon in the queue, or the connection's end, so that `first` waits for one of them.
pub(super) async fn write_all(
    first: Vec<u8>,
    mut io: WriteHalf<AnyStream>,
    connection: &Connection,
) -> Ended {
    if !first.is_empty() {
        connection.wake.notified().await;
        // The queue puts what it holds behind this.
        connection.wake.notify_one();
    }
    let mut first = Some(first);
    loop {
        let mut out = first.take().unwrap_or_default();
        lock(&connection.queue).take(WRITE, &mut out);
        if out.is_empty() {
            if connection.closing.load(Ordering::Acquire) {
                let _ = timeout(RELAY_WRITE_TIMEOUT, io.shutdown()).await;
                return Ended::Closed;
            }
            if let Err(why) = stall(patience(connection), io.flush()).await {
                return why;
            }
            connection.wake.notified().await;
            continue;
        }
        if is_much(out.len()) {
            let_others_go().await;
        }
        let mut at = 0;
        while at < out.len() {
            match stall(patience(connection), io.write(&out[at..])).await {
                Ok(0) => return Ended::Broke(io::ErrorKind::WriteZero.into()),
                Ok(n) => at += n,
                Err(why) => return why,
            }
        }
        room::give(out);
    }
}

/// Behind another relay are many clients, which shall not all lose it to one bad moment.
fn patience(connection: &Connection) -> Duration {
    if connection.is_mesh() { MESH_WRITE_TIMEOUT } else { RELAY_WRITE_TIMEOUT }
}

/// A write must get somewhere in time, or the client is gone.
async fn stall<R>(patience: Duration, write: impl Future<Output = io::Result<R>>) -> Result<R, Ended> {
    match timeout(patience, write).await {
        Ok(result) => result.map_err(Ended::Broke),
        Err(_) => Err(Ended::Stalled),
    }
}

//! A STUN server on UDP: tells whoever asks the address it is seen at, and nothing else.

use crate::transport::{Datagrams, RecvBatch, UdpLink};
use proto_core::wire::stun;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a STUN server has done.
#[derive(Debug, Default)]
pub struct StunCounters {
    /// Binding requests answered.
    pub answered: AtomicU64,
    /// Datagrams that were no Binding requests.
    pub ignored: AtomicU64,
}

/// Answers on `socket` until it dies or the future is dropped. An answer that does not fit the socket's
/// buffer is lost, as a datagram may be: the client asks again.
///
/// # Errors
/// If the socket is dead.
pub async fn serve<U: UdpLink>(socket: &U, counters: &StunCounters) -> io::Result<()> {
    let mut batch = RecvBatch::new(1);
    loop {
        poll_fn(|cx| socket.poll_recv(cx, &mut batch)).await?;
        for (from, bytes) in batch.datagrams() {
            match stun::answer(bytes, from) {
                Some(answer) => {
                    let _ = socket.try_send(&Datagrams::one(from, &answer));
                    counters.answered.fetch_add(1, Ordering::Relaxed);
                }
                None => {
                    counters.ignored.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

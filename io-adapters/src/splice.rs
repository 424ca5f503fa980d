//! A TCP connection and a stream in the tunnel, joined.

use crate::handle::TunnelStream;
use proto_core::stream::CODE_REFUSED;
use socket2::SockRef;
use std::io;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

/// Bytes carried at once each way.
const CHUNK: usize = 64 * 1024;

/// Carries bytes both ways until both halves have ended. An end of one half is passed on as that, a reset as a reset.
///
/// # Errors
/// If either side broke; the other one has been reset then.
pub async fn splice(mut tcp: TcpStream, mut stream: TunnelStream) -> io::Result<()> {
    let _ = tcp.set_nodelay(true);
    let carried = copy_bidirectional_with_sizes(&mut tcp, &mut stream, CHUNK, CHUNK).await;
    if let Err(error) = carried {
        stream.reset(CODE_REFUSED);
        // Closed without the usual goodbye, which would pass what was lost for a whole.
        let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
        return Err(error);
    }
    Ok(())
}

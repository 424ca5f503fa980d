//! One datagram with a hop limit of its own: an opener that must die on its way to the peer, so that it opens
//! our NAT without troubling the peer's.

use crate::transport::Datagrams;
use socket2::SockRef;
use std::io;
use tokio::net::UdpSocket;

/// Sends `run`, a single datagram, with this hop limit.
///
/// The option is the socket's, so it is set, used and put back. Nobody else sends in between: one task owns
/// the socket, and it is in here.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if the socket's buffer is full. Anything else counts as loss, but if the
/// limit cannot be set the datagram is not sent at all: with a full hop limit it would do harm.
pub(super) fn send(socket: &UdpSocket, run: &Datagrams<'_>, ttl: u8) -> io::Result<()> {
    let options = SockRef::from(socket);
    let v6 = run.to.is_ipv6();
    let usual = if v6 { options.unicast_hops_v6() } else { options.ttl_v4() };
    let Ok(usual) = usual else { return Ok(()) };
    let set = |hops: u32| if v6 { options.set_unicast_hops_v6(hops) } else { options.set_ttl_v4(hops) };
    if set(u32::from(ttl)).is_err() {
        return Ok(());
    }
    let sent = socket.try_send_to(run.bytes, run.to);
    let _ = set(usual);
    match sent {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(e),
        _ => Ok(()),
    }
}

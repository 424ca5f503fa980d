//! The STUN server's socket.

use super::busy;
use crate::fault::Fault;
use core::net::SocketAddr;
use tokio::net::UdpSocket;

/// A bound STUN socket.
#[derive(Debug)]
pub(crate) struct Stun {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Stun {
    /// Where it listens, with the real port.
    pub(crate) const fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

pub(crate) async fn bind_stun(address: SocketAddr) -> Result<Stun, Fault> {
    let failed = |error: std::io::Error| busy(&error, "UDP", address, "stun-address");
    let socket = UdpSocket::bind(address).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(Stun { socket, address })
}

pub(crate) async fn serve_stun(stun: Stun) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((length, from)) = stun.socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = proto_core::wire::stun::answer(&buffer[..length], from) {
            let _ = stun.socket.send_to(&answer, from).await;
        }
    }
}

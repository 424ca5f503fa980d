//! The STUN server's socket.

use super::busy;
use crate::fault::{Fault, io_words};
use core::net::SocketAddr;
use io_adapters::stun_listener::{self, StunCounters};
use io_adapters::transport::{Network, TokioNetwork, UdpLink};

type Socket = <TokioNetwork as Network>::Udp;

/// A bound STUN socket.
pub(crate) struct Stun(Socket);

impl Stun {
    /// Binds it.
    ///
    /// # Errors
    /// If the port is taken, or the address is not this machine's.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, Fault> {
        let bound = TokioNetwork.bind_udp(address).await;
        bound.map(Self).map_err(|error| busy(&error, "UDP", address, "stun-address"))
    }

    /// Where it listens, with the real port.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    /// Answers for as long as the socket lives.
    pub(crate) async fn serve(self) {
        if let Err(error) = stun_listener::serve(&self.0, &StunCounters::default()).await {
            tracing::error!("the STUN server has stopped: {}", io_words(&error));
        }
    }
}

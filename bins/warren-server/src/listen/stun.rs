//! The STUN server's socket.

use super::busy;
use crate::fault::{Fault, io_words};
use core::net::SocketAddr;
use io_adapters::stun_listener::{self, StunCounters};
use io_adapters::transport::{Network, TokioNetwork, UdpLink};

use tokio::sync::watch;

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

    /// Answers until the future is dropped. While it can't, `down` holds why.
    pub(crate) async fn serve(self, down: watch::Sender<Option<String>>) {
        let tell = |error: Option<&std::io::Error>| {
            let why = error.map(io_words);
            match &why {
                Some(why) => tracing::error!("the STUN server answers nobody: {why}"),
                None => tracing::info!("the STUN server answers again"),
            }
            down.send_replace(why);
        };
        let bind = async |address| TokioNetwork.bind_udp(address).await;
        match stun_listener::serve_always(self.0, bind, &StunCounters::default(), tell).await {}
    }
}

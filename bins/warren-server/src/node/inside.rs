//! The network as the server's own node sees it: the host's, but the coordinator and the embedded relay are in the same
//! process and reached without a socket. So neither a proxy, nor a certificate that this host does not trust, nor a
//! router that does not lead back to its own public address can stand between the server and itself.

use crate::api::DERP_PATH;
use crate::hub::Hub;
use crate::settings::AccessUrl;
use io_adapters::control::ControlStream;
use io_adapters::relay_listener::Arrival;
use io_adapters::relay_listener::http::Head;
use io_adapters::transport::{AnyStream, Network, TcpAccept, TokioListener, TokioNetwork};
use io_adapters::udp::BatchedUdp;
use proto_core::coord::Principal;
use proto_core::id::NodeId;
use proto_core::machine::{StreamProtocol, StreamTarget};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;

/// Bytes between the node and the relay: what a busy relay client's socket holds.
const PIPE: usize = 256 << 10;

/// What there is inside.
pub(super) struct Rooms {
    pub(super) hub: Arc<Hub>,
    /// The node's name.
    pub(super) id: NodeId,
    /// Where nodes elsewhere find them.
    pub(super) access_url: AccessUrl,
}

/// The network.
#[derive(Clone)]
pub(super) struct Inside {
    rooms: Arc<Rooms>,
    /// An address that leads nowhere, for a name that does not resolve here.
    nowhere: IpAddr,
}

impl Inside {
    pub(super) fn new(rooms: Rooms, nowhere: IpAddr) -> Self {
        Self { rooms: Arc::new(rooms), nowhere }
    }

    fn is_ours(&self, target: &StreamTarget) -> bool {
        let AccessUrl { host, port, .. } = &self.rooms.access_url;
        target.host == *host && target.port == *port && target.path == DERP_PATH
    }
}

impl Network for Inside {
    type Udp = BatchedUdp;
    type Tcp = AnyStream;
    type Listener = Listener;

    async fn bind_udp(&self, address: SocketAddr) -> io::Result<BatchedUdp> {
        TokioNetwork.bind_udp(address).await
    }

    async fn connect_tcp(&self, to: SocketAddr, timeout: Duration) -> io::Result<AnyStream> {
        Ok(Box::new(TokioNetwork.connect_tcp(to, timeout).await?))
    }

    async fn listen_tcp(&self, on: SocketAddr) -> io::Result<Listener> {
        Ok(Listener(TokioListener::bind(on)?))
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match TokioNetwork.resolve(name).await {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            // The server need not know its own name: others do.
            _ if name == self.rooms.access_url.host => Ok(vec![self.nowhere]),
            other => other,
        }
    }

    fn local(&self, target: &StreamTarget) -> Option<AnyStream> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let rooms = Arc::clone(&self.rooms);
        match target.protocol {
            StreamProtocol::Control => _ = tokio::spawn(coordinate(rooms, theirs)),
            _ if self.is_ours(target) && rooms.hub.relay().is_some() => {
                _ = tokio::spawn(relay(rooms, theirs))
            }
            _ => return None,
        }
        Some(Box::new(ours))
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        TokioNetwork.interfaces()
    }
}

/// Serves the node's session. Who it is needs no proof: nobody else has the other end of the pipe.
async fn coordinate(rooms: Arc<Rooms>, io: DuplexStream) {
    match tokio_tungstenite::accept_async(io).await {
        // The node says nothing before it is answered: nothing has been read beyond the request.
        Ok(socket) => {
            let stream = ControlStream::accepted(socket.into_inner(), Vec::new()).await;
            rooms.hub.serve_own(stream, Principal::Server { id: rooms.id.clone() }).await;
        }
        Err(error) => tracing::error!("the server's own node is not let in: {error}"),
    }
}

/// Serves the node's link to the embedded relay.
async fn relay(rooms: Arc<Rooms>, mut io: DuplexStream) {
    let Some(relay) = rooms.hub.relay() else { return };
    let mut read = Vec::new();
    let served = match Head::peek(&mut io, &mut read).await {
        Ok(Some((head, len))) => {
            let arrival = Arrival { from: None, rest: read.split_off(len), place: None };
            relay.serve_request(Box::new(io), head.derp(), arrival).await
        }
        _ => return,
    };
    if let Err(error) = served {
        tracing::debug!("the server's own link to its relay ended: {error}");
    }
}

/// A node listens nowhere: this is only what the seam asks for.
pub(super) struct Listener(TokioListener);

impl TcpAccept for Listener {
    type Tcp = AnyStream;

    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    async fn accept(&self) -> io::Result<(AnyStream, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((Box::new(stream), from))
    }
}

//! The SSH server of the workspace, inside the tunnel.
//!
//! Who the visitor is was settled by the tunnel, which the server's policy allowed. So every method of authentication
//! is accepted, with every user name: whoever comes may do what the agent's own user may do, and becomes that user.
//! The host key lets OpenSSH's `known_hosts` notice a workspace that was put in another's place.

mod carry;
mod forward;
mod handler;
mod host_key;
mod session;
mod sftp;

use super::program::PATIENCE;
use super::program::silence::Attended;
use handler::Visitor;
use io_adapters::handle::{PeerHandle, TunnelStream};
use proto_core::key::NodePublic;
use russh::server::Config;
use russh::{Preferred, SshId};
use std::borrow::Cow;
use std::io;
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that a visitor may send on one channel before they are taken: a gigabit per second over 64 ms.
const WINDOW: u32 = 8 << 20;
/// Bytes of one packet; OpenSSH's own figure.
const PACKET: u32 = 32 << 10;
/// Messages on their way from the connection to one channel, which takes them at once and counts their bytes itself.
const MESSAGES: usize = 256;

/// From a visitor's last word to the question whether it is still there.
const ASK: Duration = Duration::from_secs(60);

/// The SSH server.
pub(crate) struct Server {
    config: Arc<Config>,
    /// The agent's address inside the tunnel.
    address: Ipv6Addr,
}

/// Who came by which stream.
pub(crate) struct Visit {
    /// The peer that opened it.
    pub peer: PeerHandle,
    /// What the peer calls the workspace.
    pub workspace: String,
}

impl Server {
    /// The server of an agent that keeps its host key in this folder.
    ///
    /// # Errors
    /// If there is a key that cannot be read, or none can be kept.
    pub(crate) fn new(state: &Path, agent: &NodePublic) -> io::Result<Self> {
        let config = Config {
            server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Warren_", env!("CARGO_PKG_VERSION")))),
            keys: vec![host_key::kept(state)?],
            window_size: WINDOW,
            maximum_packet_size: PACKET,
            channel_buffer_size: MESSAGES,
            preferred: Preferred {
                // The tunnel carries packets of few bytes that cannot be made smaller by it, and gigabits.
                compression: Cow::Borrowed(&[russh::compression::NONE]),
                ..Preferred::DEFAULT
            },
            // A quiet visitor may stay, and is asked now and then whether it is there.
            inactivity_timeout: None,
            keepalive_interval: Some(ASK),
            keepalive_max: 0,
            ..Config::default()
        };
        Ok(Self { config: Arc::new(config), address: agent.inner_address() })
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(&self, stream: TunnelStream, visit: Visit) -> io::Result<()> {
        let visitor = Visitor::new(visit, self.address);
        let stream = Attended::new(stream, PATIENCE);
        let session = russh::server::run_stream(self.config.clone(), stream, visitor).await;
        session.map_err(io_error)?.await.map_err(io_error)
    }
}

fn io_error(error: russh::Error) -> io::Error {
    match error {
        russh::Error::IO(error) => error,
        error => io::Error::other(error),
    }
}

//! TCP connections to local ports, each carried by a stream to the workspace.

use super::spec::Forward;
use crate::api::Api;
use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output;
use crate::tunnel::{self, Tunnel};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use io_adapters::handle::{PeerHandle, TunnelStream};
use io_adapters::splice::splice;
use proto_core::stream::{Header, TcpAnswer};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long a connection waits for a workspace that is away: an agent that is started anew is back by then.
const PATIENCE: Duration = Duration::from_secs(15);
/// From one attempt to reach it to the next.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the workspace may take to connect: its own limit, and a way there and back.
const ANSWER: Duration = Duration::from_secs(12);
/// After a failure to accept (no file descriptors left), others get time to close theirs.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens for one forwarded port.
///
/// # Errors
/// If the port is taken, or may not be used.
pub(crate) async fn listen(forward: &Forward) -> Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for bind in forward.binds() {
        // Any free port of the first family is the one of the second as well.
        let port =
            listeners.first().and_then(|first| first.local_addr().ok()).map_or(forward.local, |at| at.port());
        let address = SocketAddr::from((bind, port));
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            // Not every system has both families.
            Err(error) if is_missing(&error) && !listeners.is_empty() => {}
            Err(error) => return Err(taken(address, forward, &error)),
        }
    }
    Ok(listeners)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

fn taken(address: SocketAddr, forward: &Forward, error: &io::Error) -> CliError {
    let (code, why, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let hint = format!(
                "stop the program that has it, or take another: --tcp 0:{} takes any free port and prints it",
                forward.remote
            );
            ("PORT_IN_USE", "another program listens there".to_owned(), hint)
        }
        io::ErrorKind::PermissionDenied => {
            let hint = "ports below 1024 are for root: take a higher one".to_owned();
            ("PORT_FORBIDDEN", "this user may not".to_owned(), hint)
        }
        _ => ("PORT_UNUSABLE", error.to_string(), "is this an address of this machine?".to_owned()),
    };
    CliError::new(Exit::Failed, code, format!("can't listen on {address}: {why}")).hint(hint)
}

/// The workspace, reached again when it was away.
pub(crate) struct Link<'a> {
    global: &'a Global,
    api: Api,
    /// The workspace, as the person named it.
    name: &'a str,
    tunnel: Mutex<Tunnel>,
}

impl<'a> Link<'a> {
    /// By a tunnel that is opened now.
    ///
    /// # Errors
    /// If there is no such workspace, or it cannot be reached.
    pub(crate) async fn open(global: &'a Global, name: &'a str) -> Result<Self> {
        let api = Api::logged_in(&global.config.session()?);
        Ok(Self { global, api, name, tunnel: Mutex::new(tunnel::open(global, name).await?) })
    }

    /// Leaves the network.
    pub(crate) async fn close(&self) {
        self.tunnel.lock().await.client.node.shutdown().await;
    }

    /// Serves a listener for ever.
    pub(crate) async fn serve(&self, listener: &TcpListener, forward: &Forward) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = connections.next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((tcp, _)) => connections.push(self.carry(tcp, forward)),
                    Err(error) => {
                        output::note(format!("warning: a connection could not be accepted: {error}"));
                        sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    async fn carry(&self, tcp: TcpStream, forward: &Forward) {
        match self.connect(forward.remote).await {
            Ok(stream) => {
                if let Err(error) = splice(tcp, stream).await {
                    tracing::debug!(%forward, %error, "a connection ended early");
                }
            }
            Err(why) => {
                // Closed at once, as the workspace's own network would.
                drop(tcp);
                output::note(format!("warning: a connection to port {} was closed: {why}", forward.remote));
            }
        }
    }

    /// A stream to this port of the workspace, once something there has answered.
    async fn connect(&self, port: u16) -> std::result::Result<TunnelStream, String> {
        let until = Instant::now() + PATIENCE;
        let header = Header::Tcp { to: (Ipv4Addr::UNSPECIFIED, port).into() };
        loop {
            let attempt = async {
                let peer = self.peer().await.map_err(|error| error.message)?;
                let mut stream = peer.open(&header).await.map_err(|error| error.to_string())?;
                // The header leaves with the first byte, and here the other side speaks first.
                stream.flush().await.map_err(|error| error.to_string())?;
                let answer = timeout(ANSWER, stream.read_u8()).await;
                let byte = answer.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
                Ok::<_, String>((TcpAnswer::from_byte(byte), stream))
            };
            let why = match timeout_at(until, attempt).await {
                Ok(Ok((TcpAnswer::Connected, stream))) => return Ok(stream),
                Ok(Ok((refused, _))) => return Err(refused.to_string()),
                Ok(Err(why)) => why,
                Err(_) => "the workspace did not answer in time".to_owned(),
            };
            if Instant::now() + AGAIN >= until {
                return Err(why);
            }
            tracing::debug!(why, "the workspace is away; trying again");
            sleep(AGAIN).await;
        }
    }

    /// The workspace's agent, by a new tunnel if the one there was is over.
    async fn peer(&self) -> Result<PeerHandle> {
        let mut tunnel = self.tunnel.lock().await;
        if tunnel.peer.path().gone.is_some() {
            let workspace = self.api.workspace(self.name).await?;
            *tunnel = tunnel.client.clone().open(self.global, workspace).await?;
        }
        Ok(tunnel.peer.clone())
    }
}

//! Forwarded connections: from the visitor's machine to where the workspace can connect, and the other way round.

use super::carry::join;
use crate::services::program::inbox::Throttle;
use crate::services::program::keys::accept;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use std::collections::HashMap;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a connection may take.
const DIAL: Duration = Duration::from_secs(20);
/// After a failure to accept (no file descriptors left), others get time to close theirs.
const PAUSE: Duration = Duration::from_millis(100);
/// Forwarded ports and sockets that one connection may listen on.
const LISTENERS: usize = 256;

/// A channel that waits for an answer, until what it leads to is there.
pub(super) struct Opening {
    /// The channel.
    pub channel: Channel<Msg>,
    /// Its answer.
    pub reply: ChannelOpenHandle,
    /// The connection's.
    pub throttle: Throttle,
}

impl Opening {
    /// Leads it to a host and port.
    pub(super) fn lead_to_port(self, host: String, port: u32) {
        tokio::spawn(self.lead(async move {
            let port = u16::try_from(port).map_err(|_| io::ErrorKind::InvalidInput)?;
            let connection = TcpStream::connect((host, port)).await?;
            connection.set_nodelay(true)?;
            Ok(connection)
        }));
    }

    /// Leads it to a Unix socket.
    pub(super) fn lead_to_socket(self, path: String) {
        tokio::spawn(self.lead(UnixStream::connect(path)));
    }

    async fn lead<C: AsyncRead + AsyncWrite + Send + 'static>(
        self,
        dial: impl Future<Output = io::Result<C>>,
    ) {
        match timeout(DIAL, dial).await {
            Ok(Ok(connection)) => {
                self.reply.accept().await;
                join(self.channel, connection, self.throttle).await;
            }
            failed => {
                let why = failed.map_or_else(
                    |_| "nobody answered".to_owned(),
                    |dialed| match dialed {
                        Err(error) => error.to_string(),
                        Ok(_) => String::new(),
                    },
                );
                tracing::debug!(why, "a forwarded connection cannot be made");
                self.reply.reject(ChannelOpenFailure::ConnectFailed).await;
            }
        }
    }
}

/// What listens in the workspace for a visitor, as long as the visitor is there.
#[derive(Default)]
pub(super) struct Listeners {
    ports: HashMap<(String, u32), JoinSet<()>>,
    sockets: HashMap<String, Socket>,
}

struct Socket {
    path: PathBuf,
    _accepting: JoinSet<()>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listeners {
    /// Listens on a port, any if it is 0: the port, if that can be done.
    pub(super) async fn add_port(
        &mut self,
        address: &str,
        port: u32,
        back: (Handle, Throttle),
    ) -> io::Result<u32> {
        self.has_room()?;
        let listeners = bind(address, port).await?;
        let port = listeners.first().ok_or(io::ErrorKind::AddrNotAvailable)?.local_addr()?.port().into();
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let (address, (handle, throttle)) = (address.to_owned(), back.clone());
            accepting.spawn(async move {
                loop {
                    let Ok((connection, from)) = listener.accept().await else {
                        sleep(PAUSE).await;
                        continue;
                    };
                    let _ = connection.set_nodelay(true);
                    let (address, handle, throttle) = (address.clone(), handle.clone(), throttle.clone());
                    tokio::spawn(async move {
                        let (ip, from) = (from.ip().to_string(), from.port().into());
                        if let Ok(channel) =
                            handle.channel_open_forwarded_tcpip(address, port, ip, from).await
                        {
                            join(channel, connection, throttle).await;
                        }
                    });
                }
            });
        }
        self.ports.insert((address.to_owned(), port), accepting);
        Ok(port)
    }

    /// Listens on a port no more. Connections that were made go on.
    pub(super) fn remove_port(&mut self, address: &str, port: u32) -> bool {
        self.ports.remove(&(address.to_owned(), port)).is_some()
    }

    /// Listens on a Unix socket, which must not be there yet and is the user's alone.
    pub(super) fn add_socket(&mut self, path: &str, back: (Handle, Throttle)) -> io::Result<()> {
        self.has_room()?;
        let listener = UnixListener::bind(path)?;
        let (name, (handle, throttle)) = (path.to_owned(), back);
        let mut accepting = JoinSet::new();
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        accepting.spawn(accept(listener, move |connection| {
            let (name, handle, throttle) = (name.clone(), handle.clone(), throttle.clone());
            tokio::spawn(async move {
                if let Ok(channel) = handle.channel_open_forwarded_streamlocal(name).await {
                    join(channel, connection, throttle).await;
                }
            });
        }));
        self.sockets.insert(path.to_owned(), Socket { path: path.into(), _accepting: accepting });
        Ok(())
    }

    /// Listens on a Unix socket no more.
    pub(super) fn remove_socket(&mut self, path: &str) -> bool {
        self.sockets.remove(path).is_some()
    }

    fn has_room(&self) -> io::Result<()> {
        let full = self.ports.len() + self.sockets.len() >= LISTENERS;
        if full { Err(io::ErrorKind::QuotaExceeded.into()) } else { Ok(()) }
    }
}

/// Listeners on all addresses that are meant, on the same port. As OpenSSH has it, no address means all of them and
/// `localhost` both loopbacks; who listens beyond them has asked for it.
async fn bind(address: &str, port: u32) -> io::Result<Vec<TcpListener>> {
    let port = u16::try_from(port).map_err(|_| io::ErrorKind::InvalidInput)?;
    let addresses: Vec<IpAddr> = match address {
        "" | "*" => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        name => tokio::net::lookup_host((name, port)).await?.map(|found| found.ip()).collect(),
    };
    let mut listeners: Vec<TcpListener> = Vec::new();
    for ip in addresses {
        let port = match listeners.first() {
            Some(first) => first.local_addr()?.port(),
            None => port,
        };
        match listen((ip, port).into()) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // Not every system has both families.
            Err(_) if !listeners.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    if address.is_ipv6() {
        // The other family has a socket of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, 128)?;
    TcpListener::from_std(socket.into())
}

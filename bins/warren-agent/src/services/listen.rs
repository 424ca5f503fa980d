//! Ports and Unix sockets at which the workspace listens for somebody: each connection goes out to them.

use io_adapters::handle::{PeerHandle, TunnelStream};
use io_adapters::local::{self, Listener, UnixSocket, Unusable};
use io_adapters::splice::{Socket, Traffic, splice};
use proto_core::stream::{Header, ListenAnswer, ListenAt, TcpAnswer};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long the other end may take to say what became of a connection: its own limit, and a way there and back.
const ANSWER: Duration = Duration::from_secs(12);
/// After a failure to accept (no file descriptors left), others get time to close theirs.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections of one listener that are carried at once: half the streams of a peer.
const CONNECTIONS_MAX: usize = 512;

/// Listens for as long as the stream lasts.
pub(crate) async fn serve(
    peer: PeerHandle,
    mut stream: TunnelStream,
    at: ListenAt,
    listener: u32,
) -> io::Result<()> {
    let caller = Arc::new(Caller { peer, listener });
    match at {
        ListenAt::Port { bind: Some(bind), .. } if !bind.is_loopback() => {
            let why = "the workspace listens on its loopback addresses alone".to_owned();
            refuse(stream, ListenAnswer::Failed { why }).await
        }
        ListenAt::Port { bind, port } => {
            let addresses = bind.map_or_else(local::loopbacks, |bind| vec![bind]);
            match local::tcp(&addresses, port).await {
                Err(error) => refuse(stream, meaning(&error)).await,
                Ok(listeners) => {
                    let at: Vec<_> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
                    let port = at.first().map_or(0, std::net::SocketAddr::port);
                    let at = at.iter().map(ToString::to_string).collect();
                    stream.write_all(&ListenAnswer::Listening { at, port }.encode()).await?;
                    hold(caller, stream, listeners).await
                }
            }
        }
        ListenAt::Path(path) => match UnixSocket::bind(Path::new(&path)).await {
            Err(error) => refuse(stream, meaning(&error)).await,
            Ok(socket) => {
                let answer = ListenAnswer::Listening { at: vec![path], port: 0 };
                stream.write_all(&answer.encode()).await?;
                hold(caller, stream, vec![socket]).await
            }
        },
    }
}

async fn refuse(mut stream: TunnelStream, answer: ListenAnswer) -> io::Result<()> {
    stream.write_all(&answer.encode()).await?;
    stream.shutdown().await
}

fn meaning(unusable: &Unusable) -> ListenAnswer {
    match unusable.error.kind() {
        io::ErrorKind::AddrInUse => ListenAnswer::InUse,
        io::ErrorKind::PermissionDenied => ListenAnswer::Forbidden,
        _ => ListenAnswer::Failed { why: unusable.error.to_string() },
    }
}

/// Takes connections until the stream ends, and carries them to theirs.
async fn hold<L: Listener + 'static>(
    caller: Arc<Caller>,
    mut stream: TunnelStream,
    listeners: Vec<L>,
) -> io::Result<()>
where
    L::Socket: 'static,
{
    // The listeners end with this, and so do the connections: nobody is left to carry them to.
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(caller.clone(), listener));
    }
    let mut said = [0; 64];
    loop {
        tokio::select! {
            read = stream.read(&mut said) => match read {
                Ok(0) => return Ok(()),
                // Nothing is to be said here in this version.
                Ok(_) => {}
                Err(error) => return Err(error),
            },
            Some(_) = accepting.join_next() => {}
        }
    }
}

async fn accept<L: Listener>(caller: Arc<Caller>, listener: L)
where
    L::Socket: 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok(socket) => {
                    let caller = caller.clone();
                    connections.spawn(async move { caller.carry(socket).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Who asked, and by what name.
pub(crate) struct Caller {
    /// Who.
    pub peer: PeerHandle,
    /// What the connections' streams are to name.
    pub listener: u32,
}

impl Caller {
    /// Carries a connection to them.
    pub(crate) async fn carry(&self, socket: impl Socket) {
        let opened = async {
            let header = Header::Reverse { listener: self.listener };
            let mut stream = self.peer.open(&header).await.map_err(io::Error::other)?;
            stream.flush().await?;
            let answer = TcpAnswer::from_byte(stream.read_u8().await?);
            io::Result::Ok((answer, stream))
        };
        match timeout(ANSWER, opened).await {
            Ok(Ok((TcpAnswer::Connected, stream))) => {
                if let Err(error) = splice(&socket, stream, &Traffic::default()).await {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            Ok(Ok((answer, _))) => tracing::debug!(?answer, "a connection was refused at the other end"),
            Ok(Err(error)) => tracing::debug!(%error, "a connection found no other end"),
            Err(_) => tracing::debug!("the other end did not answer in time"),
        }
        socket.abort();
    }
}

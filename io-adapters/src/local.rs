//! Sockets of this host where connections come in that a tunnel is to carry: on the loopback, and in the file system.

use crate::splice::Socket;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};

/// Ports that are tried when any will do but must be free of several addresses.
const TRIES: usize = 64;

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {at}: {error}")]
pub struct Unusable {
    /// Where.
    pub at: String,
    /// The system's reason; [`io::ErrorKind::AddrInUse`] if another program listens there.
    pub error: io::Error,
}

/// The loopback addresses of both families.
#[must_use]
pub fn loopbacks() -> Vec<IpAddr> {
    vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
}

/// Listens for TCP on one port of all of these addresses; if `port` is 0, on one that is free on all. Not every system
/// has both families: an address that is missing is left out, but for the first.
///
/// # Errors
/// [`Unusable`] names the address.
pub async fn tcp(addresses: &[IpAddr], port: u16) -> Result<Vec<TcpListener>, Unusable> {
    everywhere(addresses, port, async |at| TcpListener::bind(at).await, TcpListener::local_addr).await
}

/// The same for UDP.
///
/// # Errors
/// [`Unusable`] names the address.
pub async fn udp(addresses: &[IpAddr], port: u16) -> Result<Vec<UdpSocket>, Unusable> {
    everywhere(addresses, port, async |at| UdpSocket::bind(at).await, UdpSocket::local_addr).await
}

async fn everywhere<T>(
    addresses: &[IpAddr],
    port: u16,
    bind: impl AsyncFn(SocketAddr) -> io::Result<T>,
    address_of: impl Fn(&T) -> io::Result<SocketAddr>,
) -> Result<Vec<T>, Unusable> {
    // Those that would not do are kept while others are tried, so that the system gives none of them again.
    let mut unfit = Vec::new();
    loop {
        let mut sockets = Vec::new();
        let mut failure = None;
        for address in addresses {
            let first = sockets.first().and_then(|socket| address_of(socket).ok());
            let at = SocketAddr::from((*address, first.map_or(port, |first| first.port())));
            match bind(at).await {
                Ok(socket) => sockets.push(socket),
                Err(error) if is_missing(&error) && !sockets.is_empty() => {}
                Err(error) => failure = failure.or(Some(Unusable { at: at.to_string(), error })),
            }
        }
        match failure {
            None => return Ok(sockets),
            Some(failure) => {
                let again = port == 0 && failure.error.kind() == io::ErrorKind::AddrInUse;
                unfit.push(sockets);
                if !again || unfit.len() == TRIES {
                    return Err(failure);
                }
            }
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

/// A Unix socket that listens, for this user alone. Its file goes with it.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Which file it was when it was made.
    file: Option<(u64, u64)>,
}

impl UnixSocket {
    /// Listens at a path. A socket that a program left behind makes room; one that somebody listens at does not, nor
    /// does anything else.
    ///
    /// # Errors
    /// [`Unusable`] with the reason.
    pub async fn bind(path: &Path) -> Result<Self, Unusable> {
        let unusable = |error| Unusable { at: path.display().to_string(), error };
        let listener = match bind_private(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                make_room(path).await.map_err(unusable)?;
                bind_private(path)
            }
            bound => bound,
        };
        let listener = listener.map_err(unusable)?;
        Ok(Self { listener, path: path.to_owned(), file: identity(path) })
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Somebody may have put another there meanwhile.
        if self.file.is_some() && identity(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Binds with a mode of 0600 from the start: set afterwards, others could connect in between.
#[allow(unsafe_code, reason = "a call of the C library without memory")]
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    // SAFETY: it sets a number of this process, and may be called at any time.
    let usual = unsafe { libc::umask(0o177) };
    let bound = UnixListener::bind(path);
    // SAFETY: as above.
    unsafe { libc::umask(usual) };
    bound
}

/// Removes a socket at which nobody listens any more.
async fn make_room(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of that name, and it is no socket",
        ));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Where connections come in.
pub trait Listener: Send + Sync {
    /// A connection.
    type Socket: Socket;

    /// The next connection.
    ///
    /// # Errors
    /// If it could not be taken, for want of file descriptors perhaps: others may be later.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Socket>> + Send;
}

impl Listener for TcpListener {
    type Socket = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(socket, _)| socket)
    }
}

impl Listener for UnixSocket {
    type Socket = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(socket, _)| socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn any_port_is_one_that_is_free_on_both_loopbacks() {
        // Every second port of the other family is taken, wherever the system looks next.
        let first = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let taken: Vec<_> = (first.saturating_sub(200)..first.saturating_add(200))
            .step_by(2)
            .filter_map(|port| std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok())
            .collect();
        assert!(taken.len() > 50, "{}", taken.len());
        for _ in 0..20 {
            let sockets = tcp(&loopbacks(), 0).await.unwrap();
            let ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
            assert_eq!(ports, [ports[0]; 2]);
        }
    }

    #[tokio::test]
    async fn one_that_is_taken_on_either_loopback_is_named() {
        let other = std::net::TcpListener::bind("[::1]:0").unwrap();
        let at = other.local_addr().unwrap();
        let error = tcp(&loopbacks(), at.port()).await.unwrap_err();
        assert_eq!((error.at.as_str(), error.error.kind()), (&*at.to_string(), io::ErrorKind::AddrInUse));
    }

    #[tokio::test]
    async fn a_unix_socket_is_private_takes_the_place_of_a_stale_one_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a stale one");
        let socket = UnixSocket::bind(&path).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = UnixSocket::bind(&path).await.unwrap_err();
        assert_eq!(error.error.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_of_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        fs::write(&path, "precious").unwrap();
        let error = UnixSocket::bind(&path).await.unwrap_err();
        assert_eq!(error.error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();
        let socket = UnixSocket::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert!(path.exists());
    }
}

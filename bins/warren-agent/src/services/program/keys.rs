//! A socket in the workspace that leads to the visitor's own SSH agent, in a folder that nobody else may enter.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// After a failure to accept (no file descriptors left), others get time to close theirs.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket, until it is dropped.
pub(crate) struct Keys {
    folder: TempDir,
    _accepting: JoinSet<()>,
}

impl Keys {
    /// Listens; who comes is served so.
    pub(crate) fn forward(serve: impl Fn(UnixStream) + Send + 'static) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("warren-ssh-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()?;
        let listener = UnixListener::bind(folder.path().join(Self::NAME))?;
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, serve));
        Ok(Self { folder, _accepting: accepting })
    }

    const NAME: &str = "agent";

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        Path::join(self.folder.path(), Self::NAME)
    }
}

/// Takes who comes to a socket, for ever.
pub(crate) async fn accept(listener: UnixListener, serve: impl Fn(UnixStream)) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => serve(connection),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

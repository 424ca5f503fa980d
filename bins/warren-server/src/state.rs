//! The state directory: made at the first start, readable by the server's user alone, used by one server at a
//! time.

use crate::fault::{Fault, io_words};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The lock's file. It holds the process's number, for people.
const LOCK: &str = "server.lock";

/// A state directory that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// Makes the directory if it is not there, and takes it.
    ///
    /// # Errors
    /// If it cannot be made or written, or another server has it.
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        let unusable = |error: &std::io::Error| {
            Fault::new(
                "STATE_DIR_UNUSABLE",
                format!("can't use the state directory {}: {}", path.display(), io_words(error)),
                "check its permissions, or name another with `--state-dir DIR`",
            )
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| unusable(&error))?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(|error| unusable(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(unusable(&error)),
        }
        let noted = lock
            .set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()));
        noted.map_err(|error| unusable(&error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn taken(path: &Path, lock: &mut File) -> Fault {
    let mut owner = String::new();
    let who = match lock.read_to_string(&mut owner) {
        Ok(_) if !owner.trim().is_empty() => format!("process {}", owner.trim()),
        _ => "another process".to_owned(),
    };
    Fault::new(
        "STATE_DIR_BUSY",
        format!("{who} runs a server in the state directory {} already", path.display()),
        "stop it, or name another directory with `--state-dir DIR`",
    )
}

//! The state directory of a server: made at the first start, readable by the server's user alone, used by one
//! server at a time.

use crate::{Fault, io_words};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The directory that was given, else the service manager's, else `folder` among the user's states.
///
/// # Errors
/// If none is given and the environment names no home.
pub fn state_directory(given: Option<&Path>, folder: &str) -> Result<PathBuf, Fault> {
    if let Some(directory) = given {
        return Ok(directory.to_owned());
    }
    if let Some(directory) = std::env::var_os("STATE_DIRECTORY").filter(|v| !v.is_empty()) {
        return Ok(PathBuf::from(directory));
    }
    use etcetera::base_strategy::{BaseStrategy, Xdg};
    let directory = Xdg::new().ok().and_then(|xdg| xdg.state_dir()).map(|state| state.join(folder));
    directory.ok_or_else(|| {
        Fault::new(
            "STATE_DIR_UNKNOWN",
            "no state directory is set and there is no home directory to keep it in",
            "name one with `--state-dir DIR`",
        )
    })
}

/// A state directory that is ours until this is dropped.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// Makes the directory if it is not there, and takes it for a program of this kind: "server", "relay". Its
    /// lock's file holds the process's number, for people.
    ///
    /// # Errors
    /// If it cannot be made or written, or another process has it.
    pub fn open(path: &Path, kind: &str) -> Result<Self, Fault> {
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
            .open(path.join(format!("{kind}.lock")))
            .map_err(|error| unusable(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(path, kind, &mut lock)),
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
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn taken(path: &Path, kind: &str, lock: &mut File) -> Fault {
    let mut owner = String::new();
    let who = match lock.read_to_string(&mut owner) {
        Ok(_) if !owner.trim().is_empty() => format!("process {}", owner.trim()),
        _ => "another process".to_owned(),
    };
    Fault::new(
        "STATE_DIR_BUSY",
        format!("{who} runs a {kind} in the state directory {} already", path.display()),
        "stop it, or name another directory with `--state-dir DIR`",
    )
}

//! Files that only their owner may read: keys and tokens.

use crate::entropy;
use proto_core::key::{NodeSecret, hex, unhex};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Replaces a file whole, with mode 0600, so that a crash leaves the old one or the new one. Its folder is made
/// if it is missing.
///
/// # Errors
/// What the operating system says.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, &temporary(path, bytes, Care::Kept)?)
}

/// As [`write()`], for what is of the moment: nobody waits for the disk, and a crash of the machine may lose it.
///
/// # Errors
/// What the operating system says.
pub fn write_for_now(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, &temporary(path, bytes, Care::Passing)?)
}

fn put(path: &Path, temporary: &Path) -> io::Result<()> {
    std::fs::rename(temporary, path).inspect_err(|_| drop(std::fs::remove_file(temporary)))
}

/// What is kept in a file, made by `make` at the first call. Of several first calls at once, in one process or more,
/// one makes it and all get it.
///
/// # Errors
/// What the operating system says.
pub fn kept(path: &Path, make: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let temporary = temporary(path, &make(), Care::Kept)?;
            // Unlike a renamed file, a link never takes another's place.
            let made = std::fs::hard_link(&temporary, path);
            let _ = std::fs::remove_file(&temporary);
            match made {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
                _ => std::fs::read(path),
            }
        }
        read => read,
    }
}

/// The node key kept in a file, made at the first call as [`kept`] does.
///
/// # Errors
/// What the operating system says, or [`io::ErrorKind::InvalidData`] if the file holds something else; it is
/// then left as it is.
pub fn node_key(path: &Path) -> io::Result<NodeSecret> {
    let bytes = kept(path, || hex(&NodeSecret::generate(&entropy::seed()).to_bytes()).into_bytes())?;
    let text = str::from_utf8(&bytes).unwrap_or_default();
    unhex(text.trim()).map(NodeSecret::from_bytes).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "it does not hold a node key (64 hexadecimal digits)")
    })
}

/// How long a file is to last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// All of it is on the disk before anybody sees it.
    Kept,
    /// Until the machine stops.
    Passing,
}

/// A file of these bytes beside `path`.
fn temporary(path: &Path, bytes: &[u8], care: Care) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = folder.join(format!(".{name}.{process}.{count}"));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    // A disk that is full takes the name and not the bytes: nothing is left lying about.
    let written = file.write_all(bytes).and_then(|()| match care {
        Care::Kept => file.sync_all(),
        Care::Passing => Ok(()),
    });
    written.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_node_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/node.key");
        let first = node_key(&path).unwrap();
        assert_eq!(node_key(&path).unwrap().public(), first.public());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn of_many_first_starts_all_get_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..16).map(|_| scope.spawn(|| node_key(&path).unwrap().public())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left lying about");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        std::fs::create_dir(&path).unwrap();
        write(&path, b"a folder has that name").unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left lying about");
    }

    #[test]
    fn a_damaged_key_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        std::fs::write(&path, "not a key").unwrap();
        assert_eq!(node_key(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a key");
    }
}

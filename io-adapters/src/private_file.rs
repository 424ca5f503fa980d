//! Files that only their owner may read: keys and tokens.

use crate::entropy;
use proto_core::key::{NodeSecret, hex, unhex};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file whole, with mode 0600, so that a crash leaves the old one or the new one. Its folder is made
/// if it is missing.
///
/// # Errors
/// What the operating system says.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// The node key kept in a file, made at the first call.
///
/// # Errors
/// What the operating system says, or [`io::ErrorKind::InvalidData`] if the file holds something else; it is
/// then left as it is.
pub fn node_key(path: &Path) -> io::Result<NodeSecret> {
    match std::fs::read_to_string(path) {
        Ok(text) => unhex(text.trim()).map(NodeSecret::from_bytes).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it does not hold a node key (64 hexadecimal digits)")
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let secret = NodeSecret::generate(&entropy::seed());
            write(path, hex(&secret.to_bytes()).as_bytes())?;
            Ok(secret)
        }
        Err(e) => Err(e),
    }
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
    fn a_damaged_key_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        std::fs::write(&path, "not a key").unwrap();
        assert_eq!(node_key(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a key");
    }
}

//! The key by which people recognise the workspace: made once, and kept beside the node key.

use io_adapters::{entropy, private_file};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use std::io;
use std::path::Path;

/// The file's name, as OpenSSH calls its own.
const FILE: &str = "ssh_host_ed25519_key";

/// The host key in this folder, made at the first call, in OpenSSH's format.
///
/// # Errors
/// What the operating system says, or [`io::ErrorKind::InvalidData`] if the file holds something else.
pub(super) fn kept(state: &Path) -> io::Result<PrivateKey> {
    let path = state.join(FILE);
    let damaged = |why: String| {
        let sentence = format!("{} holds no SSH host key: {why}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, sentence)
    };
    let made = make().map_err(|e| io::Error::other(e.to_string()))?;
    let bytes = private_file::kept(&path, || made.into_bytes())
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    PrivateKey::from_openssh(bytes).map_err(|e| damaged(e.to_string()))
}

fn make() -> russh::keys::ssh_key::Result<String> {
    let seed = entropy::seed().fork("ssh host key").rng().bytes();
    let key = PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed)), "warren-agent")?;
    Ok(key.to_openssh(LineEnding::LF)?.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = kept(dir.path()).unwrap();
        assert_eq!(kept(dir.path()).unwrap().public_key(), first.public_key());
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(first.algorithm(), russh::keys::Algorithm::Ed25519);
    }

    #[test]
    fn a_damaged_key_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "no key").unwrap();
        let error = kept(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), "no key");
    }
}

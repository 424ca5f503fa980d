//! What `warren login` leaves behind: the server's address, the token and this machine's node key, in files
//! that only their owner can read.

use crate::error::{CliError, Exit, Result};
use etcetera::BaseStrategy;
use io_adapters::private_file;
use proto_core::key::{NodePublic, NodeSecret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A login.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The server's address.
    pub url: String,
    /// The session's token.
    pub token: String,
    /// Who logged in.
    pub username: String,
}

/// The folder of this program's files.
#[derive(Clone, Debug)]
pub(crate) struct ConfigDir(PathBuf);

impl ConfigDir {
    /// The folder given, else `warren` in the user's configuration folder.
    pub(crate) fn new(given: Option<PathBuf>) -> Result<Self> {
        if let Some(dir) = given {
            return Ok(Self(dir));
        }
        let base = etcetera::choose_base_strategy().map_err(|_| {
            CliError::new(Exit::Failed, "NO_HOME", "can't find your home folder")
                .hint("set HOME, or name a folder with --config-dir")
        })?;
        Ok(Self(base.config_dir().join("warren")))
    }

    /// Where settings are read from if no other file is named.
    pub(crate) fn settings_file(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The login, if there is one.
    pub(crate) fn session(&self) -> Result<Session> {
        let path = self.0.join("session.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(CliError::new(Exit::Forbidden, "NOT_LOGGED_IN", "you are not logged in")
                    .hint("run `warren login URL` with your server's address"));
            }
            Err(e) => return Err(unreadable(&path, &e)),
        };
        serde_json::from_str(&text).map_err(|e| {
            CliError::new(Exit::Failed, "BAD_SESSION_FILE", format!("{} is damaged: {e}", path.display()))
                .hint("run `warren login URL` to write it anew")
        })
    }

    /// Keeps a login.
    pub(crate) fn save_session(&self, session: &Session) -> Result {
        let text = serde_json::to_string_pretty(session).unwrap_or_default();
        self.write("session.json", text.as_bytes())
    }

    /// Forgets the login; false if there was none.
    pub(crate) fn remove_session(&self) -> Result<bool> {
        let path = self.0.join("session.json");
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(unreadable(&path, &e)),
        }
    }

    /// This machine's node key, made and kept at the first call. Only one process at a time may be this node: while
    /// another one is, a key of this process's own, which nobody has to remember.
    pub(crate) fn identity(&self) -> Result<Identity> {
        let path = self.0.join("node.key");
        let secret = private_file::node_key(&path).map_err(|e| {
            unreadable(&path, &e)
                .hint("move a damaged file away and a new key is made; agents see you as a new machine")
        })?;
        let file = File::open(&path).map_err(|e| unreadable(&path, &e))?;
        Ok(match file.try_lock() {
            Ok(()) => Identity { secret, _lock: Some(file) },
            Err(_) => Identity { secret: NodeSecret::generate(&io_adapters::entropy::seed()), _lock: None },
        })
    }

    /// The node keys of agents seen before, by agent.
    pub(crate) fn pins(&self) -> Result<BTreeMap<String, NodePublic>> {
        let path = self.0.join(PINS);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) => return Err(unreadable(&path, &e)),
        };
        // Without its pins, whoever holds the server could put another agent in a known one's place.
        serde_json::from_slice(&bytes).map_err(|e| {
            let sentence = format!("{}, the keys of agents seen before, is damaged: {e}", path.display());
            CliError::new(Exit::Failed, "BAD_PINS_FILE", sentence).hint(
                "bring it back from a copy, or move it away to trust every agent's key as it comes next",
            )
        })
    }

    /// Remembers an agent's node key, unless one is remembered already.
    pub(crate) fn pin(&self, agent: &str, key: NodePublic) -> Result {
        self.change_pins(|pins| _ = pins.entry(agent.to_owned()).or_insert(key))
    }

    /// Remembers an agent's node key in the place of the one before, which is returned.
    pub(crate) fn trust(&self, agent: &str, key: NodePublic) -> Result<Option<NodePublic>> {
        let mut before = None;
        self.change_pins(|pins| before = pins.insert(agent.to_owned(), key))?;
        Ok(before)
    }

    /// Changes the pins, one process at a time.
    fn change_pins(&self, change: impl FnOnce(&mut BTreeMap<String, NodePublic>)) -> Result {
        let path = self.0.join("pins.lock");
        // The pins themselves can't be locked: each change puts a new file in their place.
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let _lock = lock.and_then(|file| file.lock().map(|()| file)).map_err(|e| unwritable(&path, &e))?;
        let before = self.pins()?;
        let mut pins = before.clone();
        change(&mut pins);
        if pins == before {
            return Ok(());
        }
        self.write(PINS, serde_json::to_string_pretty(&pins).unwrap_or_default().as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result {
        let path = self.0.join(name);
        private_file::write(&path, bytes).map_err(|e| unwritable(&path, &e))
    }
}

/// Who this process is to the network.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The node key.
    pub secret: NodeSecret,
    /// Keeps other processes from being the same node.
    _lock: Option<File>,
}

/// The file of the pins.
const PINS: &str = "pins.json";

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(Exit::Failed, "CONFIG_WRITE", format!("can't write {}: {error}", path.display()))
        .hint("check the folder's permissions, or name another with --config-dir")
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(Exit::Failed, "CONFIG_READ", format!("can't read {}: {error}", path.display()))
        .hint("check the file's permissions, or name another folder with --config-dir")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::seed::Seed;

    fn key(n: u64) -> NodePublic {
        NodeSecret::generate(&Seed::from_u64(n)).public()
    }

    #[test]
    fn a_damaged_file_of_pins_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigDir(dir.path().to_owned());
        config.pin("agent", key(1)).unwrap();
        let path = dir.path().join(PINS);
        let whole = std::fs::read(&path).unwrap();
        let half = &whole[..whole.len() / 2];
        std::fs::write(&path, half).unwrap();
        let error = config.pin("other", key(2)).unwrap_err();
        assert_eq!(config.pins().unwrap_err(), error);
        assert_eq!(std::fs::read(&path).unwrap(), half);
        let text = error.text().replace(&dir.path().display().to_string(), "HOME");
        insta::assert_snapshot!(text);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(config.pins().unwrap_err().code, "CONFIG_READ");
    }

    #[test]
    fn of_many_pins_at_once_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for n in 0..32 {
                let config = ConfigDir(dir.path().to_owned());
                scope.spawn(move || config.pin(&n.to_string(), key(n)).unwrap());
            }
        });
        let config = ConfigDir(dir.path().to_owned());
        assert_eq!(config.pins().unwrap().len(), 32);
        config.pin("0", key(99)).unwrap();
        assert_eq!(config.pins().unwrap()["0"], key(0), "a key is never replaced by the way");
        assert_eq!(config.trust("0", key(99)).unwrap(), Some(key(0)));
        assert_eq!(config.pins().unwrap()["0"], key(99));
    }

    #[test]
    fn one_process_is_the_machine_and_others_are_nodes_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigDir(dir.path().to_owned());
        let first = config.identity().unwrap();
        assert_ne!(config.identity().unwrap().secret.public(), first.secret.public());
        let machine = first.secret.public();
        drop(first);
        assert_eq!(config.identity().unwrap().secret.public(), machine);
    }
}

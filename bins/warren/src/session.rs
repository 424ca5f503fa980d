//! What `warren login` leaves behind: the server's address, the token and this machine's node key, in files
//! that only their owner can read.

use crate::error::{CliError, Exit, Result};
use etcetera::BaseStrategy;
use io_adapters::private_file;
use proto_core::key::{NodePublic, NodeSecret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    pub(crate) fn node_secret(&self) -> Result<NodeSecret> {
        let path = self.0.join("node.key");
        let secret = private_file::node_key(&path).map_err(|e| {
            unreadable(&path, &e)
                .hint("move a damaged file away and a new key is made; agents see you as a new machine")
        })?;
        let file = std::fs::File::open(&path).map_err(|e| unreadable(&path, &e))?;
        if file.try_lock().is_err() {
            return Ok(NodeSecret::generate(&io_adapters::entropy::seed()));
        }
        // The lock is this process's until its end.
        std::mem::forget(file);
        Ok(secret)
    }

    /// The node keys of agents seen before, by agent.
    pub(crate) fn pins(&self) -> BTreeMap<String, NodePublic> {
        std::fs::read(self.0.join("pins.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Remembers an agent's node key.
    pub(crate) fn pin(&self, agent: &str, key: NodePublic) -> Result {
        let mut pins = self.pins();
        if pins.insert(agent.to_string(), key) == Some(key) {
            return Ok(());
        }
        self.write("pins.json", serde_json::to_string_pretty(&pins).unwrap_or_default().as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result {
        let path = self.0.join(name);
        private_file::write(&path, bytes).map_err(|e| {
            CliError::new(Exit::Failed, "CONFIG_WRITE", format!("can't write {}: {e}", path.display()))
                .hint("check the folder's permissions, or name another with --config-dir")
        })
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(Exit::Failed, "CONFIG_READ", format!("can't read {}: {error}", path.display()))
        .hint("check the file's permissions, or name another folder with --config-dir")
}

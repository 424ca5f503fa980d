//! What `warren login` leaves behind: the servers' addresses, the tokens and this machine's node key, in files
//! that only their owner can read.

use crate::contexts::Contexts;
pub(crate) use crate::contexts::Session;
use crate::error::{CliError, Exit, Result};
use crate::known_hosts;
use crate::output;
use etcetera::BaseStrategy;
use io_adapters::private_file;
use proto_core::key::{NodePublic, NodeSecret};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The folder of this program's files.
#[derive(Clone, Debug)]
pub(crate) struct ConfigDir {
    path: PathBuf,
    /// The server that the person named for this command.
    server: Option<String>,
}

impl ConfigDir {
    /// The folder given, else `warren` in the user's configuration folder.
    pub(crate) fn new(given: Option<PathBuf>) -> Result<Self> {
        if let Some(path) = given {
            return Ok(Self { path, server: None });
        }
        let base = etcetera::choose_base_strategy().map_err(|_| {
            CliError::new(Exit::Failed, "NO_HOME", "can't find your home folder")
                .hint("set HOME, or name a folder with --config-dir")
        })?;
        Ok(Self { path: base.config_dir().join("warren"), server: None })
    }

    /// Where settings are read from if no other file is named.
    pub(crate) fn settings_file(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Where OpenSSH keeps the host keys of workspaces.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.path.join("known_hosts")
    }

    /// The same folder, for a command that is meant for this server.
    pub(crate) fn for_server(self, server: Option<String>) -> Self {
        Self { server, ..self }
    }

    /// The login at the server that was named, else at the one in use.
    pub(crate) fn session(&self) -> Result<Session> {
        self.contexts()?.chosen(self.server.as_deref()).cloned()
    }

    /// The servers that there are logins at.
    pub(crate) fn contexts(&self) -> Result<Contexts> {
        let path = self.path.join(SESSIONS);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Contexts::default()),
            Err(e) => return Err(unreadable(&path, &e)),
        };
        Contexts::parse(&text).map_err(|why| {
            CliError::new(Exit::Failed, "BAD_SESSION_FILE", format!("{} is damaged: {why}", path.display()))
                .hint("move it away and run `warren login URL`")
        })
    }

    /// Changes what is remembered of the servers, one process at a time.
    pub(crate) fn change_contexts<T>(&self, change: impl FnOnce(&mut Contexts) -> Result<T>) -> Result<T> {
        let _lock = self.lock("session.lock")?;
        let mut contexts = self.contexts()?;
        let changed = change(&mut contexts)?;
        self.write(SESSIONS, contexts.text().as_bytes())?;
        Ok(changed)
    }

    /// What must not be shown to anybody, as far as it can be read: tokens, and this machine's node key.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let contexts = self.contexts().unwrap_or_default();
        let tokens = contexts.all().into_iter().map(|(session, _)| session.token.clone());
        let key = std::fs::read_to_string(self.path.join("node.key")).ok();
        tokens.chain(key).collect()
    }

    /// This machine's node key, made and kept at the first call. Only one process at a time may be this node: while
    /// another one is, a key of this process's own, which nobody has to remember.
    pub(crate) fn identity(&self) -> Result<Identity> {
        let path = self.path.join("node.key");
        let secret = match private_file::node_key(&path) {
            Ok(secret) => secret,
            Err(error) if !path.exists() => {
                output::warning(
                    WRITE,
                    &format!("{}: agents see another machine each time", sentence(&path, &error)),
                );
                return Ok(Identity::passing());
            }
            Err(error) => {
                return Err(unreadable(&path, &error).hint(
                    "move a damaged file away and a new key is made; agents see you as a new machine",
                ));
            }
        };
        let file = File::open(&path).map_err(|e| unreadable(&path, &e))?;
        Ok(match file.try_lock() {
            Ok(()) => Identity { secret, _lock: Some(file) },
            Err(_) => Identity::passing(),
        })
    }

    /// The node keys of agents seen before, by agent.
    pub(crate) fn pins(&self) -> Result<BTreeMap<String, NodePublic>> {
        let path = self.path.join(PINS);
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
        if self.pins()?.contains_key(agent) {
            return Ok(());
        }
        self.change_pins(|pins| _ = pins.entry(agent.to_owned()).or_insert(key))
    }

    /// Remembers an agent's node key in the place of the one before, which is returned.
    pub(crate) fn trust(&self, agent: &str, key: NodePublic) -> Result<Option<NodePublic>> {
        let mut before = None;
        self.change_pins(|pins| before = pins.insert(agent.to_owned(), key))?;
        Ok(before)
    }

    /// Forgets the SSH host key of a workspace, so that OpenSSH learns the one that it has now: whether there was one.
    pub(crate) fn forget_host_key(&self, workspace: &str) -> Result<bool> {
        let path = self.known_hosts();
        let before = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(unreadable(&path, &e)),
        };
        let after = known_hosts::without(&before, workspace);
        if after == before {
            return Ok(false);
        }
        private_file::write(&path, &after).map_err(|e| unwritable(&path, &e)).map(|()| true)
    }

    /// Changes the pins, one process at a time.
    fn change_pins(&self, change: impl FnOnce(&mut BTreeMap<String, NodePublic>)) -> Result {
        let _lock = self.lock("pins.lock")?;
        let before = self.pins()?;
        let mut pins = before.clone();
        change(&mut pins);
        if pins == before {
            return Ok(());
        }
        self.write(PINS, serde_json::to_string_pretty(&pins).unwrap_or_default().as_bytes())
    }

    /// Waits until no other process has this lock. The files themselves can't be locked: each change puts a new one in
    /// their place.
    fn lock(&self, name: &str) -> Result<File> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&self.path).map_err(|e| unwritable(&path, &e))?;
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        lock.and_then(|file| file.lock().map(|()| file)).map_err(|e| unwritable(&path, &e))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result {
        let path = self.path.join(name);
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

impl Identity {
    /// A node that nobody has to remember.
    fn passing() -> Self {
        Self { secret: NodeSecret::generate(&io_adapters::entropy::seed()), _lock: None }
    }
}

/// The code of a file that could not be written.
pub(crate) const WRITE: &str = "CONFIG_WRITE";
/// The file of the servers and their tokens.
const SESSIONS: &str = "session.json";
/// The file of the pins.
const PINS: &str = "pins.json";

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new(Exit::Failed, WRITE, sentence(path, error))
        .hint("check the folder's permissions, or name another with --config-dir")
}

fn sentence(path: &Path, error: &std::io::Error) -> String {
    format!("can't write {}: {error}", path.display())
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
        let config = ConfigDir::new(Some(dir.path().to_owned())).unwrap();
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
                let config = ConfigDir::new(Some(dir.path().to_owned())).unwrap();
                scope.spawn(move || config.pin(&n.to_string(), key(n)).unwrap());
            }
        });
        let config = ConfigDir::new(Some(dir.path().to_owned())).unwrap();
        assert_eq!(config.pins().unwrap().len(), 32);
        config.pin("0", key(99)).unwrap();
        assert_eq!(config.pins().unwrap()["0"], key(0), "a key is never replaced by the way");
        assert_eq!(config.trust("0", key(99)).unwrap(), Some(key(0)));
        assert_eq!(config.pins().unwrap()["0"], key(99));
    }

    #[test]
    fn one_process_is_the_machine_and_others_are_nodes_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let config = ConfigDir::new(Some(dir.path().to_owned())).unwrap();
        let first = config.identity().unwrap();
        assert_ne!(config.identity().unwrap().secret.public(), first.secret.public());
        let machine = first.secret.public();
        drop(first);
        assert_eq!(config.identity().unwrap().secret.public(), machine);
    }
}

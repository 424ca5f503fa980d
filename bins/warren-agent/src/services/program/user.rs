//! The user that programs of the workspace run as: the agent's own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The shell of last resort.
const SHELL: &str = "/bin/sh";

/// What the system knows of the agent's user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct User {
    /// The login name.
    pub name: OsString,
    /// The home folder.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

impl User {
    /// Looked up now: a shell that was changed is the next session's.
    pub(crate) fn current() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let local = || std::fs::read("/etc/passwd").ok().and_then(|file| find(&file, uid));
        // The program asks wherever the system keeps its users, a directory on the network for example.
        let elsewhere = || {
            let mut getent = Command::new("getent");
            let out = getent.args(["passwd", &uid.to_string()]).stdin(Stdio::null()).output().ok()?;
            find(&out.stdout, uid)
        };
        local().or_else(elsewhere).unwrap_or_else(Self::from_environment).usable()
    }

    /// For a user that no list has, as in containers that run with any number.
    fn from_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let uid = rustix::process::getuid().as_raw().to_string();
        Self {
            name: variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| uid.into()),
            home: variable("HOME").unwrap_or_else(|| "/".into()).into(),
            shell: variable("SHELL").unwrap_or_default().into(),
        }
    }

    fn usable(mut self) -> Self {
        if !self.shell.is_file() {
            self.shell = SHELL.into();
        }
        self
    }

    /// Where programs start: the home folder, or the root if there is none.
    pub(crate) fn folder(&self) -> &Path {
        if self.home.is_dir() { &self.home } else { Path::new("/") }
    }
}

/// The user of this number in a file of the format of passwd(5).
fn find(passwd: &[u8], uid: u32) -> Option<User> {
    passwd.split(|b| *b == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let [name, _, number, _, _, home, shell] = fields[..] else { return None };
        if str::from_utf8(number).ok()?.parse() != Ok(uid) {
            return None;
        }
        let text = |field: &[u8]| OsString::from_vec(field.to_vec());
        Some(User { name: text(name), home: text(home).into(), shell: text(shell).into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_number() {
        let passwd = b"root:x:0:0:root:/root:/bin/bash\n# damaged:x\nalice:x:1000:1000:Alice,,,:/home/alice:/bin/zsh\n";
        let alice = find(passwd, 1000).unwrap();
        assert_eq!((alice.name, alice.home), ("alice".into(), "/home/alice".into()));
        assert_eq!(alice.shell, Path::new("/bin/zsh"));
        assert_eq!(find(passwd, 7), None);
    }

    #[test]
    fn a_shell_that_is_not_there_is_replaced() {
        let user = User { name: "a".into(), home: "/".into(), shell: "/no/such/shell".into() }.usable();
        assert_eq!(user.shell, Path::new(SHELL));
    }
}

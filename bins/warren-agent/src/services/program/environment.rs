//! The variables that a visitor's programs find.

use super::user::User;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::Ipv6Addr;
use std::path::Path;

/// Where programs are if the agent itself was not told.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that a visitor may set for one program: far more than any client asks for.
const ASKED: usize = 256;
/// Bytes of their names and values together, well below what the system takes for a program's start.
const ASKED_BYTES: usize = 64 << 10;
/// The port that programs are told the visitor came to; there is none in truth.
const SSH_PORT: u16 = 22;

/// What a session is told about itself.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The workspace's name, as the visitor calls it.
    pub workspace: String,
    /// The visitor's address inside the tunnel.
    pub visitor: Ipv6Addr,
    /// The agent's.
    pub agent: Ipv6Addr,
}

/// The variables that a visitor asked for and got.
#[derive(Clone, Default, Debug)]
pub(crate) struct Asked {
    variables: BTreeMap<String, String>,
    bytes: usize,
}

impl Asked {
    /// Sets a variable, unless it is not the visitor's to set or there are too many.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> bool {
        let bytes = self.bytes + name.len() + value.len();
        if !may_be_set(name) || value.contains('\0') || bytes > ASKED_BYTES || self.variables.len() >= ASKED {
            return false;
        }
        self.bytes = bytes;
        self.variables.insert(name.into(), value.into());
        true
    }
}

/// Whether a visitor may set this variable.
///
/// Whoever is let in can run any program with any variables anyway, so this keeps out nobody who means harm. It keeps
/// out what would harm by accident, since clients can be told to send all they have: what describes the workspace and
/// not the visitor's machine (its user, its paths, its session), and what decides how programs are loaded and how
/// shells start, where the file that it names lies on another machine.
fn may_be_set(name: &str) -> bool {
    const OURS: &[&str] = &["HOME", "LOGNAME", "MAIL", "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL", "USER"];
    const START: &[&str] =
        &["BASHOPTS", "BASH_ENV", "ENV", "GCONV_PATH", "GLIBC_TUNABLES", "IFS", "SHELLOPTS"];
    const GROUPS: &[&str] = &["BASH_FUNC_", "DYLD_", "LD_", "SSH_", "WARREN_"];
    let plain = !name.is_empty() && !name.contains(['=', '\0']);
    plain
        && !OURS.contains(&name)
        && !START.contains(&name)
        && !GROUPS.iter().any(|group| name.starts_with(group))
}

/// Whether a session inherits this variable of the agent: what an image or a service manager has set for programs,
/// but not what was meant for the agent itself, its token before all.
fn is_inherited(name: &OsStr) -> bool {
    const OF_THE_AGENT: &[&str] = &[
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "OLDPWD",
        "PWD",
        "TERM",
    ];
    let text = name.to_string_lossy();
    !text.starts_with("WARREN_") && !text.starts_with("SSH_") && !OF_THE_AGENT.contains(&text.as_ref())
}

/// What a session's programs are given.
pub(crate) struct Given<'a> {
    /// Variables that were asked for.
    pub asked: &'a Asked,
    /// The terminal's kind and its file.
    pub terminal: Option<(&'a str, &'a Path)>,
    /// The socket of the visitor's SSH agent.
    pub keys: Option<&'a Path>,
}

/// All variables of a session's programs.
pub(crate) fn variables(user: &User, place: &Place, given: &Given<'_>) -> BTreeMap<OsString, OsString> {
    let mut all: BTreeMap<OsString, OsString> =
        std::env::vars_os().filter(|(name, _)| is_inherited(name)).collect();
    all.entry("PATH".into()).or_insert_with(|| PATH.into());
    all.extend(given.asked.variables.iter().map(|(name, value)| (name.into(), value.into())));
    let mut set = |name: &str, value: &OsStr| _ = all.insert(name.into(), value.into());
    set("USER", &user.name);
    set("LOGNAME", &user.name);
    set("HOME", user.home.as_os_str());
    set("SHELL", user.shell.as_os_str());
    let Place { workspace, visitor, agent } = place;
    set("SSH_CLIENT", format!("{visitor} 0 {SSH_PORT}").as_ref());
    set("SSH_CONNECTION", format!("{visitor} 0 {agent} {SSH_PORT}").as_ref());
    if !workspace.is_empty() && !workspace.contains('\0') {
        set("WARREN_WORKSPACE", workspace.as_ref());
    }
    if let Some(socket) = given.keys {
        set("SSH_AUTH_SOCK", socket.as_os_str());
    }
    if let Some((kind, file)) = given.terminal {
        if !kind.is_empty() && !kind.contains('\0') {
            set("TERM", kind.as_ref());
        }
        set("SSH_TTY", file.as_os_str());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_set_what_is_theirs() {
        let mut asked = Asked::default();
        for name in ["LANG", "LC_ALL", "TERM", "EDITOR", "GIT_PROTOCOL", "COLORTERM"] {
            assert!(asked.set(name, "x"), "{name}");
        }
        for name in
            ["PATH", "HOME", "LD_PRELOAD", "BASH_ENV", "SSH_AUTH_SOCK", "WARREN_URL", "A=B", "", "A\0"]
        {
            assert!(!asked.set(name, "x"), "{name}");
        }
        assert!(!asked.set("LANG", "a\0b"));
        assert!(!asked.set("LANG", &"x".repeat(ASKED_BYTES)));
        for n in 0..ASKED {
            asked.set(&n.to_string(), "x");
        }
        assert!(!asked.set("ONE_MORE", "x"));
    }

    #[test]
    fn the_agents_own_variables_stay_with_it() {
        for name in ["WARREN_AGENT_TOKEN", "NOTIFY_SOCKET", "SSH_AUTH_SOCK"] {
            assert!(!is_inherited(name.as_ref()), "{name}");
        }
        for name in ["PATH", "JAVA_HOME", "LANG"] {
            assert!(is_inherited(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn sessions_know_who_and_where_they_are() {
        let user = User { name: "alice".into(), home: "/home/alice".into(), shell: "/bin/zsh".into() };
        let place =
            Place { workspace: "dev".into(), visitor: Ipv6Addr::LOCALHOST, agent: Ipv6Addr::UNSPECIFIED };
        let mut asked = Asked::default();
        asked.set("LANG", "C.UTF-8");
        let terminal = Some(("xterm", Path::new("/dev/pts/7")));
        let given = Given { asked: &asked, terminal, keys: Some(Path::new("/tmp/a/agent")) };
        let all = variables(&user, &place, &given);
        let value =
            |name: &str| all.get(OsStr::new(name)).and_then(|value| value.to_str()).unwrap_or_default();
        assert_eq!(
            ["USER", "LOGNAME", "HOME", "SHELL"].map(value),
            ["alice", "alice", "/home/alice", "/bin/zsh"]
        );
        assert_eq!(["LANG", "TERM", "SSH_TTY"].map(value), ["C.UTF-8", "xterm", "/dev/pts/7"]);
        assert_eq!(["SSH_CONNECTION", "WARREN_WORKSPACE"].map(value), ["::1 0 :: 22", "dev"]);
        assert_eq!(value("SSH_AUTH_SOCK"), "/tmp/a/agent");
    }
}

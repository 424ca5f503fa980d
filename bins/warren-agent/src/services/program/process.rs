//! Programs started for a visitor: how they begin, what they are told under way, and how they end.

use super::environment::{self, Asked, Given, Place};
use super::keys::Keys;
use super::terminal::{Control, Terminal, Wanted};
use super::user::User;
use io_adapters::process::{in_own_session, with_usual_signals};
use proto_core::stream::exec;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::{Child, ChildStderr, Command};

/// What a visitor wants to be run.
pub(crate) enum What {
    /// The user's shell.
    Shell,
    /// A command, by the user's shell.
    Command(Vec<u8>),
    /// Files, by no program at all.
    Files,
}

/// A program as it is to be started.
pub(crate) struct Start {
    /// What to run.
    pub what: What,
    /// Variables that were asked for.
    pub asked: Asked,
    /// The terminal, if one was asked for.
    pub terminal: Option<Wanted>,
    /// The way to the visitor's keys, if it may be used.
    pub keys: Option<Keys>,
    /// Where it is and for whom.
    pub place: Place,
}

/// A program that was started.
pub(crate) struct Running {
    /// Itself.
    pub child: Child,
    /// Its standard input.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// Its standard output, and on a terminal its errors too.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard error, without a terminal.
    pub errors: Option<ChildStderr>,
    /// What changes its terminal.
    pub control: Option<Control>,
    /// The way to the visitor's keys.
    pub keys: Option<Keys>,
}

/// Sends signals to a program and what it has started.
#[derive(Clone, Copy)]
pub(crate) struct Group(Option<Pid>);

impl Start {
    /// Starts it.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn run(self) -> io::Result<Running> {
        let user = User::current();
        let terminal = self.terminal.as_ref().map(Terminal::open).transpose()?;
        let shown = self.terminal.as_ref().zip(terminal.as_ref());
        let shown = shown.map(|(wanted, terminal)| (wanted.kind.as_str(), terminal.path.as_path()));
        let keys = self.keys.as_ref().map(Keys::path);
        let given = Given { asked: &self.asked, terminal: shown, keys: keys.as_deref() };
        let variables = environment::variables(&user, &self.place, &given);
        let mut command = self.command(&user.shell);
        command.current_dir(user.folder()).env_clear().envs(variables);
        let running = match terminal {
            Some(terminal) => on_terminal(command, terminal)?,
            None => on_pipes(command)?,
        };
        Ok(Running { keys: self.keys, ..running })
    }

    fn command(&self, shell: &Path) -> Command {
        let name = shell.file_name().unwrap_or(OsStr::new("sh"));
        let mut command = Command::new(shell);
        with_usual_signals(&mut command);
        match &self.what {
            What::Shell | What::Files => {
                // By its first character a shell knows that this is a login.
                let mut login = OsString::from("-");
                login.push(name);
                command.arg0(login);
            }
            What::Command(text) => {
                command.arg0(name).arg("-c").arg(OsStr::from_bytes(text));
            }
        }
        command
    }
}

fn on_pipes(mut command: Command) -> io::Result<Running> {
    in_own_session(&mut command);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (input, output) = child.stdin.take().zip(child.stdout.take()).ok_or(io::ErrorKind::BrokenPipe)?;
    let errors = child.stderr.take();
    Ok(Running { child, input: Box::new(input), output: Box::new(output), errors, control: None, keys: None })
}

fn on_terminal(command: Command, terminal: Terminal) -> io::Result<Running> {
    let started = pty_process::Command::from(command).spawn(terminal.theirs);
    let child = started.map_err(super::terminal::io_error)?;
    let (output, input) = terminal.ours.into_split();
    Ok(Running {
        child,
        input: Box::new(input),
        output: Box::new(output),
        errors: None,
        control: Some(terminal.control),
        keys: None,
    })
}

/// The program and those that it started, as far as they are still of its group.
pub(crate) fn group(child: &Child) -> Group {
    Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
}

/// Tells a program whose visitor is gone, if it still runs, as the line of a terminal would have. One that has ended
/// may have left others to go on alone, which is no affair of the visitor's.
pub(crate) fn hang_up(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        group(child).send(Signal::HUP);
    }
}

impl Group {
    /// Sends a signal to all of it. It must not be used after its first program was waited for.
    pub(crate) fn send(self, signal: Signal) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, signal);
        }
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself, with this status.
    Status(u32),
    /// By a signal.
    Signal {
        /// Which, by its name.
        name: String,
        /// Which, by its number.
        number: i32,
        /// Whether it left a picture of its memory.
        core_dumped: bool,
    },
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        match status.signal() {
            Some(number) => Self::Signal { name: name(number), number, core_dumped: status.core_dumped() },
            None => Self::Status(status.code().and_then(|code| u32::try_from(code).ok()).unwrap_or(0)),
        }
    }
}

impl End {
    /// As a shell counts: 128 and the number of the signal that ended it.
    pub(crate) fn told(self) -> exec::End {
        match self {
            // A status has eight bits.
            Self::Status(status) => {
                exec::End { status: u8::try_from(status).unwrap_or(u8::MAX), signal: None }
            }
            Self::Signal { name, number, .. } => {
                let status = u8::try_from(number).unwrap_or(0).saturating_add(128);
                exec::End { status, signal: Some(name) }
            }
        }
    }
}

/// The name of a running program, as the system keeps it.
pub(crate) fn name_of(program: Pid) -> Option<String> {
    let comm = std::fs::read(format!("/proc/{}/comm", program.as_raw_nonzero())).ok()?;
    let name: String = String::from_utf8_lossy(&comm).chars().filter(|c| !c.is_control()).collect();
    (!name.is_empty()).then_some(name)
}

/// The name of the shell that is started for visitors.
pub(crate) fn usual_shell() -> String {
    let shell = User::current().shell;
    shell.file_name().unwrap_or(OsStr::new("sh")).to_string_lossy().into_owned()
}

/// The signals that have a name in the protocol; `KILL` and `STOP` among them, since the visitor may do as much with
/// a command.
const SIGNALS: &[(&str, Signal)] = &[
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("BUS", Signal::BUS),
    ("CONT", Signal::CONT),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("STOP", Signal::STOP),
    ("SYS", Signal::SYS),
    ("TERM", Signal::TERM),
    ("TRAP", Signal::TRAP),
    ("TSTP", Signal::TSTP),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("WINCH", Signal::WINCH),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
];

/// The system's signal of that name.
pub(crate) fn signal(asked: &str) -> Option<Signal> {
    SIGNALS.iter().find(|(known, _)| *known == asked).map(|(_, signal)| *signal)
}

fn name(number: i32) -> String {
    let known = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
    known.map_or_else(|| format!("{number}@warren"), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_keep_their_names() {
        for (text, known) in SIGNALS {
            assert_eq!(signal(text), Some(*known));
            assert_eq!(name(known.as_raw()), *text);
        }
        assert_eq!(signal("NONE"), None);
        assert_eq!(name(64), "64@warren");
    }
}

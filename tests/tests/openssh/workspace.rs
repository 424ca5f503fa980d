//! A workspace with its agent, and OpenSSH's programs set up for it.

use super::Result;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tests::deployment::{Deployment, Place, Running};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long after its agent's death a person may look at a session that is over.
pub(crate) const TOLD: Duration = Duration::from_secs(3);
/// Attempts at it: a machine that is busy with others makes some of them slower, never quicker.
const ATTEMPTS: usize = 3;

/// Held by whoever takes the whole machine, or measures what others would disturb: one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A workspace called `dev`.
pub(crate) struct Workspace {
    deployment: Deployment<'static>,
    token: String,
    agent: Running,
}

impl Workspace {
    /// With an agent that has these variables besides its own.
    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Result<Self> {
        let deployment = Deployment::start(Place::Here, &[])?;
        let token = deployment.create_workspace("dev")?;
        let mut agent = deployment.agent_command("dev", &token)?;
        agent.envs(variables.iter().copied());
        let agent = deployment.start_agent_by(agent, "dev")?;
        let (warren, known) = (tests::program("warren")?, deployment.path("known_hosts"));
        let config = format!(
            "Host *\n  ProxyCommand {} ssh --stdio %h\n  UserKnownHostsFile {}\n  StrictHostKeyChecking accept-new\n  \
             LogLevel ERROR\n",
            warren.display(),
            known.display()
        );
        std::fs::write(deployment.path("ssh_config"), config)?;
        Ok(Self { deployment, token, agent })
    }

    /// Another agent in the place of the first, which is killed if nobody has done so.
    pub(crate) fn new_agent(&mut self) -> Result {
        let _ = self.agent.kill();
        let _ = self.agent.end(PATIENCE)?;
        self.agent = self.deployment.start_agent("dev", &self.token)?;
        Ok(())
    }

    /// Kills the agent under something that begins with `begin`, and holds [`TOLD`] against the time until `end`, which
    /// also looks at what was said.
    pub(crate) fn told_in_time<T>(
        &mut self,
        begin: impl Fn(&Self) -> Result<T>,
        end: impl Fn(T) -> Result,
    ) -> Result {
        let mut took = Vec::new();
        while took.len() < ATTEMPTS {
            if !took.is_empty() {
                self.new_agent()?;
            }
            let begun = begin(self)?;
            self.agent.kill()?;
            let killed = Instant::now();
            end(begun)?;
            took.push(killed.elapsed());
            if killed.elapsed() < TOLD {
                return Ok(());
            }
        }
        Err(format!("each took longer than {TOLD:?}: {took:?}").into())
    }

    pub(crate) fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// One of OpenSSH's programs, told how to reach the workspace.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = self.other(name);
        command.arg("-F").arg(self.path("ssh_config"));
        command
    }

    /// A program that starts `ssh` itself.
    pub(crate) fn other(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("WARREN_CONFIG_DIR", self.path("config")).stdin(Stdio::null());
        command
    }

    /// `ssh` with these arguments, to its end.
    pub(crate) fn ssh(&self, arguments: &[&str]) -> Result<Output> {
        finish(self.program("ssh").args(arguments), b"")
    }

    /// `warren ssh` with these arguments, to be run by the caller.
    pub(crate) fn native(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.deployment.command()?;
        command.arg("ssh").args(arguments);
        Ok(command)
    }

    /// What a command in the workspace prints; it must succeed.
    pub(crate) fn says(&self, command: &str) -> Result<String> {
        let out = self.ssh(&["dev", command])?;
        assert!(out.status.success(), "{command}: {out:?}");
        Ok(String::from_utf8(out.stdout)?)
    }

    /// A path in a folder that ends with the workspace.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.deployment.path(name)
    }

    /// The server and its owner's login.
    pub(crate) fn deployment(&mut self) -> &mut Deployment<'static> {
        &mut self.deployment
    }

    /// The agent.
    pub(crate) fn agent(&mut self) -> &mut Running {
        &mut self.agent
    }
}

/// Runs a program to its end with this for its input; an error if it takes too long.
pub(crate) fn finish(command: &mut Command, input: &[u8]) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let id = child.id();
    let mut stdin = child.stdin.take().ok_or("no input")?;
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        let (done, ended) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let late = ended.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if late {
                signal(id, "KILL");
            }
            late
        });
        let out = child.wait_with_output();
        drop(done);
        Ok(out?)
    })
}

/// A program that ends with its owner.
pub(crate) struct Ends(pub(crate) Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is there.
pub(crate) fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(value) = ready() {
            return Ok(value);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("{what} is not there after {} s", PATIENCE.as_secs()).into())
}

/// Sends a signal to a process.
pub(crate) fn signal(process: u32, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
}

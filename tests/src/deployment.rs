//! A running deployment of the built programs: a server, an agent, and the command line, as processes on this
//! host or in a lab.

use crate::lab::{self, Lab};
use crate::{Result, program};
use serde_json::Value;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a program may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the programs run.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// On this host's loopback.
    Here,
    /// In a lab: the server on `server`, the agent on `bob`, the command line on `alice`.
    Lab(&'a Lab),
    /// All of it on a lab's `server`, on its loopback: cut off from every other network.
    Alone(&'a Lab),
}

impl Place<'_> {
    /// A command that will run one of our programs on a host of the place.
    ///
    /// # Errors
    /// If the program is not built.
    pub fn command(self, host: &str, name: &str) -> Result<Command> {
        Ok(self.run(host, &program(name)?))
    }

    /// A command that will run any program on a host of the place.
    #[must_use]
    pub fn run(self, host: &str, program: &Path) -> Command {
        match self {
            Self::Here => Command::new(program),
            Self::Lab(lab) => lab.command(host, program),
            Self::Alone(lab) => lab.command("server", program),
        }
    }

    const fn address(self) -> &'static str {
        match self {
            Self::Here | Self::Alone(_) => "127.0.0.1",
            Self::Lab(_) => lab::SERVER,
        }
    }
}

/// A process that ends with its owner.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// The process's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs still.
    #[must_use]
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it, without a word to anyone; it is not waited for.
    ///
    /// # Errors
    /// If it has ended already.
    pub fn kill(&self) -> Result {
        let id = self.id().to_string();
        let status = Command::new("kill").args(["-9", &id]).status().map_err(|e| format!("kill: {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("process {id} cannot be killed")) }
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// If it has ended already.
    pub fn terminate(&self) -> Result {
        let id = self.id().to_string();
        let status = Command::new("kill").args(["-15", &id]).status().map_err(|e| format!("kill: {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("process {id} has ended already")) }
    }

    /// Where what it says is kept.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// If it takes longer than `patience`.
    pub fn end(&mut self, patience: Duration) -> Result<std::process::ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => return Err(format!("it has not ended after {patience:?}:\n{}", self.log())),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of what it has said, in one line.
    #[must_use]
    pub fn log_end(&self) -> String {
        self.log().lines().last().unwrap_or("it has said nothing").to_owned()
    }

    /// Its resident set in KiB, from the kernel.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn resident_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS line")?;
        line.split_whitespace().next().and_then(|n| n.parse().ok()).ok_or_else(|| format!("VmRSS: {line}"))
    }

    /// Starts a program, with what it says in a file.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let other = file.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(other)
            .spawn()
            .map_err(|e| format!("can't start {}: {e}", command.get_program().display()))?;
        Ok(Self { child, log })
    }

    /// Waits until `ready` gives something, as long as the process lives.
    ///
    /// # Errors
    /// If it ends, or takes too long, with what it said.
    pub fn wait<T>(&mut self, what: &str, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{what} ended early ({status}):\n{}", self.log()));
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{what} is not up after {} s:\n{}", PATIENCE.as_secs(), self.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with its owner logged in.
#[derive(Debug)]
pub struct Deployment<'a> {
    place: Place<'a>,
    dir: TempDir,
    server: Option<Running>,
    url: String,
    roots: Option<PathBuf>,
}

impl<'a> Deployment<'a> {
    /// Starts a server, with further arguments, and logs its owner in.
    ///
    /// # Errors
    /// If it does not come up, with what it said.
    pub fn start(place: Place<'a>, arguments: &[&str]) -> Result<Self> {
        Self::start_trusting(place, arguments, None)
    }

    /// As [`Deployment::start`]; agent and command line trust the certificates in this file instead of the
    /// system's.
    ///
    /// # Errors
    /// If it does not come up, with what it said.
    pub fn start_trusting(place: Place<'a>, arguments: &[&str], roots: Option<&Path>) -> Result<Self> {
        let dir = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let roots = roots.map(Path::to_path_buf);
        let mut deployment = Self { place, dir, server: None, url: String::new(), roots };
        let setup_token = deployment.start_server(arguments)?;
        deployment.log_in(&setup_token)?;
        Ok(deployment)
    }

    /// Starts a server on this host that is reached through a reverse proxy alone, and logs its owner in. `proxy`
    /// makes the proxy's command from the address it must listen on, the server's own, and a folder.
    ///
    /// # Errors
    /// If one of them does not come up, with what it said.
    pub fn start_behind(
        proxy: impl FnOnce(&str, &str, &Path) -> Result<Command>,
    ) -> Result<(Deployment<'static>, Running)> {
        let dir = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let mut deployment =
            Deployment { place: Place::Here, dir, server: None, url: String::new(), roots: None };
        let public = free_address()?;
        let setup_token = deployment.start_server(&["--access-url", &format!("http://{public}")])?;
        let ready = std::fs::read(deployment.path("ready.json")).map_err(|e| e.to_string())?;
        let ready: Value = serde_json::from_slice(&ready).map_err(|e| e.to_string())?;
        let server = ready["http_address"].as_str().ok_or("the ready file names no HTTP address")?;
        let command = proxy(&public, server, deployment.dir())?;
        let mut proxy = Running::start(command, deployment.path("proxy.log"))?;
        proxy.wait("the proxy", || TcpStream::connect(&public).ok())?;
        deployment.log_in(&setup_token)?;
        Ok((deployment, proxy))
    }

    fn log_in(&self, setup_token: &str) -> Result {
        let mut login = self.command_on("server")?;
        login.args(["login", &self.url, "--username", "alice", "--setup-token", setup_token]);
        login.env("WARREN_PASSWORD", "correct horse battery staple");
        succeeded(&login.output().map_err(|e| format!("can't start warren: {e}"))?, "warren login")
    }

    /// Starts the server; after [`Deployment::stop_server`], with the same address and state. The setup token,
    /// if it is still to be used.
    ///
    /// # Errors
    /// If it does not come up, with what it said.
    pub fn start_server(&mut self, arguments: &[&str]) -> Result<String> {
        let ready = self.path("ready.json");
        let _ = std::fs::remove_file(&ready);
        let any = format!("{}:0", self.place.address());
        let address = self.url.strip_prefix("http://").unwrap_or(&any);
        let mut command = self.place.command("server", "warren-server")?;
        command.args(["--http-address", address, "--stun-address", &any, "--metrics-address", &any]);
        command.arg("--state-dir").arg(self.path("state")).arg("--ready-file").arg(&ready).args(arguments);
        let mut server = Running::start(command, self.path("server.log"))?;
        let said: Value = server.wait("warren-server", || {
            std::fs::read(&ready).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
        })?;
        self.server = Some(server);
        self.url = said["access_url"].as_str().ok_or("the ready file names no access URL")?.to_owned();
        Ok(said["setup_token"].as_str().unwrap_or_default().to_owned())
    }

    /// Kills the server, without a word to anyone.
    pub fn stop_server(&mut self) {
        self.server = None;
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its STUN server is, as host and port.
    ///
    /// # Errors
    /// If the server has not said so.
    pub fn stun_address(&self) -> Result<String> {
        let ready = std::fs::read(self.path("ready.json")).map_err(|e| e.to_string())?;
        let ready: Value = serde_json::from_slice(&ready).map_err(|e| e.to_string())?;
        Ok(ready["stun_address"].as_str().ok_or("the ready file names no STUN address")?.to_owned())
    }

    /// The server's process.
    #[must_use]
    pub const fn server(&self) -> Option<&Running> {
        self.server.as_ref()
    }

    /// Makes a workspace; its agent's token.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn create_workspace(&self, name: &str) -> Result<String> {
        let created = self.json_on("server", &["workspaces", "create", name])?;
        created["agent_token"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("no agent token in {created}"))
    }

    /// Starts an agent and waits until the server shows it connected.
    ///
    /// # Errors
    /// If it does not connect, with what it said.
    pub fn start_agent(&self, workspace: &str, token: &str) -> Result<Running> {
        self.start_agent_by(self.agent_command(workspace, token)?, workspace)
    }

    /// The command that [`Deployment::start_agent`] runs.
    ///
    /// # Errors
    /// If the agent is not built.
    pub fn agent_command(&self, workspace: &str, token: &str) -> Result<Command> {
        self.agent_command_on("bob", workspace, token)
    }

    /// The same on another host of the lab.
    ///
    /// # Errors
    /// If the agent is not built.
    pub fn agent_command_on(&self, host: &str, workspace: &str, token: &str) -> Result<Command> {
        let mut command = self.place.command(host, "warren-agent")?;
        command.args(["--url", &self.url, "--state-dir"]).arg(self.path(&format!("agent-{workspace}")));
        command.env("WARREN_AGENT_TOKEN", token);
        self.prepare(&mut command);
        Ok(command)
    }

    /// Starts an agent by a command of the caller's and waits until the server shows it connected.
    ///
    /// # Errors
    /// If it does not connect, with what it said.
    pub fn start_agent_by(&self, command: Command, workspace: &str) -> Result<Running> {
        let mut agent = Running::start(command, self.path(&format!("agent-{workspace}.log")))?;
        agent.wait("warren-agent", || {
            let list = self.json_on("server", &["workspaces", "list"]).ok()?;
            list.as_array()?
                .iter()
                .any(|w| w["name"] == workspace && w["status"] == "connected")
                .then_some(())
        })?;
        Ok(agent)
    }

    /// Runs the command line to its end.
    ///
    /// # Errors
    /// If it cannot be started; how it ended is in the output.
    pub fn warren(&self, arguments: &[&str]) -> Result<Output> {
        self.command()?.args(arguments).output().map_err(|e| format!("can't start warren: {e}"))
    }

    /// Runs the command line, which must succeed; its result as JSON.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        Self::json_of(self.command()?, arguments)
    }

    /// The same on another host of the lab.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn json_on(&self, host: &str, arguments: &[&str]) -> Result<Value> {
        Self::json_of(self.command_on(host)?, arguments)
    }

    fn json_of(mut command: Command, arguments: &[&str]) -> Result<Value> {
        let out = command.args(arguments).args(["-o", "json"]).output();
        let out = out.map_err(|e| format!("can't start warren: {e}"))?;
        succeeded(&out, &format!("warren {}", arguments.join(" ")))?;
        serde_json::from_slice(&out.stdout).map_err(|e| {
            format!("{}: not JSON ({e}): {}", arguments.join(" "), String::from_utf8_lossy(&out.stdout))
        })
    }

    /// Asks the server's API in the name of the person who is logged in; what it answers, or nothing if that is empty.
    ///
    /// # Errors
    /// If it refuses, with what it said.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let session = std::fs::read(self.path("config/session.json")).map_err(|e| e.to_string())?;
        let session: Value = serde_json::from_slice(&session).map_err(|e| e.to_string())?;
        let token = session["token"].as_str().ok_or("nobody is logged in")?;
        let mut curl = self.place.run("alice", Path::new("curl"));
        curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "30", "--request", method]);
        curl.args(["--header", &format!("Authorization: Bearer {token}")]);
        if let Some(body) = body {
            curl.args(["--header", "Content-Type: application/json", "--data", &body.to_string()]);
        }
        let out =
            curl.arg(format!("{}/api/v1{path}", self.url)).output().map_err(|e| format!("curl: {e}"))?;
        succeeded(&out, &format!("{method} {path}"))?;
        if out.stdout.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&out.stdout).map_err(|e| format!("{method} {path}: {e}"))
    }

    /// The tunnels to a workspace of the owner's, as the server tells of them.
    ///
    /// # Errors
    /// If it does not tell.
    pub fn tunnels(&self, workspace: &str) -> Result<Vec<Value>> {
        let told = self.api("GET", &format!("/workspaces/alice/{workspace}/tunnels"), None)?;
        told["tunnels"].as_array().cloned().ok_or_else(|| format!("no tunnels in {told}"))
    }

    /// The command line with its login, to be run by the caller.
    ///
    /// # Errors
    /// If it is not built.
    pub fn command(&self) -> Result<Command> {
        self.command_on("alice")
    }

    /// The same on another host of the lab.
    ///
    /// # Errors
    /// If it is not built.
    pub fn command_on(&self, host: &str) -> Result<Command> {
        let mut command = self.place.command(host, "warren")?;
        command.env("WARREN_CONFIG_DIR", self.path("config")).stdin(Stdio::null());
        self.prepare(&mut command);
        Ok(command)
    }

    fn prepare(&self, command: &mut Command) {
        if matches!(self.place, Place::Here) {
            // Whose router that is, nobody knows.
            command.env("WARREN_DISABLE_PORT_MAPPING", "true");
        }
        if let Some(roots) = &self.roots {
            command.env("SSL_CERT_FILE", roots);
        }
    }

    /// A path in the deployment's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The deployment's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// An address of the loopback that nobody listens on, for programs that cannot choose one themselves.
///
/// # Errors
/// If there is none.
pub fn free_address() -> Result<String> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.to_string()).map_err(|e| format!("no free port: {e}"))
}

fn succeeded(out: &Output, what: &str) -> Result {
    if out.status.success() {
        return Ok(());
    }
    let said = [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    Err(format!("{what} failed ({}): {said}", out.status))
}

//! `warren support-bundle`: what somebody who helps wants to know, in one file without secrets.

use crate::api::Api;
use crate::cli::Global;
use crate::commands::netcheck;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use crate::redact::Redactor;
use crate::skew::OURS;
use crate::stop::Stop;
use crate::tunnel::{self, Client};
use clap::builder::NonEmptyStringValueParser;
use futures_util::StreamExt;
use proto_core::stream::Header;
use proto_core::stream::report::{ANSWER_MAX, Report};
use proto_core::wire::api::{AgentStatus, Workspace};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Write what helps to find a fault into a zip file, without tokens and keys
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren support-bundle                      every workspace that is connected
  warren support-bundle dev --log ssh.log    one of them, and a file of your own
  warren support-bundle --dry-run            list what would be written

Tokens, passwords and keys are taken out. Names of servers and workspaces and the addresses of both
ends stay in, since faults of a network can't be found without them: look into the file before you
send it.")]
pub(crate) struct Args {
    /// Only this workspace, NAME or OWNER/NAME
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    workspace: Option<String>,
    /// Where to write it; a file that is there is not replaced [default: warren-support-SECONDS.zip here]
    #[arg(long, env = "WARREN_SUPPORT_BUNDLE_OUTPUT_FILE", value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// A log to put in, its last mebibyte; may be given several times
    #[arg(long, env = "WARREN_SUPPORT_BUNDLE_LOG", value_name = "FILE")]
    log: Vec<PathBuf>,
    /// Seconds to look for the best path to each workspace
    #[arg(short, long, env = "WARREN_SUPPORT_BUNDLE_TIMEOUT", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// List what would be written, and write nothing
    #[arg(long, env = "WARREN_SUPPORT_BUNDLE_DRY_RUN", value_parser = clap::builder::BoolishValueParser::new())]
    dry_run: bool,
}

/// Workspaces that are looked at: more say nothing new.
const WORKSPACES_MAX: usize = 16;
/// Bytes of each log, from its end.
const LOG_MAX: u64 = 1 << 20;
/// Bytes that are read of a log that comes by a pipe, to find its end.
const PIPE_MAX: u64 = 64 << 20;

/// A file of the bundle.
struct Entry {
    name: String,
    what: &'static str,
    text: String,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    bytes: usize,
    what: &'a str,
}

#[derive(Serialize)]
struct Document<'a> {
    /// None if nothing was written.
    file: Option<String>,
    entries: Vec<Listed<'a>>,
}

/// Collects, lists, writes.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    // Before any work is done: whether the file can be made.
    let target = if args.dry_run { None } else { Some(Target::create(args.output_file.clone())?) };
    let mut stop = Stop::new()?;
    let entries = tokio::select! {
        biased;
        () = stop.wanted() => {
            return Err(CliError::new(Exit::Failed, "INTERRUPTED", "interrupted before the bundle was whole"));
        }
        collected = collect(global, &args) => collected?,
    };
    let listed: Vec<_> = entries
        .iter()
        .map(|entry| Listed { name: &entry.name, bytes: entry.text.len(), what: entry.what })
        .collect();
    if global.output == Format::Table {
        let cell = |l: &Listed<'_>| vec![l.name.to_owned(), output::bytes(l.bytes as u64), l.what.to_owned()];
        let cells: Vec<_> = listed.iter().map(cell).collect();
        output::line(output::table(&["FILE", "SIZE", "WHAT"], &cells));
    }
    let file = match target {
        None => None,
        Some(target) => Some(target.write(&entries)?),
    };
    match (global.output, &file) {
        (Format::Json, _) => output::json(&Document { file, entries: listed }),
        (Format::Table, Some(file)) => {
            output::note(format!("written to {file}: look into it before you send it"))
        }
        (Format::Table, None) => output::note("nothing was written"),
    }
    Ok(())
}

async fn collect(global: &Global, args: &Args) -> Result<Vec<Entry>> {
    let redactor = Redactor::knowing(global.config.secrets());
    let mut entries = Vec::new();
    let mut add = |name: &str, what, text: String| {
        entries.push(Entry { name: name.to_owned(), what, text: redactor.clean(&text) });
    };
    add("versions.json", "programs and system", pretty(&versions(global).await));
    add("settings.txt", "the settings file and the variables, without secrets", settings(global, &redactor));
    add("servers.json", "the servers that you are logged in to", pretty(&servers(global)));
    add(
        "netcheck.json",
        "what this machine's network lets through",
        pretty(&or_error(netcheck::report(global).await)),
    );
    let workspaces = workspaces(global, args).await;
    add("workspaces.json", "the workspaces, as the server tells them", pretty(&or_error(workspaces.clone())));
    let paths = match workspaces {
        Ok(workspaces) => paths(global, workspaces, Duration::from_secs(args.timeout)).await,
        Err(error) => error_of(&error),
    };
    add("paths.json", "the path to each workspace, its history, and what its agent says", pretty(&paths));
    for (n, log) in args.log.iter().enumerate() {
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        let path = log.clone();
        // A pipe may keep its reader waiting, and Ctrl-C is to be heard meanwhile.
        let text = tokio::task::spawn_blocking(move || tail(&path)).await;
        let text =
            text.map_err(|_| log_unreadable(log, &io::Error::other("it could not be read to its end")))?;
        add(&format!("logs/{}-{name}", n + 1), "a log of yours", text?);
    }
    Ok(entries)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// What could not be found out is told as well: that is what one wants to know.
fn or_error<T: Serialize>(found: Result<T>) -> Value {
    match found {
        Ok(found) => serde_json::to_value(found).unwrap_or_default(),
        Err(error) => error_of(&error),
    }
}

fn error_of(error: &CliError) -> Value {
    serde_json::from_str(&error.json()).unwrap_or_default()
}

async fn versions(global: &Global) -> Value {
    let server = match global.config.session() {
        Ok(session) => or_error(Api::logged_in(&session).build_info().await),
        Err(error) => error_of(&error),
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    json!({
        "warren": OURS,
        "server": server,
        "system": system.trim_matches('"'),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "architecture": std::env::consts::ARCH,
        "unix_seconds": now(),
    })
}

fn settings(global: &Global, redactor: &Redactor) -> String {
    let file = &global.settings_file;
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| format!("# {}: {error}", file.display()));
    let named = |name: &str| {
        name.starts_with("WARREN_")
            || name.to_ascii_lowercase().ends_with("_proxy")
            || name == "SSL_CERT_FILE"
    };
    let mut variables: Vec<_> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| named(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    variables.sort();
    redactor.settings(&format!("# the settings file\n{text}\n\n# the variables\n{}\n", variables.join("\n")))
}

fn servers(global: &Global) -> Value {
    match global.config.contexts() {
        Ok(contexts) => contexts
            .all()
            .into_iter()
            .map(|(session, in_use)| {
                json!({ "name": session.name(), "url": session.url, "username": session.username, "in_use": in_use })
            })
            .collect(),
        Err(error) => error_of(&error),
    }
}

async fn workspaces(global: &Global, args: &Args) -> Result<Vec<Workspace>> {
    let api = Api::logged_in(&global.config.session()?);
    Ok(match &args.workspace {
        Some(name) => vec![api.workspace(name).await?],
        None => api.workspaces().await?,
    })
}

/// What came of reaching each workspace that is connected.
async fn paths(global: &Global, workspaces: Vec<Workspace>, patience: Duration) -> Value {
    let connected =
        workspaces.into_iter().filter(|w| w.status == AgentStatus::Connected).take(WORKSPACES_MAX);
    let client = match tunnel::start(global).await {
        Ok(client) => client,
        Err(error) => return error_of(&error),
    };
    let each = connected.map(|workspace| path(global, &client, workspace, patience));
    let all: Vec<Value> = futures_util::stream::iter(each).buffered(WORKSPACES_MAX).collect().await;
    client.node.shutdown().await;
    Value::Array(all)
}

async fn path(global: &Global, client: &Client, workspace: Workspace, patience: Duration) -> Value {
    let name = format!("{}/{}", workspace.owner, workspace.name);
    let tunnel = match client.open(global, workspace).await {
        Ok(tunnel) => tunnel,
        Err(error) => return json!({ "workspace": name, "path": null, "failed": error_of(&error) }),
    };
    let asked = tunnel.ask::<Report>(&Header::Report, ANSWER_MAX);
    let agent = match tokio::time::timeout(patience, asked).await {
        Ok(Ok(report)) => serde_json::to_value(report).unwrap_or_default(),
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Err(_) => json!({ "error": format!("no reply after {}s", patience.as_secs()) }),
    };
    if global.direct_forbidden.is_none() {
        let _ = tokio::time::timeout(patience, tunnel.peer.wait_direct()).await;
    }
    let status = tunnel.client.node.status().await.ok();
    let peer = status.as_ref().and_then(|s| s.peers.iter().find(|peer| peer.id == *tunnel.peer.id()));
    json!({
        "workspace": name,
        "path": tunnel.path(),
        "verdict": peer.map(|peer| peer.verdict.to_string()),
        "verdict_code": peer.map(|peer| peer.verdict.reason.code()),
        "history": peer.map(|peer| {
            let told = |(at, story): &(_, _)| json!({ "after_ms": millis(at), "what": format!("{story:?}") });
            peer.story.iter().map(told).collect::<Vec<_>>()
        }),
        "peer_endpoints": peer.map(|peer| &peer.endpoints),
        "own_endpoints": status.as_ref().map(|status| &status.endpoints),
        "received_bytes": peer.map(|peer| peer.traffic.received_bytes),
        "sent_bytes": peer.map(|peer| peer.traffic.sent_bytes),
        "agent": agent,
    })
}

fn millis(at: &proto_core::time::Time) -> u64 {
    at.as_micros() / 1_000
}

/// The end of a log: whole lines, since half a secret is not known for one.
fn tail(path: &Path) -> Result<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let found = file.metadata()?;
        let mut left_out = found.len().saturating_sub(LOG_MAX);
        let mut bytes = Vec::new();
        if found.is_file() {
            io::Seek::seek(&mut file, io::SeekFrom::Start(left_out))?;
            file.take(LOG_MAX).read_to_end(&mut bytes)?;
        } else {
            // A pipe, of `<(journalctl -u ssh)` for example, has no end to go to.
            file.take(PIPE_MAX).read_to_end(&mut bytes)?;
            let beginning = bytes.len().saturating_sub(LOG_MAX as usize);
            bytes.drain(..beginning);
            left_out = beginning as u64;
        }
        if left_out > 0 {
            let cut = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            bytes.drain(..cut);
        }
        Ok(bytes)
    };
    let bytes = read().map_err(|error| log_unreadable(path, &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn log_unreadable(path: &Path, error: &io::Error) -> CliError {
    let sentence = format!("can't read the log {}: {error}", path.display());
    CliError::new(Exit::Failed, "LOG_UNREADABLE", sentence).hint("check the path, or leave --log out")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The file to be written. Until it is whole it has another name, and is gone if it never gets that far.
struct Target {
    /// Where it is to be, and whether a person said so.
    path: PathBuf,
    is_named: bool,
    part: PathBuf,
    file: std::fs::File,
}

impl Target {
    /// A new file that only its owner can read.
    fn create(given: Option<PathBuf>) -> Result<Self> {
        let is_named = given.is_some();
        let path = given.unwrap_or_else(|| usual(0));
        if is_named && path.symlink_metadata().is_ok() {
            return Err(unwritable(&path, &Errno::EXIST.into()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part) {
            Ok(file) => Ok(Self { path, is_named, part, file }),
            Err(error) => Err(unwritable(&path, &error)),
        }
    }

    fn write(mut self, entries: &[Entry]) -> Result<String> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .unix_permissions(0o600);
        // Made in memory: the library writes on standard error if a file is full.
        let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
        let mut make = || -> io::Result<()> {
            for entry in entries {
                zip.start_file(entry.name.as_str(), options)?;
                zip.write_all(entry.text.as_bytes())?;
            }
            Ok(())
        };
        let made = make().and_then(|()| Ok(zip.finish()?.into_inner()));
        let written = made.and_then(|bytes| self.file.write_all(&bytes)).and_then(|()| self.put());
        written.map_err(|error| unwritable(&self.path, &error))?;
        Ok(self.path.display().to_string())
    }

    /// Gives it its name.
    fn put(&mut self) -> io::Result<()> {
        for another in 1.. {
            match name_anew(&self.part, &self.path) {
                // Two in one second.
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && !self.is_named && another < OTHERS =>
                {
                    self.path = usual(another);
                }
                done => return done,
            }
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.part);
    }
}

/// Gives a file another name, which must be free.
fn name_anew(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that can't promise it.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if to.symlink_metadata().is_err() => {
            std::fs::rename(from, to)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(Errno::EXIST.into()),
        done => Ok(done?),
    }
}

/// Names of bundles made in one second.
const OTHERS: u32 = 100;

/// What a bundle is called where nobody gave it a name.
fn usual(another: u32) -> PathBuf {
    let number = if another == 0 { String::new() } else { format!("-{another}") };
    PathBuf::from(format!("warren-support-{}{number}.zip", now()))
}

fn unwritable(path: &Path, error: &io::Error) -> CliError {
    let hint = match error.kind() {
        io::ErrorKind::AlreadyExists => "a bundle replaces no file: name another with --output-file",
        _ => "name a file that you may write with --output-file",
    };
    CliError::new(Exit::Failed, "BUNDLE_UNWRITABLE", format!("can't write {}: {error}", path.display()))
        .hint(hint)
}

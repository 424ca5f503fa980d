//! `warren config-ssh`: teaches OpenSSH, and all that uses it, the names of workspaces.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use crate::ssh_config::{self, Block, Damaged};
use io_adapters::private_file;
use serde::Serialize;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What host names end with, unless another word was chosen.
pub(crate) const SUFFIX: &str = "warren";

/// Let ssh, scp, sftp, rsync, git and IDEs reach workspaces as `dev.warren`
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren config-ssh                       then: ssh dev.warren, for alice/dev dev.alice.warren
  warren --server work config-ssh --hostname-suffix work    another server's, as dev.work
  warren config-ssh --ssh-option 'ForwardAgent yes'
  warren config-ssh --dry-run                         shows what would change
  warren config-ssh --remove")]
pub(crate) struct Args {
    /// OpenSSH's configuration file [default: .ssh/config in your home folder]
    #[arg(long, value_name = "FILE")]
    ssh_config_file: Option<PathBuf>,
    /// What the host names end with; every suffix has a block of its own
    #[arg(long, value_name = "SUFFIX", default_value = SUFFIX)]
    hostname_suffix: String,
    /// A setting of OpenSSH for these hosts, `Keyword value`; several may be given
    #[arg(long, value_name = "SETTING", conflicts_with = "remove")]
    ssh_option: Vec<String>,
    /// Show what would change as a unified diff, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take the block out again
    #[arg(long)]
    remove: bool,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    file: String,
    hostname_suffix: String,
    changed: bool,
    dry_run: bool,
    diff: String,
}

/// Writes the block, or takes it out.
pub(crate) fn run(global: &Global, args: &Args) -> Result {
    let suffix = args.hostname_suffix.trim_start_matches('.');
    check_suffix(suffix)?;
    let file = file(args)?;
    let before = read(&file)?;
    let after = if args.remove {
        ssh_config::without(&before, suffix)
    } else {
        ssh_config::with(&before, &block(global, args, suffix)?)
    };
    let after = after.map_err(|damaged| left_alone(&file, &damaged))?;
    let changed = before != after;
    if changed && !args.dry_run {
        write(&file, &after)?;
    }
    let shown = file.display().to_string();
    let diff = ssh_config::diff(&shown, &before, &after);
    let report =
        Report { file: shown, hostname_suffix: suffix.to_owned(), changed, dry_run: args.dry_run, diff };
    tell(global, args, &report);
    Ok(())
}

/// What is in the file; nothing if there is none.
fn read(file: &Path) -> Result<Vec<u8>> {
    // Before it is opened: a pipe would wait for a writer, a device may have no end.
    let found = match std::fs::metadata(file) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", file, &error)),
    };
    if !found.is_file() {
        return Err(failed("use", file, &io::Error::other("it is no regular file")));
    }
    std::fs::read(file).map_err(|error| failed("read", file, &error))
}

fn tell(global: &Global, args: &Args, report: &Report) {
    let Report { file, hostname_suffix, .. } = report;
    match (global.output, args.dry_run) {
        (Format::Json, _) => output::json(report),
        (Format::Table, true) if report.changed => output::line(report.diff.trim_end_matches('\n')),
        (Format::Table, true) => output::note(format!("{file} would stay as it is")),
        (Format::Table, false) if !report.changed => output::note(format!("{file} stays as it is")),
        (Format::Table, false) if args.remove => {
            output::note(format!("removed *.{hostname_suffix} from {file}"));
        }
        (Format::Table, false) => {
            output::note(format!("wrote *.{hostname_suffix} to {file}\ntry: ssh WORKSPACE.{hostname_suffix}"))
        }
    }
}

fn block(global: &Global, args: &Args, suffix: &str) -> Result<Block> {
    for option in &args.ssh_option {
        check_option(option)?;
    }
    let program = std::env::current_exe().map_err(|error| {
        CliError::new(Exit::Failed, "NO_PROGRAM", format!("can't find this program's own file: {error}"))
            .hint("start it by its whole path")
    })?;
    let mut words = vec![text(&program)?];
    words.extend(global.again.iter().cloned());
    // By its address: another server that is used from tomorrow on is not where these names lead.
    words.push(format!("--server={}", global.config.session()?.url));
    words.extend(["ssh", "--stdio", "--hostname-suffix", suffix, "--"].map(str::to_owned));
    let known_hosts = text(&absolute(&global.config.known_hosts())?)?;
    let unwritable = |what: &str| {
        let sentence = format!("OpenSSH's configuration can't hold the path {what:?}");
        CliError::new(Exit::Usage, "BAD_PATH", sentence)
            .hint("use a path without line breaks, quotes, backslashes and ${")
    };
    Ok(Block {
        suffix: suffix.to_owned(),
        options: args.ssh_option.iter().map(|option| option.trim().to_owned()).collect(),
        proxy_command: ssh_config::proxy_command(&words).ok_or_else(|| unwritable(&words.join(" ")))?,
        known_hosts: ssh_config::quoted(&known_hosts).ok_or_else(|| unwritable(&known_hosts))?,
    })
}

/// A path that holds wherever OpenSSH is started.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| failed("find", path, &error))
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let sentence =
            format!("{} is not UTF-8: it can't be written to OpenSSH's configuration", path.display());
        CliError::new(Exit::Usage, "BAD_PATH", sentence).hint("use a path of plain text")
    })
}

fn check_suffix(suffix: &str) -> Result {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if suffix.len() <= 64 && suffix.split('.').all(label) {
        return Ok(());
    }
    let sentence =
        format!("\"{suffix}\" can't end a host name: lower-case letters, digits, dashes and dots can");
    Err(CliError::new(Exit::Usage, "BAD_SUFFIX", sentence).hint("for example `--hostname-suffix work`"))
}

/// A setting must stay one: nothing may begin another section, and no line another.
fn check_option(option: &str) -> Result {
    let option = option.trim();
    let keyword = option.split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or_default();
    let section = ["host", "match", "include"].contains(&keyword.to_ascii_lowercase().as_str());
    let value =
        option.get(keyword.len()..).unwrap_or_default().trim_matches(|c: char| c == '=' || c.is_whitespace());
    let plain = !keyword.is_empty() && keyword.bytes().all(|b| b.is_ascii_alphanumeric());
    let sentence = format!("{option:?} is no setting of OpenSSH for a host");
    let refused = CliError::new(Exit::Usage, "BAD_SSH_OPTION", sentence);
    if !plain || section || value.is_empty() || option.contains(['\n', '\r', '\0']) {
        return Err(refused.hint("write `--ssh-option 'Keyword value'`"));
    }
    match refused_by_openssh(option) {
        Some(why) => Err(refused.fact("ssh says", why).hint("`man ssh_config` lists them")),
        None => Ok(()),
    }
}

/// What OpenSSH has against a setting: one that it does not know would keep it from reaching any host at all. Nothing
/// where there is no OpenSSH to ask.
fn refused_by_openssh(option: &str) -> Option<String> {
    let asked = Command::new("ssh").args(["-G", "-F", "/dev/null", "-o", option, "host"]).output().ok()?;
    let said = String::from_utf8_lossy(&asked.stderr);
    (!asked.status.success()).then(|| said.lines().next().unwrap_or_default().trim().to_owned())
}

/// The file itself: what is a link stays one.
fn file(args: &Args) -> Result<PathBuf> {
    let named = match &args.ssh_config_file {
        Some(path) => path.clone(),
        None => etcetera::home_dir().map(|home| home.join(".ssh/config")).map_err(|_| {
            CliError::new(Exit::Failed, "NO_HOME", "can't find your home folder")
                .hint("set HOME, or name a file with --ssh-config-file")
        })?,
    };
    let mut path = absolute(&named)?;
    for _ in 0..LINKS {
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(failed("find", &named, &io::Error::other("its links go round in a circle")))
}

/// Links that may lead to one another, as in Linux.
const LINKS: usize = 40;

fn write(file: &Path, bytes: &[u8]) -> Result {
    let folder = file.parent().unwrap_or(Path::new("/"));
    // OpenSSH keeps its folder to its owner.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.and_then(|()| private_file::write(file, bytes)).map_err(|error| failed("write", file, &error))
}

fn failed(what: &str, file: &Path, error: &io::Error) -> CliError {
    CliError::new(Exit::Failed, "SSH_CONFIG_FILE", format!("can't {what} {}: {error}", file.display()))
        .hint("check the file's permissions, or name another with --ssh-config-file")
}

fn left_alone(file: &Path, damaged: &Damaged) -> CliError {
    let sentence = format!("{} is left as it is: {damaged}", file.display());
    CliError::new(Exit::Failed, "SSH_CONFIG_DAMAGED", sentence)
        .hint("take the lines out that begin with `# --- begin: written by` or `# --- end: written by`, and what is between them")
}

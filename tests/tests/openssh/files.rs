//! Files by scp, sftp, rsync and git.

use super::Result;
use super::workspace::{Workspace, finish};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;

/// Small files that rsync carries.
const MANY: usize = 10_000;
/// Bytes of the long file: it takes ten seconds each on two cores, and twice passes where new keys are agreed on.
const LONG: u64 = 2 << 30;

fn succeeded(out: &Output) {
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{:?}: {said}", out.status);
}

/// Names that no encoding knows, and others that programs get wrong.
fn odd_names() -> Vec<OsString> {
    [
        &b"latin-\xe9t\xe9"[..],
        b"\xff\xfe",
        b"a b'c\"d",
        b"new\nline",
        "größe".as_bytes(),
        b"-n",
        b"~x",
        b"back\\slash",
    ]
    .map(|name| OsString::from_vec(name.to_vec()))
    .into()
}

/// A folder of files with odd names, one with a hole in its mode, and a link.
fn tree(at: &Path) -> Result {
    fs::create_dir_all(at.join("deep/er"))?;
    for name in odd_names() {
        fs::write(at.join(&name), name.as_bytes())?;
        fs::write(at.join("deep/er").join(&name), b"deep")?;
    }
    fs::write(at.join("program"), "#!/bin/sh\n")?;
    fs::set_permissions(at.join("program"), fs::Permissions::from_mode(0o751))?;
    Ok(())
}

/// All files below a folder, with their modes and what is in them.
fn content(at: &Path) -> Result<Vec<(PathBuf, u32, Vec<u8>)>> {
    let mut all = Vec::new();
    let mut folders = vec![at.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mode = path.symlink_metadata()?.mode();
                all.push((path.strip_prefix(at)?.to_owned(), mode, fs::read(&path)?));
            }
        }
    }
    all.sort();
    Ok(all)
}

#[test]
fn scp_carries_folders_in_both_of_its_ways() -> Result {
    let workspace = Workspace::start()?;
    let (here, there, back) = (workspace.path("here"), workspace.path("there"), workspace.path("back"));
    tree(&here)?;
    for mode in ["-s", "-O"] {
        if mode == "-O" {
            // The old protocol has lines for names.
            fs::remove_file(here.join("new\nline"))?;
            fs::remove_file(here.join("deep/er/new\nline"))?;
        }
        let to = workspace
            .program("scp")
            .args([mode, "-rp"])
            .arg(&here)
            .arg(format!("dev:{}", there.display()))
            .output()?;
        succeeded(&to);
        let from = workspace
            .program("scp")
            .args([mode, "-rp"])
            .arg(format!("dev:{}", there.display()))
            .arg(&back)
            .output()?;
        succeeded(&from);
        let wanted = content(&here)?;
        assert!(wanted.len() > 12 && content(&there)? == wanted, "scp {mode} to the workspace");
        assert!(content(&back)? == wanted, "scp {mode} from the workspace");
        fs::remove_dir_all(&there)?;
        fs::remove_dir_all(&back)?;
    }
    Ok(())
}

#[test]
fn sftp_does_what_its_commands_say() -> Result {
    let workspace = Workspace::start()?;
    let dir = workspace.path("there");
    fs::create_dir(&dir)?;
    fs::write(workspace.path("local"), vec![b'x'; 3 << 20])?;
    let (local, at) = (workspace.path("local").display().to_string(), dir.display().to_string());
    let commands = format!(
        "cd {at}\nmkdir folder\nput {local} folder/one\nput {local} two\nrename folder/one folder/three\n\
         symlink three folder/link\nchmod 600 folder/three\nln two hard\nget two {local}.back\nls -l\nls -la folder\n\
         df -h\npwd\nrm two\nrmdir no-such-folder\n"
    );
    // A dash before a command: its failure is no reason to stop.
    let commands = commands.replace("rmdir", "-rmdir").replace("df", "-df");
    let out = finish(workspace.program("sftp").args(["-b", "-", "dev"]), commands.as_bytes())?;
    succeeded(&out);
    let (said, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    // The commands are shown too, behind a prompt: what was listed is the rest.
    let listed = |mode: &str, name: &str| {
        said.lines().any(|line| line.starts_with(mode) && line.rsplit([' ', '/']).next() == Some(name))
    };
    for (mode, name) in
        [("-rw-------", "three"), ("lrwx", "link"), ("-rw-", "two"), ("-rw-", "hard"), ("drwx", "folder")]
    {
        assert!(listed(mode, name), "{mode} {name}: {said}");
    }
    assert!(said.contains("Avail") && said.contains('%'), "{said}{errors}");
    assert!(errors.contains("No such file"), "{errors}");
    assert_eq!(fs::read_link(dir.join("folder/link"))?, Path::new("three"));
    assert_eq!(fs::metadata(dir.join("folder/three"))?.mode() & 0o777, 0o600);
    assert_eq!(fs::read(workspace.path("local.back"))?, vec![b'x'; 3 << 20]);
    assert!(!dir.join("two").exists() && fs::read(dir.join("hard"))? == vec![b'x'; 3 << 20]);
    assert!(!dir.join("folder/one").exists());

    // Where no folder is named it is the home folder, and a download goes on where it was cut off.
    let out = finish(workspace.program("sftp").args(["-b", "-", "dev"]), b"pwd\n")?;
    let home = workspace.says("echo $HOME")?;
    assert!(String::from_utf8_lossy(&out.stdout).contains(home.trim_end()), "{out:?}");
    File::options().write(true).open(workspace.path("local.back"))?.set_len(1 << 20)?;
    let reget = format!("reget {at}/hard {local}.back\n");
    succeeded(&finish(workspace.program("sftp").args(["-b", "-", "dev"]), reget.as_bytes())?);
    assert_eq!(fs::read(workspace.path("local.back"))?, vec![b'x'; 3 << 20]);
    Ok(())
}

#[test]
fn rsync_carries_many_files_and_a_long_one() -> Result {
    let workspace = Workspace::start()?;
    let (here, there, back) = (workspace.path("here"), workspace.path("there"), workspace.path("back"));
    tree(&here)?;
    for n in 0..MANY {
        let folder = here.join(format!("many/{}", n % 100));
        if n < 100 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(n.to_string()), format!("{n}\n").repeat(n % 200))?;
    }
    let ssh = format!("ssh -F {}", workspace.path("ssh_config").display());
    let rsync = |from: &str, to: &str| -> Result {
        succeeded(&workspace.other("rsync").args(["-a", "-e", &ssh, from, to]).output()?);
        Ok(())
    };
    rsync(&format!("{}/", here.display()), &format!("dev:{}", there.display()))?;
    rsync(&format!("dev:{}/", there.display()), &back.display().to_string())?;
    let wanted = content(&here)?;
    assert!(wanted.len() > MANY && content(&there)? == wanted && content(&back)? == wanted);

    let long = workspace.path("long");
    write_long(&long)?;
    rsync(&long.display().to_string(), &format!("dev:{}.there", long.display()))?;
    assert!(equal(&long, &workspace.path("long.there"))?, "the long file is another one there");
    Ok(())
}

/// Bytes that cannot be made smaller and repeat only far apart.
fn write_long(path: &Path) -> Result {
    let mut block = vec![0; 64 << 20];
    File::open("/dev/urandom")?.read_exact(&mut block)?;
    let mut file = File::create(path)?;
    for n in 0..LONG / (64 << 20) {
        block[..8].copy_from_slice(&n.to_be_bytes());
        file.write_all(&block)?;
    }
    Ok(())
}

fn equal(one: &Path, other: &Path) -> Result<bool> {
    if fs::metadata(one)?.len() != LONG || fs::metadata(other)?.len() != LONG {
        return Ok(false);
    }
    let [mut one, mut other] =
        [one, other].map(|path| File::open(path).map(|f| BufReader::with_capacity(1 << 20, f)));
    let (one, other) = (one.as_mut().map_err(|e| e.to_string())?, other.as_mut().map_err(|e| e.to_string())?);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for _ in 0..LONG >> 20 {
        one.read_exact(&mut left)?;
        other.read_exact(&mut right)?;
        if left != right {
            return Ok(false);
        }
    }
    Ok(true)
}

#[test]
fn git_clones_and_pushes() -> Result {
    let workspace = Workspace::start()?;
    let ssh = format!("ssh -F {}", workspace.path("ssh_config").display());
    let git = |folder: &Path, arguments: &[&str]| -> Result<String> {
        let mut git = workspace.other("git");
        git.env("GIT_SSH_COMMAND", &ssh).env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(folder);
        git.args(["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]);
        let out = git.args(arguments).output()?;
        succeeded(&out);
        Ok(String::from_utf8(out.stdout)?)
    };
    let (there, here) = (workspace.path("there.git"), workspace.path("here"));
    git(workspace.path("").as_path(), &["init", "--bare", &there.display().to_string()])?;
    let url = format!("dev:{}", there.display());
    git(workspace.path("").as_path(), &["clone", &url, &here.display().to_string()])?;
    fs::write(here.join("file"), vec![7; 5 << 20])?;
    git(&here, &["add", "."])?;
    git(&here, &["commit", "-m", "first"])?;
    git(&here, &["push", "origin", "HEAD:main"])?;
    let pushed = git(&here, &["rev-parse", "HEAD"])?;
    assert_eq!(git(&there, &["rev-parse", "main"])?, pushed);
    git(workspace.path("").as_path(), &["clone", "-b", "main", &url, "again"])?;
    assert_eq!(fs::read(workspace.path("again/file"))?, vec![7; 5 << 20]);
    Ok(())
}

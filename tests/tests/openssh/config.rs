//! What `warren config-ssh` writes, as OpenSSH reads it.

use super::Result;
use super::workspace::{Workspace, finish};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// `warren config-ssh` for a file of the test's.
fn config_ssh(workspace: &Workspace, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(tests::program("warren")?);
    command.env_remove("WARREN_CONFIG_DIR").arg("--config-dir").arg(workspace.path("config"));
    command.args(["config-ssh", "--ssh-config-file"]).arg(workspace.path("of a person/config"));
    finish(command.args(arguments), b"")
}

fn by_name(workspace: &Workspace, host: &str, command: &str) -> Result<Output> {
    let mut ssh = Command::new("ssh");
    ssh.env_remove("WARREN_CONFIG_DIR").arg("-F").arg(workspace.path("of a person/config"));
    finish(ssh.args([host, command]), b"")
}

#[test]
fn workspaces_have_host_names() -> Result {
    let workspace = Workspace::start()?;
    let file = workspace.path("of a person/config");
    std::fs::create_dir_all(file.parent().ok_or("no folder")?)?;
    // A person's file that ends in a section, and would lead every host elsewhere.
    let before =
        b"User nobody\nHost *\n  ProxyCommand false\n  StrictHostKeyChecking yes\n# \xff, no line's end";
    std::fs::write(workspace.path("of a person/dotfile"), before)?;
    std::os::unix::fs::symlink("dotfile", &file)?;

    let dry = config_ssh(&workspace, &["--dry-run"])?;
    assert!(String::from_utf8_lossy(&dry.stdout).contains("+Host *.warren\n"), "{dry:?}");
    assert_eq!(std::fs::read(&file)?, before);

    let option = ["--ssh-option", "SetEnv LC_WARREN=seen", "-o", "json"];
    for changed in [true, false] {
        let out = config_ssh(&workspace, &option)?;
        let report: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        assert_eq!(report["changed"], changed, "{out:?}");
    }
    assert!(file.is_symlink());
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);

    for host in ["dev.warren", "dev.alice.warren"] {
        let out = by_name(&workspace, host, "echo $LC_WARREN; exit 7")?;
        assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(7), &b"seen\n"[..]), "{host}: {out:?}");
    }
    let unknown = by_name(&workspace, "nowhere.warren", "true")?;
    assert_eq!(unknown.status.code(), Some(255), "{unknown:?}");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("WORKSPACE_NOT_FOUND"), "{unknown:?}");

    // Another key under the same name is refused, until a person says otherwise.
    let known = workspace.path("config/known_hosts");
    let pinned = std::fs::read_to_string(&known)?;
    let other = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(workspace.path("other"))
        .status()?;
    assert!(other.success());
    let other = std::fs::read_to_string(workspace.path("other.pub"))?;
    std::fs::write(&known, format!("dev.warren {other}"))?;
    let refused = by_name(&workspace, "dev.warren", "true")?;
    assert_eq!(refused.status.code(), Some(255), "{refused:?}");
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("HOST IDENTIFICATION HAS CHANGED"),
        "{refused:?}"
    );
    std::fs::write(&known, pinned)?;

    // What cannot be understood is left alone.
    let written = std::fs::read(&file)?;
    let cut = written.iter().position(|byte| *byte == b'\n').ok_or("no line")?;
    std::fs::write(&file, &written[..=cut])?;
    let damaged = config_ssh(&workspace, &["--remove"])?;
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    assert!(
        String::from_utf8_lossy(&damaged.stderr).contains("line 1 begins a block that has no end"),
        "{damaged:?}"
    );
    assert_eq!(std::fs::read(&file)?, &written[..=cut]);
    std::fs::write(&file, written)?;

    assert!(config_ssh(&workspace, &["--remove"])?.status.success());
    assert_eq!(std::fs::read(&file)?, before);
    Ok(())
}

#[test]
fn what_would_break_the_file_is_refused() -> Result {
    let workspace = Workspace::start()?;
    for arguments in [
        &["--ssh-option", "Host x"][..],
        &["--ssh-option", "User"],
        &["--ssh-option", "Usr alice"],
        &["--ssh-option", "ConnectTimeout soon"],
        &["--ssh-option", "User a\nHost b"],
        &["--hostname-suffix", "a b"],
        &["--hostname-suffix", ""],
    ] {
        let out = config_ssh(&workspace, arguments)?;
        assert_eq!(out.status.code(), Some(2), "{arguments:?}: {out:?}");
    }
    assert!(!workspace.path("of a person/config").exists());
    Ok(())
}

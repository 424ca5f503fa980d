//! OpenSSH beside the command line: its configuration, its host keys, and what IDEs read.

use super::*;
use std::path::Path;
use std::process::Command;

/// `warren config-ssh` for this file.
fn config_ssh(deployment: &Deployment<'_>, file: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(tests::program("warren")?);
    command.env_remove("WARREN_CONFIG_DIR").arg("--config-dir").arg(deployment.path("config"));
    command.args(["config-ssh", "--ssh-config-file"]).arg(file).args(arguments);
    Ok(command.output()?)
}

fn ssh(deployment: &Deployment<'_>, command: &str) -> Result<Output> {
    let mut ssh = Command::new("ssh");
    ssh.env_remove("WARREN_CONFIG_DIR").arg("-F").arg(deployment.path("ssh_config"));
    Ok(ssh.args(["dev.warren", command]).stdin(std::process::Stdio::null()).output()?)
}

#[test]
fn only_a_file_is_taken_for_a_configuration() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let pipe = deployment.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status()?.success());
    let began = Instant::now();
    for file in [Path::new("/dev/full"), Path::new("/dev/zero"), &pipe, deployment.dir()] {
        for arguments in [&[][..], &["--dry-run"], &["--remove"]] {
            let out = config_ssh(&deployment, file, arguments)?;
            assert_eq!(out.status.code(), Some(1), "{}", said(&out));
            let text = said(&out).replace(&file.display().to_string(), "FILE");
            insta::allow_duplicates!(insta::assert_snapshot!(text, @r"
            error: can't use FILE: it is no regular file
            hint: check the file's permissions, or name another with --ssh-config-file
            code: SSH_CONFIG_FILE
            "));
        }
    }
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn host_names_lead_to_the_server_that_they_were_written_for() -> Result {
    let (deployment, _agent, _) = dev(&[])?;
    let other = Deployment::start(Place::Here, &[])?;
    let file = deployment.path("ssh_config");
    let out = config_ssh(&deployment, &file, &[])?;
    assert!(out.status.success(), "{}", said(&out));
    let text = std::fs::read_to_string(&file)?;
    assert!(text.contains(&format!(" --server={} ", deployment.url())), "{text}");

    let mut login = deployment.command()?;
    login.args(["login", other.url(), "--username", "alice", "--name", "other"]);
    let login = login.env("WARREN_PASSWORD", "correct horse battery staple").output()?;
    assert!(login.status.success(), "{}", said(&login));
    let out = ssh(&deployment, "echo there")?;
    assert_eq!(result(&out), "there\n", "{}", said(&out));

    let mut stranger = Command::new(tests::program("warren")?);
    stranger.env_remove("WARREN_CONFIG_DIR").arg("--config-dir").arg(deployment.path("nobody"));
    let out = stranger.args(["config-ssh", "--ssh-config-file"]).arg(&file).output()?;
    assert_eq!(out.status.code(), Some(3), "there is no server to write: {}", said(&out));
    Ok(())
}

#[test]
fn a_workspace_that_is_trusted_anew_has_its_new_host_key() -> Result {
    let (deployment, agent, token) = dev(&[])?;
    let file = deployment.path("ssh_config");
    assert!(config_ssh(&deployment, &file, &[])?.status.success());
    assert!(ssh(&deployment, "true")?.status.success());
    let known = || std::fs::read_to_string(deployment.path("config/known_hosts"));
    let before = known()?;
    assert!(before.starts_with("dev.warren "), "names are not hashed: {before}");

    // Set up anew: with other keys, of the node and of the host.
    drop(agent);
    std::fs::remove_dir_all(deployment.path("agent-dev"))?;
    let _agent = deployment.start_agent("dev", &token)?;
    let out = ssh(&deployment, "true")?;
    assert_eq!(out.status.code(), Some(255), "{}", said(&out));
    let trusted = deployment.json(&["workspaces", "trust", "dev"])?;
    assert_eq!(trusted["ssh_host_key_forgotten"], true, "{trusted:#}");
    let out = ssh(&deployment, "echo there")?;
    assert_eq!(result(&out), "there\n", "{}", said(&out));
    assert_ne!(known()?, before);
    Ok(())
}

#[test]
fn network_facts_do_not_wait_for_the_disk() -> Result {
    let (deployment, _agent, _) = dev(&[])?;
    let _ = deployment.json(&["ping", "dev", "-c", "1"])?;
    let (facts, calls) = (deployment.path("facts"), deployment.path("calls"));
    let mut traced = Command::new("strace");
    traced.args(["-f", "-e", "trace=fsync,fdatasync,rename", "-o"]).arg(&calls);
    traced.arg(tests::program("warren")?).arg("--config-dir").arg(deployment.path("config"));
    traced.args(["ssh", "--network-info-interval", "0.1", "--network-info-dir"]).arg(&facts);
    let out = traced.args(["dev", "sleep 2"]).stdin(std::process::Stdio::null()).output()?;
    assert!(out.status.success(), "{}", said(&out));
    let calls = std::fs::read_to_string(&calls)?;
    let count = |name: &str| calls.lines().filter(|line| line.contains(name)).count();
    assert!(count("rename(") > 3, "{calls}");
    assert_eq!(count("sync("), 0, "{calls}");
    Ok(())
}

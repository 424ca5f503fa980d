//! What `warren config-ssh` writes, as OpenSSH reads it.

use super::Result;
use super::workspace::{Ends, Workspace, finish};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

/// `warren config-ssh` for a file of the test's.
fn config_ssh(workspace: &Workspace, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(tests::program("warren")?);
    command.env_remove("WARREN_CONFIG_DIR").arg("--config-dir").arg(workspace.path("config"));
    command.args(["config-ssh", "--ssh-config-file"]).arg(workspace.path("of a person/config"));
    finish(command.args(arguments), b"")
}

/// A program of OpenSSH that reads that file.
fn program(workspace: &Workspace, name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_remove("WARREN_CONFIG_DIR").arg("-F").arg(workspace.path("of a person/config"));
    command
}

fn by_name(workspace: &Workspace, host: &str, command: &str) -> Result<Output> {
    finish(program(workspace, "ssh").args([host, command]), b"")
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
fn an_editor_puts_its_server_there_and_reaches_it() -> Result {
    // The way of VS Code's Remote-SSH: its server goes there as a file, a shell that reads its input starts it and holds
    // the connection, and all else comes by SOCKS.
    let workspace = Workspace::start()?;
    assert!(config_ssh(&workspace, &[])?.status.success());
    let (server, there) = (workspace.path("server.py"), workspace.path("there"));
    let source = "import http.server as h\n\
                  s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler)\n\
                  print('listening on', s.server_port, flush=True)\ns.serve_forever()\n";
    std::fs::write(&server, source)?;
    assert!(by_name(&workspace, "dev.warren", &format!("mkdir -p '{}'", there.display()))?.status.success());
    let mut scp = program(&workspace, "scp");
    let out = finish(scp.arg(&server).arg(format!("dev.warren:{}/server.py", there.display())), b"")?;
    assert!(out.status.success(), "{out:?}");

    let socks = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut shell = program(&workspace, "ssh");
    shell.args(["-T", "-D", &socks, "-o", "ConnectTimeout=15", "-o", "ExitOnForwardFailure=yes"]);
    shell.args(["dev.warren", "bash"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = Ends(shell.spawn()?);
    let mut typed = shell.0.stdin.take().ok_or("no input")?;
    writeln!(typed, "cd '{}'; python3 server.py & trap \"kill $!\" EXIT", there.display())?;
    let mut said = BufReader::new(shell.0.stdout.take().ok_or("no output")?).lines();
    let line = said.next().ok_or("the server says nothing")??;
    let port = line.strip_prefix("listening on ").ok_or_else(|| format!("it says {line}"))?;
    let (proxy, url) = (format!("127.0.0.1:{socks}"), format!("http://localhost:{port}/server.py"));
    for _ in 0..2 {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "30",
            "--socks5-hostname",
            &proxy,
            &url,
        ]);
        let out = finish(&mut curl, b"")?;
        assert_eq!(String::from_utf8(out.stdout)?, source, "{}", String::from_utf8_lossy(&out.stderr));
    }
    // It ends with the editor.
    drop(typed);
    assert!(shell.0.wait()?.success());
    let gone = Command::new("curl").args(["--silent", "--max-time", "10", &url]).status()?;
    assert!(!gone.success(), "the server is there still");
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

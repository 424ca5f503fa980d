//! Arguments, variables, settings files and folders.

use super::*;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use std::io::Read;
use std::process::{Command, Stdio};

/// `warren`, which must end with this status and no result; what it said.
fn fails(command: &mut Command, status: i32) -> Result<String> {
    let out = command.stdin(Stdio::null()).output()?;
    assert_eq!(out.status.code(), Some(status), "{command:?}: {}", said(&out));
    assert!(out.stdout.is_empty(), "{command:?}: {}", result(&out));
    Ok(said(&out))
}

#[test]
fn what_is_to_be_forwarded_may_stand_in_the_settings_file() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    deployment.create_workspace("dev")?;
    std::fs::write(deployment.path("config/config.toml"), "[port-forward]\ntcp = [\"0:9\", \"0:10\"]\n")?;
    let text = fails(deployment.command()?.args(["port-forward", "dev"]), 5)?;
    assert!(text.contains("AGENT_OFFLINE"), "{text}");
    std::fs::write(deployment.path("config/config.toml"), "")?;
    let text = fails(deployment.command()?.args(["port-forward", "dev"]), 2)?;
    assert!(text.contains("--tcp <SPEC>"), "{text}");
    Ok(())
}

#[test]
fn usage_errors_are_documents_where_those_were_asked_for() -> Result {
    let folder = tempfile::tempdir()?;
    let warren = tests::program("warren")?;
    let usage = |arguments: &[&str], variable: Option<&str>| -> Result<String> {
        let mut command = Command::new(&warren);
        command.args(arguments).env("WARREN_CONFIG_DIR", folder.path());
        fails(command.envs(variable.map(|form| ("WARREN_OUTPUT", form))), 2)
    };
    let json = |arguments: &[&str], variable: Option<&str>| -> Result<String> {
        let text = usage(arguments, variable)?;
        let document: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        assert_eq!(document["error"]["code"], "USAGE", "{text}");
        Ok(text.trim().to_owned())
    };
    let mut all = vec![
        json(&["ping", "dev", "-c", "0", "-o", "json"], None)?,
        json(&["-o", "json", "ping", "dev", "--cuont", "1"], None)?,
        json(&["ping", "dev", "-t", "0", "--output=json"], None)?,
        json(&["ping", "", "-ojson"], None)?,
        json(&["pnig"], Some("json"))?,
        json(&[], Some("json"))?,
    ];
    std::fs::write(folder.path().join("config.toml"), "output = \"json\"\n")?;
    all.push(json(&["speedtest"], None)?);
    insta::assert_snapshot!(all.join("\n"));
    let text = usage(&["speedtest"], Some("table"))?;
    assert!(text.starts_with("error: the following required arguments were not provided:\n"), "{text}");
    // A fault of the file, likewise.
    std::fs::write(folder.path().join("config.toml"), "outptu = 1\n")?;
    let text = usage(&["status", "-o", "json"], None)?;
    let document: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(document["error"]["code"], "CONFIG_INVALID", "{text}");
    Ok(())
}

#[test]
fn no_workspace_has_an_empty_name() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    for arguments in [
        &["ping", ""][..],
        &["ssh", ""],
        &["ports", ""],
        &["speedtest", ""],
        &["status", ""],
        &["open", ""],
        &["version", ""],
        &["support-bundle", ""],
        &["port-forward", "", "--tcp", "1"],
        &["workspaces", "delete", ""],
        &["workspaces", "trust", ""],
    ] {
        fails(deployment.command()?.args(arguments), 2)?;
    }
    let text = fails(deployment.command()?.args(["ssh", "--hostname-suffix", "warren", ".warren"]), 255)?;
    assert!(text.contains("BAD_WORKSPACE"), "{text}");
    Ok(())
}

/// What a program says on a terminal.
fn on_a_terminal(mut command: Command) -> Result<String> {
    let mut terminal = std::fs::File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?);
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let screen = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(screen).spawn()?;
    drop(command);
    let (mut text, mut some) = (Vec::new(), [0; 4_096]);
    // The terminal ends with an error once nobody has its other side any more.
    while let Ok(n @ 1..) = terminal.read(&mut some) {
        text.extend_from_slice(&some[..n]);
    }
    child.wait()?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn logs_have_colours_unless_no_color_says_otherwise() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let logged = |no_color: Option<&str>| -> Result<String> {
        let mut command = deployment.command()?;
        command.args(["-vv", "netcheck"]).env("TERM", "xterm").env_remove("NO_COLOR");
        let text = on_a_terminal({
            command.envs(no_color.map(|value| ("NO_COLOR", value)));
            command
        })?;
        assert!(text.contains(" INFO"), "{text}");
        Ok(text)
    };
    assert!(logged(None)?.contains("\u{1b}["));
    assert!(logged(Some(""))?.contains("\u{1b}["), "an empty one says nothing");
    assert!(!logged(Some("1"))?.contains('\u{1b}'));
    Ok(())
}

#[test]
fn a_folder_that_cannot_be_written_hinders_nobody() -> Result {
    let (deployment, _agent, _) = dev(&[])?;
    let read_only = |arguments: &str, fresh: bool| -> Result<Output> {
        let config = deployment.path("read-only");
        let _ = std::fs::remove_dir_all(&config);
        std::fs::create_dir(&config)?;
        for file in ["session.json", "node.key"].iter().take(if fresh { 1 } else { 2 }) {
            std::fs::copy(deployment.path("config").join(file), config.join(file))?;
        }
        // Root may write wherever the file system lets it.
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]).arg(format!(
            "mount --bind \"$2\" \"$2\" && mount -o remount,bind,ro \"$2\" && exec \"$1\" --config-dir \"$2\" {arguments}"
        ));
        Ok(command.arg("sh").arg(tests::program("warren")?).arg(&config).stdin(Stdio::null()).output()?)
    };
    // The first ping makes the key that is copied.
    let _ = deployment.json(&["ping", "dev", "-c", "1"])?;
    for fresh in [true, false] {
        let out = read_only("ping dev -c 1", fresh)?;
        assert!(out.status.success(), "{}", said(&out));
        let home = deployment.path("read-only").display().to_string();
        let text = said(&out).replace(&home, "HOME");
        insta::assert_snapshot!(if fresh { "read_only_fresh" } else { "read_only" }, text);
        let out = read_only("ssh dev 'echo there'", fresh)?;
        assert_eq!((out.status.code(), result(&out).as_str()), (Some(0), "there\n"), "{}", said(&out));
    }
    Ok(())
}

#[test]
fn a_ready_file_that_cannot_be_written_is_told() -> Result {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a file");
    std::fs::write(&file, "")?;
    let ready = file.join("ready.json");
    let mut told = Vec::new();
    for (program, arguments) in [
        ("warren-server", &["--http-address", "127.0.0.1:0", "--stun-address", "none"][..]),
        ("warren-relay", &["--http-address", "127.0.0.1:0", "--stun-address", "none"]),
    ] {
        let mut command = Command::new(tests::program(program)?);
        command
            .args(arguments)
            .args(["--metrics-address", "none", "--state-dir"])
            .arg(folder.path().join(program));
        command.arg("--ready-file").arg(&ready).stdout(Stdio::null());
        let mut running = Running::start(command, folder.path().join("log"))?;
        let status = running.end(PATIENCE)?;
        let text = running.log().replace(&folder.path().display().to_string(), "HOME");
        let error = text.find("error: ").and_then(|at| text.get(at..)).unwrap_or_default();
        told.push(format!("{program}: {}\n{}", status.code().unwrap_or_default(), error.trim()));
    }
    insta::assert_snapshot!(told.join("\n"));
    Ok(())
}

//! Errors that come before any server is asked.

use super::{Result, Transcript};
use std::path::Path;
use std::process::Command;

/// `warren` whose files are in this folder.
fn warren(folder: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(tests::program("warren")?);
    command.env_clear().env("HOME", "/nowhere").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("WARREN_CONFIG_DIR", folder).args(arguments).current_dir(folder);
    Ok(command)
}

#[test]
fn of_the_command_line() -> Result {
    let folder = tempfile::tempdir()?;
    let mut told = Transcript::default();
    let long = "x".repeat(90_000);
    for arguments in [
        &["sttaus"][..],
        &["ping"],
        &["ping", "dev", "--cuont", "3"],
        &["ping", "dev", "--count", "many"],
        &["ping", "dev", "--interval=-1"],
        &["ping", "dev", "--timeout", "4000", "-o", "json"],
        &["speedtest", "dev", "--direction", "sideways"],
        &["speedtest", "dev", "--direct", "--disable-direct-connections"],
        &["speedtest", "dev", "--pcap-file", "/nowhere/dev.pcap"],
        &["ssh", "dev", "-e", "xyz"],
        &["ssh", "dev", &long, &long, &long],
        &["ssh", "--stdio", "--tty", "dev"],
        &["port-forward", "dev"],
        &["port-forward", "dev", "--tcp", "8080:8o"],
        &["port-forward", "dev", "--tcp", "8080:80", "--tcp", "8080:81", "-o", "json"],
        &["port-forward", "dev", "--udp", "5353:53-54"],
        &["port-forward", "dev", "--tcp", "70000"],
        &["port-forward", "dev", "--tcp", "[::1:80"],
        &["port-forward", "dev", "--unix", "8080:80"],
        &["port-forward", "dev", "--reverse", "x:80:81:82"],
        &["port-forward", "dev", "--tcp", "1-2000"],
        &["port-forward", "dev", "--tcp", "192.0.2.1:8080:80"],
        &["port-forward", "dev", "--unix", "/nowhere/near.sock:/run/far.sock"],
        &["config-ssh", "--hostname-suffix", "a b"],
        &["config-ssh", "--ssh-option", "Host x"],
        &["config-ssh", "--ssh-option", "Usr alice"],
        &["ssh", ".warren", "--hostname-suffix", "warren"],
        &["config-ssh", "--ssh-config-file", "/"],
        &["login", "ftp://example.com"],
        &["login", "http://127.0.0.1:1"],
        &["login", "http://127.0.0.1:1", "--username", "alice"],
        &["login", "http://127.0.0.1:1", "--token-file", "/nowhere/token"],
        &["login", "http://127.0.0.1:1", "--token", "two words"],
        &["completion", "tcsh"],
        &["support-bundle", "--log", "/nowhere/log", "--output-file", "bundle.zip"],
        &["support-bundle", "--output-file", "/nowhere/bundle.zip"],
        &["status", "--config", "/nowhere/config.toml"],
    ] {
        let out = told.run(&mut warren(folder.path(), arguments)?)?;
        assert!(!out.status.success() && out.stdout.is_empty(), "{arguments:?}: {out:?}");
    }
    insta::assert_snapshot!(told.hide(folder.path().display().to_string(), "FOLDER").all());
    Ok(())
}

#[test]
fn of_what_an_earlier_login_left() -> Result {
    let folder = tempfile::tempdir()?;
    let mut told = Transcript::default();
    let session = folder.path().join("session.json");
    let mut fails = |what: &str, arguments: &[&str]| -> Result {
        told.text.push_str(&format!("# {what}\n"));
        let out = told.run(&mut warren(folder.path(), arguments)?)?;
        assert!(!out.status.success() && out.stdout.is_empty(), "{arguments:?}: {out:?}");
        Ok(())
    };
    for arguments in
        [&["status"][..], &["status", "-o", "json"], &["logout"], &["ssh", "dev"], &["version", "dev"]]
    {
        fails("nobody has logged in", arguments)?;
    }
    let home = r#"{"url":"http://home.example","token":"t","username":"alice"}"#;
    std::fs::write(&session, format!(r#"{{"others":[{home}]}}"#))?;
    fails("no server is in use", &["status"])?;
    fails("no server is in use", &["context", "use", "hoem"])?;
    std::fs::write(&session, r#"{"url":"a b","token":"t","username":"alice"}"#)?;
    fails("the server's address is none", &["workspaces", "list"])?;
    fails("the server's address is none", &["ping", "dev"])?;
    std::fs::write(&session, "{")?;
    fails("the file of logins is damaged", &["status"])?;
    std::fs::remove_file(&session)?;
    std::fs::create_dir(&session)?;
    fails("the file of logins is a folder", &["status"])?;
    std::fs::remove_dir(&session)?;
    std::fs::write(&session, home)?;
    let begun = "# --- begin: written by `warren config-ssh`, changes are lost (*.warren) ---\n";
    std::fs::write(folder.path().join("damaged"), begun)?;
    fails("the block of an earlier time has no end", &["config-ssh", "--ssh-config-file", "damaged"])?;
    std::fs::create_dir(folder.path().join("a\"b"))?;
    std::fs::write(folder.path().join("a\"b/session.json"), home)?;
    let quoted = ["config-ssh", "--config-dir", "a\"b", "--ssh-config-file", "new"];
    fails("the folder has a name that OpenSSH cannot read", &quoted)?;
    let lock = folder.path().join("session.lock");
    std::fs::remove_file(&lock)?;
    std::fs::create_dir(&lock)?;
    fails("what is remembered cannot be changed", &["context", "use", "home.example"])?;
    std::fs::write(folder.path().join("node.key"), "no key")?;
    fails("this machine's key is damaged", &["ping", "dev"])?;
    insta::assert_snapshot!(told.hide(folder.path().display().to_string(), "FOLDER").all());
    Ok(())
}

#[test]
fn of_a_machine_that_gives_little() -> Result {
    let mut told = Transcript::default();
    let warren = tests::program("warren")?;
    let mut fails = |before: &[&str], arguments: &[&str]| -> Result {
        let [program, rest @ ..] = before else { return Err("no program".into()) };
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let out = command.args(rest).arg(&warren).args(arguments).output()?;
        let typed = [before, &["warren"], arguments].concat().join(" ");
        told.note(&typed, &out);
        assert!(!out.status.success() && out.stdout.is_empty(), "{typed}: {out:?}");
        Ok(())
    };
    // Somebody of whom the system knows nothing, who can still read the program wherever it was built.
    let nobody = [
        "setpriv",
        "--reuid=54321",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    ];
    fails(&nobody, &["status"])?;
    let unprivileged = "ip link set lo up && exec setpriv --bounding-set=-net_bind_service \"$@\"";
    let unprivileged = ["unshare", "--net", "sh", "-c", unprivileged, "sh"];
    fails(&unprivileged, &["port-forward", "dev", "--tcp", "80", "--config-dir", "/nowhere"])?;
    insta::assert_snapshot!(told.all());
    Ok(())
}

//! What a support bundle must not hold, and what must not be left of one.

use super::*;
use std::process::{Command, Stdio};

fn unzipped(bundle: &std::path::Path, name: &str) -> Result<String> {
    let out = Command::new("unzip").arg("-p").arg(bundle).arg(name).output()?;
    assert!(out.status.success(), "{name}: {}", said(&out));
    Ok(result(&out))
}

#[test]
fn a_bundle_shows_the_settings_file_that_was_read() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    std::fs::write(deployment.path("config/config.toml"), "# the usual one\n")?;
    std::fs::write(deployment.path("other.toml"), "# the other one\n[ping]\ncount = 7\n")?;
    let bundle = deployment.path("bundle.zip");
    let mut command = deployment.command()?;
    command.arg("--config").arg(deployment.path("other.toml")).args(["support-bundle", "--output-file"]);
    let out = command.arg(&bundle).output()?;
    assert!(out.status.success(), "{}", said(&out));
    let text = unzipped(&bundle, "settings.txt")?;
    assert!(text.contains("# the other one\n[ping]\ncount = 7") && !text.contains("the usual one"), "{text}");
    Ok(())
}

#[test]
fn the_secrets_of_other_programs_stay_out_of_a_bundle() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let key = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]).output()?;
    assert!(key.status.success(), "{}", said(&key));
    let key = result(&key);
    let body = key.lines().nth(1).ok_or("no key")?;
    let log = deployment.path("mine.log");
    std::fs::write(
        &log,
        format!(
            "db password=hunter2hunter2 host=db\n$ warren login x --password hunter2hunter2\n{key}> Authorization: \
             Basic aHVudGVyMg==hunter2hunter2\n{{\"token\": \"hunter2hunter2\", \"n\": 1}}\nline that helps\n"
        ),
    )?;
    let bundle = deployment.path("bundle.zip");
    let mut command = deployment.command()?;
    command.args(["support-bundle", "--output-file"]).arg(&bundle).arg("--log").arg(&log);
    // The same by a pipe.
    let mut cat = Command::new("cat").arg(&log).stdout(Stdio::piped()).spawn()?;
    command.args(["--log", "/dev/stdin"]).stdin(cat.stdout.take().ok_or("no pipe")?);
    let out = command.output()?;
    cat.wait()?;
    assert!(out.status.success(), "{}", said(&out));
    let text = unzipped(&bundle, "logs/1-mine.log")?;
    assert!(!text.contains("hunter2") && !text.contains(body), "{text}");
    assert_eq!(unzipped(&bundle, "logs/2-stdin")?, text);
    insta::assert_snapshot!(text);
    Ok(())
}

#[test]
fn nothing_is_left_of_a_bundle_that_is_interrupted() -> Result {
    let (deployment, agent, _) = dev(&[])?;
    let folder = deployment.path("bundles");
    std::fs::create_dir(&folder)?;
    // It takes its time: the agent answers nobody.
    signal(agent.id(), "STOP")?;
    let mut command = deployment.command()?;
    command.args(["support-bundle", "-t", "60", "--output-file"]).arg(folder.join("bundle.zip"));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    wait("the beginning of a bundle", || std::fs::read_dir(&folder).ok()?.next().map(drop))?;
    std::thread::sleep(Duration::from_secs(1));
    assert!(!folder.join("bundle.zip").exists(), "it has its name once it is whole");
    signal(child.id(), "INT")?;
    let out = child.wait_with_output()?;
    signal(agent.id(), "CONT")?;
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("code: INTERRUPTED"), "{}", said(&out));
    assert_eq!(std::fs::read_dir(&folder)?.count(), 0);
    Ok(())
}

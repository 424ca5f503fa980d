//! Who is shut out while at work: every way in ends at once, and says why.

use super::Result;
use super::native_terminal::with_terminal;
use super::screen::{Screen, plain};
use super::workspace::{Ends, Workspace, finish, wait};
use serde_json::{Value, json};
use std::io::Read;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PASSWORD: &str = "correct horse battery staple";
/// How long it may take on a busy machine; it is a matter of milliseconds.
const SOON: Duration = Duration::from_secs(10);

/// A person's programs, by the folder of a login.
fn person(workspace: &Workspace, folder: &str, program: &str) -> Command {
    let mut command = workspace.other(program);
    command.env("WARREN_CONFIG_DIR", workspace.path(folder)).env("WARREN_PASSWORD", PASSWORD);
    command
}

/// `warren` in the name of a login.
fn warren(workspace: &Workspace, folder: &str, arguments: &[&str]) -> Result<Command> {
    let program = tests::program("warren")?;
    let mut command = person(workspace, folder, &program.to_string_lossy());
    command.args(arguments);
    Ok(command)
}

fn log_in(workspace: &mut Workspace, folder: &str, name: &str) -> Result {
    let url = workspace.deployment().url().to_owned();
    let out = finish(&mut warren(workspace, folder, &["login", &url, "--username", name])?, b"")?;
    assert!(out.status.success(), "{out:?}");
    Ok(())
}

/// A command that runs in the workspace.
fn at_work(mut command: Command) -> Result<Ends> {
    let mut ssh = Ends(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    ssh.0.stdout.as_mut().ok_or("no output")?.read_exact(&mut [0; 3])?;
    Ok(ssh)
}

/// What it says at its end, which is to come soon.
fn ended(mut ssh: Ends, since: Instant) -> Result<String> {
    let status = wait("the end", || ssh.0.try_wait().ok().flatten())?;
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert_eq!(status.code(), Some(255));
    let mut said = String::new();
    ssh.0.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
    Ok(said)
}

/// The login that an API's answer calls the latest.
fn latest_token(tokens: &Value) -> Result<String> {
    Ok(tokens["tokens"][0]["id"].as_str().ok_or_else(|| format!("no token in {tokens}"))?.to_owned())
}

#[test]
fn a_revoked_token_ends_a_shell_an_ssh_session_and_forwarded_ports() -> Result {
    let mut workspace = Workspace::start()?;
    log_in(&mut workspace, "other", "alice")?;
    let mut screen = Screen::start(with_terminal(&warren(&workspace, "other", &["ssh", "dev"])?), 80, 24)?;
    screen.types("PS1=; echo read''y\r")?;
    screen.shows("ready\r\n")?;
    let mut ssh = person(&workspace, "other", "ssh");
    ssh.arg("-F").arg(workspace.path("ssh_config")).args(["dev", "echo up; exec sleep 60"]);
    let ssh = at_work(ssh)?;
    let echo = std::net::TcpListener::bind("127.0.0.1:0")?;
    let spec = format!("0:{}", echo.local_addr()?.port());
    let mut forward = warren(&workspace, "other", &["port-forward", "dev", "-o", "json", "--tcp", &spec])?;
    let mut forward = Ends(forward.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    let mut shown =
        serde_json::Deserializer::from_reader(forward.0.stdout.take().ok_or("no output")?).into_iter();
    let shown: Value = shown.next().ok_or("nothing is forwarded")??;
    let at = shown[0]["local"][0].as_str().ok_or("no address")?.to_owned();
    let mut held = TcpStream::connect(&at)?;
    let _far = echo.accept()?;

    let deployment = workspace.deployment();
    let id = latest_token(&deployment.api("GET", "/tokens", None)?)?;
    deployment.api("DELETE", &format!("/tokens/{id}"), None)?;
    let revoked = Instant::now();
    let status = wait("the shell's end", || screen.program.0.try_wait().ok().flatten())?;
    println!("ended {:?} after its token", revoked.elapsed());
    assert!(revoked.elapsed() < SOON, "{:?}", revoked.elapsed());
    let text = screen.shows("code: ")?;
    let text = wait("the whole error", || {
        let whole = text.clone() + &screen.text();
        whole.ends_with("\r\n").then_some(whole)
    })?;
    assert_eq!(status.code(), Some(255), "{text}");
    // OpenSSH has a last word of its own, one or the other.
    let ssh: String = ended(ssh, revoked)?.split_inclusive('\n').take(3).collect();
    let mut all = format!("# a shell\n{}\n# ssh\n{ssh}\n", plain(&text));
    held.set_read_timeout(Some(SOON))?;
    assert!(!matches!(held.read(&mut [0]), Ok(1..)));
    let status = wait("the forward's end", || forward.0.try_wait().ok().flatten())?;
    assert_eq!(status.code(), Some(3));
    let mut said = String::new();
    forward.0.stderr.take().ok_or("no errors")?.read_to_string(&mut said)?;
    // Whether what was held is told of before depends on which end is seen first.
    all.push_str(&format!("# a forwarded port\n{}\n", said.lines().last().unwrap_or_default()));
    let out = finish(&mut warren(&workspace, "other", &["ssh", "dev", "true"])?, b"")?;
    all.push_str(&format!("# another command\n{}", String::from_utf8(out.stderr)?));
    insta::assert_snapshot!("revoked", all);
    Ok(())
}

#[test]
fn whatever_shuts_a_person_out_is_said() -> Result {
    let mut workspace = Workspace::start()?;
    let bob = json!({ "username": "bob", "password": PASSWORD });
    let bob = workspace.deployment().api("POST", "/users", Some(&bob))?;
    let bob = format!("/users/{}", bob["id"].as_str().ok_or("no id")?);
    let share = "/workspaces/alice/dev/shares/bob";
    let deeds: [(&str, &str, &str, Option<Value>); 5] = [
        ("alice", "POST", "/me/password", Some(json!({ "old": PASSWORD, "new": "another horse" }))),
        ("bob", "DELETE", share, None),
        ("bob", "PATCH", &bob, Some(json!({ "disabled": true }))),
        ("bob", "DELETE", &bob, None),
        ("config", "DELETE", "/workspaces/alice/dev", None),
    ];
    let mut said = String::new();
    for (folder, method, path, body) in deeds {
        let deployment = workspace.deployment();
        if folder == "bob" {
            deployment.api("PUT", share, None)?;
            deployment.api("PATCH", &bob, Some(&json!({ "disabled": false })))?;
        }
        if folder != "config" {
            log_in(&mut workspace, folder, folder)?;
        }
        let session = at_work(warren(&workspace, folder, &["ssh", "alice/dev", "echo up; exec sleep 60"])?)?;
        workspace.deployment().api(method, path, body.as_ref())?;
        let since = Instant::now();
        let shown = path.replace(&bob, "/users/BOB");
        said.push_str(&format!("# {method} {shown}\n{}\n", ended(session, since)?));
    }
    insta::assert_snapshot!("shut_out", said);
    Ok(())
}

//! Commands by `warren ssh` itself, without a terminal: data, ends, signals, and what happens when one side is slow.

use super::Result;
use super::old_agent::old_agent;
use super::workspace::{Ends, Workspace, finish, signal, wait};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tests::deployment::{Deployment, Place};

/// Bytes that are sent to the workspace and back.
const LONG: usize = 100_000_000;
/// KiB that a program may grow by for them, however many they are.
const GROWTH: u64 = 48 << 10;

/// The most memory that a process has had, in KiB.
fn most_resident(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}

#[test]
fn commands_have_input_output_errors_and_a_status() -> Result {
    let workspace = Workspace::start()?;
    let mut command = workspace.native(&["dev", "--", "cat; echo wrong >&2; exit 7"])?;
    let out = finish(&mut command, b"to and fro")?;
    assert_eq!(out.status.code(), Some(7), "{out:?}");
    assert_eq!((out.stdout.as_slice(), out.stderr.as_slice()), (&b"to and fro"[..], &b"wrong\n"[..]));
    // What follows the command is the command's, and several words are one line, as OpenSSH has it.
    for (arguments, said, status) in [
        (&["dev", "printf", "%s-", "-t", "-e", "x"][..], "-t--e-x-", 0),
        (&["-T", "dev", "echo", "a   b"], "a b\n", 0),
        (&["dev", "-T", "exit", "255"], "", 255),
        (&["dev.alice.warren", "--hostname-suffix", "warren", "echo $WARREN_WORKSPACE"], "dev\n", 0),
        (&["dev", "kill -TERM $$"], "", 143),
        (&["dev", "kill -KILL $$"], "", 137),
        (&["dev", "exec 2>/dev/null; no-such-program-here"], "", 127),
        (&["dev", "tty"], "not a tty\n", 1),
    ] {
        let out = finish(&mut workspace.native(arguments)?, b"")?;
        assert_eq!(out.status.code(), Some(status), "{arguments:?}: {out:?}");
        assert_eq!(String::from_utf8(out.stdout)?, said, "{arguments:?}");
        assert_eq!(String::from_utf8(out.stderr)?, "", "{arguments:?}");
    }
    // Without a command it is the shell, as a login; bytes of no encoding pass as they are.
    let out = finish(&mut workspace.native(&["dev"])?, b"echo \"I am $0\"; exit 4\n")?;
    assert_eq!(out.status.code(), Some(4), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stdout).contains("I am -"), "{out:?}");
    let mut command = workspace.native(&["dev"])?;
    let out = finish(command.arg(OsStr::from_bytes(b"printf 'a\xff\xfeb'")), b"")?;
    assert_eq!(out.stdout, b"a\xff\xfeb");
    Ok(())
}

#[test]
fn much_comes_back_whole_in_little_memory() -> Result {
    let mut workspace = Workspace::start()?;
    let long: Vec<u8> = (0..LONG).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    let before = most_resident(workspace.agent().id())?;
    // It stays a moment, so that one can look at it.
    let mut command = workspace.native(&["dev", "cat; sleep 1"])?;
    let mut ssh = Ends(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let (mut into, mut out) =
        (ssh.0.stdin.take().ok_or("no input")?, ssh.0.stdout.take().ok_or("no output")?);
    let mut back = vec![0; LONG];
    std::thread::scope(|scope| {
        scope.spawn(|| into.write_all(&long).map(|()| drop(into)));
        out.read_exact(&mut back)
    })?;
    let peak = most_resident(ssh.0.id())?;
    assert!(back == long, "the bytes that came back are others");
    assert_eq!(out.read(&mut [0])?, 0, "more came back");
    assert_eq!(wait("the end", || ssh.0.try_wait().ok().flatten())?.code(), Some(0));
    let grown = most_resident(workspace.agent().id())?.saturating_sub(before);
    println!("the agent has grown by {grown} KiB, the client had {peak} KiB");
    assert!(grown < GROWTH && peak < GROWTH, "agent {grown} KiB, client {peak} KiB");
    Ok(())
}

#[test]
fn output_and_errors_are_whole_to_the_last_byte() -> Result {
    let workspace = Workspace::start()?;
    // Bursts of 64 KiB by turns, and the last of them after the program's own end.
    let turns = "for n in $(seq 32); do head -c 65536 /dev/zero | tr '\\0' o; head -c 65536 /dev/zero | tr '\\0' e >&2; \
                 done; (sleep 0.3; echo late; echo late >&2) & exit 3";
    for _ in 0..3 {
        let out = finish(&mut workspace.native(&["dev", turns])?, b"")?;
        assert_eq!(out.status.code(), Some(3), "{:?}", out.status);
        let expected = |letter: &str| format!("{}late\n", letter.repeat(2 << 20));
        assert!(String::from_utf8(out.stdout)? == expected("o"), "the output is not what was written");
        assert!(String::from_utf8(out.stderr)? == expected("e"), "the errors are not what was written");
    }
    // Nothing is lost for one who reads late, when the program has long ended: that is a bit more than a pipe holds.
    let warren = tests::program("warren")?;
    let late = format!("'{}' ssh dev 'head -c 100000 /dev/zero' | (sleep 1; wc -c)", warren.display());
    assert_eq!(finish(workspace.other("sh").args(["-c", &late]), b"")?.stdout, b"100000\n");
    // Both in one pipe: each line that was written first comes first. The pipe is left as it was found.
    let mut shell = workspace.other("sh");
    let script = "for n in $(seq 10); do echo out $n; sleep 0.1; echo err $n >&2; sleep 0.1; done";
    shell.args([
        "-c",
        &format!(
            "{{ '{}' ssh dev '{script}'; head -c 200000 /dev/zero; }} 2>&1 | (sleep 2; cat)",
            warren.display()
        ),
    ]);
    let out = finish(&mut shell, b"")?;
    let expected: String = (1..=10).map(|n| format!("out {n}\nerr {n}\n")).collect();
    assert!(out.stdout.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&out.stdout));
    assert_eq!((out.stdout.len(), out.stderr.len()), (expected.len() + 200_000, 0), "{out:?}");
    Ok(())
}

#[test]
fn who_reads_no_more_ends_the_writer() -> Result {
    let workspace = Workspace::start()?;
    let warren = tests::program("warren")?;
    let script = format!("'{}' ssh dev yes | head -n 1; echo \"${{PIPESTATUS[0]}}\"", warren.display());
    let out = finish(workspace.other("bash").args(["-c", &script]), b"")?;
    assert_eq!(String::from_utf8(out.stdout)?, "y\n141\n");
    Ok(())
}

#[test]
fn who_does_not_read_is_waited_for() -> Result {
    let mut workspace = Workspace::start()?;
    let before = workspace.agent().resident_kib()?;
    // A program that reads nothing, and endless data for it.
    let told = workspace.path("told");
    let deaf =
        format!("trap 'echo told > {}; exit 9' TERM; echo here; while :; do sleep 0.1; done", told.display());
    let mut full = workspace.native(&["dev", &deaf])?;
    let mut full = Ends(full.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    full.0.stdout.as_mut().ok_or("no output")?.read_exact(&mut [0; 5])?;
    let mut into = full.0.stdin.take().ok_or("no input")?;
    let taken = Arc::new(AtomicUsize::new(0));
    std::thread::spawn({
        let taken = taken.clone();
        move || {
            while into.write_all(&[0; 64 << 10]).is_ok() {
                taken.fetch_add(64 << 10, Ordering::Relaxed);
            }
        }
    });
    let rests = |what: &str, now: &dyn Fn() -> usize| {
        let mut last = 0;
        wait(what, || {
            std::thread::sleep(Duration::from_millis(500));
            let same = now() == last && last > 0;
            last = now();
            same.then_some(())
        })?;
        assert!(last < 32 << 20, "{what}: {last} bytes were taken for nobody");
        Result::Ok(())
    };
    rests("a sender at rest", &|| taken.load(Ordering::Relaxed))?;
    // A program that writes endlessly, for nobody who reads.
    let count = workspace.path("count");
    let mut unread = workspace.native(&["dev", &format!("yes | tee {}", count.display())])?;
    let unread = Ends(unread.stdout(Stdio::piped()).spawn()?);
    rests("a writer at rest", &|| std::fs::metadata(&count).map_or(0, |file| file.len() as usize))?;
    let grown = workspace.agent().resident_kib()?.saturating_sub(before);
    assert!(grown < GROWTH, "the agent has grown by {grown} KiB");
    for client in [&full, &unread] {
        let peak = most_resident(client.0.id())?;
        assert!(peak < GROWTH, "a client has {peak} KiB");
    }
    // What is said beside the input does not wait behind it.
    signal(full.0.id(), "TERM");
    wait("the signal", || told.exists().then_some(()))?;
    assert_eq!(wait("the end", || full.0.try_wait().ok().flatten())?.code(), Some(9));
    Ok(())
}

#[test]
fn signals_go_to_the_program_and_its_end_comes_back() -> Result {
    let workspace = Workspace::start()?;
    let begun = |script: &str| -> Result<Ends> {
        let mut ssh = workspace.native(&["dev", script])?;
        let mut ssh = Ends(ssh.stdout(Stdio::piped()).spawn()?);
        ssh.0.stdout.as_mut().ok_or("no output")?.read_exact(&mut [0; 3])?;
        Ok(ssh)
    };
    let ended = |mut ssh: Ends| Result::Ok(wait("the end", || ssh.0.try_wait().ok().flatten())?.code());
    for (name, status) in [("TERM", 143), ("HUP", 129), ("INT", 130), ("QUIT", 131)] {
        let ssh = begun("echo up; exec sleep 60")?;
        signal(ssh.0.id(), name);
        assert_eq!(ended(ssh)?, Some(status), "{name}");
    }
    // Interrupted once a program may go on, twice it is left; and it is hung up then.
    let gone = workspace.path("gone");
    let script = format!(
        "exec 2>/dev/null; trap '' INT; trap 'echo > {}; exit' HUP; echo up; while :; do sleep 0.1; done",
        gone.display()
    );
    let ssh = begun(&script)?;
    signal(ssh.0.id(), "INT");
    std::thread::sleep(Duration::from_millis(200));
    signal(ssh.0.id(), "INT");
    assert_eq!(ended(ssh)?, Some(130));
    wait("its last word", || gone.exists().then_some(()))?;
    // One that will not end is left after a while.
    let ssh = begun("trap '' TERM; echo up; while :; do sleep 0.1; done")?;
    let began = Instant::now();
    signal(ssh.0.id(), "TERM");
    assert_eq!(ended(ssh)?, Some(143));
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn a_program_ends_with_its_visitor() -> Result {
    let workspace = Workspace::start()?;
    let (ready, gone) = (workspace.path("ready"), workspace.path("gone"));
    let script = format!(
        "exec 2>/dev/null; trap 'echo hung up > {}; exit' HUP; echo > {}; while :; do sleep 0.1; done",
        gone.display(),
        ready.display()
    );
    let mut ssh = Ends(workspace.native(&["dev", &script])?.spawn()?);
    wait("the program", || ready.exists().then_some(()))?;
    signal(ssh.0.id(), "KILL");
    ssh.0.wait()?;
    wait("its last word", || std::fs::read_to_string(&gone).ok().filter(|said| said == "hung up\n"))?;
    Ok(())
}

#[test]
fn the_end_of_input_reaches_a_program_that_goes_on() -> Result {
    let workspace = Workspace::start()?;
    let mut command = workspace.native(&["dev", "wc -c; sleep 0.2; echo later"])?;
    let mut ssh = Ends(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let mut stdin = ssh.0.stdin.take().ok_or("no input")?;
    stdin.write_all(b"12345")?;
    drop(stdin);
    let mut said = String::new();
    ssh.0.stdout.take().ok_or("no output")?.read_to_string(&mut said)?;
    assert_eq!(said, "5\nlater\n");
    // One that ends while its input does not is not waited for.
    let mut command = workspace.native(&["dev", "true"])?;
    let mut ssh = Ends(command.stdin(Stdio::piped()).spawn()?);
    let held = ssh.0.stdin.take();
    assert_eq!(wait("the end", || ssh.0.try_wait().ok().flatten())?.code(), Some(0));
    drop(held);
    Ok(())
}

#[test]
fn a_session_finds_itself_at_home() -> Result {
    let workspace = Workspace::start_with(&[("FROM_THE_IMAGE", "yes")])?;
    let mut command =
        workspace.native(&["dev", "pwd; echo $HOME; echo $FROM_THE_IMAGE $LC_X $LANG $SECRET; env"])?;
    command.envs([("LC_X", "x"), ("LANG", "C.UTF-8"), ("SECRET", "s")]);
    let out = finish(&mut command, b"")?;
    let said = String::from_utf8(out.stdout)?;
    let [folder, home, mine, env @ ..] = &said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert_eq!((folder, *mine), (home, "yes x C.UTF-8"));
    assert!(!env.iter().any(|line| line.starts_with("WARREN_AGENT_TOKEN")), "{said}");
    assert!(env.iter().any(|line| line.starts_with("SSH_CONNECTION=fd77:6172:7265:")), "{said}");
    Ok(())
}

#[test]
fn the_keys_of_the_visitor_are_within_reach() -> Result {
    let workspace = Workspace::start()?;
    let socket = workspace.path("agent.socket");
    let mut agent = Command::new("ssh-agent");
    let _agent = Ends(agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn()?);
    wait("the agent", || socket.exists().then_some(()))?;
    let key = workspace.path("id");
    let made = ["-q", "-t", "ed25519", "-N", "", "-C", "of alice", "-f"];
    assert!(Command::new("ssh-keygen").args(made).arg(&key).status()?.success());
    assert!(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).status()?.success());
    let script = "ssh-add -l; dirname $SSH_AUTH_SOCK; stat -c %a $(dirname $SSH_AUTH_SOCK)";
    let mut ssh = workspace.native(&["-A", "dev", script])?;
    let out = finish(ssh.env("SSH_AUTH_SOCK", &socket), b"")?;
    let said = String::from_utf8(out.stdout)?;
    let [keys, folder, mode] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(keys.contains("of alice"), "{said}");
    assert_eq!(mode, "700");
    wait("the end of the socket", || (!Path::new(folder).exists()).then_some(()))?;
    // Only who asks for it has it, and who has none is told.
    let mut ssh = workspace.native(&["dev", "echo \"<$SSH_AUTH_SOCK>\""])?;
    assert_eq!(finish(ssh.env("SSH_AUTH_SOCK", &socket), b"")?.stdout, b"<>\n");
    let mut ssh = workspace.native(&["-A", "dev", "true"])?;
    let out = finish(ssh.env_remove("SSH_AUTH_SOCK"), b"")?;
    assert!(out.status.success(), "{out:?}");
    insta::assert_snapshot!(String::from_utf8(out.stderr)?, @"warning: no SSH agent is running here: SSH_AUTH_SOCK is not set");
    Ok(())
}

#[test]
fn what_cannot_be_reached_is_said_with_the_status_of_ssh() -> Result {
    let mut workspace = Workspace::start()?;
    let fails = |arguments: &[&str], status: i32| -> Result<String> {
        let out = finish(&mut workspace.native(arguments)?, b"")?;
        assert_eq!(out.status.code(), Some(status), "{arguments:?}: {out:?}");
        assert!(out.stdout.is_empty(), "{out:?}");
        Ok(String::from_utf8(out.stderr)?)
    };
    let file = workspace.path("file");
    std::fs::write(&file, "")?;
    let file = file.to_string_lossy();
    let said = [
        &["dve", "true"][..],
        &["-o", "json", "dve", "true"],
        &["-e", "xyz", "dev", "true"],
        &["--network-info-dir", &file, "dev", "true"],
        &["-o", "json", "--network-info-dir", &file, "dev", "true"],
    ]
    .map(|arguments| fails(arguments, if arguments.contains(&"xyz") { 2 } else { 255 }));
    let said = said.into_iter().collect::<Result<Vec<_>>>()?.join("\n");
    insta::assert_snapshot!("errors", said.replace(&*file, "FILE"));
    workspace.agent().kill()?;
    let deployment = workspace.deployment();
    let offline =
        || deployment.json(&["workspaces", "list"]).ok().filter(|list| list[0]["status"] == "offline");
    wait("the agent's end", offline)?;
    let out = finish(&mut workspace.native(&["dev", "true"])?, b"")?;
    assert_eq!(out.status.code(), Some(255), "{out:?}");
    let said = String::from_utf8(out.stderr)?;
    assert!(said.contains("its agent is not connected") && said.contains("code: AGENT_OFFLINE"), "{said}");
    Ok(())
}

#[test]
fn an_agent_that_is_too_old_is_named_at_once() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    old_agent(&deployment, &token)?;
    let mut said = String::new();
    for arguments in [&["ssh", "dev", "true"][..], &["-o", "json", "ssh", "dev"], &["ssh", "--stdio", "dev"]]
    {
        let out = deployment.warren(arguments)?;
        assert_eq!(out.status.code(), Some(255), "{arguments:?}: {out:?}");
        said.push_str(&String::from_utf8(out.stderr)?);
    }
    insta::assert_snapshot!("too_old", said);
    Ok(())
}

#[test]
fn an_ide_is_told_how_the_connection_is() -> Result {
    let workspace = Workspace::start()?;
    let folder = workspace.path("info/net");
    let folder_text = folder.to_string_lossy().into_owned();
    let read = |process: u32| -> Option<serde_json::Value> {
        serde_json::from_slice(&std::fs::read(folder.join(format!("{process}.json"))).ok()?).ok()
    };
    let flags = ["--network-info-dir", &folder_text, "--network-info-interval", "0.2"];
    let mut native = workspace
        .native(&[&flags[..], &["dev", "while :; do head -c 100000 /dev/zero; sleep 0.01; done"]].concat())?;
    let mut native = Ends(native.stdout(Stdio::null()).spawn()?);
    let id = native.0.id();
    let info =
        wait("the file", || read(id).filter(|info| info["download_bytes_sec"].as_u64() > Some(10_000)))?;
    assert!(info["latency"].as_f64() > Some(0.0) && info["upload_bytes_sec"].is_u64(), "{info}");
    assert_eq!(
        (&info["preferred_derp"], &info["using_coder_connect"]),
        (&"warren".into(), &false.into()),
        "{info}"
    );
    wait("a direct path", || read(id).filter(|info| info["p2p"] == true))?;
    wait("the relay's latency", || read(id).filter(|info| info["derp_latency"]["warren"].is_f64()))?;
    signal(id, "TERM");
    assert_eq!(wait("the end", || native.0.try_wait().ok().flatten())?.code(), Some(143));
    assert_eq!(std::fs::read_dir(&folder)?.count(), 0, "the file is gone");

    // For another client the file has that one's number, and goes when that one goes.
    let warren = tests::program("warren")?;
    let proxy = format!(
        "ProxyCommand={} ssh --stdio --network-info-dir '{folder_text}' --network-info-interval 0.2 dev",
        warren.display()
    );
    let mut ssh = workspace.program("ssh");
    let mut ssh = Ends(ssh.args(["-o", &proxy, "dev", "sleep 60"]).spawn()?);
    wait("the file", || read(ssh.0.id()))?;
    signal(ssh.0.id(), "TERM");
    ssh.0.wait()?;
    wait("the end of the file", || (std::fs::read_dir(&folder).ok()?.count() == 0).then_some(()))?;
    Ok(())
}

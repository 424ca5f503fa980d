//! The tools around a workspace with the real programs: its ports, several servers, versions, what shells and
//! packagers take.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tests::deployment::{Deployment, Place, Running};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn result(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs `warren`, which must end with this status; what it said on standard error, without what differs each time.
fn fails(deployment: &Deployment<'_>, arguments: &[&str], status: i32) -> Result<String> {
    let out = deployment.warren(arguments)?;
    assert_eq!(out.status.code(), Some(status), "{arguments:?}: {}", said(&out));
    assert!(out.stdout.is_empty(), "{arguments:?}: a failure has no result");
    Ok(said(&out).replace(deployment.url(), "URL"))
}

/// A program that listens at these addresses, any free ports, and tells them; it ends with its owner.
fn listening_program(deployment: &Deployment<'_>, hosts: &[&str]) -> Result<(Running, Vec<u16>)> {
    let script = "
import socket, sys, time
for host in sys.argv[1:]:
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.bind((host, 0)); s.listen()
    globals().setdefault('kept', []).append(s)
    print(s.getsockname()[1], flush=True)
time.sleep(600)
";
    let log = deployment.path("listening.log");
    let mut python = Command::new("python3");
    python.args(["-c", script]).args(hosts);
    let mut running = Running::start(python, log.clone())?;
    let ports = running.wait("the listening program", || {
        let text = std::fs::read_to_string(&log).ok()?;
        let ports: Vec<u16> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (ports.len() == hosts.len()).then_some(ports)
    })?;
    Ok((running, ports))
}

#[test]
fn the_ports_of_a_workspace_are_listed_with_the_way_to_them() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let (program, ports) = listening_program(&deployment, &["127.0.0.1", "0.0.0.0", "::1", "127.0.0.9"])?;
    let report = deployment.json(&["ports", "dev"])?;
    let row = |number: u16| {
        let all = report["ports"].as_array().into_iter().flatten();
        all.clone().find(|row| row["port"] == number).cloned().unwrap_or_default()
    };
    for (port, reach) in ports.iter().zip(["loopback", "all_interfaces", "loopback", "loopback"]) {
        let row = row(*port);
        assert_eq!(row["reach"], reach, "{report:#}");
        assert_eq!(row["programs"][0]["pid"], program.id(), "{report:#}");
        assert!(row["programs"][0]["name"].as_str().unwrap_or_default().starts_with("python"), "{report:#}");
        assert_eq!(row["command"], format!("warren port-forward dev --tcp {port}"), "{report:#}");
    }
    assert!(report["path"].is_string(), "{report:#}");
    let agents = report["ports"].as_array().into_iter().flatten().flat_map(|row| row["programs"].as_array());
    assert!(agents.flatten().all(|program| program["pid"] != agent.id()), "{report:#}");

    let table = deployment.warren(&["ports", "dev"])?;
    let table = result(&table);
    let line = table.lines().find(|line| line.starts_with(&ports[1].to_string())).unwrap_or_default();
    let words: Vec<&str> = line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(words[1], "all interfaces", "{table}");
    assert_eq!(words[3], format!("warren port-forward dev --tcp {}", ports[1]), "{table}");

    drop(program);
    let report = deployment.json(&["ports", "dev"])?;
    let left = report["ports"].as_array().into_iter().flatten().filter(|row| row["port"] == ports[0]).count();
    assert_eq!(left, 0, "the program is gone: {report:#}");
    Ok(())
}

#[test]
fn ports_that_cannot_be_told_are_a_sentence() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    deployment.create_workspace("dev")?;
    insta::assert_snapshot!(fails(&deployment, &["ports", "dev"], 5)?, @r#"
    error: can't reach workspace "dev": its agent is not connected

      last seen  never

    hint: start the agent in the workspace; the command was printed by `warren workspaces create`
    code: AGENT_OFFLINE
    "#);
    insta::assert_snapshot!(fails(&deployment, &["ports", "dve", "-o", "json"], 4)?, @r#"{"error":{"code":"WORKSPACE_NOT_FOUND","hint":"did you mean \"dev\"?","message":"there is no workspace \"dve\""}}"#);
    Ok(())
}

#[test]
fn a_result_that_cannot_be_written_is_no_success() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let full = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = deployment.command()?;
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
        let out = command.args(arguments).stdin(Stdio::null()).stdout(full).output()?;
        Ok((out.status.code(), said(&out)))
    };
    let (status, text) = full(&["status"])?;
    assert_eq!(status, Some(1), "{text}");
    insta::assert_snapshot!(text, @"
    error: can't write standard output: No space left on device (os error 28)
    hint: make room where it goes, or send it elsewhere
    code: OUTPUT_UNWRITABLE
    ");
    let (status, text) = full(&["status", "-o", "json"])?;
    let error: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!((status, error["error"]["code"].as_str()), (Some(1), Some("OUTPUT_UNWRITABLE")), "{text}");
    // Its own status would say that all is well; what it writes to nobody at all is its own matter.
    let (status, text) = full(&["ssh", "dev", "echo", "lost"])?;
    assert_eq!(status, Some(255), "{text}");
    assert!(text.starts_with("error: can't write standard output: No space"), "{text}");
    let (status, text) = full(&["ssh", "dev", "exit", "7"])?;
    assert_eq!((status, text.as_str()), (Some(7), ""));

    // A disk without room, for a bundle of some kilobytes.
    let mut command = Command::new("bash");
    command.arg("-c").arg(r#"trap "" XFSZ; ulimit -f 1; exec "$0" "$@""#).arg(tests::program("warren")?);
    command.arg("--config-dir").arg(deployment.path("config")).arg("support-bundle").arg("--output-file");
    let file = deployment.path("bundle.zip");
    let out = command.arg(&file).output()?;
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let said = said(&out).replace(&file.display().to_string(), "FILE");
    insta::assert_snapshot!(said, @"
    error: can't write FILE: File too large (os error 27)
    hint: name a file that you may write with --output-file
    code: BUNDLE_UNWRITABLE
    ");
    assert!(!file.exists(), "a part of a bundle is none");
    Ok(())
}

#[test]
fn completion_scripts_load_and_complete() -> Result {
    let warren = tests::program("warren")?;
    let script = |shell: &str| -> Result<String> {
        let out = Command::new(&warren).args(["completion", shell]).output()?;
        assert!(out.status.success(), "{}", said(&out));
        Ok(result(&out))
    };
    let folder = tempfile::tempdir()?;
    let run = |shell: &str, arguments: &[&str], script: &str| -> Result<String> {
        let mut command = Command::new(shell);
        command.args(arguments).arg(script).env("HOME", folder.path()).stdin(Stdio::null());
        let out = command.output()?;
        assert!(out.status.success(), "{shell}: {}", said(&out));
        assert_eq!(said(&out), "", "{shell} complains");
        Ok(result(&out))
    };
    let file = |shell: &str| -> Result<String> {
        let path = folder.path().join(format!("_warren.{shell}"));
        std::fs::write(&path, script(shell)?)?;
        Ok(path.display().to_string())
    };
    let bash = format!(
        "source {}; COMP_WORDS=(warren spe); COMP_CWORD=1; _warren warren spe warren; echo ${{COMPREPLY[@]}}",
        file("bash")?
    );
    assert_eq!(run("bash", &["--norc", "-c"], &bash)?.trim(), "speedtest");
    let zsh = format!("autoload -Uz compinit; compinit -u; source {}; print $_comps[warren]", file("zsh")?);
    assert_eq!(run("zsh", &["-f", "-c"], &zsh)?.trim(), "_warren");
    let fish = format!("source {}; complete -C 'warren spe'", file("fish")?);
    assert!(run("fish", &["--no-config", "-c"], &fish)?.starts_with("speedtest"));
    Ok(())
}

#[test]
fn man_pages_of_every_program_are_whole() -> Result {
    let folder = tempfile::tempdir()?;
    let man = folder.path().join("man1");
    for program in ["warren", "warren-server", "warren-agent", "warren-relay"] {
        let out = Command::new(tests::program(program)?).arg("--man-pages").arg(&man).output()?;
        assert!(out.status.success() && out.stdout.is_empty(), "{program}: {}", said(&out));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&man)? {
        let path = entry?.path();
        let out = Command::new("man")
            .args(["--warnings", "--encoding=UTF-8", "--local-file"])
            .arg(&path)
            .env("MANWIDTH", "100")
            .output()?;
        assert!(out.status.success(), "{}: {}", path.display(), said(&out));
        assert_eq!(said(&out), "", "{}", path.display());
        names.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    names.sort();
    for name in ["warren.1", "warren-ports.1", "warren-port-forward.1", "warren-server.1", "warren-agent.1"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    Ok(())
}

/// A front before the server by which everything has another version; its address.
fn other_version(deployment: &Deployment<'_>, version: &'static str) -> Result<String> {
    let (ours, listener) = (env!("CARGO_PKG_VERSION"), TcpListener::bind("127.0.0.1:0")?);
    assert_eq!(ours.len(), version.len(), "answers keep their lengths");
    let address = listener.local_addr()?;
    let server = deployment.url().trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut to = TcpStream::connect(&server)?;
            let (mut from, mut back) = (to.try_clone()?, client.try_clone()?);
            std::thread::spawn(move || std::io::copy(&mut client, &mut to));
            std::thread::spawn(move || {
                let mut some = [0; 65_536];
                loop {
                    let n = from.read(&mut some)?;
                    if n == 0 {
                        return back.shutdown(std::net::Shutdown::Write);
                    }
                    // What is no text passes as it is.
                    match std::str::from_utf8(&some[..n]) {
                        Ok(text) => back.write_all(text.replace(ours, version).as_bytes())?,
                        Err(_) => back.write_all(&some[..n])?,
                    }
                }
            });
        }
        std::io::Result::Ok(())
    });
    Ok(format!("http://{address}"))
}

#[test]
fn versions_that_differ_are_told_and_never_break_a_pipe() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let ours = env!("CARGO_PKG_VERSION");
    let same = deployment.warren(&["version", "dev"])?;
    let told = result(&same).replace(deployment.url(), "URL").replace(ours, "OURS");
    insta::assert_snapshot!(told + &said(&same), @r"
    warren OURS
    warren-server OURS at URL
    warren-agent OURS in dev
    ");

    let session = std::fs::read_to_string(deployment.path("config/session.json"))?;
    let through = |version| -> Result {
        let front = other_version(&deployment, version)?;
        Ok(std::fs::write(deployment.path("config/session.json"), session.replace(deployment.url(), &front))?)
    };
    through("0.2.0")?;
    let near = deployment.warren(&["version", "dev"])?;
    insta::assert_snapshot!(said(&near).replace(ours, "OURS"), @r"
    warning: the server has version 0.2.0, newer than this program's OURS: they work together, without what only the newer one can do; install warren 0.2.0
    warning: the agent of dev has version 0.2.0, newer than this program's OURS: they work together, without what only the newer one can do; install warren 0.2.0
    ");
    let list = deployment.warren(&["workspaces", "list"])?;
    assert_eq!(said(&list), "", "so near, nobody need be told at each command");
    through("0.9.0")?;
    let list = deployment.warren(&["status"])?;
    assert!(list.status.success(), "{}", said(&list));
    insta::assert_snapshot!(said(&list).replace(ours, "OURS"), @"warning: the server has version 0.9.0, newer than this program's OURS: they may not understand each other; install warren 0.9.0");
    let json = deployment.command()?.args(["version", "-o", "json"]).output()?;
    let report: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(report["server_version"], "0.9.0", "{report:#}");
    assert!(report["warnings"][0].as_str().unwrap_or_default().contains("newer"), "{report:#}");
    let json = deployment.command()?.args(["status", "-o", "json"]).output()?;
    let _: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    insta::assert_snapshot!(said(&json).replace(ours, "OURS"), @r#"{"warning":{"code":"VERSION_SKEW","message":"the server has version 0.9.0, newer than this program's OURS: they may not understand each other; install warren 0.9.0"}}"#);
    // Nobody reads what it says, and its result is whole.
    let mut closed = deployment.command()?;
    let mut child =
        closed.args(["workspaces", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(child.stderr.take());
    let out = child.wait_with_output()?;
    assert!(out.status.success() && result(&out).contains("dev"), "{out:?}");
    Ok(())
}

#[test]
fn several_servers_are_chosen_among() -> Result {
    let (home, work) = (Deployment::start(Place::Here, &[])?, Deployment::start(Place::Here, &[])?);
    home.create_workspace("garden")?;
    work.create_workspace("office")?;
    // The file is as earlier versions leave it: one server.
    let config = home.path("config/session.json");
    let one: serde_json::Value = serde_json::from_slice(&std::fs::read(&config)?)?;
    assert!(one.get("others").is_none() && one["url"] == home.url(), "{:?}", one.get("others"));

    let token: serde_json::Value = serde_json::from_slice(&std::fs::read(work.path("config/session.json"))?)?;
    let token_file = home.path("token.txt");
    std::fs::write(&token_file, format!("{}\n", token["token"].as_str().unwrap_or_default()))?;
    let clean = |text: String| {
        let hosts = [home.url(), work.url()].map(|url| url.trim_start_matches("http://").to_owned());
        text.replace(&hosts[0], "HOME").replace(&hosts[1], "WORK")
    };
    let mut login = home.command()?;
    login.args(["login", work.url(), "--name", "work", "--token-file"]).arg(&token_file);
    let out = login.output()?;
    assert!(out.status.success(), "{}", said(&out));
    insta::assert_snapshot!(clean(said(&out)), @r"
    logged in to http://WORK as alice
    it is the server in use now; `warren context list` shows all
    ");
    let listed = home.warren(&["context", "list"])?;
    insta::assert_snapshot!(squeezed(&clean(result(&listed))), @r"
    IN USE  NAME  SERVER  USER
    HOME  http://HOME  alice
    *  work  http://WORK  alice
    ");
    let names = |arguments: &[&str]| -> Result<String> {
        let list = home.json(&[&["workspaces", "list"], arguments].concat())?;
        Ok(list[0]["name"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(names(&[])?, "office", "the latest login is in use");
    assert_eq!(names(&["--server", home.url()])?, "garden");
    let by_variable =
        home.command()?.env("WARREN_SERVER", home.url()).args(["workspaces", "list"]).output()?;
    assert!(result(&by_variable).contains("garden"), "{}", said(&by_variable));
    let out = home.warren(&["context", "use", home.url()])?;
    insta::assert_snapshot!(clean(said(&out)), @"uses HOME (http://HOME) from now on");
    assert_eq!(names(&[])?, "garden");
    assert_eq!(names(&["--server", "work"])?, "office");
    insta::assert_snapshot!(clean(fails(&home, &["workspaces", "list", "--server", "wrok"], 4)?), @r#"
    error: you are not logged in to a server called "wrok"

      servers  HOME, work

    hint: `warren context list` shows them; `warren login URL` adds one
    code: SERVER_UNKNOWN
    "#);

    assert_eq!(home.json(&["workspaces", "delete", "garden"])?["deleted"], "garden");
    let used = home.json(&["context", "use", "work"])?;
    assert_eq!((&used["name"], &used["url"]), (&"work".into(), &work.url().into()));
    assert_eq!(home.json(&["context", "use", home.url()])?["url"], home.url());
    let out = home.warren(&["context", "remove", "work"])?;
    insta::assert_snapshot!(clean(said(&out)), @"logged out of http://WORK");
    let gone = work.warren(&["workspaces", "list"])?;
    assert_eq!(gone.status.code(), Some(3), "the token was ended at the server: {}", said(&gone));
    assert_eq!(home.json(&["workspaces", "list"])?.as_array().map(Vec::len), Some(0));
    let out = home.json(&["logout"])?;
    assert_eq!((&out["url"], &out["server_told"]), (&home.url().into(), &true.into()));
    insta::assert_snapshot!(clean(fails(&home, &["workspaces", "list"], 3)?), @r"
    error: you are not logged in
    hint: run `warren login URL` with your server's address
    code: NOT_LOGGED_IN
    ");
    Ok(())
}

/// Runs of spaces as two: what stands in columns whose width differs each time.
fn squeezed(text: &str) -> String {
    let line =
        |line: &str| line.split("  ").filter(|w| !w.is_empty()).map(str::trim).collect::<Vec<_>>().join("  ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn tokens_come_from_files_variables_and_pipes() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let session: serde_json::Value =
        serde_json::from_slice(&std::fs::read(deployment.path("config/session.json"))?)?;
    let token = session["token"].as_str().unwrap_or_default();
    let login = |name: &str| -> Result<Command> {
        let mut login = deployment.command()?;
        login.env("WARREN_CONFIG_DIR", deployment.path(name)).args(["login", deployment.url()]);
        Ok(login)
    };
    let file = deployment.path("token");
    std::fs::write(&file, token)?;
    let mut piped = login("piped")?;
    let mut child = piped.arg("--token-stdin").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    writeln!(child.stdin.take().ok_or("no stdin")?, "{token}")?;
    let outs = [
        login("variable")?.env("WARREN_TOKEN", token).output()?,
        login("file-variable")?.env("WARREN_TOKEN_FILE", &file).output()?,
        child.wait_with_output()?,
    ];
    for out in outs {
        assert!(said(&out).contains("as alice"), "{}", said(&out));
        assert!(!said(&out).contains(token));
    }
    std::fs::write(&file, "two words")?;
    let out = login("bad")?.arg("--token-file").arg(&file).output()?;
    insta::assert_snapshot!(said(&out), @r"
    error: the token is empty or has characters that no token has
    code: BAD_TOKEN
    ");
    let out = login("bad")?.args(["--token-file", "/nowhere/token"]).output()?;
    insta::assert_snapshot!(said(&out), @r"
    error: can't read the token in /nowhere/token: No such file or directory (os error 2)
    hint: check the path and its permissions
    code: TOKEN_FILE_UNREADABLE
    ");
    let (start, end) = token.split_at(token.len() - 1);
    let other = if end == "0" { "1" } else { "0" };
    let out = login("bad")?.env("WARREN_TOKEN", format!("{start}{other}")).output()?;
    assert_eq!(out.status.code(), Some(3), "{}", said(&out));
    assert!(!Path::new(&deployment.path("bad/session.json")).exists(), "nothing is kept of a failed login");
    Ok(())
}

#[test]
fn the_page_of_a_workspace_opens_in_the_browser() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    deployment.create_workspace("dev")?;
    let browser = deployment.path("browser");
    let seen = deployment.path("seen");
    std::fs::write(&browser, format!("#!/bin/sh\nprintf %s \"$1\" > {}\n", seen.display()))?;
    std::fs::set_permissions(&browser, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let open = |arguments: &[&str], browser: &Path| -> Result<Output> {
        let mut open = deployment.command()?;
        open.arg("open").args(arguments).env("BROWSER", browser).env_remove("DISPLAY");
        Ok(open.output()?)
    };
    let out = open(&["dev"], &browser)?;
    let page = format!("{}/workspaces/alice/dev", deployment.url());
    assert_eq!((result(&out).trim(), said(&out).as_str()), (page.as_str(), ""));
    assert_eq!(std::fs::read_to_string(&seen)?, page);
    std::fs::remove_file(&seen)?;
    let out = open(&["--no-browser"], &browser)?;
    assert_eq!(result(&out).trim(), format!("{}/", deployment.url()));
    assert!(!seen.exists(), "nothing was to be opened");
    let out = open(&["-o", "json"], Path::new(""))?;
    let report: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    assert_eq!(report["opened"], false, "there is neither browser nor display: {report:#}");
    let out = open(&[], Path::new("/bin/false"))?;
    assert!(out.status.success(), "the address was told all the same");
    insta::assert_snapshot!(said(&out), @"warning: no browser could be opened: /bin/false ended with exit status: 1");
    insta::assert_snapshot!(fails(&deployment, &["open", "dve"], 4)?, @r#"
    error: there is no workspace "dve"
    hint: did you mean "dev"?
    code: WORKSPACE_NOT_FOUND
    "#);
    // The page is there.
    let host = deployment.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(host)?;
    write!(stream, "GET /workspaces/alice/dev HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

#[test]
fn help_of_the_tools_reads_well() -> Result {
    for command in ["ports", "completion", "version", "context", "open", "login"] {
        let out = Command::new(tests::program("warren")?).args([command, "--help"]).output()?;
        insta::assert_snapshot!(format!("help_{}", command.replace('-', "_")), result(&out));
    }
    Ok(())
}

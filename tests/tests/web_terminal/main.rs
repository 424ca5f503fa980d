//! Terminals in the browser, by the built programs: what survives, who sees what, and what never harms anybody.

#[allow(dead_code, reason = "the load of `cargo xtask bench terminal` uses the rest")]
mod browser;

use browser::{Browser, PATIENCE, ask, log_in};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tokio::time::timeout;

const SESSION: &str = "0198e5a4-7c1b-7def-8123-456789abcdef";

/// A usual window.
const WINDOW: &str = "&cols=80&rows=24";

/// A server, an agent whose shell is a plain one, and the owner's token.
struct World {
    deployment: Deployment<'static>,
    agent: Running,
    token: String,
}

impl World {
    fn start(server: &[&str], agent: &[&str]) -> Result<Self> {
        let deployment = Deployment::start(Place::Here, server)?;
        let agent_token = deployment.create_workspace("dev")?;
        let mut command = deployment.agent_command("dev", &agent_token)?;
        command.args(agent);
        let agent = deployment.start_agent_by(command, "dev")?;
        let token = log_in(deployment.url())?;
        Ok(Self { deployment, agent, token })
    }

    /// A terminal of this size in `session`.
    async fn open(&self, session: &str, more: &str) -> Result<Browser> {
        let path = format!("/workspaces/me/dev/terminal?session={session}{more}");
        Browser::open(self.deployment.url(), &self.token, &path).await
    }

    /// The same with a plain shell in it that has shown its prompt.
    async fn shell(&self, session: &str) -> Result<Browser> {
        let mut browser = self.open(session, WINDOW).await?;
        browser.word("ready").await?;
        browser.type_in("exec env PS1='%% ' sh -i\r").await?;
        browser.until("\n%% ").await?;
        browser.type_in("echo rea''dy\r").await?;
        browser.until("\nready\n%% ").await?;
        Ok(browser)
    }

    fn sessions(&self) -> Result<Vec<Value>> {
        let (status, list) = self.ask("GET", "/workspaces/me/dev/sessions")?;
        if status != 200 {
            return Err(format!("{status}: {list}"));
        }
        Ok(list["sessions"].as_array().cloned().unwrap_or_default())
    }

    fn ask(&self, method: &str, path: &str) -> Result<(u16, Value)> {
        ask(self.deployment.url(), &self.token, method, path, None)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_screen_survives_a_reload_and_the_servers_death() -> Result {
    let mut world = World::start(&[], &[])?;
    let mut first = world.shell(SESSION).await?;
    // As an editor does it: the alternate screen, colours, wide characters, a mode, and a program that goes on reading.
    first
        .type_in(
            "printf '\\033[?1049h\\033[2J\\033[?1h\\033[5;7H\\033[1;33mF''ULL 日本 SCREEN\\033[m'; read x; ",
        )
        .await?;
    first.type_in("printf '\\033[?1049l'; echo back:$x\r").await?;
    first.until("FULL 日本 SCREEN").await?;
    let seen = |browser: &Browser| {
        let screen = browser.screen.screen();
        (
            screen.rows_formatted(0, 80).collect::<Vec<_>>(),
            screen.cursor_position(),
            screen.application_cursor(),
        )
    };
    let before = seen(&first);
    drop(first);

    let mut second = world.open(SESSION, WINDOW).await?;
    let ready = second.word("ready").await?;
    assert_eq!((ready["created"].as_bool(), ready["session"].as_str()), (Some(false), Some(SESSION)));
    second.until("FULL 日本 SCREEN").await?;
    assert_eq!(seen(&second), before);

    world.deployment.stop_server();
    // Whatever it says, it ends: the browser tries again.
    while timeout(PATIENCE, second.take()).await.map_err(browser::words)?.unwrap_or(false) {}
    world.deployment.start_server(&[])?;
    let began = Instant::now();
    let mut third = loop {
        let mut third = world.open(SESSION, WINDOW).await?;
        if third.word("ready").await.is_ok() {
            break third;
        }
        assert!(began.elapsed() < PATIENCE, "the agent does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    third.until("FULL 日本 SCREEN").await?;
    assert_eq!(seen(&third), before);
    third.type_in("on\r").await?;
    third.until("back:on").await?;
    assert!(!third.screen.screen().alternate_screen());
    assert!(third.screen.screen().contents().contains("ready"), "the shell's own screen is there again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn several_see_one_terminal_and_those_who_watch_do_not_type() -> Result {
    let world = World::start(&[], &[])?;
    let mut writer = world.shell(SESSION).await?;
    let mut watcher = world.open(SESSION, "&mode=watch&cols=40&rows=10").await?;
    let ready = watcher.word("ready").await?;
    assert_eq!((ready["cols"].as_u64(), ready["viewers"].as_u64()), (Some(80), Some(2)), "{ready}");
    assert_eq!(writer.word("viewers").await?, 2);
    watcher.type_in("echo never\r").await?;
    watcher.say(json!({ "resize": { "cols": 30, "rows": 9 } })).await?;
    writer.type_in("echo al''ways\r").await?;
    writer.until("\nalways").await?;
    watcher.until("\nalways").await?;
    assert!(!writer.screen.screen().contents().contains("never"));

    // Whoever types has the terminal in the size of their window, and everybody is told.
    let mut other = world.open(SESSION, WINDOW).await?;
    other.word("ready").await?;
    other.say(json!({ "resize": { "cols": 50, "rows": 12 } })).await?;
    assert_eq!(watcher.word("size").await?, json!({ "cols": 50, "rows": 12 }));
    other.type_in("stty size\r").await?;
    other.until("\n12 50").await?;
    let [session] = &world.sessions()?[..] else { return Err("there is not one session".into()) };
    assert_eq!((session["viewers"].as_u64(), session["cols"].as_u64()), (Some(3), Some(50)), "{session}");
    drop(other);
    assert_eq!(watcher.word("size").await?, json!({ "cols": 80, "rows": 24 }), "who is left decides");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_that_nobody_shows_stops_and_harms_nobody() -> Result {
    let world = World::start(&[], &[])?;
    let mut flood = world.shell(SESSION).await?;
    let mut other = world.shell("0198e5a4-7c1b-7def-8123-000000000002").await?;
    let server = world.deployment.server().ok_or("no server")?;
    let before = server.resident_kib()?;
    // The browser takes what comes, and says that it has shown nothing of it.
    flood.acks = false;
    let came = flood.bytes;
    flood.type_in("yes 0123456789012345678901234567890123456789012345678901234567890123456789\r").await?;
    flood.watch_for(Duration::from_secs(2)).await?;
    let held = flood.bytes - came;
    assert!((100_000..=300_000).contains(&held), "{held} bytes came unasked");
    other.type_in("echo o''ther\r").await?;
    other.until("\nother").await?;

    // Now it shows all, as fast as it can.
    flood.acks = true;
    let (came, began) = (flood.bytes, Instant::now());
    flood.say(json!({ "ack": came })).await?;
    flood.watch_for(Duration::from_secs(3)).await?;
    let rate = (flood.bytes - came) as f64 / began.elapsed().as_secs_f64() / 1e6;
    assert!(rate > 1.0, "{rate} MB/s");
    let grown = server.resident_kib()?.saturating_sub(before);
    assert!(grown < 32 << 10, "the server has grown by {grown} KiB");

    // Ctrl-C is seen to work before another megabyte has passed.
    let came = flood.bytes;
    flood.type_in("\x03").await?;
    flood.type_in("echo stop''ped\r").await?;
    flood.until("stopped").await?;
    let late = flood.bytes - came;
    assert!(late < 1 << 20, "{late} bytes came after Ctrl-C");

    // One that was left alone goes on writing; the agent bears that, too.
    flood.type_in("yes\r").await?;
    drop(flood);
    other.type_in("sleep 1; echo qui''et\r").await?;
    other.until("\nquiet").await?;
    let agent = world.agent.resident_kib()?;
    assert!(agent < 128 << 10, "the agent has {agent} KiB");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_with_their_program_when_asked_and_when_forgotten() -> Result {
    let world = World::start(&[], &["--terminal-idle-limit", "2"])?;
    let mut browser = world.shell(SESSION).await?;
    let (status, answer) = world.ask("GET", "/workspaces/me/dev/ports")?;
    assert_eq!(status, 200, "{answer}");
    browser.type_in("exit 7\r").await?;
    assert_eq!(browser.word("exit").await?, json!({ "status": 7 }));
    // Whoever comes late is shown the last screen, and how it ended.
    let mut late = world.open(SESSION, WINDOW).await?;
    assert_eq!(late.word("ready").await?["ended"], true);
    assert_eq!(late.word("exit").await?["status"], 7);
    assert!(late.screen.screen().contents().contains("ready"));
    let mut nobody = world.open("0198e5a4-7c1b-7def-8123-000000000009", "&mode=watch").await?;
    assert_eq!(nobody.word("problem").await?["code"], "NO_SESSION");

    let asked = "0198e5a4-7c1b-7def-8123-000000000002";
    let mut browser = world.shell(asked).await?;
    browser.type_in("trap '' HUP; echo stub''born; while :; do sleep 1; done\r").await?;
    browser.until("\nstubborn").await?;
    let path = format!("/workspaces/me/dev/sessions/{asked}");
    assert_eq!(world.ask("DELETE", &path)?.0, 204);
    assert_eq!(browser.word("exit").await?, json!({ "status": 137, "signal": "KILL" }));
    assert_eq!(world.ask("DELETE", &path)?.1["code"], "SESSION_NOT_FOUND");
    let noted = world.ask("GET", "/audit?limit=1")?.1["entries"][0].clone();
    assert_eq!(
        (&noted["action"], &noted["target"]),
        (&json!("terminal.end"), &json!("alice/dev")),
        "{noted}"
    );

    let forgotten = "0198e5a4-7c1b-7def-8123-000000000003";
    drop(world.shell(forgotten).await?);
    let began = Instant::now();
    while world.sessions()?.iter().any(|s| s["id"] == forgotten && s["ended"] == false) {
        assert!(began.elapsed() < PATIENCE, "it has not ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_are_their_owners_and_end_with_the_login() -> Result {
    let world = World::start(&[], &[])?;
    let server = world.deployment.url();
    let who = json!({ "username": "root", "password": "battery staple", "role": "admin" });
    let (status, answer) = ask(server, &world.token, "POST", "/users", Some(who.clone()))?;
    assert_eq!(status, 201, "{answer}");
    let (_, login) = ask(server, "", "POST", "/login", Some(who))?;
    let admin = login["token"].as_str().ok_or("no token")?;
    for (method, what) in
        [("GET", "ports"), ("GET", "sessions"), ("GET", "terminal"), ("DELETE", "sessions/a")]
    {
        let path = format!("/workspaces/alice/dev/{what}");
        let (status, answer) = ask(server, admin, method, &path, None)?;
        assert_eq!((status, answer["code"].as_str()), (403, Some("WORKSPACE_FOREIGN")), "{path}");
        assert_eq!(ask(server, "", method, &path, None)?.0, 401, "{path}");
    }
    let (status, answer) = world.ask("GET", "/workspaces/me/dev/terminal?session=..")?;
    assert_eq!((status, answer["code"].as_str()), (422, Some("FIELD_INVALID")));

    let mut browser = world.shell(SESSION).await?;
    let (_, audit) = world.ask("GET", "/audit?limit=1")?;
    let entry = &audit["entries"][0];
    assert_eq!(
        (&entry["action"], &entry["target"]),
        (&json!("terminal.open"), &json!("alice/dev")),
        "{audit}"
    );
    assert_eq!(entry["detail"], format!("session {SESSION}"));
    let left = Instant::now();
    assert_eq!(ask(server, &world.token, "POST", "/logout", Some(json!({})))?.0, 204);
    assert_eq!(browser.word("problem").await?["code"], "TOKEN_UNKNOWN");
    // It would be looked again every 15 s anyway.
    assert!(left.elapsed() < Duration::from_secs(10), "{:?}", left.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sites_page_opens_no_terminal_with_a_visitors_cookie() -> Result {
    let world = World::start(&[], &[])?;
    let server = world.deployment.url();
    let body = json!({ "username": "alice", "password": "correct horse battery staple", "cookie": true });
    let body = body.to_string();
    let login = browser::head(
        server,
        &format!(
            "POST /api/v1/login HTTP/1.1\r\nHost: warren\r\nOrigin: {server}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )?;
    let cookie = login.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("set-cookie").then(|| value.split(';').next().unwrap_or_default())
    });
    let cookie = cookie.ok_or_else(|| format!("no cookie: {login}"))?;
    let status = |origin: &str| {
        let request = format!(
            "GET /api/v1/workspaces/me/dev/terminal HTTP/1.1\r\nHost: warren\r\nCookie: {cookie}\r\n{origin}\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let head = browser::head(server, &request)?;
        Ok::<_, String>(head.split(' ').nth(1).unwrap_or_default().to_owned())
    };
    assert_eq!(status(&format!("Origin: {server}\r\n"))?, "101");
    assert_eq!(status("Origin: https://evil.example\r\n")?, "403");
    assert_eq!(status("Origin: null\r\n")?, "403");
    assert_eq!(status(&format!("Origin: {server}\r\nSec-Fetch-Site: cross-site\r\n"))?, "403");
    assert_eq!(status("")?, "403");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_browsers_get_in_command_lines_are_refused_and_sent_away() -> Result {
    let mut world = World::start(&[], &[])?;
    let mut ssh = world.deployment.command()?;
    ssh.args(["ssh", "dev", "--", "echo in; exec sleep 1000"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut ssh = ssh.spawn().map_err(browser::words)?;
    let mut said = [0; 3];
    let out = ssh.stdout.as_mut().ok_or("no output")?;
    std::io::Read::read_exact(out, &mut said).map_err(browser::words)?;
    assert_eq!(&said, b"in\n");

    world.deployment.stop_server();
    world.deployment.start_server(&["--browser-only"])?;
    let began = Instant::now();
    while ssh.try_wait().map_err(browser::words)?.is_none() {
        assert!(began.elapsed() < PATIENCE, "the tunnel goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = world.deployment.warren(&["ssh", "dev", "--", "true"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    insta::assert_snapshot!(format!("exit {:?}\n{said}", refused.status.code()));
    let mut browser = world.shell(SESSION).await?;
    browser.type_in("echo st''ill\r").await?;
    browser.until("\nstill").await
}

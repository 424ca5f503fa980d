//! Web apps, by the built programs: who gets to them, what passes, and what never does.

mod app;
mod grpc;
mod http2;
mod upstream;
mod visitor;

use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use visitor::{Answer, VISIT, Visitor, host_of, origin_of};

/// For something that takes milliseconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// The deployment's owner's.
const PASSWORD: &str = "correct horse battery staple";
/// Everybody else's.
const OTHER_PASSWORD: &str = "battery staple horse";
/// Every name under `localhost` is this host (RFC 6761, section 6.3).
const WILDCARD: [&str; 2] = ["--wildcard-access-url", "*.apps.localhost"];

/// An error in words.
pub(crate) fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A server, an agent, an app beside it, and its owner's browser.
struct World {
    deployment: Deployment<'static>,
    _agent: Running,
    port: u16,
    alice: Visitor,
}

impl World {
    async fn start(server: &[&str]) -> Result<Self> {
        let deployment = Deployment::start(Place::Here, server)?;
        let token = deployment.create_workspace("dev")?;
        let agent = deployment.start_agent("dev", &token)?;
        let port = app::start(None).await?.port();
        let alice = Visitor::logged_in(deployment.url(), "alice", PASSWORD).await?;
        Ok(Self { deployment, _agent: agent, port, alice })
    }

    /// Asks the API as somebody.
    async fn api(&self, who: &mut Visitor, method: &str, path: &str, body: Value) -> Result<Answer> {
        let server = self.deployment.url();
        let headers = [("content-type", "application/json"), ("origin", server)];
        who.send(method, &format!("{server}/api/v1{path}"), &headers, body.to_string()).await
    }

    /// Makes the app "notes", or changes it; where it is.
    async fn share(&mut self, sharing: &str, cors: &[&str]) -> Result<String> {
        let (port, mut alice) = (self.port, self.alice.clone());
        let app = json!({ "name": "Notes", "port": port, "sharing": sharing, "cors": cors });
        let answer = self.api(&mut alice, "PUT", "/workspaces/me/dev/apps/notes", app).await?;
        let json = answer.json();
        json["url"].as_str().filter(|_| answer.status == 200).map(str::to_owned).ok_or(format!("{answer:?}"))
    }

    /// Another person, logged in.
    async fn person(&mut self, name: &str) -> Result<Visitor> {
        let who = json!({ "username": name, "password": OTHER_PASSWORD });
        let mut alice = self.alice.clone();
        let made = self.api(&mut alice, "POST", "/users", who).await?;
        if made.status != 201 {
            return Err(format!("{made:?}"));
        }
        Visitor::logged_in(self.deployment.url(), name, OTHER_PASSWORD).await
    }
}

fn code(answer: &Answer) -> String {
    answer.json()["code"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_on_a_path_is_met_by_whom_it_is_shared_with_and_sees_nothing_of_warrens() -> Result {
    let mut world = World::start(&[]).await?;
    let url = world.share("owner", &[]).await?;
    assert_eq!(url, format!("{}/@alice/dev/apps/notes/", world.deployment.url()));
    let mut alice = world.alice.clone();
    let server = world.deployment.url().to_owned();
    let spoofed =
        [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-host", "evil.example"), ("x-real-ip", "6.6.6.6")];
    let headers = [&VISIT[..], &spoofed].concat();
    let seen = alice.send("GET", &format!("{url}a/b?c=%20d"), &headers, "").await?;
    assert_eq!((seen.status, seen.json()["path"].as_str()), (200, Some("/a/b?c=%20d")), "{seen:?}");
    assert_eq!(seen.told("cookie"), None);
    assert_eq!(seen.told("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.told("x-forwarded-host").as_deref(), Some(host_of(&server)));
    assert_eq!(seen.told("x-forwarded-prefix").as_deref(), Some("/@alice/dev/apps/notes"));
    assert_eq!(seen.told("x-real-ip"), None);
    assert_eq!(seen.header("set-cookie"), "mine=1; Path=/@alice/dev/apps/notes/", "its own, where it is");
    for gone in ["clear-site-data", "service-worker-allowed", "access-control-allow-origin"] {
        assert_eq!(seen.header(gone), "", "{gone}");
    }
    assert_eq!(seen.header("content-security-policy"), "", "the owner's own");
    // With its first path the slash, and where it sends browsers to.
    let bare = alice.open(url.trim_end_matches('/')).await?;
    assert_eq!((bare.status, bare.url.as_str()), (200, url.as_str()));
    assert_eq!(alice.open(&format!("{url}away")).await?.url, format!("{url}echo"));
    // A program's token is not an app's either; its own login is.
    let session = alice.cookies[host_of(&server)]["warren_session"].clone();
    let bearer = format!("Bearer {session}");
    let mut program = Visitor::new(&server);
    let seen = program.send("POST", &url, &[("authorization", &bearer)], "x").await?;
    assert_eq!((seen.status, seen.told("authorization")), (200, None), "{seen:?}");
    let basic = [("authorization", "Basic dXNlcjpwYXNz")];
    assert_eq!(alice.send("GET", &url, &basic, "").await?.told("authorization").as_deref(), Some(basic[0].1));
    // Its pages may have tokens of their own, beside Warren's cookie.
    let own = [("authorization", "Bearer eyJhbGciOiJub25lIn0.e30."), ("origin", server.as_str())];
    let seen = alice.send("POST", &url, &own, "").await?;
    assert_eq!(
        (seen.status, seen.told("authorization").as_deref(), seen.told("cookie").as_deref()),
        (200, Some(own[0].1), Some("mine=1")),
        "{seen:?}"
    );
    let refused = alice.send("POST", &url, &[own[0], ("origin", "https://evil.example")], "").await?;
    assert_eq!(code(&refused), "CROSS_ORIGIN_REFUSED", "they let nobody in");
    assert_eq!(seen.header("cache-control"), "private, max-age=60", "whatever the app says of caches");
    // Another site's page may lead there, and do nothing more.
    for (method, site) in [("POST", "cross-site"), ("GET", "same-site")] {
        let refused =
            alice.send(method, &url, &[("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")], "").await?;
        assert_eq!((refused.status, code(&refused).as_str()), (403, "CROSS_ORIGIN_REFUSED"));
    }

    let mut bob = world.person("bob").await?;
    assert_eq!(code(&bob.send("GET", &url, &[], "").await?), "APP_NOT_FOUND");
    let login = Visitor::new(&server).open(&url).await?;
    assert!(login.url.ends_with("/login?next=/%40alice/dev/apps/notes/"), "{}", login.url);
    assert_eq!(code(&Visitor::new(&server).send("GET", &url, &[], "").await?), "LOGIN_REQUIRED");
    world.share("signed_in", &[]).await?;
    let seen = bob.send("GET", &url, &VISIT, "").await?;
    assert_eq!(seen.status, 200);
    let policy = seen.header("content-security-policy");
    assert!(policy.starts_with("sandbox ") && !policy.contains("allow-same-origin"), "{policy}");
    assert_eq!(Visitor::new(&server).send("GET", &url, &[], "").await?.status, 401);
    world.share("public", &[]).await?;
    assert_eq!(Visitor::new(&server).send("GET", &url, &[], "").await?.status, 200);
    world.share("owner", &[]).await?;
    assert_eq!(bob.send("GET", &url, &VISIT, "").await?.status, 404, "at once");
    // Whom the workspace is shared with can put there what they like: it does not act as the owner then.
    let share = "/workspaces/me/dev/shares/bob";
    assert!(world.api(&mut alice, "PUT", share, json!({})).await?.status < 300);
    let seen = alice.send("GET", &url, &VISIT, "").await?;
    assert!(seen.header("content-security-policy").starts_with("sandbox "), "{seen:?}");
    assert_eq!(world.api(&mut alice, "DELETE", share, Value::Null).await?.status, 204);
    assert_eq!(alice.send("GET", &url, &VISIT, "").await?.header("content-security-policy"), "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_limits_sharing_and_switches_paths_off() -> Result {
    let mut world = World::start(&["--max-app-sharing", "signed_in"]).await?;
    let refused = world.share("public", &[]).await.err().ok_or("it was allowed")?;
    assert!(refused.contains("SHARING_TOO_WIDE"), "{refused}");
    let url = world.share("signed_in", &[]).await?;
    let mut bob = world.person("bob").await?;
    assert_eq!(bob.send("GET", &url, &[], "").await?.status, 200);
    // What was shared more widely before is so no more.
    world.deployment.stop_server();
    world.deployment.start_server(&["--max-app-sharing", "owner", "--disable-path-apps"])?;
    let mut alice = world.alice.clone();
    let off = alice.send("GET", &url, &[], "").await?;
    assert_eq!((off.status, code(&off).as_str()), (403, "PATH_APPS_DISABLED"));
    let list = world.api(&mut alice, "GET", "/workspaces/me/dev/apps", Value::Null).await?.json();
    assert_eq!((&list["apps"][0]["url"], &list["max_sharing"]), (&json!(""), &json!("owner")));
    world.deployment.stop_server();
    world.deployment.start_server(&["--max-app-sharing", "owner"])?;
    assert_eq!(code(&bob.send("GET", &url, &[], "").await?), "APP_NOT_FOUND");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn any_site_may_ask_an_app_no_longer_than_everybody_may() -> Result {
    let mut world = World::start(&WILDCARD).await?;
    let url = world.share("public", &["*"]).await?;
    let evil = [("origin", "https://evil.example"), ("sec-fetch-site", "same-site")];
    let mut nobody = Visitor::new(world.deployment.url());
    let answer = nobody.send("POST", &url, &evil, "").await?;
    assert_eq!((answer.status, answer.header("access-control-allow-origin").as_str()), (200, "*"));
    assert_eq!(answer.header("cache-control"), "public, max-age=60", "it is for everybody");
    world.deployment.stop_server();
    world.deployment.start_server(&[&WILDCARD[..], &["--max-app-sharing", "owner"]].concat())?;
    let mut alice = world.alice.clone();
    // The agent comes back in its own time.
    let began = Instant::now();
    while alice.open(&url).await?.status != 200 {
        assert!(began.elapsed() < PATIENCE, "the app is not there any more");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let answer = alice.send("POST", &url, &evil, "").await?;
    assert_eq!(code(&answer), "CROSS_ORIGIN_REFUSED", "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), "");
    assert_eq!(alice.open(&url).await?.header("cache-control"), "private, max-age=60");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_of_its_own_is_reached_by_way_of_the_dashboards_session() -> Result {
    let mut world = World::start(&WILDCARD).await?;
    let url = world.share("owner", &[]).await?;
    let server = world.deployment.url().to_owned();
    let port = server.rsplit(':').next().ok_or("no port")?;
    assert_eq!(url, format!("http://notes--dev--alice.apps.localhost:{port}/"));
    let mut alice = world.alice.clone();
    let seen = alice.open(&format!("{url}lab?x=1")).await?;
    assert_eq!((seen.status, seen.url.clone()), (200, format!("{url}lab?x=1")), "{seen:?}");
    let cookies = alice.cookies[host_of(&url)].keys().cloned().collect::<Vec<_>>();
    assert_eq!(cookies, ["mine", "warren_app"], "neither ours replaced, nor what led here left");
    let again = alice.open(&url).await?;
    assert_eq!(again.told("cookie").as_deref(), Some("mine=1"));
    assert_eq!(again.told("host").as_deref(), Some(host_of(&url)));

    // Nothing of the dashboard is there, not even for who has its session.
    let session = alice.cookies[host_of(&server)].clone();
    alice.cookies.entry(host_of(&url).to_owned()).or_default().extend(session);
    let seen = alice.send("GET", &format!("{url}api/v1/me"), &[], "").await?;
    assert_eq!(seen.json()["path"], "/api/v1/me", "the app's own path");
    assert_eq!(seen.told("cookie").as_deref(), Some("mine=1"));
    let elsewhere = url.replace("notes--dev--alice", "a.b");
    assert_eq!(code(&alice.send("GET", &elsewhere, &[], "").await?), "APP_NOT_FOUND");
    // The pass of one app is none of another's.
    let other = url.replace("notes--dev--alice", &format!("{}--main--dev--alice", world.port));
    let pass = alice.cookies[host_of(&url)].clone();
    alice.cookies.insert(host_of(&other).to_owned(), pass);
    assert_eq!(code(&alice.send("GET", &other, &[], "").await?), "LOGIN_REQUIRED");
    assert_eq!(alice.open(&other).await?.status, 200, "a port is reached in its own right");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_led_astray_on_the_way_to_an_app() -> Result {
    let mut world = World::start(&WILDCARD).await?;
    let url = world.share("owner", &[]).await?;
    let server = world.deployment.url().to_owned();
    let mut alice = world.alice.clone();
    // Somebody else's address that leads in is nobody else's way in.
    let first = alice.send("GET", &url, &VISIT, "").await?;
    let second = alice.send("GET", &first.header("location"), &VISIT, "").await?;
    let arrival = second.header("location");
    assert!(arrival.starts_with(&format!("{url}.warren/open?code=")), "{arrival}");
    let mut mallory = Visitor::new(&server);
    let stolen = mallory.send("GET", &arrival, &[], "").await?;
    assert_eq!((stolen.status, code(&stolen).as_str()), (400, "HANDOVER_UNFIT"));
    assert!(!mallory.cookies.contains_key(host_of(&url)), "{:?}", mallory.cookies);
    let forged = alice.send("GET", &format!("{arrival}x"), &[], "").await?;
    assert_eq!(code(&forged), "HANDOVER_UNFIT");
    assert_eq!(alice.send("GET", &arrival, &VISIT, "").await?.status, 303);
    // Only apps of this server are led to, and only those that are one's own.
    for name in ["evil.example", "notes--dev--alice.evil.example", "//evil.example", "x--dev--alice", ""] {
        let name = name.replace('/', "%2F");
        let led =
            alice.send("GET", &format!("{server}/api/v1/apps/open?app={name}&mark=abc"), &VISIT, "").await?;
        assert_eq!((led.status, led.header("location").as_str()), (404, ""), "{name}");
    }
    let led = alice.send("GET", &format!("{url}/evil.example"), &VISIT, "").await?;
    assert_eq!(led.status, 200, "a path with two slashes is the app's");
    let mut bob = world.person("bob").await?;
    let refused = bob.open(&url).await?;
    assert_eq!(refused.status, 404);
    assert!(
        refused.url.starts_with(&server) && refused.body.contains("There is no such app for you")
            || refused.body.contains("no such app"),
        "{refused:?}"
    );
    // Who is not logged in does that first, and comes back.
    let login = Visitor::new(&server).open(&url).await?;
    assert!(
        login.url.contains("/login?next=/api/v1/apps/open%3Fapp%3Dnotes--dev--alice%26mark%3D"),
        "{}",
        login.url
    );
    // What is no name of an app stays within where it was asked.
    let odd = format!("{server}/api/v1/apps/open?app=a%26next%3D%23--dev--alice&mark=abc");
    let login = Visitor::new(&server).send("GET", &odd, &VISIT, "").await?.header("location");
    assert_eq!(login, "/login?next=/api/v1/apps/open%3Fapp%3Da%2526next%253D%2523--dev--alice%26mark%3Dabc");
    // Logging out shuts the app, at once here.
    assert_eq!(alice.send("GET", &url, &[], "").await?.status, 200);
    assert_eq!(world.api(&mut alice.clone(), "POST", "/logout", json!({})).await?.status, 204);
    assert_eq!(code(&alice.send("GET", &url, &[], "").await?), "LOGIN_REQUIRED");
    // No token of any kind was written down on the way.
    let log = world.deployment.server().ok_or("no server")?.log();
    world.deployment.stop_server();
    world.deployment.start_server(&WILDCARD)?;
    assert_eq!(code(&alice.send("GET", &url, &[], "").await?), "LOGIN_REQUIRED", "nor after a start");
    let secrets = [arrival.split("code=").nth(1).unwrap_or_default(), "warren_session_"];
    assert!(!secrets.iter().any(|secret| log.contains(secret)), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_ask_an_app_only_if_its_owner_named_them() -> Result {
    let mut world = World::start(&WILDCARD).await?;
    let url = world.share("owner", &[]).await?;
    let own = origin_of(&url).to_owned();
    let friend = own.replace("notes", "friend");
    let mut alice = world.alice.clone();
    assert_eq!(alice.open(&url).await?.status, 200);
    let from = |origin: &str, site: &'static str| {
        vec![("origin".to_owned(), origin.to_owned()), ("sec-fetch-site".to_owned(), site.to_owned())]
    };
    let preflight = |origin: &str| {
        let mut headers = from(origin, "same-site");
        headers.push(("access-control-request-method".into(), "PUT".into()));
        headers.push(("access-control-request-headers".into(), "x-mine".into()));
        headers
    };
    async fn ask(who: &mut Visitor, method: &str, url: &str, headers: &[(String, String)]) -> Result<Answer> {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        who.send(method, url, &headers, "").await
    }
    assert_eq!(ask(&mut alice, "POST", &url, &from(&own, "same-origin")).await?.status, 200);
    assert_eq!(
        code(&ask(&mut alice, "POST", &url, &from(&friend, "same-site")).await?),
        "CROSS_ORIGIN_REFUSED"
    );
    // A browser sends no cookies with it.
    let server = world.deployment.url().to_owned();
    let mut nobody = Visitor::new(&server);
    let answer = ask(&mut nobody, "OPTIONS", &url, &preflight(&friend)).await?;
    assert_eq!(answer.header("access-control-allow-origin"), "");
    // Nor does it tell whether there is such an app.
    let none = ask(&mut nobody, "OPTIONS", &url.replace("notes", "none"), &preflight(&friend)).await?;
    let named = |answer: &Answer| {
        let names = answer.headers.keys().filter(|name| name.as_str() != "date");
        names.map(ToString::to_string).collect::<BTreeSet<_>>()
    };
    assert_eq!((none.status, &none.body, named(&none)), (answer.status, &answer.body, named(&answer)));

    world.share("owner", &[&friend]).await?;
    let answer = ask(&mut nobody, "OPTIONS", &url, &preflight(&friend)).await?;
    let told = |name: &str| answer.header(&format!("access-control-allow-{name}"));
    assert_eq!(
        (answer.status, told("origin"), told("methods"), told("headers"), told("credentials")),
        (204, friend.clone(), "PUT".into(), "x-mine".into(), "true".into())
    );
    let answer = ask(&mut alice, "POST", &url, &from(&friend, "same-site")).await?;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, friend));
    let answer = ask(&mut alice, "POST", &url, &from("https://evil.example", "cross-site")).await?;
    assert_eq!((answer.status, answer.header("access-control-allow-origin").as_str()), (403, ""));
    // A public app answers for itself, unless its owner says otherwise.
    world.share("public", &[]).await?;
    let answer = ask(&mut nobody, "GET", &url, &from("https://evil.example", "cross-site")).await?;
    assert_eq!((answer.status, answer.header("access-control-allow-origin").as_str()), (200, "*"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_events_and_much_data_pass_as_they_come() -> Result {
    let mut world = World::start(&WILDCARD).await?;
    let url = world.share("owner", &[]).await?;
    let mut alice = world.alice.clone();
    assert_eq!(alice.open(&url).await?.status, 200);

    let (host, own) = (host_of(&url).to_owned(), origin_of(&url).to_owned());
    let pass = alice.cookies[&host]["warren_app"].clone();
    let server = host_of(world.deployment.url()).to_owned();
    let connect = |origin: String| {
        let (host, pass, server) = (host.clone(), pass.clone(), server.clone());
        async move {
            let mut request = format!("ws://{host}/talk").into_client_request().map_err(words)?;
            request.headers_mut().insert("origin", origin.parse().map_err(words)?);
            request.headers_mut().insert("cookie", format!("warren_app={pass}").parse().map_err(words)?);
            let tcp = TcpStream::connect(server).await.map_err(words)?;
            tokio_tungstenite::client_async(request, tcp).await.map_err(words)
        }
    };
    for origin in ["https://evil.example".to_owned(), own.replace("notes", "other"), "null".to_owned()] {
        let refused = connect(origin).await.err().ok_or("it was let in")?;
        assert!(refused.contains("403"), "{refused}");
    }
    let (mut socket, _) = connect(own).await?;
    for text in ["hello", &"x".repeat(1 << 20)] {
        socket.send(Message::text(text)).await.map_err(words)?;
        let back =
            timeout(PATIENCE, socket.next()).await.map_err(words)?.ok_or("it ended")?.map_err(words)?;
        assert_eq!(back.into_text().map_err(words)?.as_str(), text);
    }

    // Events come one by one, not when there is enough of them.
    let mut events = alice.begin("GET", &format!("{url}events"), &[], "").await?.into_body();
    for n in 0..3 {
        let frame =
            timeout(PATIENCE, events.frame()).await.map_err(words)?.ok_or("it ended")?.map_err(words)?;
        assert_eq!(frame.into_data().map_err(|_| "no data")?, format!("data: {n}\n\n"));
    }

    let many = vec![7_u8; 48 << 20];
    let hash: String = Sha256::digest(&many).iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = alice.send("PUT", &format!("{url}upload"), &[("origin", origin_of(&url))], many).await?;
    assert_eq!(answer.json(), json!({ "bytes": 48 << 20, "sha256": hash }));
    let server = world.deployment.server().ok_or("no server")?;
    let before = server.resident_kib()?;
    let answer = alice.send("GET", &format!("{url}bytes/{}", 64 << 20), &[], "").await?;
    assert_eq!(answer.body.len(), 64 << 20);
    let grown = server.resident_kib()?.saturating_sub(before);
    assert!(grown < 24 << 10, "the server has grown by {grown} KiB: it holds what it should pass on");

    // What lasts ends with the right to it, whatever it is called.
    let mut drops = alice.begin("GET", &format!("{url}drops"), &[], "").await?.into_body();
    assert!(timeout(PATIENCE, drops.frame()).await.map_err(words)?.is_some_and(|frame| frame.is_ok()));
    let app = json!({ "port": world.port, "sharing": "owner" });
    assert_eq!(
        world.api(&mut world.alice.clone(), "PUT", "/workspaces/me/dev/apps/notes", app).await?.status,
        200
    );
    socket.send(Message::text("still here")).await.map_err(words)?;
    assert!(timeout(PATIENCE, socket.next()).await.map_err(words)?.is_some());
    assert_eq!(
        world
            .api(&mut world.alice.clone(), "DELETE", "/workspaces/me/dev/apps/notes", Value::Null)
            .await?
            .status,
        204
    );
    let began = Instant::now();
    while let Some(Ok(_)) = timeout(PATIENCE, socket.next()).await.map_err(words)? {}
    while let Some(Ok(_)) = timeout(PATIENCE, events.frame()).await.map_err(words)? {}
    let cut = loop {
        match timeout(PATIENCE, drops.frame()).await.map_err(words)? {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(cut.is_some(), "it was not all, and looks as if it was");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // An app of the same name in a next workspace of the same name is another one.
    world.share("owner", &[]).await?;
    assert_eq!(alice.open(&url).await?.status, 200);
    assert_eq!(
        world.api(&mut world.alice.clone(), "DELETE", "/workspaces/me/dev", Value::Null).await?.status,
        204
    );
    assert_eq!(code(&alice.send("GET", &url, &[], "").await?), "APP_NOT_FOUND");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_two_could_read_in_two_ways_is_refused() -> Result {
    let mut world = World::start(&WILDCARD).await?;
    let url = world.share("public", &[]).await?;
    let (host, nobody) = (host_of(&url).to_owned(), Visitor::new(world.deployment.url()));
    let status = |said: &str| said.split(' ').nth(1).unwrap_or_default().to_owned();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    // Chunks count alone then, and nothing is read after them (RFC 9112, section 6.1).
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        let said = nobody
            .raw(&format!("POST /x HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n0\r\n\r\n{smuggled}"))
            .await?;
        assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
        assert!(said.contains("Connection: close") && !said.contains("[\"content-length\""), "{said}");
        assert!(!said.contains("smuggled"), "{said}");
    }
    for framing in [
        "Content-Length: 0\r\nContent-Length: 44\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4,4\r\n",
        "X: a\r\n Transfer-Encoding: chunked\r\n",
    ] {
        let said = nobody
            .raw(&format!("POST /x HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n0\r\n\r\n{smuggled}"))
            .await?;
        assert_eq!(status(&said), "400", "{framing:?}: {said}");
        assert!(!said.contains("/smuggled"), "{framing:?}: {said}");
    }
    // An address counts, and what the header says beside it does not.
    let said = nobody
        .raw(&format!("GET http://{host}/echo HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"))
        .await?;
    assert!(said.contains(&format!("[\"host\",\"{host}\"]")) && !said.contains("evil.example"), "{said}");
    let said = nobody.raw(&format!("TRACE / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await?;
    assert_eq!(status(&said), "405", "{said}");
    // Another protocol is not begun, and what follows is no app's.
    let said = nobody
        .raw(&format!("GET /echo HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"))
        .await?;
    assert_eq!(status(&said), "200", "{said}");
    assert!(!said.to_ascii_lowercase().contains("h2c"), "{said}");
    let mut visitor = Visitor::new(world.deployment.url());
    let answer = visitor.send("GET", &format!("{url}switch"), &[], "").await?;
    assert_eq!((answer.status, code(&answer).as_str()), (502, "APP_ANSWER"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_meets_no_app_reads_why_and_https_is_spoken_to_those_that_want_it() -> Result {
    let world = World::start(&WILDCARD).await?;
    let closed =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(words)?.port();
    let mut alice = world.alice.clone();
    let app = json!({ "port": closed });
    let answer = world.api(&mut alice, "PUT", "/workspaces/me/dev/apps/down", app).await?.json();
    let url = answer["url"].as_str().ok_or("no url")?.to_owned();
    let page = alice.open(&url).await?;
    assert_eq!(page.status, 502);
    insta::assert_snapshot!(
        "down",
        page.body.replace(&closed.to_string(), "PORT").split("</style>").last().unwrap_or_default()
    );
    assert_eq!(code(&alice.send("GET", &url, &[], "").await?), "APP_DOWN");

    let secure = app::start(Some(tls(&[])?)).await?.port();
    let app = json!({ "port": secure, "scheme": "https" });
    let answer = world.api(&mut alice, "PUT", "/workspaces/me/dev/apps/secure", app).await?.json();
    let url = answer["url"].as_str().ok_or("no url")?.to_owned();
    assert_eq!(alice.open(&url).await?.status, 200);
    let port = url.replace("secure--dev", &format!("{secure}s--main--dev"));
    assert_eq!(alice.open(&port).await?.status, 200, "{port}");
    Ok(())
}

/// A certificate that nobody knows, and what is offered with it.
fn tls(protocols: &[&[u8]]) -> Result<TlsAcceptor> {
    let key = rcgen::generate_simple_self_signed(vec!["anything.example".to_owned()]).map_err(words)?;
    io_adapters::relay_stream::tls::install();
    let mut config = tokio_rustls::rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            key.signing_key.serialize_der().try_into().map_err(|e: &str| e.to_owned())?,
        )
        .map_err(words)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config).into())
}

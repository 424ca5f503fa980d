//! How it stands, as the API tells it: live events, relays, health, settings, servers.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use serde_json::{Value, json};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use support::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use warren_server::{Listen, Reading, Settings};

/// For something that takes milliseconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stream of server-sent events.
struct Stream {
    tcp: TcpStream,
    read: String,
}

impl Stream {
    async fn open(at: SocketAddr, token: &str) -> Self {
        let mut tcp = TcpStream::connect(at).await.unwrap();
        let head =
            format!("GET /api/v1/events HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\n\r\n");
        tcp.write_all(head.as_bytes()).await.unwrap();
        Self { tcp, read: String::new() }
    }

    /// The data of the next event of this name; none at the stream's end.
    async fn next(&mut self, name: &str) -> Option<Value> {
        let start = format!("event: {name}\ndata: ");
        loop {
            if let Some((_, rest)) = self.read.split_once(&start)
                && let Some((data, rest)) = rest.split_once("\n\n")
            {
                let data = serde_json::from_str(data).unwrap();
                self.read = rest.to_owned();
                return Some(data);
            }
            let mut bytes = vec![0; 16 * 1024];
            let len = timeout(PATIENCE, self.tcp.read(&mut bytes)).await.expect("no event").unwrap();
            if len == 0 {
                return None;
            }
            self.read.push_str(std::str::from_utf8(&bytes[..len]).unwrap());
        }
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["workspaces"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn ones_own_workspaces_are_told_as_they_change_until_the_session_ends() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let bob = world.user(&alice, "bob", "member").await;
    let mut told = Stream::open(world.http, &bob).await;
    assert_eq!(names(&told.next("workspaces").await.unwrap()), Vec::<&str>::new());
    world.workspace(&alice, "hers").await;
    world.workspace(&bob, "his").await;
    assert_eq!(names(&told.next("workspaces").await.unwrap()), ["his"], "another's is not told");
    world.ask("DELETE", "/api/v1/workspaces/his", &bob, None).await;
    assert_eq!(names(&told.next("workspaces").await.unwrap()), Vec::<&str>::new());
    assert_eq!(world.ask("POST", "/api/v1/logout", &bob, None).await.status, 204);
    world.workspace(&alice, "more").await;
    assert_eq!(told.next("workspaces").await, None, "the stream ends with the session");
}

#[tokio::test]
async fn who_is_an_admin_no_more_follows_only_what_is_theirs() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let carol = world.user(&alice, "carol", "admin").await;
    world.workspace(&alice, "hers").await;
    let mut told = Stream::open(world.http, &carol).await;
    assert_eq!(names(&told.next("workspaces").await.unwrap()), ["hers"]);
    let id = world.get("/api/v1/me", &carol).await.text_at("/user/id");
    let path = format!("/api/v1/users/{id}");
    assert_eq!(world.ask("PATCH", &path, &alice, Some(json!({ "role": "member" }))).await.status, 200);
    assert_eq!(names(&told.next("workspaces").await.unwrap()), Vec::<&str>::new());
}

#[tokio::test]
async fn one_person_does_not_take_the_live_view_from_all_others() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let bob = world.user(&alice, "bob", "member").await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut stream = Stream::open(world.http, &bob).await;
        stream.next("workspaces").await.unwrap();
        streams.push(stream);
    }
    let refused = world.get("/api/v1/events", &bob).await;
    assert_eq!((refused.status.as_u16(), refused.text_at("/code").as_str()), (503, "TOO_MANY_FOLLOWERS"));
    assert_eq!(world.get("/api/v1/events", &alice).await.status, 200);
}

fn check<'a>(health: &'a Value, code: &str) -> &'a Value {
    let all = health["checks"].as_array().unwrap();
    all.iter().find(|check| check["code"] == code).unwrap_or_else(|| panic!("no {code}: {health}"))
}

#[tokio::test]
async fn health_exchanges_messages_through_the_relay_and_asks_stun() {
    let world = World::with(|settings| settings.stun_address = "127.0.0.1:0".parse().unwrap()).await;
    let alice = world.set_up().await;
    let health = world.get("/api/v1/health", &alice).await.json;
    for code in ["DATABASE", "WEBSOCKET", "RELAY", "STUN", "REPLICAS"] {
        assert_eq!(check(&health, code)["status"], "ok", "{health:#}");
    }
    assert_eq!(check(&health, "ACCESS_URL")["status"], "warning", "only this machine reaches loopback");
    assert_eq!(health["status"], "warning");
    let relays = world.get("/api/v1/relays", &alice).await.json;
    let region = &relays["regions"][0];
    assert_eq!((&region["embedded"], &region["health"]), (&json!(true), &json!("ok")), "{relays:#}");
    assert!(region["bytes_in"].as_u64().unwrap() >= 64, "the message went through it: {relays:#}");
    assert!(region["latency_ms"].as_f64().unwrap() > 0.0);
    let node = &region["nodes"][0];
    assert_eq!((&node["derp"], &node["stun"]), (&json!(true), &json!(true)), "{relays:#}");
}

#[tokio::test]
async fn an_access_url_that_leads_to_another_program_is_told() {
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", other.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = other.accept().await {
            let mut asked = [0; 4_096];
            let _ = tcp.read(&mut asked).await;
            let _ =
                tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").await;
        }
    });
    let world = World::with(|settings| settings.access_url = Some(url.parse().unwrap())).await;
    let alice = world.set_up().await;
    let health = world.get("/api/v1/health", &alice).await.json;
    for (code, why) in [("ACCESS_URL", "another program answers there"), ("WEBSOCKET", "No WebSocket opens")]
    {
        let check = check(&health, code);
        assert_eq!(check["status"], "error", "{check:#}");
        assert!(check["detail"].as_str().unwrap().contains(why), "{check:#}");
        assert!(check["cause"].is_string() && check["remedy"].is_string(), "{check:#}");
    }
}

#[tokio::test]
async fn a_relay_and_a_stun_server_that_do_not_answer_are_named() {
    // Bound, so that nobody else answers there, and silent.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let world = World::with(|settings| {
        let node = json!({ "Name": "2a", "RegionID": 2, "HostName": "127.0.0.1", "DERPPort": closed,
            "STUNPort": silent.local_addr().unwrap().port(), "ForceHTTP": true });
        let map = json!({ "Regions": { "2": { "RegionID": 2, "RegionCode": "far", "RegionName": "Far",
            "Nodes": [node] } } });
        let path = settings.state_dir.as_ref().unwrap().with_file_name("map.json");
        std::fs::write(&path, map.to_string()).unwrap();
        settings.derp_config_path = Some(path);
        settings.stun_address = Listen(None);
    })
    .await;
    let alice = world.set_up().await;
    let relays = world.get("/api/v1/relays", &alice).await.json;
    let regions = relays["regions"].as_array().unwrap();
    let far = regions.iter().find(|region| region["id"] == 2).unwrap();
    assert_eq!(far["health"], "error");
    let error = far["nodes"][0]["error"].as_str().unwrap();
    assert!(error.contains("relay: ") && error.contains("STUN: it did not answer"), "{error}");
    let health = world.get("/api/v1/health", &alice).await.json;
    let all = health["checks"].as_array().unwrap();
    let of_far = all.iter().find(|check| check["name"] == "Relay Far").unwrap();
    assert_eq!(of_far["status"], "error");
    assert!(of_far["cause"].is_string() && of_far["remedy"].is_string());
    assert_eq!(check(&health, "STUN")["status"], "error");
    assert_eq!(health["status"], "error");
}

#[tokio::test]
async fn settings_and_servers_are_for_those_who_administer() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let bob = world.user(&alice, "bob", "member").await;
    for path in ["/api/v1/settings", "/api/v1/replicas"] {
        assert_eq!(world.get(path, "").await.status, 401);
        assert_eq!(world.get(path, &bob).await.status, 403);
    }
    let replicas = world.get("/api/v1/replicas", &alice).await.json;
    let this = &replicas["replicas"][0];
    assert_eq!(this["this"], true);
    assert_eq!(this["started_at"], "2026-01-01T00:00:00Z");
    assert_eq!(this["access_url"], format!("http://{}", world.http));
}

#[tokio::test]
async fn settings_say_where_they_come_from_and_keep_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let args = ["warren-server", "--database-url", "sqlite::memory:", "--http-address", "127.0.0.1:0"];
    let more =
        ["--stun-address", "none", "--metrics-address", "none", "--state-dir", state.to_str().unwrap()];
    let Reading::Start(given) = Settings::read(args.into_iter().chain(more).map(Into::into)) else {
        panic!("these are settings")
    };
    let world = World::with(|settings| *settings = *given).await;
    let alice = world.set_up().await;
    let document = world.get("/api/v1/settings", &alice).await.json;
    let of = |name: &str| {
        let mut all = document["settings"].as_array().unwrap().iter();
        let found = all.find(|setting| setting["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {document:#}")).clone()
    };
    assert_eq!(of("database-url")["value"], "********");
    assert_eq!(of("stun-address")["value"], "none");
    assert_eq!(of("stun-address")["origin"], "flag");
    assert_eq!(of("stun-address")["variable"], "WARREN_STUN_ADDRESS");
    assert!(of("stun-address")["help"].as_str().unwrap().contains("STUN"));
    assert_eq!(of("derp-server-region-id")["origin"], "default");
    assert_eq!(of("tls-cert-file")["value"], Value::Null);
}

/// What is at a path of the metrics' listener.
async fn metrics(world: &World, path: &str) -> String {
    let at = world.server().addresses().metrics.unwrap();
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, tcp.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

/// The value of a sample, as it is written before it.
fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn metrics_tell_of_requests_checks_nodes_and_the_relay() {
    let world = World::with(|settings| {
        settings.stun_address = "127.0.0.1:0".parse().unwrap();
        settings.metrics_address = "127.0.0.1:0".parse().unwrap();
    })
    .await;
    let alice = world.set_up().await;
    assert_eq!(world.get("/api/v1/me", "nobody").await.status, 401);
    let before =
        sample(&metrics(&world, "/metrics").await, "warren_server_http_requests_total{status=\"4xx\"}");
    assert_eq!(world.get("/api/v1/me", "nobody").await.status, 401);
    world.get("/api/v1/health", &alice).await;
    let text = metrics(&world, "/metrics").await;
    assert!(text.contains("Content-Type: text/plain; version=0.0.4"), "{text}");
    assert_eq!(sample(&text, "warren_server_http_requests_total{status=\"4xx\"}"), before + 1.0);
    assert_eq!(sample(&text, "warren_server_http_seconds_count"), {
        let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].iter();
        classes
            .map(|c| sample(&text, &format!("warren_server_http_requests_total{{status=\"{c}\"}}")))
            .sum::<f64>()
    });
    assert_eq!(sample(&text, "warren_server_check{check=\"DATABASE\",name=\"Database\"}"), 0.0);
    assert_eq!(sample(&text, "warren_server_check{check=\"ACCESS_URL\",name=\"Access URL\"}"), 1.0);
    assert!(sample(&text, "warren_server_relay_round_trip_seconds{region=\"999\",node=\"999a\"}") > 0.0);
    assert_eq!(sample(&text, "warren_server_nodes{kind=\"server\"}"), 1.0);
    assert!(sample(&text, "warren_relay_logins_total") >= 1.0, "the check has logged in");
    assert_eq!(sample(&text, "warren_relay_stun_up"), 1.0);
    assert!(sample(&text, "warren_relay_stun_answers_total") >= 1.0);
    assert!(!text.contains(&alice) && !text.contains("alice"), "no name and no token is told");
    assert!(metrics(&world, "/").await.starts_with("HTTP/1.1 404"));
}

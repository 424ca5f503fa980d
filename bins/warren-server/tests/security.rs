//! What pages of others, forged headers and links may not do by the API, route by route.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use std::net::SocketAddr;
use support::{Answer, World, send};

/// Routes that take no session: who asks is told in the request, or does not matter.
const WITHOUT_SESSION: &[(&str, &str)] = &[
    ("POST", "/setup"),
    ("POST", "/login"),
    ("GET", "/login/methods"),
    ("GET", "/login/oidc"),
    ("GET", "/login/oidc/callback"),
    ("POST", "/login/device"),
    ("POST", "/login/device/approve"),
    ("POST", "/login/device/token"),
    ("GET", "/buildinfo"),
    ("GET", "/derp-map"),
    // Leads to an app if it may, and else to the login page or nowhere.
    ("GET", "/apps/open"),
];

/// What a browser says of a request that another's page makes, in all the ways in which it may say it.
const FOREIGN: &[&[(&str, &str)]] = &[
    &[],
    &[("Origin", "https://evil.example")],
    &[("Origin", "null")],
    &[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")],
    &[("Sec-Fetch-Site", "same-site")],
    &[("Referer", "https://evil.example/")],
];

const UPGRADE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A server whose owner has a browser: with a session in a cookie and a workspace.
struct Home {
    world: World,
    session: String,
    cookie: String,
}

impl Home {
    async fn new() -> Self {
        let world = World::new().await;
        let session = world.set_up().await;
        world.workspace(&session, "dev").await;
        let own = format!("http://{}", world.http);
        let login = json!({ "username": "alice", "password": "correct horse", "cookie": true });
        let granted = request(world.http, ("POST", "/api/v1/login"), &[("Origin", &own)], &login).await;
        let cookie = granted.header("set-cookie").split("; ").next().unwrap().to_owned();
        assert!(cookie.starts_with("warren_session=warren_session_"), "{granted:?}");
        Self { world, session, cookie }
    }

    /// Every operation of the API: its method, its path in the document, and where it is for alice's things.
    async fn operations(&self) -> Vec<(String, String, String)> {
        let document = self.world.get("/api/openapi.json", "").await.json;
        let mut all = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let at = path.replace("{owner}", "alice").replace("{name}", "dev").replace("{agent}", "main");
            let at = at.replace("{user}", "alice").replace("{id}", "x").replace("{session}", "x");
            let at = at.replace("{slug}", "web");
            assert!(!at.contains('{'), "{path} has a part that this test cannot fill");
            for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                all.push((method.to_uppercase(), path.clone(), format!("/api/v1{at}")));
            }
        }
        assert!(all.len() > 30, "{all:?}");
        all
    }

    /// Everything that somebody's doing would show in: what was noted, who there is, what they have.
    async fn state(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for path in ["/audit", "/users", "/tokens", "/workspaces", "/workspaces/alice/dev/shares"] {
            let mut answer = self.world.get(&format!("/api/v1{path}"), &self.session).await.json;
            assert!(answer.is_object(), "{path}");
            for token in answer["tokens"].as_array_mut().into_iter().flatten() {
                token["last_used_at"].take();
            }
            all.push(answer);
        }
        all
    }
}

fn takes_session(method: &str, path: &str) -> bool {
    !WITHOUT_SESSION.contains(&(method, path))
}

async fn request(
    at: SocketAddr,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &Value,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request = request.header("Host", at.to_string());
    }
    if !headers.iter().any(|(name, _)| *name == "Content-Type") {
        request = request.header("Content-Type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(at, request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await
}

fn refused(answer: &Answer) -> bool {
    answer.status == 403 && answer.json["code"] == "CSRF_REFUSED"
}

#[tokio::test]
async fn no_page_of_another_site_changes_or_opens_anything_by_a_cookie() {
    let home = Home::new().await;
    let before = home.state().await;
    for (method, path, at) in home.operations().await {
        // A failed login is noted, whoever began it.
        if path == "/login/oidc/callback" {
            continue;
        }
        for foreign in FOREIGN {
            let headers = [&[("Cookie", home.cookie.as_str())], *foreign].concat();
            if method != "GET" {
                let answer = request(home.world.http, (&method, &at), &headers, &json!({})).await;
                assert!(refused(&answer) == takes_session(&method, &path), "{method} {path}: {answer:?}");
                continue;
            }
            // WebSockets know no same-origin policy of the browser's, and any page may open them.
            let upgrade = [&headers[..], UPGRADE].concat();
            let answer = request(home.world.http, ("GET", &at), &upgrade, &json!({})).await;
            assert!(refused(&answer) == takes_session(&method, &path), "{path}: {answer:?}");
        }
    }
    assert_eq!(home.state().await, before);
}

#[tokio::test]
async fn a_link_from_elsewhere_changes_nothing() {
    let home = Home::new().await;
    let before = home.state().await;
    // Browsers send a cookie that is `SameSite=Lax` with a link that somebody follows.
    let headers = [("Cookie", home.cookie.as_str()), ("Sec-Fetch-Site", "cross-site")];
    for (method, path, at) in home.operations().await {
        // A failed login is noted, whoever began it.
        if method == "GET" && path != "/login/oidc/callback" {
            request(home.world.http, ("GET", &at), &headers, &Value::Null).await;
            let answer = request(home.world.http, ("HEAD", &at), &headers, &Value::Null).await;
            assert!(
                answer.headers.get_all("set-cookie").iter().all(|set| set.to_str().unwrap().contains("=;"))
            );
        }
    }
    assert_eq!(home.state().await, before);
}

#[tokio::test]
async fn no_page_of_another_site_reads_an_answer() {
    let home = Home::new().await;
    let headers = [("Cookie", home.cookie.as_str()), ("Origin", "https://evil.example")];
    let preflight =
        [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "content-type")];
    for (method, path, at) in home.operations().await {
        let body = json!({});
        let own = request(home.world.http, (&method, &at), &headers, &body).await;
        let asked = [&headers[..], &preflight].concat();
        let asked = request(home.world.http, ("OPTIONS", &at), &asked, &body).await;
        for answer in [&own, &asked] {
            let allowed = answer.headers.keys().find(|name| name.as_str().starts_with("access-control"));
            assert_eq!(allowed, None, "{method} {path}: {answer:?}");
        }
        assert_eq!(own.header("x-content-type-options"), "nosniff", "{path}");
        let kept = if path == "/events" { "no-cache" } else { "no-store" };
        assert_eq!(own.header("cache-control"), kept, "{path}");
    }
}

/// What a form can send without the browser asking first.
#[tokio::test]
async fn no_form_of_another_site_is_understood() {
    let home = Home::new().await;
    let login = json!({ "username": "alice", "password": "correct horse" });
    for (method, path, at) in home.operations().await {
        let takes_document = method != "GET" && method != "DELETE";
        let without = ["/logout", "/login/device", "/workspaces/{owner}/{name}/shares/{user}"];
        if !takes_document || without.contains(&path.as_str()) || path.ends_with("/agents/{agent}/token") {
            continue;
        }
        for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let authorization = format!("Bearer {}", home.session);
            let headers = [("Content-Type", form), ("Authorization", authorization.as_str())];
            let answer = request(home.world.http, (&method, &at), &headers, &login).await;
            assert_eq!(
                (answer.status.as_u16(), answer.text_at("/code").as_str()),
                (415, "BODY_INVALID"),
                "{method} {path} as {form}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_in_the_address_opens_nothing() {
    let home = Home::new().await;
    for (method, path, at) in home.operations().await {
        if !takes_session(&method, &path) {
            continue;
        }
        for name in ["token", "access_token", "session", "warren_session", "__Host-warren_session"] {
            let at = format!("{at}?{name}={}", home.session);
            let answer = request(home.world.http, (&method, &at), UPGRADE, &json!({})).await;
            assert_eq!(answer.status, 401, "{method} {path}?{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn what_a_client_says_of_its_address_counts_by_a_trusted_proxy_alone() {
    let failed_from = async |world: &World, owner: &str, headers: &[(&str, &str)]| {
        let login = json!({ "username": "eve", "password": "guess" });
        request(world.http, ("POST", "/api/v1/login"), headers, &login).await;
        world.get("/api/v1/audit?limit=1", owner).await.text_at("/entries/0/address")
    };
    let told = [("X-Forwarded-For", "198.51.100.7")];
    let others = [
        ("X-Real-IP", "198.51.100.7"),
        ("Forwarded", "for=198.51.100.7"),
        ("CF-Connecting-IP", "198.51.100.7"),
        ("X-Forwarded-For", "nonsense"),
    ];
    let world = World::new().await;
    let alice = world.set_up().await;
    assert_eq!(failed_from(&world, &alice, &told).await, "127.0.0.1");
    assert_eq!(failed_from(&world, &alice, &others).await, "127.0.0.1");
    let world =
        World::with(|settings| settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]).await;
    let alice = world.set_up().await;
    assert_eq!(failed_from(&world, &alice, &told).await, "198.51.100.7");
    let chain = [("X-Forwarded-For", "203.0.113.9, 198.51.100.7")];
    assert_eq!(
        failed_from(&world, &alice, &chain).await,
        "198.51.100.7",
        "the rest is the client's own word"
    );
    assert_eq!(failed_from(&world, &alice, &others).await, "127.0.0.1");
}

#[tokio::test]
async fn forged_addresses_give_nobody_more_requests_and_cost_no_other_any() {
    let ask = async |world: &World, n: usize| {
        let from = format!("198.51.100.{n}");
        let answer =
            request(world.http, ("GET", "/api/v1/me"), &[("X-Forwarded-For", &from)], &Value::Null).await;
        answer.status.as_u16()
    };
    let world = World::with(|settings| settings.api_rate_limit = 60).await;
    let mut answers = Vec::new();
    for n in 0..21 {
        answers.push(ask(&world, n).await);
    }
    assert_eq!((answers[..20].iter().all(|status| *status == 401), answers[20]), (true, 429), "{answers:?}");
    let world = World::with(|settings| {
        settings.api_rate_limit = 60;
        settings.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    for n in 0..40 {
        assert_eq!(ask(&world, n).await, 401, "{n}: each client of the proxy counts for itself");
    }
}

#[tokio::test]
async fn where_the_server_is_said_to_be_depends_on_its_settings_alone() {
    let url = "https://warren.example.com";
    let world = World::with(|settings| settings.access_url = Some(url.parse().unwrap())).await;
    let alice = world.set_up().await;
    let forged = [
        ("Host", "evil.example"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "http"),
        ("Forwarded", "host=evil.example;proto=http"),
        ("X-Original-URL", "/api/v1/users"),
        ("X-Rewrite-URL", "/api/v1/users"),
        ("Origin", url),
    ];
    let login = json!({ "username": "alice", "password": "correct horse", "cookie": true });
    let granted = request(world.http, ("POST", "/api/v1/login"), &forged, &login).await;
    let set = granted.header("set-cookie");
    assert!(set.starts_with("__Host-warren_session=") && set.ends_with("; Secure"), "{set}");
    let begun = request(world.http, ("POST", "/api/v1/login/device"), &forged, &Value::Null).await;
    assert!(begun.text_at("/verification_url").starts_with(&format!("{url}/login#")), "{begun:?}");
    let authorization = format!("Bearer {alice}");
    let headers = [&forged[..], &[("Authorization", authorization.as_str())]].concat();
    let made = request(world.http, ("POST", "/api/v1/workspaces"), &headers, &json!({ "name": "dev" })).await;
    assert!(made.text_at("/command").ends_with(&format!(" --url {url}")), "{made:?}");
    let home = request(world.http, ("GET", "/"), &forged, &Value::Null).await;
    assert_eq!(home.header("location"), "");
    for answer in [granted, begun, made, home] {
        assert!(!format!("{answer:?}").contains("evil.example"), "{answer:?}");
    }
}

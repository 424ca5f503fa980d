//! Logging in by an OpenID Connect provider, with a browser's cookies, over real HTTP.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

#[path = "support/issuer.rs"]
mod issuer;
mod support;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Uri};
use issuer::{CLIENT, Issuer, SECRET};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use support::{Answer, ORIGIN_MS, World, send};

/// A browser: it keeps cookies.
#[derive(Clone, Default)]
struct Browser(BTreeMap<String, String>);

impl Browser {
    async fn get(&mut self, at: SocketAddr, path: &str) -> Answer {
        let cookies: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = Request::get(path).header("Host", at.to_string()).header("Cookie", cookies.join("; "));
        let answer = send(at, request.body(Full::new(Bytes::new())).unwrap()).await;
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str().unwrap();
            assert!(line.contains("; HttpOnly; SameSite=Lax"), "{line}");
            let (name, rest) = line.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if line.contains("Max-Age=0;") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// From the server to the provider; the path that the provider sends us back to.
    async fn ask_provider(&mut self, world: &World, issuer: &Issuer, next: &str) -> String {
        let sent = self.get(world.http, &format!("/api/v1/login/oidc?next={next}")).await;
        assert_eq!(sent.status, 303, "{sent:?}");
        let url: Uri = sent.header("location").parse().unwrap();
        assert_eq!(url.authority().unwrap().as_str(), issuer.address.to_string(), "{url}");
        let back = Self::default().get(issuer.address, url.path_and_query().unwrap().as_str()).await;
        assert_eq!(back.status, 303, "{back:?}");
        let back: Uri = back.header("location").parse().unwrap();
        assert_eq!(back.authority().unwrap().as_str(), world.http.to_string());
        back.path_and_query().unwrap().to_string()
    }

    /// All of it; where it ends.
    async fn log_in(&mut self, world: &World, issuer: &Issuer) -> String {
        let back = self.ask_provider(world, issuer, "/workspaces").await;
        let answer = self.get(world.http, &back).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        answer.header("location").to_owned()
    }

    async fn name(&mut self, world: &World) -> String {
        self.get(world.http, "/api/v1/me").await.text_at("/user/name")
    }
}

async fn world(sign_up: bool) -> (World, Arc<Issuer>) {
    let issuer = Issuer::start(ORIGIN_MS / 1_000).await;
    let url = issuer.url();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), format!("{SECRET}\n")).unwrap();
    let world = World::with(|settings| {
        settings.oidc_issuer_url = Some(url);
        settings.oidc_client_id = Some(CLIENT.to_owned());
        settings.oidc_client_secret_file = Some(secret.path().to_owned());
        settings.oidc_name = "Example".to_owned();
        settings.oidc_sign_up = sign_up;
    })
    .await;
    (world, issuer)
}

#[tokio::test]
async fn a_person_of_the_provider_becomes_a_member_and_stays_the_same() {
    let (world, issuer) = world(true).await;
    let methods = world.get("/api/v1/login/methods", "").await.json;
    assert_eq!(methods, json!({ "password": true, "oidc": { "name": "Example" } }));
    let mut zoe = Browser::default();
    assert_eq!(zoe.log_in(&world, &issuer).await, "/login?error=SETUP_REQUIRED", "an owner comes first");

    let alice = world.set_up().await;
    assert_eq!(zoe.log_in(&world, &issuer).await, "/workspaces");
    assert_eq!(zoe.0.keys().collect::<Vec<_>>(), ["warren_session"]);
    assert_eq!(zoe.name(&world).await, "zoe");
    assert_eq!(zoe.get(world.http, "/api/v1/me").await.text_at("/user/role"), "member");
    issuer.manner.lock().unwrap().username = "renamed@example.com".to_owned();
    let mut elsewhere = Browser::default();
    elsewhere.log_in(&world, &issuer).await;
    assert_eq!(elsewhere.name(&world).await, "zoe", "the subject counts, not the name");

    // Whoever is called like somebody who is here already is another person.
    {
        let mut manner = issuer.manner.lock().unwrap();
        (manner.subject, manner.username) = ("u-2".to_owned(), "Alice@example.com".to_owned());
    }
    let mut other = Browser::default();
    other.log_in(&world, &issuer).await;
    assert_eq!(other.name(&world).await, "alice-2");

    let no_password = json!({ "username": "zoe", "password": "" });
    assert_eq!(world.post("/api/v1/login", "", no_password).await.text_at("/code"), "LOGIN_FAILED");
    let users = world.get("/api/v1/users", &alice).await.json;
    let id =
        users["users"].as_array().unwrap().iter().find(|user| user["name"] == "zoe").unwrap()["id"].clone();
    let path = format!("/api/v1/users/{}", id.as_str().unwrap());
    world.ask("PATCH", &path, &alice, Some(json!({ "disabled": true }))).await;
    issuer.manner.lock().unwrap().subject = "u-1".to_owned();
    assert_eq!(Browser::default().log_in(&world, &issuer).await, "/login?error=USER_DISABLED");
}

#[tokio::test]
async fn what_the_provider_says_is_believed_only_if_it_is_for_this_login() {
    let (world, issuer) = world(true).await;
    world.set_up().await;
    let now = ORIGIN_MS / 1_000;
    for lie in [
        json!({ "aud": "another" }),
        json!({ "iss": "https://another.example" }),
        json!({ "nonce": "another" }),
        json!({ "exp": now }),
        json!({ "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" }),
    ] {
        issuer.manner.lock().unwrap().lies = lie.clone();
        let mut browser = Browser::default();
        let end = browser.log_in(&world, &issuer).await;
        assert_eq!(end, "/login?error=OIDC_TOKEN_INVALID", "{lie}");
        assert!(browser.0.is_empty(), "{lie}");
    }
    issuer.manner.lock().unwrap().lies = json!({});
    issuer.manner.lock().unwrap().foreign_key = true;
    assert_eq!(Browser::default().log_in(&world, &issuer).await, "/login?error=OIDC_TOKEN_INVALID");
    issuer.manner.lock().unwrap().foreign_key = false;
    issuer.change_key();
    world.advance_ms(5_000);
    issuer.manner.lock().unwrap().now = now + 5;
    assert_eq!(Browser::default().log_in(&world, &issuer).await, "/workspaces", "a new key is fetched");
}

#[tokio::test]
async fn a_login_belongs_to_the_browser_that_began_it_and_works_once() {
    let (world, issuer) = world(true).await;
    world.set_up().await;
    let (mut mine, mut theirs) = (Browser::default(), Browser::default());
    let back = mine.ask_provider(&world, &issuer, "/").await;
    theirs.ask_provider(&world, &issuer, "/").await;
    for mut browser in [Browser::default(), theirs.clone()] {
        let answer = browser.get(world.http, &back).await;
        assert_eq!(answer.header("location"), "/login?error=OIDC_LOGIN_UNKNOWN");
    }
    // With the state of theirs but the code of mine: the code's verifier is mine alone.
    let their_back = theirs.ask_provider(&world, &issuer, "/").await;
    let code = back.split(['?', '&']).find(|part| part.starts_with("code=")).unwrap();
    let state = their_back.split('&').find(|part| part.starts_with("state=")).unwrap();
    let swapped = format!("/api/v1/login/oidc/callback?{code}&{state}");
    assert_eq!(
        theirs.get(world.http, &swapped).await.header("location"),
        "/login?error=OIDC_PROVIDER_FAILED"
    );

    let back = mine.ask_provider(&world, &issuer, "/").await;
    let twice = mine.clone();
    assert_eq!(mine.get(world.http, &back).await.header("location"), "/");
    let again = twice.clone().get(world.http, &back).await;
    assert_eq!(again.header("location"), "/login?error=OIDC_PROVIDER_FAILED");
    let state = back.split('&').find(|part| part.starts_with("state=")).unwrap();
    let denied = format!("/api/v1/login/oidc/callback?error=access_denied&{state}");
    assert_eq!(twice.clone().get(world.http, &denied).await.header("location"), "/login?error=OIDC_REFUSED");
}

#[tokio::test]
async fn nobody_is_sent_to_another_site_and_strangers_may_be_kept_out() {
    let (world, issuer) = world(false).await;
    world.set_up().await;
    assert_eq!(Browser::default().log_in(&world, &issuer).await, "/login?error=OIDC_SIGN_UP_OFF");
    let (world, issuer) = self::world(true).await;
    world.set_up().await;
    for next in ["//evil.example", "https://evil.example", "/%5Cevil.example"] {
        let mut browser = Browser::default();
        let back = browser.ask_provider(&world, &issuer, next).await;
        assert_eq!(browser.get(world.http, &back).await.header("location"), "/", "{next}");
    }
}

#[tokio::test]
async fn where_the_provider_sends_people_back_to_is_no_requests_word() {
    let (world, issuer) = world(true).await;
    world.set_up().await;
    let begin = "/api/v1/login/oidc?next=/";
    for forged in [
        &[("Host", "evil.example")] as &[(&str, &str)],
        &[("Host", "evil.example:80"), ("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "https")],
        &[("Host", "warren"), ("Forwarded", "host=evil.example;proto=https")],
    ] {
        let request = forged.iter().fold(Request::get(begin), |all, (name, value)| all.header(*name, *value));
        let sent = send(world.http, request.body(Full::new(Bytes::new())).unwrap()).await;
        let url: Uri = sent.header("location").parse().unwrap();
        assert_eq!(url.authority().unwrap().as_str(), issuer.address.to_string(), "{sent:?}");
        let own =
            format!("redirect_uri=http%3A%2F%2F{}%2Fapi%2Fv1%2F", world.http.to_string().replace(':', "%3A"));
        assert!(url.query().unwrap().contains(&own) && !url.query().unwrap().contains("evil"), "{url}");
    }
}

#[tokio::test]
async fn a_provider_that_is_away_keeps_nobody_from_the_rest() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::with(|settings| {
        settings.oidc_issuer_url = Some(format!("http://{gone}"));
        settings.oidc_client_id = Some(CLIENT.to_owned());
    })
    .await;
    world.set_up().await;
    let sent = Browser::default().get(world.http, "/api/v1/login/oidc").await;
    assert_eq!(sent.header("location"), "/login?error=OIDC_PROVIDER_FAILED");
    let off = World::new().await;
    let sent = Browser::default().get(off.http, "/api/v1/login/oidc").await;
    assert_eq!(sent.header("location"), "/login?error=OIDC_OFF");
}

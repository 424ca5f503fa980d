//! What browsers get: a session in a cookie, which only the server's own pages may act by.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::json;
use support::{Answer, World, send};

/// A request as a browser sends it, with these headers besides.
async fn browse(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("Host", world.http.to_string());
    request = request.header("Content-Type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(world.http, request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await
}

#[tokio::test]
async fn a_session_in_a_cookie_acts_for_the_servers_own_pages_alone() {
    let world = World::new().await;
    let own = format!("http://{}", world.http);
    let token = world.server().setup_token().unwrap();
    let set_up = json!({ "token": token, "username": "alice", "password": "correct horse", "cookie": true });
    let set_up = set_up.to_string();
    let refused = browse(&world, "POST", "/api/v1/setup", &[], &set_up).await;
    assert_eq!((refused.status.as_u16(), refused.text_at("/code").as_str()), (403, "CSRF_REFUSED"));
    let made = browse(&world, "POST", "/api/v1/setup", &[("Origin", &own)], &set_up).await;
    assert_eq!((made.status.as_u16(), made.text_at("/token").as_str()), (201, ""), "{made:?}");

    let login = json!({ "username": "alice", "password": "correct horse", "cookie": true }).to_string();
    let evil = [("Origin", "https://evil.example")];
    assert_eq!(browse(&world, "POST", "/api/v1/login", &evil, &login).await.text_at("/code"), "CSRF_REFUSED");
    let granted = browse(&world, "POST", "/api/v1/login", &[("Origin", &own)], &login).await;
    assert_eq!(granted.text_at("/token"), "");
    let set = granted.header("set-cookie").to_owned();
    let (cookie, flags) = set.split_once("; ").unwrap();
    assert!(cookie.starts_with("warren_session=warren_session_"), "{set}");
    assert_eq!(flags, "Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax");

    let me = browse(&world, "GET", "/api/v1/me", &[("Cookie", cookie)], "").await;
    assert_eq!(me.text_at("/user/name"), "alice");
    let make = json!({ "name": "dev" }).to_string();
    for bad in [
        &[] as &[(&str, &str)],
        &evil,
        &[("Origin", "null")],
        &[("Origin", &own), ("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
    ] {
        let headers = [&[("Cookie", cookie)], bad].concat();
        let answer = browse(&world, "POST", "/api/v1/workspaces", &headers, &make).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text_at("/code").as_str()),
            (403, "CSRF_REFUSED"),
            "{bad:?}"
        );
    }
    let upgrade = [("Cookie", cookie), ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let socket = browse(&world, "GET", "/api/v1/coordinate", &[&upgrade[..], &evil].concat(), "").await;
    assert_eq!(socket.text_at("/code"), "CSRF_REFUSED", "WebSockets know no same-origin policy");

    for good in [("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")] {
        let name = json!({ "name": good.0.to_lowercase() }).to_string();
        let answer = browse(&world, "POST", "/api/v1/workspaces", &[("Cookie", cookie), good], &name).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let out = browse(&world, "POST", "/api/v1/logout", &[("Cookie", cookie), ("Origin", &own)], "").await;
    assert_eq!(out.status, 204);
    assert_eq!(out.header("set-cookie"), "warren_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    assert_eq!(browse(&world, "GET", "/api/v1/me", &[("Cookie", cookie)], "").await.status, 401);
}

#[tokio::test]
async fn behind_https_the_cookie_is_the_hosts_alone() {
    let world = World::with(|settings| {
        settings.access_url = Some("https://warren.example.com".parse().unwrap());
    })
    .await;
    world.set_up().await;
    let login = json!({ "username": "alice", "password": "correct horse", "cookie": true }).to_string();
    let headers = [("Origin", "https://warren.example.com")];
    let granted = browse(&world, "POST", "/api/v1/login", &headers, &login).await;
    let set = granted.header("set-cookie");
    assert!(set.starts_with("__Host-warren_session=warren_session_"), "{set}");
    assert!(set.ends_with("; HttpOnly; SameSite=Lax; Secure") && set.contains("; Path=/;"), "{set}");
    assert!(!set.contains("Domain"), "{set}");
    // A neighbour under the same domain could set the other name.
    let plain = set.split("; ").next().unwrap().replace("__Host-", "");
    assert_eq!(browse(&world, "GET", "/api/v1/me", &[("Cookie", &plain)], "").await.status, 401);
}

#[tokio::test]
async fn every_answer_names_its_request_whatever_becomes_of_it() {
    let world = World::new().await;
    let session = world.set_up().await;
    let mut seen = std::collections::BTreeSet::new();
    for (method, path, token) in [
        ("GET", "/api/v1/me", session.as_str()),
        ("GET", "/api/v1/me", ""),
        ("PUT", "/api/v1/me", ""),
        ("GET", "/nowhere", ""),
        ("GET", "/healthz", ""),
    ] {
        let answer = world.ask(method, path, token, None).await;
        let id = answer.header("warren-request-id").to_owned();
        assert_eq!(id.len(), 36, "{answer:?}");
        if answer.status.as_u16() >= 400 {
            assert_eq!(answer.text_at("/request_id"), id);
        }
        assert!(seen.insert(id), "an id names one request");
    }
}

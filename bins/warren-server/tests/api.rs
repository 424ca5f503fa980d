//! The API over real HTTP on loopback.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use std::fmt::Write as _;
use support::{World, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn the_first_owner_is_made_once_and_logs_in_and_out() {
    let world = World::new().await;
    assert_eq!(world.get("/api/v1/buildinfo", "").await.json["setup_required"], true);
    assert_eq!(world.get("/", "").await.header("location"), "/setup");
    let session = world.set_up().await;
    let me = world.get("/api/v1/me", &session).await;
    assert_eq!(me.text_at("/user/name"), "alice");
    assert_eq!(me.text_at("/user/role"), "owner");
    assert_eq!(me.text_at("/expires_at"), "2026-01-31T00:00:00Z");
    assert_eq!(me.header("cache-control"), "no-store");

    let token = world.server().setup_token().unwrap().to_owned();
    let again = json!({ "token": token, "username": "mallory", "password": "correct horse" });
    assert_eq!(world.post("/api/v1/setup", "", again).await.text_at("/code"), "SETUP_DONE");
    assert_eq!(world.get("/api/v1/buildinfo", "").await.json["setup_required"], false);

    let login = json!({ "username": "alice", "password": "correct horse" });
    let second = world.post("/api/v1/login", "", login).await.text_at("/token");
    assert_ne!(second, session);
    assert_eq!(world.ask("POST", "/api/v1/logout", &session, None).await.status, 204);
    assert_eq!(world.get("/api/v1/me", &session).await.text_at("/code"), "TOKEN_UNKNOWN");
    assert_eq!(world.get("/api/v1/me", &second).await.status, 200, "only one session was ended");
}

#[tokio::test]
async fn a_login_is_confirmed_in_a_browser_and_fetched_once() {
    let world = World::new().await;
    world.set_up().await;
    let begin = async || world.ask("POST", "/api/v1/login/device", "", None).await;
    let approve = async |code: &str, password: &str| {
        let body = json!({ "user_code": code, "username": "alice", "password": password });
        world.post("/api/v1/login/device/approve", "", body).await
    };
    let ask =
        async |code: &str| world.post("/api/v1/login/device/token", "", json!({ "device_code": code })).await;
    let begun = begin().await;
    assert_eq!(begun.status, 201);
    let (device, code) = (begun.text_at("/device_code"), begun.text_at("/user_code"));
    assert_eq!(begun.text_at("/verification_url"), format!("http://{}/login#{code}", world.http));
    let page = world.get("/login", "").await;
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert_eq!(ask(&device).await.json, json!({ "grant": null }));

    assert_eq!(approve(&code, "guessed").await.text_at("/code"), "LOGIN_FAILED");
    assert_eq!(approve("BCDF-GHJK", "correct horse").await.text_at("/code"), "NO_SUCH_CODE");
    assert_eq!(ask(&code).await.text_at("/code"), "LOGIN_EXPIRED", "what is shown fetches nothing");
    assert_eq!(approve(&code.to_lowercase(), "correct horse").await.status, 204);
    let grant = ask(&device).await;
    let session = grant.text_at("/grant/token");
    assert_eq!(world.get("/api/v1/me", &session).await.text_at("/user/name"), "alice");
    assert_eq!(ask(&device).await.status, 410, "a session is fetched once");
    assert_eq!(world.get("/api/v1/me", &device).await.status, 401);

    // Whoever is logged in needs no password, but to have logged in.
    let begun = begin().await;
    let code = json!({ "user_code": begun.text_at("/user_code") });
    let confirm = "/api/v1/login/device/confirm";
    let program = json!({ "name": "ci", "scope": "all" });
    let program = world.post("/api/v1/tokens", &session, program).await.text_at("/token");
    assert_eq!(world.post(confirm, &program, code.clone()).await.text_at("/code"), "SESSION_REQUIRED");
    assert_eq!(world.post(confirm, "", code.clone()).await.status, 401);
    assert_eq!(world.post(confirm, &session, code.clone()).await.status, 204);
    assert_eq!(world.post(confirm, &session, code).await.text_at("/code"), "NO_SUCH_CODE");
    let session = ask(&begun.text_at("/device_code")).await.text_at("/grant/token");
    assert_eq!(world.get("/api/v1/me", &session).await.text_at("/user/name"), "alice");

    let late = begin().await;
    world.advance_ms(10 * 60 * 1_000);
    assert_eq!(approve(&late.text_at("/user_code"), "correct horse").await.status, 404);
    assert_eq!(ask(&late.text_at("/device_code")).await.status, 410);
}

#[tokio::test]
async fn who_tries_codes_has_to_wait() {
    let world = World::new().await;
    world.set_up().await;
    let body = json!({ "user_code": "BCDF-GHJK", "username": "alice", "password": "correct horse" });
    let mut tried = 0;
    let answer = loop {
        let answer = world.post("/api/v1/login/device/approve", "", body.clone()).await;
        tried += 1;
        if answer.status != 404 || tried > 100 {
            break answer;
        }
    };
    assert_eq!((tried, answer.status.as_u16()), (11, 429));
    assert_eq!(answer.text_at("/code"), "TOO_MANY_ATTEMPTS");
}

#[tokio::test]
async fn a_session_ends_after_thirty_days() {
    let world = World::new().await;
    let session = world.set_up().await;
    world.advance_ms(30 * 86_400_000 - 1);
    assert_eq!(world.get("/api/v1/me", &session).await.status, 200);
    world.advance_ms(1);
    let answer = world.get("/api/v1/me", &session).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.text_at("/detail"), "the session ended at 2026-01-31T00:00:00Z");
}

#[tokio::test]
async fn a_workspace_is_made_found_and_deleted_with_its_token() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let made = world.workspace(&alice, "dev").await;
    let agent_token = made["agent_token"].as_str().unwrap().to_owned();
    let command = made["command"].as_str().unwrap().replace(&agent_token, "TOKEN");
    assert_eq!(command, format!("WARREN_AGENT_TOKEN=TOKEN warren-agent --url http://{}", world.http));

    for path in ["dev", "alice/dev", "me/dev"] {
        let one = world.get(&format!("/api/v1/workspaces/{path}"), &alice).await;
        assert_eq!(one.json, made["workspace"], "{path}");
    }
    assert_eq!(made["workspace"]["status"], "offline");
    assert_eq!(made["workspace"]["agents"][0]["last_seen"], Value::Null);
    assert_eq!(world.get("/api/v1/workspaces", &alice).await.json["workspaces"][0], made["workspace"]);

    // The agent's token opens the coordinator's door as far as the upgrade, and nothing else.
    assert_eq!(world.get("/api/v1/coordinate", &agent_token).await.text_at("/code"), "WEBSOCKET_REQUIRED");
    assert_eq!(world.get("/api/v1/workspaces", &agent_token).await.text_at("/code"), "TOKEN_WRONG_KIND");
    assert_eq!(world.ask("DELETE", "/api/v1/workspaces/dev", &alice, None).await.status, 204);
    assert_eq!(world.get("/api/v1/coordinate", &agent_token).await.status, 401);
    assert_eq!(world.get("/api/v1/workspaces/dev", &alice).await.status, 404);
}

#[tokio::test]
async fn members_see_their_own_and_cannot_tell_what_others_have() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let bob = world.user(&alice, "bob", "member").await;
    let carol = world.user(&alice, "carol", "admin").await;
    world.workspace(&alice, "secret").await;
    world.workspace(&bob, "dev").await;

    let names = |answer: support::Answer| -> Vec<String> {
        let all = answer.json["workspaces"].as_array().unwrap().clone();
        all.iter()
            .map(|w| format!("{}/{}", w["owner"].as_str().unwrap(), w["name"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(names(world.get("/api/v1/workspaces", &bob).await), ["bob/dev"]);
    assert_eq!(names(world.get("/api/v1/workspaces", &carol).await), ["alice/secret", "bob/dev"]);

    let there = world.get("/api/v1/workspaces/alice/secret", &bob).await;
    let not_there = world.get("/api/v1/workspaces/alice/secreX", &bob).await;
    assert_eq!(there.status, 404);
    let same = |answer: &support::Answer, name: &str| {
        answer.text.replace(name, "*").replace(answer.header("warren-request-id"), "ID")
    };
    assert_eq!(same(&there, "secret"), same(&not_there, "secreX"));
    assert_eq!(world.ask("DELETE", "/api/v1/workspaces/alice/secret", &bob, None).await.status, 404);
    assert_eq!(world.get("/api/v1/users", &bob).await.status, 403);
    assert_eq!(world.get("/api/v1/workspaces/bob/dev", &carol).await.status, 200);
    let owner = json!({ "username": "dora", "password": "battery staple", "role": "owner" });
    assert_eq!(world.post("/api/v1/users", &carol, owner).await.status, 403, "admins make no owners");
}

#[tokio::test]
async fn every_refusal_says_what_and_what_to_do() {
    let world = World::new().await;
    let port = world.http.port().to_string();
    let mut said = String::new();
    let mut note = |what: &str, answer: support::Answer| {
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}: {answer:?}");
        let mut problem = answer.json.clone();
        let id = problem.as_object_mut().unwrap().remove("request_id");
        assert_eq!(id.unwrap(), answer.header("warren-request-id"), "{what}: {answer:?}");
        let text = serde_json::to_string_pretty(&problem).unwrap().replace(&port, "PORT");
        writeln!(said, "## {what}\n{text}\n").unwrap();
    };
    let weak = json!({ "token": world.server().setup_token(), "username": "alice", "password": "short" });
    note("a weak password", world.post("/api/v1/setup", "", weak).await);
    let named =
        json!({ "token": world.server().setup_token(), "username": "Alice B", "password": "correct horse" });
    note("a bad user's name", world.post("/api/v1/setup", "", named).await);
    let stale = json!({ "token": "warren_setup_0", "username": "alice", "password": "correct horse" });
    note("a wrong setup token", world.post("/api/v1/setup", "", stale.clone()).await);
    let alice = world.set_up().await;
    note("a second setup", world.post("/api/v1/setup", "", stale).await);
    note("no token", world.get("/api/v1/me", "").await);
    note("an unknown token", world.get("/api/v1/me", "warren_session_0").await);
    note(
        "a wrong password",
        world.post("/api/v1/login", "", json!({"username": "alice", "password": "x"})).await,
    );
    note(
        "an unknown user",
        world.post("/api/v1/login", "", json!({"username": "eve", "password": "x"})).await,
    );
    note("a missing field", world.post("/api/v1/login", "", json!({"username": "alice"})).await);
    note(
        "a taken user's name",
        world.post("/api/v1/users", &alice, json!({"username": "alice", "password": "12345678"})).await,
    );
    note("no workspace at all", world.get("/api/v1/workspaces/dev", &alice).await);
    world.workspace(&alice, "dev").await;
    world.workspace(&alice, "devbox").await;
    note("a near name", world.get("/api/v1/workspaces/dve", &alice).await);
    note("two near names", world.get("/api/v1/workspaces/de", &alice).await);
    note("nobody's name", world.get("/api/v1/workspaces/bob/production", &alice).await);
    note("a taken name", world.post("/api/v1/workspaces", &alice, json!({"name": "dev"})).await);
    note("a bad name", world.post("/api/v1/workspaces", &alice, json!({"name": "My Box"})).await);
    note("no such path", world.get("/api/v1/workspace", &alice).await);
    note("a wrong method", world.ask("PUT", "/api/v1/me", &alice, None).await);
    note("a missing parameter", world.get("/api/v1/apps/open?app=x", &alice).await);
    note("a name that is no text", world.get("/api/v1/workspaces/%FF", &alice).await);
    note("the coordinator without a token", world.get("/api/v1/coordinate", "").await);
    note("the coordinator without WebSocket", world.get("/api/v1/coordinate", &alice).await);
    let text = Request::post("/api/v1/login").header("Host", "x").body(Full::new(Bytes::from("{"))).unwrap();
    note("no JSON", send(world.http, text).await);
    let broken =
        Request::post("/api/v1/login").header("Host", "x").header("Content-Type", "application/json");
    note("broken JSON", send(world.http, broken.body(Full::new(Bytes::from("{"))).unwrap()).await);
    world.advance_ms(31 * 86_400_000);
    note("an ended session", world.get("/api/v1/me", &alice).await);
    insta::assert_snapshot!(said);
}

#[tokio::test]
async fn guessing_passwords_soon_costs_time() {
    let world = World::new().await;
    world.set_up().await;
    let login = |password: &str| json!({ "username": "alice", "password": password });
    for _ in 0..10 {
        assert_eq!(world.post("/api/v1/login", "", login("wrong")).await.status, 401);
    }
    let answer = world.post("/api/v1/login", "", login("correct horse")).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "31"));
    world.advance_ms(30_000);
    assert_eq!(world.post("/api/v1/login", "", login("correct horse")).await.status, 200);
}

#[tokio::test]
async fn each_token_and_address_has_so_many_requests_and_no_more() {
    let world = World::with(|settings| settings.api_rate_limit = 60).await;
    let alice = world.set_up().await;
    let ask = async |token: &str| world.get("/api/v1/me", token).await;
    for _ in 0..20 {
        assert_eq!(ask(&alice).await.status, 200);
    }
    let over = ask(&alice).await;
    assert_eq!((over.status.as_u16(), over.header("retry-after")), (429, "2"), "{over:?}");
    assert_eq!(over.text_at("/code"), "TOO_MANY_REQUESTS");
    assert_eq!(over.text_at("/request_id"), over.header("warren-request-id"));
    // What is as cheap as a probe is not counted; what is merely called so is.
    let get = async |path: &str| world.get(path, &alice).await.status.as_u16();
    assert_eq!((get("/api/v1/buildinfo").await, get("/api/v1/workspaces/me/buildinfo").await), (200, 429));
    world.advance_ms(1_000);
    assert_eq!((ask(&alice).await.status.as_u16(), ask(&alice).await.status.as_u16()), (200, 429));

    // Setting up took one; new tokens do not help who guesses, and hinder nobody who has a good one.
    let guess = async |n: usize| ask(&format!("warren_session_{n}")).await.status.as_u16();
    for n in 0..20 {
        assert_eq!(guess(n).await, 401, "{n}");
    }
    assert_eq!(guess(21).await, 429);
    assert_eq!(ask("").await.status, 429);
    assert_eq!(world.get("/healthz", "").await.status, 200);
    world.advance_ms(60_000);
    assert_eq!(ask(&alice).await.status, 200);
}

#[tokio::test]
async fn the_probes_answer_as_relay_clients_expect() {
    let world = World::with(|settings| {
        settings.derp_server_enable = false;
        settings.stun_servers = vec!["stun.example.com:3478".parse().unwrap()];
    })
    .await;
    // Nothing but a probe is left of a relay that is off.
    for path in ["/derp/latency-check", "/derp/probe"] {
        for method in ["GET", "HEAD"] {
            let answer = world.ask(method, path, "", None).await;
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""), "{method} {path}");
            assert_eq!(answer.header("access-control-allow-origin"), "*");
        }
        assert_eq!(world.ask("POST", path, "", None).await.status, 405);
    }
    assert_eq!(world.get("/derp", "").await.text_at("/code"), "RELAY_OFF");
    for (challenge, response) in
        [("ts_a.b:c-1", "response ts_a.b:c-1"), ("no spaces", ""), (&"x".repeat(65) as &str, "")]
    {
        let request =
            Request::get("/generate_204").header("Host", "x").header("X-Tailscale-Challenge", challenge);
        let answer = send(world.http, request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("x-tailscale-response"), response, "{challenge}");
        assert!(answer.header("cache-control").contains("no-store"));
    }
    assert_eq!(world.get("/healthz", "").await.text, "OK\n");
    assert_eq!(world.get("/readyz", "").await.text, "OK\n");
}

/// The head of the answer to a request written by hand.
async fn raw(world: &World, request: &str) -> (String, TcpStream) {
    let mut tcp = TcpStream::connect(world.http).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap(), tcp)
}

#[tokio::test]
async fn derp_is_upgraded_to_whatever_the_method_target_and_case() {
    let world = World::new().await;
    for (method, target, upgrade) in
        [("GET", "/derp", "DERP"), ("POST", "http://192.0.2.1:80/derp", "derp"), ("PUT", "/derp", "Derp")]
    {
        let (head, mut tcp) = raw(
            &world,
            &format!(
                "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
            ),
        )
        .await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(head.contains("\r\nDerp-Version: 2\r\n"), "{head}");
        let key = head.split("Derp-Public-Key: ").nth(1).unwrap()[..64].to_owned();
        // The first frame, ServerKey, repeats the key after its magic of 8 bytes.
        let mut frame = [0; 45];
        tcp.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[..5], [1, 0, 0, 0, 40]);
        assert_eq!(frame[13..].iter().map(|b| format!("{b:02x}")).collect::<String>(), key);
    }
    let plain = world.get("/derp", "").await;
    assert_eq!((plain.status.as_u16(), plain.header("upgrade")), (426, "DERP"));
}

#[tokio::test]
async fn a_relay_that_asks_about_unknown_nodes_gets_a_no_and_then_has_to_wait() {
    let world = World::new().await;
    // As Tailscale's relay sends it: nothing says that it is JSON.
    let ask = |source: &'static str, n: u8| {
        let body =
            format!(r#"{{"NodePublic":"nodekey:{}","Source":"{source}"}}"#, format!("{n:02x}").repeat(32));
        let request = hyper::Request::post("/derp/verify").header("Host", "x").body(body.into_bytes().into());
        support::send(world.http, request.unwrap())
    };
    for n in 0..10 {
        let answer = ask("192.0.2.1", n).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, r#"{"Allow":false}"#));
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let late = ask("192.0.2.1", 11).await;
    assert_eq!((late.status.as_u16(), late.header("retry-after")), (429, "31"), "{late:?}");
    assert_eq!(ask("192.0.2.2", 11).await.status, 200, "another client of the same relay");
    world.advance_ms(30_000);
    assert_eq!(ask("192.0.2.1", 11).await.status, 200);
    for body in ["", "{}", r#"{"NodePublic":"nodekey:12"}"#, "nodekey:12"] {
        let request = hyper::Request::post("/derp/verify").header("Host", "x").body(body.into());
        let answer = support::send(world.http, request.unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text_at("/code").as_str()),
            (400, "BODY_INVALID"),
            "{body}"
        );
    }
    assert_eq!(world.get("/derp/verify", "").await.status, 405);
}

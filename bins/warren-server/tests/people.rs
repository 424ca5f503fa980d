//! People, their tokens, sharing, and the log of who did what, over real HTTP.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use serde_json::{Value, json};
use support::{Answer, World};

async fn id_of(world: &World, by: &str, name: &str) -> String {
    let users = world.get("/api/v1/users", by).await.json;
    let users = users["users"].as_array().unwrap();
    users.iter().find(|user| user["name"] == name).unwrap()["id"].as_str().unwrap().to_owned()
}

async fn login(world: &World, name: &str, password: &str) -> Answer {
    world.post("/api/v1/login", "", json!({ "username": name, "password": password })).await
}

async fn api_token(world: &World, by: &str, scope: &str) -> (String, String) {
    let body = json!({ "name": "ci", "scope": scope, "expires_in_days": 2 });
    let made = world.post("/api/v1/tokens", by, body).await;
    assert_eq!(made.status, 201, "{made:?}");
    (made.text_at("/token"), made.text_at("/info/id"))
}

fn problem(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.text_at("/code"))
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn tokens_for_programs_do_what_their_scope_says_until_they_end() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let (all, all_id) = api_token(&world, &alice, "all").await;
    let (read, _) = api_token(&world, &alice, "read").await;
    assert!(all.starts_with("warren_api_"), "{all}");
    world.workspace(&all, "dev").await;
    assert_eq!(world.get("/api/v1/workspaces/dev", &read).await.status, 200);
    let refused = world.post("/api/v1/workspaces", &read, json!({ "name": "x" })).await;
    assert_eq!(problem(&refused), is(403, "SCOPE_TOO_SMALL"));
    assert_eq!(world.ask("DELETE", "/api/v1/workspaces/dev", &read, None).await.status, 403);
    assert_eq!(world.get("/api/v1/coordinate", &read).await.status, 403, "it opens no connection");
    assert_eq!(world.get("/api/v1/coordinate", &all).await.status, 426);
    for (path, body) in [
        ("/api/v1/tokens", json!({ "name": "more" })),
        ("/api/v1/me/password", json!({ "old": "correct horse", "new": "stolen horse" })),
    ] {
        assert_eq!(problem(&world.post(path, &all, body).await), is(403, "SESSION_REQUIRED"), "{path}");
    }
    for bad in
        [json!({ "name": " " }), json!({ "name": "a", "expires_in_days": 366 }), json!({ "name": "a\nb" })]
    {
        assert_eq!(problem(&world.post("/api/v1/tokens", &alice, bad).await), is(422, "FIELD_INVALID"));
    }

    let list = world.get("/api/v1/tokens", &alice).await.json;
    let said: Vec<_> = list["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| {
            let text = |key: &str| t[key].as_str().unwrap_or("-").to_owned();
            (text("name"), text("kind"), text("scope"), t["current"].as_bool().unwrap(), text("expires_at"))
        })
        .collect();
    let row = |name: &str, kind: &str, scope: &str, current, ends: &str| {
        (name.to_owned(), kind.to_owned(), scope.to_owned(), current, ends.to_owned())
    };
    let soon = "2026-01-03T00:00:00Z";
    assert_eq!(
        said,
        [
            row("ci", "api", "read", false, soon),
            row("ci", "api", "all", false, soon),
            row("", "session", "all", true, "2026-01-31T00:00:00Z"),
        ]
    );
    assert_eq!(list["tokens"][0]["last_used_at"], "2026-01-01T00:00:00Z");
    assert!(!list.to_string().contains("warren_api_"), "no list shows a token");

    let eve = world.user(&alice, "eve", "member").await;
    let path = format!("/api/v1/tokens/{all_id}");
    assert_eq!(problem(&world.ask("DELETE", &path, &eve, None).await), is(404, "TOKEN_NOT_FOUND"));
    assert_eq!(world.ask("DELETE", &path, &alice, None).await.status, 204);
    assert_eq!(world.get("/api/v1/me", &all).await.status, 401);
    world.advance_ms(2 * 86_400_000);
    assert_eq!(problem(&world.get("/api/v1/me", &read).await), is(401, "TOKEN_EXPIRED"));
}

#[tokio::test]
async fn an_owner_is_always_left_and_admins_do_not_become_one() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let carol = world.user(&alice, "carol", "admin").await;
    world.user(&alice, "bob", "member").await;
    let (of_alice, of_bob) = (id_of(&world, &alice, "alice").await, id_of(&world, &alice, "bob").await);
    let change = async |by: &str, id: &str, what: Value| {
        world.ask("PATCH", &format!("/api/v1/users/{id}"), by, Some(what)).await
    };
    for what in [json!({ "role": "member" }), json!({ "disabled": true })] {
        assert_eq!(problem(&change(&alice, &of_alice, what.clone()).await), is(409, "LAST_OWNER"));
        assert_eq!(problem(&change(&carol, &of_alice, what).await), is(403, "FORBIDDEN"));
    }
    let delete =
        async |by: &str, id: &str| world.ask("DELETE", &format!("/api/v1/users/{id}"), by, None).await;
    assert_eq!(problem(&delete(&alice, &of_alice).await), is(409, "LAST_OWNER"));
    let takeover = change(&carol, &of_alice, json!({ "password": "known to carol" })).await;
    assert_eq!(problem(&takeover), is(403, "FORBIDDEN"), "an admin takes over no owner");
    assert_eq!(problem(&change(&carol, &of_bob, json!({ "role": "owner" })).await), is(403, "FORBIDDEN"));
    assert_eq!(change(&carol, &of_bob, json!({ "role": "admin" })).await.text_at("/role"), "admin");

    assert_eq!(change(&alice, &of_bob, json!({ "role": "owner" })).await.status, 200);
    assert_eq!(delete(&alice, &of_alice).await.status, 204, "bob is left");
    assert_eq!(world.get("/api/v1/me", &alice).await.status, 401);
    assert_eq!(world.get("/api/v1/users", &carol).await.json["users"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn who_is_locked_out_loses_all_access_at_once_and_gets_it_back() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let bob = world.user(&alice, "bob", "member").await;
    let (token, _) = api_token(&world, &bob, "all").await;
    let path = format!("/api/v1/users/{}", id_of(&world, &alice, "bob").await);
    let locked = world.ask("PATCH", &path, &alice, Some(json!({ "disabled": true }))).await;
    assert_eq!((locked.status.as_u16(), &locked.json["disabled"]), (200, &Value::Bool(true)));
    assert_eq!(world.get("/api/v1/me", &bob).await.status, 401);
    assert_eq!(problem(&world.get("/api/v1/me", &token).await), is(401, "USER_DISABLED"));
    assert_eq!(problem(&login(&world, "bob", "battery staple").await), is(403, "USER_DISABLED"));
    assert_eq!(
        problem(&login(&world, "bob", "wrong").await),
        is(401, "LOGIN_FAILED"),
        "guessers learn nothing"
    );
    let back = json!({ "disabled": false, "password": "another staple" });
    assert_eq!(world.ask("PATCH", &path, &alice, Some(back)).await.status, 200);
    assert_eq!(world.get("/api/v1/me", &token).await.status, 200);
    assert_eq!(login(&world, "bob", "another staple").await.status, 200);
    assert_eq!(login(&world, "bob", "battery staple").await.status, 401);
}

#[tokio::test]
async fn a_new_password_ends_all_other_logins() {
    let world = World::new().await;
    let here = world.set_up().await;
    let there = login(&world, "alice", "correct horse").await.text_at("/token");
    let change = async |old: &str, new: &str| {
        world.post("/api/v1/me/password", &here, json!({ "old": old, "new": new })).await
    };
    assert_eq!(problem(&change("guessed", "another horse").await), is(403, "PASSWORD_WRONG"));
    assert_eq!(problem(&change("correct horse", "short").await), is(422, "FIELD_INVALID"));
    assert_eq!(world.get("/api/v1/me", &there).await.status, 200);
    assert_eq!(change("correct horse", "another horse").await.status, 204);
    assert_eq!(world.get("/api/v1/me", &there).await.status, 401);
    assert_eq!(world.get("/api/v1/me", &here).await.status, 200);
    assert_eq!(login(&world, "alice", "correct horse").await.status, 401);
    for _ in 0..10 {
        change("guessed", "another horse").await;
    }
    assert_eq!(problem(&change("another horse", "third horse").await), is(429, "TOO_MANY_ATTEMPTS"));
}

#[tokio::test]
async fn a_shared_workspace_is_seen_and_used_but_not_passed_on() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let bob = world.user(&alice, "bob", "member").await;
    let sam = world.user(&alice, "sam", "member").await;
    let carol = world.user(&alice, "carol", "admin").await;
    world.workspace(&bob, "dev").await;
    let dev = "/api/v1/workspaces/bob/dev";
    let share = |user: &str| format!("{dev}/shares/{user}");
    assert_eq!(world.get(dev, &sam).await.status, 404);
    assert_eq!(world.ask("PUT", &share("carol"), &carol, None).await.status, 403, "nobody lets himself in");
    assert_eq!(problem(&world.ask("PUT", &share("nobody"), &bob, None).await), is(404, "USER_NOT_FOUND"));
    assert_eq!(problem(&world.ask("PUT", &share("bob"), &bob, None).await), is(422, "FIELD_INVALID"));
    for _ in 0..2 {
        assert_eq!(world.ask("PUT", &share("sam"), &bob, None).await.status, 204);
    }
    assert_eq!(
        world.get(&format!("{dev}/shares"), &bob).await.json,
        json!({
            "shares": [{ "user": "sam", "created_at": "2026-01-01T00:00:00Z" }]
        })
    );
    assert_eq!(world.get(dev, &sam).await.text_at("/access"), "shared");
    assert_eq!(world.get(dev, &bob).await.text_at("/access"), "owner");
    assert_eq!(world.get(dev, &carol).await.text_at("/access"), "admin");
    let listed = world.get("/api/v1/workspaces", &sam).await;
    assert_eq!(listed.text_at("/workspaces/0/name"), "dev");
    for (method, path) in [
        ("DELETE", dev.to_owned()),
        ("PUT", share("carol")),
        ("GET", format!("{dev}/shares")),
        ("POST", format!("{dev}/agents/main/token")),
    ] {
        assert_eq!(world.ask(method, &path, &sam, None).await.status, 403, "{method} {path}");
    }
    // May use it, but the agent is not there; carol may not even ask.
    let ports = async |by: &str| world.get(&format!("{dev}/ports"), by).await.status.as_u16();
    assert_eq!((ports(&sam).await, ports(&bob).await, ports(&carol).await), (409, 409, 403));
    assert_eq!(world.ask("DELETE", &share("sam"), &sam, None).await.status, 204, "one may leave");
    assert_eq!(world.get(dev, &sam).await.status, 404);
    assert_eq!(problem(&world.ask("DELETE", &share("sam"), &bob, None).await), is(404, "SHARE_NOT_FOUND"));
}

#[tokio::test]
async fn an_agents_new_token_ends_the_old_one() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let old = world.workspace(&alice, "dev").await["agent_token"].as_str().unwrap().to_owned();
    let made = world.ask("POST", "/api/v1/workspaces/me/dev/agents/main/token", &alice, None).await;
    assert_eq!(made.status, 201, "{made:?}");
    let new = made.text_at("/agent_token");
    assert!(made.text_at("/command").contains(&new));
    assert_eq!(world.get("/api/v1/coordinate", &old).await.status, 401);
    assert_eq!(world.get("/api/v1/coordinate", &new).await.status, 426);
    let nobody = world.ask("POST", "/api/v1/workspaces/me/dev/agents/other/token", &alice, None).await;
    assert_eq!(problem(&nobody), is(404, "AGENT_NOT_FOUND"));
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_from_where() {
    let world = World::with(|settings| {
        settings.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let alice = world.set_up().await;
    let bob = world.user(&alice, "bob", "member").await;
    world.workspace(&bob, "dev").await;
    world.ask("PUT", "/api/v1/workspaces/me/dev/shares/alice", &bob, None).await;
    let wrong = login(&world, "bob", "wrong").await;
    world.ask("DELETE", "/api/v1/workspaces/bob/dev", &alice, None).await;
    let log = async |query: &str| world.get(&format!("/api/v1/audit{query}"), &alice).await;
    let all = log("").await.json;
    let entries = all["entries"].as_array().unwrap();
    let said: Vec<_> = entries
        .iter()
        .map(|e| ["actor", "action", "target", "detail"].map(|key| e[key].as_str().unwrap()).join("|"))
        .collect();
    assert_eq!(
        said,
        [
            "alice|workspace.delete|bob/dev|",
            "|login.failed|bob|",
            "bob|share.add|bob/dev|with alice",
            "bob|workspace.create|bob/dev|",
            "bob|login|bob|",
            "alice|user.create|bob|as member",
            "alice|setup|alice|",
        ]
    );
    assert_eq!(entries[1]["request_id"], wrong.header("warren-request-id"));
    assert_eq!(
        (&entries[1]["address"], &entries[1]["at"]),
        (&json!("127.0.0.1"), &json!("2026-01-01T00:00:00Z"))
    );
    let first = log("?limit=2").await.json;
    assert_eq!(first["entries"].as_array().unwrap()[..], entries[..2]);
    let next = log(&format!("?limit=2&before={}", first["entries"][1]["id"].as_str().unwrap())).await.json;
    assert_eq!(next["entries"].as_array().unwrap()[..], entries[2..4]);
    for bad in ["?limit=0", "?limit=501", "?limit=x"] {
        assert_eq!(problem(&log(bad).await), is(422, "FIELD_INVALID"), "{bad}");
    }
    assert_eq!(world.get("/api/v1/audit", &bob).await.status, 403);
}

#[tokio::test]
async fn who_tries_all_day_does_not_fill_the_audit_log() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let noted = async || {
        let audit = world.get("/api/v1/audit?limit=500", &alice).await.json;
        let entries = audit["entries"].as_array().unwrap().iter();
        entries.filter(|entry| entry["action"] == "login.failed").count()
    };
    for n in 0..15 {
        assert_eq!(login(&world, &format!("eve{n}"), "guess").await.status, 401);
    }
    assert_eq!(noted().await, 10);
    let sent = world.get("/api/v1/login/oidc/callback?code=x", "").await;
    assert_eq!((sent.status.as_u16(), noted().await), (303, 10), "by whatever way");
    world.advance_ms(30_000);
    login(&world, "eve", "guess").await;
    assert_eq!(noted().await, 11);
}

#[tokio::test]
async fn nobody_is_called_what_stands_for_whoever_asks() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let me = json!({ "username": "me", "password": "battery staple" });
    let refused = world.post("/api/v1/users", &alice, me).await;
    assert_eq!(problem(&refused), is(422, "FIELD_INVALID"), "{refused:?}");
}

//! Every route of the API, asked by everybody there is, about what belongs to one of them.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use support::{Answer, World};

/// Who asks: nobody, an agent, a stranger, somebody whom the workspace is shared with, its owner by a token that may
/// only look, its owner, an admin, the server's owner.
const ASKERS: [&str; 8] = ["nobody", "agent", "eve", "sam", "bob (read)", "bob", "carol", "alice"];

/// What each of them is answered about bob's workspace "dev", his token and himself:
/// `U` not logged in, `K` the wrong kind of token, `S` a scope too small, `F` forbidden, `H` hidden: as if it were not
/// there, `A` answered, be it with a refusal of something else.
///
/// A route that is not here fails the test.
const MATRIX: &[(&str, &str, &str)] = &[
    ("POST", "/setup", "AAAAAAAA"),
    ("POST", "/login", "AAAAAAAA"),
    ("GET", "/login/methods", "AAAAAAAA"),
    ("GET", "/login/oidc", "AAAAAAAA"),
    ("GET", "/login/oidc/callback", "AAAAAAAA"),
    ("POST", "/login/device", "AAAAAAAA"),
    ("POST", "/login/device/approve", "AAAAAAAA"),
    ("POST", "/login/device/confirm", "UKAASAAA"),
    ("POST", "/login/device/token", "AAAAAAAA"),
    ("POST", "/logout", "UKAASAAA"),
    ("GET", "/me", "UKAAAAAA"),
    ("POST", "/me/password", "UKAASAAA"),
    ("GET", "/users", "UKFFFFAA"),
    ("POST", "/users", "UKFFSFAA"),
    ("PATCH", "/users/{id}", "UKFFSFAA"),
    ("DELETE", "/users/{id}", "UKFFSFAA"),
    ("GET", "/tokens", "UKAAAAAA"),
    ("POST", "/tokens", "UKAASAAA"),
    ("DELETE", "/tokens/{id}", "UKHHSAAA"),
    ("GET", "/audit", "UKFFFFAA"),
    ("GET", "/workspaces", "UKAAAAAA"),
    ("POST", "/workspaces", "UKAASAAA"),
    ("GET", "/workspaces/{name}", "UKHHAAHH"),
    ("DELETE", "/workspaces/{name}", "UKHHSAHH"),
    ("GET", "/workspaces/{owner}/{name}", "UKHAAAAA"),
    ("DELETE", "/workspaces/{owner}/{name}", "UKHFSAAA"),
    ("GET", "/workspaces/{owner}/{name}/ports", "UKHAAAFF"),
    ("GET", "/workspaces/{owner}/{name}/shares", "UKHFAAAA"),
    ("PUT", "/workspaces/{owner}/{name}/shares/{user}", "UKHFSAFA"),
    ("DELETE", "/workspaces/{owner}/{name}/shares/{user}", "UKHASAAA"),
    ("POST", "/workspaces/{owner}/{name}/agents/{agent}/token", "UKHFSAFA"),
    ("GET", "/workspaces/{owner}/{name}/terminal", "UKHAAAFF"),
    ("GET", "/workspaces/{owner}/{name}/sessions", "UKHAAAFF"),
    ("DELETE", "/workspaces/{owner}/{name}/sessions/{session}", "UKHASAFF"),
    ("GET", "/workspaces/{owner}/{name}/apps", "UKHAAAAA"),
    ("GET", "/workspaces/{owner}/{name}/apps/{slug}", "UKHAAAAA"),
    ("PUT", "/workspaces/{owner}/{name}/apps/{slug}", "UKHFSAFA"),
    ("DELETE", "/workspaces/{owner}/{name}/apps/{slug}", "UKHFSAAA"),
    ("GET", "/apps/open", "AAAAAAAA"),
    ("GET", "/workspaces/{owner}/{name}/tunnels", "UKHAAAAA"),
    ("GET", "/events", "UKAAAAAA"),
    ("GET", "/relays", "UKAAAAAA"),
    ("GET", "/health", "UKAAAAAA"),
    ("GET", "/settings", "UKFFFFAA"),
    ("GET", "/replicas", "UKFFFFAA"),
    ("GET", "/buildinfo", "AAAAAAAA"),
    ("GET", "/derp-map", "AAAAAAAA"),
    ("GET", "/coordinate", "UAAAKAAA"),
];

/// The same about the server's owner instead of bob.
const ABOUT_THE_OWNER: &[(&str, &str, &str)] =
    &[("PATCH", "/users/{id}", "UKFFSFFA"), ("DELETE", "/users/{id}", "UKFFSFFA")];

/// Bodies that are understood, and mostly change nothing.
fn body(method: &str, path: &str) -> Option<Value> {
    Some(match (method, path) {
        ("POST", "/login/device/token") => json!({ "device_code": "x" }),
        ("POST", "/me/password") => json!({ "old": "not the password", "new": "battery staple" }),
        ("POST", "/users") => json!({ "username": "Not A Name", "password": "battery staple" }),
        ("POST", "/tokens" | "/workspaces") => json!({ "name": "" }),
        ("PUT", path) if path.ends_with("{slug}") => {
            json!({ "name": "Web", "port": 8080, "scheme": "http", "sharing": "owner" })
        }
        ("POST" | "PATCH" | "PUT", _) => json!({}),
        _ => return None,
    })
}

fn letter(answer: &Answer) -> char {
    let code = answer.json["code"].as_str().unwrap_or_default();
    match (answer.status.as_u16(), code) {
        (500.., _) => panic!("the server failed: {answer:?}"),
        (401, _) => 'U',
        (_, "TOKEN_WRONG_KIND") => 'K',
        (_, "SCOPE_TOO_SMALL") => 'S',
        (_, "FORBIDDEN" | "WORKSPACE_FOREIGN") => 'F',
        (404, "WORKSPACE_NOT_FOUND" | "TOKEN_NOT_FOUND" | "APP_NOT_FOUND") => 'H',
        (404, "PATH_NOT_FOUND") => panic!("there is no such route: {answer:?}"),
        _ => 'A',
    }
}

/// Everybody's tokens, in the order of [`ASKERS`], and what they ask about.
struct Town {
    world: World,
    tokens: Vec<String>,
}

impl Town {
    async fn new() -> Self {
        let world = World::new().await;
        let alice = world.set_up().await;
        let agent = world.workspace(&alice, "box").await["agent_token"].as_str().unwrap().to_owned();
        let mut tokens = vec![String::new(), agent];
        for (name, role) in [("eve", "member"), ("sam", "member"), ("bob", "member"), ("carol", "admin")] {
            tokens.push(world.user(&alice, name, role).await);
        }
        tokens.push(alice);
        let read = world.post("/api/v1/tokens", &tokens[4], json!({ "name": "r", "scope": "read" })).await;
        tokens.insert(4, read.text_at("/token"));
        Self { world, tokens }
    }

    fn token(&self, who: &str) -> &str {
        &self.tokens[ASKERS.iter().position(|asker| *asker == who).unwrap()]
    }

    async fn id_of(&self, name: &str) -> Option<String> {
        let users = self.world.get("/api/v1/users", self.token("alice")).await.json;
        let users = users["users"].as_array().unwrap();
        let user = users.iter().find(|user| user["name"] == name)?;
        Some(user["id"].as_str().unwrap().to_owned())
    }

    /// The path about bob's things, which are there again if somebody has just removed them.
    async fn path(&self, (method, path): (&str, &str), about: &str) -> String {
        let (world, bob) = (&self.world, self.token("bob"));
        world.post("/api/v1/workspaces", bob, json!({ "name": "dev" })).await;
        world.ask("PUT", "/api/v1/workspaces/bob/dev/shares/sam", bob, None).await;
        if path.ends_with("{slug}") {
            let app = "/api/v1/workspaces/bob/dev/apps/web";
            world.ask("PUT", app, bob, body("PUT", path)).await;
        }
        let id = match (method, path) {
            (_, "/tokens/{id}") => {
                let made = world.post("/api/v1/tokens", bob, json!({ "name": "t", "scope": "read" })).await;
                made.text_at("/info/id")
            }
            ("DELETE", "/users/{id}") if about == "bob" => match self.id_of("vic").await {
                Some(id) => id,
                None => {
                    world.user(self.token("alice"), "vic", "member").await;
                    self.id_of("vic").await.unwrap()
                }
            },
            (_, "/users/{id}") => self.id_of(about).await.unwrap(),
            _ => String::new(),
        };
        let parts = [
            ("{owner}", "bob"),
            ("{name}", "dev"),
            ("{user}", "sam"),
            ("{slug}", "web"),
            ("{agent}", "main"),
            ("{id}", &id),
            ("{session}", "01890000-0000-7000-8000-000000000000"),
        ];
        let filled = parts.iter().fold(path.to_owned(), |path, (part, value)| path.replace(part, value));
        assert!(!filled.contains('{'), "{path} has a part that this test cannot fill");
        format!("/api/v1{filled}")
    }

    /// A login that the asker can do without.
    async fn spare(&self, asker: usize) -> String {
        let name = ASKERS[asker];
        let password = if name == "alice" { "correct horse" } else { "battery staple" };
        let login = json!({ "username": name, "password": password });
        let answer = self.world.post("/api/v1/login", "", login).await;
        answer.json["token"].as_str().map_or_else(|| self.tokens[asker].clone(), str::to_owned)
    }
}

#[tokio::test]
async fn every_route_answers_each_asker_as_the_matrix_says() {
    let town = Town::new().await;
    let mut wrong = String::new();
    let rows = MATRIX.iter().map(|row| (row, "bob"));
    for (&(method, path, wanted), about) in rows.chain(ABOUT_THE_OWNER.iter().map(|row| (row, "alice"))) {
        let mut said = String::new();
        for (asker, token) in town.tokens.iter().enumerate() {
            let at = town.path((method, path), about).await;
            let token = if path == "/logout" { &town.spare(asker).await } else { token };
            said.push(letter(&town.world.ask(method, &at, token, body(method, path)).await));
        }
        if said != wanted {
            writeln!(wrong, "{method} {path} about {about}: {said}, not {wanted}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "as {ASKERS:?}:\n{wrong}");
}

#[tokio::test]
async fn every_route_is_in_the_matrix() {
    let world = World::new().await;
    let document = world.get("/api/openapi.json", "").await.json;
    let paths = document["paths"].as_object().unwrap();
    let there: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    assert!(there.len() > 20, "{there:?}");
    let known = MATRIX.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()));
    let known: BTreeSet<_> = known.collect();
    let missing: Vec<_> = there.difference(&known).collect();
    let gone: Vec<_> = known.difference(&there).collect();
    assert!(missing.is_empty() && gone.is_empty(), "without a row: {missing:?}; without a route: {gone:?}");
}

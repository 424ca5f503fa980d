//! A server in the test's own process, and a plain HTTP client for it.
#![allow(dead_code, reason = "each test program uses its own part")]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;
use tokio::net::TcpStream;
use warren_server::{Clock, Listen, Server, Settings};

/// 2026-01-01T00:00:00Z, when every test begins.
pub(crate) const ORIGIN_MS: i64 = 1_767_225_600_000;

/// A server with a clock that the test moves.
pub(crate) struct World {
    pub(crate) server: Option<Server>,
    pub(crate) http: SocketAddr,
    pub(crate) now: Arc<AtomicI64>,
    pub(crate) directory: TempDir,
}

pub(crate) fn settings(directory: &TempDir) -> Settings {
    let mut settings = Settings::defaults();
    settings.state_dir = Some(directory.path().join("state"));
    settings.http_address = "127.0.0.1:0".parse().unwrap();
    settings.stun_address = Listen(None);
    settings.metrics_address = Listen(None);
    // The clock stands still, and with it what refills.
    settings.api_rate_limit = 0;
    settings
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(&directory);
        settings.database_url = Some("sqlite::memory:".to_owned());
        change(&mut settings);
        let now = Arc::new(AtomicI64::new(ORIGIN_MS));
        let clock = Clock::new({
            let now = Arc::clone(&now);
            move || now.load(Ordering::Relaxed)
        });
        let server = Server::start_at(settings, clock).await.unwrap();
        let http = server.addresses().http.unwrap();
        Self { server: Some(server), http, now, directory }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn advance_ms(&self, by: i64) {
        self.now.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, token: &str, body: Option<Value>) -> Answer {
        ask(self.http, method, path, token, body).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        self.ask("GET", path, token, None).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.ask("POST", path, token, Some(body)).await
    }

    /// Makes the owner, alice; her session token.
    pub(crate) async fn set_up(&self) -> String {
        let token = self.server().setup_token().unwrap();
        let body = json!({ "token": token, "username": "alice", "password": "correct horse" });
        let answer = self.post("/api/v1/setup", "", body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.text_at("/token")
    }

    /// Makes a user and logs in; the session token.
    pub(crate) async fn user(&self, by: &str, name: &str, role: &str) -> String {
        let body = json!({ "username": name, "password": "battery staple", "role": role });
        let answer = self.post("/api/v1/users", by, body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let body = json!({ "username": name, "password": "battery staple" });
        self.post("/api/v1/login", "", body).await.text_at("/token")
    }

    pub(crate) async fn workspace(&self, token: &str, name: &str) -> Value {
        let answer = self.post("/api/v1/workspaces", token, json!({ "name": name })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn text_at(&self, pointer: &str) -> String {
        self.json
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer}: {self:?}"))
            .to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn ask(
    at: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
    body: Option<Value>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("Host", at.to_string());
    if !token.is_empty() {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let body = match body {
        Some(body) => {
            request = request.header("Content-Type", "application/json");
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    send(at, request.body(Full::new(body)).unwrap()).await
}

pub(crate) async fn send(at: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let tcp = TcpStream::connect(at).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    // A stream of events has no end.
    let endless = parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let bytes = if endless { Bytes::new() } else { body.collect().await.unwrap().to_bytes() };
    connection.abort();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let json = serde_json::from_str(&text).unwrap_or_default();
    Answer { status: parts.status, headers: parts.headers, text, json }
}

/// The head alone of an answer that has no end: an upgrade.
pub(crate) async fn head(at: SocketAddr, request: Request<Full<Bytes>>) -> hyper::http::response::Parts {
    let tcp = TcpStream::connect(at).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
    let connection = tokio::spawn(connection.with_upgrades());
    let parts = sender.send_request(request).await.unwrap().into_parts().0;
    connection.abort();
    parts
}

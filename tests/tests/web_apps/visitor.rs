//! A browser as far as origins, cookies and redirects go.

use crate::words;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::BTreeMap;
use tests::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What somebody is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// Where it came from, after redirects.
    pub(crate) url: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        let values: Vec<&str> =
            self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        values.join(" | ")
    }

    /// A header that the app was sent, as it tells.
    pub(crate) fn told(&self, name: &str) -> Option<String> {
        let json = self.json();
        let pairs = json["headers"].as_array()?;
        pairs.iter().find(|pair| pair[0] == name).and_then(|pair| pair[1].as_str().map(str::to_owned))
    }
}

/// A browser. All names lead to the one server.
#[derive(Clone, Default)]
pub(crate) struct Visitor {
    server: String,
    /// By host and port.
    pub(crate) cookies: BTreeMap<String, BTreeMap<String, String>>,
}

/// Sent with a page that somebody opens.
pub(crate) const VISIT: [(&str, &str); 4] = [
    ("sec-fetch-site", "none"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("accept", "text/html"),
];

impl Visitor {
    pub(crate) fn new(server: &str) -> Self {
        Self { server: host_of(server).to_owned(), cookies: BTreeMap::new() }
    }

    /// One that is logged in at the dashboard.
    pub(crate) async fn logged_in(server: &str, name: &str, password: &str) -> Result<Self> {
        let mut visitor = Self::new(server);
        let body = serde_json::json!({ "username": name, "password": password, "cookie": true }).to_string();
        let url = format!("{server}/api/v1/login");
        let answer = visitor
            .send("POST", &url, &[("content-type", "application/json"), ("origin", server)], body)
            .await?;
        if answer.status == 200 { Ok(visitor) } else { Err(format!("{answer:?}")) }
    }

    /// Opens a page and follows where it leads.
    pub(crate) async fn open(&mut self, url: &str) -> Result<Answer> {
        let mut url = url.to_owned();
        for _ in 0..10 {
            let answer = self.send("GET", &url, &VISIT, "").await?;
            let to = answer.header("location");
            if !(300..400).contains(&answer.status) || to.is_empty() {
                return Ok(answer);
            }
            url = if to.starts_with('/') { format!("{}{to}", origin_of(&url)) } else { to };
        }
        Err(format!("{url}: leads round in circles"))
    }

    /// One request, with this browser's cookies.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let (parts, body) = self.begin(method, url, headers, body).await?.into_parts();
        let bytes = body.collect().await.map_err(words)?.to_bytes();
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, url: url.to_owned() })
    }

    /// The same, as soon as the answer begins.
    pub(crate) async fn begin(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>> {
        let (host, path) = (host_of(url).to_owned(), path_of(url));
        let mut request = Request::builder().method(method).uri(path).header("host", &host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookies) = self.cookies.get(&host).filter(|cookies| !cookies.is_empty()) {
            let cookies: Vec<String> =
                cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", cookies.join("; "));
        }
        let tcp = TcpStream::connect(&self.server).await.map_err(words)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tcp)).await.map_err(words)?;
        tokio::spawn(connection.with_upgrades());
        let request = request.body(Full::new(body.into())).map_err(words)?;
        let response = sender.send_request(request).await.map_err(words)?;
        for line in response.headers().get_all("set-cookie") {
            let line = line.to_str().map_err(words)?;
            let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
            let (name, value) = pair.split_once('=').ok_or("a cookie without a name")?;
            let jar = self.cookies.entry(host.clone()).or_default();
            if attributes.contains("Max-Age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }

    /// Bytes as they are, and all that is answered within a moment.
    pub(crate) async fn raw(&self, bytes: &str) -> Result<String> {
        let mut tcp = TcpStream::connect(&self.server).await.map_err(words)?;
        tcp.write_all(bytes.as_bytes()).await.map_err(words)?;
        let mut said = Vec::new();
        let wait = std::time::Duration::from_secs(2);
        let _ = tokio::time::timeout(wait, tcp.read_to_end(&mut said)).await;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

pub(crate) fn host_of(url: &str) -> &str {
    url.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default()
}

pub(crate) fn origin_of(url: &str) -> &str {
    let host = host_of(url);
    url.find(host).map_or(url, |at| &url[..at + host.len()])
}

fn path_of(url: &str) -> &str {
    let rest = &url[origin_of(url).len()..];
    if rest.is_empty() { "/" } else { rest }
}

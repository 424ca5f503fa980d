//! A browser as far as its terminal goes: a WebSocket, a screen, and the word on what it has shown.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::time::Duration;
use tests::Result;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// For something that takes milliseconds, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes shown before the server is told, as the dashboard's page does it.
const ACK_BYTES: u64 = 32 << 10;

/// A terminal in a browser.
pub(crate) struct Browser {
    socket: WebSocketStream<TcpStream>,
    /// What is shown.
    pub(crate) screen: vt100::Parser,
    /// Bytes that came.
    pub(crate) bytes: u64,
    acked: u64,
    /// Whether the server is told what was shown.
    pub(crate) acks: bool,
    /// Words that came and were not looked at yet.
    words: VecDeque<Value>,
    /// Whether a pixel-perfect screen is kept at all.
    draws: bool,
}

impl Browser {
    /// Opens `/api/v1{path}` at the server with this token.
    ///
    /// # Errors
    /// What the server answers instead.
    pub(crate) async fn open(server: &str, token: &str, path: &str) -> Result<Self> {
        let host = server.strip_prefix("http://").ok_or("a test's server has no TLS")?;
        let mut request = format!("ws://{host}/api/v1{path}").into_client_request().map_err(words)?;
        let bearer = format!("Bearer {token}").parse().map_err(words)?;
        request.headers_mut().insert("authorization", bearer);
        let tcp = TcpStream::connect(host).await.map_err(words)?;
        tcp.set_nodelay(true).map_err(words)?;
        let (socket, _) = client_async(request, tcp).await.map_err(words)?;
        let (rows, columns) = (NonZeroU16::new(24), NonZeroU16::new(80));
        let (rows, columns) = rows.zip(columns).ok_or("no size")?;
        Ok(Self {
            socket,
            screen: vt100::Parser::new(rows, columns, 0),
            bytes: 0,
            acked: 0,
            acks: true,
            words: VecDeque::new(),
            draws: true,
        })
    }

    /// Keeps no screen: for those that only count.
    pub(crate) fn blind(mut self) -> Self {
        self.draws = false;
        self
    }

    /// Types.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(crate) async fn type_in(&mut self, text: &str) -> Result {
        self.socket.send(Message::binary(text.as_bytes().to_vec())).await.map_err(words)
    }

    /// Says a word.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(crate) async fn say(&mut self, word: Value) -> Result {
        self.socket.send(Message::text(word.to_string())).await.map_err(words)
    }

    /// Takes the next message in. False at the end.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(crate) async fn take(&mut self) -> Result<bool> {
        match self.socket.next().await {
            None | Some(Ok(Message::Close(_))) => Ok(false),
            Some(Ok(Message::Binary(bytes))) => {
                self.bytes += bytes.len() as u64;
                if self.draws {
                    self.screen.process(&bytes);
                }
                if self.acks && self.bytes - self.acked >= ACK_BYTES {
                    self.acked = self.bytes;
                    self.say(json!({ "ack": self.bytes })).await?;
                }
                Ok(true)
            }
            Some(Ok(Message::Text(text))) => {
                let word: Value = serde_json::from_str(&text).map_err(words)?;
                if let (Some(columns), Some(rows)) =
                    (word["size"]["cols"].as_u64(), word["size"]["rows"].as_u64())
                {
                    let side = |n: u64| u16::try_from(n).ok().and_then(NonZeroU16::new).ok_or("a bad size");
                    self.screen.set_size(side(rows)?, side(columns)?);
                }
                self.words.push_back(word);
                Ok(true)
            }
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => Err(words(error)),
        }
    }

    /// Waits for a word, and gives what it says.
    ///
    /// # Errors
    /// If none comes.
    pub(crate) async fn word(&mut self, name: &str) -> Result<Value> {
        let waiting = async {
            loop {
                if let Some(at) = self.words.iter().position(|word| !word[name].is_null()) {
                    return Ok(self.words.remove(at).unwrap_or_default()[name].take());
                }
                if !self.take().await? {
                    return Err(format!("the connection ended before \"{name}\": {:?}", self.words));
                }
            }
        };
        timeout(PATIENCE, waiting).await.map_err(|_| format!("no \"{name}\" came"))?
    }

    /// Waits until the screen has this text.
    ///
    /// # Errors
    /// If it does not come, with the screen as it is.
    pub(crate) async fn until(&mut self, text: &str) -> Result {
        let waiting = async {
            while !self.screen.screen().contents().contains(text) {
                if !self.take().await? {
                    return Err("the connection ended".to_owned());
                }
            }
            Ok(())
        };
        let seen = timeout(PATIENCE, waiting).await.unwrap_or_else(|_| Err("it did not come".to_owned()));
        seen.map_err(|why| format!("{text:?}: {why}; the screen:\n{}", self.screen.screen().contents()))
    }

    /// Takes in whatever comes for this long.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(crate) async fn watch_for(&mut self, time: Duration) -> Result {
        let watching = async {
            while self.take().await? {}
            Ok(())
        };
        timeout(time, watching).await.unwrap_or(Ok(()))
    }
}

/// An error in words.
pub(crate) fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Asks the API: the status and the document.
///
/// # Errors
/// If there is no answer.
pub(crate) fn ask(
    server: &str,
    token: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Result<(u16, Value)> {
    let host = server.strip_prefix("http://").ok_or("a test's server has no TLS")?;
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let mut tcp = std::net::TcpStream::connect(host).map_err(words)?;
    let bearer = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let length = body.len();
    write!(
        tcp,
        "{method} /api/v1{path} HTTP/1.1\r\nHost: {host}\r\n{bearer}Connection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .map_err(words)?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).map_err(words)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    Ok((status, serde_json::from_str(body).unwrap_or_default()))
}

/// The head of the answer to a request written by hand.
///
/// # Errors
/// If there is none.
pub(crate) fn head(server: &str, request: &str) -> Result<String> {
    let host = server.strip_prefix("http://").ok_or("a test's server has no TLS")?;
    let mut tcp = std::net::TcpStream::connect(host).map_err(words)?;
    tcp.write_all(request.as_bytes()).map_err(words)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tcp.read_exact(&mut byte).map_err(words)?;
        head.push(byte[0]);
    }
    String::from_utf8(head).map_err(words)
}

/// Logs the owner of a deployment in.
///
/// # Errors
/// If the server refuses.
pub(crate) fn log_in(server: &str) -> Result<String> {
    let who = json!({ "username": "alice", "password": "correct horse battery staple" });
    let (_, answer) = ask(server, "", "POST", "/login", Some(who))?;
    answer["token"].as_str().map(str::to_owned).ok_or_else(|| format!("no token in {answer}"))
}

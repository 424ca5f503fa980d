//! The coordination WebSocket, both ends: here a stream of messages, in [`hub`] the coordinator's server.
//!
//! Each text message is one JSON document. Messages are small and rare, so they may wait in memory, bounded.

use crate::relay_stream::authority;
use crate::relay_stream::upgrade::{self, UpgradeError, words};
use futures_util::{Sink, Stream};
use proto_core::limits::CONTROL_MESSAGE_MAX;
use proto_core::machine::StreamTarget;
use proto_core::wire::control::ToNode;
use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

pub mod hub;
mod records;

/// Bytes that a socket may have taken but not sent. The machines hold back long before that.
const WRITE_BUFFER_MAX: usize = 4 * CONTROL_MESSAGE_MAX;

/// A stream of coordination messages.
pub struct ControlStream<T> {
    socket: Option<Box<WebSocketStream<T>>>,
    /// Messages that arrived with the answer to the request itself.
    early: VecDeque<Vec<u8>>,
    unsent: VecDeque<Vec<u8>>,
    closing: bool,
    said_goodbye: bool,
    /// It broke under way: see [`ControlStream::is_broken`].
    broken: bool,
}

/// Asks for the WebSocket. A server that refuses the token by its HTTP status, with a refusal as the body, is
/// heard as one that refuses it by a message: the stream opens, says so and ends. The same status without one is
/// somebody else's, a proxy's or a captive portal's, and says nothing about the token.
///
/// # Errors
/// [`UpgradeError`].
pub async fn connect<T>(mut io: T, target: &StreamTarget) -> Result<ControlStream<T>, UpgradeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let host = authority(target);
    let answer = upgrade::websocket(&mut io, target, "").await?;
    if answer.code != 101 {
        let body = answer.body(&mut io, CONTROL_MESSAGE_MAX).await;
        let refusal = ToNode::parse(&body).ok().filter(|m| matches!(m, ToNode::Refused { to: None, .. }));
        return match refusal {
            Some(refusal) if matches!(answer.code, 401 | 403) => Ok(ControlStream::refused(&refusal)),
            _ => Err(upgrade::refused(host, &target.path, (answer.code, &answer.reason), &body)),
        };
    }
    let read = answer.rest.to_vec();
    Ok(ControlStream::new(WebSocketStream::from_partially_read(io, read, Role::Client, Some(config())).await))
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        // Connections are many and quiet: what is not needed all the time is not kept.
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(CONTROL_MESSAGE_MAX))
        .max_frame_size(Some(CONTROL_MESSAGE_MAX))
}

impl<T: AsyncRead + AsyncWrite + Unpin> ControlStream<T> {
    fn new(socket: WebSocketStream<T>) -> Self {
        let socket = Some(Box::new(socket));
        Self {
            socket,
            early: VecDeque::new(),
            unsent: VecDeque::new(),
            closing: false,
            said_goodbye: false,
            broken: false,
        }
    }

    /// The server's end over a connection that has answered the request already; `read` are the bytes that
    /// came after it.
    pub async fn accepted(io: T, read: Vec<u8>) -> Self {
        Self::new(WebSocketStream::from_partially_read(io, read, Role::Server, Some(config())).await)
    }

    fn refused(refusal: &ToNode) -> Self {
        Self {
            socket: None,
            early: [refusal.encode()].into(),
            unsent: VecDeque::new(),
            closing: false,
            said_goodbye: false,
            broken: false,
        }
    }

    /// Whether it ended for want of an answer or a way, which says nothing of the other end.
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Queues a message; [`ControlStream::poll_flush`] sends it.
    pub fn queue(&mut self, message: Vec<u8>) {
        self.unsent.push_back(message);
    }

    /// No more messages will be queued: what was queued is sent, then the stream is closed, which takes a round
    /// trip; what arrives meanwhile is not read any more.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// The next message; none at the stream's end.
    ///
    /// # Errors
    /// Why the stream broke, in words.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Vec<u8>>, String>> {
        if let Some(message) = self.early.pop_front() {
            return Poll::Ready(Ok(Some(message)));
        }
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(None)) };
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut **socket).poll_next(cx)) {
                None | Some(Ok(Message::Close(_))) => Ok(None),
                Some(Ok(Message::Text(text))) => Ok(Some(text.as_bytes().to_vec())),
                Some(Ok(Message::Binary(bytes))) => Ok(Some(bytes.to_vec())),
                Some(Ok(_)) => continue,
                Some(Err(e)) => Err(broke(&e, &mut self.broken)),
            });
        }
    }

    /// Sends what is queued; ready when nothing waits any more. Call it until then.
    ///
    /// # Errors
    /// Why the stream broke, in words.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let Some(socket) = &mut self.socket else {
            self.unsent.clear();
            return Poll::Ready(Ok(()));
        };
        let mut socket = Pin::new(&mut **socket);
        while !self.unsent.is_empty() {
            ready!(socket.as_mut().poll_ready(cx)).map_err(|e| broke(&e, &mut self.broken))?;
            if let Some(bytes) = self.unsent.pop_front() {
                let message = match String::from_utf8(bytes) {
                    Ok(text) => Message::text(text),
                    Err(e) => Message::binary(e.into_bytes()),
                };
                socket.as_mut().start_send(message).map_err(|e| broke(&e, &mut self.broken))?;
            }
        }
        if self.closing {
            if !self.said_goodbye {
                ready!(socket.as_mut().poll_close(cx)).map_err(|e| broke(&e, &mut self.broken))?;
                self.said_goodbye = true;
            }
            // Whoever closes a connection with something unread resets it, and the reset may overtake what was
            // said last. So the other side's closing word is awaited.
            while let Some(Ok(_)) = ready!(socket.as_mut().poll_next(cx)) {}
            return Poll::Ready(Ok(()));
        }
        socket.poll_flush(cx).map_err(|e| broke(&e, &mut self.broken))
    }
}

/// What broke a stream, in words, and whether that was under way.
fn broke(error: &Error, under_way: &mut bool) -> String {
    let Error::Io(io) = error else { return words(error) };
    *under_way = matches!(
        io.kind(),
        ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    );
    words(error)
}

impl<T> fmt::Debug for ControlStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlStream").field("unsent", &self.unsent.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What comes of a request that is answered with these parts, one after the other, and left open.
    async fn answered(parts: &[&str]) -> Result<String, String> {
        let (ours, mut theirs) = tokio::io::duplex(4_096);
        let target = StreamTarget {
            protocol: proto_core::machine::StreamProtocol::Control,
            host: "warren.example".into(),
            port: 80,
            addresses: Vec::new(),
            tls: None,
            path: "/coordinate".into(),
            bearer: Some("token".into()),
        };
        let server = async {
            let mut request = [0; 1_024];
            let _request = theirs.read(&mut request).await.unwrap();
            for part in parts {
                theirs.write_all(part.as_bytes()).await.unwrap();
                // The reader takes the parts one by one.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let (connected, ()) = tokio::join!(connect(ours, &target), server);
        let mut stream = connected.map_err(|e| e.to_string())?;
        let message = std::future::poll_fn(|cx| stream.poll_message(cx)).await?.unwrap_or_default();
        Ok(String::from_utf8(message).unwrap())
    }

    #[tokio::test]
    async fn a_status_without_a_refusal_is_not_the_servers_word() {
        let page = "HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\n\r\n<h1>Pay!</h1>";
        insta::assert_snapshot!(answered(&[page]).await.unwrap_err(), @"warren.example refused /coordinate: 403 Forbidden: <h1>Pay!</h1>");
        let empty = "HTTP/1.1 401 Unauthorized\r\n\r\n";
        insta::assert_snapshot!(answered(&[empty]).await.unwrap_err(), @"warren.example refused /coordinate: 401 Unauthorized");
    }

    #[tokio::test]
    async fn a_refusal_is_heard_though_it_comes_in_pieces() {
        let body = r#"{"type":"refused","code":"TOKEN_UNKNOWN","message":"no such token"}"#;
        let head = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n", body.len());
        for parts in [&[&*format!("{head}{body}")][..], &[&head, &body[..20], &body[20..]]] {
            assert_eq!(answered(parts).await.unwrap(), body);
        }
    }

    #[tokio::test]
    async fn an_answer_to_another_request_is_none() {
        let other =
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        insta::assert_snapshot!(answered(&[other]).await.unwrap_err(), @"the connection to warren.example broke during the request: its answer does not belong to our request");
    }
}

//! The coordination WebSocket, both ends: here a stream of messages, in [`hub`] the coordinator's server.
//!
//! Each text message is one JSON document. Messages are small and rare, so they may wait in memory, bounded.

use crate::relay_stream::authority;
use crate::relay_stream::upgrade::{UpgradeError, answered, words};
use futures_util::{Sink, Stream};
use proto_core::limits::CONTROL_MESSAGE_MAX;
use proto_core::machine::StreamTarget;
use proto_core::wire::control::ToNode;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

pub mod hub;
mod records;

/// The code that a node is told if its token is wrong or expired.
pub const CODE_UNAUTHORIZED: &str = "UNAUTHORIZED";

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
}

/// Asks for the WebSocket. A server that refuses the token by its HTTP status is heard as one that refuses it
/// by a message: the stream opens, says so and ends.
///
/// # Errors
/// [`UpgradeError`].
pub async fn connect<T>(io: T, target: &StreamTarget) -> Result<ControlStream<T>, UpgradeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let host = authority(target);
    let bad = |what| UpgradeError::Target { host: host.escape_debug().to_string(), what };
    let mut request = http::Request::builder()
        .uri(format!("ws://{host}{}", target.path))
        .header("Host", &host)
        .header("User-Agent", concat!("warren/", env!("CARGO_PKG_VERSION")))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key());
    if let Some(bearer) = &target.bearer {
        request = request.header("Authorization", format!("Bearer {bearer}"));
    }
    let request = request.body(()).map_err(|_| bad("the path or token"))?;
    match tokio_tungstenite::client_async_with_config(request, io, Some(config())).await {
        Ok((socket, _)) => Ok(ControlStream::new(socket)),
        Err(Error::Http(answer)) => {
            let code = answer.status().as_u16();
            let body = answer.body().as_deref().unwrap_or_default();
            if code == 401 || code == 403 {
                return Ok(ControlStream::refused(body));
            }
            Err(answered(Error::Http(answer), host, &target.path))
        }
        Err(error) => Err(answered(error, host, &target.path)),
    }
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
        Self { socket, early: VecDeque::new(), unsent: VecDeque::new(), closing: false, said_goodbye: false }
    }

    /// The server's end over a connection that has answered the request already; `read` are the bytes that
    /// came after it.
    pub async fn accepted(io: T, read: Vec<u8>) -> Self {
        Self::new(WebSocketStream::from_partially_read(io, read, Role::Server, Some(config())).await)
    }

    fn refused(body: &[u8]) -> Self {
        let said = ToNode::parse(body).ok().filter(|m| matches!(m, ToNode::Refused { .. }));
        let message = said.unwrap_or_else(|| ToNode::Refused {
            to: None,
            code: CODE_UNAUTHORIZED.into(),
            message: "the server does not accept this token".into(),
        });
        Self {
            socket: None,
            early: [message.encode()].into(),
            unsent: VecDeque::new(),
            closing: false,
            said_goodbye: false,
        }
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
                Some(Err(e)) => Err(words(&e)),
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
            ready!(socket.as_mut().poll_ready(cx)).map_err(|e| words(&e))?;
            if let Some(bytes) = self.unsent.pop_front() {
                let message = match String::from_utf8(bytes) {
                    Ok(text) => Message::text(text),
                    Err(e) => Message::binary(e.into_bytes()),
                };
                socket.as_mut().start_send(message).map_err(|e| words(&e))?;
            }
        }
        if self.closing {
            if !self.said_goodbye {
                ready!(socket.as_mut().poll_close(cx)).map_err(|e| words(&e))?;
                self.said_goodbye = true;
            }
            // Whoever closes a connection with something unread resets it, and the reset may overtake what was
            // said last. So the other side's closing word is awaited.
            while let Some(Ok(_)) = ready!(socket.as_mut().poll_next(cx)) {}
            return Poll::Ready(Ok(()));
        }
        socket.poll_flush(cx).map_err(|e| words(&e))
    }
}

impl<T> fmt::Debug for ControlStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlStream").field("unsent", &self.unsent.len()).finish_non_exhaustive()
    }
}

//! DERP inside WebSocket messages, both ends: for browsers, and for proxies that let nothing else through.
//!
//! The messages are a byte stream cut anywhere: frames of DERP may span messages and share them, as Tailscale's
//! servers and clients have it. Nothing is compressed, since what WireGuard sealed cannot be.

use super::authority;
use super::upgrade::{self, UpgradeError};
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use proto_core::machine::StreamTarget;
use proto_core::wire::derp::{FRAME_HEADER_LEN, PACKET_MAX};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The subprotocol's name, as Tailscale's clients in browsers ask for it.
pub const SUBPROTOCOL: &str = "derp";

/// Bytes of one message that we send: what is in it can only be read once all of it has come.
const MESSAGE: usize = 64 * 1024;
/// Bytes of one message that we take: two packets of the longest kind, for peers that collect several. All of it is
/// kept until its end has come, and a relay has thousands of peers whom it does not know yet.
const MESSAGE_MAX: usize = 2 * (FRAME_HEADER_LEN + 32 + PACKET_MAX);

/// A byte stream in binary messages.
#[derive(Debug)]
pub struct WebSocketIo<T> {
    socket: Box<WebSocketStream<T>>,
    /// What is left of the message being read.
    message: Bytes,
}

/// Asks for DERP in a WebSocket.
///
/// # Errors
/// [`UpgradeError`].
pub async fn connect<T>(mut io: T, target: &StreamTarget) -> Result<WebSocketIo<T>, UpgradeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let protocol = format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n");
    let answer = upgrade::websocket(&mut io, target, &protocol).await?;
    if answer.code != 101 {
        let status = (answer.code, answer.reason.as_str());
        return Err(upgrade::refused(authority(target), &target.path, status, &answer.rest));
    }
    let read = answer.rest.to_vec();
    Ok(WebSocketIo::new(WebSocketStream::from_partially_read(io, read, Role::Client, Some(config())).await))
}

/// The header fields of the answer 101 to a request with this `Sec-WebSocket-Key`.
#[must_use]
pub fn accept_fields(key: &str) -> [(&'static str, String); 4] {
    [
        ("Upgrade", "websocket".into()),
        ("Connection", "Upgrade".into()),
        ("Sec-WebSocket-Accept", derive_accept_key(key.as_bytes())),
        ("Sec-WebSocket-Protocol", SUBPROTOCOL.into()),
    ]
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        // Buffers that are not needed all the time are not kept: a relay's connections are many and quiet.
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MESSAGE)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
}

impl<T: AsyncRead + AsyncWrite + Unpin> WebSocketIo<T> {
    fn new(socket: WebSocketStream<T>) -> Self {
        Self { socket: Box::new(socket), message: Bytes::new() }
    }

    /// The server's end over a connection that has answered the request already; `read` are the bytes that
    /// came after it.
    pub async fn accepted(io: T, read: Vec<u8>) -> Self {
        Self::new(WebSocketStream::from_partially_read(io, read, Role::Server, Some(config())).await)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.message.is_empty() {
            match ready!(Pin::new(&mut *self.socket).poll_next(cx)) {
                None | Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed)) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(Message::Binary(bytes))) => self.message = bytes,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(text())),
                // Pings are answered by the library.
                Some(Ok(_)) => {}
                Some(Err(e)) => return Poll::Ready(Err(io_error(e))),
            }
        }
        let n = self.message.len().min(buf.remaining());
        buf.put_slice(&self.message[..n]);
        self.message.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut *self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(io_error)?;
        let taken = &buf[..buf.len().min(MESSAGE)];
        if !taken.is_empty() {
            socket.start_send(Message::Binary(Bytes::copy_from_slice(taken))).map_err(io_error)?;
        }
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_close(cx).map_err(io_error)
    }
}

fn text() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a text message where DERP should be")
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(e) => e,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn pair() -> (WebSocketIo<tokio::io::DuplexStream>, WebSocketIo<tokio::io::DuplexStream>) {
        let (a, b) = tokio::io::duplex(8 * 1024);
        let client = WebSocketStream::from_raw_socket(a, Role::Client, Some(config())).await;
        (WebSocketIo::new(client), WebSocketIo::accepted(b, Vec::new()).await)
    }

    #[tokio::test]
    async fn bytes_come_as_they_were_sent_however_they_are_cut() {
        let (mut a, mut b) = pair().await;
        let bytes: Vec<u8> = (0..1_000_003u32).map(|n| (n % 251) as u8).collect();
        let sent = bytes.clone();
        let writing = async {
            a.write_all(&sent).await.unwrap();
            a.shutdown().await.unwrap();
        };
        let reading = async {
            let mut all = Vec::new();
            b.read_to_end(&mut all).await.unwrap();
            all
        };
        let ((), all) = tokio::join!(writing, reading);
        assert!(all == bytes, "{} of {} bytes", all.len(), bytes.len());
    }

    #[tokio::test]
    async fn text_is_refused() {
        let (mut a, mut b) = pair().await;
        Pin::new(&mut *a.socket).start_send(Message::text("hello")).unwrap();
        a.flush().await.unwrap();
        assert_eq!(b.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_message_without_end_is_refused() {
        let (mut a, b) = tokio::io::duplex(64);
        let mut b = WebSocketIo::accepted(b, Vec::new()).await;
        // A masked binary frame that announces 4 GiB.
        a.write_all(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]).await.unwrap();
        assert_eq!(b.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);

        // The same in fragments, each of which might be: no more is kept than two packets are long.
        let (mut a, b) = tokio::io::duplex(1 << 20);
        let mut b = WebSocketIo::accepted(b, Vec::new()).await;
        let fragment = |first: bool| {
            let mut frame = vec![if first { 0x02 } else { 0 }, 0xfe, 0x80, 0, 1, 2, 3, 4];
            frame.resize(8 + 0x8000, 0);
            frame
        };
        for n in 0..5 {
            a.write_all(&fragment(n == 0)).await.unwrap();
        }
        let read = tokio::time::timeout(std::time::Duration::from_secs(10), b.read_u8()).await;
        assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

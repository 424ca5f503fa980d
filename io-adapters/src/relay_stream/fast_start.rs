//! DERP without waiting for the upgrade: whoever knows the relay's key already, from its certificate, sends the
//! login along with the request. The relay then answers with DERP and not with HTTP.
//!
//! The login is the relay link's business and begins when it hears the relay's key. So the frame that says it is
//! put before what the relay sends, and the relay's own one is taken away when it comes.

use super::upgrade;
use bytes::{Buf, Bytes};
use proto_core::key::NodePublic;
use proto_core::machine::StreamTarget;
use proto_core::wire::derp::Frame;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of DERP's bytes whose request has not been sent yet: it goes with the first write.
#[derive(Debug)]
pub struct FastStart<T> {
    io: T,
    /// The frame that has not been read yet.
    hello: Bytes,
    /// What of the relay's own frame has not come yet.
    expected: Bytes,
    /// What is to be written before anything else.
    request: Vec<u8>,
    sent: usize,
    /// Whether the first write has joined the request.
    begun: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> FastStart<T> {
    /// Begins with a relay whose key is known.
    ///
    /// # Errors
    /// If the target cannot be put into a request.
    pub fn new(io: T, target: &StreamTarget, relay: NodePublic) -> Result<Self, upgrade::UpgradeError> {
        let request = upgrade::request(target, "Upgrade: DERP\r\nDerp-Fast-Start: 1\r\n")?.into_bytes();
        let hello = Bytes::from(Frame::ServerKey { key: relay }.to_bytes());
        Ok(Self { io, expected: hello.clone(), hello, request, sent: 0, begun: false })
    }

    /// Writes what is to come first.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.request.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.request[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        self.request = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Takes away the frame that was heard before it came.
    fn poll_expected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.expected.is_empty() {
            let mut room = [0; 64];
            let wanted = self.expected.len().min(room.len());
            let mut read = ReadBuf::new(&mut room[..wanted]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            let read = read.filled();
            if read.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if *read != self.expected[..read.len()] {
                return Poll::Ready(Err(unexpected(read)));
            }
            self.expected.advance(read.len());
        }
        Poll::Ready(Ok(()))
    }
}

/// Another beginning than the certificate promised.
fn unexpected(read: &[u8]) -> io::Error {
    let why = if read.starts_with(b"HTTP/") {
        let line = String::from_utf8_lossy(read);
        let line = line.lines().next().unwrap_or_default();
        format!("the relay refused: {}", line.escape_debug())
    } else {
        "the relay's key is not the one that its certificate tells".into()
    };
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for FastStart<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.hello.is_empty() {
            let n = self.hello.len().min(buf.remaining());
            buf.put_slice(&self.hello[..n]);
            self.hello.advance(n);
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_expected(cx))?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for FastStart<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !self.begun && self.sent == 0 && !buf.is_empty() {
            self.begun = true;
            // One packet holds both; what does not leave at once goes before the next write.
            let all = [&self.request[..], buf].concat();
            self.request = all;
            if let Poll::Ready(Err(e)) = self.poll_begin(cx) {
                return Poll::Ready(Err(e));
            }
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(self.poll_begin(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_begin(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_begin(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::machine::StreamProtocol;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    const RELAY: NodePublic = NodePublic([7; 32]);

    fn begin() -> (FastStart<DuplexStream>, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(4_096);
        let target = StreamTarget {
            protocol: StreamProtocol::Derp,
            host: "relay.test".into(),
            port: 443,
            addresses: Vec::new(),
            tls: None,
            path: "/derp".into(),
            bearer: None,
        };
        (FastStart::new(ours, &target, RELAY).unwrap(), theirs)
    }

    #[tokio::test]
    async fn the_login_travels_with_the_request_and_the_key_is_heard_once() {
        let (mut client, mut relay) = begin();
        let frame = Frame::ServerKey { key: RELAY }.to_bytes();
        let mut heard = vec![0; frame.len()];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, frame, "before the relay has said anything");
        client.write_all(b"login").await.unwrap();
        let mut asked = vec![0; 4_096];
        let n = relay.read(&mut asked).await.unwrap();
        let asked = String::from_utf8_lossy(&asked[..n]).into_owned();
        assert!(asked.starts_with("GET /derp HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("\r\nDerp-Fast-Start: 1\r\n"), "{asked}");
        assert!(asked.ends_with("\r\n\r\nlogin"), "{asked}");
        // However the relay's own frame is cut.
        for byte in &frame {
            relay.write_all(&[*byte]).await.unwrap();
        }
        relay.write_all(b"welcome").await.unwrap();
        let mut rest = [0; 7];
        client.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"welcome");
    }

    #[tokio::test]
    async fn another_key_and_an_answer_in_http_are_errors() {
        let other = Frame::ServerKey { key: NodePublic([8; 32]) }.to_bytes();
        for (said, words) in [
            (&other[..], "the relay's key is not the one that its certificate tells"),
            (
                b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
                "the relay refused: HTTP/1.1 503 Service Unavailable",
            ),
        ] {
            let (mut client, mut relay) = begin();
            client.read_exact(&mut vec![0; other.len()]).await.unwrap();
            relay.write_all(said).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap_err().to_string(), words);
        }
    }
}

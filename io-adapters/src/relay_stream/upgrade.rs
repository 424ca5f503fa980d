//! The HTTP/1.1 upgrades, client end, to DERP and in parts to others: written by hand, so that bytes after the
//! response's head, often in the same segment, are never lost.

use super::authority;
use bytes::{Buf, Bytes};
use proto_core::machine::StreamTarget;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Bytes of a response's head: a proxy's longest are a few KiB.
const HEAD_MAX: usize = 16 * 1024;
/// Bytes of a refusal's body that are shown.
const BODY_SHOWN: usize = 200;

/// Why a request was not answered as it should.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The target cannot be put into a request.
    #[error("{what} of {host} has characters that no HTTP request may have")]
    Target {
        /// The host.
        host: String,
        /// Which part.
        what: &'static str,
    },
    /// The connection broke.
    #[error("the connection to {host} broke during the request: {why}")]
    Broken {
        /// With whom.
        host: String,
        /// How.
        why: String,
    },
    /// Not HTTP, or a head without an end.
    #[error("{host} does not speak HTTP: it answered \"{start}\"")]
    NotHttp {
        /// Who.
        host: String,
        /// How its answer begins.
        start: String,
    },
    /// Another answer than the one wanted.
    #[error("{host} refused {path}: {status}")]
    Refused {
        /// Who.
        host: String,
        /// What was asked for.
        path: String,
        /// The status line without its version, and how the body begins.
        status: String,
        /// The status alone.
        code: u16,
    },
}

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub struct Prefixed<T> {
    prefix: Bytes,
    io: T,
}

impl<T> Prefixed<T> {
    /// Puts `prefix` before what `io` will give.
    pub const fn new(prefix: Bytes, io: T) -> Self {
        Self { prefix, io }
    }
}

/// Asks for DERP.
///
/// # Errors
/// [`UpgradeError`].
pub async fn derp<T>(mut io: T, target: &StreamTarget) -> Result<Prefixed<T>, UpgradeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let host = authority(target);
    let request = request(target, "Upgrade: DERP\r\n")?;
    let Answer { code, reason, rest, .. } = ask(&mut io, &request, &host).await?;
    if code != 101 {
        return Err(refused(host, &target.path, (code, &reason), &rest));
    }
    Ok(Prefixed::new(rest, io))
}

/// The head of an answer, and what came with it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) reason: String,
    head: Vec<u8>,
    pub(crate) rest: Bytes,
}

impl Answer {
    /// A header's value, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = core::str::from_utf8(&self.head).ok()?;
        let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body: as long as its head says and at most `max`; what came with the head if it says nothing.
    pub(crate) async fn body<T: AsyncRead + Unpin>(&self, io: &mut T, max: usize) -> Vec<u8> {
        let mut body = self.rest.to_vec();
        let length = self.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while body.len() < usize::min(length, max) {
            if !matches!(io.read_buf(&mut body).await, Ok(1..)) {
                break;
            }
        }
        body
    }
}

/// Sends a request and reads the head of its answer.
pub(crate) async fn ask<T>(io: &mut T, request: &str, host: &str) -> Result<Answer, UpgradeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let host = || host.to_owned();
    let broken = |e: io::Error| UpgradeError::Broken { host: host(), why: e.to_string() };
    io.write_all(request.as_bytes()).await.map_err(broken)?;
    io.flush().await.map_err(broken)?;

    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head_end(&head) {
            break end;
        }
        let foreign = !head.starts_with(&b"HTTP/1."[..head.len().min(7)]);
        if foreign || head.len() > HEAD_MAX {
            return Err(UpgradeError::NotHttp { host: host(), start: shown(&head, 40) });
        }
        if io.read_buf(&mut head).await.map_err(broken)? == 0 {
            let why = if head.is_empty() { "it was closed" } else { "it was closed halfway" };
            return Err(UpgradeError::Broken { host: host(), why: why.into() });
        }
    };
    let rest = Bytes::from(head.split_off(end));
    let Some((code, reason)) = status(&head) else {
        return Err(UpgradeError::NotHttp { host: host(), start: shown(&head, 40) });
    };
    Ok(Answer { code, reason, head, rest })
}

/// Asks for a WebSocket; `fields` are further ones. An answer 101 belongs to this very request.
///
/// By hand: of a refusal's body, the library keeps only what came together with the head.
pub(crate) async fn websocket<T>(
    io: &mut T,
    target: &StreamTarget,
    fields: &str,
) -> Result<Answer, UpgradeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (host, key) = (authority(target), generate_key());
    let ours =
        format!("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{fields}");
    let answer = ask(io, &request(target, &ours)?, &host).await?;
    let accepted = answer.header("sec-websocket-accept") == Some(derive_accept_key(key.as_bytes()).as_str());
    if answer.code == 101 && !accepted {
        let why = "its answer does not belong to our request".into();
        return Err(UpgradeError::Broken { host, why });
    }
    Ok(answer)
}

/// The error of another status than the one wanted.
pub(crate) fn refused(host: String, path: &str, (code, reason): (u16, &str), body: &[u8]) -> UpgradeError {
    let body = shown(body, BODY_SHOWN);
    let colon = if body.is_empty() { "" } else { ": " };
    let status = format!("{}{colon}{body}", format!("{code} {reason}").trim());
    UpgradeError::Refused { host, path: path.into(), status, code }
}

/// The request's bytes; `fields` are those of the protocol asked for, whole lines.
pub(crate) fn request(target: &StreamTarget, fields: &str) -> Result<String, UpgradeError> {
    let host = authority(target);
    let bad = |what| UpgradeError::Target { host: host.escape_debug().to_string(), what };
    if !host.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad("the name"));
    }
    if !target.path.starts_with('/') || !target.path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad("the path"));
    }
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: warren/{}\r\nConnection: Upgrade\r\n",
        target.path,
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(bearer) = &target.bearer {
        if !bearer.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("the token"));
        }
        request.push_str(&format!("Authorization: Bearer {bearer}\r\n"));
    }
    request.push_str(fields);
    request.push_str("\r\n");
    Ok(request)
}

/// Why a WebSocket broke, in words.
pub(crate) fn words(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            "the connection was closed".into()
        }
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            "the connection broke".into()
        }
        tungstenite::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    }
}

/// Where a head ends: after its empty line.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)
}

fn status(head: &[u8]) -> Option<(u16, String)> {
    let line = head.split(|&b| b == b'\r').next()?;
    let line = core::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    if !version.starts_with("HTTP/1.") || code.len() != 3 {
        return None;
    }
    Some((code.parse().ok()?, reason.to_string()))
}

/// The beginning of what somebody sent, fit to be shown.
fn shown(bytes: &[u8], max: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(max)]);
    text.trim().escape_debug().to_string()
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..n]);
        self.prefix.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefixed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::machine::StreamProtocol;

    fn target() -> StreamTarget {
        StreamTarget {
            protocol: StreamProtocol::Derp,
            host: "relay.test".into(),
            port: 7080,
            addresses: vec!["192.0.2.1".parse().unwrap()],
            tls: None,
            path: "/derp".into(),
            bearer: Some("secret".into()),
        }
    }

    async fn answered(answer: &[u8]) -> Result<Vec<u8>, UpgradeError> {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut io = derp(ours, &target()).await?;
        let mut rest = Vec::new();
        io.read_to_end(&mut rest).await.unwrap();
        Ok(rest)
    }

    #[tokio::test]
    async fn bytes_after_the_head_are_kept() {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nDerp-Version: 2\r\n\r\n";
        let mut answer = head.to_vec();
        answer.extend_from_slice(b"\x01\0\0\0\x02hi");
        assert_eq!(answered(&answer).await.unwrap(), b"\x01\0\0\0\x02hi");
    }

    #[tokio::test]
    async fn refusals_are_told_in_words() {
        let mut told = Vec::new();
        for answer in [
            &b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nno relay\n"[..],
            b"HTTP/1.1 502\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"HTTP/1.1 101 Switch",
            b"",
            b"HTTP/1.1 abc\r\n\r\n",
        ] {
            told.push(answered(answer).await.unwrap_err().to_string());
        }
        insta::assert_snapshot!(told.join("\n"), @r#"
        relay.test:7080 refused /derp: 404 Not Found: no relay
        relay.test:7080 refused /derp: 502
        relay.test:7080 does not speak HTTP: it answered "SSH-2.0-OpenSSH_9.9"
        the connection to relay.test:7080 broke during the request: it was closed halfway
        the connection to relay.test:7080 broke during the request: it was closed
        relay.test:7080 does not speak HTTP: it answered "HTTP/1.1 abc"
        "#);
    }

    #[test]
    fn nothing_of_a_target_can_add_a_header() {
        let mut forged = target();
        forged.path = "/derp HTTP/1.1\r\nX: y".into();
        assert!(request(&forged, "").is_err());
        let mut forged = target();
        forged.host = "relay\r\nX: y".into();
        assert!(request(&forged, "").is_err());
        let mut forged = target();
        forged.bearer = Some("a\r\nX: y".into());
        assert!(request(&forged, "").is_err());
    }
}

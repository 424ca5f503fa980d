//! As much of an HTTP/1.1 server as relays need: request heads, and the answers of `/derp` and its
//! companions. Large servers bring their own and use only the answers.

use crate::relay_stream::upgrade::head_end;
use crate::relay_stream::websocket::SUBPROTOCOL;
use proto_core::key::NodePublic;
use proto_core::wire::derp::VERSION;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a request's head: what proxies add stays far below.
pub const HEAD_MAX: usize = 16 * 1024;
/// Bytes to have more room for when a head is longer than most: thousands may keep theirs for a while.
const PIECE: usize = 2 * 1024;
/// Letters of a method: more than any has that is asked of a relay.
const METHOD_MAX: usize = 16;
/// Header fields of a request.
const FIELDS_MAX: usize = 100;

/// A request's head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The method.
    pub method: String,
    /// The path without scheme, host and query, as sent.
    pub path: String,
    fields: Vec<(String, String)>,
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1.
    #[error("not an HTTP/1 request")]
    Malformed,
    /// Longer than [`HEAD_MAX`] or with too many fields.
    #[error("the request's head is too long")]
    TooLong,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Head {
    /// Reads the next request's head, and after it into `buffer` whatever came along. None if the connection
    /// ends before one begins.
    ///
    /// # Errors
    /// [`HeadError`].
    pub async fn read<T: AsyncRead + Unpin>(
        io: &mut T,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Self>, HeadError> {
        let Some((head, len)) = Self::peek(io, buffer).await? else { return Ok(None) };
        buffer.drain(..len);
        Ok(Some(head))
    }

    /// As [`Head::read`], but the head stays at the beginning of `buffer`, and its length is told: for whoever
    /// decides by it who shall serve the connection.
    ///
    /// # Errors
    /// [`HeadError`].
    pub async fn peek<T: AsyncRead + Unpin>(
        io: &mut T,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<(Self, usize)>, HeadError> {
        let mut seen = 0;
        loop {
            // What has been looked at is not looked at again, or a head that comes in many pieces costs its square.
            let decided =
                seen < METHOD_MAX || buffer.len() >= HEAD_MAX || head_end(&buffer[seen..]).is_some();
            if decided && let Some(head) = Self::parse(buffer)? {
                return Ok(Some(head));
            }
            // The end itself may come in two pieces.
            seen = buffer.len().saturating_sub(3);
            if buffer.len() == buffer.capacity() {
                buffer.reserve_exact(PIECE);
            }
            if io.read_buf(buffer).await? == 0 {
                let nothing = buffer.is_empty();
                return if nothing {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    /// The head at the beginning of `bytes` and its length; none if more bytes are needed.
    ///
    /// # Errors
    /// [`HeadError::Malformed`] or [`HeadError::TooLong`].
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let window = &bytes[..bytes.len().min(HEAD_MAX)];
        let Some(end) = head_end(window) else {
            let method = window.iter().take_while(|b| b.is_ascii_uppercase()).count();
            // What does not begin with a method never becomes a request.
            if method > METHOD_MAX || window.get(method).is_some_and(|b| method == 0 || *b != b' ') {
                return Err(HeadError::Malformed);
            }
            return if bytes.len() >= HEAD_MAX { Err(HeadError::TooLong) } else { Ok(None) };
        };
        let text = core::str::from_utf8(&window[..end - 4]).map_err(|_| HeadError::Malformed)?;
        let mut lines = text.split("\r\n");
        let mut head = Self::request_line(lines.next().unwrap_or_default()).ok_or(HeadError::Malformed)?;
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(HeadError::Malformed)?;
            // Another reader might take a bare CR or LF for a line's end (RFC 9110, section 5.5).
            let torn = value.bytes().any(|b| b.is_ascii_control() && b != b'\t');
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) || torn {
                return Err(HeadError::Malformed);
            }
            if head.fields.len() == FIELDS_MAX {
                return Err(HeadError::TooLong);
            }
            head.fields.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        Ok(Some((head, end)))
    }

    fn request_line(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
        let named =
            (1..=METHOD_MAX).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase());
        if parts.next().is_some() || !version.starts_with("HTTP/1.") || !named {
            return None;
        }
        // Some clients send the absolute form although we are no proxy.
        let absolute = if target.starts_with('/') { None } else { target.split_once("://") };
        let path = match absolute {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => target,
        };
        let path = path.split('?').next().unwrap_or_default();
        let valid = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
        valid.then(|| Self { method: method.into(), path: path.into(), fields: Vec::new() })
    }

    /// The first field of this name, which is given in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The bearer token.
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.field("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// What kind of relay connection is asked for at `/derp`.
    #[must_use]
    pub fn derp(&self) -> DerpRequest {
        let upgrade = self.field("upgrade").unwrap_or_default();
        let protocols = self.field("sec-websocket-protocol").unwrap_or_default();
        if upgrade.eq_ignore_ascii_case("websocket")
            && protocols.split(',').any(|p| p.trim().eq_ignore_ascii_case(SUBPROTOCOL))
        {
            let key = self.field("sec-websocket-key");
            return key.map_or(DerpRequest::None, |key| DerpRequest::WebSocket { key: key.into() });
        }
        if !upgrade.eq_ignore_ascii_case("derp") && !upgrade.eq_ignore_ascii_case("websocket") {
            return DerpRequest::None;
        }
        DerpRequest::Raw { fast_start: self.field("derp-fast-start") == Some("1") }
    }

    /// Whether the client closes the connection after this request, or sends a body that nobody will read.
    #[must_use]
    pub fn is_last(&self) -> bool {
        let close = self.field("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
        let body = self.field("content-length").is_some_and(|n| n != "0");
        close || body || self.field("transfer-encoding").is_some()
    }
}

/// What kind of relay connection is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DerpRequest {
    /// DERP as it is.
    Raw {
        /// Without any answer to the request: the client knows our key already.
        fast_start: bool,
    },
    /// DERP inside binary WebSocket messages, as browsers speak it.
    WebSocket {
        /// `Sec-WebSocket-Key`, which the answer proves to have read.
        key: String,
    },
    /// None: 426 is the answer.
    None,
}

/// The header fields of the answer 101 to a raw DERP request.
#[must_use]
pub fn derp_fields(public: &NodePublic) -> [(&'static str, String); 4] {
    [
        ("Upgrade", "DERP".into()),
        ("Connection", "Upgrade".into()),
        ("Derp-Version", VERSION.to_string()),
        ("Derp-Public-Key", public.to_hex()),
    ]
}

/// The header fields of the answer 204 of `/generate_204`, by which clients find captive portals; `challenge`
/// is the request's `X-Tailscale-Challenge`.
#[must_use]
pub fn no_content_fields(challenge: Option<&str>) -> Vec<(&'static str, String)> {
    let cache = "no-cache, no-store, must-revalidate, no-transform, max-age=0";
    let mut fields = vec![("Cache-Control", cache.to_string())];
    let fit = |c: &&str| {
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        (1..=64).contains(&c.len()) && c.bytes().all(letters)
    };
    if let Some(challenge) = challenge.filter(fit) {
        fields.push(("X-Tailscale-Response", format!("response {challenge}")));
    }
    fields
}

/// A whole answer. A head request's body is left out by the caller.
#[must_use]
pub fn answer(status: &str, fields: &[(&str, String)], body: &str) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in fields {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    if !status.starts_with("101") && !status.starts_with("204") {
        out.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    out.push_str("\r\n");
    out.push_str(body);
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Option<Head> {
        Head::parse(text.as_bytes()).unwrap().map(|(head, _)| head)
    }

    #[test]
    fn requests_of_all_clients_are_understood() {
        let go = "GET /derp HTTP/1.1\r\nHost: relay.test\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n";
        assert_eq!(parse(go).unwrap().derp(), DerpRequest::Raw { fast_start: false });
        let rust = "POST https://192.0.2.1:443/derp HTTP/1.1\r\nHost: 192.0.2.1\r\nupgrade: derp\r\nderp-fast-start: 1\r\n\r\n";
        let head = parse(rust).unwrap();
        assert_eq!((head.path.as_str(), head.derp()), ("/derp", DerpRequest::Raw { fast_start: true }));
        let browser = "GET /derp?x HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat, derp\r\nSec-WebSocket-Key: a\r\n\r\n";
        assert_eq!(parse(browser).unwrap().derp(), DerpRequest::WebSocket { key: "a".into() });
        let keyless = browser.replace("Sec-WebSocket-Key: a\r\n", "");
        assert_eq!(parse(&keyless).unwrap().derp(), DerpRequest::None);
        assert_eq!(parse("GET /derp HTTP/1.0\r\n\r\n").unwrap().derp(), DerpRequest::None);
        assert_eq!(
            parse("GET / HTTP/1.1\r\nAuthorization: bearer abc\r\n\r\n").unwrap().bearer(),
            Some("abc")
        );
        assert_eq!(parse("GET /derp HTT"), None);
    }

    #[test]
    fn what_is_no_request_is_refused_early() {
        for bad in [
            "\x16\x03\x01",
            "hello",
            "GET\t/ HTTP/1.1\r\n\r\n",
            "GET x HTTP/1.1\r\n\r\n",
            "GET / HTTP/2\r\n\r\n",
            "get / HTTP/1.1\r\n\r\n",
            "ABCDEFGHIJKLMNOPQ / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
        ] {
            assert!(matches!(Head::parse(bad.as_bytes()), Err(HeadError::Malformed)), "{bad:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_MAX));
        assert!(matches!(Head::parse(long.as_bytes()), Err(HeadError::TooLong)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELDS_MAX + 1));
        assert!(matches!(Head::parse(many.as_bytes()), Err(HeadError::TooLong)));
    }

    #[tokio::test]
    async fn a_head_in_two_pieces_is_read_wherever_it_was_cut() {
        use tokio::io::AsyncWriteExt as _;
        let whole = b"GET /derp HTTP/1.1\r\nHost: x\r\n\r\nand on";
        for cut in 1..whole.len() {
            let (mut there, mut here) = tokio::io::duplex(1_024);
            let (first, second) = whole.split_at(cut);
            let read = async {
                let mut buffer = Vec::new();
                let head = Head::read(&mut here, &mut buffer).await.unwrap().unwrap();
                (head.path, buffer)
            };
            let write = async {
                there.write_all(first).await.unwrap();
                tokio::task::yield_now().await;
                there.write_all(second).await.unwrap();
            };
            let ((path, rest), ()) = tokio::join!(read, write);
            assert_eq!(path, "/derp", "{cut}");
            assert!(b"and on".starts_with(&rest), "{cut}");
        }
    }

    #[test]
    fn a_challenge_comes_back_only_if_it_is_harmless() {
        assert_eq!(no_content_fields(Some("ts x")).len(), 1);
        assert_eq!(no_content_fields(Some("a.b:c-1"))[1].1, "response a.b:c-1");
        assert_eq!(no_content_fields(Some("a\r\nb")).len(), 1);
        assert_eq!(no_content_fields(Some("")).len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..80) {
            let _ = Head::parse(&bytes);
            let whole = b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nHost: \xc3\xa4\r\n\r\n";
            let _ = Head::parse(&whole[..cut.min(whole.len())]);
        }
    }
}

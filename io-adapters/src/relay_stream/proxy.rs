//! HTTP proxies on the way out, asked by CONNECT (RFC 9110, 9.3.6) for a connection to relay or server.
//!
//! Which proxy is asked follows the variables that other programs go by: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`
//! and `NO_PROXY`, in either case. A credential in the proxy's address is sent as `Proxy-Authorization`. An
//! `https://` proxy is spoken to inside TLS, whoever is asked for: what it is told, the credential too, nobody on the
//! way to it reads.

use super::tls::{ClientTls, TlsError, Trust};
use super::upgrade::{self, UpgradeError};
use hyper_util::client::proxy::matcher::Matcher;
use proto_core::machine::TlsCheck;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why a proxy gives no connection.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Its address cannot be used.
    #[error("the proxy {proxy} cannot be used: only http:// and https:// proxies are understood")]
    Unusable {
        /// Which one.
        proxy: String,
    },
    /// It cannot be reached.
    #[error("cannot connect to the proxy {proxy}: {why}")]
    Connect {
        /// Which one.
        proxy: String,
        /// Why.
        why: String,
    },
    /// It is not to be trusted, or speaks no TLS.
    #[error("the proxy {proxy} cannot be used: {why}")]
    Tls {
        /// Which one.
        proxy: String,
        /// What is wrong.
        why: TlsError,
    },
    /// It says no.
    #[error("the proxy {proxy} refused a connection to {target}: {status}{hint}")]
    Refused {
        /// Which one.
        proxy: String,
        /// Where to.
        target: String,
        /// What it answered.
        status: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// It is no proxy, or the connection broke.
    #[error("the proxy {proxy} did not answer as one: {why}")]
    Broken {
        /// Which one.
        proxy: String,
        /// How.
        why: String,
    },
}

/// The proxies of this host's environment. Cheap to clone.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Matcher>>);

/// A proxy that stands on the way to somewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    credential: Option<String>,
    /// What is spoken with it; none if we cannot.
    speaks: Option<Speaks>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    Https,
}

/// A connection to somebody, straight or by a proxy that asked for TLS.
#[derive(Debug)]
pub enum Hop<T> {
    /// As it is.
    Plain(T),
    /// Inside the TLS that the proxy ends.
    Tls(Box<ClientTls<T>>),
}

impl Proxies {
    /// Those that the environment names.
    #[must_use]
    pub fn from_environment() -> Self {
        Self(Some(Arc::new(Matcher::from_env())))
    }

    /// The proxy to ask for a connection to `host`, if there is one. Nobody is asked for this very host.
    #[must_use]
    pub fn to(&self, host: &str, port: u16, tls: bool) -> Option<Proxy> {
        let ourselves = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let matcher = self.0.as_ref().filter(|_| !ourselves)?;
        let scheme = if tls { "https" } else { "http" };
        let uri = format!("{scheme}://{}/", authority(host, port)).parse().ok()?;
        let found = matcher.intercept(&uri)?;
        let uri = found.uri();
        let (speaks, usual) = match uri.scheme_str() {
            Some("http") => (Some(Speaks::Http), 80),
            Some("https") => (Some(Speaks::Https), 443),
            _ => (None, 80),
        };
        Some(Proxy {
            host: uri.host()?.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(usual),
            credential: found.basic_auth().and_then(|value| value.to_str().ok()).map(str::to_owned),
            speaks,
        })
    }
}

impl Proxy {
    /// Asks for a connection to `host` on one to the proxy, which it becomes. Its certificate, if it has one, is to be
    /// vouched for by those whom `trust` names.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub async fn tunnel<T>(&self, io: T, trust: &Trust, host: &str, port: u16) -> Result<Hop<T>, ProxyError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.check()?;
        let hop = match self.speaks {
            Some(Speaks::Https) => {
                let check = TlsCheck::Roots { name: self.host.clone() };
                let shaken = trust.connect(io, &self.host, &check).await;
                let failed = |why| ProxyError::Tls { proxy: self.to_string(), why };
                Hop::Tls(Box::new(shaken.map_err(failed)?))
            }
            _ => Hop::Plain(io),
        };
        self.ask(hop, host, port).await
    }

    async fn ask<T>(&self, mut io: T, host: &str, port: u16) -> Result<T, ProxyError>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let target = authority(host, port);
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some(credential) = &self.credential {
            request.push_str(&format!("Proxy-Authorization: {credential}\r\n"));
        }
        request.push_str("\r\n");
        let broken = |why: String| ProxyError::Broken { proxy: self.to_string(), why };
        let answer = upgrade::ask(&mut io, &request, &self.to_string()).await.map_err(|e| match e {
            UpgradeError::Broken { why, .. } => broken(why),
            UpgradeError::NotHttp { start, .. } => broken(format!("it said \"{start}\"")),
            other => broken(other.to_string()),
        })?;
        if !(200..300).contains(&answer.code) {
            // tinyproxy answers a wrong password as a web server would.
            let hint = match (answer.code, self.speaks) {
                (401 | 407, Some(Speaks::Https)) => {
                    " (the user and password belong into its address: https://USER:PASSWORD@HOST:PORT)"
                }
                (401 | 407, _) => {
                    " (the user and password belong into its address: http://USER:PASSWORD@HOST:PORT)"
                }
                _ => "",
            };
            let status = format!("{} {}", answer.code, answer.reason.escape_debug());
            return Err(ProxyError::Refused { proxy: self.to_string(), target, status, hint });
        }
        // Whoever is at the other end waits for us to speak first.
        if answer.rest.is_empty() { Ok(io) } else { Err(broken("it said more than it was asked".into())) }
    }

    /// Whether it can be used.
    ///
    /// # Errors
    /// [`ProxyError::Unusable`] if it speaks something else than HTTP, in TLS or without.
    pub fn check(&self) -> Result<(), ProxyError> {
        self.speaks.map(drop).ok_or_else(|| ProxyError::Unusable { proxy: self.to_string() })
    }

    /// Why it cannot be reached.
    #[must_use]
    pub fn unreachable(&self, why: String) -> ProxyError {
        ProxyError::Connect { proxy: self.to_string(), why }
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Without the credential.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Proxies(environment)" } else { "Proxies(none)" })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Hop<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Hop<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn proxies() -> Proxies {
        let matcher = Matcher::builder().all("http://ann:s3cret@proxy.test:3128").no("inside.test").build();
        Proxies(Some(Arc::new(matcher)))
    }

    async fn asked(answer: &[u8]) -> (Result<(), String>, String) {
        let proxy = proxies().to("relay.test", 443, true).unwrap();
        let trust = Trust::only(Vec::new());
        let (ours, mut theirs) = tokio::io::duplex(4_096);
        theirs.write_all(answer).await.unwrap();
        let outcome =
            proxy.tunnel(ours, &trust, "relay.test", 443).await.map(drop).map_err(|e| e.to_string());
        let mut request = Vec::new();
        let _ = theirs.read_to_end(&mut request).await;
        (outcome, String::from_utf8(request).unwrap())
    }

    #[test]
    fn the_environment_says_who_is_asked() {
        let proxies = proxies();
        let proxy = proxies.to("relay.test", 443, true).unwrap();
        assert_eq!(proxy.to_string(), "proxy.test:3128");
        assert!(!format!("{proxy:?}").contains("s3cret"));
        assert!(proxies.to("192.0.2.1", 80, false).is_some());
        for inside in ["inside.test", "deep.inside.test", "localhost", "127.0.0.1", "::1"] {
            assert_eq!(proxies.to(inside, 443, true), None, "{inside}");
        }
        assert_eq!(Proxies::default().to("relay.test", 443, true), None);
        let port_of = |address: &str| {
            let proxies = Proxies(Some(Arc::new(Matcher::builder().all(address).build())));
            let proxy = proxies.to("relay.test", 443, true).unwrap();
            proxy.check().map(|()| proxy.port).map_err(|e| e.to_string())
        };
        assert_eq!(port_of("http://proxy.test"), Ok(80));
        assert_eq!(port_of("https://proxy.test"), Ok(443));
        assert_eq!(port_of("https://proxy.test:3129"), Ok(3129));
        let other = port_of("socks5://proxy.test:1080").unwrap_err();
        assert_eq!(
            other,
            "the proxy proxy.test:1080 cannot be used: only http:// and https:// proxies are understood"
        );
    }

    #[tokio::test]
    async fn answers_become_connections_or_sentences() {
        let (outcome, request) = asked(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        assert_eq!(outcome, Ok(()));
        // "ann:s3cret" in base64.
        let authorization = "Proxy-Authorization: Basic YW5uOnMzY3JldA==\r\n";
        assert_eq!(
            request,
            format!("CONNECT relay.test:443 HTTP/1.1\r\nHost: relay.test:443\r\n{authorization}\r\n")
        );
        let mut told = Vec::new();
        for answer in [
            &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
            b"HTTP/1.0 403 Filtered\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nearly",
        ] {
            told.push(asked(answer).await.0.unwrap_err());
        }
        insta::assert_snapshot!(told.join("\n"), @r#"
        the proxy proxy.test:3128 refused a connection to relay.test:443: 407 Proxy Authentication Required (the user and password belong into its address: http://USER:PASSWORD@HOST:PORT)
        the proxy proxy.test:3128 refused a connection to relay.test:443: 403 Filtered
        the proxy proxy.test:3128 did not answer as one: it said "SSH-2.0-OpenSSH"
        the proxy proxy.test:3128 did not answer as one: it said more than it was asked
        "#);
    }
}

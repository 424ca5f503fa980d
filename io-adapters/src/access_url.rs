//! The access URL: where users and agents find the server.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::str::FromStr;
use proto_core::coord::ControlTarget;
use proto_core::machine::TlsCheck;

/// The path of the coordination WebSocket.
pub const COORDINATE: &str = "/api/v1/coordinate";

/// Where a server is found: scheme, host and port, without a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessUrl {
    /// HTTPS, not plain HTTP.
    pub tls: bool,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port, the scheme's own if the URL names none.
    pub port: u16,
}

/// Why a text is no access URL.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AccessUrlError {
    /// No URL of a scheme and a host.
    #[error(
        "a server's URL has the form https://warren.example.com or http://192.0.2.1:7080, and this is \"{0}\""
    )]
    Form(String),
    /// More than a scheme and a host.
    #[error("a server's URL has no path: Warren wants a host of its own, and this is \"{0}\"")]
    Path(String),
}

/// Where a node finds the coordinator of the server at `url`, and the token it shows there.
///
/// # Errors
/// If the text is no [`AccessUrl`].
pub fn control_target(url: &str, token: &str) -> Result<ControlTarget, AccessUrlError> {
    let AccessUrl { tls, host, port } = url.parse()?;
    Ok(ControlTarget {
        port,
        addresses: Vec::new(),
        tls: tls.then(|| TlsCheck::Roots { name: host.clone() }),
        path: COORDINATE.into(),
        bearer: Some(token.to_owned()),
        host,
    })
}

/// Whether a text may be a host's name, or its IPv4 address.
#[must_use]
pub fn host_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

impl AccessUrl {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }

    /// The host as an address, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    const fn scheme_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }
}

impl FromStr for AccessUrl {
    type Err = AccessUrlError;

    fn from_str(text: &str) -> Result<Self, AccessUrlError> {
        let wrong = || AccessUrlError::Form(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(AccessUrlError::Path(text.to_owned()));
        }
        let (host, port) = if let Some(host) = authority.strip_prefix('[').and_then(|a| a.strip_suffix(']')) {
            (host.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(), Self::scheme_port(tls))
        } else if let Ok(address) = authority.parse::<SocketAddr>() {
            (address.ip().to_string(), address.port())
        } else if let Some((host, port)) = authority.rsplit_once(':') {
            (host.to_ascii_lowercase(), port.parse().map_err(|_| wrong())?)
        } else {
            (authority.to_ascii_lowercase(), Self::scheme_port(tls))
        };
        let is_host = host_name(&host) || host.parse::<Ipv6Addr>().is_ok() && authority.starts_with('[');
        if port == 0 || !is_host {
            return Err(wrong());
        }
        Ok(Self { tls, host, port })
    }
}

impl fmt::Display for AccessUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "https://" } else { "http://" })?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?
        } else {
            f.write_str(&self.host)?
        }
        if self.port == Self::scheme_port(self.tls) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_and_print_in_one_form() {
        for (text, printed) in [
            ("https://Warren.Example.com/", "https://warren.example.com"),
            ("https://warren.example.com:443", "https://warren.example.com"),
            ("http://192.0.2.1:7080", "http://192.0.2.1:7080"),
            ("http://[2001:db8::1]", "http://[2001:db8::1]"),
            ("https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443"),
        ] {
            assert_eq!(text.parse::<AccessUrl>().unwrap().to_string(), printed);
        }
        assert!("http://[::1]:1".parse::<AccessUrl>().unwrap().is_loopback());
    }

    #[test]
    fn addresses_lead_to_the_coordinator() {
        let target = control_target("https://warren.example.com/", "t").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("warren.example.com", 443));
        assert_eq!(target.tls, Some(TlsCheck::Roots { name: "warren.example.com".into() }));
        assert_eq!(target.path, "/api/v1/coordinate");
        let target = control_target("http://[::1]:7080", "t").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("::1", 7080, None));
    }

    #[test]
    fn other_texts_are_refused() {
        let path = |text: &str| AccessUrlError::Path(text.into());
        for text in ["https://a/b", "http://[::1]:7080/warren", "https://a?b"] {
            assert_eq!(control_target(text, "t"), Err(path(text)));
        }
        for text in [
            "",
            "warren.example.com",
            "ftp://a",
            "http://",
            "http://:80",
            "https://a b",
            "https://u@h",
            "http://a:0",
            "http://::1",
            "http://2001:db8::1:80",
            "http://[a]",
            "http://[::1",
            "http://a:99999",
        ] {
            assert_eq!(control_target(text, "t"), Err(AccessUrlError::Form(text.into())));
        }
    }
}

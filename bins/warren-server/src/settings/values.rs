//! The kinds of value that settings have.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

/// The greatest region number: JavaScript reads numbers exactly up to 2^53 - 1.
pub(crate) const REGION_ID_MAX: u64 = (1 << 53) - 1;

/// An address to listen on, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| "an address has the form 127.0.0.1:7080 or [::1]:7080, or is \"none\"".to_owned())?;
        Ok(Self(Some(address)))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("none"),
        }
    }
}

/// A host, by name or address, and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// The host as an address, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a host and port have the form stun.example.com:3478 or [2001:db8::1]:3478".to_owned();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return nonzero(address.ip().to_string(), address.port()).ok_or_else(wrong);
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        if !host_name(host) {
            return Err(wrong());
        }
        nonzero(host.to_owned(), port).ok_or_else(wrong)
    }
}

fn nonzero(host: String, port: u16) -> Option<HostPort> {
    (port != 0).then_some(HostPort { host, port })
}

fn host_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "a server's URL has the form https://warren.example.com or http://192.0.2.1:7080".to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err("a server's URL has no path: Warren wants a host of its own".to_owned());
        }
        if let Some(host) = authority.strip_prefix('[').and_then(|a| a.strip_suffix(']')) {
            let host = host.parse::<core::net::Ipv6Addr>().map_err(|_| wrong())?.to_string();
            return Ok(Self { tls, host, port: Self::scheme_port(tls) });
        }
        if let Ok(HostPort { host, port }) = authority.parse() {
            return Ok(Self { tls, host: host.to_ascii_lowercase(), port });
        }
        if !host_name(authority) {
            return Err(wrong());
        }
        Ok(Self { tls, host: authority.to_ascii_lowercase(), port: Self::scheme_port(tls) })
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

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs, one JSON object a line.
    Json,
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
        for text in
            ["", "warren.example.com", "ftp://a", "https://", "https://a/b", "https://u@h", "http://a:0"]
        {
            assert!(text.parse::<AccessUrl>().is_err(), "{text}");
        }
        assert!("http://[::1]:1".parse::<AccessUrl>().unwrap().is_loopback());
    }

    #[test]
    fn hosts_and_ports_read_and_print_in_one_form() {
        for text in ["stun.example.com:3478", "192.0.2.1:1", "[2001:db8::1]:3478"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in ["", "stun.example.com", "a:0", "a:99999", ":1", "2001:db8::1", "a b:1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}

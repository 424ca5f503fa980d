//! The kinds of value that settings have.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;
use io_adapters::access_url::host_name;

/// The greatest region number: JavaScript reads numbers exactly up to 2^53 - 1.
pub(crate) const REGION_ID_MAX: u64 = (1 << 53) - 1;

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

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

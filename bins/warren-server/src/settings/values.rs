//! The kinds of value that settings have.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;
use io_adapters::access_url::host_name;
use proto_core::wire::api::AppSharing;

/// The greatest region number: JavaScript reads numbers exactly up to 2^53 - 1.
pub(crate) const REGION_ID_MAX: u64 = (1 << 53) - 1;

/// The most that web apps may be shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum MaxSharing {
    /// With those whom the workspace is shared with.
    Owner,
    /// With everybody who has logged in.
    SignedIn,
    /// With everybody.
    Public,
}

impl From<MaxSharing> for AppSharing {
    fn from(most: MaxSharing) -> Self {
        match most {
            MaxSharing::Owner => Self::Owner,
            MaxSharing::SignedIn => Self::SignedIn,
            MaxSharing::Public => Self::Public,
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

/// Addresses that begin alike: `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        // A shift by all bits of a number is none at all.
        match (self.first, ip.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                (first.to_bits() ^ ip.to_bits()).checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => {
                (first.to_bits() ^ ip.to_bits()).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a network has the form 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1".to_owned();
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let first = address.parse::<IpAddr>().map_err(|_| wrong())?.to_canonical();
        let most = if first.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if bits > most { Err(wrong()) } else { Ok(Self { first, bits }) }
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

    #[test]
    fn networks_hold_what_begins_alike() {
        let holds =
            |network: &str, ip: &str| network.parse::<Network>().unwrap().contains(ip.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("192.0.2.1", "192.0.2.1") && !holds("192.0.2.1", "192.0.2.0"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db8::1") && holds("127.0.0.0/8", "::ffff:127.0.0.1"));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::1/129", "example.com", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}

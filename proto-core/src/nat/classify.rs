//! Names for what a NAT does (RFC 4787, section 4), from what STUN servers saw.

use crate::id::LinkId;
use core::net::{IpAddr, SocketAddr};

/// How the NAT before us maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mapping {
    /// Too few servers answered to tell.
    #[default]
    Unknown,
    /// No NAT: every server saw an address of our own.
    None,
    /// Endpoint-independent: different servers saw the same address and port.
    Independent,
    /// Different servers saw different addresses or ports (a "symmetric" NAT).
    Varies,
}

/// What one STUN server saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Our socket.
    pub link: LinkId,
    /// The server asked.
    pub server: SocketAddr,
    /// The socket's address as it saw it.
    pub mapped: SocketAddr,
}

/// How far an address reaches. What a server on this host or on our own network sees says nothing about the
/// NAT beyond, so only answers of one scope are compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// This host.
    Host,
    /// One link (RFC 3927; RFC 4291, 2.5.6).
    Link,
    /// A private network (RFC 1918, RFC 4193) or a carrier's (RFC 6598).
    Private,
    /// Everywhere.
    Global,
}

impl Scope {
    /// The scope of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(a) => {
                let [first, second, ..] = a.octets();
                if a.is_loopback() {
                    Self::Host
                } else if a.is_link_local() {
                    Self::Link
                } else if a.is_private() || (first == 100 && second & 0xc0 == 64) {
                    Self::Private
                } else {
                    Self::Global
                }
            }
            IpAddr::V6(a) => {
                let first = a.segments()[0];
                if a.is_loopback() {
                    Self::Host
                } else if first & 0xffc0 == 0xfe80 {
                    Self::Link
                } else if first & 0xfe00 == 0xfc00 {
                    Self::Private
                } else {
                    Self::Global
                }
            }
        }
    }
}

/// How the NAT maps, judged by IPv4 where that tells something, else by IPv6.
#[must_use]
pub fn mapping(seen: &[Observation], interfaces: &[IpAddr]) -> Mapping {
    let by_family = |v4: bool| {
        let seen: Vec<_> = seen.iter().filter(|o| o.mapped.is_ipv4() == v4).collect();
        one_family(&seen, interfaces)
    };
    match by_family(true) {
        Mapping::Unknown => by_family(false),
        known => known,
    }
}

fn one_family(seen: &[&Observation], interfaces: &[IpAddr]) -> Mapping {
    let ours = |o: &&&Observation| interfaces.contains(&o.mapped.ip()) || o.mapped.ip().is_loopback();
    let outside: Vec<_> = seen.iter().filter(|o| !ours(o)).collect();
    if outside.is_empty() {
        let beyond_host = seen.iter().any(|o| Scope::of(o.mapped.ip()) > Scope::Host);
        return if beyond_host { Mapping::None } else { Mapping::Unknown };
    }
    let mut agreed = false;
    for (i, a) in outside.iter().enumerate() {
        for b in &outside[..i] {
            let comparable = a.link == b.link
                && a.server != b.server
                && Scope::of(a.mapped.ip()) == Scope::of(b.mapped.ip());
            match (comparable, a.mapped == b.mapped) {
                (true, false) => return Mapping::Varies,
                (true, true) => agreed = true,
                (false, _) => {}
            }
        }
    }
    if agreed { Mapping::Independent } else { Mapping::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(seen: &[(&str, &str)]) -> Mapping {
        let seen: Vec<_> = seen
            .iter()
            .map(|(server, mapped)| Observation {
                link: LinkId(1),
                server: server.parse().unwrap(),
                mapped: mapped.parse().unwrap(),
            })
            .collect();
        mapping(&seen, &["192.168.1.5".parse().unwrap(), "2001:db8::5".parse().unwrap()])
    }

    #[test]
    fn two_servers_tell_what_one_cannot() {
        assert_eq!(judge(&[]), Mapping::Unknown);
        assert_eq!(judge(&[("9.9.9.9:3478", "203.0.113.1:7")]), Mapping::Unknown);
        let twice = [("9.9.9.9:3478", "203.0.113.1:7"), ("9.9.9.9:3478", "203.0.113.1:8")];
        assert_eq!(judge(&twice), Mapping::Unknown, "a NAT that rebooted is no symmetric one");
        assert_eq!(
            judge(&[("9.9.9.9:3478", "203.0.113.1:7"), ("8.8.8.8:3478", "203.0.113.1:7")]),
            Mapping::Independent
        );
        assert_eq!(
            judge(&[("9.9.9.9:3478", "203.0.113.1:7"), ("8.8.8.8:3478", "203.0.113.1:8")]),
            Mapping::Varies
        );
    }

    #[test]
    fn a_server_on_our_own_network_says_nothing_about_the_nat_beyond() {
        let inside = ("192.168.1.1:3478", "192.168.1.5:7");
        assert_eq!(judge(&[inside]), Mapping::None);
        assert_eq!(judge(&[inside, ("9.9.9.9:3478", "203.0.113.1:9")]), Mapping::Unknown);
        assert_eq!(
            judge(&[("100.64.0.1:3478", "100.64.0.9:7"), ("9.9.9.9:3478", "203.0.113.1:9")]),
            Mapping::Unknown
        );
        assert_eq!(judge(&[("127.0.0.1:3478", "127.0.0.1:7")]), Mapping::Unknown);
        assert_eq!(judge(&[("[2001:db8::1]:3478", "[2001:db8::5]:7")]), Mapping::None);
    }
}

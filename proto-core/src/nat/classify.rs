//! Names for what a NAT does (RFC 4787, section 4), from what STUN servers saw.

use super::predict::{self, Habit};
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

/// How the NAT before us filters: whose packets it lets in to a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Filtering {
    /// No server that can answer from elsewhere has been asked.
    #[default]
    Unknown,
    /// Endpoint-independent: everybody's.
    Independent,
    /// Address-dependent: those of addresses that were spoken to.
    Address,
    /// One of the two before: the server has a second port, but no second address.
    NotByPort,
    /// Address-and-port-dependent: those of endpoints that were spoken to.
    AddressAndPort,
}

/// What the mappings of a NAT that makes several depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dependence {
    /// On the remote address.
    Address,
    /// On the remote address and port.
    AddressAndPort,
}

/// How the NAT chooses ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocation {
    /// Those of our sockets.
    Preserving,
    /// One after the other, so many apart.
    Sequential(u16),
    /// From a block of its customer's, of about this many.
    Block(u16),
    /// Any.
    Random,
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

/// What mappings depend on, if two ports of one server have seen us and some server has seen us differently.
#[must_use]
pub fn dependence(seen: &[Observation]) -> Option<Dependence> {
    let mut alike = false;
    for (i, a) in seen.iter().enumerate() {
        let same_host = |b: &&Observation| {
            (a.link, a.server.ip()) == (b.link, b.server.ip()) && a.server.port() != b.server.port()
        };
        for b in seen[..i].iter().filter(same_host) {
            if a.mapped != b.mapped {
                return Some(Dependence::AddressAndPort);
            }
            alike = true;
        }
    }
    alike.then_some(Dependence::Address)
}

/// How the NAT chooses ports, from what servers saw of the socket bound to `port`.
///
/// Two ports tell a sequence only if they are close: by chance they are so once in a thousand times.
#[must_use]
pub fn allocation(seen: &[Observation], port: u16) -> Option<Allocation> {
    let mut ports: Vec<u16> = seen.iter().map(|o| o.mapped.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    if ports.contains(&port) {
        return Some(Allocation::Preserving);
    }
    (ports.len() > 1).then(|| match predict::habit(&ports) {
        Habit::Sequential(step) => Allocation::Sequential(step),
        Habit::Block(size) => Allocation::Block(size),
        Habit::Random => Allocation::Random,
    })
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

    fn observations(seen: &[(&str, u16)]) -> Vec<Observation> {
        let observe = |(server, port): &(&str, u16)| Observation {
            link: LinkId(1),
            server: server.parse().unwrap(),
            mapped: SocketAddr::from(([203, 0, 113, 1], *port)),
        };
        seen.iter().map(observe).collect()
    }

    #[test]
    fn two_ports_of_one_server_tell_what_mappings_depend_on() {
        let judge = |seen: &[(&str, u16)]| dependence(&observations(seen));
        let two_servers = [("9.9.9.9:3478", 7), ("8.8.8.8:3478", 8)];
        assert_eq!(judge(&two_servers), None);
        assert_eq!(judge(&[two_servers[0], two_servers[1], ("9.9.9.9:3479", 7)]), Some(Dependence::Address));
        let by_port = [two_servers[0], two_servers[1], ("9.9.9.9:3479", 9)];
        assert_eq!(judge(&by_port), Some(Dependence::AddressAndPort));
    }

    #[test]
    fn ports_that_lie_close_are_a_sequence() {
        let judge = |ports: &[u16]| {
            let seen: Vec<(&str, u16)> = ports.iter().map(|port| ("9.9.9.9:3478", *port)).collect();
            allocation(&observations(&seen), 41_641)
        };
        assert_eq!(judge(&[]), None);
        assert_eq!(judge(&[50_000]), None, "one says nothing");
        assert_eq!(judge(&[41_641]), Some(Allocation::Preserving));
        assert_eq!(judge(&[50_002, 50_000]), Some(Allocation::Sequential(2)));
        assert_eq!(judge(&[50_000, 50_001, 50_004]), Some(Allocation::Sequential(1)), "others' lie between");
        assert_eq!(judge(&[50_000, 50_001, 9_000]), Some(Allocation::Random));
        assert_eq!(judge(&[50_000, 50_700, 50_300, 50_200]), Some(Allocation::Block(1_024)));
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

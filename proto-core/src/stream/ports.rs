//! The answer to [`super::Header::Ports`]: the TCP ports that programs of the acceptor's host listen on, one JSON
//! document, then the end of the stream. Unknown fields are ignored, absent ones have defaults.

use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// Ports in an answer: a workspace has a dozen; thousands are a mistake that a person sees as well from the first.
pub const PORTS_MAX: usize = 1_000;
/// Programs named for one port: those that share one by `SO_REUSEPORT`, or inherited it from one another.
pub const PROGRAMS_MAX: usize = 8;
/// Addresses named for one port.
pub const ADDRESSES_MAX: usize = 16;
/// Characters of a program's name. Linux keeps fifteen of them.
pub const NAME_MAX: usize = 64;
/// Bytes of an answer that an asker reads: what the caps above come to, several times.
pub const ANSWER_MAX: usize = 4 << 20;

/// The ports that programs listen on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ports {
    /// Ordered by number.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Whether there are more than [`PORTS_MAX`].
    #[serde(default)]
    pub cut: bool,
    /// Why there is nothing to tell, if the acceptor's system does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A port that programs listen on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Port {
    /// Its number.
    pub port: u16,
    /// The addresses that it can be reached at; an unspecified one stands for all of its family.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The programs that hold it, as far as the acceptor may see them.
    #[serde(default)]
    pub programs: Vec<Program>,
}

/// A program.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Program {
    /// The process.
    pub pid: u32,
    /// Its name.
    #[serde(default)]
    pub name: String,
}

/// Who can reach a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Every host that can reach the acceptor's.
    AllInterfaces,
    /// Programs of the same host, and who forwards a port.
    Loopback,
    /// Who can reach these addresses, which the host's own loopback is not among.
    Addresses,
}

impl Port {
    /// Who can reach it.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let any = |is: fn(&IpAddr) -> bool| self.addresses.iter().any(|a| is(&a.to_canonical()));
        if any(IpAddr::is_unspecified) {
            Reach::AllInterfaces
        } else if any(IpAddr::is_loopback) {
            Reach::Loopback
        } else {
            Reach::Addresses
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(addresses: &[&str]) -> Reach {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Port { port: 80, addresses, programs: Vec::new() }.reach()
    }

    #[test]
    fn the_widest_address_says_who_can_reach_a_port() {
        assert_eq!(reach(&["127.0.0.1", "::1"]), Reach::Loopback);
        assert_eq!(reach(&["127.0.0.53"]), Reach::Loopback);
        assert_eq!(reach(&["::ffff:127.0.0.1"]), Reach::Loopback);
        assert_eq!(reach(&["127.0.0.1", "::"]), Reach::AllInterfaces);
        assert_eq!(reach(&["0.0.0.0"]), Reach::AllInterfaces);
        assert_eq!(reach(&["192.0.2.7"]), Reach::Addresses);
    }

    #[test]
    fn a_newer_answer_is_understood() {
        let text = r#"{"ports":[{"port":80,"protocol":"tcp"}],"uptime":7}"#;
        let read: Ports = serde_json::from_str(text).unwrap();
        assert_eq!(read.ports[0].port, 80);
        assert!(!read.cut && read.problem.is_none());
    }
}

//! Another relay of the mesh, as an operator names it.

use core::str::FromStr;
use proto_core::relay_map::RelayNode;
use std::net::IpAddr;

/// Another relay of the mesh: how it is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Neighbour(pub(crate) RelayNode);

impl FromStr for Neighbour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("{why}: a relay is HOST[:PORT][/DIALHOST], such as r1.example.com/10.0.0.1");
        let text = text.trim();
        let (plain, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("https", rest)) => (false, rest),
            Some(("http", rest)) => (true, rest),
            Some((scheme, _)) => return Err(wrong(&format!("a relay is not reached by {scheme}"))),
        };
        let (name, dial) = rest.split_once('/').map_or((rest, ""), |(name, dial)| (name, dial));
        let (host, port) = match name.rsplit_once(':') {
            // An IPv6 address has colons of its own, and brackets once a port follows.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (host, port.ok_or_else(|| wrong("the port is a number from 1 to 65535"))?)
            }
            _ => (name, if plain { 80 } else { 443 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_name = |text: &str| {
            text.parse::<IpAddr>().is_ok()
                || text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        if !is_name(host) || !is_name(dial) {
            return Err(wrong("that is no host name"));
        }
        let (to, certificate) = if dial.is_empty() { (host, "") } else { (dial, host) };
        Ok(Self(RelayNode {
            name: host.to_owned(),
            host: to.to_owned(),
            cert_name: certificate.to_owned(),
            derp_port_number: port,
            force_http: plain,
            ..RelayNode::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, host to dial, certificate's name, port, whether without TLS.
    fn read(text: &str) -> (String, String, String, u16, bool) {
        let Neighbour(node) = text.parse().unwrap();
        (node.name, node.host, node.cert_name, node.derp_port_number, node.force_http)
    }

    #[test]
    fn neighbours_read_as_operators_write_them() {
        let is = |text, name: &str, host: &str, certificate: &str, port, plain| {
            assert_eq!(read(text), (name.into(), host.into(), certificate.into(), port, plain), "{text}");
        };
        is("r1.example.com", "r1.example.com", "r1.example.com", "", 443, false);
        is("https://r1.example.com:8443", "r1.example.com", "r1.example.com", "", 8_443, false);
        is("r1.example.com/10.0.0.1", "r1.example.com", "10.0.0.1", "r1.example.com", 443, false);
        is("r1.example.com:444/r1.inside", "r1.example.com", "r1.inside", "r1.example.com", 444, false);
        is("http://127.0.0.1:3340", "127.0.0.1", "127.0.0.1", "", 3_340, true);
        is("[2001:db8::1]:444", "2001:db8::1", "2001:db8::1", "", 444, false);
        is("2001:db8::1", "2001:db8::1", "2001:db8::1", "", 443, false);
        for text in ["", ":443", "ftp://x", "x:0", "x:http", "x:70000", "two words", "x/y z", "x?y"] {
            assert!(text.parse::<Neighbour>().is_err(), "{text}");
        }
    }
}

//! The addresses that peers are told to try.

use crate::coord::ControlTarget;
use crate::id::LinkId;
use crate::limits;
use crate::nat::classify::Scope;
use crate::nat::{Mapping, Report};
use crate::relay_map::RelayMap;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::BTreeMap;

/// What is known of how we are reached from outside.
pub(super) struct Outside<'a> {
    pub(super) report: &'a Report,
    /// The router's port that leads to us.
    pub(super) mapped: Option<SocketAddr>,
}

/// Our endpoints, the likeliest first: what a router leads to us, as seen from outside, then the interfaces' with the
/// sockets' ports.
/// Loopback is told only if there is nothing else, or if `loopback` says that peers may be on this host.
pub(super) fn endpoints(
    links: &BTreeMap<LinkId, SocketAddr>,
    interfaces: &[IpAddr],
    Outside { report, mapped }: &Outside<'_>,
    loopback: bool,
) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    let mut add = |address: SocketAddr| {
        let fit = address.port() != 0 && Scope::of(address.ip()) != Scope::Link;
        if fit && !all.contains(&address) && all.len() < limits::ENDPOINTS_MAX {
            all.push(address);
        }
    };
    mapped.iter().copied().for_each(&mut add);
    let outside = report.reflexive.iter().filter(|r| !r.address.ip().is_loopback());
    for v4 in [true, false] {
        outside.clone().filter(|r| r.address.is_ipv4() == v4).for_each(|r| add(r.address));
    }
    if report.mapping == Mapping::Varies {
        // Somebody may have forwarded the very port that the socket is bound to.
        for seen in outside.clone().filter(|r| r.address.is_ipv4()) {
            if let Some(bound) = links.get(&seen.link) {
                add(SocketAddr::new(seen.address.ip(), bound.port()));
            }
        }
    }
    for bound in links.values() {
        let own = [bound.ip()];
        let of_link = if bound.ip().is_unspecified() { interfaces } else { &own };
        let mut of_link: Vec<_> = of_link
            .iter()
            .filter(|a| a.is_ipv4() == bound.is_ipv4() && !a.is_loopback() && !a.is_unspecified())
            .collect();
        of_link.sort_by_key(|a| core::cmp::Reverse(Scope::of(**a)));
        of_link.into_iter().for_each(|a| add(SocketAddr::new(*a, bound.port())));
    }
    if loopback || all.is_empty() {
        for bound in links.values() {
            let here = match bound.ip() {
                IpAddr::V4(a) if a.is_unspecified() => Some(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(a) if a.is_unspecified() => Some(Ipv6Addr::LOCALHOST.into()),
                bound => bound.is_loopback().then_some(bound),
            };
            if let Some(here) = here {
                let address = SocketAddr::new(here, bound.port());
                if bound.port() != 0 && !all.contains(&address) && all.len() < limits::ENDPOINTS_MAX {
                    all.push(address);
                }
            }
        }
    }
    all
}

/// Whether the coordinator or a relay is on this host, so that peers may be too.
pub(super) fn on_this_host(control: Option<&ControlTarget>, map: &RelayMap) -> bool {
    let named = |host: &str| {
        host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|a| a.is_loopback())
    };
    control.is_some_and(|c| named(&c.host) || c.addresses.iter().any(IpAddr::is_loopback))
        || map.nodes().any(|n| named(&n.host) || n.literal_addresses().iter().any(IpAddr::is_loopback))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::Reflexive;

    fn list(links: &[&str], interfaces: &[&str], report: &Report, loopback: bool) -> Vec<String> {
        let links = (0..).map(LinkId).zip(links.iter().map(|l| l.parse().unwrap())).collect();
        let interfaces: Vec<_> = interfaces.iter().map(|a| a.parse().unwrap()).collect();
        let outside = Outside { report, mapped: None };
        endpoints(&links, &interfaces, &outside, loopback).iter().map(ToString::to_string).collect()
    }

    fn seen(addresses: &[&str], mapping: Mapping) -> Report {
        let reflexive = addresses
            .iter()
            .map(|a| Reflexive { link: LinkId(0), address: a.parse().unwrap(), seen: 1 })
            .collect();
        Report { reflexive, mapping, ..Report::default() }
    }

    #[test]
    fn what_is_seen_from_outside_comes_first_and_loopback_only_if_needed() {
        let interfaces = ["127.0.0.1", "10.0.0.5", "fe80::1", "2001:db8::5", "::1"];
        let links = ["0.0.0.0:7000", "[::]:7001"];
        let report = seen(&["203.0.113.1:9"], Mapping::Independent);
        assert_eq!(
            list(&links, &interfaces, &report, false),
            ["203.0.113.1:9", "10.0.0.5:7000", "[2001:db8::5]:7001"]
        );
        assert_eq!(list(&links, &interfaces, &report, true)[3..], ["127.0.0.1:7000", "[::1]:7001"]);
        assert_eq!(list(&links[..1], &["127.0.0.1"], &Report::default(), false), ["127.0.0.1:7000"]);
    }

    #[test]
    fn a_socket_bound_to_one_address_has_that_alone() {
        assert_eq!(
            list(&["10.0.0.5:7"], &["10.0.0.5", "10.1.0.5"], &Report::default(), true),
            ["10.0.0.5:7"]
        );
        assert_eq!(list(&["127.0.0.1:7"], &["10.0.0.5"], &Report::default(), false), ["127.0.0.1:7"]);
    }

    #[test]
    fn a_port_that_the_router_leads_to_us_comes_first_of_all() {
        let links = BTreeMap::from([(LinkId(0), "0.0.0.0:7000".parse().unwrap())]);
        let report = seen(&["203.0.113.1:9"], Mapping::Varies);
        let outside = Outside { report: &report, mapped: Some("203.0.113.1:7000".parse().unwrap()) };
        let all = endpoints(&links, &["10.0.0.5".parse().unwrap()], &outside, false);
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(all, ["203.0.113.1:7000", "203.0.113.1:9", "10.0.0.5:7000"]);
    }

    #[test]
    fn behind_a_symmetric_nat_the_bound_port_is_tried_too() {
        let report = seen(&["203.0.113.1:9"], Mapping::Varies);
        assert_eq!(list(&["0.0.0.0:7000"], &[], &report, false), ["203.0.113.1:9", "203.0.113.1:7000"]);
    }

    #[test]
    fn a_host_of_many_addresses_tells_no_more_than_the_cap() {
        let many: Vec<_> = (0..100).map(|i| format!("10.0.0.{i}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(list(&["0.0.0.0:7"], &many, &Report::default(), true).len(), limits::ENDPOINTS_MAX);
    }
}

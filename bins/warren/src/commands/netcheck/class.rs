//! What a NAT is called: RFC 4787's words, and what they mean to a person.

use proto_core::nat::portmap::{Offers, Protocol};
use proto_core::nat::{Allocation, Dependence, Filtering, Mapping, Report, Router};
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;

pub(super) const fn mapping(report: &Report) -> &'static str {
    match (report.mapping, report.dependence) {
        (Mapping::Unknown, _) => "unknown",
        (Mapping::None, _) => "none",
        (Mapping::Independent, _) => "endpoint-independent",
        (Mapping::Varies, Some(Dependence::Address)) => "address-dependent",
        (Mapping::Varies, Some(Dependence::AddressAndPort)) => "address-and-port-dependent",
        (Mapping::Varies, None) => "endpoint-dependent",
    }
}

pub(super) const fn filtering(filtering: Filtering) -> &'static str {
    match filtering {
        Filtering::Unknown => "unknown",
        Filtering::Independent => "endpoint-independent",
        Filtering::Address => "address-dependent",
        Filtering::NotByPort => "not-port-dependent",
        Filtering::AddressAndPort => "address-and-port-dependent",
    }
}

pub(super) const fn allocation(allocation: Allocation) -> &'static str {
    match allocation {
        Allocation::Preserving => "preserving",
        Allocation::Sequential(_) => "sequential",
        Allocation::Block(_) => "block",
        Allocation::Random => "random",
    }
}

pub(super) const fn step(allocation: Option<Allocation>) -> Option<u16> {
    match allocation {
        Some(Allocation::Sequential(step)) => Some(step),
        _ => None,
    }
}

/// The line about mapping and ports.
pub(super) fn nat_words(mapping: &str, allocation: Option<&str>, step: Option<u16>) -> String {
    let class = match mapping {
        "none" => return "none".to_owned(),
        "unknown" => return "not known: two STUN servers would have to answer".to_owned(),
        "endpoint-independent" => "easy",
        _ => "hard",
    };
    let ports = match (allocation, step) {
        (Some("preserving"), _) => ", ports kept".to_owned(),
        (Some("sequential"), Some(step)) => format!(", ports one after the other by {step}"),
        (Some("block"), _) => ", ports from a small block".to_owned(),
        (Some("random"), _) => ", ports at random".to_owned(),
        _ => String::new(),
    };
    format!("{class} ({mapping} mapping{ports})")
}

/// The line about filtering.
pub(super) fn filtering_words(filtering: &str) -> String {
    let who = match filtering {
        "endpoint-independent" => "everybody is let in",
        "address-dependent" => "addresses spoken to are let in",
        "not-port-dependent" => return "any port is let in, at least of addresses spoken to".to_owned(),
        "address-and-port-dependent" => "only addresses and ports spoken to are let in",
        _ => return "not known: no STUN server offers to answer from elsewhere".to_owned(),
    };
    format!("{who} ({filtering})")
}

/// What the router offers and granted.
#[derive(Serialize)]
pub(super) struct PortMapping {
    /// Whether it was asked for, by settings.
    wanted: bool,
    /// Whether the router speaks it; none if it was not asked.
    pcp: Option<bool>,
    nat_pmp: Option<bool>,
    upnp: Option<bool>,
    /// Its address and port that lead to this machine, while the check ran.
    address: Option<SocketAddr>,
    /// By which of the protocols.
    protocol: Option<&'static str>,
}

pub(super) fn port_mapping(router: &Router, wanted: bool) -> PortMapping {
    let Offers { pcp, nat_pmp, upnp } = router.offers;
    PortMapping {
        wanted,
        pcp,
        nat_pmp,
        upnp,
        address: router.address(),
        protocol: router.mapped.map(|mapped| match mapped.protocol {
            Protocol::Pcp => "PCP",
            Protocol::NatPmp => "NAT-PMP",
            Protocol::Upnp => "UPnP",
        }),
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [("PCP", self.pcp), ("NAT-PMP", self.nat_pmp), ("UPnP", self.upnp)];
        let spoken: Vec<_> =
            all.iter().filter(|(_, spoken)| *spoken == Some(true)).map(|(n, _)| *n).collect();
        let asked = all.iter().any(|(_, spoken)| spoken.is_some());
        match (self.address, self.protocol) {
            (Some(address), Some(protocol)) => {
                write!(f, "{address} leads here, by {protocol}")?;
                let others: Vec<_> = spoken.into_iter().filter(|name| *name != protocol).collect();
                match others.is_empty() {
                    true => Ok(()),
                    false => write!(f, "; the router speaks {} as well", others.join(" and ")),
                }
            }
            _ if !self.wanted => f.write_str("not asked for, by --disable-port-mapping or its like"),
            _ if !asked => f.write_str("not needed, or no router to ask"),
            _ if spoken.is_empty() => f.write_str("no: the router speaks neither PCP, NAT-PMP nor UPnP"),
            _ => write!(f, "no: the router speaks {}, and grants none", spoken.join(" and ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_core::nat::portmap::Mapped;

    #[test]
    fn each_answer_of_a_router_has_its_words() {
        let granted = |protocol| {
            Some(Mapped { protocol, external: "203.0.113.7:41641".parse().unwrap(), port: 41_641 })
        };
        let offers = |pcp, nat_pmp, upnp| Offers { pcp: Some(pcp), nat_pmp: Some(nat_pmp), upnp: Some(upnp) };
        let router = |offers, mapped| Router { complete: true, offers, mapped };
        let lines: Vec<_> = [
            (router(Offers::default(), None), false),
            (router(Offers::default(), None), true),
            (router(offers(false, false, false), None), true),
            (router(offers(true, false, true), None), true),
            (router(offers(true, true, true), granted(Protocol::Pcp)), true),
            (router(offers(false, true, false), granted(Protocol::NatPmp)), true),
            (router(offers(false, false, true), granted(Protocol::Upnp)), true),
        ]
        .iter()
        .map(|(router, wanted)| port_mapping(router, *wanted).to_string())
        .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn every_class_has_its_words() {
        let mut text = String::new();
        for (mapping, dependence) in [
            (Mapping::Unknown, None),
            (Mapping::None, None),
            (Mapping::Independent, None),
            (Mapping::Varies, None),
            (Mapping::Varies, Some(Dependence::Address)),
            (Mapping::Varies, Some(Dependence::AddressAndPort)),
        ] {
            for chosen in [
                None,
                Some(Allocation::Preserving),
                Some(Allocation::Sequential(2)),
                Some(Allocation::Block(1_024)),
                Some(Allocation::Random),
            ] {
                let report = Report { mapping, dependence, ..Report::default() };
                let words = nat_words(super::mapping(&report), chosen.map(allocation), step(chosen));
                if !text.contains(&words) {
                    text += &format!("NAT        {words}\n");
                }
            }
        }
        for class in [
            Filtering::Unknown,
            Filtering::Independent,
            Filtering::Address,
            Filtering::NotByPort,
            Filtering::AddressAndPort,
        ] {
            text += &format!("Filtering  {}\n", filtering_words(filtering(class)));
        }
        insta::assert_snapshot!(text);
    }
}

//! What a NAT is called: RFC 4787's words, and what they mean to a person.

use proto_core::nat::{Allocation, Dependence, Filtering, Mapping, Report};

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

#[cfg(test)]
mod tests {
    use super::*;

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

//! The networks of the scorecard: those with a name of their own, and every combination of what a NAT may do.

use crate::nat::{Allocation, Dependence, NatProfile};
use proto_core::time::Duration;

/// Ports of a carrier's block.
const BLOCK: u16 = 1_024;

/// A network of the scorecard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Its NATs, nearest to the node first.
    pub layers: Vec<NatProfile>,
}

/// Those with a name of their own.
#[must_use]
pub fn named() -> Vec<Profile> {
    let symmetric = |allocation| NatProfile { allocation, ..NatProfile::symmetric() };
    let home = NatProfile::port_restricted();
    let list: Vec<(&str, Vec<NatProfile>)> = vec![
        ("open", vec![]),
        ("open-firewalled", vec![NatProfile::firewall()]),
        ("full-cone", vec![NatProfile::full_cone()]),
        ("address-restricted", vec![NatProfile::address_restricted()]),
        ("port-restricted", vec![home]),
        ("linux", vec![NatProfile::linux()]),
        ("symmetric-random", vec![NatProfile::symmetric()]),
        ("symmetric-sequential", vec![symmetric(Allocation::Contiguous)]),
        ("symmetric-block", vec![symmetric(Allocation::Block(BLOCK))]),
        ("udp-blocked", vec![NatProfile::udp_blocked()]),
        ("cgnat-full-cone", vec![NatProfile::full_cone(), home]),
        ("cgnat-port-restricted", vec![home, home]),
        ("cgnat-symmetric-random", vec![NatProfile::symmetric(), home]),
        ("cgnat-block", vec![home, symmetric(Allocation::Block(BLOCK))]),
        (
            "port-restricted-short-timeout",
            vec![NatProfile {
                ttl_new: Duration::from_secs(10),
                ttl_stream: Duration::from_secs(20),
                ..home
            }],
        ),
        ("full-cone-hairpin", vec![NatProfile::full_cone().hairpinning()]),
        ("symmetric-parity", vec![NatProfile { parity: true, ..NatProfile::symmetric() }]),
    ];
    list.into_iter().map(|(name, layers)| Profile { name: name.into(), layers }).collect()
}

/// All: the named ones, and mapping × filtering × allocation, such as `ad-apd-random`.
#[must_use]
pub fn all() -> Vec<Profile> {
    let mut all = named();
    let allocations = [
        ("preserving", Allocation::Preserve),
        ("sequential", Allocation::Contiguous),
        ("block", Allocation::Block(BLOCK)),
        ("random", Allocation::Random),
    ];
    for mapping in Dependence::ALL {
        for filtering in Dependence::ALL {
            for (name, allocation) in allocations {
                let layers = vec![NatProfile { allocation, ..NatProfile::new(mapping, filtering) }];
                if all.iter().all(|profile| profile.layers != layers) {
                    let [m, f] = [mapping, filtering].map(|d| d.short().to_lowercase());
                    all.push(Profile { name: format!("{m}-{f}-{name}"), layers });
                }
            }
        }
    }
    all
}

/// Those that every change is compared by.
#[must_use]
pub fn small() -> Vec<Profile> {
    const SMALL: [&str; 8] = [
        "open",
        "full-cone",
        "address-restricted",
        "port-restricted",
        "symmetric-random",
        "symmetric-sequential",
        "symmetric-block",
        "udp-blocked",
    ];
    named().into_iter().filter(|profile| SMALL.contains(&profile.name.as_str())).collect()
}

/// The one of this name.
///
/// # Errors
/// Which names there are, if it is none of them.
pub fn find(name: &str) -> Result<Profile, String> {
    let all = all();
    let names: Vec<&str> = all.iter().map(|profile| profile.name.as_str()).collect();
    let unknown = format!("there is no network \"{name}\"; there are {}", names.join(", "));
    all.into_iter().find(|profile| profile.name == name).ok_or(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_a_thousand_pairs_and_no_name_twice() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|profile| profile.name.clone()).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.len() * (all.len() + 1) / 2 >= 1_000, "{} networks", all.len());
        assert!(find("symmetric-block").is_ok() && find("moon").is_err());
        assert_eq!(small().len(), 8);
    }
}

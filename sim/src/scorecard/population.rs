//! What the cells come to for people, by assumed shares of the networks that they and workspaces live in.

use super::Cell;
use serde::{Deserialize, Serialize};

/// Assumed: where people are. Homes with the usual router first; a sixth behind symmetric NATs of phones, carriers
/// and offices. These shares are a guess that is stated, not a measurement.
const PEOPLE: &[(&str, u32)] = &[
    ("port-restricted", 42),
    ("address-restricted", 6),
    ("full-cone", 8),
    ("linux", 6),
    ("cgnat-port-restricted", 12),
    ("symmetric-random", 8),
    ("symmetric-sequential", 3),
    ("symmetric-block", 6),
    ("open", 2),
    ("open-firewalled", 4),
    ("udp-blocked", 3),
];

/// Assumed: where workspaces are. Virtual machines with a public address, containers behind a masquerading host, and
/// cloud NAT gateways, which are symmetric.
const WORKSPACES: &[(&str, u32)] = &[
    ("open", 15),
    ("open-firewalled", 20),
    ("linux", 20),
    ("port-restricted", 15),
    ("symmetric-random", 25),
    ("udp-blocked", 5),
];

/// A figure for all pairs together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Population {
    /// The share of pairs that go direct.
    pub direct_share: f64,
    /// The share of pairs for which a direct path exists, by the oracle.
    pub possible_share: f64,
    /// What was assumed, in words.
    pub assumptions: Vec<String>,
}

/// Weighs loss-free cells; none if one that is needed is missing.
#[must_use]
pub fn weigh(cells: &[Cell]) -> Option<Population> {
    let (mut direct, mut possible, mut all) = (0.0, 0.0, 0.0);
    for (a, m) in PEOPLE {
        for (b, n) in WORKSPACES {
            let cell = cells
                .iter()
                .find(|c| c.loss == 0.0 && ((c.a == *a && c.b == *b) || (c.a == *b && c.b == *a)))?;
            let weight = f64::from(m * n);
            direct += weight * cell.direct_share;
            possible += weight * f64::from(u8::from(cell.possible));
            all += weight;
        }
    }
    let list = |what: &str, shares: &[(&str, u32)]| {
        let shares: Vec<_> = shares.iter().map(|(name, share)| format!("{share} % {name}")).collect();
        format!("{what}: {}", shares.join(", "))
    };
    let assumptions = vec![
        list("people", PEOPLE),
        list("workspaces", WORKSPACES),
        "the shares are assumed, not measured; the two ends are independent; no loss, 50 ms".into(),
    ];
    Some(Population { direct_share: direct / all, possible_share: possible / all, assumptions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_whole() {
        for shares in [PEOPLE, WORKSPACES] {
            assert_eq!(shares.iter().map(|(_, share)| share).sum::<u32>(), 100);
            assert!(shares.iter().all(|(name, _)| super::super::find(name).is_ok()));
        }
        assert!(weigh(&[]).is_none());
    }
}

//! Which pairs can go direct: the closed form that the simulator must agree with.
//!
//! Let `adv(x)` say that x's mapping is endpoint-independent: the address it advertises is the one it uses.
//! A first packet from tx to rx passes rx's filter if that asks for nothing; or for the address, and rx
//! sent to where it now receives (`adv(rx)`, or the filter belongs to the endpoint); or for the port too,
//! and besides tx sends from where rx sent to (`adv(tx)`). The answer passes if rx answers from where tx
//! sent to (`adv(rx)`) or tx's filter does not care for ports. A pair is direct if both hold one way round.
//!
//! Nested NATs compose: the mapping depends on something if any layer's does, the strictest filter counts.

use crate::nat::{Allocation, Dependence, FilterScope, NatProfile, UdpRules};

/// What of a node's networks decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Side {
    /// The strictest mapping of its NATs.
    pub mapping: Dependence,
    /// The strictest filter.
    pub filtering: Dependence,
    /// Whether UDP gets out.
    pub udp: bool,
    /// Whether the port towards a new destination can be told beforehand where the mapping depends on it.
    pub foreseen: bool,
}

impl Side {
    /// Nothing in the way.
    pub const OPEN: Self = Self {
        mapping: Dependence::Independent,
        filtering: Dependence::Independent,
        udp: true,
        foreseen: true,
    };

    /// The side behind these NATs, in any order.
    #[must_use]
    pub fn behind<'a>(nats: impl IntoIterator<Item = &'a NatProfile>) -> Self {
        nats.into_iter().fold(Self::OPEN, |side, nat| Self {
            // Connection tracking keeps one entry a flow, but with the port preserved the mapping looks
            // endpoint-independent from outside.
            mapping: if nat.overload { side.mapping } else { side.mapping.max(nat.mapping) },
            filtering: side.filtering.max(nat.filtering),
            udp: side.udp && nat.udp != UdpRules::Block,
            foreseen: side.foreseen && (nat.overload || foreseen(nat)),
        })
    }

    fn advertises(self) -> bool {
        self.mapping == Dependence::Independent
    }
}

/// What a pair of nodes can come to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// A direct path must be found.
    Direct,
    /// Only a relay connects them, and it must.
    Relayed,
}

/// What plain punching with peer-reflexive learning comes to between nodes that share no network.
#[must_use]
pub fn outcome(a: Side, b: Side, scope: FilterScope) -> Outcome {
    let direct = a.udp && b.udp && (one_way(a, b, scope) || one_way(b, a, scope));
    if direct { Outcome::Direct } else { Outcome::Relayed }
}

/// What port guessing comes to besides: one side tries the many ports that the other side's sockets open towards its one
/// port, which is the same for everybody, or foreseen and kept for all ports of an address. Two sides whose ports are
/// foreseen for each destination anew meet too.
#[must_use]
pub fn guessable(a: Side, b: Side) -> Outcome {
    let kept = |side: Side| side.mapping < Dependence::AddressAndPort && side.foreseen;
    let possible = a.udp && b.udp && (kept(a) || kept(b) || (a.foreseen && b.foreseen));
    if possible { Outcome::Direct } else { Outcome::Relayed }
}

/// What plain punching and port guessing come to together.
#[must_use]
pub fn either(a: Side, b: Side, scope: FilterScope) -> Outcome {
    outcome(a, b, scope).min(guessable(a, b))
}

/// Whether this NAT's next port can be told. Where a mapping depends on the port too, those of one that keeps ports are
/// kept for the first destination alone.
fn foreseen(nat: &NatProfile) -> bool {
    match (nat.mapping, nat.allocation) {
        (Dependence::Independent, _) => true,
        (_, Allocation::Contiguous) => !nat.parity,
        (Dependence::Address | Dependence::AddressAndPort, _) => false,
    }
}

/// Whether `tx`'s first packet reaches `rx` and the answer comes back.
fn one_way(tx: Side, rx: Side, scope: FilterScope) -> bool {
    let known = rx.advertises() || scope == FilterScope::Endpoint;
    let first = match rx.filtering {
        Dependence::Independent => true,
        Dependence::Address => known,
        Dependence::AddressAndPort => known && tx.advertises(),
    };
    first && (rx.advertises() || tx.filtering != Dependence::AddressAndPort)
}

#[cfg(test)]
mod tests;

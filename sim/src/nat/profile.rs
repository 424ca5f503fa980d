//! How a NAT behaves, as data, and the kinds that have a name.

use proto_core::time::Duration;
use std::net::SocketAddr;
use std::ops::Range;

/// External ports: beyond the well-known ones (RFC 4787, REQ-3).
pub(super) const PORTS: Range<u16> = 1_024..65_000;

/// Transport protocols that a NAT keeps tables for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// What a mapping or a filter depends on (RFC 4787, sections 4.1 and 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dependence {
    /// On nothing outside: one mapping for all, everybody is let in.
    Independent,
    /// On the remote address.
    Address,
    /// On the remote address and port.
    AddressAndPort,
}

impl Dependence {
    /// All of them, mildest first.
    pub const ALL: [Self; 3] = [Self::Independent, Self::Address, Self::AddressAndPort];

    /// The part of `remote` that matters.
    pub(super) fn of(self, remote: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::Independent => None,
            Self::Address => Some(SocketAddr::new(remote.ip(), 0)),
            Self::AddressAndPort => Some(remote),
        }
    }

    /// The usual abbreviation.
    #[must_use]
    pub const fn short(self) -> &'static str {
        match self {
            Self::Independent => "EI",
            Self::Address => "AD",
            Self::AddressAndPort => "APD",
        }
    }
}

/// What the filter remembers destinations for. It decides some pairs: see [`crate::oracle`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FilterScope {
    /// Each mapping for itself (connection tracking).
    Mapping,
    /// All mappings of one inside endpoint together (RFC 4787's wording).
    Endpoint,
}

/// How a mapping gets its external port (RFC 4787, section 4.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Allocation {
    /// The inside port if it is free, else a random one.
    Preserve,
    /// The next in sequence.
    Contiguous,
    /// Any.
    Random,
    /// From a block of this many ports that belongs to the inside address; no port beyond it.
    Block(u16),
}

/// What becomes of a packet from inside to the outside address (RFC 4787, section 6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hairpin {
    /// It is dropped.
    Off,
    /// It comes back with its inside source.
    Internal,
    /// It comes back with its outside source, as the RFC demands.
    External,
}

/// What a router does with a packet that matches nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Unsolicited {
    /// Silence: the usual home router.
    Drop,
    /// An error comes back.
    Reject,
    /// The router itself takes it, as Linux does without an INPUT rule, and its connection table keeps the
    /// tuple: a flow from inside that wants the same tuple gets another port.
    AcceptAndTrack,
}

/// What a NAT does with a TCP segment in the middle of a connection it does not know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MidStream {
    /// Nothing comes back.
    Silence,
    /// A reset comes back.
    Reset,
    /// It makes a new entry (Linux's `nf_conntrack_tcp_loose`).
    PickUp,
}

/// TCP's timers and manners (RFC 5382).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpRules {
    /// Lifetime of an idle established connection; the RFC demands at least 2 h 4 min.
    pub idle: Duration,
    /// Lifetime of one that is not established; the RFC says 4 min.
    pub transitory: Duration,
    /// After a reboot.
    pub mid_stream: MidStream,
}

/// Which UDP packets may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UdpRules {
    /// All.
    Allow,
    /// None.
    Block,
    /// Those to one port.
    Port(u16),
}

impl UdpRules {
    pub(super) const fn allows(self, port: u16) -> bool {
        match self {
            Self::Allow => true,
            Self::Block => false,
            Self::Port(only) => port == only,
        }
    }
}

/// How a NAT behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NatProfile {
    /// Whether addresses are rewritten at all; a stateful firewall does not.
    pub translate: bool,
    /// What a mapping depends on.
    pub mapping: Dependence,
    /// What the filter depends on.
    pub filtering: Dependence,
    /// What the filter's memory belongs to.
    pub filter_scope: FilterScope,
    /// How external ports are chosen.
    pub allocation: Allocation,
    /// Whether odd ports stay odd and even ones even.
    pub parity: bool,
    /// Whether mappings to different remotes may share an external port.
    pub overload: bool,
    /// Lifetime of a mapping that nothing has come in by.
    pub ttl_new: Duration,
    /// Lifetime of one that something has.
    pub ttl_stream: Duration,
    /// Whether packets from outside prolong it.
    pub refresh_inbound: bool,
    /// Packets from inside to the outside address.
    pub hairpin: Hairpin,
    /// Packets that match nothing.
    pub unsolicited: Unsolicited,
    /// Mappings at most.
    pub max_mappings: usize,
    /// TCP.
    pub tcp: TcpRules,
    /// UDP outbound.
    pub udp: UdpRules,
}

impl NatProfile {
    /// A NAT of this mapping and filtering with Linux's lifetimes (30 s and 120 s), ports preserved where the
    /// mapping is endpoint-independent and random elsewhere, no hairpin.
    #[must_use]
    pub const fn new(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            translate: true,
            mapping,
            filtering,
            filter_scope: FilterScope::Mapping,
            allocation: match mapping {
                Dependence::Independent => Allocation::Preserve,
                Dependence::Address | Dependence::AddressAndPort => Allocation::Random,
            },
            parity: false,
            overload: false,
            ttl_new: Duration::from_secs(30),
            ttl_stream: Duration::from_secs(120),
            refresh_inbound: true,
            hairpin: Hairpin::Off,
            unsolicited: Unsolicited::Drop,
            max_mappings: 65_536,
            tcp: TcpRules {
                idle: Duration::from_secs(7_440),
                transitory: Duration::from_secs(240),
                mid_stream: MidStream::Silence,
            },
            udp: UdpRules::Allow,
        }
    }

    /// Full cone.
    #[must_use]
    pub const fn full_cone() -> Self {
        Self::new(Dependence::Independent, Dependence::Independent)
    }

    /// Address-restricted cone.
    #[must_use]
    pub const fn address_restricted() -> Self {
        Self::new(Dependence::Independent, Dependence::Address)
    }

    /// Port-restricted cone, the usual home router.
    #[must_use]
    pub const fn port_restricted() -> Self {
        Self::new(Dependence::Independent, Dependence::AddressAndPort)
    }

    /// Symmetric: a new random port for each remote endpoint.
    #[must_use]
    pub const fn symmetric() -> Self {
        Self::new(Dependence::AddressAndPort, Dependence::AddressAndPort)
    }

    /// A port-restricted NAT that lets no UDP out.
    #[must_use]
    pub const fn udp_blocked() -> Self {
        Self { udp: UdpRules::Block, ..Self::port_restricted() }
    }

    /// A Linux machine that masquerades without an INPUT rule: one entry a flow, the port kept where the
    /// tuple is free, and unsolicited packets take tuples, as measured with nftables' masquerade.
    #[must_use]
    pub const fn linux() -> Self {
        Self {
            allocation: Allocation::Preserve,
            overload: true,
            unsolicited: Unsolicited::AcceptAndTrack,
            tcp: TcpRules { mid_stream: MidStream::PickUp, ..Self::port_restricted().tcp },
            ..Self::symmetric()
        }
    }

    /// A stateful firewall in front of public addresses: nothing is rewritten, only answers come in.
    #[must_use]
    pub const fn firewall() -> Self {
        Self { translate: false, allocation: Allocation::Preserve, overload: true, ..Self::port_restricted() }
    }

    /// With hairpin as RFC 4787 wants it.
    #[must_use]
    pub const fn hairpinning(self) -> Self {
        Self { hairpin: Hairpin::External, ..self }
    }
}

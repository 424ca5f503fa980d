//! Networks that have a name, and how two nodes' networks meet.

use super::{HostId, NatId, SegmentId, Topology, v4};
use crate::nat::{Hairpin, NatProfile};
use crate::netem::LinkProfile;
use proto_core::time::Duration;
use std::fmt;
use std::str::FromStr;

/// A kind of network that a node lives in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Network {
    /// A public address, nothing in the way.
    Open,
    /// A public address behind a stateful firewall.
    OpenFirewalled,
    /// Behind a full cone NAT.
    FullCone,
    /// Behind an address-restricted NAT.
    AddressRestricted,
    /// Behind a port-restricted NAT: the usual home.
    PortRestricted,
    /// Behind a symmetric NAT.
    Symmetric,
    /// Behind a NAT that lets no UDP out.
    UdpBlocked,
    /// Behind a Linux router whose connection table can be poisoned.
    Linux,
    /// A full-cone home behind a port-restricted carrier NAT.
    CgnatCone,
    /// A port-restricted home behind a port-restricted carrier NAT.
    CgnatPortRestricted,
    /// A symmetric home behind a port-restricted carrier NAT.
    CgnatSymmetric,
}

impl Network {
    /// All.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::OpenFirewalled,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::UdpBlocked,
        Self::Linux,
        Self::CgnatCone,
        Self::CgnatPortRestricted,
        Self::CgnatSymmetric,
    ];

    /// The six kinds of the core matrix.
    pub const CORE: [Self; 6] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::UdpBlocked,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::OpenFirewalled => "open-firewalled",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::UdpBlocked => "udp-blocked",
            Self::Linux => "linux",
            Self::CgnatCone => "cgnat-cone",
            Self::CgnatPortRestricted => "cgnat-port-restricted",
            Self::CgnatSymmetric => "cgnat-symmetric",
        }
    }

    /// Its NATs, nearest to the node first.
    #[must_use]
    pub fn layers(self) -> Vec<NatProfile> {
        match self {
            Self::Open => vec![],
            Self::OpenFirewalled => vec![NatProfile::firewall()],
            Self::FullCone => vec![NatProfile::full_cone()],
            Self::AddressRestricted => vec![NatProfile::address_restricted()],
            Self::PortRestricted => vec![NatProfile::port_restricted()],
            Self::Symmetric => vec![NatProfile::symmetric()],
            Self::UdpBlocked => vec![NatProfile::udp_blocked()],
            Self::Linux => vec![NatProfile::linux()],
            Self::CgnatCone => vec![NatProfile::full_cone(), NatProfile::port_restricted()],
            Self::CgnatPortRestricted => vec![NatProfile::port_restricted(), NatProfile::port_restricted()],
            Self::CgnatSymmetric => vec![NatProfile::symmetric(), NatProfile::port_restricted()],
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|n| n.name() == text)
            .ok_or_else(|| format!("there is no network \"{text}\""))
    }
}

/// How the networks of two nodes meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Meeting {
    /// On the internet.
    #[default]
    Internet,
    /// They are one: both nodes on the first one's innermost network.
    SameLan,
    /// As [`Meeting::SameLan`], but the hosts are kept apart; the NAT turns packets round or not.
    Isolated(Hairpin),
    /// Both homes are customers of one port-restricted carrier NAT, which turns packets round or not.
    SameCarrier(Hairpin),
}

/// Where in the address plan a node's network is put; 1 to 99.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(pub u8);

/// The latency of a link inside a home.
const LAN: LinkProfile = LinkProfile::clean(Duration::from_micros(100));

impl Topology {
    /// Builds a network of `layers` under `above`, plugs `host` into it and gives its innermost segment.
    /// The link to `above` behaves as `link` says.
    pub fn site(
        &mut self,
        host: HostId,
        place: Place,
        layers: &[NatProfile],
        (above, link): (SegmentId, LinkProfile),
    ) -> SegmentId {
        let n = place.0;
        let Some((home, carriers)) = layers.split_first() else {
            self.plug(host, above, v4(203, 0, 113, n), link);
            return above;
        };
        let mut above = (above, v4(203, 0, 113, n), link);
        for carrier in carriers.iter().rev() {
            let segment = self.segment(&format!("carrier{n}"), 1);
            self.nat(*carrier, (segment, v4(100, 64, n, 1)), (above.0, above.1), above.2);
            above = (segment, v4(100, 64, n, 2), LinkProfile::clean(Duration::from_millis(1)));
        }
        self.home(host, place, *home, above)
    }

    /// A home network behind one NAT (or firewall) with the address given on the segment above.
    fn home(
        &mut self,
        host: HostId,
        place: Place,
        profile: NatProfile,
        (above, outside, link): (SegmentId, std::net::IpAddr, LinkProfile),
    ) -> SegmentId {
        let n = place.0;
        let lan = self.segment(&format!("lan{n}"), 0);
        let nat = self.nat(profile, (lan, v4(192, 168, n, 1)), (above, outside), link);
        let address = if profile.translate { v4(192, 168, n, 2) } else { v4(203, 0, 114, n) };
        self.plug(host, lan, address, LAN);
        if !profile.translate {
            self.stand_in(nat, address);
        }
        lan
    }

    /// Puts two nodes into networks of these kinds that meet so on `internet`.
    pub fn meet(
        &mut self,
        hosts: [HostId; 2],
        layers: [Vec<NatProfile>; 2],
        meeting: Meeting,
        (internet, links): (SegmentId, [LinkProfile; 2]),
    ) {
        let [a, b] = hosts;
        match meeting {
            Meeting::Internet => {
                self.site(a, Place(1), &layers[0], (internet, links[0]));
                self.site(b, Place(2), &layers[1], (internet, links[1]));
            }
            Meeting::SameLan => self.share(hosts, &layers[0], (internet, links[0])),
            Meeting::Isolated(hairpin) => {
                let mut layers = layers[0].clone();
                if let Some(home) = layers.first_mut() {
                    home.hairpin = hairpin;
                }
                let lan = self.site(a, Place(1), &layers, (internet, links[0]));
                self.plug(b, lan, v4(192, 168, 1, 3), LAN);
                self.isolate(lan);
            }
            Meeting::SameCarrier(hairpin) => {
                let carrier = NatProfile { hairpin, ..NatProfile::port_restricted() };
                let segment = self.segment("carrier", 1);
                self.nat(carrier, (segment, v4(100, 64, 0, 1)), (internet, v4(203, 0, 113, 1)), links[0]);
                for (n, host) in (1..).zip(hosts) {
                    let home = layers[usize::from(n) - 1].first().copied().unwrap_or(NatProfile::full_cone());
                    let link = LinkProfile::clean(Duration::from_millis(1));
                    self.home(host, Place(n), home, (segment, v4(100, 64, 0, 1 + n), link));
                }
            }
        }
    }

    fn share(
        &mut self,
        [a, b]: [HostId; 2],
        layers: &[NatProfile],
        (internet, link): (SegmentId, LinkProfile),
    ) {
        let lan = self.site(a, Place(1), layers, (internet, link));
        let address = if layers.is_empty() { v4(203, 0, 113, 2) } else { v4(192, 168, 1, 3) };
        self.plug(b, lan, address, LAN);
    }

    /// The NAT nearest to a host.
    #[must_use]
    pub fn nearest_nat(&self, host: HostId) -> Option<NatId> {
        self.nats_of(host).first().copied()
    }
}

//! The relay map: Tailscale's DERPMap document, so that its tools and ours read the same file.
//!
//! A map names regions, a region its nodes in the order to dial them, a node its host, ports and how it proves
//! itself. [`RelayMap::parse`] reads a file that a person wrote and answers mistakes with the field and the
//! line; inside coordination messages the document comes from a server that has checked it, and `serde` reads
//! it leniently. Field names are Tailscale's; `ForceHTTP` (no TLS to this node) is an addition that other
//! readers ignore.

mod choice;
mod error;
mod json;
mod parse;
#[cfg(test)]
mod tests;
mod validate;

pub use choice::UnknownRegion;
pub use error::{FieldPath, Problem, RelayMapError, Segment};

use crate::id::RegionId;
use crate::key::unhex;
use crate::machine::{StreamProtocol, StreamTarget, TlsCheck};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The UDP port of STUN where a node names none (RFC 8489, section 8.6).
pub const STUN_PORT: u16 = 3478;
/// The TCP port of a relay where a node names none: HTTPS.
pub const DERP_PORT_TLS: u16 = 443;
/// The TCP port of a plain-HTTP relay where a node names none.
pub const DERP_PORT_HTTP: u16 = 80;
/// The path of a relay's HTTP upgrade.
pub const DERP_PATH: &str = "/derp";
/// What a pinned certificate's name begins with; 64 hexadecimal digits follow.
pub const PIN_PREFIX: &str = "sha256-raw:";
/// The greatest region number: what a JavaScript number still holds exactly.
pub const REGION_ID_MAX: u64 = (1 << 53) - 1;

/// A relay map.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RelayMap {
    /// Hints for the choice of a home.
    #[serde(rename = "HomeParams", default, skip_serializing_if = "Option::is_none")]
    pub home_params: Option<HomeParams>,
    /// The regions by number. A region's own number and its nodes' are the key, whatever was written.
    #[serde(rename = "Regions", default, deserialize_with = "regions")]
    pub regions: BTreeMap<RegionId, RelayRegion>,
    /// Tells Tailscale's clients not to add their built-in regions. Warren has none built in.
    #[serde(rename = "omitDefaultRegions", default, skip_serializing_if = "is_default")]
    pub omit_default_regions: bool,
}

/// Hints for the choice of a home region.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HomeParams {
    /// Factors by which a region's measured latency is multiplied before the comparison; see
    /// [`RelayMap::score_permille`].
    #[serde(
        rename = "RegionScore",
        default,
        deserialize_with = "scores",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub region_score: BTreeMap<RegionId, Millionths>,
}

/// Relays in one place. They know of each other; whoever is at one of them is reached through any.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RelayRegion {
    /// Its number, the key in [`RelayMap::regions`].
    #[serde(rename = "RegionID", default)]
    pub id: RegionId,
    /// A short lower-case name, such as `fra`; no two regions share one.
    #[serde(rename = "RegionCode", default)]
    pub code: String,
    /// A name for people, such as `São Paulo`.
    #[serde(rename = "RegionName", default)]
    pub name: String,
    /// Degrees north, for a map on a screen.
    #[serde(rename = "Latitude", default, skip_serializing_if = "Option::is_none")]
    pub latitude: Option<Millionths>,
    /// Degrees east.
    #[serde(rename = "Longitude", default, skip_serializing_if = "Option::is_none")]
    pub longitude: Option<Millionths>,
    /// Not to be anybody's home (deprecated in favour of `no_measure_no_home`).
    #[serde(rename = "Avoid", default, skip_serializing_if = "is_default")]
    pub avoid: bool,
    /// Neither measured nor a home, and yet a way to those who live there.
    #[serde(rename = "NoMeasureNoHome", default, skip_serializing_if = "is_default")]
    pub no_measure_no_home: bool,
    /// Its nodes in the order to dial them.
    #[serde(rename = "Nodes", default, deserialize_with = "null_is_default")]
    pub nodes: Vec<RelayNode>,
}

/// One relay or STUN server.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RelayNode {
    /// Its name, unique in the map, such as `1a`.
    #[serde(rename = "Name", default)]
    pub name: String,
    /// The region it belongs to.
    #[serde(rename = "RegionID", default)]
    pub region: RegionId,
    /// Its host name, for DNS, TLS and the `Host` header; may be an address.
    #[serde(rename = "HostName", default)]
    pub host: String,
    /// How its certificate is checked, see [`RelayNode::tls`].
    #[serde(rename = "CertName", default, skip_serializing_if = "String::is_empty")]
    pub cert_name: String,
    /// See [`RelayNode::ipv4`].
    #[serde(rename = "IPv4", default, skip_serializing_if = "String::is_empty")]
    pub ipv4_text: String,
    /// See [`RelayNode::ipv6`].
    #[serde(rename = "IPv6", default, skip_serializing_if = "String::is_empty")]
    pub ipv6_text: String,
    /// See [`RelayNode::stun_port`].
    #[serde(rename = "STUNPort", default, skip_serializing_if = "is_default")]
    pub stun_port_number: i32,
    /// It answers STUN and relays nothing.
    #[serde(rename = "STUNOnly", default, skip_serializing_if = "is_default")]
    pub stun_only: bool,
    /// See [`RelayNode::derp_port`].
    #[serde(rename = "DERPPort", default, skip_serializing_if = "is_default")]
    pub derp_port_number: u16,
    /// Its certificate is not checked at all.
    #[serde(rename = "InsecureForTests", default, skip_serializing_if = "is_default")]
    pub insecure_for_tests: bool,
    /// See [`RelayNode::stun_address_override`].
    #[serde(rename = "STUNTestIP", default, skip_serializing_if = "String::is_empty")]
    pub stun_test_ip: String,
    /// It serves plain HTTP on port 80 for the check for captive portals. Kept for other readers: no node of Warren makes
    /// such a check, since a portal shows as relays that cannot be reached, and `warren netcheck` asks the server.
    #[serde(rename = "CanPort80", default, skip_serializing_if = "is_default")]
    pub can_port_80: bool,
    /// Warren's own: it is spoken to without TLS.
    #[serde(rename = "ForceHTTP", default, skip_serializing_if = "is_default")]
    pub force_http: bool,
}

/// A number of the document that need not be whole, in millionths: two readers of one text agree on it to the
/// last digit, which they need not on a binary fraction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Millionths(pub i64);

impl Millionths {
    /// The nearest to `number`, within a million on either side of zero.
    #[must_use]
    pub fn nearest(number: f64) -> Self {
        Self((number.clamp(-1e6, 1e6) * 1e6).round() as i64)
    }

    /// The number.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Serialize for Millionths {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.to_f64())
    }
}

impl<'de> Deserialize<'de> for Millionths {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        f64::deserialize(d).map(Self::nearest)
    }
}

/// Where a node's address of one family comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressSource<T> {
    /// The map says it.
    Literal(T),
    /// Ask DNS for the host name.
    Resolve,
    /// This family is not used.
    Off,
}

impl RelayMap {
    /// The region of this number.
    #[must_use]
    pub fn region(&self, id: RegionId) -> Option<&RelayRegion> {
        self.regions.get(&id)
    }

    /// The region's code (`fra`), or its number if the map lacks it: what people read.
    #[must_use]
    pub fn label(&self, id: RegionId) -> String {
        match self.region(id) {
            Some(region) if !region.code.is_empty() => region.code.clone(),
            _ => id.to_string(),
        }
    }

    /// Every node, region by region, in the order to dial.
    pub fn nodes(&self) -> impl Iterator<Item = &RelayNode> {
        self.regions.values().flat_map(|region| &region.nodes)
    }

    /// By how many thousandths a region's measured latency counts when homes are compared: 1000 unless the map
    /// says otherwise; factors that are not positive are ignored, as Tailscale does.
    #[must_use]
    pub fn score_permille(&self, id: RegionId) -> u32 {
        let factor = self.home_params.as_ref().and_then(|home| home.region_score.get(&id));
        match factor {
            // The bounds are far beyond any sense and keep the product with a latency inside 64 bits.
            Some(Millionths(factor)) if *factor > 0 => (factor / 1_000).clamp(1, 1_000_000) as u32,
            _ => 1_000,
        }
    }

    /// This map and `extra`'s regions.
    ///
    /// # Errors
    /// If a region's number or code or a node's name is in both.
    pub fn merge(&self, extra: &Self) -> Result<Self, RelayMapError> {
        validate::collisions(self, extra)?;
        let mut merged = self.clone();
        merged.regions.extend(extra.regions.iter().map(|(id, region)| (*id, region.clone())));
        if let Some(home) = &extra.home_params {
            let into = merged.home_params.get_or_insert_default();
            into.region_score.extend(home.region_score.iter());
        }
        merged.omit_default_regions |= extra.omit_default_regions;
        Ok(merged)
    }

    /// The document, without escapes where JSON allows (some readers cannot undo them).
    #[must_use]
    pub fn to_json(&self) -> String {
        // Keys are numbers and no value fails to serialize.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl RelayRegion {
    /// The nodes that relay, in the order to dial them.
    pub fn relays(&self) -> impl Iterator<Item = &RelayNode> {
        self.nodes.iter().filter(|node| !node.stun_only)
    }

    /// The nodes that answer STUN.
    pub fn stun_nodes(&self) -> impl Iterator<Item = &RelayNode> {
        self.nodes.iter().filter(|node| node.stun_port().is_some())
    }

    /// Whether anything can be relayed here.
    #[must_use]
    pub fn has_relay(&self) -> bool {
        self.relays().next().is_some()
    }

    /// Whether latency to this region is measured.
    #[must_use]
    pub const fn measurable(&self) -> bool {
        !self.no_measure_no_home
    }

    /// Whether a node may choose it as its home.
    #[must_use]
    pub fn can_be_home(&self) -> bool {
        !self.avoid && !self.no_measure_no_home && self.has_relay()
    }
}

impl RelayNode {
    /// The UDP port of its STUN server, none if it has none (`STUNPort` -1); 3478 if the map is silent.
    #[must_use]
    pub fn stun_port(&self) -> Option<u16> {
        match self.stun_port_number {
            0 => Some(STUN_PORT),
            port => u16::try_from(port).ok(),
        }
    }

    /// The TCP port of its relay: `DERPPort`, else 443, or 80 without TLS.
    #[must_use]
    pub const fn derp_port(&self) -> u16 {
        match (self.derp_port_number, self.force_http) {
            (0, false) => DERP_PORT_TLS,
            (0, true) => DERP_PORT_HTTP,
            (port, _) => port,
        }
    }

    /// Whether its relay is spoken to over TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        !self.force_http
    }

    /// How its certificate is checked; none without TLS. `CertName` is another name to check for, or
    /// `sha256-raw:` and the hash of a self-signed certificate.
    #[must_use]
    pub fn tls(&self) -> Option<TlsCheck> {
        if self.force_http {
            return None;
        }
        if self.insecure_for_tests {
            return Some(TlsCheck::Unchecked);
        }
        if let Some(digits) = self.cert_name.strip_prefix(PIN_PREFIX) {
            // A map that was not validated may hold nonsense here: a name that no certificate bears fails closed.
            return Some(match unhex(digits) {
                Some(sha256) => TlsCheck::Pinned { sha256 },
                None => TlsCheck::Roots { name: self.cert_name.clone() },
            });
        }
        let name = if self.cert_name.is_empty() { &self.host } else { &self.cert_name };
        Some(TlsCheck::Roots { name: name.clone() })
    }

    /// Its IPv4 address: `IPv4` if that is one, DNS if it is empty, none for any other text (`none`). A host
    /// that is itself an address is taken as it is.
    #[must_use]
    pub fn ipv4(&self) -> AddressSource<Ipv4Addr> {
        if !self.ipv4_text.is_empty() {
            return self.ipv4_text.parse().map_or(AddressSource::Off, AddressSource::Literal);
        }
        match self.host_address() {
            Some(IpAddr::V4(address)) => AddressSource::Literal(address),
            Some(IpAddr::V6(_)) => AddressSource::Off,
            None => AddressSource::Resolve,
        }
    }

    /// Its IPv6 address, likewise.
    #[must_use]
    pub fn ipv6(&self) -> AddressSource<Ipv6Addr> {
        if !self.ipv6_text.is_empty() {
            return self.ipv6_text.parse().map_or(AddressSource::Off, AddressSource::Literal);
        }
        match self.host_address() {
            Some(IpAddr::V6(address)) => AddressSource::Literal(address),
            Some(IpAddr::V4(_)) => AddressSource::Off,
            None => AddressSource::Resolve,
        }
    }

    /// The addresses that the map itself gives, IPv4 first.
    #[must_use]
    pub fn literal_addresses(&self) -> Vec<IpAddr> {
        let mut all = Vec::with_capacity(2);
        if let AddressSource::Literal(address) = self.ipv4() {
            all.push(IpAddr::V4(address));
        }
        if let AddressSource::Literal(address) = self.ipv6() {
            all.push(IpAddr::V6(address));
        }
        all
    }

    /// The name to ask DNS for, if the address of some family comes from there.
    #[must_use]
    pub fn name_to_resolve(&self) -> Option<&str> {
        let asks = self.ipv4() == AddressSource::Resolve || self.ipv6() == AddressSource::Resolve;
        asks.then_some(self.host.as_str())
    }

    /// The addresses to use, given DNS's answer for [`RelayNode::name_to_resolve`] (empty if there is none
    /// yet): the map's own, and of the answer those of a family that the map leaves to DNS, in its order.
    #[must_use]
    pub fn addresses(&self, resolved: &[IpAddr]) -> Vec<IpAddr> {
        let (v4, v6) = (self.ipv4() == AddressSource::Resolve, self.ipv6() == AddressSource::Resolve);
        let mut all = self.literal_addresses();
        all.extend(resolved.iter().filter(|address| if address.is_ipv4() { v4 } else { v6 }));
        all
    }

    /// Where STUN goes instead of the node's own address, if the map says so (`STUNTestIP`).
    #[must_use]
    pub fn stun_address_override(&self) -> Option<IpAddr> {
        self.stun_test_ip.parse().ok()
    }

    /// The addresses to send STUN to, given DNS's answer as in [`RelayNode::addresses`].
    #[must_use]
    pub fn stun_addresses(&self, resolved: &[IpAddr]) -> Vec<IpAddr> {
        match self.stun_address_override() {
            Some(address) => vec![address],
            None => self.addresses(resolved),
        }
    }

    /// The stream to its relay over these addresses.
    #[must_use]
    pub fn stream_target(&self, addresses: Vec<IpAddr>) -> StreamTarget {
        StreamTarget {
            protocol: StreamProtocol::Derp,
            host: self.host.clone(),
            port: self.derp_port(),
            addresses,
            tls: self.tls(),
            path: DERP_PATH.into(),
            bearer: None,
        }
    }

    fn host_address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// A map with region numbers as its keys. Inside a tagged message serde hands the keys over as text, which
/// its own reader of integer keys refuses.
fn by_region<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<BTreeMap<RegionId, T>, D::Error> {
    let texts: BTreeMap<String, T> = null_is_default(d)?;
    texts
        .into_iter()
        .map(|(key, value)| match key.parse() {
            Ok(id) => Ok((RegionId(id), value)),
            Err(_) => Err(serde::de::Error::custom(format_args!("the region \"{key}\" is not a number"))),
        })
        .collect()
}

fn regions<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<RegionId, RelayRegion>, D::Error> {
    let mut regions: BTreeMap<RegionId, RelayRegion> = by_region(d)?;
    for (id, region) in &mut regions {
        region.id = *id;
        for node in &mut region.nodes {
            node.region = *id;
        }
    }
    Ok(regions)
}

fn scores<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<RegionId, Millionths>, D::Error> {
    by_region(d)
}

//! What a relay map must hold beyond its types.

use super::error::quoted;
use super::{FieldPath, PIN_PREFIX, Problem, REGION_ID_MAX, RelayMap, RelayMapError, RelayNode, RelayRegion};
use crate::key::unhex;
use crate::limits;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

/// A complaint without a line, which only the reader of a text knows.
type Complaint = (FieldPath, Problem);

impl RelayMap {
    /// Checks the whole map: numbers match their keys, codes and node names are unique, regions have nodes,
    /// hosts and addresses can be used, nothing exceeds its cap.
    ///
    /// # Errors
    /// The first complaint in the document's order.
    pub fn validate(&self) -> Result<(), RelayMapError> {
        check(self).map_err(|(field, problem)| RelayMapError { field, line: None, problem })
    }
}

pub(super) fn region_path(id: u64) -> FieldPath {
    FieldPath::default().key("Regions").key(&id.to_string())
}

pub(super) fn check(map: &RelayMap) -> Result<(), Complaint> {
    let regions = FieldPath::default().key("Regions");
    if map.regions.is_empty() {
        return Err((regions, Problem::NoRegions));
    }
    too_many(&regions, map.regions.len(), limits::RELAY_REGIONS_MAX)?;
    let mut codes = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (id, region) in &map.regions {
        let path = region_path(id.0);
        if id.0 == 0 || id.0 > REGION_ID_MAX {
            return Err((path, Problem::RegionKey));
        }
        check_region(id.0, region, &path)?;
        unique(&mut codes, &region.code, &path.key("RegionCode"), format!("region {id}"))?;
        for (i, node) in region.nodes.iter().enumerate() {
            let path = path.key("Nodes").index(i);
            unique(&mut names, &node.name, &path.key("Name"), format!("a node of region {id}"))?;
        }
    }
    Ok(())
}

/// Complains where two valid maps cannot be one.
pub(super) fn collisions(a: &RelayMap, b: &RelayMap) -> Result<(), RelayMapError> {
    let complain = |field, value: &str, other: String| {
        Err(RelayMapError { field, line: None, problem: Problem::Taken { value: value.into(), other } })
    };
    for (id, region) in &b.regions {
        let path = region_path(id.0);
        if let Some(other) = a.region(*id) {
            return complain(path, &id.to_string(), format!("region {id} ({})", other.name));
        }
        if let Some(other) = a.regions.values().find(|other| other.code == region.code) {
            return complain(
                path.key("RegionCode"),
                &region.code,
                format!("region {} ({})", other.id, other.name),
            );
        }
        for (i, node) in region.nodes.iter().enumerate() {
            if let Some(other) = a.nodes().find(|other| other.name == node.name) {
                let path = path.key("Nodes").index(i).key("Name");
                return complain(path, &node.name, format!("a node of region {}", other.region));
            }
        }
    }
    Ok(())
}

fn check_region(key: u64, region: &RelayRegion, path: &FieldPath) -> Result<(), Complaint> {
    if region.id.0 != key {
        return Err((path.key("RegionID"), Problem::RegionMismatch { key, found: region.id.0 }));
    }
    text(&path.key("RegionCode"), &region.code, true)?;
    text(&path.key("RegionName"), &region.name, false)?;
    let nodes = path.key("Nodes");
    if region.nodes.is_empty() {
        return Err((nodes, Problem::NoNodes));
    }
    too_many(&nodes, region.nodes.len(), limits::RELAY_NODES_MAX)?;
    region.nodes.iter().enumerate().try_for_each(|(i, node)| check_node(key, node, &nodes.index(i)))
}

fn check_node(key: u64, node: &RelayNode, path: &FieldPath) -> Result<(), Complaint> {
    text(&path.key("Name"), &node.name, true)?;
    if node.region.0 != key {
        return Err((path.key("RegionID"), Problem::RegionMismatch { key, found: node.region.0 }));
    }
    let host = path.key("HostName");
    text(&host, &node.host, true)?;
    if !is_host(&node.host) {
        return Err((host, Problem::Host(node.host.clone())));
    }
    check_cert_name(&path.key("CertName"), &node.cert_name)?;
    address::<Ipv4Addr>(&path.key("IPv4"), &node.ipv4_text, "an IPv4 address, \"none\" or empty")?;
    address::<Ipv6Addr>(&path.key("IPv6"), &node.ipv6_text, "an IPv6 address, \"none\" or empty")?;
    if !(-1..=65_535).contains(&node.stun_port_number) {
        let found = node.stun_port_number.to_string();
        return Err((path.key("STUNPort"), Problem::Range { min: -1, max: 65_535, found }));
    }
    if !node.stun_test_ip.is_empty() && node.stun_test_ip.parse::<IpAddr>().is_err() {
        let problem =
            Problem::Address { expected: "an IP address or empty", found: quoted(&node.stun_test_ip) };
        return Err((path.key("STUNTestIP"), problem));
    }
    Ok(())
}

fn check_cert_name(path: &FieldPath, name: &str) -> Result<(), Complaint> {
    text(path, name, false)?;
    match name.strip_prefix(PIN_PREFIX) {
        Some(digits) if unhex(digits).is_none() => Err((path.clone(), Problem::Pin)),
        None if !name.is_empty() && !is_host(name) => Err((path.clone(), Problem::Host(name.into()))),
        _ => Ok(()),
    }
}

/// A typing error in an address would quietly switch the family off, so the only word allowed is `none`.
fn address<T: core::str::FromStr>(
    path: &FieldPath,
    found: &str,
    expected: &'static str,
) -> Result<(), Complaint> {
    if found.is_empty() || found == "none" || found.parse::<T>().is_ok() {
        return Ok(());
    }
    Err((path.clone(), Problem::Address { expected, found: quoted(found) }))
}

/// Letters, digits, dots, hyphens and underscores, or an address. It goes into an HTTP header, so nothing
/// else may pass.
fn is_host(host: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    host.bytes().all(word) || host.parse::<IpAddr>().is_ok()
}

fn text(path: &FieldPath, text: &str, needed: bool) -> Result<(), Complaint> {
    if needed && text.is_empty() {
        return Err((path.clone(), Problem::Empty));
    }
    if text.len() > limits::RELAY_NAME_MAX || text.chars().any(char::is_control) {
        return Err((path.clone(), Problem::Text(limits::RELAY_NAME_MAX)));
    }
    Ok(())
}

fn too_many(path: &FieldPath, found: usize, max: usize) -> Result<(), Complaint> {
    if found > max { Err((path.clone(), Problem::TooMany { max, found })) } else { Ok(()) }
}

fn unique<'a>(
    seen: &mut BTreeMap<&'a str, String>,
    value: &'a str,
    path: &FieldPath,
    owner: String,
) -> Result<(), Complaint> {
    match seen.insert(value, owner) {
        None => Ok(()),
        Some(other) => Err((path.clone(), Problem::Taken { value: value.into(), other })),
    }
}

//! The region of this server itself, and regions for the STUN servers offered besides.

use crate::settings::{AccessUrl, HostPort, Settings};
use core::net::IpAddr;
use proto_core::id::RegionId;
use proto_core::relay_map::{RelayMap, RelayNode, RelayRegion};

/// Says "no STUN here" in a node's record.
const NO_STUN: i32 = -1;

/// The server's own part of the relay map. `stun_port` is the port of its STUN socket, if it has one.
///
/// Nodes ask the STUN server at the access URL's host, or where `--stun-advertise` says: then it is a record of
/// its own in the same region, since its host is not the relay's.
pub(crate) fn embedded(settings: &Settings, access_url: &AccessUrl, stun_port: Option<u16>) -> RelayMap {
    let id = settings.derp_server_region_id;
    let mut nodes = Vec::new();
    let here = stun_port.map(|port| HostPort { host: access_url.host.clone(), port });
    let stun = settings.stun_advertise.clone().or(here);
    let together = stun.as_ref().is_some_and(|stun| stun.host == access_url.host);
    if settings.derp_server_enable {
        let mut node = node(id, "a", &access_url.host, access_url.ip());
        node.derp_port_number = access_url.port;
        node.force_http = !access_url.tls;
        node.can_port_80 = !access_url.tls && access_url.port == 80;
        node.stun_port_number = match &stun {
            Some(stun) if together => i32::from(stun.port),
            _ => NO_STUN,
        };
        nodes.push(node);
    }
    if let Some(stun) = stun.filter(|_| nodes.is_empty() || !together) {
        nodes.push(stun_node(id, "stun", &stun));
    }
    let mut map = RelayMap::default();
    if !nodes.is_empty() {
        let (code, name) = (&settings.derp_server_region_code, &settings.derp_server_region_name);
        add(&mut map, region(id, code, name, nodes));
    }
    // Each in a region of its own, so that a netcheck asks all of them and can compare what they see.
    for (n, server) in (1..).zip(&settings.stun_servers) {
        let (id, code) = (id + n, format!("{}-stun-{n}", settings.derp_server_region_code));
        add(&mut map, region(id, &code, &format!("STUN {server}"), vec![stun_node(id, "stun", server)]));
    }
    map
}

fn add(map: &mut RelayMap, region: RelayRegion) {
    map.regions.insert(region.id, region);
}

fn region(id: u64, code: &str, name: &str, nodes: Vec<RelayNode>) -> RelayRegion {
    RelayRegion {
        id: RegionId(id),
        code: code.to_owned(),
        name: name.to_owned(),
        nodes,
        ..Default::default()
    }
}

fn stun_node(region: u64, suffix: &str, stun: &HostPort) -> RelayNode {
    let mut node = node(region, suffix, &stun.host, stun.ip());
    node.stun_only = true;
    node.stun_port_number = i32::from(stun.port);
    node
}

/// A node at `host`. Of an address the other family is switched off: nobody then asks DNS for it.
fn node(region: u64, suffix: &str, host: &str, ip: Option<IpAddr>) -> RelayNode {
    let (v4, v6) = match ip {
        Some(IpAddr::V4(ip)) => (ip.to_string(), "none".to_owned()),
        Some(IpAddr::V6(ip)) => ("none".to_owned(), ip.to_string()),
        None => (String::new(), String::new()),
    };
    RelayNode {
        name: format!("{region}{suffix}"),
        region: RegionId(region),
        host: host.to_owned(),
        ipv4_text: v4,
        ipv6_text: v6,
        ..Default::default()
    }
}

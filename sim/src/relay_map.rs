//! The relay map of the simulated servers, in both lanes.

use crate::world::server::{HTTP_PORT, STUN_PORT};
use proto_core::id::RegionId;
use proto_core::relay_map::{RelayMap, RelayNode, RelayRegion};
use std::net::IpAddr;

/// A map of these relays: each one's region, name and address. Those of one region are in this order in it.
pub(crate) fn relay_map(relays: &[(u64, &str, IpAddr)]) -> RelayMap {
    let mut map = RelayMap { omit_default_regions: true, ..RelayMap::default() };
    for (id, host, address) in relays {
        let id = RegionId(*id);
        let code = host.split('.').next().unwrap_or_default();
        let region = map.regions.entry(id).or_insert_with(|| RelayRegion {
            id,
            code: code.into(),
            name: code.into(),
            ..RelayRegion::default()
        });
        let letter = char::from(b'a' + region.nodes.len() as u8);
        region.nodes.push(RelayNode {
            name: format!("{}{letter}", id.0),
            region: id,
            ..relay_node(host, *address)
        });
    }
    map
}

/// A relay of this name and address.
pub(crate) fn relay_node(host: &str, address: IpAddr) -> RelayNode {
    RelayNode {
        name: host.into(),
        host: host.into(),
        ipv4_text: address.to_string(),
        ipv6_text: "none".into(),
        stun_port_number: i32::from(STUN_PORT),
        derp_port_number: HTTP_PORT,
        force_http: true,
        ..RelayNode::default()
    }
}

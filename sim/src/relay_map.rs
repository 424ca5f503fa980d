//! The relay map of the simulated servers, in both lanes.

use crate::world::server::{HTTP_PORT, STUN_PORT};
use proto_core::id::RegionId;
use proto_core::relay_map::{RelayMap, RelayNode, RelayRegion};
use std::net::IpAddr;

/// A map of these regions, each with one relay: number, name, address.
pub(crate) fn relay_map(regions: &[(u64, &str, IpAddr)]) -> RelayMap {
    let regions = regions.iter().map(|(id, host, address)| {
        let id = RegionId(*id);
        let node = RelayNode {
            name: format!("{}a", id.0),
            region: id,
            host: (*host).into(),
            ipv4_text: address.to_string(),
            ipv6_text: "none".into(),
            stun_port_number: i32::from(STUN_PORT),
            derp_port_number: HTTP_PORT,
            force_http: true,
            ..RelayNode::default()
        };
        let code = host.split('.').next().unwrap_or_default();
        let region = RelayRegion {
            id,
            code: code.into(),
            name: code.into(),
            nodes: vec![node],
            ..RelayRegion::default()
        };
        (id, region)
    });
    RelayMap { regions: regions.collect(), omit_default_regions: true, home_params: None }
}

//! A mapping that a router granted, with what is needed to renew it and to give it back.

use crab_nat::{InternetProtocol, PortMapping, PortMappingType, natpmp};
use igd_next::PortMappingProtocol;
use igd_next::aio::Gateway;
use igd_next::aio::tokio::Tokio;
use proto_core::limits::PORTMAP_LIFETIME;
use proto_core::nat::portmap::{Grant, Mapped, Protocol};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// What the mapping is called in a router's list.
const DESCRIPTION: &str = "Warren";

/// A granted mapping.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The router that was asked.
    pub(super) gateway: Ipv4Addr,
    /// Our address as it sees it.
    pub(super) local: SocketAddrV4,
    pub(super) grant: Grant,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    /// PCP or NAT-PMP.
    Datagrams(PortMapping),
    /// UPnP. Some routers know no lifetime, and keep a mapping until it is taken back.
    Upnp { device: Gateway<Tokio>, lifetime: u32 },
}

impl Held {
    /// What a router granted by PCP or NAT-PMP; `external` is its outer address where the protocol does not say it.
    pub(super) fn by_datagrams(
        gateway: Ipv4Addr,
        local: SocketAddrV4,
        granted: PortMapping,
        external: Option<Ipv4Addr>,
    ) -> Option<Self> {
        let (protocol, ip) = match granted.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => (Protocol::Pcp, external_ip),
            PortMappingType::NatPmp => (Protocol::NatPmp, IpAddr::V4(external?)),
        };
        let IpAddr::V4(ip) = ip.to_canonical() else { return None };
        // A lifetime of nothing is how a router says that it took a mapping back.
        if granted.lifetime() == 0 {
            return None;
        }
        let external = SocketAddrV4::new(ip, granted.external_port().get());
        let grant = Grant {
            mapped: Mapped { protocol, external, port: local.port() },
            lifetime: Duration::from_secs(granted.lifetime().into()),
        };
        Some(Self { gateway, local, grant, by: By::Datagrams(granted) })
    }

    /// Asks a UPnP device for our own port outside, or any other.
    pub(super) async fn by_upnp(
        gateway: Ipv4Addr,
        local: SocketAddrV4,
        device: Gateway<Tokio>,
    ) -> Option<Self> {
        let IpAddr::V4(ip) = device.get_external_ip().await.ok()? else { return None };
        if ip.is_unspecified() {
            tracing::debug!("the router has no connection to map a port of");
            return None;
        }
        let (port, lifetime) = map(&device, local).await?;
        let external = SocketAddrV4::new(ip, port);
        let grant = Grant {
            mapped: Mapped { protocol: Protocol::Upnp, external, port: local.port() },
            lifetime: PORTMAP_LIFETIME,
        };
        Some(Self { gateway, local, grant, by: By::Upnp { device, lifetime } })
    }

    /// Asks for the same once more.
    pub(super) async fn renew(self) -> Option<Self> {
        let Self { gateway, local, grant, by } = self;
        match by {
            By::Datagrams(mut granted) => {
                granted.renew().await.ok()?;
                let external = match granted.mapping_type() {
                    PortMappingType::NatPmp => {
                        let limits = Some(granted.timeout_config);
                        let external = natpmp::external_address(gateway.into(), limits).await.ok()?;
                        Some(external)
                    }
                    PortMappingType::Pcp { .. } => None,
                };
                Self::by_datagrams(gateway, local, granted, external)
            }
            By::Upnp { device, lifetime } => {
                let IpAddr::V4(ip) = device.get_external_ip().await.ok()? else { return None };
                let external = SocketAddrV4::new(ip, grant.mapped.external.port());
                let (port, udp) = (external.port(), PortMappingProtocol::UDP);
                device.add_port(udp, port, local.into(), lifetime, DESCRIPTION).await.ok()?;
                let mapped = Mapped { external, ..grant.mapped };
                Some(Self {
                    gateway,
                    local,
                    grant: Grant { mapped, ..grant },
                    by: By::Upnp { device, lifetime },
                })
            }
        }
    }

    /// Gives it back.
    pub(super) async fn release(self) {
        let failed = match self.by {
            By::Datagrams(granted) => granted.try_drop().await.map_err(|(error, _)| error.to_string()).err(),
            By::Upnp { device, .. } => {
                let port = self.grant.mapped.external.port();
                let removed = device.remove_port(PortMappingProtocol::UDP, port).await;
                removed.map_err(|error| error.to_string()).err()
            }
        };
        if let Some(error) = failed {
            tracing::debug!(error, "the router has not taken the port mapping back");
        }
    }
}

/// A port of a UPnP device, and the lifetime that it was asked for, in seconds.
async fn map(device: &Gateway<Tokio>, local: SocketAddrV4) -> Option<(u16, u32)> {
    use igd_next::{AddAnyPortError, AddPortError};
    let seconds = u32::try_from(PORTMAP_LIFETIME.as_secs()).unwrap_or(u32::MAX);
    let udp = PortMappingProtocol::UDP;
    // Our own port first: guests with a firewall rule for it find it open.
    let same = device.add_port(udp, local.port(), local.into(), seconds, DESCRIPTION).await;
    match same {
        Ok(()) => return Some((local.port(), seconds)),
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            let kept = device.add_port(udp, local.port(), local.into(), 0, DESCRIPTION).await;
            return kept.ok().map(|()| (local.port(), 0));
        }
        Err(error) => tracing::debug!(%error, "the router has another use for our port"),
    }
    match device.add_any_port(udp, local.into(), seconds, DESCRIPTION).await {
        Ok(port) => Some((port, seconds)),
        Err(AddAnyPortError::OnlyPermanentLeasesSupported) => {
            device.add_any_port(udp, local.into(), 0, DESCRIPTION).await.ok().map(|port| (port, 0))
        }
        Err(error) => {
            tracing::debug!(%error, "the router maps no port by UPnP");
            None
        }
    }
}

/// The transport protocol that is mapped.
pub(super) const UDP: InternetProtocol = InternetProtocol::Udp;

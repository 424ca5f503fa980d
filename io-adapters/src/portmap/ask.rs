//! One question to the router: by all protocols at once, the first that grants is told at once.

use super::held::{Held, UDP};
use super::{Granted, Said};
use crab_nat::pcp::BaseMapRequest;
use crab_nat::{PortMappingOptions, TimeoutConfig, VersionCode, natpmp, pcp};
use futures_util::future::select_ok;
use igd_next::SearchOptions;
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use proto_core::limits::PORTMAP_LIFETIME;
use proto_core::nat::portmap::{Offers, RouterWord};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a router has to answer a datagram: it is one hop away, and asked three times.
const TIMES: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: Some(Duration::from_secs(1)),
};
/// How long UPnP devices are searched for: they may wait for a second before they answer (UPnP Device Architecture,
/// 1.3.2), and describe themselves by two documents then.
const SEARCH: Duration = Duration::from_secs(3);
/// How long a UPnP device may take for what it is asked in all.
const UPNP: Duration = Duration::from_secs(5);
/// Where UPnP devices listen for searches (UPnP Device Architecture, 1.3.2).
const SSDP: u16 = 1900;

/// The router's address, if there is one.
pub(super) async fn gateway() -> Option<Ipv4Addr> {
    let found = tokio::task::spawn_blocking(netdev::get_default_gateway).await.ok()?;
    found.ok()?.ipv4.first().copied()
}

/// Asks for a mapping to a port, or renews what was granted; tells the answer, and keeps what was granted.
pub(super) async fn ask(port: u16, granted: Granted, said: mpsc::Sender<Said>) {
    let place = place(port).await;
    let held = granted.get();
    if let Some(held) = held {
        let same = place.is_some_and(|(gateway, local)| (held.gateway, held.local) == (gateway, local));
        if same && let Some(held) = timeout(UPNP, held.clone().renew()).await.ok().flatten() {
            return keep(&granted, held, &said).await;
        }
        // A router that forgot it is asked anew; one that we left does not hear us any more.
        if place.is_some_and(|(gateway, _)| gateway == held.gateway) {
            granted.give_back().await;
        }
        granted.put(None);
    }
    let (offers, kept) = match place {
        Some((gateway, local)) => ask_anew(gateway, local, &granted, &said).await,
        None => (Offers::default(), false),
    };
    let _ = said.send(Said::Word(RouterWord::Offers(offers, true))).await;
    if !kept {
        let _ = said.send(Said::Word(RouterWord::Answer(None))).await;
    }
}

/// Keeps what was granted, and tells it.
async fn keep(granted: &Granted, held: Held, said: &mpsc::Sender<Said>) {
    let answer = RouterWord::Answer(Some(held.grant));
    granted.put(Some(held));
    let _ = said.send(Said::Word(answer)).await;
}

/// The router, and our address as it sees it.
async fn place(port: u16) -> Option<(Ipv4Addr, SocketAddrV4)> {
    let gateway = gateway().await?;
    // Nothing is sent: connecting a UDP socket only asks the routing table.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT)).ok()?;
    let IpAddr::V4(local) = socket.local_addr().ok()?.ip() else { return None };
    Some((gateway, SocketAddrV4::new(local, port)))
}

/// By all three at once. A mapping is told as soon as there is one; the search for UPnP goes on beside, for what the
/// router offers. Answers that, and whether something was granted.
async fn ask_anew(
    gateway: Ipv4Addr,
    local: SocketAddrV4,
    granted: &Granted,
    said: &mpsc::Sender<Said>,
) -> (Offers, bool) {
    let by_datagrams = async {
        let (held, pcp, nat_pmp) = by_datagrams(gateway, local).await;
        let got = held.is_some();
        if let Some(held) = held {
            keep(granted, held, said).await;
        }
        (got, pcp, nat_pmp)
    };
    let ((mut got, pcp, nat_pmp), device) = tokio::join!(by_datagrams, search(gateway));
    let offers = Offers { pcp: Some(pcp), nat_pmp: Some(nat_pmp), upnp: Some(device.is_some()) };
    if !got
        && let Some(device) = device
        && let Ok(Some(held)) = timeout(UPNP, Held::by_upnp(gateway, local, device)).await
    {
        keep(granted, held, said).await;
        got = true;
    }
    (offers, got)
}

/// A mapping by PCP, else by NAT-PMP, and which of them the router speaks.
async fn by_datagrams(gateway: Ipv4Addr, local: SocketAddrV4) -> (Option<Held>, bool, bool) {
    let Some(port) = NonZeroU16::new(local.port()) else { return (None, false, false) };
    let options = PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: u32::try_from(PORTMAP_LIFETIME.as_secs()).ok(),
        timeout_config: Some(TIMES),
    };
    let base = BaseMapRequest::new(gateway.into(), IpAddr::V4(*local.ip()), UDP, port);
    let (granted, external) = tokio::join!(
        pcp::port_mapping(base, None, None, options),
        natpmp::external_address(gateway.into(), Some(TIMES))
    );
    let speaks_pcp = match &granted {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%error, "the router maps no port by PCP");
            refuses_by_pcp(error)
        }
    };
    let speaks_nat_pmp = match &external {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%error, "the router says nothing by NAT-PMP");
            refuses_by_nat_pmp(error)
        }
    };
    let external = external.ok();
    let held = granted.ok().and_then(|granted| Held::by_datagrams(gateway, local, granted, None));
    if held.is_some() || external.is_none() {
        return (held, speaks_pcp, speaks_nat_pmp);
    }
    let granted = natpmp::port_mapping(gateway.into(), UDP, port, options).await;
    let granted = granted.inspect_err(|error| tracing::debug!(%error, "the router maps no port by NAT-PMP"));
    let held = granted.ok().and_then(|granted| Held::by_datagrams(gateway, local, granted, external));
    (held, speaks_pcp, speaks_nat_pmp)
}

/// Whether this is an answer in PCP, though not the one hoped for.
const fn refuses_by_pcp(error: &pcp::Failure) -> bool {
    use pcp::Failure;
    !matches!(
        error,
        Failure::Socket(_)
            | Failure::Timeout
            | Failure::InvalidResponse(_)
            | Failure::UnsupportedVersion(VersionCode::NatPmp)
    )
}

/// The same in NAT-PMP.
const fn refuses_by_nat_pmp(error: &natpmp::Failure) -> bool {
    use natpmp::Failure;
    matches!(error, Failure::NotAuthorized | Failure::NetworkFailure | Failure::OutOfResources)
}

/// The router as a UPnP device, asked by the group's address and by its own: whatever else answers to the group first,
/// leads nowhere.
async fn search(gateway: Ipv4Addr) -> Option<Gateway<Tokio>> {
    let own = SocketAddr::from((gateway, SSDP));
    let group = SearchOptions::default().broadcast_address;
    let asked = [group, own].map(|to| Box::pin(search_at(to, gateway)));
    select_ok(asked).await.ok().map(|(found, _)| found)
}

/// The router as a UPnP device, if it answers first of all that hear a search to this address.
async fn search_at(to: SocketAddr, gateway: Ipv4Addr) -> Result<Gateway<Tokio>, ()> {
    let mut options = SearchOptions::default();
    options.broadcast_address = to;
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    let found = timeout(SEARCH, search_gateway(options)).await.map_err(drop)?;
    let found = found.map_err(|error| tracing::debug!(%error, %to, "no UPnP device answers"))?;
    if found.addr.ip() == IpAddr::V4(gateway) { Ok(found) } else { Err(()) }
}

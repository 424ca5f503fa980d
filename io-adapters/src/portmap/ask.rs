//! One question to the router: by all protocols at once, the first that grants is told at once.

use super::Said;
use super::held::{Held, UDP};
use crab_nat::pcp::BaseMapRequest;
use crab_nat::{PortMappingOptions, TimeoutConfig, VersionCode, natpmp, pcp};
use igd_next::SearchOptions;
use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use proto_core::limits::PORTMAP_LIFETIME;
use proto_core::nat::portmap::{Offers, RouterWord};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
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
const UPNP: Duration = Duration::from_secs(6);

/// The router's address, if there is one.
pub(super) fn gateway() -> Option<Ipv4Addr> {
    netdev::get_default_gateway().ok()?.ipv4.first().copied()
}

/// Asks for a mapping to a port, or renews what is held; tells the answer, and gives what is held then.
pub(super) async fn ask(port: u16, held: Option<Held>, said: mpsc::Sender<Said>) -> Option<Held> {
    let answer = |held: Option<&Held>| Said::Word(RouterWord::Answer(held.map(|held| held.grant)));
    let place = place(port).await;
    if let Some(held) = held {
        let same = place.is_some_and(|(gateway, local)| (held.gateway, held.local) == (gateway, local));
        if same && let Some(held) = held.clone().renew().await {
            let _ = said.send(answer(Some(&held))).await;
            return Some(held);
        }
        // A router that forgot it is asked anew; one that we left does not hear us any more.
        if place.is_some_and(|(gateway, _)| held.gateway == gateway) {
            let _ = timeout(super::RELEASE, held.release()).await;
        }
    }
    let (held, offers) = match place {
        Some((gateway, local)) => ask_anew(gateway, local, &said).await,
        None => (None, Offers::default()),
    };
    let _ = said.send(Said::Word(RouterWord::Offers(offers, true))).await;
    if held.is_none() {
        let _ = said.send(answer(None)).await;
    }
    held
}

/// The router, and our address as it sees it.
async fn place(port: u16) -> Option<(Ipv4Addr, SocketAddrV4)> {
    let gateway = tokio::task::spawn_blocking(gateway).await.ok()??;
    // Nothing is sent: connecting a UDP socket only asks the routing table.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((gateway, crab_nat::GATEWAY_PORT)).ok()?;
    let IpAddr::V4(local) = socket.local_addr().ok()?.ip() else { return None };
    Some((gateway, SocketAddrV4::new(local, port)))
}

/// By all three at once. A mapping is told as soon as there is one; the search for UPnP goes on beside, for what the
/// router offers.
async fn ask_anew(
    gateway: Ipv4Addr,
    local: SocketAddrV4,
    said: &mpsc::Sender<Said>,
) -> (Option<Held>, Offers) {
    let told = async |held: &Option<Held>| {
        if let Some(held) = held {
            let _ = said.send(Said::Word(RouterWord::Answer(Some(held.grant)))).await;
        }
    };
    let by_datagrams = async {
        let (held, pcp, nat_pmp) = by_datagrams(gateway, local).await;
        told(&held).await;
        (held, pcp, nat_pmp)
    };
    let ((held, pcp, nat_pmp), device) = tokio::join!(by_datagrams, search(gateway));
    let offers = Offers { pcp: Some(pcp), nat_pmp: Some(nat_pmp), upnp: Some(device.is_some()) };
    let held = match (held, device) {
        (None, Some(device)) => {
            let held = timeout(UPNP, Held::by_upnp(gateway, local, device)).await.ok().flatten();
            told(&held).await;
            held
        }
        (held, _) => held,
    };
    (held, offers)
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

/// The router as a UPnP device. What else answers on this network leads nowhere.
async fn search(gateway: Ipv4Addr) -> Option<Gateway<Tokio>> {
    let mut options = SearchOptions::default();
    options.timeout = Some(SEARCH);
    options.single_search_timeout = Some(SEARCH);
    let found = timeout(SEARCH, search_gateway(options)).await.ok()?;
    let found = found.inspect_err(|error| tracing::debug!(%error, "no UPnP device answers")).ok()?;
    (found.addr.ip() == IpAddr::V4(gateway)).then_some(found)
}

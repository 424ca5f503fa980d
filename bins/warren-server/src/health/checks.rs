//! Which checks there are, and what each says.

use super::{Check, Health, Level, NodeSeen, Seen, probe};
use crate::api::DERP_PATH;
use crate::app::App;
use crate::clock::rfc3339;
use io_adapters::relay_stream::Dialer;
use io_adapters::transport::TokioNetwork;
use proto_core::id::RegionId;
use proto_core::key::NodeSecret;
use proto_core::machine::StreamProtocol;
use proto_core::relay_map::{RelayMap, RelayNode, RelayRegion};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Relays asked at once: a map may have hundreds.
const AT_ONCE: usize = 16;
/// A relay that takes longer than this for a message is slow.
const SLOW: Duration = Duration::from_millis(500);

/// All of them.
pub(super) async fn all(health: &Health, app: &App) -> Seen {
    let map = app.relay_map.borrow().clone();
    let nodes = nodes(health, &map);
    let (database, access_url, web_socket, nodes) =
        tokio::join!(database(app), access_url(health, app), web_socket(health, app), nodes);
    let mut seen = Seen { checks: vec![database, access_url, web_socket], nodes: Default::default() };
    seen.nodes.extend(nodes.into_iter().map(|(region, node, seen)| ((region, node), seen)));
    for region in map.regions.values() {
        let check = relays_of(app, region, &seen.nodes);
        seen.checks.extend(check);
    }
    let stun = stun(app, &map, &seen);
    seen.checks.push(stun);
    seen.checks.push(replicas(app));
    seen
}

type NodeFound = (RegionId, String, NodeSeen);

/// Every relay and STUN server of the map, several at once.
async fn nodes(health: &Health, map: &RelayMap) -> Vec<NodeFound> {
    let one_after_another = Arc::new(Semaphore::new(AT_ONCE));
    let mut looking = JoinSet::new();
    for (region, node) in map.regions.values().flat_map(|r| r.nodes.iter().map(|node| (r.id, node.clone()))) {
        let (turn, dialer) = (Arc::clone(&one_after_another), health.dialer.clone());
        let asks = (health.key.clone(), health.protocol);
        looking.spawn(async move {
            let _turn = turn.acquire_owned().await;
            one(dialer, asks, region, node).await
        });
    }
    let mut found = Vec::new();
    while let Some(one) = looking.join_next().await {
        match one {
            Ok(one) => found.push(one),
            Err(error) => tracing::error!("a health check failed: {error}"),
        }
    }
    found
}

async fn one(
    dialer: Dialer<TokioNetwork>,
    asks: (NodeSecret, StreamProtocol),
    region: RegionId,
    node: RelayNode,
) -> NodeFound {
    let since = Instant::now();
    let derp = async { if node.stun_only { None } else { Some(probe::relay(&dialer, &node, &asks).await) } };
    let stun = async {
        match node.stun_port() {
            Some(port) => Some(probe::stun(&dialer, &node, port).await),
            None => None,
        }
    };
    let (derp, stun) = tokio::join!(derp, stun);
    (region, node.name.clone(), NodeSeen { derp, stun, took: since.elapsed() })
}

/// A check's words.
struct Found {
    status: Level,
    detail: String,
    cause: Option<&'static str>,
    remedy: Option<&'static str>,
}

impl Found {
    fn well(detail: impl Into<String>) -> Self {
        Self { status: Level::Ok, detail: detail.into(), cause: None, remedy: None }
    }

    fn ill(status: Level, detail: String, cause: &'static str, remedy: &'static str) -> Self {
        Self { status, detail, cause: Some(cause), remedy: Some(remedy) }
    }

    fn check(self, app: &App, code: &'static str, name: impl Into<String>, took: Duration) -> Check {
        Check {
            code,
            name: name.into(),
            status: self.status,
            detail: self.detail,
            cause: self.cause,
            remedy: self.remedy,
            checked_at: rfc3339(app.clock.now()),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

async fn database(app: &App) -> Check {
    let since = Instant::now();
    let found = match app.store.ping().await {
        Ok(()) => Found::well("The database answers."),
        Err(error) => Found::ill(
            Level::Error,
            format!("The database does not answer: {error}."),
            "The disk is full or gone, or another program holds the database.",
            "Look at the server's log, and at the disk of its state directory.",
        ),
    };
    found.check(app, "DATABASE", "Database", since.elapsed())
}

async fn access_url(health: &Health, app: &App) -> Check {
    let since = Instant::now();
    let found = match probe::access_url(&health.dialer, &app.access_url).await {
        Ok(()) if app.access_url.is_loopback() => Found::ill(
            Level::Warning,
            format!("{} leads here, but only on this machine.", app.access_url),
            "No access URL is set, and the server listens on loopback.",
            "Set --access-url to the URL that users and agents elsewhere reach.",
        ),
        Ok(()) => Found::well(format!("{} leads here.", app.access_url)),
        Err(why) => Found::ill(
            Level::Error,
            format!("{} does not lead to this server: {why}.", app.access_url),
            "DNS, a firewall, a proxy's settings or the certificate stand between; or this network does not lead back \
             to its own public address.",
            "Open the access URL in a browser from outside; set --access-url to what users can reach.",
        ),
    };
    found.check(app, "ACCESS_URL", "Access URL", since.elapsed())
}

async fn web_socket(health: &Health, app: &App) -> Check {
    let since = Instant::now();
    let found = if app.hub.relay().is_none() {
        Found::well("Not checked: the embedded relay, which would answer, is off.")
    } else {
        match probe::web_socket(&health.dialer, &app.access_url, DERP_PATH).await {
            Ok(()) => Found::well("A WebSocket opens at the access URL, and carries data."),
            Err(why) => Found::ill(
                Level::Error,
                format!("No WebSocket opens at the access URL: {why}."),
                "A proxy before the server does not pass WebSocket upgrades on.",
                "Have the proxy pass on the headers Upgrade and Connection: agents, clients and terminals need them.",
            ),
        }
    };
    found.check(app, "WEBSOCKET", "WebSocket", since.elapsed())
}

type Nodes = std::collections::BTreeMap<(RegionId, String), NodeSeen>;

/// A region's relays, if it has any: it is well if each passes messages on.
fn relays_of(app: &App, region: &RelayRegion, seen: &Nodes) -> Option<Check> {
    let of = |node: &RelayNode| seen.get(&(region.id, node.name.clone()))?.derp.clone();
    let derp: Vec<_> = region.nodes.iter().filter_map(|node| Some((&node.name, of(node)?))).collect();
    if derp.is_empty() {
        return None;
    }
    let working = derp.iter().filter(|(_, result)| result.is_ok()).count();
    let best = derp.iter().filter_map(|(_, result)| result.as_ref().ok()).min().copied();
    let troubles: Vec<String> = derp
        .iter()
        .filter_map(|(name, result)| Some(format!("{name}: {}", result.as_ref().err()?)))
        .collect();
    let found = match best {
        Some(best) if working == derp.len() && best < SLOW => {
            Found::well(format!("A message takes {} through it.", milliseconds(best)))
        }
        Some(best) if working == derp.len() => Found::ill(
            Level::Warning,
            format!("A message takes {} through it.", milliseconds(best)),
            "The relay is far away or overloaded.",
            "Run a relay nearer to this server's users.",
        ),
        Some(_) => Found::ill(
            Level::Warning,
            format!("{working} of {} relays pass messages on ({}).", derp.len(), troubles.join("; ")),
            "A relay has stopped, or the way to it is closed.",
            "Look at that relay's log, and at the firewall before it.",
        ),
        None => Found::ill(
            Level::Error,
            format!("No message passes ({}).", troubles.join("; ")),
            "The relay has stopped, the way to it is closed, or it does not let this server's key in.",
            "Look at the relay's log and the firewall before it; if it asks a server whom to let in, have it ask this one.",
        ),
    };
    let took = region.nodes.iter().filter_map(|node| seen.get(&(region.id, node.name.clone())));
    let took = took.map(|seen| seen.took).max().unwrap_or_default();
    Some(found.check(app, "RELAY", format!("Relay {}", region.name), took))
}

fn milliseconds(time: Duration) -> String {
    match time.as_millis() {
        0 => "less than 1 ms".to_owned(),
        ms => format!("{ms} ms"),
    }
}

/// STUN servers, all together: one that answers is enough to find direct ways, two tell what the NATs are like.
fn stun(app: &App, map: &RelayMap, seen: &Seen) -> Check {
    let all: Vec<_> = seen.nodes.iter().filter_map(|(at, node)| Some((at, node.stun.as_ref()?))).collect();
    let answering = all.iter().filter(|(_, result)| result.is_ok()).count();
    let took = seen.nodes.values().filter(|node| node.stun.is_some()).map(|node| node.took).max();
    let silent: Vec<String> = all
        .iter()
        .filter_map(|((region, name), result)| {
            Some(format!("{} {name}: {}", map.label(*region), result.as_ref().err()?))
        })
        .collect();
    let found = if all.is_empty() {
        Found::ill(
            Level::Warning,
            "The relay map names no STUN server: few direct connections will be found.".to_owned(),
            "--stun-address is \"none\", and no relay of the map has STUN.",
            "Set --stun-address, or name other servers by --stun-servers.",
        )
    } else if answering == 0 {
        Found::ill(
            Level::Error,
            format!("No STUN server answers ({}).", silent.join("; ")),
            "A firewall drops UDP, or the servers have stopped.",
            "Let UDP port 3478 in, or name other servers by --stun-servers.",
        )
    } else if !silent.is_empty() {
        Found::ill(
            Level::Warning,
            format!("{answering} of {} STUN servers answer ({}).", all.len(), silent.join("; ")),
            "A firewall drops UDP, or a server has stopped.",
            "Let UDP port 3478 in at those that are silent.",
        )
    } else {
        Found::well(if answering == 1 {
            "The STUN server answers.".to_owned()
        } else {
            format!("{answering} STUN servers answer.")
        })
    };
    found.check(app, "STUN", "STUN", took.unwrap_or_default())
}

fn replicas(app: &App) -> Check {
    let found = Found::well("This server is alone: its database is a file of its own.");
    found.check(app, "REPLICAS", "Replicas", Duration::ZERO)
}

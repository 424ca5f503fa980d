//! `warren netcheck`: what this machine's network lets through, and what that means.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use crate::plain;
use crate::tunnel;
use io_adapters::access_url::AccessUrl;
use io_adapters::http::{HttpClient, Request};
use io_adapters::transport::TokioNetwork;
use proto_core::explain;
use proto_core::id::RegionId;
use proto_core::nat::{Report, Router};
use proto_core::node::{NodeEvent, SessionState};
use proto_core::relay_map::RelayMap;
use proto_core::time::Duration;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

mod class;

/// Check what this machine's network lets through
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Seconds to wait for answers
    #[arg(short, long, env = "WARREN_NETCHECK_TIMEOUT", default_value_t = DEFAULT_TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Seconds that a check may take: every relay has answered by then, or does not.
const DEFAULT_TIMEOUT: u64 = 5;
/// What the server answers without a body, and portals with theirs.
const CAPTIVE_CHECK: &str = "/generate_204";
/// How long the answer may take.
const CAPTIVE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(4);

#[derive(Serialize)]
struct Relay {
    region: String,
    name: String,
    latency_ms: Option<f64>,
    preferred: bool,
    /// Why it cannot be used, if it was tried in vain.
    trouble: Option<String>,
}

/// What the node has found out.
struct Found {
    map: RelayMap,
    report: Report,
    router: Router,
    /// Whether the router was to be asked.
    wanted: bool,
    choice: Option<tunnel::Choice>,
    troubles: BTreeMap<RegionId, String>,
}

#[derive(Serialize)]
struct Interface {
    name: String,
    mtu_bytes: Option<u32>,
}

/// What is found out beside the node's own check.
struct Beside {
    captive_portal: Option<bool>,
    interface: Option<Interface>,
}

#[derive(Serialize)]
struct Document {
    udp: bool,
    ipv4: Option<String>,
    ipv6: Option<String>,
    /// How the NAT maps, as RFC 4787 calls it.
    mapping: &'static str,
    /// Whose packets it lets in, in the same words.
    filtering: &'static str,
    /// How it chooses ports, if known.
    port_allocation: Option<&'static str>,
    /// How far apart the ports are that it chooses one after the other.
    port_step: Option<u16>,
    port_mapping: class::PortMapping,
    interfaces: Vec<IpAddr>,
    /// By which this machine reaches the internet.
    interface: Option<Interface>,
    /// Whether a portal stands between this machine and the internet; none if that could not be told.
    captive_portal: Option<bool>,
    relays: Vec<Relay>,
    relay_choice: Option<tunnel::Choice>,
    verdict: String,
}

/// Checks.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let document = check(global, args.timeout).await?;
    if global.output == Format::Json {
        output::json(&document);
    } else {
        output::line(words(&document));
    }
    Ok(())
}

/// The check's document, for a support bundle.
pub(crate) async fn report(global: &Global) -> Result<serde_json::Value> {
    let document = check(global, DEFAULT_TIMEOUT).await?;
    Ok(serde_json::to_value(document).unwrap_or_default())
}

async fn check(global: &Global, seconds: u64) -> Result<Document> {
    let url = global.config.session()?.url;
    // Neither waits for the other.
    let (found, captive_portal) = tokio::join!(ask_node(global, seconds), captive_portal(&url));
    let interface =
        TokioNetwork::outward().map(|outward| Interface { name: outward.name, mtu_bytes: outward.mtu });
    Ok(document(found?, Beside { captive_portal, interface }))
}

/// Whether something else than the server answers for it by plain HTTP, where portals stand in the way.
async fn captive_portal(url: &str) -> Option<bool> {
    let server: AccessUrl = url.parse().ok()?;
    let plain = match server.tls {
        true => AccessUrl { tls: false, port: 80, ..server.clone() },
        false => server.clone(),
    };
    let url = format!("{plain}{CAPTIVE_CHECK}");
    let client = HttpClient::new("warren").timeout(CAPTIVE_PATIENCE);
    let answer = client.send(Request { method: "GET", url: &url, bearer: None, json: None }).await.ok()?;
    Some(is_portal(answer.status, answer.header("location"), &server))
}

/// Whether this answer to the check is not the server's.
fn is_portal(status: u16, location: Option<&str>, server: &AccessUrl) -> bool {
    let home = |to: &str| {
        let to = to.trim_end_matches(CAPTIVE_CHECK);
        to.is_empty() || to.parse().is_ok_and(|to: AccessUrl| to.host == server.host)
    };
    match status {
        204 => false,
        // Whoever serves the server's plain address may send everybody to the other one.
        300..400 => !location.is_some_and(home),
        // A proxy of its own that knows no such page; portals answer with theirs.
        404 | 502..=504 => false,
        _ => true,
    }
}

async fn ask_node(global: &Global, seconds: u64) -> Result<Found> {
    let client = tunnel::start(global).await?;
    let node = &client.node;
    let mut events = node.events();
    let (mut map, mut last, mut checked) = (None, None, false);
    // The router may have been asked, or found not to be worth it, before anybody listened.
    let mut router = !global.map_ports || node.status().await.is_ok_and(|s| s.router.complete);
    let found = tokio::time::timeout(std::time::Duration::from_secs(seconds), async {
        while let Some(event) = events.next().await {
            match event {
                NodeEvent::RelayMap(newer) => {
                    tunnel::chosen(global, &newer)?;
                    map = Some(newer);
                }
                NodeEvent::Netcheck(report) => {
                    checked = report.complete && !report.probing;
                    last = Some(report);
                }
                NodeEvent::Router(found) => router |= found.complete,
                NodeEvent::Session(SessionState::Refused { code, message }) => {
                    return Err(tunnel::refusal(&code, message));
                }
                _ => {}
            }
            if checked && router && map.is_some() {
                break;
            }
        }
        Ok(())
    })
    .await;
    if let Ok(ended) = found {
        ended?;
    }
    if let Some(home) = last.as_ref().and_then(|report: &Report| report.home) {
        client.relay_settled(home).await;
    }
    let (status, troubles) = (node.status().await.ok(), client.relay_troubles());
    node.shutdown().await;
    let (Some(map), Some(report)) = (map, last) else {
        let why = status.map_or_else(|| "unknown".into(), |s| s.session.to_string());
        return Err(CliError::new(
            Exit::Unreachable,
            "NO_RELAY_MAP",
            "the server has not told which relays there are",
        )
        .fact("session", why)
        .hint("is the server reachable? Try `warren workspaces list`"));
    };
    let choice = status.as_ref().and_then(|status| tunnel::choice(global, &map, status));
    let router = status.map(|status| status.router).unwrap_or_default();
    Ok(Found { map, report, router, wanted: global.map_ports, choice, troubles })
}

fn document(found: Found, Beside { captive_portal, interface }: Beside) -> Document {
    let Found { map, report, router, wanted, choice: relay_choice, mut troubles } = found;
    let seen =
        |v4: bool| report.reflexive.iter().find(|r| r.address.is_ipv4() == v4).map(|r| r.address.to_string());
    let mut relays: Vec<Relay> = map
        .regions
        .iter()
        .map(|(id, region)| Relay {
            region: plain::line(&region.code).into_owned(),
            name: plain::line(&region.name).into_owned(),
            latency_ms: report.latencies.get(id).and_then(|l| l.best()).map(millis),
            preferred: report.home == Some(*id),
            trouble: troubles.remove(id),
        })
        .collect();
    relays.sort_by(|a, b| {
        let key = |r: &Relay| r.latency_ms.unwrap_or(f64::INFINITY);
        key(a).total_cmp(&key(b))
    });
    Document {
        udp: report.udp == Some(true),
        ipv4: seen(true),
        ipv6: seen(false),
        mapping: class::mapping(&report),
        filtering: class::filtering(report.filtering),
        port_allocation: report.allocation.map(class::allocation),
        port_step: class::step(report.allocation),
        port_mapping: class::port_mapping(&router, wanted),
        interfaces: report.interfaces.clone(),
        interface,
        captive_portal,
        relays,
        relay_choice,
        verdict: match captive_portal {
            Some(true) => {
                "something else answers in the server's place, probably this network's log-in page (open \
                           a browser and log in to the network)"
                    .to_owned()
            }
            _ => explain::network(&report, &router).to_string(),
        },
    }
}

fn words(document: &Document) -> String {
    let mut lines = Vec::new();
    let mut fact = |name: &str, value: &str| lines.push(format!("{name:<16}{value}"));
    fact("UDP", if document.udp { "yes" } else { "no: blocked, or no STUN server answers" });
    fact("IPv4", &document.ipv4.as_ref().map_or_else(|| "no".into(), |a| format!("yes, {a}")));
    let has_ipv6 = document.interfaces.iter().any(|a| a.is_ipv6() && !a.is_loopback());
    let no_ipv6 = if has_ipv6 { "no, though this machine has an address" } else { "no" };
    fact("IPv6", &document.ipv6.as_ref().map_or_else(|| no_ipv6.into(), |a| format!("yes, {a}")));
    fact("NAT", &class::nat_words(document.mapping, document.port_allocation, document.port_step));
    fact("Filtering", &class::filtering_words(document.filtering));
    fact("Port mapping", &document.port_mapping.to_string());
    fact(
        "Captive portal",
        match document.captive_portal {
            Some(true) => "yes: something else answers in the server's place",
            Some(false) => "no",
            None => "not known: nothing answers the server's plain HTTP",
        },
    );
    let mtu = document.interface.as_ref().map_or_else(
        || "no default route".to_owned(),
        |i| format!("{} {}", i.mtu_bytes.map_or_else(|| "not known".into(), |mtu| mtu.to_string()), i.name),
    );
    fact("MTU", &mtu);
    lines.push("Relays".into());
    let width = document.relays.iter().map(|r| r.name.chars().count()).max().unwrap_or(0);
    for relay in &document.relays {
        let latency = relay.latency_ms.map_or_else(|| "-".into(), |ms| output::latency((ms * 1e3) as u64));
        let preferred = if relay.preferred { "  preferred" } else { "" };
        lines.push(format!("  {:<8}{:<width$}  {latency:>8}{preferred}", relay.region, relay.name));
        lines.extend(relay.trouble.iter().map(|why| format!("          cannot be used: {why}")));
    }
    if let Some(choice) = &document.relay_choice {
        lines.push(format!("{:<16}{choice}", "Home relay"));
    }
    lines.push(format!("Verdict: {}", document.verdict));
    lines.join("\n")
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stranger_s_answer_is_a_portal() {
        let server: AccessUrl = "https://warren.example".parse().unwrap();
        let portal = |status, location| is_portal(status, location, &server);
        assert!(!portal(204, None));
        assert!(!portal(301, Some("https://warren.example/generate_204")), "the server's own redirect");
        assert!(!portal(308, Some("/generate_204")));
        assert!(portal(302, Some("http://login.hotel.example/?from=warren.example")));
        assert!(portal(302, None));
        assert!(portal(200, None), "a page where there is none");
        assert!(portal(511, None), "network authentication required (RFC 6585)");
        assert!(!portal(404, None));
    }
}

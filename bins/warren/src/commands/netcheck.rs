//! `warren netcheck`: what this machine's network lets through, and what that means.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use crate::tunnel;
use proto_core::explain;
use proto_core::nat::{Mapping, Report};
use proto_core::node::{NodeEvent, SessionState};
use proto_core::relay_map::RelayMap;
use proto_core::time::Duration;
use serde::Serialize;
use std::net::IpAddr;

/// Check what this machine's network lets through
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Seconds to wait for answers
    #[arg(short, long, env = "WARREN_NETCHECK_TIMEOUT", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

#[derive(Serialize)]
struct Relay {
    region: String,
    name: String,
    latency_ms: Option<f64>,
    preferred: bool,
}

#[derive(Serialize)]
struct Document {
    udp: bool,
    ipv4: Option<String>,
    ipv6: Option<String>,
    mapping: &'static str,
    interfaces: Vec<IpAddr>,
    relays: Vec<Relay>,
    relay_choice: Option<tunnel::Choice>,
    verdict: String,
}

/// Checks.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let client = tunnel::start(global).await?;
    let node = &client.node;
    let mut events = node.events();
    let (mut map, mut last) = (None, None);
    let found = tokio::time::timeout(std::time::Duration::from_secs(args.timeout), async {
        while let Some(event) = events.next().await {
            match event {
                NodeEvent::RelayMap(newer) => {
                    tunnel::chosen(global, &newer)?;
                    map = Some(newer);
                }
                NodeEvent::Netcheck(report) => {
                    let done = report.complete;
                    last = Some(report);
                    if done && map.is_some() {
                        return Ok(());
                    }
                }
                NodeEvent::Session(SessionState::Refused { code, message }) => {
                    return Err(tunnel::refusal(&code, message));
                }
                _ => {}
            }
        }
        Ok(())
    })
    .await;
    if let Ok(ended) = found {
        ended?;
    }
    let status = node.status().await.ok();
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
    let choice = status.and_then(|status| tunnel::choice(global, &map, &status));
    let document = document(&map, &report, choice);
    if global.output == Format::Json {
        output::json(&document);
    } else {
        output::line(words(&document));
    }
    Ok(())
}

fn document(map: &RelayMap, report: &Report, relay_choice: Option<tunnel::Choice>) -> Document {
    let seen =
        |v4: bool| report.reflexive.iter().find(|r| r.address.is_ipv4() == v4).map(|r| r.address.to_string());
    let mut relays: Vec<Relay> = map
        .regions
        .iter()
        .map(|(id, region)| Relay {
            region: region.code.clone(),
            name: region.name.clone(),
            latency_ms: report.latencies.get(id).and_then(|l| l.best()).map(millis),
            preferred: report.home == Some(*id),
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
        mapping: match report.mapping {
            Mapping::Unknown => "unknown",
            Mapping::None => "none",
            Mapping::Independent => "endpoint-independent",
            Mapping::Varies => "endpoint-dependent",
        },
        interfaces: report.interfaces.clone(),
        relays,
        relay_choice,
        verdict: explain::network(report).to_string(),
    }
}

fn words(document: &Document) -> String {
    let mut lines = Vec::new();
    let mut fact = |name: &str, value: &str| lines.push(format!("{name:<16}{value}"));
    fact("UDP", if document.udp { "yes" } else { "no: blocked, or no STUN server answers" });
    fact("IPv4", &document.ipv4.as_ref().map_or_else(|| "no".into(), |a| format!("yes, {a}")));
    fact("IPv6", &document.ipv6.as_ref().map_or_else(|| "no".into(), |a| format!("yes, {a}")));
    fact("NAT", document.mapping);
    lines.push("Relays".into());
    let width = document.relays.iter().map(|r| r.name.chars().count()).max().unwrap_or(0);
    for relay in &document.relays {
        let latency = relay.latency_ms.map_or_else(|| "-".into(), |ms| output::latency((ms * 1e3) as u64));
        let preferred = if relay.preferred { "  preferred" } else { "" };
        lines.push(format!("  {:<8}{:<width$}  {latency:>8}{preferred}", relay.region, relay.name));
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

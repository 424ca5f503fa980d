//! Links that take shorter packets than a path needs: it is left for the relay, or packets are cut in pieces.

use crate::twin::{Twin, text};
use std::time::Duration;
use tests::Result;
use tests::lab::{INTERNET, Nat, Town};

/// What IPv6 guarantees, and tunnels leave of IPv4.
const NARROW: u32 = 1_280;

/// The routers at both its ends.
const BEFORE: [&str; 2] = [INTERNET, "bob-0"];

/// Two homes, of which bob's is at the end of the narrow link, if it is so from the start.
fn homes(ipv6: bool) -> Result<Town> {
    let mut town = Town::new()?;
    for host in ["alice", "bob"] {
        let nat = if ipv6 { Nat::Symmetric } else { Nat::PortRestricted };
        town.home(host, &[nat])?;
        if ipv6 {
            town.give_ipv6(host, &format!("{host}-0"))?;
        }
    }
    // Counted before they are found too long.
    for family in ["ip", "ip6"] {
        let rules = format!(
            "table {family} lengths {{
                counter long {{}}
                chain through {{
                    type filter hook prerouting priority filter
                    meta l4proto udp meta length > {NARROW} counter name long
                }}
            }}"
        );
        for router in BEFORE {
            town.lab().ok(router, &["nft", &rules])?;
        }
    }
    Ok(town)
}

/// Packets longer than the narrow link takes, that came to either end of it.
fn long(town: &Town, family: &str) -> Result<u64> {
    let all = BEFORE.map(|router| town.counted_in(router, (family, "lengths"), "long"));
    all.into_iter().sum()
}

fn narrow_from_the_start() -> Result {
    let town = homes(true)?;
    town.narrow("bob-0", INTERNET, NARROW)?;
    let twin = Twin::start(&town, &["bob"])?;
    let report = twin.deployment.json_on("alice", &["ping", "bob", "--count", "10", "--interval", "1"])?;
    assert_eq!(report["summary"]["received"], 10, "{report:#}");
    let speed = twin.deployment.json_on("alice", &["speedtest", "bob", "--time", "12"])?;
    assert!(speed["total"]["bytes"].as_u64().unwrap_or(0) > 1_000_000, "{speed:#}");
    assert!(moves_at_the_end(&speed), "it hangs: {speed:#}");
    // Either the packets are cut in pieces, or the relay carries them, and it is said why.
    let (path, why) = (text(&speed["path"]), text(&speed["why_relayed"]));
    assert!(path.starts_with("direct") || why.contains("full packets"), "{report:#}");
    assert!(long(&town, "ip6")? > 0, "no packet was too long for the link");
    Ok(())
}

fn narrow_in_mid_session(ipv6: bool) -> Result {
    let town = homes(ipv6)?;
    let twin = Twin::start(&town, &["bob"])?;
    let report = twin.deployment.json_on("alice", &["ping", "bob", "--until-direct", "--timeout", "30"])?;
    assert!(text(&report["path"]).starts_with("direct"), "{report:#}");
    let family = if ipv6 { "ip6" } else { "ip" };
    let (speed, before) = std::thread::scope(|scope| {
        let test = scope.spawn(|| {
            let test = ["speedtest", "bob", "--direct", "--time", "10", "--direction", "up"];
            twin.deployment.json_on("alice", &test)
        });
        std::thread::sleep(Duration::from_secs(5));
        let narrowed = town.narrow("bob-0", INTERNET, NARROW).and_then(|()| long(&town, family));
        let speed = test.join().expect("the test of speed does not panic");
        Ok::<_, String>((speed?, narrowed?))
    })?;
    assert!(long(&town, family)? > before, "no packet was too long for the link");
    assert!(moves_at_the_end(&speed), "it hangs: {speed:#}");
    Ok(())
}

/// Whether data moved in the last seconds. Short probes alone make a path direct, so full packets may be lost on it for
/// some seconds before it is left; an interval is told only once something has come.
fn moves_at_the_end(speed: &serde_json::Value) -> bool {
    let intervals: Vec<_> = speed["intervals"].as_array().into_iter().flatten().collect();
    let moved: Vec<u64> = intervals.iter().filter_map(|interval| interval["bytes"].as_u64()).collect();
    moved.len() >= 3 && moved[moved.len() - 2..].iter().all(|bytes| *bytes > 10_000)
}

#[test]
fn a_narrow_link_under_ipv6_does_not_hang() -> Result {
    narrow_from_the_start()
}

#[test]
fn a_link_that_grows_narrow_under_ipv4_does_not_hang_either() -> Result {
    narrow_in_mid_session(false)
}

#[test]
fn a_link_that_grows_narrow_under_ipv6_does_not_hang_either() -> Result {
    narrow_in_mid_session(true)
}

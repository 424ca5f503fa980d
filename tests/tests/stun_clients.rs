//! STUN clients that others wrote, behind a real NAT, on our STUN server: coturn's (RFC 5389, RFC 5780) and the
//! reference client of RFC 3489.

use std::process::Stdio;
use tests::Result;
use tests::deployment::Place;
use tests::lab::{Lab, Nat, SERVER};
use tests::relay::{Relay, metric};

/// Where the router in front of `alice` is seen.
const OUTSIDE: &str = "198.51.100.2:";

/// What a program says to its end on `alice`. Such clients wait for ever if nobody answers.
fn said(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let mut command = lab.command("alice", "timeout");
    let out = command.arg("20").args(arguments).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let all = [out.stdout, out.stderr].concat();
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[test]
fn coturns_clients_and_the_one_of_rfc_3489_learn_how_they_are_seen() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let relay = Relay::start(Place::Lab(&lab), SERVER, dir.path(), &[])?;
    let port = relay.address("stun_address")?.port().to_string();

    let text = said(&lab, &["turnutils_stunclient", "-p", &port, SERVER])?;
    assert!(text.contains(&format!("UDP reflexive addr: {OUTSIDE}")), "{text}");

    // The server has no second address to answer from, and says so instead of misleading.
    let text = said(&lab, &["turnutils_natdiscovery", "-m", "-f", "-p", &port, SERVER])?;
    assert!(text.contains("Mapping Behavior Discovery"), "{text}");
    assert!(text.contains("Filtering Behavior Discovery"), "{text}");
    assert!(text.matches(&format!("UDP reflexive addr: {OUTSIDE}")).count() >= 2, "{text}");
    assert!(!text.contains("timeout"), "{text}");

    let server = format!("{SERVER}:{port}");
    let text = said(&lab, &["stun", &server, "-v", "1"])?;
    assert!(text.contains(&format!("MappedAddress = {OUTSIDE}")), "{text}");
    let text = said(&lab, &["stun", &server])?;
    // All of it is so: silence, where no answer would be right, does not mislead.
    let verdict = "Primary: Independent Mapping, Port Dependent Filter, preserves ports";
    assert!(text.contains(verdict) && !text.contains("problem"), "{text}");

    assert!(lab.translated("nat-a")? > 0, "the NAT was not in the way");
    let page = format!("http://{}/metrics", relay.address("metrics_address")?);
    let page = lab.ok("server", &["curl", "--silent", "--show-error", "--max-time", "10", &page])?;
    assert!(metric(&page, "warren_relay_stun_answers_total")? >= 5, "{page}");
    Ok(())
}

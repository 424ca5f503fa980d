//! A relay that lets nobody in.

use super::*;
use tests::deployment::free_address;
use tests::relay::Relay;

#[test]
fn a_node_that_a_relay_refuses_is_told_why() -> Result {
    let http = free_address()?;
    let deployment = speed::deployment_with_relay(&http)?;
    let list = deployment.path("allowed");
    std::fs::write(&list, "")?;
    let list = list.display().to_string();
    let _relay = Relay::start_at(Place::Here, &http, deployment.dir(), &["--allow-keys-file", &list])?;
    let token = deployment.create_workspace("dev")?;
    let mut agent = deployment.start_agent("dev", &token)?;
    let why = "127.0.0.1: the relay refused this node: its key is not on the list of those who may use it";
    let report = deployment.json(&["netcheck"])?;
    let own = report["relays"].as_array().into_iter().flatten().find(|relay| relay["region"] == "own");
    assert_eq!(own.ok_or("no such relay")?["trouble"], why, "{report:#}");
    let out = deployment.warren(&["netcheck"])?;
    assert!(result(&out).contains(&format!("cannot be used: {why}")), "{}", result(&out));
    let out = deployment.warren(&["status", "-t", "5"])?;
    assert!(said(&out).contains(&format!("relay own cannot be used: {why}")), "{}", said(&out));
    let out = deployment.warren(&["status", "-t", "5", "-o", "json"])?;
    let document = r#"{"warning":{"code":"RELAY_TROUBLE","message":"relay own cannot be used: WHY"}}"#;
    assert!(said(&out).contains(&document.replace("WHY", why)), "{}", said(&out));
    let log = agent.log_path().to_owned();
    agent.wait("the agent's warning", || std::fs::read_to_string(&log).ok()?.contains(why).then_some(()))?;
    Ok(())
}

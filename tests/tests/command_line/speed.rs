//! Speed tests on paths that are slow, and that are not to be direct.

use super::*;
use tests::deployment::free_address;
use tests::relay::Relay;

/// What the relay lets through, in bytes a second.
const SLOW: u64 = 500_000;

/// A deployment whose nodes use one relay at this address alone.
pub(super) fn deployment_with_relay(http: &str) -> Result<Deployment<'static>> {
    let port: u16 = http.rsplit(':').next().unwrap_or_default().parse()?;
    let node = serde_json::json!({
        "Name": "900a", "RegionID": 900, "HostName": "127.0.0.1", "IPv4": "127.0.0.1", "IPv6": "none",
        "DERPPort": port, "STUNPort": -1, "ForceHTTP": true,
    });
    let region =
        serde_json::json!({ "RegionID": 900, "RegionCode": "own", "RegionName": "own", "Nodes": [node] });
    let folder = tempfile::tempdir()?;
    let map = folder.path().join("map.json");
    std::fs::write(&map, serde_json::json!({ "Regions": { "900": region } }).to_string())?;
    let map = map.display().to_string();
    Ok(Deployment::start(Place::Here, &["--derp-server-enable", "false", "--derp-config-path", &map])?)
}

#[test]
fn a_test_on_a_slow_path_keeps_its_time_and_counts_what_arrived() -> Result {
    let http = free_address()?;
    let deployment = deployment_with_relay(&http)?;
    let rate = SLOW.to_string();
    let arguments = ["--rate-limit-client", rate.as_str()];
    let _relay = Relay::start_at(Place::Here, &http, deployment.dir(), &arguments)?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    for direction in ["up", "down"] {
        let began = Instant::now();
        let arguments = ["speedtest", "dev", "--time", "4", "--direction", direction];
        let test = deployment.json(&[&arguments[..], &["--disable-direct-connections"]].concat())?;
        let took = began.elapsed();
        let number = |of: &serde_json::Value, name: &str| of[name].as_f64().unwrap_or(f64::NAN);
        let seconds = number(&test["total"], "end_seconds");
        assert!((3.0..=4.5).contains(&seconds), "{direction} {test:#}");
        // The tunnel and the first round trips take time as well.
        assert!(took < Duration::from_secs(8), "{direction} {took:?} {test:#}");
        let intervals = test["intervals"].as_array().ok_or("no intervals")?;
        assert!(intervals.len() >= 3, "{direction} {test:#}");
        let sum: f64 = intervals.iter().map(|interval| number(interval, "bytes")).sum();
        assert_eq!(sum, number(&test["total"], "bytes"), "{direction} {test:#}");
        for interval in intervals {
            let time = number(interval, "end_seconds") - number(interval, "start_seconds");
            // A burst that the relay had saved up passes at once.
            assert!(number(interval, "bytes") < 4.0 * SLOW as f64 * time.max(1.0), "{direction} {test:#}");
            assert!(time > 0.09, "{direction} {test:#}");
        }
    }
    Ok(())
}

#[test]
fn a_direct_path_that_the_server_forbids_is_not_waited_for() -> Result {
    let (deployment, _agent, _) = dev(&["--block-direct-connections"])?;
    let began = Instant::now();
    let out = deployment.warren(&["speedtest", "dev", "--direct"])?;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    insta::assert_snapshot!(said(&out), @r#"
    waiting for a direct path...
    error: no path to "dev" can be direct

      why  relayed: the server's policy forbids direct connections, by block-direct-connections (an administrator can allow them)

    hint: leave out --direct to use the relay
    code: DIRECT_FORBIDDEN
    "#);
    Ok(())
}

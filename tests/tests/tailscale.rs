//! Tailscale's Go nodes on our relay and our STUN server, and our nodes on Tailscale's Go relay. Everything runs in
//! namespaces that reach nothing else.

use std::process::{Command, Stdio};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tests::lab::{Lab, Nat};
use tests::tailscale::program;

/// A Go node on one of the lab's hosts, which uses our server's relay map.
fn tailcat(lab: &Lab, host: &str, deployment: &Deployment<'_>, relayed: bool) -> Result<Command> {
    let mut command = lab.command(host, program()?);
    command.env("HOME", deployment.path(&format!("home-{host}"))).env("TS_DEBUG_USE_DERP_HTTP", "1");
    if relayed {
        command.env("TS_DEBUG_ALWAYS_USE_DERP", "1").env("TS_DEBUG_NEVER_DIRECT_UDP", "1");
    }
    command.arg(format!("--derpmap-url={}/api/v1/derp-map", deployment.url())).stdin(Stdio::null());
    Ok(command)
}

/// Starts a Go node that serves, and waits for its address.
fn serve(lab: &Lab, deployment: &Deployment<'_>, relayed: bool) -> Result<(Running, String)> {
    let name = if relayed { "relayed" } else { "direct" };
    let address = deployment.path(&format!("address-{name}"));
    let mut command = tailcat(lab, "alice", deployment, relayed)?;
    command.env("TAILCAT_ADDR_FILE", &address).args(["serve", "--key=new", "--full-address", "all"]);
    let mut serving = Running::start(command, deployment.path(&format!("serve-{name}.log")))?;
    let address = serving.wait("tailcat", || {
        std::fs::read_to_string(&address).ok().map(|a| a.trim().to_owned()).filter(|a| !a.is_empty())
    })?;
    Ok((serving, address))
}

/// Runs a command that must succeed; what it printed.
fn output(mut command: Command) -> Result<String> {
    let out = command.output().map_err(|e| format!("can't start tailcat: {e}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if out.status.success() {
        return Ok(said(&out.stdout));
    }
    Err(format!("tailcat failed ({}): {}{}", out.status, said(&out.stdout), said(&out.stderr)))
}

#[test]
fn go_nodes_meet_on_our_relay_and_leave_it_for_a_direct_path() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;

    let (_relayed, address) = serve(&lab, &deployment, true)?;
    let mut ping = tailcat(&lab, "bob", &deployment, true)?;
    ping.args(["ping", "--timeout=20s", &address]);
    let said = output(ping)?;
    assert!(said.contains("pong in") && said.contains("via DERP("), "{said}");

    // Direct through both NATs: what our STUN server told them is right.
    let (_direct, address) = serve(&lab, &deployment, false)?;
    let mut ping = tailcat(&lab, "bob", &deployment, false)?;
    ping.args(["ping", "--until-direct", "--timeout=30s", &address]);
    let said = output(ping)?;
    assert!(said.contains("via 198.51.100.2:"), "{said}");
    for router in ["nat-a", "nat-b"] {
        assert!(lab.translated(router)? > 0, "{router} was not in the way");
    }
    Ok(())
}

#[test]
fn our_nodes_meet_on_the_go_relay() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut relay = Place::Alone(&lab).run("server", &program()?);
    relay.env("HOME", folder.path()).env("TS_DEBUG_TAILCAT_LOCAL_DERP", "1");
    relay.args(["--verbose", "serve", "--key=new", "--full-address", "1"]);
    let mut relay = Running::start(relay, folder.path().join("relay.log"))?;
    let said = |log: &str, what: &str| -> Option<u16> {
        let (_, rest) = log.split_once(what)?;
        rest.split_whitespace().next()?.rsplit(':').next()?.parse().ok()
    };
    let log = folder.path().join("relay.log");
    let (derp, stun) = relay.wait("the Go relay", || {
        let log = std::fs::read_to_string(&log).ok()?;
        Some((said(&log, "starting dev derp on ")?, said(&log, "starting dev STUN on ")?))
    })?;
    let node = serde_json::json!({
        "Name": "901a", "RegionID": 901, "HostName": "127.0.0.1", "IPv4": "127.0.0.1", "IPv6": "none",
        "DERPPort": derp, "STUNPort": stun, "InsecureForTests": true,
    });
    let region =
        serde_json::json!({ "RegionID": 901, "RegionCode": "go", "RegionName": "Go", "Nodes": [node] });
    let map = folder.path().join("map.json");
    let text = serde_json::json!({ "Regions": { "901": region } }).to_string();
    std::fs::write(&map, text).map_err(|e| e.to_string())?;

    let map = map.to_string_lossy();
    let arguments = ["--derp-server-enable=false", "--derp-config-path", &map];
    let deployment = Deployment::start(Place::Alone(&lab), &arguments)?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let relayed = ["--disable-direct-connections", "--count", "3", "--interval", "0.1"];
    let ping = deployment.json(&[&["ping", "dev"], &relayed[..]].concat())?;
    assert_eq!(ping["path"], "relay go", "{ping:#}");
    assert_eq!(ping["summary"]["received"], 3, "{ping:#}");
    let relayed = ["--disable-direct-connections", "--time", "1", "--direction", "both"];
    let report = deployment.json(&[&["speedtest", "dev"], &relayed[..]].concat())?;
    for direction in [0, 1] {
        let bytes = report[direction]["total"]["bytes"].as_u64().unwrap_or(0);
        assert!(bytes > 1_000_000, "{report:#}");
    }
    // Its STUN server answers only what Tailscale's clients would ask.
    let netcheck = deployment.json(&["netcheck"])?;
    assert_eq!(netcheck["udp"], true, "{netcheck:#}");
    Ok(())
}

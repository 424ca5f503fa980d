//! Two real hosts' worth: the built programs behind real Linux NATs, in network namespaces.

use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tests::lab::{BOB_OUTSIDE, ELSEWHERE, Lab, Nat, SERVER_SECOND};

fn in_lab(alice: Nat, bob: Nat, check: impl FnOnce(&Lab, &Deployment<'_>) -> Result) -> Result {
    let lab = Lab::new(alice, bob)?;
    {
        let deployment = Deployment::start(Place::Lab(&lab), &[])?;
        let token = deployment.create_workspace("dev")?;
        let _agent = deployment.start_agent("dev", &token)?;
        check(&lab, &deployment)?;
    }
    for router in ["nat-a", "nat-b"] {
        let translated = lab.translated(router)?;
        assert!(translated > 0, "{router} translated nothing: it was not in the way");
    }
    Ok(())
}

#[test]
fn two_port_restricted_nats_are_crossed_directly() -> Result {
    in_lab(Nat::PortRestricted, Nat::PortRestricted, |_, deployment| {
        let report = deployment.json(&["ping", "dev", "--until-direct", "--timeout", "20"])?;
        let path = report["path"].as_str().unwrap_or_default().to_owned();
        assert!(path.starts_with("direct"), "{report:#}");
        assert!(path.contains(BOB_OUTSIDE), "the path leads to bob's router: {report:#}");
        let speed = deployment.json(&["speedtest", "dev", "--direct", "--time", "1"])?;
        assert!(speed["path"].as_str().unwrap_or_default().starts_with("direct"), "{speed:#}");
        assert!(speed["total"]["bytes"].as_u64().unwrap_or(0) > 1_000_000, "{speed:#}");
        Ok(())
    })
}

#[test]
fn two_symmetric_nats_stay_on_the_relay_and_work() -> Result {
    in_lab(Nat::Symmetric, Nat::Symmetric, |_, deployment| {
        let report = deployment.json(&["ping", "dev", "--count", "5", "--interval", "1"])?;
        assert!(report["path"].as_str().unwrap_or_default().starts_with("relay"), "{report:#}");
        assert_eq!(report["summary"]["received"], 5, "{report:#}");
        let why = report["why_relayed"].as_str().unwrap_or_default();
        assert!(!why.is_empty(), "it says why it is not direct: {report:#}");
        let speed = deployment.json(&["speedtest", "dev", "--time", "2"])?;
        assert!(speed["path"].as_str().unwrap_or_default().starts_with("relay"), "{speed:#}");
        assert!(speed["total"]["bytes"].as_u64().unwrap_or(0) > 1_000_000, "{speed:#}");
        Ok(())
    })
}

/// The server has a second address: it tells how the NAT filters, and alone how it maps.
#[test]
fn one_server_with_two_addresses_tells_how_a_router_maps_and_filters() -> Result {
    for (nat, mapping, filtering) in [
        (Nat::FullCone, "endpoint-independent", "endpoint-independent"),
        (Nat::PortRestricted, "endpoint-independent", "address-and-port-dependent"),
        (Nat::Symmetric, "address-and-port-dependent", "address-and-port-dependent"),
    ] {
        let lab = Lab::new(nat, Nat::PortRestricted)?;
        let deployment = Deployment::start(Place::Lab(&lab), &["--stun-second-address", SERVER_SECOND])?;
        let report = deployment.json(&["netcheck"])?;
        assert_eq!(report["mapping"], mapping, "{nat:?}: {report:#}");
        assert_eq!(report["filtering"], filtering, "{nat:?}: {report:#}");
        assert!(lab.translated("nat-a")? > 0, "the router was not in the way");
        if nat == Nat::Symmetric {
            assert_eq!(report["port_allocation"], "random", "{report:#}");
        }
    }
    Ok(())
}

/// As before, by coturn's server instead of ours.
#[test]
fn coturns_server_tells_how_a_router_filters() -> Result {
    for (nat, filtering) in
        [(Nat::FullCone, "endpoint-independent"), (Nat::PortRestricted, "address-and-port-dependent")]
    {
        let lab = Lab::new(nat, Nat::PortRestricted)?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut command = lab.command("server", "turnserver");
        command.args(["-n", "-L", ELSEWHERE[0], "-L", ELSEWHERE[1], "--stun-only", "--no-tcp", "--no-tls"]);
        command
            .args(["--no-dtls", "--no-cli", "--log-file", "stdout", "--pidfile"])
            .arg(dir.path().join("pid"));
        let log = dir.path().join("coturn.log");
        let mut coturn = Running::start(command, log)?;
        let request = ["timeout", "1", "turnutils_stunclient", ELSEWHERE[0]];
        coturn
            .wait("coturn", || lab.ok("server", &request).ok().filter(|said| said.contains("reflexive")))?;
        let theirs = format!("{}:3478", ELSEWHERE[0]);
        let deployment = Deployment::start(Place::Lab(&lab), &["--stun-servers", &theirs])?;
        let report = deployment.json(&["netcheck"])?;
        assert_eq!(report["mapping"], "endpoint-independent", "{report:#}");
        assert_eq!(report["filtering"], filtering, "{nat:?}: {report:#}\n{}", coturn.log());
        assert!(lab.translated("nat-a")? > 0, "the router was not in the way");
    }
    Ok(())
}

#[test]
fn two_public_servers_see_whether_the_mapping_varies() -> Result {
    for (nat, mapping) in
        [(Nat::Symmetric, "address-and-port-dependent"), (Nat::PortRestricted, "endpoint-independent")]
    {
        let lab = Lab::new(nat, Nat::PortRestricted)?;
        // One STUN server cannot show whether another would see the same: a second deployment lends its own.
        let other = Deployment::start(Place::Lab(&lab), &[])?;
        let deployment = Deployment::start(Place::Lab(&lab), &["--stun-servers", &other.stun_address()?])?;
        let report = deployment.json(&["netcheck"])?;
        assert_eq!(report["udp"], true, "{report:#}");
        let seen = report["ipv4"].as_str().unwrap_or_default();
        assert!(seen.starts_with("198.51.100.2:"), "the address is the router's: {report:#}");
        assert_eq!(report["mapping"], mapping, "{nat:?}: {report:#}");
        assert!(lab.translated("nat-a")? > 0, "the router was not in the way");
    }
    Ok(())
}

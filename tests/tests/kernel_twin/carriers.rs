//! Two hosts behind one router that keeps them apart: they meet at its outer address, if it turns packets round.

use crate::twin::{Twin, text};
use sim::scenarios;
use sim::world::World;
use tests::Result;
use tests::lab::{INTERNET, Nat, Town};

/// Whether the two ends of one of the simulator's scenarios are direct at its end.
fn simulated(scenario: &str) -> Result<bool> {
    let verdict = World::new(scenarios::find(scenario, 1)?, false).run();
    assert_eq!(verdict.direct[0], verdict.direct[1], "{verdict}");
    Ok(verdict.direct[0] == Some(true))
}

fn agrees(town: &Town, shared: &str, scenario: &str, turns: bool) -> Result {
    let direct = simulated(scenario)?;
    assert_eq!(direct, turns, "the simulator's {scenario}");
    let twin = Twin::start(town, &["bob"])?;
    twin.check(("alice", "bob"), direct)?;
    if direct {
        let path = twin.deployment.json_on("alice", &["ping", "bob", "--until-direct", "--timeout", "20"])?;
        let path = text(&path["path"]).to_owned();
        assert!(
            path.contains(town.outer(shared)),
            "{path} does not lead by the router that turns packets round"
        );
    }
    let counter = if turns { "turned" } else { "unturned" };
    assert!(town.counted(shared, "ip", counter)? > 0, "nothing came to its outer address from inside");
    Ok(())
}

fn two_hosts_behind_a_router(scenario: &str, turns: bool) -> Result {
    let mut town = Town::new()?;
    town.router("shared", INTERNET, Nat::FullCone, turns)?;
    town.host("alice", "shared")?;
    town.host("bob", "shared")?;
    agrees(&town, "shared", scenario, turns)
}

fn two_homes_behind_a_carrier(scenario: &str, turns: bool) -> Result {
    let mut town = Town::new()?;
    town.router("carrier", INTERNET, Nat::PortRestricted, turns)?;
    for (host, router) in [("alice", "home-a"), ("bob", "home-b")] {
        town.router(router, "carrier", Nat::FullCone, false)?;
        town.host(host, router)?;
    }
    agrees(&town, "carrier", scenario, turns)?;
    for router in ["home-a", "home-b", "carrier"] {
        assert!(town.counted(router, "ip", "translated")? > 0, "{router} was not in the way");
    }
    Ok(())
}

#[test]
fn hosts_that_are_kept_apart_meet_at_a_router_that_turns_packets_round() -> Result {
    two_hosts_behind_a_router("isolated-hairpin", true)
}

#[test]
fn hosts_that_are_kept_apart_stay_on_the_relay_else() -> Result {
    two_hosts_behind_a_router("isolated", false)
}

#[test]
fn homes_meet_at_a_carrier_that_turns_packets_round() -> Result {
    two_homes_behind_a_carrier("same-carrier-hairpin", true)
}

#[test]
fn homes_of_one_carrier_stay_on_the_relay_else() -> Result {
    two_homes_behind_a_carrier("same-carrier", false)
}

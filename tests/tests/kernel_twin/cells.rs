//! The core matrix, and the cells that port guessing and carriers' NATs make.

use crate::twin::{Twin, text};
use sim::scorecard::{Card, Pair, find};
use tests::Result;
use tests::lab::{Nat, Town};

/// A network: its name in the simulator, and its routers here, the nearest first.
type Home = (&'static str, &'static [Nat]);

const OPEN: Home = ("open", &[]);
const FULL_CONE: Home = ("full-cone", &[Nat::FullCone]);
const ADDRESS_RESTRICTED: Home = ("address-restricted", &[Nat::AddressRestricted]);
const PORT_RESTRICTED: Home = ("port-restricted", &[Nat::PortRestricted]);
const SYMMETRIC: Home = ("symmetric-random", &[Nat::Symmetric]);
const BLOCK: Home = ("symmetric-block", &[Nat::SymmetricBlock]);
const UDP_BLOCKED: Home = ("udp-blocked", &[Nat::UdpBlocked]);
const CARRIER_CONE: Home = ("cgnat-full-cone", &[Nat::FullCone, Nat::PortRestricted]);
const CARRIER_RESTRICTED: Home = ("cgnat-port-restricted", &[Nat::PortRestricted, Nat::PortRestricted]);
const CARRIER_BLOCK: Home = ("cgnat-block", &[Nat::PortRestricted, Nat::SymmetricBlock]);

const CORE: [Home; 6] = [OPEN, FULL_CONE, ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC, UDP_BLOCKED];

/// Every client with every agent.
fn agree(clients: &[Home], agents: &[Home]) -> Result {
    let [client, agent] = ["c", "a"].map(|side| move |n: usize| format!("{side}{n}"));
    let mut town = Town::new()?;
    for (n, home) in clients.iter().enumerate() {
        town.home(&client(n), home.1)?;
    }
    for (n, home) in agents.iter().enumerate() {
        town.home(&agent(n), home.1)?;
    }
    let hosts: Vec<String> = (0..agents.len()).map(agent).collect();
    let twin = Twin::start(&town, &hosts.iter().map(String::as_str).collect::<Vec<_>>())?;
    let clients_hosts: Vec<String> = (0..clients.len()).map(client).collect();
    for (host, home) in clients_hosts.iter().zip(clients).chain(hosts.iter().zip(agents)) {
        is_what_it_is_called(&twin, host, home)?;
    }
    let mut pairs = Vec::new();
    for (a, _) in clients {
        for (b, _) in agents {
            pairs.push(Pair { a: find(a)?, b: find(b)?, loss_ppm: 0, seeds: 1 });
        }
    }
    let card = Card::measure(&pairs);
    let ends = clients_hosts.iter().flat_map(|c| hosts.iter().map(move |a| (c.as_str(), a.as_str())));
    let cells = ends.zip(&card.cells).map(|((client, agent), cell)| (client, agent, cell.direct_share > 0.0));
    twin.check_all(cells.collect())?;
    for (host, (name, layers)) in clients_hosts.iter().zip(clients).chain(hosts.iter().zip(agents)) {
        for (n, nat) in layers.iter().enumerate() {
            let counter = if *nat == Nat::UdpBlocked { "blocked" } else { "translated" };
            let counted = town.counted(&format!("{host}-{n}"), "ip", counter)?;
            assert!(counted > 0, "{name}: router {n} was not in the way");
        }
    }
    Ok(())
}

/// What servers see of a network, by `warren netcheck`.
fn is_what_it_is_called(twin: &Twin<'_>, host: &str, (name, layers): &Home) -> Result {
    let report = twin.deployment.json_on(host, &["netcheck", "--disable-port-mapping"])?;
    let seen = ["mapping", "filtering", "port_allocation"].map(|what| text(&report[what]));
    let strict = "address-and-port-dependent";
    let expected = match layers.last() {
        None => ["none", "endpoint-independent", ""],
        Some(Nat::UdpBlocked) => ["unknown", "unknown", ""],
        Some(Nat::FullCone) => ["endpoint-independent", "endpoint-independent", ""],
        Some(Nat::AddressRestricted) => ["endpoint-independent", "address-dependent", ""],
        Some(Nat::PortRestricted) => ["endpoint-independent", strict, ""],
        Some(Nat::Symmetric) => [strict, strict, "random"],
        Some(Nat::SymmetricBlock) => [strict, strict, "block"],
    };
    // What keeps ports and what only seems to is another test's.
    let told = [seen[0], seen[1], if expected[2].is_empty() { "" } else { seen[2] }];
    assert_eq!(told, expected, "{name} on {host}: {report:#}");
    Ok(())
}

#[test]
fn the_core_matrix_is_the_simulators() -> Result {
    agree(&CORE, &CORE)
}

#[test]
fn ports_are_guessed_and_carriers_crossed_as_in_the_simulator() -> Result {
    agree(&[FULL_CONE, PORT_RESTRICTED, SYMMETRIC], &[BLOCK, CARRIER_CONE, CARRIER_RESTRICTED, CARRIER_BLOCK])
}

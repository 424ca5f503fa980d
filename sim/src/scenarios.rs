//! Scenarios that have a name, for tests and for `sim run --scenario`.

use crate::nat::{Allocation, Hairpin, NatProfile};
use crate::netem::LinkProfile;
use crate::scorecard::faults::{self as fault, DAYS, FAULTS};
use crate::step::{Role, Scenario, Step};
use crate::topology::{Meeting, Network};
use proto_core::time::Duration;

/// A scenario with a name.
#[derive(Clone, Copy)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// It, for a seed.
    pub make: fn(u64) -> Scenario,
}

use Network::{CgnatPortRestricted, FullCone, Linux, Open, PortRestricted, Symmetric};

const ALL: &[Named] = &[
    Named { name: "same-lan", make: |s| pair(s, PortRestricted, PortRestricted).meeting(Meeting::SameLan) },
    Named {
        name: "isolated-hairpin",
        make: |s| pair(s, FullCone, FullCone).meeting(Meeting::Isolated(Hairpin::External)),
    },
    Named {
        name: "isolated",
        make: |s| pair(s, FullCone, FullCone).meeting(Meeting::Isolated(Hairpin::Off)),
    },
    Named {
        name: "same-carrier-hairpin",
        make: |s| pair(s, FullCone, FullCone).meeting(Meeting::SameCarrier(Hairpin::External)),
    },
    Named {
        name: "same-carrier",
        make: |s| pair(s, FullCone, FullCone).meeting(Meeting::SameCarrier(Hairpin::Off)),
    },
    Named { name: "carriers", make: |s| pair(s, CgnatPortRestricted, CgnatPortRestricted) },
    Named { name: "linux-race", make: |s| pair(s, Linux, Linux).losing(100).until(60).step(40, Step::Scan) },
    Named {
        name: "direct-blackhole",
        make: |s| {
            pair(s, PortRestricted, PortRestricted).until(60).apart(Role::Client, Role::Agent, (20, 40))
        },
    },
    Named {
        name: "one-way-blackhole",
        make: |s| {
            let part = |on| Step::Partition { from: Role::Client, to: Role::Agent, on };
            pair(s, PortRestricted, PortRestricted).until(60).step(20, part(true)).step(40, part(false))
        },
    },
    Named {
        name: "nat-reboot",
        make: |s| pair(s, PortRestricted, PortRestricted).until(60).step(20, Step::RebootNat(Role::Client)),
    },
    Named {
        name: "nat-reboot-new-ports",
        make: |s| {
            let random = NatProfile { allocation: Allocation::Random, ..NatProfile::port_restricted() };
            let mut scenario =
                pair(s, PortRestricted, PortRestricted).until(60).step(20, Step::RebootNat(Role::Client));
            scenario.layers = Some([vec![random], vec![NatProfile::port_restricted()]]);
            scenario
        },
    },
    Named {
        name: "withdrawn",
        make: |s| pair(s, PortRestricted, PortRestricted).until(40).step(20, Step::Withdraw),
    },
    Named {
        name: "reopened",
        make: |s| {
            pair(s, PortRestricted, PortRestricted)
                .until(45)
                .step(15, Step::CloseTunnel)
                .step(25, Step::OpenTunnel)
        },
    },
    Named {
        name: "server-away",
        make: |s| {
            let cut = |on| Step::Cut { who: Role::Server, up: on, down: on };
            pair(s, PortRestricted, PortRestricted).until(90).step(20, cut(true)).step(60, cut(false))
        },
    },
    Named {
        name: "server-away-relayed",
        make: |s| {
            let cut = |on| Step::Cut { who: Role::Server, up: on, down: on };
            pair(s, Symmetric, Symmetric).until(90).step(20, cut(true)).step(40, cut(false))
        },
    },
    Named {
        name: "agent-restart",
        make: |s| pair(s, PortRestricted, PortRestricted).until(60).step(20, Step::Restart(Role::Agent)),
    },
    Named {
        name: "agent-power-cut",
        make: |s| {
            pair(s, PortRestricted, PortRestricted)
                .until(90)
                .step(20, Step::PowerOff(Role::Agent))
                .step(40, Step::PowerOn(Role::Agent))
        },
    },
    Named {
        name: "server-restart",
        make: |s| pair(s, Symmetric, Symmetric).until(60).step(20, Step::Restart(Role::Server)),
    },
    Named {
        name: "roam",
        make: |s| {
            let roam = Step::Roam(Role::Client, PortRestricted, Duration::from_secs(2));
            pair(s, FullCone, PortRestricted).until(60).step(20, roam)
        },
    },
    Named {
        name: "relay-lost",
        make: |s| {
            let cut = |on| Step::Cut { who: Role::Relay, up: on, down: on };
            // Both are equally near, so that the lower number is home.
            let scenario = pair(s, Symmetric, Symmetric).until(90).step(30, cut(true)).step(70, cut(false));
            scenario.relays(&[Role::Server, Role::Relay])
        },
    },
    Named {
        name: "relay-restart",
        make: |s| {
            pair(s, Symmetric, Symmetric)
                .relays(&[Role::Relay])
                .until(60)
                .step(20, Step::Restart(Role::Relay))
        },
    },
    Named {
        name: "relay-drain",
        make: |s| {
            // Home is the relay that was there first. Everybody has moved when its process ends.
            pair(s, Symmetric, Symmetric)
                .relays(&[Role::Relay])
                .until(60)
                .step(10, Step::Map(&[Role::Relay, Role::Server]))
                .step(20, Step::Drain(Role::Relay))
                .step(30, Step::Restart(Role::Relay))
        },
    },
    Named {
        name: "relay-drain-alone",
        make: |s| {
            pair(s, Symmetric, Symmetric)
                .relays(&[Role::Relay])
                .until(60)
                .step(20, Step::Drain(Role::Relay))
                .step(30, Step::Restart(Role::Relay))
        },
    },
    Named {
        name: "map-change",
        make: |s| {
            pair(s, Symmetric, Symmetric)
                .relays(&[Role::Relay])
                .until(80)
                .step(20, Step::Map(&[Role::Server]))
                .step(50, Step::Map(&[Role::Relay]))
        },
    },
    Named {
        name: "mesh",
        make: |s| {
            // The client loses the region's first relay and goes to the second; the agent stays.
            pair(s, Symmetric, Symmetric).relays(&[Role::Relay, Role::Server]).meshed().until(60).apart(
                Role::Client,
                Role::Relay,
                (20, 55),
            )
        },
    },
    Named {
        name: "mesh-partition",
        make: |s| {
            pair(s, Symmetric, Symmetric)
                .relays(&[Role::Relay, Role::Server])
                .meshed()
                .until(120)
                .apart(Role::Client, Role::Relay, (20, 115))
                .apart(Role::Server, Role::Relay, (50, 70))
        },
    },
    Named {
        name: "duplicate-agent",
        make: |s| {
            // The relay still believes in the old connection when the new process logs in.
            pair(s, Symmetric, Symmetric)
                .until(60)
                .step(20, Step::PowerOff(Role::Agent))
                .step(22, Step::PowerOn(Role::Agent))
        },
    },
    Named {
        name: "cloned-agent",
        make: |s| {
            pair(s, Symmetric, Symmetric)
                .until(90)
                .step(20, Step::PowerOn(Role::Twin))
                .step(50, Step::PowerOff(Role::Twin))
        },
    },
    Named {
        name: "bad-link",
        make: |s| {
            let mut scenario = pair(s, PortRestricted, PortRestricted).until(60);
            scenario.links = scenario.links.map(|link| LinkProfile {
                loss_ppm: 50_000,
                duplicate_ppm: 50_000,
                reorder_ppm: 100_000,
                jitter: Duration::from_millis(20),
                ..link
            });
            scenario
        },
    },
    Named {
        name: "transfer",
        make: |s| {
            let mut scenario = pair(s, Open, PortRestricted);
            scenario.transfer = 4 << 20;
            scenario.links = scenario.links.map(|link| LinkProfile { rate: Some(20_000_000), ..link });
            scenario
        },
    },
];

fn pair(seed: u64, client: Network, agent: Network) -> Scenario {
    Scenario::pair(seed, client, agent)
}

/// All of them.
#[must_use]
pub fn all() -> &'static [Named] {
    ALL
}

/// The scenario of this name, or of two networks joined by `+`.
///
/// # Errors
/// If there is no such scenario.
pub fn find(name: &str, seed: u64) -> Result<Scenario, String> {
    if let Some(named) = ALL.iter().find(|s| s.name == name) {
        return Ok((named.make)(seed).named(name));
    }
    if let Some(fault) =
        FAULTS.iter().chain(DAYS).find(|fault| name.strip_prefix(fault::PREFIX) == Some(fault.name))
    {
        return Ok(fault.scenario(seed).0);
    }
    if name == crate::swarm::NAME {
        return Ok(crate::swarm::plan::draw(seed));
    }
    match name.split_once('+') {
        Some((client, agent)) => Ok(Scenario::pair(seed, client.parse()?, agent.parse()?)),
        None => Err(format!("there is no scenario \"{name}\"; `sim list` names them")),
    }
}

//! What a node finds out about its NAT is what the simulator's NAT does: mapping, filtering and ports, for every kind,
//! with servers of two addresses, of one, and with packets lost.

use proto_core::nat::{Allocation as Ports, Dependence as By, Filtering, Mapping, Report};
use proto_core::time::{Duration, Time};
use sim::nat::{Allocation, Dependence, FilterScope, NatProfile};
use sim::step::{Role, Scenario, Step};
use sim::topology::Network;
use sim::world::World;

const SEEDS: u64 = 10;
/// A netcheck is over within a second or two, and nothing else is asked about.
const SECS: u64 = 8;
const BOTH: &[Role] = &[Role::Server, Role::Relay];

/// What the client of this world found out about its NATs.
fn found(scenario: Scenario) -> Report {
    let name = scenario.name.clone();
    let [client, _] = World::new(scenario.until(SECS), false).run().reports;
    let report = client.expect("the client is on");
    assert!(report.complete && !report.probing, "{name}: it is over");
    report
}

fn behind(seed: u64, layers: Vec<NatProfile>, relays: &'static [Role]) -> Scenario {
    let mut scenario = Scenario::pair(seed, Network::PortRestricted, Network::Open).relays(relays);
    scenario.name = format!("{layers:?}");
    scenario.layers = Some([layers, Vec::new()]);
    scenario
}

const fn filtering(truth: Dependence) -> Filtering {
    match truth {
        Dependence::Independent => Filtering::Independent,
        Dependence::Address => Filtering::Address,
        Dependence::AddressAndPort => Filtering::AddressAndPort,
    }
}

#[test]
fn every_mapping_filtering_and_memory_of_filters_is_found_as_it_is() {
    for mapping in Dependence::ALL {
        for truth in Dependence::ALL {
            for filter_scope in [FilterScope::Mapping, FilterScope::Endpoint] {
                for seed in 0..SEEDS {
                    let nat = NatProfile { filter_scope, ..NatProfile::new(mapping, truth) };
                    let report = found(behind(seed, vec![nat], BOTH));
                    let expected = match mapping {
                        Dependence::Independent => (Mapping::Independent, None),
                        Dependence::Address => (Mapping::Varies, Some(By::Address)),
                        Dependence::AddressAndPort => (Mapping::Varies, Some(By::AddressAndPort)),
                    };
                    assert_eq!((report.mapping, report.dependence), expected, "seed {seed}: {nat:?}");
                    assert_eq!(report.filtering, filtering(truth), "seed {seed}: {nat:?}");
                }
            }
        }
    }
}

#[test]
fn the_strictest_of_several_layers_is_what_counts() {
    for network in Network::ALL {
        let truth = network.layers().iter().map(|nat| nat.filtering).max().unwrap_or(Dependence::Independent);
        let expected = match network {
            Network::UdpBlocked => Filtering::Unknown,
            _ => filtering(truth),
        };
        for seed in 0..SEEDS {
            let report = found(Scenario::pair(seed, network, Network::Open).relays(BOTH));
            assert_eq!(report.filtering, expected, "seed {seed}: {network}");
        }
    }
}

#[test]
fn lost_packets_rarely_make_a_filter_stricter_and_never_milder() {
    for truth in Dependence::ALL {
        let mut right = 0;
        for seed in 0..100 {
            let nat = NatProfile::new(Dependence::Independent, truth);
            let report = found(behind(seed, vec![nat], BOTH).losing(50));
            let rank = |filtering| match filtering {
                Filtering::Independent => 0,
                Filtering::Address => 1,
                _ => 2,
            };
            assert!(rank(report.filtering) >= rank(filtering(truth)), "seed {seed}: {nat:?}");
            right += u32::from(report.filtering == filtering(truth));
        }
        assert!(right >= 95, "{right} of 100 are right about {truth:?}");
    }
}

#[test]
fn ports_are_chosen_as_the_nat_does() {
    let symmetric = NatProfile::symmetric();
    for (allocation, expected) in [
        (Allocation::Preserve, Ports::Preserving),
        (Allocation::Contiguous, Ports::Sequential(1)),
        (Allocation::Random, Ports::Random),
    ] {
        for seed in 0..SEEDS {
            let nat = NatProfile { allocation, ..symmetric };
            let report = found(behind(seed, vec![nat], BOTH));
            assert_eq!(report.allocation, Some(expected), "seed {seed}: {nat:?}");
        }
    }
    for seed in 0..SEEDS {
        let report = found(behind(seed, vec![NatProfile::port_restricted()], BOTH));
        assert_eq!(report.allocation, Some(Ports::Preserving), "seed {seed}");
    }
}

/// The second relay's server has one address: it can change its port alone.
#[test]
fn a_server_of_one_address_tells_whether_the_port_matters() {
    for (truth, expected) in [
        (Dependence::Independent, Filtering::NotByPort),
        (Dependence::Address, Filtering::NotByPort),
        (Dependence::AddressAndPort, Filtering::AddressAndPort),
    ] {
        for seed in 0..SEEDS {
            let nat = NatProfile::new(Dependence::Independent, truth);
            let report = found(behind(seed, vec![nat], &[Role::Relay]));
            assert_eq!(report.filtering, expected, "seed {seed}: {nat:?}");
            assert_eq!(report.mapping, Mapping::Independent, "by its second port, seed {seed}: {nat:?}");
            let report = found(behind(seed, vec![NatProfile::symmetric()], &[Role::Relay]));
            assert_eq!((report.mapping, report.dependence), (Mapping::Varies, Some(By::AddressAndPort)));
        }
    }
}

/// A link that is cut while the NAT is asked about it keeps everything out, and tells nothing of the NAT.
#[test]
fn a_silent_network_is_not_taken_for_a_strict_nat() {
    let nat = NatProfile::address_restricted();
    let cut = |on| Step::Cut { who: Role::Client, up: on, down: on };
    let mut unknown = 0;
    for seed in 0..30 {
        let at = Time::from_millis(150 + 20 * seed);
        let mut scenario = behind(seed, vec![nat], &BOTH[..1]);
        scenario.steps = vec![(at, cut(true)), (at + Duration::from_secs(5), cut(false))];
        let found = |secs| {
            let [client, _] = World::new(scenario.clone().until(secs), false).run().reports;
            let report = client.expect("the client is on");
            (report.mapping, report.filtering)
        };
        let soon = found(SECS);
        assert_ne!(soon.1, Filtering::AddressAndPort, "seed {seed}");
        unknown += u32::from(soon == (Mapping::Unknown, Filtering::Unknown));
        assert_eq!(found(80), (Mapping::Independent, Filtering::Address), "seed {seed}");
    }
    assert!(unknown > 0, "no cut came while it was asked");
}

/// A Linux router gives another port to what goes where an answer came from that it did not let in.
#[test]
fn what_linux_routers_remember_of_answers_is_not_taken_for_a_nat_that_varies() {
    let linux = NatProfile::linux();
    for relays in [BOTH, &BOTH[..1]] {
        for seed in 0..SEEDS {
            let report = found(behind(seed, vec![linux], relays));
            assert_eq!((report.mapping, report.dependence), (Mapping::Independent, None), "seed {seed}");
            assert_eq!(report.filtering, Filtering::AddressAndPort, "seed {seed}");
        }
    }
    for seed in 0..SEEDS {
        let report = found(behind(seed, vec![linux], &[Role::Relay]));
        assert_eq!(report.mapping, Mapping::Unknown, "one address can't tell, seed {seed}");
    }
}

//! Lane 2: the production drivers and servers on turmoil's network. Each scenario runs twice and must leave
//! the same trace.

use sim::turmoil::scenarios::{ALL, run};

fn twice(name: &str) {
    let scenario = ALL.iter().find(|s| s.name == name).expect("the scenario's name");
    let once = |seed| match run(scenario, seed, false) {
        Ok(verdict) => verdict.hash,
        Err(why) => panic!("{why}"),
    };
    assert_eq!(once(1), once(1), "{name} does not repeat");
    once(2);
}

macro_rules! labs {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            twice($name);
        })*

        #[test]
        fn every_lab_has_a_test() {
            let tested = [$($name),*];
            assert!(ALL.iter().all(|s| tested.contains(&s.name)));
        }
    };
}

labs! {
    port_restricted_pairs_go_direct: "direct-behind-port-restricted",
    symmetric_pairs_stay_on_the_relay: "relay-behind-symmetric",
    without_udp_everything_is_relayed: "udp-blocked",
    carrier_nats_are_punched_through: "carrier-nat",
    a_symmetric_home_under_a_carrier_nat_is_guessed: "carrier-nat-symmetric",
    data_goes_on_while_the_server_is_away: "server-partition-during-transfer",
    a_relay_that_returns_is_used_again: "relay-partition-and-return",
    a_restarted_agent_is_found_again: "agent-restart",
    an_agent_that_died_is_found_when_it_returns: "agent-crash",
    a_path_that_works_one_way_is_left: "asymmetric-partition",
    a_dead_direct_path_is_left_and_found_again: "direct-path-partition",
    a_host_without_a_way_turns_to_the_relay: "no-route",
    without_its_server_a_pair_finds_to_a_relay_and_back: "server-gone",
    a_nat_that_forgot_is_punched_anew: "nat-reboot",
    a_nat_that_forgot_and_maps_elsewhere_is_punched_anew: "nat-reboot-new-ports",
    a_hairpin_is_used: "hairpin",
    without_a_hairpin_one_carrier_means_relay: "no-hairpin",
    one_lan_means_direct: "same-lan",
    a_relay_that_stalls_is_survived: "relay-stalls",
    a_restarted_server_is_found_again: "server-restart",
    another_relay_takes_over: "home-relay-lost",
    a_restarted_relay_is_found_again: "relay-restart",
    a_draining_relay_is_left_without_a_pause: "relay-drain",
    a_changed_map_moves_a_pair_without_a_pause: "map-change",
    a_parted_mesh_heals: "mesh-partition",
    an_agent_is_found_beside_its_stale_connection: "duplicate-agent",
    lossy_links_are_survived: "lossy-links",
}

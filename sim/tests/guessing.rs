//! Port guessing, row by row: how many pairs go direct, how fast, and with how many packets. 300 worlds a row, both
//! ends asserted, a round trip of 50 ms between the two and to every server.

use proto_core::time::Time;
use sim::scorecard::{Card, Cell, Pair, find};
use sim::step::{Role, Scenario, Step};
use sim::topology::Network;
use sim::world::World;

const SEEDS: u64 = 300;
/// What plain punching, the peer's words and a netcheck's end add to the tries of an attempt.
const BESIDES: u64 = 150;

fn row(a: &str, b: &str) -> Cell {
    let profile = |name: &str| find(name).expect("a network of the catalogue");
    let pair = Pair { a: profile(a), b: profile(b), loss_ppm: 0, seeds: SEEDS };
    Card::measure(&[pair]).cells.remove(0)
}

/// Whether the share of direct worlds, the median and the 95th percentile are at least this good.
fn assert_row(cell: &Cell, share: f64, (p50, p95): (f64, f64)) {
    let times = cell.time_to_direct_ms.expect("some went direct");
    assert!(cell.direct_share >= share && times.p50 <= p50 && times.p95 <= p95, "{cell:#?}");
}

#[test]
fn a_home_meets_a_symmetric_nat_of_random_ports() {
    let cell = row("port-restricted", "symmetric-random");
    assert_row(&cell, 0.99, (1_200.0, 3_000.0));
    assert!(cell.probes.p99 <= 1_800 + 256 + BESIDES, "{cell:#?}");
    // Whichever of the two asks for the tunnel.
    assert_row(&row("symmetric-random", "port-restricted"), 0.99, (1_200.0, 3_000.0));
}

#[test]
fn a_home_meets_a_symmetric_nat_of_sequential_ports() {
    assert_row(&row("port-restricted", "symmetric-sequential"), 0.99, (1_000.0, 1_000.0));
}

#[test]
fn a_home_meets_a_block_of_a_carrier() {
    let cell = row("port-restricted", "symmetric-block");
    assert_row(&cell, 0.99, (1_500.0, 1_500.0));
    assert!(cell.probes.p99 <= 150 + 64 + BESIDES, "{cell:#?}");
}

#[test]
fn two_nats_of_random_ports_stay_relayed_and_say_why_in_time() {
    let cell = row("symmetric-random", "symmetric-random");
    assert_eq!(cell.direct_share, 0.0, "{cell:#?}");
    assert!(cell.probes.p99 < 300, "nothing is guessed where nothing can be hit: {cell:#?}");
    assert!(cell.verdict_right_within_3s_share >= Some(0.95), "{cell:#?}");
}

#[test]
fn the_sockets_of_a_guess_end_with_its_tunnel() {
    for seed in 0..20 {
        // In the middle of an attempt, and after one that has found a path.
        for (closed, direct) in [(6, false), (20, true)] {
            let mut scenario = Scenario::pair(seed, Network::PortRestricted, Network::Symmetric)
                .relays(&[Role::Server, Role::Relay])
                .step(closed, Step::CloseTunnel)
                .until(closed + 40);
            scenario.tunnel_at = Time::from_secs(5);
            let verdict = World::new(scenario, false).run();
            assert!(verdict.violations.none().is_ok(), "{verdict}");
            assert!(verdict.ever_direct == [true; 2] || !direct, "{verdict}");
        }
    }
}

#[test]
fn two_sequences_meet() {
    assert_row(&row("symmetric-sequential", "symmetric-sequential"), 0.95, (3_000.0, 3_000.0));
}

#[test]
fn a_sequence_that_is_kept_for_an_address_meets_any() {
    assert_row(&row("ad-apd-sequential", "symmetric-random"), 0.95, (5_000.0, 5_000.0));
}

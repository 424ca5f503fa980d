//! The core matrix: every pair of six networks, 200 seeds a cell, both ends asserted, agrees with the oracle;
//! data flows all the time, relayed cells really relay, and every kind of NAT is at work.

use sim::oracle::Outcome;
use sim::step::Scenario;
use sim::topology::Network;
use sim::world::{Verdict, World};

const SEEDS: u64 = 200;
/// Long enough for an attempt at a direct path to succeed or fail for good, and for one more.
const SECS: u64 = 16;
/// Echoes still under way at the end.
const UNDER_WAY: u64 = 2;

fn run(seed: u64, client: Network, agent: Network) -> Verdict {
    World::new(Scenario::pair(seed, client, agent).until(SECS), false).run()
}

fn row(client: Network) {
    for agent in Network::CORE {
        let (mut filtered, mut blocked, mut direct) = (0, 0, 0);
        for seed in 0..SEEDS {
            let verdict = run(seed, client, agent);
            if let Err(why) = verdict.check_echo(UNDER_WAY) {
                panic!("{why}");
            }
            if verdict.expected == Some(Outcome::Relayed) {
                assert!(verdict.relayed > 10_000, "nothing went through the relay\n{verdict}");
            } else {
                assert!(verdict.time_to_direct.is_some(), "{verdict}");
                direct += 1;
            }
            filtered += verdict.nats.filtered;
            blocked += verdict.nats.blocked;
        }
        let has = |network| client == network || agent == network;
        assert!(!has(Network::UdpBlocked) || blocked > 0, "{client}+{agent}: UDP was never blocked");
        let strict = has(Network::Symmetric) && (has(Network::PortRestricted) || client == agent);
        assert!(!strict || filtered > 0, "{client}+{agent}: no filter ever dropped anything");
        assert!(direct == 0 || direct == SEEDS);
    }
}

#[test]
fn an_open_client_agrees_with_the_oracle() {
    row(Network::Open);
}

#[test]
fn a_full_cone_client_agrees_with_the_oracle() {
    row(Network::FullCone);
}

#[test]
fn an_address_restricted_client_agrees_with_the_oracle() {
    row(Network::AddressRestricted);
}

#[test]
fn a_port_restricted_client_agrees_with_the_oracle() {
    row(Network::PortRestricted);
}

#[test]
fn a_symmetric_client_agrees_with_the_oracle() {
    row(Network::Symmetric);
}

#[test]
fn a_client_without_udp_agrees_with_the_oracle() {
    row(Network::UdpBlocked);
}

#[test]
fn the_matrix_reads_as_the_oracle_says() {
    let mut text = format!("{:<19}", "");
    for agent in Network::CORE {
        text += &format!("{agent:>19}");
    }
    for client in Network::CORE {
        text += &format!("\n{client:<19}");
        for agent in Network::CORE {
            let verdict = run(1, client, agent);
            let way = |direct| match direct {
                Some(true) => "direct",
                Some(false) => "relay",
                None => "nothing",
            };
            let ends = format!("{}/{}", way(verdict.direct[0]), way(verdict.direct[1]));
            text += &format!("{ends:>19}");
        }
    }
    insta::assert_snapshot!(text);
}

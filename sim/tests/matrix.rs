//! The core matrix: every pair of six networks, 200 seeds a cell, both ends asserted, agrees with the oracle;
//! data flows all the time, relayed cells really relay, and every kind of NAT is at work.

use sim::nat::NatCounters;
use sim::oracle::Outcome;
use sim::step::{Scenario, Step};
use sim::topology::Network;
use sim::world::{Verdict, World};

const SEEDS: u64 = 200;
/// Long enough for an attempt at a direct path to succeed or fail for good, and for one more.
const SECS: u64 = 16;
/// When scanners try what the NATs let in: nothing that follows depends on it.
const SCAN: u64 = 15;
/// Echoes still under way at the end.
const UNDER_WAY: u64 = 2;

fn run(seed: u64, client: Network, agent: Network) -> Verdict {
    World::new(Scenario::pair(seed, client, agent).until(SECS).step(SCAN, Step::Scan), false).run()
}

fn row(client: Network) {
    for agent in Network::CORE {
        let mut nats = [Nats::default(); 2];
        for seed in 0..SEEDS {
            let verdict = run(seed, client, agent);
            if let Err(why) = verdict.check_echo(UNDER_WAY) {
                panic!("{why}");
            }
            if verdict.expected == Some(Outcome::Relayed) {
                assert!(verdict.relayed > 10_000, "nothing went through the relay\n{verdict}");
            } else {
                assert!(verdict.time_to_direct.is_some(), "{verdict}");
            }
            for (sum, nat) in nats.iter_mut().zip(&verdict.sides) {
                sum.add(nat);
            }
        }
        for (network, nat) in [client, agent].into_iter().zip(nats) {
            assert!(nat.is(network), "{client}+{agent}: the NAT is none of kind {network}: {nat:?}");
        }
    }
}

/// What the NATs of one side did in all worlds of a cell.
#[derive(Clone, Copy, Default, Debug)]
struct Nats {
    translated: u64,
    blocked: u64,
    /// Kept out though their address may come in.
    by_port: u64,
    /// Kept out since their address is unknown.
    by_address: u64,
}

impl Nats {
    fn add(&mut self, counters: &NatCounters) {
        self.translated += counters.translated;
        self.blocked += counters.blocked;
        self.by_port += counters.filtered_port;
        self.by_address += counters.filtered - counters.filtered_port;
    }

    /// Whether they did what is this kind's: in every world a scan came to all their open ports.
    fn is(&self, network: Network) -> bool {
        let Self { translated, blocked, by_port, by_address } = *self;
        let worked = [translated, blocked, by_port, by_address].map(|count| count > 0);
        worked
            == match network {
                Network::UdpBlocked => [false, true, false, false],
                Network::FullCone => [true, false, false, false],
                Network::AddressRestricted => [true, false, false, true],
                Network::PortRestricted | Network::Symmetric => [true, false, true, true],
                _ => [false; 4],
            }
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

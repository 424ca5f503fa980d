//! How little a pair disturbs: what it puts on the wire is counted over an hour, after ten minutes to settle.

use proto_core::time::Duration;
use proto_core::wire::Kind;
use sim::step::{Role, Scenario};
use sim::topology::Network;
use sim::world::{Verdict, World};
use std::collections::BTreeMap;

/// When a pair has settled, in seconds.
const SETTLED: u64 = 600;
/// How long it is watched, in seconds.
const HOUR: u64 = 3_600;
const SEEDS: u64 = 10;
/// Packets that a relayed pair's retries may cost each side, a second.
const MOST_A_SECOND: u64 = 2;

/// What each end sent within the hour, by kind, and what the whole run came to.
fn hour(scenario: impl Fn(u64) -> Scenario, seed: u64) -> ([BTreeMap<Kind, u64>; 2], Verdict) {
    let run = |secs| World::new(scenario(seed).until(secs), false).run();
    let (before, after) = (run(SETTLED), run(SETTLED + HOUR));
    assert!(after.violations.none().is_ok(), "{after}");
    let mut sent = after.sent.clone();
    for (sum, earlier) in sent.iter_mut().zip(&before.sent) {
        for (kind, count) in earlier {
            *sum.entry(*kind).or_default() -= count;
        }
    }
    (sent, after)
}

fn of(sent: &BTreeMap<Kind, u64>, kind: Kind) -> u64 {
    sent.get(&kind).copied().unwrap_or(0)
}

#[test]
fn a_session_that_says_nothing_is_only_renewed() {
    for seed in 0..SEEDS {
        let idle = |seed| Scenario {
            echo: Duration::ZERO,
            ..Scenario::pair(seed, Network::PortRestricted, Network::PortRestricted)
        };
        let (sent, verdict) = hour(idle, seed);
        assert_eq!(verdict.direct, [Some(true); 2], "{verdict}");
        for sent in sent {
            // Every two minutes at most, by three messages.
            assert!(of(&sent, Kind::WireGuard) <= 3 * HOUR / 120, "{sent:?}");
        }
    }
}

#[test]
fn a_relayed_pair_tries_on_quietly() {
    for seed in 0..SEEDS {
        let relayed = |seed| {
            Scenario::pair(seed, Network::Symmetric, Network::Symmetric).relays(&[Role::Server, Role::Relay])
        };
        let (sent, verdict) = hour(relayed, seed);
        assert_eq!(verdict.ever_direct, [false; 2], "{verdict}");
        for sent in sent {
            let tries = of(&sent, Kind::Disco) + of(&sent, Kind::Stun);
            // They go on all the hour, with pauses of seconds.
            assert!((HOUR / 10..=HOUR * MOST_A_SECOND).contains(&tries), "{sent:?}");
            assert_eq!(of(&sent, Kind::WireGuard), 0, "data goes by the relay");
        }
    }
}

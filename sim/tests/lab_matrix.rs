//! Lane 2's matrix: the production drivers behind every pair of the core networks, and where ports are guessed, both
//! ends as the oracle says.

use sim::oracle::Outcome;
use sim::turmoil::matrix::{Pair, core, hard, run};

/// Runs these pairs on both processors, and says of all that failed why.
fn all(names: &[String]) {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                let mine = names.iter().skip(half).step_by(2);
                mine.filter_map(|name| Pair::named(name).and_then(|pair| run(&pair, 1, false)).err())
                    .collect::<Vec<_>>()
            })
        });
        halves.into_iter().flat_map(|half| half.join().expect("a lab panicked")).collect()
    });
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), names.len(), failed.join("\n"));
}

#[test]
fn the_core_matrix_is_as_the_oracle_says() {
    let names = core();
    assert_eq!(names.len(), 36);
    all(&names);
}

#[test]
fn guessed_ports_and_carriers_are_as_the_oracle_says() {
    let names = hard();
    let outcome = |name: &String| Pair::named(name).expect("a pair of the catalogue").outcome();
    let relayed = names.iter().filter(|name| outcome(name) == Outcome::Relayed).count();
    assert!((2..names.len()).contains(&relayed), "{relayed} of {} are relayed", names.len());
    all(&names);
}

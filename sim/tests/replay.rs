//! The same seed gives the same trace in two processes, in both lanes; another seed gives another.

use sim::turmoil::scenarios::ALL;
use std::collections::BTreeSet;
use std::process::Command;

fn hash(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().expect("sim starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("sim prints text").trim().to_string()
}

fn world(seed: u64, scenario: &str) -> String {
    hash(&["run", "--hash", "--seed", &seed.to_string(), "--scenario", scenario])
}

#[test]
fn worlds_repeat_in_another_process() {
    for scenario in ["port-restricted+symmetric", "bad-link", "agent-restart", "relay-lost", "transfer"] {
        let first = world(7, scenario);
        assert_eq!(first.len(), 16, "{first}");
        assert_eq!(first, world(7, scenario), "{scenario}");
        assert_ne!(first, world(8, scenario), "{scenario}");
    }
}

#[test]
fn every_lab_repeats_in_another_process() {
    let all = |seed: &'static str| std::thread::spawn(move || hash(&["lab", "--hash", "--seed", seed]));
    let [first, again, other] = [all("1"), all("1"), all("2")].map(|run| run.join().expect("it ran"));
    assert_eq!(first, again);
    let hashes: BTreeSet<&str> = first.lines().chain(other.lines()).collect();
    assert_eq!(hashes.len(), 2 * ALL.len(), "other scenarios and seeds give other hashes: {hashes:?}");
    assert!(hashes.iter().all(|hash| hash.len() == 16));
}

#[test]
fn a_text_trace_changes_nothing_and_ends_with_the_hash() {
    let replay = hash(&["replay", "--seed", "7"]);
    let quiet = world(7, "port-restricted+port-restricted");
    assert!(replay.contains(&format!("trace hash {quiet}")), "{quiet}");
    assert!(
        replay.contains(
            "replay: cargo run -p sim -- replay --seed 7 --scenario port-restricted+port-restricted"
        )
    );
}

#[test]
fn an_unknown_scenario_is_named() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_sim")).args(["run", "--seed", "1", "--scenario", "x"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "there is no scenario \"x\"; `sim list` names them\n"
    );
}

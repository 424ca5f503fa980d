//! The swarm: worlds whose networks and faults their seeds draw, some always the same, most drawn from the commit.
//! `sim swarm` plays more of them.

use sim::swarm::{self, Report, Size};
use sim::world::marks::MARKS;
use std::process::Command;

/// Worlds that every commit plays.
const FIXED: u64 = 300;
/// Worlds of the commit's own.
const DRAWN: u64 = 1_700;

fn sim(arguments: &[&str]) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().expect("sim starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// What is checked out; the version where it is no checkout.
fn commit() -> String {
    let asked = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success());
    asked.map_or_else(
        || env!("CARGO_PKG_VERSION").to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn play(first: u64, seeds: u64) -> Report {
    let report = swarm::run(Size { first, seeds, end: None });
    assert_eq!(report.worlds, seeds);
    report
}

#[test]
fn nothing_that_never_must_happens_and_all_are_connected_again_after_their_faults() {
    let commit = commit();
    let first = swarm::seed_of(&commit);
    let reports = [play(0, FIXED), play(first, DRAWN)];
    let failures: Vec<String> = reports
        .iter()
        .flat_map(|report| &report.failures)
        .map(|(seed, why)| format!("seed {seed}: {why}"))
        .collect();
    let failed: u64 = reports.iter().map(|report| report.failed).sum();
    assert_eq!(failed, 0, "commit {commit} plays from seed {first} on\n{}", failures.join("\n"));
    // What is rare may be missing among drawn worlds by chance; those that are always the same reach all of it.
    let [fixed, _] = &reports;
    for outcome in ["direct", "relayed"] {
        assert!(fixed.outcomes.contains_key(outcome), "{outcome}: {:?}", fixed.outcomes);
    }
    let touched = |what: &str| fixed.bites.get(what).is_some_and(|count| *count > 0);
    let idle: Vec<_> = swarm::plan::BITES.iter().filter(|what| !touched(what)).collect();
    assert!(idle.is_empty(), "faults that touched nothing in {} worlds: {idle:?}", fixed.worlds);
    let never: Vec<_> = MARKS.iter().filter(|mark| !fixed.marks.contains_key(**mark)).collect();
    assert!(never.is_empty(), "states that none of {} worlds has reached: {never:?}", fixed.worlds);
}

#[test]
fn a_commit_plays_worlds_of_its_own() {
    assert_ne!(swarm::seed_of("a"), swarm::seed_of("b"));
    assert!(swarm::seed_of("a") > FIXED);
}

#[test]
fn a_seed_of_the_swarm_is_the_same_world_in_two_processes() {
    let hash = |seed: &str| sim(&["run", "--hash", "--scenario", "swarm", "--seed", seed]).0;
    assert_eq!(hash("3").trim().len(), 16);
    assert_eq!(hash("3"), hash("3"));
    assert_ne!(hash("3"), hash("4"));
}

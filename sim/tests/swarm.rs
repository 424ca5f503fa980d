//! A few worlds of the swarm: `sim swarm` plays many more. Nothing that never must happens in one, and a seed means the
//! same world in every process.

use std::process::Command;

fn sim(arguments: &[&str]) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().expect("sim starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_seed_of_the_swarm_is_the_same_world_in_two_processes() {
    let hash = |seed: &str| sim(&["run", "--hash", "--scenario", "swarm", "--seed", seed]).0;
    assert_eq!(hash("3").trim().len(), 16);
    assert_eq!(hash("3"), hash("3"));
    assert_ne!(hash("3"), hash("4"));
}

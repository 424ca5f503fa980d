//! A command from far away: what can go in parallel or in the first flight does.

use super::Result;
use super::workspace::{alone, finish};
use std::time::{Duration, Instant};
use tests::deployment::{Deployment, Place};
use tests::lab::Lab;

/// From the person to the server and its relay, and back.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// From one run to the next: what is on its way is not counted with the next one's.
const PAUSE: Duration = Duration::from_millis(300);
/// Round trips of a command, from a cold start to its status.
const TRIPS: usize = 10;
/// What it may take besides them.
const BESIDES: Duration = Duration::from_millis(150);
/// Runs; the best counts, since a busy machine makes some slower, never quicker.
const RUNS: usize = 5;

#[test]
fn a_command_takes_few_round_trips() -> Result {
    let folder = tempfile::tempdir()?;
    let (lab, wire) = Lab::slow(ROUND_TRIP / 2, folder.path())?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;

    let _alone = alone();
    // That they are counted rightly is seen on something simple: requests, one after the other on a connection.
    let url = format!("{}/healthz", deployment.url());
    for requests in 1..=3 {
        std::thread::sleep(PAUSE);
        wire.forget()?;
        let fetch = ["--output", "/dev/null", &url].repeat(requests);
        lab.ok("alice", &[&["curl", "--silent", "--fail"], &fetch[..]].concat())?;
        std::thread::sleep(PAUSE);
        let trips = wire.round_trips()?;
        assert_eq!(trips.len(), requests + 1, "the handshake, and each request: {trips:#?}");
    }

    for arguments in [&["ssh", "dev", "true"][..], &["ssh", "--disable-direct-connections", "dev", "true"]] {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            std::thread::sleep(PAUSE);
            wire.forget()?;
            let began = Instant::now();
            let out = finish(deployment.command()?.args(arguments), b"")?;
            let took = began.elapsed();
            assert!(out.status.success(), "{out:?}");
            runs.push((took, wire.round_trips()?));
        }
        let quickest = runs.iter().map(|(took, _)| *took).min().unwrap_or_default();
        let fewest = runs.iter().map(|(_, trips)| trips).min_by_key(|trips| trips.len()).ok_or("no run")?;
        println!("{arguments:?}: {quickest:?}, {} round trips: {fewest:#?}", fewest.len());
        assert!(fewest.len() <= TRIPS, "{fewest:#?}");
        assert!(
            quickest <= ROUND_TRIP * 10 + BESIDES,
            "{:?}",
            runs.iter().map(|run| run.0).collect::<Vec<_>>()
        );
    }
    Ok(())
}

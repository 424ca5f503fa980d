//! Figures are in the units that they name: they are held against a wire whose length is known, and against what the
//! kernel has counted.

use super::{Result, result, said};
use serde_json::Value;
use std::time::Duration;
use tests::deployment::{Deployment, Place};
use tests::lab::Lab;

/// From the person to everything else and back.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// A busy machine is slow; a wrong unit is wrong by a thousand.
const FAR: std::ops::Range<f64> = 50.0..5_000.0;

/// The numbers that stand right before this, in order.
fn numbers(text: &str, unit: &str) -> Vec<f64> {
    let before = text.match_indices(unit).map(|(at, _)| &text[..at]);
    before
        .filter_map(|before| before.rsplit(|c: char| !c.is_ascii_digit() && c != '.').next()?.parse().ok())
        .collect()
}

/// Every number of a document whose key ends so, with its place.
fn keyed(document: &Value, ending: &str, place: &str, found: &mut Vec<(String, f64)>) {
    match document {
        Value::Object(fields) => {
            for (key, value) in fields {
                let place = format!("{place}.{key}");
                if let Some(number) = value.as_f64().filter(|_| key.ends_with(ending)) {
                    found.push((place.clone(), number));
                }
                keyed(value, ending, &place, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|one| keyed(one, ending, place, found)),
        _ => {}
    }
}

/// Holds all times of a document against the wire; how many there are.
fn far(document: &Value) -> usize {
    let mut found = Vec::new();
    keyed(document, "_ms", "", &mut found);
    for (place, ms) in &found {
        assert!(FAR.contains(ms), "{place} is {ms}: {document:#}");
    }
    found.len()
}

/// What a host's network devices have received, in bytes.
fn received(lab: &Lab, host: &str) -> Result<f64> {
    let text = lab.ok(host, &["cat", "/proc/net/dev"])?;
    let devices =
        text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    let bytes = devices.filter_map(|(_, counts)| counts.split_whitespace().next()?.parse::<f64>().ok());
    Ok(bytes.sum())
}

#[test]
fn times_are_those_of_the_wire() -> Result {
    let folder = tempfile::tempdir()?;
    let (lab, _wire) = Lab::slow(ROUND_TRIP / 2, folder.path())?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;

    let ping = deployment.warren(&["ping", "dev", "-c", "3", "-i", "0.1"])?;
    let text = result(&ping);
    let times = numbers(&text, "ms");
    assert!(times.len() >= 4 && times.iter().all(|ms| FAR.contains(ms)), "{times:?}: {text}{}", said(&ping));
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("3 sent, 3 received, 0% loss · min/avg/max "), "{text}");
    let summary = last.split(' ').find(|word| word.matches('/').count() == 2 && !word.contains("avg"));
    let summary: Vec<f64> =
        summary.unwrap_or_default().split('/').filter_map(|number| number.parse().ok()).collect();
    assert!(summary.is_sorted() && summary.len() == 3 && summary.iter().all(|ms| FAR.contains(ms)), "{text}");

    let report = deployment.json(&["ping", "dev", "-c", "2", "-i", "0.1"])?;
    assert!(far(&report) >= 5, "{report:#}");
    let report = deployment.json(&["netcheck"])?;
    assert!(far(&report) >= 1, "{report:#}");
    let report = deployment.json(&["status"])?;
    assert!(far(&report) >= 1, "{report:#}");
    assert!(report[0]["uptime_seconds"].as_u64().is_some_and(|seconds| seconds < 600), "{report:#}");
    for command in ["netcheck", "status"] {
        let out = deployment.warren(&[command])?;
        let times = numbers(&result(&out), "ms");
        assert!(!times.is_empty() && times.iter().all(|ms| FAR.contains(ms)), "{}", result(&out));
    }
    Ok(())
}

#[test]
fn amounts_are_those_that_came_by_the_wire() -> Result {
    let folder = tempfile::tempdir()?;
    let (lab, _wire) = Lab::slow(ROUND_TRIP / 2, folder.path())?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    // What stands beside it on the wire, and what was sent twice, is less than all of it again.
    let carried = |bytes: f64, wire: f64| assert!((0.5..1.0).contains(&(bytes / wire)), "{bytes} of {wire}");
    let rate = |bits: f64, seconds: f64, told: f64| {
        assert!(
            (0.99..1.01).contains(&(bits / seconds / told)),
            "{bits} bits in {seconds} s are no {told} bits/s"
        );
    };

    let before = received(&lab, "alice")?;
    let out = deployment.warren(&["speedtest", "dev", "--time", "2"])?;
    let wire = received(&lab, "alice")? - before;
    let text = result(&out);
    assert!(out.status.success(), "{text}{}", said(&out));
    let rows: Vec<&str> = text.lines().filter(|line| line.contains(" MBits ")).collect();
    let mut sum = 0.0;
    for row in &rows {
        let (times, _) = row.split_once(" sec ").ok_or("no time")?;
        let (begin, end) = times.split_once('-').ok_or("no interval")?;
        let seconds = end.parse::<f64>()? - begin.parse::<f64>()?;
        let (megabits, told) = (numbers(row, " MBits"), numbers(row, " Mbits/sec"));
        assert!(seconds < 20.0, "{text}");
        // Both ends of the time are shown rounded to a hundredth.
        assert!((megabits[0] - told[0] * seconds).abs() <= told[0] * 0.015, "{row}");
        sum += megabits[0];
    }
    let total = numbers(rows.last().ok_or("no total")?, " MBits")[0];
    assert!((sum - 2.0 * total).abs() < 0.01 * total, "the seconds make the total: {text}");
    carried(total * 1e6 / 8.0, wire);

    let before = received(&lab, "bob")?;
    let test = deployment.json(&["speedtest", "dev", "--time", "2", "--direction", "up"])?;
    let wire = received(&lab, "bob")? - before;
    let total = &test["total"];
    let number = |key: &str| total[key].as_f64().ok_or_else(|| format!("no {key} in {test:#}"));
    rate(
        number("bytes")? * 8.0,
        number("end_seconds")? - number("start_seconds")?,
        number("bits_per_second")?,
    );
    carried(number("bytes")?, wire);
    assert!(far(&test) >= 1, "{test:#}");

    // What the agent says of itself afterwards: all of both, and not eight times as much.
    let status = deployment.json(&["status"])?;
    let sent = status[0]["sent_bytes"].as_f64().ok_or("no sent_bytes")?;
    let both = received(&lab, "alice")?;
    assert!((0.3..1.0).contains(&(sent / both)), "{sent} of {both}: {status:#}");
    Ok(())
}

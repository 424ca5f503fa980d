//! A person far from the server: a wire that takes its time, beside one that does not.
//!
//! ```text
//!   alice ~~~ server ── bob
//! ```
//!
//! Not every kernel has a queue that delays (netem), so the wire is a program between two network devices.

use super::{Lab, SERVER, require_root};
use crate::Result;
use crate::deployment::Running;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The slow wire: it ends with its owner.
#[derive(Debug)]
pub struct SlowWire {
    log: PathBuf,
    one_way: Duration,
    _program: Running,
}

impl Lab {
    /// A lab without NATs whose `alice` is so far from all others; the wire keeps its files in `folder`.
    ///
    /// # Errors
    /// Without root, `ip` or `python3`: with what to do.
    pub fn slow(one_way: Duration, folder: &Path) -> Result<(Self, SlowWire)> {
        require_root()?;
        let mut lab = Self::empty();
        for host in ["server", "alice", "bob"] {
            lab.host(host)?;
        }
        let (here, there) = (format!("{}a", lab.prefix), format!("{}b", lab.prefix));
        let (script, log) = (folder.join("slow_wire.py"), folder.join("wire.log"));
        std::fs::write(&script, include_str!("slow_wire.py"))
            .map_err(|e| format!("{}: {e}", script.display()))?;
        let mut wire = Command::new("python3");
        wire.arg(&script).arg((one_way.as_secs_f64() * 1e3).to_string()).args([&here, &there]).arg(&log);
        let mut program = Running::start(wire, folder.join("slow_wire.log"))?;
        for (device, host, address) in
            [(&here, "alice", "203.0.113.1/24"), (&there, "server", "203.0.113.2/24")]
        {
            let moved = ["link", "set", device.as_str(), "netns", &lab.name(host)];
            program.wait("the slow wire", || {
                Command::new("ip").args(moved).output().ok()?.status.success().then_some(())
            })?;
            lab.ok(host, &["ip", "address", "add", address, "dev", device])?;
            lab.ok(host, &["ip", "link", "set", device, "up"])?;
        }
        lab.join(("server", "192.0.2.1/24"), ("bob", "192.0.2.2/24"))?;
        lab.ok("alice", &["ip", "route", "add", "default", "via", SERVER])?;
        lab.ok("bob", &["ip", "route", "add", "default", "via", "192.0.2.1"])?;
        lab.ok("server", &["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        Ok((lab, SlowWire { log, one_way, _program: program }))
    }
}

/// A packet that passed the wire.
#[derive(Clone, PartialEq, Debug)]
pub struct Passed {
    /// When it was sent, in milliseconds.
    pub at: f64,
    /// Whether it came from `alice`.
    pub from_alice: bool,
    /// What it was.
    pub what: String,
}

impl SlowWire {
    /// Forgets what has passed so far.
    ///
    /// # Errors
    /// If the log cannot be emptied.
    pub fn forget(&self) -> Result {
        let file = std::fs::OpenOptions::new().write(true).truncate(true).open(&self.log);
        file.map(drop).map_err(|e| format!("{}: {e}", self.log.display()))
    }

    /// What has passed since.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn passed(&self) -> Result<Vec<Passed>> {
        let text = std::fs::read_to_string(&self.log).map_err(|e| format!("{}: {e}", self.log.display()))?;
        Ok(text
            .lines()
            .filter_map(|line| {
                let mut words = line.splitn(3, ' ');
                let at = words.next()?.parse().ok()?;
                Some(Passed { at, from_alice: words.next()? == "->", what: words.next()?.to_owned() })
            })
            .collect())
    }

    /// What `alice` has sent since, by round trip: what stands in one was sent because of something that came in answer to
    /// the one before, at the latest. An end that nobody waits for begins none.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn round_trips(&self) -> Result<Vec<Vec<String>>> {
        Ok(round_trips(self.passed()?, self.one_way))
    }
}

fn round_trips(mut passed: Vec<Passed>, one_way: Duration) -> Vec<Vec<String>> {
    let one_way = one_way.as_secs_f64() * 1e3;
    passed.sort_by(|one, other| one.at.total_cmp(&other.at));
    // What each side has sent: when, and in which round trip.
    let (mut here, mut there): (Vec<(f64, usize)>, Vec<(f64, usize)>) = Default::default();
    let mut trips: Vec<Vec<String>> = Vec::new();
    for Passed { at, from_alice, what } in passed {
        let heard = |sent: &[(f64, usize)]| {
            sent.iter().filter(|(sent, _)| sent + one_way <= at).map(|(_, trip)| *trip).max().unwrap_or(0)
        };
        if !from_alice {
            there.push((at, heard(&here)));
            continue;
        }
        if matches!(what.as_str(), "tcp fin 0" | "tcp rst 0") {
            continue;
        }
        let trip = heard(&there);
        here.push((at, trip + 1));
        trips.resize(trips.len().max(trip + 1), Vec::new());
        if !trips[trip].contains(&what) {
            trips[trip].push(what);
        }
    }
    trips
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(said: &[(f64, &str, &str)]) -> Vec<Passed> {
        let packet = |(at, direction, what): &(f64, &str, &str)| Passed {
            at: 1_000.0 + at,
            from_alice: *direction == "->",
            what: (*what).to_owned(),
        };
        said.iter().map(packet).collect()
    }

    #[test]
    fn round_trips_are_counted_by_what_is_sent_because_of_what_came() {
        let mut said = vec![
            (0.0, "->", "tcp syn 0"),
            (0.4, "->", "tcp syn 0"),
            (25.3, "<-", "tcp syn 0"),
            (50.6, "->", "tcp 120 GET /a HTTP/1.1"),
            // Sent before the answer came, though late.
            (99.0, "->", "udp 40"),
            // The other side took its time.
            (115.9, "<-", "tcp 300"),
            (141.0, "->", "udp 124"),
            (142.0, "->", "tcp fin 0"),
        ];
        let wanted = [vec!["tcp syn 0"], vec!["tcp 120 GET /a HTTP/1.1", "udp 40"], vec!["udp 124"]];
        assert_eq!(round_trips(packets(&said), Duration::from_millis(25)), wanted);

        // One more is asked and answered, and one more is counted.
        said.extend([(166.1, "<-", "udp 90"), (191.3, "->", "udp 33")]);
        assert_eq!(round_trips(packets(&said), Duration::from_millis(25)).len(), 4);
    }
}

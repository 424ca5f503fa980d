//! `cargo xtask bench relay`: our relay and Tailscale's, the Go DERP server, in turns, each alone on one core; the
//! clients of both are played by `relay_load` on another.

use super::{Figure, percentile};
use crate::setup;
use crate::shell::{self, Result, command};
use ::tests::deployment::Running;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The relay's core, and the clients'.
const CORES: [&str; 2] = ["0", "1"];
/// Clients who say nothing.
const CROWD: u32 = 15_000;
/// What the Go relay is offered, in Gbit/s: it collapses when it is offered more than it carries, so that its best is
/// searched for.
const GO_OFFERS: [f64; 5] = [0.6, 0.8, 1.0, 1.3, 1.7];
/// How often the Go relay may end a client's connection in a measurement, which it does to those it could not write to
/// for two seconds: it is measured again. Ours may never.
const GO_FALLS: usize = 3;
/// Ours is asked what it carries at these shares of what it carries when all senders send whenever they can. Its best
/// is the share with the highest median: the highest single value of all would be as much the luckiest moment's.
const SHARES: [(f64, &str); 3] = [(0.85, "relay_at_85"), (0.95, "relay_at_95"), (1.05, "relay_at_105")];
/// Bad neighbours, by their name for `relay_load` and for the figure: the 99th percentile of a quiet pair's packets
/// beside them.
const BAD: [(&str, &str); 15] = [
    ("flood", "relay_bad_flood_p99_us"),
    ("stalled", "relay_bad_stalled_p99_us"),
    ("half_open", "relay_bad_half_open_p99_us"),
    ("slow_tls", "relay_bad_slow_tls_p99_us"),
    ("slow_request", "relay_bad_slow_request_p99_us"),
    ("slow_login", "relay_bad_slow_login_p99_us"),
    ("deaf_request", "relay_bad_deaf_request_p99_us"),
    ("crowd", "relay_bad_crowd_p99_us"),
    ("too_long", "relay_bad_too_long_p99_us"),
    ("truncated", "relay_bad_truncated_p99_us"),
    ("wrong_key", "relay_bad_wrong_key_p99_us"),
    ("no_login", "relay_bad_no_login_p99_us"),
    ("no_request", "relay_bad_no_request_p99_us"),
    ("strangers", "relay_bad_strangers_p99_us"),
    ("pings", "relay_bad_pings_p99_us"),
];
/// The quiet pair is measured without bad neighbours before every so many kinds of them.
const QUIET_EVERY: usize = 5;
/// The load beside which latency is measured, as a share of the most that a relay carries.
const BUSY: f64 = 0.8;

/// A relay that runs alone on its core.
struct Relay {
    name: &'static str,
    process: Running,
    plain: Option<String>,
    tls: String,
    _folder: TempDir,
}

/// One run's measurements by name.
struct Runs<'a> {
    load: Load<'a>,
    seconds: String,
    ours: Relay,
    go: Relay,
}

struct Load<'a>(&'a Path);

/// Measures.
///
/// # Errors
/// If a program fails, with what it said.
pub(super) fn run(runs: usize, seconds: u32) -> Result<Vec<Figure>> {
    setup::tailscale()?;
    let program = shell::program("examples/relay_load");
    // Memory on a relay of its own: what was used before would hide what a client needs, and what a crowd leaves
    // behind is not what the speeds are about.
    let idle = Load(&program).idle(&ours(&program)?)?;
    let bench = Runs {
        load: Load(&program),
        seconds: format!("seconds={seconds}"),
        ours: ours(&program)?,
        go: go()?,
    };
    let mut columns: Vec<(&'static str, &'static str, Vec<f64>)> = Vec::new();
    let mut note = |name, unit, value: f64| match columns.iter_mut().find(|c| c.0 == name) {
        Some(column) => column.2.push(value),
        None => columns.push((name, unit, vec![value])),
    };
    note("relay_idle_kib", "KiB/client", idle);
    for run in 1..=runs {
        println!("relays, run {run} of {runs}");
        bench.measure(&mut note)?;
    }
    Ok(figures(columns))
}

/// The figures, each beside the Go relay's of the same runs.
fn figures(columns: Vec<(&'static str, &'static str, Vec<f64>)>) -> Vec<Figure> {
    let values = |name: &str| columns.iter().find(|c| c.0 == name).map(|c| c.2.clone());
    let median = |name: &str| values(name).map_or(0.0, |runs| percentile(&runs, 50));
    let offers = SHARES.map(|(_, name)| name).into_iter().chain(["relay_plain"]);
    let best = offers.max_by(|a, b| median(a).total_cmp(&median(b))).unwrap_or("relay_plain");
    let compared = [
        ("relay_plain", "go_tls", "Go relay by TLS, its best"),
        ("relay_tls", "go_tls", "Go relay, its best"),
        ("relay_peers_1000", "relay_plain", "relay_plain (20 peers)"),
        ("relay_tls_1000", "relay_tls", "relay_tls (20 peers)"),
        ("relay_random", "go_random", "Go relay at the same load"),
        ("relay_random_1000", "go_random_1000", "Go relay at the same load"),
        ("relay_overload", best, "its best at any offer"),
        ("relay_p99_us", "go_p99_us", "Go relay at 80 % of its best"),
        ("relay_logins", "go_logins", "Go relay"),
    ];
    let figure = |(name, unit, runs): &(&'static str, &'static str, Vec<f64>)| {
        let figure = Figure::median(name, unit, runs.clone());
        match compared.iter().find(|(ours, ..)| ours == name) {
            Some((_, other, peer)) => figure.compared(peer, &values(other).unwrap_or_default()),
            None if name.starts_with("relay_bad_") => {
                figure.compared("the same pair, quiet", &values("relay_quiet_p99_us").unwrap_or_default())
            }
            None => figure,
        }
    };
    columns.iter().map(figure).collect()
}

impl Runs<'_> {
    fn measure(&self, note: &mut impl FnMut(&'static str, &'static str, f64)) -> Result {
        let (ours, go) = (&self.ours, &self.go);
        let gbit = |relay, tls, mode, settings: &[&str]| {
            let settings = [settings, &[self.seconds.as_str()]].concat();
            let mut report = self.load.run(relay, tls, mode, &settings);
            for _ in 0..GO_FALLS {
                match &report {
                    Err(why) if std::ptr::eq(relay, go) => println!("once more: {why}"),
                    _ => break,
                }
                report = self.load.run(relay, tls, mode, &settings);
            }
            number(&report?, "delivered_gbit")
        };
        let plain = gbit(ours, false, "pairs", &[])?;
        let tls = gbit(ours, true, "pairs", &[])?;
        let mut go_best: f64 = 0.0;
        for offer in GO_OFFERS {
            go_best = go_best.max(gbit(go, true, "pairs", &[&format!("offered={offer}")])?);
        }
        note("relay_plain", "Gbit/s", plain);
        note("relay_tls", "Gbit/s", tls);
        note("go_tls", "Gbit/s", go_best);
        note("relay_peers_1000", "Gbit/s", gbit(ours, false, "pairs", &["peers=1000"])?);
        note("relay_tls_1000", "Gbit/s", gbit(ours, true, "pairs", &["peers=1000"])?);
        note("relay_random", "Gbit/s", gbit(ours, true, "random", &[])?);
        note("go_random", "Gbit/s", gbit(go, true, "random", &[])?);
        note("relay_random_1000", "Gbit/s", gbit(ours, true, "random", &["peers=1000"])?);
        note("go_random_1000", "Gbit/s", gbit(go, true, "random", &["peers=1000"])?);

        for (share, name) in SHARES {
            note(name, "Gbit/s", gbit(ours, false, "pairs", &[&format!("offered={}", plain * share)])?);
        }
        note("relay_overload", "Gbit/s", gbit(ours, false, "pairs", &[])?);

        for (relay, capacity, names) in [
            (ours, tls, ["relay_idle_p50_us", "relay_idle_p99_us", "relay_p50_us", "relay_p99_us"]),
            (go, go_best, ["go_idle_p50_us", "go_idle_p99_us", "go_p50_us", "go_p99_us"]),
        ] {
            let quiet = self.load.run(relay, true, "latency", &[&self.seconds])?;
            note(names[0], "us", number(&quiet, "p50_us")?);
            note(names[1], "us", number(&quiet, "p99_us")?);
            let beside = self.load.start(relay, capacity * BUSY)?;
            let busy = self.load.run(relay, true, "latency", &[&self.seconds])?;
            drop(beside);
            note(names[2], "us", number(&busy, "p50_us")?);
            note(names[3], "us", number(&busy, "p99_us")?);
        }

        self.bad_neighbours(note)?;

        let logins = self.load.run(ours, true, "logins", &[&self.seconds])?;
        // The clients' side of a login costs more than ours: what a core carries follows from what one login took.
        note("relay_logins", "logins/s/core", 1e6 / number(&logins, "relay_us_per_login")?);
        let logins = self.load.run(go, true, "logins", &[&self.seconds])?;
        note("go_logins", "logins/s/core", 1e6 / number(&logins, "relay_us_per_login")?);
        Ok(())
    }
}

impl Runs<'_> {
    /// What each kind of bad neighbour does to a quiet pair. How that is without them is measured again and again
    /// between: its 99th percentile alone differs by half from one time to the next.
    fn bad_neighbours(&self, note: &mut impl FnMut(&'static str, &'static str, f64)) -> Result {
        let pair = || number(&self.load.run(&self.ours, true, "latency", &[&self.seconds])?, "p99_us");
        let mut quiet = Vec::new();
        for (n, (kind, name)) in BAD.into_iter().enumerate() {
            if n.is_multiple_of(QUIET_EVERY) {
                quiet.push(pair()?);
            }
            let beside = self.load.bad(&self.ours, kind)?;
            note(name, "us", pair()?);
            drop(beside);
        }
        note("relay_quiet_p99_us", "us", percentile(&quiet, 50));
        Ok(())
    }
}

impl Load<'_> {
    fn command(&self, relay: &Relay, tls: bool, mode: &str, settings: &[&str]) -> Result<Command> {
        let address = if tls { Some(&relay.tls) } else { relay.plain.as_ref() };
        let address = address.ok_or_else(|| format!("{} does not speak without TLS", relay.name))?;
        let mut pinned = command("taskset", &["-c", CORES[1]]);
        if mode == "latency" {
            // A quiet pair that waited for its own core would tell of that: it goes before the relay on the relay's,
            // where it has next to nothing to do.
            pinned = command("taskset", &["-c", CORES[0], "chrt", "--fifo", "1"]);
        }
        pinned.arg(self.0).args([address, mode]).args(settings);
        pinned.arg(format!("pid={}", relay.process.id()));
        if tls {
            pinned.arg("tls=1");
        }
        Ok(pinned)
    }

    /// KiB of memory for each client who says nothing.
    fn idle(&self, relay: &Relay) -> Result<f64> {
        println!("{CROWD} idle clients by TLS");
        let report = self.run(relay, true, "idle", &[&format!("peers={CROWD}"), "seconds=5"])?;
        number(&report, "kib_per_client")
    }

    fn run(&self, relay: &Relay, tls: bool, mode: &str, settings: &[&str]) -> Result<Value> {
        let text = shell::output(self.command(relay, tls, mode, settings)?)
            .map_err(|e| format!("{} ({}): {e}", relay.name, relay.process.log_end()))?;
        serde_json::from_str(&text).map_err(|e| format!("relay_load: {e}: {text}"))
    }

    /// Load beside which something else is measured, until it is dropped.
    fn start(&self, relay: &Relay, gbit: f64) -> Result<Beside> {
        let settings = [format!("offered={gbit}"), "seconds=60".to_owned()];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        Beside::start(self.command(relay, true, "pairs", &settings)?)
    }

    /// Bad neighbours, until they are dropped.
    fn bad(&self, relay: &Relay, kind: &str) -> Result<Beside> {
        let kind_is = format!("kind={kind}");
        // Bad neighbours see to TLS themselves; which address they go to is all that is to be said about it.
        let address = if kind == "slow_tls" { Some(&relay.tls) } else { relay.plain.as_ref() };
        let address = address.ok_or_else(|| format!("{} does not speak without TLS", relay.name))?;
        let mut load = command("taskset", &["-c", CORES[1]]);
        load.arg(self.0).args([address, "bad", &kind_is, "seconds=60"]);
        Beside::start(load)
    }
}

struct Beside(Child);

impl Beside {
    fn start(mut load: Command) -> Result<Self> {
        let child = load.stdout(Stdio::null()).spawn().map_err(|e| format!("relay_load: {e}"))?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        Ok(Self(child))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(report: &Value, name: &str) -> Result<f64> {
    report[name].as_f64().ok_or_else(|| format!("no {name} in {report}"))
}

/// `warren-relay` with a certificate of its own.
fn ours(load: &Path) -> Result<Relay> {
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let path = |name: &str| folder.path().join(name);
    shell::output(command(load, &["certificate", &folder.path().to_string_lossy()]))?;
    let mut relay = command("taskset", &["-c", CORES[0]]);
    relay.arg(shell::program("warren-relay"));
    relay.args(["--http-address", "127.0.0.1:0", "--tls-address", "127.0.0.1:0", "--stun-address", "none"]);
    relay.args(["--metrics-address", "none", "--log", "warn", "--state-dir"]).arg(path("state"));
    relay.arg("--tls-cert-file").arg(path("cert.pem")).arg("--tls-key-file").arg(path("key.pem"));
    relay.arg("--ready-file").arg(path("ready.json"));
    let mut process = Running::start(relay, path("log"))?;
    let ready: Value = process.wait("warren-relay", || {
        std::fs::read(path("ready.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
    })?;
    let address = |name: &str| ready[name].as_str().map(str::to_owned);
    let tls = address("tls_address").ok_or_else(|| format!("no TLS address in {ready}"))?;
    Ok(Relay { name: "warren-relay", process, plain: address("http_address"), tls, _folder: folder })
}

/// The Go DERP server, as Tailscale's programs embed it.
fn go() -> Result<Relay> {
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let mut relay = command("taskset", &["-c", CORES[0]]);
    relay.arg(::tests::tailscale::program()?).args([
        "--verbose",
        "serve",
        "--key=new",
        "--full-address",
        "1",
    ]);
    relay.env("TS_DEBUG_TAILCAT_LOCAL_DERP", "1");
    let log = folder.path().join("log");
    let mut process = Running::start(relay, log.clone())?;
    let tls = process.wait("tailcat", || {
        let said = std::fs::read_to_string(&log).ok()?;
        let (_, after) = said.split_once("starting dev derp on ")?;
        after.split_whitespace().next().map(str::to_owned)
    })?;
    Ok(Relay { name: "the Go relay", process, plain: None, tls, _folder: folder })
}

#[cfg(test)]
mod tests {
    use super::super::percentile;
    use super::*;

    #[test]
    fn bad_neighbours_stand_beside_the_quiet_of_the_same_run() {
        let columns = vec![
            ("relay_quiet_p99_us", "us", vec![100.0, 100.0, 200.0]),
            ("relay_bad_flood_p99_us", "us", vec![150.0, 190.0, 100.0]),
        ];
        assert_eq!(figures(columns)[1].ratio, Some(1.5));
    }

    #[test]
    fn overload_stands_beside_the_best_offer_by_its_median() {
        let columns = vec![
            ("relay_plain", "Gbit/s", vec![14.0, 14.0, 14.0]),
            ("relay_at_85", "Gbit/s", vec![12.0, 20.0, 12.0]),
            ("relay_at_95", "Gbit/s", vec![15.0, 15.0, 15.0]),
            ("relay_overload", "Gbit/s", vec![15.0, 15.0, 15.0]),
        ];
        assert_eq!(figures(columns)[3].ratio, Some(1.0));
    }

    #[test]
    fn each_figure_stands_beside_the_other_relay_of_the_same_run() {
        let columns = vec![
            ("relay_tls", "Gbit/s", vec![8.0, 9.0, 10.0]),
            ("go_tls", "Gbit/s", vec![1.0, 0.9, 2.0]),
            ("relay_idle_kib", "KiB/client", vec![12.0]),
        ];
        let figures = figures(columns);
        assert_eq!(figures[0].ratio, Some(8.0));
        assert_eq!(figures[2].ratio, None);
        assert!((percentile(&figures[0].runs, 50) - 9.0).abs() < f64::EPSILON);
    }
}

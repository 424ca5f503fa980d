//! `cargo xtask bench forward`: PostgreSQL, Redis and iperf3 through `warren port-forward`, each beside the same without
//! it, all on loopback.

use super::{Figure, percentile};
use crate::setup;
use crate::shell::{self, Result, command};
use ::tests::deployment::{Deployment, Place, Running, free_address};
use serde_json::Value;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Requests of one measurement of Redis.
const REQUESTS: &str = "20000";
/// Attempts at a client of iperf3, whose server takes one at a time.
const TRIES: usize = 25;
/// How long a direct path may take to be found and told.
const DIRECT_PATIENCE: Duration = Duration::from_secs(30);

/// The programs in the workspace, and the ports here that lead to them.
struct Bench {
    seconds: String,
    folder: PathBuf,
    postgres: Ways,
    redis: Ways,
    iperf: Ways,
    _running: Vec<Running>,
    /// PostgreSQL's files: they go after it.
    _data: TempDir,
}

/// The ports by which a program is reached.
struct Ways {
    local: String,
    forwarded: String,
}

/// Measures.
///
/// # Errors
/// If a program fails, with what it said.
pub(super) fn run(runs: usize, seconds: u32) -> Result<Vec<Figure>> {
    setup::install(setup::BENCH_FORWARD)?;
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let mut bench = Bench::start(&deployment, seconds)?;
    bench._running.push(agent);
    let mut columns = Columns::default();
    for run in 1..=runs {
        println!("forwarded ports, run {run} of {runs}");
        let before = direct_way(&deployment)?;
        bench.measure(&mut columns)?;
        let after = direct_way(&deployment)?;
        if before != after {
            return Err(format!("the path changed while it was measured: {before}, {after}"));
        }
    }
    Ok(columns.figures())
}

/// What was measured, by name: with the forward and without.
#[derive(Default)]
struct Columns(Vec<(&'static str, &'static str, Vec<f64>, Vec<f64>)>);

impl Columns {
    fn note(&mut self, name: &'static str, unit: &'static str, forwarded: f64, local: f64) {
        let column = self.0.iter_mut().find(|column| column.0 == name);
        match column {
            Some(column) => {
                column.2.push(forwarded);
                column.3.push(local);
            }
            None => self.0.push((name, unit, vec![forwarded], vec![local])),
        }
    }

    /// The figures; of latencies also what the forward adds.
    fn figures(self) -> Vec<Figure> {
        let added = |name: &str| match name {
            "forward_pgbench_p50_us" => Some("forward_pgbench_added_us"),
            "forward_redis_p50_us" => Some("forward_redis_added_us"),
            _ => None,
        };
        let mut figures = Vec::new();
        for (name, unit, forwarded, local) in self.0 {
            if let Some(added) = added(name) {
                let more = forwarded.iter().zip(&local).map(|(with, without)| with - without).collect();
                figures.push(Figure::median(added, unit, more));
            }
            figures.push(Figure::median(name, unit, forwarded).compared("the same without it", &local));
        }
        figures
    }
}

/// The way of the only tunnel and how often it has changed, once it is a direct one: the figures are of such.
///
/// # Errors
/// If it stays another.
fn direct_way(deployment: &Deployment<'_>) -> Result<String> {
    let until = Instant::now() + DIRECT_PATIENCE;
    loop {
        let tunnels = deployment.tunnels("dev")?;
        match &tunnels[..] {
            [tunnel] if tunnel["path"]["kind"] == "direct" => {
                let changes = tunnel["history"].as_array().map_or(0, Vec::len);
                return Ok(format!("{} after {changes} changes", tunnel["path"]["address"]));
            }
            _ if Instant::now() > until => {
                return Err(format!("the forward does not go directly: {tunnels:?}"));
            }
            _ => sleep(Duration::from_millis(100)),
        }
    }
}

impl Bench {
    fn start(deployment: &Deployment<'_>, seconds: u32) -> Result<Self> {
        let (postgres, port, data) = postgres(deployment)?;
        let mut running = vec![(postgres, port), redis(deployment)?, iperf(deployment)?];
        let ports: Vec<String> = running.iter().map(|(_, port)| port.clone()).collect();
        let specs: Vec<String> = ports.iter().map(|port| format!("0:{port}")).collect();
        let mut forward = deployment.command()?;
        forward.args(["port-forward", "dev", "-o", "json", "--tcp", &specs.join(",")]);
        let log = deployment.path("port-forward.log");
        let mut forward = Running::start(forward, log.clone())?;
        let said: Value =
            forward.wait("port-forward", || serde_json::from_slice(&std::fs::read(&log).ok()?).ok())?;
        let way = |n: usize| {
            let address = said[n]["local"][0].as_str();
            let forwarded = address.and_then(|address| address.rsplit(':').next());
            let forwarded = forwarded.ok_or_else(|| format!("no port in {said}"))?.to_owned();
            Ok::<_, String>(Ways { local: ports.get(n).cloned().unwrap_or_default(), forwarded })
        };
        let (postgres, redis, iperf) = (way(0)?, way(1)?, way(2)?);
        let mut all: Vec<Running> = running.drain(..).map(|(running, _)| running).collect();
        all.push(forward);
        let folder = deployment.dir().to_owned();
        Ok(Self { seconds: seconds.to_string(), folder, postgres, redis, iperf, _running: all, _data: data })
    }

    fn measure(&self, columns: &mut Columns) -> Result {
        let of = |ways: &Ways, measure: &dyn Fn(&str) -> Result<f64>| {
            Ok::<_, String>((measure(&ways.forwarded)?, measure(&ways.local)?))
        };
        let (with, without) = of(&self.postgres, &|port| self.pgbench(port))?;
        columns.note("forward_pgbench_p50_us", "us", with, without);
        let (with, without) = of(&self.redis, &redis_p50)?;
        columns.note("forward_redis_p50_us", "us", with, without);
        for (name, reverse) in [("forward_upload", false), ("forward_download", true)] {
            let (with, without) = of(&self.iperf, &|port| self.iperf3(port, reverse))?;
            columns.note(name, "Gbit/s", with, without);
        }
        Ok(())
    }

    /// The median time of a transaction that reads one row, in microseconds.
    fn pgbench(&self, port: &str) -> Result<f64> {
        let prefix = self.folder.join(format!("pgbench-{port}"));
        let text = prefix.to_string_lossy();
        let mut bench = Command::new(postgres_program("pgbench")?);
        bench.args([
            "-h",
            "127.0.0.1",
            "-p",
            port,
            "-U",
            "postgres",
            "-n",
            "-S",
            "-M",
            "prepared",
            "-c",
            "1",
        ]);
        bench.args(["-T", &self.seconds, "-l", "--log-prefix", &text, "postgres"]);
        shell::output(bench)?;
        let mut times = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(|e| e.to_string())?.flatten() {
            let path = entry.path();
            if !path.to_string_lossy().starts_with(&format!("{text}.")) {
                continue;
            }
            let log = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
            // Client, transaction, microseconds, ...
            times.extend(log.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()));
            std::fs::remove_file(&path).map_err(|e| e.to_string())?;
        }
        if times.is_empty() {
            Err("pgbench logged no transaction".into())
        } else {
            Ok(percentile(&times, 50))
        }
    }

    fn iperf3(&self, port: &str, reverse: bool) -> Result<f64> {
        let mut report = Value::Null;
        for _ in 0..TRIES {
            let mut client = command("iperf3", &["-c", "127.0.0.1", "-p", port, "-t", &self.seconds, "-J"]);
            client.args(reverse.then_some("-R"));
            let said = client.output().map_err(|e| format!("can't start iperf3: {e}"))?;
            report = serde_json::from_slice(&said.stdout).map_err(|e| e.to_string())?;
            if let Some(bits) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
                return Ok(bits / 1e9);
            }
            // Its server may not have done with the client before.
            sleep(Duration::from_millis(200));
        }
        Err(format!("iperf3 reports no throughput: {report}"))
    }
}

/// The median time of a GET, in microseconds.
fn redis_p50(port: &str) -> Result<f64> {
    let arguments = ["-h", "127.0.0.1", "-p", port, "-c", "1", "-n", REQUESTS, "-t", "get", "--csv"];
    let said = shell::output(command("redis-benchmark", &arguments))?;
    median_of_csv(&said).ok_or_else(|| format!("redis-benchmark reports no latency: {said}"))
}

/// The median of `redis-benchmark --csv`, in microseconds: its columns are named in its first line.
fn median_of_csv(said: &str) -> Option<f64> {
    let mut lines = said.lines().map(|line| line.split(',').map(|cell| cell.trim_matches('"')));
    let column = lines.next()?.position(|cell| cell == "p50_latency_ms")?;
    let millis: f64 = lines.next()?.nth(column)?.parse().ok()?;
    Some(millis * 1e3)
}

fn port() -> Result<String> {
    let address = free_address()?;
    Ok(address.rsplit(':').next().unwrap_or_default().to_owned())
}

/// Waits until somebody listens.
fn up(mut running: Running, what: &str, port: String) -> Result<(Running, String)> {
    running.wait(what, || TcpStream::connect(format!("127.0.0.1:{port}")).ok())?;
    Ok((running, port))
}

/// A program of PostgreSQL's server, which Debian keeps off the usual path.
fn postgres_program(name: &str) -> Result<PathBuf> {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").map_err(|e| format!("PostgreSQL is not there: {e}"))?;
    let programs = versions.flatten().map(|version| version.path().join("bin").join(name));
    programs.filter(|path| path.is_file()).max().ok_or_else(|| format!("PostgreSQL has no {name}"))
}

/// A program of PostgreSQL's as its own user: it does not run as root.
fn as_postgres(name: &str, folder: &Path) -> Result<Command> {
    let program = postgres_program(name)?;
    let mut command = if setup::is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").arg("-D").arg(folder);
    Ok(command)
}

fn postgres(deployment: &Deployment<'_>) -> Result<(Running, String, TempDir)> {
    // The deployment's own folder is for nobody else.
    let kept = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let folder = kept.path();
    if setup::is_root() {
        shell::output(command("chown", &["postgres:", &folder.to_string_lossy()]))?;
    }
    let mut init = as_postgres("initdb", folder)?;
    init.args(["-A", "trust", "-U", "postgres", "--no-sync"]);
    shell::output(init)?;
    let port = port()?;
    let mut server = as_postgres("postgres", folder)?;
    server.args(["-p", &port, "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]);
    let server = Running::start(server, deployment.path("postgres.log"))?;
    let (server, port) = up(server, "postgres", port)?;
    // It listens a moment before it lets anybody in.
    let (pgbench, ready) = (postgres_program("pgbench")?, postgres_program("pg_isready")?);
    let mut server = server;
    server.wait("postgres", || {
        let asked = Command::new(&ready).args(["-q", "-h", "127.0.0.1", "-p", &port]).status();
        asked.ok().filter(std::process::ExitStatus::success)
    })?;
    let mut fill = Command::new(pgbench);
    fill.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-i", "-q", "postgres"]);
    shell::output(fill)?;
    Ok((server, port, kept))
}

fn redis(deployment: &Deployment<'_>) -> Result<(Running, String)> {
    let port = port()?;
    let server = command("redis-server", &["--port", &port, "--bind", "127.0.0.1", "--save", ""]);
    up(Running::start(server, deployment.path("redis.log"))?, "redis-server", port)
}

fn iperf(deployment: &Deployment<'_>) -> Result<(Running, String)> {
    let port = port()?;
    let server = command("iperf3", &["-s", "-B", "127.0.0.1", "-p", &port]);
    up(Running::start(server, deployment.path("iperf3.log"))?, "iperf3", port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_medians_are_read_by_their_name() {
        let said = "\"test\",\"rps\",\"avg_latency_ms\",\"p50_latency_ms\"\n\"GET\",\"5740.53\",\"0.171\",\"0.159\"\n";
        assert_eq!(median_of_csv(said).map(f64::round), Some(159.0));
        assert_eq!(median_of_csv("GET: 5740 requests per second"), None);
    }

    #[test]
    fn what_the_forward_adds_is_told_run_by_run() {
        let mut columns = Columns::default();
        for (with, without) in [(150.0, 50.0), (170.0, 90.0), (180.0, 60.0)] {
            columns.note("forward_redis_p50_us", "us", with, without);
        }
        let figures = columns.figures();
        assert_eq!(
            figures.iter().map(|f| f.name).collect::<Vec<_>>(),
            ["forward_redis_added_us", "forward_redis_p50_us"]
        );
        assert!((figures[0].value - 100.0).abs() < f64::EPSILON);
        assert_eq!(figures[1].ratio, Some(3.0));
    }
}

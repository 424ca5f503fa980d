//! `cargo xtask bench`: what is measured, in one run, on loopback, client and agent as processes of their own;
//! `cargo xtask bench relay`: the relay beside the Go DERP server; `cargo xtask bench forward`: programs through
//! `warren port-forward`, beside themselves without it; `cargo xtask bench ssh`: a command by `warren ssh`, near and far;
//! `cargo xtask bench terminal`: terminals in the browser; `cargo xtask bench apps`: web apps there; `cargo xtask bench
//! dashboard`: its first view.
//! Prints a table and writes `target/bench.json`, where the figures of the other kinds stay as they are.

use crate::setup;
use crate::shell::{self, Result, command};
use ::tests::deployment::{Deployment, Place, Running};
use serde::Serialize;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

mod apps;
mod dashboard;
mod forward;
mod relay;
mod ssh;
mod terminal;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The whole path from a person to a workspace, the relay alone beside the Go DERP server, forwarded
    /// ports, a command's time, terminals in the browser, web apps there, or the dashboard's first view
    #[arg(value_enum, default_value = "path")]
    what: What,
    /// Runs of each throughput measurement; the median is quoted
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of each throughput measurement
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Connections of each latency measurement
    #[arg(long, default_value_t = 50)]
    connects: usize,
}

/// What is measured together.
#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    Path,
    Relay,
    Forward,
    Ssh,
    Terminal,
    Apps,
    Dashboard,
}

/// One figure of `target/bench.json`.
#[derive(Serialize)]
struct Figure {
    name: &'static str,
    /// The median, or for latencies of many connections the 99th percentile as the name's unit says.
    value: f64,
    unit: &'static str,
    /// Every run's value.
    runs: Vec<f64>,
    /// What it is compared with.
    peer: Option<&'static str>,
    /// How many times the peer's value, run by run; the median.
    ratio: Option<f64>,
}

impl Figure {
    fn median(name: &'static str, unit: &'static str, runs: Vec<f64>) -> Self {
        Self { name, value: percentile(&runs, 50), unit, runs, peer: None, ratio: None }
    }

    fn compared(mut self, peer: &'static str, others: &[f64]) -> Self {
        let ratios: Vec<f64> = self.runs.iter().zip(others).map(|(ours, theirs)| ours / theirs).collect();
        self.peer = Some(peer);
        self.ratio = Some(percentile(&ratios, 50));
        self
    }
}

/// Measures.
///
/// # Errors
/// If a program fails, with what it said.
pub(crate) fn run(args: &Args) -> Result {
    setup::install(setup::BENCH)?;
    if let What::Dashboard = args.what {
        dashboard::prepare()?;
    }
    shell::build_for_bench()?;
    let figures = match args.what {
        What::Path => path(args)?,
        What::Relay => relay::run(args.runs, args.seconds)?,
        What::Forward => forward::run(args.runs, args.seconds)?,
        What::Ssh => ssh::run(args.runs)?,
        What::Terminal => terminal::run(args.runs)?,
        What::Apps => apps::run(args.runs, args.seconds)?,
        What::Dashboard => dashboard::run(args.runs)?,
    };

    println!("\n{:<26} {:>10}  {:<12} {:>6}  OF", "NAME", "VALUE", "UNIT", "RATIO");
    for f in &figures {
        let ratio = f.ratio.map_or_else(|| "-".into(), |r| format!("{r:.2}"));
        println!("{:<26} {:>10.2}  {:<12} {ratio:>6}  {}", f.name, f.value, f.unit, f.peer.unwrap_or("-"));
    }
    write(&figures)
}

/// Writes the figures in place of older ones of the same names.
fn write(figures: &[Figure]) -> Result {
    let path = shell::target().join("bench.json");
    let old = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Vec<Value>>(&bytes).ok());
    let is_new = |old: &Value| figures.iter().any(|f| old["name"] == f.name);
    let mut all: Vec<Value> = old.unwrap_or_default().into_iter().filter(|old| !is_new(old)).collect();
    for figure in figures {
        all.push(serde_json::to_value(figure).map_err(|e| e.to_string())?);
    }
    let text = serde_json::to_string_pretty(&all).map_err(|e| e.to_string())?;
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

/// From a person's command to the workspace and back.
fn path(args: &Args) -> Result<Vec<Figure>> {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let mut figures = vec![agent_memory(&agent)?];
    figures.extend(throughput(args, &deployment)?);
    figures.extend(connects(args, &deployment)?);
    figures.push(worlds()?);
    Ok(figures)
}

/// The agent's memory after it has been idle for a while and has had no visitor.
fn agent_memory(agent: &Running) -> Result<Figure> {
    std::thread::sleep(std::time::Duration::from_secs(2));
    let runs = (0..3).map(|_| agent.resident_kib().map(|kib| kib as f64 / 1_024.0)).collect::<Result<_>>()?;
    Ok(Figure::median("agent_idle_mb", "MiB", runs))
}

/// Ours and the kernel's in turns, so that each ratio is of one moment.
fn throughput(args: &Args, deployment: &Deployment<'_>) -> Result<Vec<Figure>> {
    let seconds = args.seconds.to_string();
    let (mut direct, mut relayed, mut kernel) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=args.runs {
        println!("throughput, run {run} of {}", args.runs);
        direct.push(speedtest(deployment, &["--direct", "--time", &seconds])?);
        kernel.push(iperf3(&seconds)?);
        relayed.push(speedtest(deployment, &["--disable-direct-connections", "--time", &seconds])?);
    }
    Ok(vec![
        Figure::median("direct_download", "Gbit/s", direct).compared("kernel TCP (cubic)", &kernel),
        Figure::median("relayed_download", "Gbit/s", relayed).compared("kernel TCP (cubic)", &kernel),
        Figure::median("kernel_tcp", "Gbit/s", kernel),
    ])
}

fn speedtest(deployment: &Deployment<'_>, arguments: &[&str]) -> Result<f64> {
    let report = deployment.json(&[&["speedtest", "dev"], arguments].concat())?;
    let wanted = if arguments.contains(&"--direct") { "direct" } else { "relay" };
    let path = report["path"].as_str().unwrap_or_default();
    if !path.starts_with(wanted) {
        return Err(format!("the speed test was to go {wanted} and went {path}"));
    }
    let bits = report["total"]["bits_per_second"].as_f64().ok_or_else(|| format!("no total in {report}"))?;
    Ok(bits / 1e9)
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn iperf3(seconds: &str) -> Result<f64> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
    let port = port.port().to_string();
    let server = Command::new("iperf3")
        .args(["-s", "-1", "-B", "127.0.0.1", "-p", &port, "--forceflush"])
        .stdout(Stdio::piped())
        .spawn();
    let mut server = Server(server.map_err(|e| format!("can't start iperf3: {e}"))?);
    let said = server.0.stdout.take().ok_or("iperf3 has no stdout")?;
    let listening =
        BufReader::new(said).lines().map_while(std::result::Result::ok).any(|l| l.contains("listening"));
    if !listening {
        return Err("iperf3's server did not come up".into());
    }
    let client = ["-c", "127.0.0.1", "-p", &port, "-t", seconds, "-C", "cubic", "-R", "-J"];
    let report: Value =
        serde_json::from_str(&shell::output(command("iperf3", &client))?).map_err(|e| e.to_string())?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.ok_or("iperf3 reports no throughput")? / 1e9)
}

/// New processes, one after the other: the first pong through the relay, and the moment of going direct.
fn connects(args: &Args, deployment: &Deployment<'_>) -> Result<Vec<Figure>> {
    println!("first bytes and direct paths, {} connections each", args.connects);
    let (mut first, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..args.connects {
        first.push(first_line_ms(
            deployment,
            &["ping", "dev", "--count", "1", "--disable-direct-connections"],
        )?);
        let report = deployment.json(&["ping", "dev", "--until-direct"])?;
        direct.push(report["direct_after_ms"].as_f64().ok_or_else(|| format!("never direct: {report}"))?);
    }
    let p99 = |name, runs: Vec<f64>| Figure {
        value: percentile(&runs, 99),
        ..Figure::median(name, "ms (p99)", runs)
    };
    Ok(vec![
        Figure::median("first_byte_ms", "ms", first.clone()),
        p99("first_byte_p99_ms", first),
        Figure::median("time_to_direct_p50_ms", "ms", direct.clone()),
        p99("time_to_direct_ms", direct),
    ])
}

/// Milliseconds from the start of the process to the first line of its result.
fn first_line_ms(deployment: &Deployment<'_>, arguments: &[&str]) -> Result<f64> {
    let mut command = deployment.command()?;
    let began = Instant::now();
    let child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|e| format!("can't start warren: {e}"))?;
    let stdout = child.stdout.take().ok_or("warren has no stdout")?;
    let pong =
        BufReader::new(stdout).lines().map_while(std::result::Result::ok).find(|l| l.starts_with("pong"));
    let took = began.elapsed();
    let _ = child.wait();
    pong.map(|_| took.as_secs_f64() * 1e3)
        .ok_or_else(|| format!("no pong from warren {}", arguments.join(" ")))
}

/// Worlds of 60 simulated seconds a minute, on one core: the core matrix, every pair of networks alike.
fn worlds() -> Result<Figure> {
    println!("simulated worlds");
    let mut runs = Vec::new();
    for first in [0, 1_000, 2_000] {
        let first = first.to_string();
        let matrix = ["matrix", "--seeds", &SEEDS.to_string(), "--secs", "60", "--first", &first];
        let began = Instant::now();
        shell::output(command(shell::program("sim"), &matrix))?;
        runs.push(f64::from(CELLS * SEEDS) / began.elapsed().as_secs_f64() * 60.0);
    }
    Ok(Figure::median("worlds_per_minute", "worlds/min", runs))
}

/// Pairs of networks in the core matrix.
const CELLS: u32 = 36;
/// Worlds a pair in one run: enough that the program's start does not count.
const SEEDS: u32 = 10;

/// The value below which `percent` of the runs lie (nearest rank).
fn percentile(runs: &[f64], percent: usize) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let runs = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert!((percentile(&runs, 50) - 3.0).abs() < f64::EPSILON);
        assert!((percentile(&runs, 99) - 5.0).abs() < f64::EPSILON);
    }
}

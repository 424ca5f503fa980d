//! `sim run | replay | swarm | matrix | scorecard | lab | list`.

use clap::{Parser, Subcommand};
use sim::oracle::Outcome;
use sim::scenarios;
use sim::scorecard::{self, Card};
use sim::step::Scenario;
use sim::swarm;
use sim::topology::Network;
use sim::turmoil::{matrix as lab_matrix, scenarios as labs};
use sim::world::{Verdict, World};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Warren's simulator: whole deployments without a clock, from one seed.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one world and prints what it came to.
    Run(One),
    /// As `run`, with everything that happened.
    Replay(One),
    /// Runs worlds whose networks and faults their seeds draw.
    Swarm(Swarm),
    /// Runs every pair of the core networks and prints who went direct.
    Matrix {
        /// Worlds a cell.
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Lost packets in a thousand, each way of every link.
        #[arg(long, default_value_t = 0)]
        loss: u32,
        /// Simulated seconds a world.
        #[arg(long, default_value_t = 30)]
        secs: u64,
    },
    /// Measures which pairs of networks go direct, how fast and at what cost; prints a table.
    Scorecard(Scorecard),
    /// Runs a scenario of lane 2: the production drivers on turmoil's network.
    Lab(Lab),
    /// Names the scenarios of both lanes.
    List,
}

#[derive(clap::Args)]
struct One {
    /// Everything random comes from it.
    #[arg(long)]
    seed: u64,
    /// A scenario of the list, or two networks, such as `symmetric+port-restricted`.
    #[arg(long, default_value = "port-restricted+port-restricted")]
    scenario: String,
    /// Print only the trace's hash.
    #[arg(long)]
    hash: bool,
}

#[derive(clap::Args)]
struct Swarm {
    /// Worlds; without limit if only minutes are given.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// Minutes after which no new world begins; instead of a number of worlds.
    #[arg(long, conflicts_with = "seeds")]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Scorecard {
    /// Worlds a pair.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Lost packets in a thousand, one way between the two ends; several for several tables.
    #[arg(long, default_value = "0", value_delimiter = ',')]
    loss: Vec<u32>,
    /// One pair alone, such as `port-restricted+symmetric-random`.
    #[arg(long)]
    pair: Option<String>,
    /// The few networks that every change is compared by, instead of all.
    #[arg(long)]
    small: bool,
    /// Worlds for each kind of fault; without it faults are not measured.
    #[arg(long)]
    faults: Option<u64>,
    /// No pairs, faults alone.
    #[arg(long, requires = "faults")]
    no_pairs: bool,
    /// Writes scorecard.json and index.html into this folder.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Fails if anything is worse than in this scorecard.json.
    #[arg(long)]
    kept: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Lab {
    /// Everything random comes from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A scenario of the list, or two networks of the scorecard, such as `symmetric-random+port-restricted`; the whole
    /// list if none is given.
    #[arg(long)]
    scenario: Option<String>,
    /// Print only the trace's hash.
    #[arg(long)]
    hash: bool,
    /// Print what happened last.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(one) => run(&one, false),
        Command::Replay(one) => run(&one, true),
        Command::Swarm(wanted) => run_swarm(&wanted),
        Command::Matrix { seeds, first, loss, secs } => matrix(seeds, first, loss, secs),
        Command::Scorecard(wanted) => match measure(&wanted) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                complain(&why);
                ExitCode::FAILURE
            }
        },
        Command::Lab(lab) => run_lab(&lab),
        Command::List => {
            let worlds = scenarios::all().iter().map(|s| s.name.to_string());
            let labs = labs::ALL.iter().map(|s| format!("lab {}", s.name));
            say(&worlds.chain(labs).collect::<Vec<_>>().join("\n"));
            ExitCode::SUCCESS
        }
    }
}

fn run(one: &One, text: bool) -> ExitCode {
    let scenario = match scenarios::find(&one.scenario, one.seed) {
        Ok(scenario) => scenario,
        Err(why) => {
            complain(&why);
            return ExitCode::from(4);
        }
    };
    let verdict = World::new(scenario, text).run();
    if one.hash {
        say(&format!("{:016x}", verdict.trace.hash()));
        return ExitCode::SUCCESS;
    }
    if text {
        say(&verdict.trace.to_string());
    }
    say(&verdict.to_string());
    match verdict.check() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(why.lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

fn run_swarm(wanted: &Swarm) -> ExitCode {
    let began = Instant::now();
    let end = wanted.minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
    let seeds = if end.is_some() { u64::MAX } else { wanted.seeds };
    let report = swarm::run(swarm::Size { first: wanted.first, seeds, end });
    if wanted.json {
        say(&serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        let secs = began.elapsed().as_secs_f64().max(0.001);
        say(&format!(
            "{} worlds, {:.0} a second, {} failed",
            report.worlds,
            report.worlds as f64 / secs,
            report.failed
        ));
        for (what, count) in report.outcomes.iter().chain(&report.bites).chain(&report.marks) {
            say(&format!("{count:>12} {what}"));
        }
    }
    for (seed, why) in &report.failures {
        complain(&format!("seed {seed}: {why}"));
    }
    if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_lab(lab: &Lab) -> ExitCode {
    let wanted = lab.scenario.as_deref();
    let mut results = Vec::new();
    for scenario in labs::ALL.iter().filter(|s| wanted.is_none_or(|name| name == s.name)) {
        results.push((scenario.name.to_owned(), labs::run(scenario, lab.seed, lab.trace)));
    }
    if let Some(name) = wanted.filter(|_| results.is_empty()) {
        let pair = lab_matrix::Pair::named(name);
        results.push((name.to_owned(), pair.and_then(|pair| lab_matrix::run(&pair, lab.seed, lab.trace))));
    }
    let failed = results.iter().any(|(_, result)| result.is_err());
    for (name, result) in results {
        match result {
            Ok(verdict) if lab.hash => say(&format!("{:016x}", verdict.hash.0)),
            Ok(verdict) => say(format!("{}\nok   {name}\n  {verdict}", verdict.tail).trim_start()),
            Err(why) => complain(&format!("FAIL {name}: {why}")),
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// How a cell came out.
#[derive(Default)]
struct Cell {
    direct: u64,
    failed: Vec<Verdict>,
    expected: Option<Outcome>,
}

fn matrix(seeds: u64, first: u64, loss: u32, secs: u64) -> ExitCode {
    let mut out = format!("{:<20}", "");
    for b in Network::CORE {
        out += &format!("{b:>20}");
    }
    let mut failed = Vec::new();
    for a in Network::CORE {
        out += &format!("\n{a:<20}");
        for b in Network::CORE {
            let mut cell = Cell::default();
            for seed in first..first + seeds {
                let verdict = World::new(Scenario::pair(seed, a, b).losing(loss).until(secs), false).run();
                cell.expected = verdict.expected;
                cell.direct += u64::from(verdict.direct == [Some(true); 2]);
                if verdict.check_echo(20).is_err() {
                    cell.failed.push(verdict);
                }
            }
            let letter = if cell.expected == Some(Outcome::Direct) { "D" } else { "R" };
            let wrong =
                if cell.failed.is_empty() { String::new() } else { format!(" !{}", cell.failed.len()) };
            out += &format!("{:>20}", format!("{letter} {}/{seeds}{wrong}", cell.direct));
            failed.extend(cell.failed.into_iter().take(1));
        }
    }
    say(&out);
    for verdict in &failed {
        complain(&verdict.check_echo(20).err().unwrap_or_default());
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(wanted: &Scorecard) -> Result<(), String> {
    let mut pairs = Vec::new();
    for permille in &wanted.loss {
        let loss_ppm = permille * 1_000;
        pairs.extend(match wanted.pair.as_ref().map(|pair| pair.split_once('+').ok_or(pair)) {
            Some(Ok((a, b))) => {
                let (a, b) = (scorecard::find(a)?, scorecard::find(b)?);
                vec![scorecard::Pair { a, b, loss_ppm, seeds: wanted.seeds }]
            }
            Some(Err(pair)) => return Err(format!("\"{pair}\" is no pair, such as open+symmetric-random")),
            None if wanted.small => scorecard::pairs(&scorecard::small(), loss_ppm, wanted.seeds),
            None => scorecard::pairs(&scorecard::all(), loss_ppm, wanted.seeds),
        });
    }
    if wanted.no_pairs {
        pairs.clear();
    }
    let mut card = Card::measure(&pairs);
    card.faults = wanted.faults.map_or_else(Vec::new, scorecard::faults::measure);
    for cell in &card.cells {
        let times = cell.time_to_direct_ms.map_or("-".to_owned(), |t| {
            format!("p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms", t.p50, t.p95, t.p99)
        });
        say(&format!(
            "{:<48} {:>4.1} % loss {:>5.1} % direct, {times}, probes {} / {}, {:.0} % right",
            format!("{}+{}", cell.a, cell.b),
            100.0 * cell.loss,
            100.0 * cell.direct_share,
            cell.probes.p50,
            cell.probes.p99,
            100.0 * cell.verdict_right_share,
        ));
    }
    if !card.cells.is_empty() {
        let right = 100.0 * card.verdicts_right();
        say(&format!("{} pairs; {right:.1} % of verdicts are right", card.cells.len()));
    }
    if let Some(population) = &card.population {
        let shares = [population.direct_share, population.possible_share].map(|share| 100.0 * share);
        say(&format!("weighted by population: {:.1} % direct, {:.1} % possible", shares[0], shares[1]));
    }
    for row in &card.faults {
        let bound = row.bound_ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
        let direct = row.direct_ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
        say(&format!(
            "{:<28} {:>4} worlds: gap p50 {:>5.0} ms, p99 {:>5.0} ms (at most {bound}), {} lost, {:.0} % direct after p99 {direct}, \
             at most {} switches, {} bites, {} violated",
            row.fault,
            row.seeds,
            row.gap_ms.p50,
            row.gap_ms.p99,
            row.lost,
            100.0 * row.direct_share,
            row.switches,
            row.bites,
            row.violated,
        ));
    }
    if let Some(folder) = &wanted.out {
        let json = serde_json::to_string_pretty(&card).map_err(|e| e.to_string())?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
        };
        std::fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        write("scorecard.json", &(json + "\n"))?;
        write("index.html", &scorecard::page(&card))?;
    }
    let Some(kept) = &wanted.kept else { return Ok(()) };
    let text = std::fs::read_to_string(kept).map_err(|e| format!("cannot read {}: {e}", kept.display()))?;
    let kept: Card = serde_json::from_str(&text).map_err(|e| format!("that is no scorecard: {e}"))?;
    let worse = scorecard::regressions(&kept, &card);
    if worse.is_empty() { Ok(()) } else { Err(worse.join("\n")) }
}

fn say(text: &str) {
    // A closed pipe is the reader's wish, not a failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

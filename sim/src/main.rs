//! `sim run | replay | matrix | lab | list`.

use clap::{Parser, Subcommand};
use sim::oracle::Outcome;
use sim::scenarios;
use sim::step::Scenario;
use sim::topology::Network;
use sim::turmoil::scenarios as labs;
use sim::world::{Verdict, World};
use std::io::Write;
use std::process::ExitCode;

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
struct Lab {
    /// Everything random comes from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A scenario of the list; all if none is given.
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
        Command::Matrix { seeds, first, loss, secs } => matrix(seeds, first, loss, secs),
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

fn run_lab(lab: &Lab) -> ExitCode {
    let mut failed = false;
    for scenario in labs::ALL.iter().filter(|s| lab.scenario.as_deref().is_none_or(|name| name == s.name)) {
        let result = labs::run(scenario, lab.seed, lab.trace);
        failed |= result.is_err();
        match result {
            Ok(verdict) if lab.hash => say(&format!("{:016x}", verdict.hash.0)),
            Ok(verdict) => say(format!("{}\nok   {}\n  {verdict}", verdict.tail, scenario.name).trim_start()),
            Err(why) => complain(&format!("FAIL {}: {why}", scenario.name)),
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

fn say(text: &str) {
    // A closed pipe is the reader's wish, not a failure.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

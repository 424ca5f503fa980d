//! Warren's own tasks: set-up, demo, tests and benchmarks by one command each.
//!
//! `cargo xtask demo | test | bench | api | scorecard | man`. Each installs what a fresh Debian machine with Rust and root lacks.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task runner talks to a person")]

mod api;
mod bench;
mod browser;
mod demo;
mod man;
mod scorecard;
mod setup;
mod shell;
mod test;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, demo, tests and benchmarks of Warren")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything, start a server and an agent, and reach the workspace: relayed, then direct
    Demo(demo::Args),
    /// Run every check and every test
    Test(test::Args),
    /// Measure; prints a table and writes target/bench.json
    Bench(bench::Args),
    /// Ask the API for what its description makes possible, with schemathesis
    Api(api::Args),
    /// Simulate every pair of networks; writes target/scorecard/scorecard.json and index.html
    Scorecard(scorecard::Args),
    /// Write the programs' man pages and completion scripts, for packages
    Man(man::Args),
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Api(args) => api::run(&args),
        Task::Scorecard(args) => scorecard::run(&args),
        Task::Man(args) => man::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

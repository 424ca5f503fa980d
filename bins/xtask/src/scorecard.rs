//! `cargo xtask scorecard`: which pairs of networks go direct, how fast, how right the explanations are, and what faults
//! do to a session.

use crate::shell::{self, Result, command};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Worlds a pair
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Lost packets in a thousand, one way; several for several tables
    #[arg(long, default_value = "0")]
    loss: String,
    /// The few networks that every change is compared by, instead of all
    #[arg(long)]
    small: bool,
    /// Worlds for each kind of fault
    #[arg(long, default_value_t = 300)]
    faults: u64,
}

/// Measures and writes target/scorecard.
///
/// # Errors
/// If the simulator cannot be built, or fails.
pub(crate) fn run(args: &Args) -> Result {
    shell::run(command("cargo", &["build", "--workspace", "--bins", "--quiet"]))?;
    let folder = shell::target().join("scorecard");
    let mut sim = command(shell::program("sim"), &["scorecard", "--loss", &args.loss]);
    sim.arg("--seeds").arg(args.seeds.to_string()).arg("--out").arg(&folder);
    sim.arg("--faults").arg(args.faults.to_string());
    if args.small {
        sim.arg("--small");
    }
    shell::run(sim)?;
    println!("{}", folder.join("index.html").display());
    Ok(())
}

//! `cargo xtask demo`: the whole path, for somebody who sees Warren for the first time.

use crate::shell::{self, Result};
use ::tests::deployment::{Deployment, Place};
use std::io::IsTerminal;
use std::process::Stdio;

/// How to show it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds of each speed test
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Stop everything at the end, even on a terminal
    #[arg(long)]
    once: bool,
}

/// Builds, starts a server and an agent, and reaches the workspace.
///
/// # Errors
/// If a step fails, with what it said.
pub(crate) fn run(args: &Args) -> Result {
    println!("Building the programs (the first time takes some minutes)...");
    shell::build_programs()?;

    println!("\n$ warren-server");
    let deployment = Deployment::start(Place::Here, &[])?;
    println!("The server runs at {}; its files are in {}", deployment.url(), deployment.dir().display());

    println!("\n$ warren workspaces create dev");
    let token = deployment.create_workspace("dev")?;
    println!("\n$ warren-agent --url {}", deployment.url());
    let agent = deployment.start_agent("dev", &token)?;
    println!("The agent is connected.");

    let seconds = args.seconds.to_string();
    show(&deployment, &["ping", "dev", "--count", "2", "--disable-direct-connections"])?;
    show(&deployment, &["ping", "dev", "--until-direct"])?;
    show(&deployment, &["speedtest", "dev", "--disable-direct-connections", "--time", &seconds])?;
    show(&deployment, &["speedtest", "dev", "--direct", "--time", &seconds])?;
    show(&deployment, &["status"])?;

    println!("\nThe server's address: {}", deployment.url());
    if std::io::stdin().is_terminal() && !args.once {
        println!("It goes on until you press Enter. To use it yourself:");
        println!(
            "  {} --config-dir {} ping dev",
            shell::program("warren").display(),
            deployment.path("config").display()
        );
        let _ = std::io::stdin().read_line(&mut String::new());
    }
    drop(agent);
    Ok(())
}

/// Runs the command line as a person would, on the person's own terminal.
fn show(deployment: &Deployment<'_>, arguments: &[&str]) -> Result {
    println!("\n$ warren {}", arguments.join(" "));
    let mut command = deployment.command()?;
    command.args(arguments).stdin(Stdio::null());
    shell::run(command)
}

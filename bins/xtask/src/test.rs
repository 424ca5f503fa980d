//! `cargo xtask test`: every check and every test, each step with its time, and one line at the end.

use crate::setup;
use crate::shell::{self, Result, command};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Which part to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the steps whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Leave out what is slow or needs root
    #[arg(long)]
    pub(crate) fast: bool,
}

/// How many tests did what.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

struct Step {
    name: &'static str,
    run: fn(&Args, &mut Tally) -> Result,
}

const STEPS: &[Step] = &[
    Step { name: "format", run: |_, _| shell::run(command("cargo", &["fmt", "--all", "--check"])) },
    Step { name: "tests", run: tests },
    Step { name: "browser", run: crate::browser::run },
    Step { name: "API", run: |args, tally| crate::api::step(args.fast, tally) },
    Step { name: "ts_derp", run: ts_derp },
    Step { name: "fuzz targets", run: |args, _| fuzz_targets(args) },
    Step { name: "documentation examples", run: examples },
    Step { name: "lint", run: |_, _| lint() },
    Step { name: "documentation", run: |_, _| documentation() },
];

/// Test programs that take minutes, not seconds: left out by `--fast`.
const SLOW: &[&str] = &[
    "capture",
    "command_line",
    "interception",
    "kernel_twin",
    "labs",
    "matrix",
    "measures",
    "nat_lab",
    "openssh",
    "port_forward",
    "port_mapping",
    "programs",
    "proxies",
    "relay_payloads",
    "stun_clients",
    "swarm",
    "tailscale",
    "tools",
    "words",
    "worlds",
];

/// A test program that has not ended by then hangs: the slowest takes three minutes on two cores.
const TEST_TIMEOUT: Duration = Duration::from_secs(900);

/// Runs the steps.
///
/// # Errors
/// If a check fails or a test does not pass.
pub(crate) fn run(args: &Args) -> Result {
    if !args.fast {
        setup::install(setup::NAT_LAB)?;
        setup::install(setup::PROXIES)?;
        setup::install(setup::STUN_CLIENTS)?;
        setup::install(setup::OPENSSH)?;
        setup::install(setup::READERS)?;
        setup::install(setup::COMMAND_LINE)?;
        setup::install(setup::FORWARDING)?;
        setup::install(setup::BROWSER)?;
        setup::grpc()?;
        setup::tailscale()?;
        if !setup::is_root() {
            return Err("the tests in network namespaces need root\n\
                        hint: run `cargo xtask test` as root, or `cargo xtask test --fast` without them"
                .into());
        }
    }
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    let mut times = Vec::new();
    for step in STEPS {
        if args.only.as_ref().is_some_and(|only| !step.name.contains(only.as_str())) {
            continue;
        }
        println!("\n=== {}", step.name);
        let began = Instant::now();
        if let Err(error) = (step.run)(args, &mut tally) {
            println!("{error}");
            broken.push(step.name);
        }
        times.push((step.name, began.elapsed()));
    }
    println!("\n=== time of each step");
    for (name, time) in times {
        println!("{:>7.1} s  {name}", time.as_secs_f64());
    }
    println!("{:>7.1} s  all", start.elapsed().as_secs_f64());
    if tally.ignored > 0 {
        broken.push("tests were ignored");
    }
    // A failed check counts as one failed test, so that the last line alone tells how it went.
    println!("{} passed, {} failed", tally.passed, tally.failed.max(broken.len() as u64));
    if broken.is_empty() { Ok(()) } else { Err(format!("failed: {}", broken.join(", "))) }
}

fn lint() -> Result {
    shell::run(command(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"],
    ))
}

fn documentation() -> Result {
    let mut doc =
        command("cargo", &["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    shell::run(doc)
}

/// Builds everything once and runs each test program by itself, with its time. Always the whole workspace:
/// a build of one package alone picks other features of the dependencies and builds them anew.
fn tests(args: &Args, tally: &mut Tally) -> Result {
    shell::run(command("cargo", &["build", "--workspace", "--bins", "--quiet"]))?;
    let built = shell::output(command(
        "cargo",
        &["test", "--workspace", "--no-run", "--quiet", "--message-format=json-render-diagnostics"],
    ))?;
    let programs: Vec<TestProgram> = built.lines().filter_map(TestProgram::parse).collect();
    let mut times = Vec::new();
    let mut failed = Vec::new();
    for program in &programs {
        if args.fast && SLOW.contains(&program.target.as_str()) {
            continue;
        }
        println!("\n--- {} {}", program.package, program.target);
        let began = Instant::now();
        let mut test = Command::new(&program.executable);
        test.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
        if let Err(error) = counted(test, tally) {
            println!("{error}\nreplay: cargo test --workspace --test {} (or --lib/--bins)", program.target);
            failed.push(format!("{} {}", program.package, program.target));
        }
        times.push((began.elapsed(), program));
    }
    times.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    println!("\n--- slowest test programs");
    for (time, program) in times.iter().take(8) {
        println!("{:>7.1} s  {} {}", time.as_secs_f64(), program.package, program.target);
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// One test program, as cargo tells it.
struct TestProgram {
    package: String,
    target: String,
    folder: PathBuf,
    executable: PathBuf,
}

impl TestProgram {
    fn parse(line: &str) -> Option<Self> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
        Some(Self {
            package: folder.file_name()?.to_string_lossy().into_owned(),
            target: message["target"]["name"].as_str()?.to_owned(),
            folder,
            executable: PathBuf::from(message["executable"].as_str()?),
        })
    }
}

fn examples(_: &Args, tally: &mut Tally) -> Result {
    counted(command("cargo", &["test", "--workspace", "--doc", "--quiet"]), tally)
}

/// Tailscale's Rust client on our relay: in a workspace of its own, and so in a build of its own.
fn ts_derp(args: &Args, tally: &mut Tally) -> Result {
    if args.fast {
        return Ok(());
    }
    shell::run(command("cargo", &["build", "--workspace", "--bins", "--quiet"]))?;
    counted(elsewhere("ts_derp", &["test", "--locked", "--quiet"]), tally)
}

/// That the fuzz targets can be built: cargo-fuzz does so only when somebody searches.
fn fuzz_targets(args: &Args) -> Result {
    if args.fast {
        return Ok(());
    }
    shell::run(elsewhere("fuzz", &["check", "--locked", "--quiet"]))
}

/// cargo in one of the workspaces under tests/, with its artifacts beside ours.
fn elsewhere(workspace: &str, arguments: &[&str]) -> Command {
    let mut cargo = command("cargo", arguments);
    cargo.current_dir(shell::root().join("tests").join(workspace));
    cargo.env("CARGO_TARGET_DIR", shell::target().join(workspace));
    cargo
}

/// Runs tests, shows what they print and adds up their result lines.
pub(crate) fn counted(mut test: Command, tally: &mut Tally) -> Result {
    let mut child = test.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot start a test: {e}"))?;
    let stdout = child.stdout.take().ok_or("a test has no stdout")?;
    let ended = Arc::new(AtomicBool::new(false));
    let watch = watchdog(child.id(), Arc::clone(&ended));
    let mut results = 0;
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { break };
        println!("{line}");
        if let Some(counts) = line.strip_prefix("test result: ") {
            results += 1;
            tally.passed += number_before(counts, " passed");
            tally.failed += number_before(counts, " failed");
            tally.ignored += number_before(counts, " ignored");
        }
        // The closing lines of node's runner.
        if let Some(count) = number_after(&line, "# pass ") {
            results += 1;
            tally.passed += count;
        }
        tally.failed += number_after(&line, "# fail ").or(number_after(&line, "# cancelled ")).unwrap_or(0);
        tally.ignored += number_after(&line, "# skipped ").or(number_after(&line, "# todo ")).unwrap_or(0);
    }
    let status = child.wait().map_err(|e| format!("cannot wait for a test: {e}"))?;
    ended.store(true, Ordering::Relaxed);
    watch.thread().unpark();
    let _ = watch.join();
    if !status.success() {
        return Err(format!("failed ({status})"));
    }
    if results == 0 { Err("no test ran".into()) } else { Ok(()) }
}

/// Kills a test program that hangs.
fn watchdog(process: u32, ended: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while !ended.load(Ordering::Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                println!("no end after {} s: killed", TEST_TIMEOUT.as_secs());
                let _ = Command::new("kill").args(["-9", &process.to_string()]).status();
                return;
            }
            std::thread::park_timeout(left);
        }
    })
}

fn number_after(line: &str, word: &str) -> Option<u64> {
    line.strip_prefix(word)?.trim().parse().ok()
}

fn number_before(text: &str, word: &str) -> u64 {
    let Some(end) = text.find(word) else { return 0 };
    text[..end].rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{number_after, number_before};

    #[test]
    fn the_lines_of_nodes_runner_are_counted() {
        assert_eq!(number_after("# pass 7", "# pass "), Some(7));
        assert_eq!(number_after("# password: 7", "# pass "), None);
    }

    #[test]
    fn result_lines_are_counted() {
        let line = "FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(number_before(line, " passed"), 12);
        assert_eq!(number_before(line, " failed"), 3);
        assert_eq!(number_before(line, " ignored"), 1);
        assert_eq!(number_before(line, " absent"), 0);
    }
}

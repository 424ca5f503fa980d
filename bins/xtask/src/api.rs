//! The API against schemathesis: requests made up from the description that the server itself publishes.

use crate::setup;
use crate::shell::{self, Result, command};
use crate::test::Tally;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tests::deployment::{Deployment, Place};

/// Seconds for everything that is asked with and without a session: enough for more than five thousand requests, and
/// what a run of all tests can spare. 120 s are enough for more than ten thousand.
const SECONDS: u64 = 40;
/// The same requests in every run. A fault found by another seed gets a test of its own.
const SEED: u64 = 1;

/// What would end the session that asks, take the owner's password away, or never end.
const LEFT_OUT: &[&str] = &["/logout", "/me/password", "/events"];

/// What an answer may not be: a fault of the server, or something else than its description says.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance,unsupported_method";

/// How long and from which seed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to make requests up, in seconds
    #[arg(long, default_value_t = SECONDS)]
    seconds: u64,
    /// Where they begin
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

/// The step of `cargo xtask test`.
///
/// # Errors
/// If an answer is not as described.
pub(crate) fn step(fast: bool, tally: &mut Tally) -> Result {
    if fast {
        return Ok(());
    }
    run(&Args { seconds: SECONDS, seed: SEED })?;
    tally.passed += 2;
    Ok(())
}

/// Asks as the owner, and then as nobody.
///
/// # Errors
/// If an answer is not as described.
pub(crate) fn run(args: &Args) -> Result {
    let program = setup::schemathesis()?;
    shell::run(command("cargo", &["build", "--workspace", "--bins", "--quiet"]))?;
    let owner = Deployment::start(Place::Here, &["--api-rate-limit", "0"])?;
    let token = owner.create_workspace("dev")?;
    let _agent = owner.start_agent("dev", &token)?;
    let token = session(&owner.path("config"))?;
    let here = shell::root().join("bins/xtask/src/api");
    let mut asked = 0;
    // Without any token, schemathesis would try to sign itself up, which nobody can.
    for (who, bearer) in [("the owner", token.as_str()), ("nobody", "nobody")] {
        let report = owner.path("api.ndjson");
        let mut asking = Command::new(&program);
        asking.arg("--config-file").arg(here.join("schemathesis.toml"));
        asking.arg("--no-color").arg("run").arg(format!("{}/api/openapi.json", owner.url()));
        asking.args(["--seed", &args.seed.to_string(), "--max-time", &(args.seconds / 2).max(1).to_string()]);
        asking.args(["--checks", CHECKS, "--request-timeout", "10", "--no-shrink"]);
        asking.args(["--suppress-health-check", "all", "--warnings", "off", "--generation-database", "none"]);
        asking.arg("--report-ndjson-path").arg(&report);
        asking.args(["--header", &format!("Authorization: Bearer {bearer}")]);
        if bearer == token {
            asking.env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", &here);
            asking.env("PYTHONDONTWRITEBYTECODE", "1");
            asking.env("WARREN_TOKEN", &token).env("WARREN_URL", owner.url());
        }
        LEFT_OUT.iter().for_each(|path| _ = asking.args(["--exclude-path", path]));
        println!("as {who}:");
        // What it finds is in its own words; nothing else of the run is of use.
        let output = asking.current_dir(owner.dir()).output().map_err(|e| format!("schemathesis: {e}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let server = owner.server().map(|server| server.log()).unwrap_or_default();
            return Err(format!("as {who}:\n{said}\n{}\n{server}", String::from_utf8_lossy(&output.stderr)));
        }
        asked += requests(&report)?;
    }
    // Else most were refused, and nothing was tried.
    owner
        .json(&["workspaces", "list"])
        .map_err(|e| format!("the owner's session has ended under way: {e}"))?;
    println!("{asked} requests, every answer as described");
    Ok(())
}

/// The owner's session, as the command line keeps it.
fn session(config: &Path) -> Result<String> {
    let path = config.join("session.json");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let document: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    found(&document).ok_or_else(|| format!("{} holds no session", path.display()))
}

fn found(document: &Value) -> Option<String> {
    match document {
        Value::String(text) => text.starts_with("warren_session_").then(|| text.clone()),
        Value::Array(all) => all.iter().find_map(found),
        Value::Object(all) => all.values().find_map(found),
        _ => None,
    }
}

/// How many requests the report tells of.
fn requests(report: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(report).map_err(|e| format!("{}: {e}", report.display()))?;
    Ok(text.matches("\"status_code\":").count() as u64)
}

//! gRPC through the server, by grpcio at both ends: HTTP/2 without TLS in the workspace, trailers and all.

use crate::http2::authority::Authority;
use crate::{PASSWORD, WILDCARD, words};
use serde_json::json;
use std::process::{Command, Stdio};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/web_apps/grpc_echo.py");

fn python(arguments: &[&str]) -> Command {
    // Debian's own, which its packages are for.
    let mut python = Command::new("/usr/bin/python3");
    // What it says of proxies is not for here.
    python.arg(SCRIPT).args(arguments).env_remove("https_proxy").env_remove("http_proxy");
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_with_its_trailers_and_streams() -> Result {
    let authority = Authority::new()?;
    authority.renew(&["127.0.0.1", "*.apps.localhost"])?;
    let [certificate, key] = authority.identity();
    let arguments = ["--tls-address", "127.0.0.1:0", "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let arguments = [&arguments[..], &WILDCARD].concat();
    let deployment = Deployment::start_trusting(Place::Here, &arguments, Some(&authority.roots()))?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let log = deployment.path("grpc.log");
    let mut service = Running::start(python(&["serve"]), log.clone())?;
    let said = || std::fs::read_to_string(&log).ok()?.trim().parse::<u16>().ok();
    let port = service.wait("the gRPC server", said)?;

    let (server, roots) = (deployment.url(), authority.roots().display().to_string());
    let curl = |arguments: &[&str]| -> Result<serde_json::Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--cacert", &roots]).args(arguments).stderr(Stdio::inherit());
        let out = curl.output().map_err(words)?;
        serde_json::from_slice(&out.stdout).map_err(|e| format!("{e}: {out:?}"))
    };
    let login = json!({ "username": "alice", "password": PASSWORD }).to_string();
    let granted = curl(&["--json", &login, &format!("{server}/api/v1/login")])?;
    let token = granted["token"].as_str().ok_or("no token")?;
    let bearer = format!("Authorization: Bearer {token}");
    let app = json!({ "port": port }).to_string();
    let api = format!("{server}/api/v1/workspaces/me/dev/apps/grpc");
    let made = curl(&["-X", "PUT", "-H", &bearer, "--json", &app, &api])?;
    let target =
        made["url"].as_str().and_then(|url| url.split('/').nth(2)).ok_or_else(|| made.to_string())?;

    let address = server.split('/').nth(2).ok_or("no host")?;
    let out = python(&["call", address, target, &roots, token]).output().map_err(words)?;
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let wanted = "echo one hello\nfailed FAILED_PRECONDITION as was asked\ncount 12497500\njoin 3000029\n\
                  refused UNAUTHENTICATED\n";
    assert_eq!(said, wanted, "{wrong}");
    Ok(())
}

//! HTTPS with the built programs: a private authority, and certificates exchanged while the server runs.

mod authority;

use authority::Authority;
use io_adapters::relay_stream::tls::Trust;
use proto_core::machine::TlsCheck;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place};

/// How long the server may take to notice new files on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(authority: &Authority) -> Result<Deployment<'static>> {
    let [certificate, key] = authority.identity();
    let arguments = ["--tls-address", "127.0.0.1:0", "--tls-cert-file", &certificate, "--tls-key-file", &key];
    Deployment::start_trusting(Place::Here, &arguments, Some(&authority.roots()))
}

/// Whether a new connection is answered with this very certificate.
fn serves(deployment: &Deployment<'_>, sha256: [u8; 32]) -> bool {
    let address = deployment.url().trim_start_matches("https://").to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let Ok(tcp) = tokio::net::TcpStream::connect(address).await else { return false };
        let check = TlsCheck::Pinned { sha256 };
        Trust::only(Vec::new()).connect(tcp, "127.0.0.1", &check).await.is_ok()
    })
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn server_log(deployment: &Deployment<'_>) -> String {
    deployment.server().map(tests::deployment::Running::log).unwrap_or_default()
}

fn hang_up(deployment: &Deployment<'_>) -> Result {
    let id = deployment.server().ok_or("a server")?.id().to_string();
    let done = Command::new("kill").args(["-HUP", &id]).status().map_err(|e| e.to_string())?;
    if done.success() { Ok(()) } else { Err(format!("kill: {done}")) }
}

#[test]
fn certificates_are_exchanged_under_running_sessions() -> Result {
    let authority = Authority::new()?;
    let first = authority.renew(&["127.0.0.1"])?;
    let deployment = start(&authority)?;
    assert!(deployment.url().starts_with("https://"), "{}", deployment.url());
    assert!(serves(&deployment, first), "{}", server_log(&deployment));
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    // Relayed alone, so that both the session and the data hang on connections made under the first certificate.
    let mut ping = deployment.command()?;
    ping.args(["--disable-direct-connections", "ping", "dev", "--count", "100", "--interval", "0.1"]);
    let ping = ping.args(["-o", "json"]).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    std::thread::sleep(Duration::from_secs(1));

    let second = authority.renew(&["127.0.0.1"])?;
    until("the new certificate is served, unasked", || serves(&deployment, second));
    assert!(!serves(&deployment, first), "the old one is gone");

    authority.write("cert.pem", "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")?;
    until("the log tells of the broken one", || {
        server_log(&deployment).contains("the old certificate stays")
    });
    assert!(serves(&deployment, second), "the old one stays");
    let third = authority.renew(&["127.0.0.1"])?;
    hang_up(&deployment)?;
    until("the next good one is served", || serves(&deployment, third));
    assert_eq!(server_log(&deployment).matches("the old certificate stays").count(), 1, "it is said once");

    let out = ping.wait_with_output().map_err(|e| e.to_string())?;
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
    assert_eq!(report["summary"]["received"], 100, "{report:#}");
    assert_eq!(report["path"], "relay warren", "{report:#}");
    assert!(!agent.log().contains("lost"), "the sessions outlived two certificates: {}", agent.log());
    // And whoever comes now comes by the third.
    assert_eq!(deployment.json(&["status"])?[0]["status"], "connected");
    Ok(())
}

#[test]
fn an_unknown_authority_is_told() -> Result {
    let authority = Authority::new()?;
    authority.renew(&["127.0.0.1"])?;
    let deployment = start(&authority)?;
    let another = Authority::new()?;
    let mut stranger = deployment.command()?;
    let out =
        stranger.env("SSL_CERT_FILE", another.roots()).arg("status").output().map_err(|e| e.to_string())?;
    assert_eq!(out.status.code(), Some(5));
    let said = String::from_utf8_lossy(&out.stderr).replace(deployment.url(), "URL");
    insta::assert_snapshot!("unknown_authority", said);
    Ok(())
}

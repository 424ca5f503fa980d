//! HTTPS with the built programs: a private authority, and certificates exchanged while the server runs.

use io_adapters::relay_stream::tls::Trust;
use proto_core::machine::TlsCheck;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::Result;
use tests::deployment::{Deployment, Place};

/// How long the server may take to notice new files on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority that no system knows, and the files of a server that it vouches for.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new([]).map_err(|e| e.to_string())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(|e| e.to_string())?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let authority = Self { issuer, dir };
        authority.write("ca.pem", &authority.issuer.as_ref().pem())?;
        Ok(authority)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result {
        std::fs::write(self.path(name), text).map_err(|e| format!("{name}: {e}"))
    }

    /// Puts a new certificate and its key where the server reads them; the certificate's hash.
    fn renew(&self) -> Result<[u8; 32]> {
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).map_err(|e| e.to_string())?;
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| e.to_string())?;
        self.write("cert.pem", &certificate.pem())?;
        self.write("key.pem", &key.serialize_pem())?;
        Ok(Sha256::digest(certificate.der()).into())
    }

    fn start(&self) -> Result<Deployment<'static>> {
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| self.path(name).display().to_string());
        let arguments = [
            "--tls-address",
            "127.0.0.1:0",
            "--tls-cert-file",
            certificate.as_str(),
            "--tls-key-file",
            key.as_str(),
        ];
        Deployment::start_trusting(Place::Here, &arguments, Some(&self.path("ca.pem")))
    }
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
    let first = authority.renew()?;
    let deployment = authority.start()?;
    assert!(deployment.url().starts_with("https://"), "{}", deployment.url());
    assert!(serves(&deployment, first), "{}", server_log(&deployment));
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    // Relayed alone, so that both the session and the data hang on connections made under the first certificate.
    let mut ping = deployment.command()?;
    ping.args(["--disable-direct-connections", "ping", "dev", "--count", "100", "--interval", "0.1"]);
    let ping = ping.args(["-o", "json"]).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    std::thread::sleep(Duration::from_secs(1));

    let second = authority.renew()?;
    until("the new certificate is served, unasked", || serves(&deployment, second));
    assert!(!serves(&deployment, first), "the old one is gone");

    authority.write("cert.pem", "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")?;
    until("the log tells of the broken one", || {
        server_log(&deployment).contains("the old certificate stays")
    });
    assert!(serves(&deployment, second), "the old one stays");
    let third = authority.renew()?;
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
    authority.renew()?;
    let deployment = authority.start()?;
    let nobody = authority.path("nobody.pem");
    std::fs::write(&nobody, Authority::new()?.issuer.as_ref().pem()).map_err(|e| e.to_string())?;
    let mut stranger = deployment.command()?;
    let out = stranger.env("SSL_CERT_FILE", &nobody).arg("status").output().map_err(|e| e.to_string())?;
    assert_eq!(out.status.code(), Some(5));
    let said = String::from_utf8_lossy(&out.stderr).replace(deployment.url(), "URL");
    insta::assert_snapshot!("unknown_authority", said);
    Ok(())
}

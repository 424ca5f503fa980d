//! A running `warren-relay`.

use crate::deployment::{Place, Running};
use crate::{Result, program};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

/// A relay with its log, its state and its ready file in a folder.
#[derive(Debug)]
pub struct Relay {
    /// The process.
    pub process: Running,
    ready: Value,
}

impl Relay {
    /// Starts one whose listeners are on `ip`, at ports of their own, except for TLS, which `arguments` may add.
    ///
    /// # Errors
    /// If it does not come up, with what it said.
    pub fn start(place: Place<'_>, ip: &str, dir: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_at(place, &format!("{ip}:0"), dir, arguments)
    }

    /// As [`Relay::start`], with the address for plain HTTP said: a relay that comes back where it was.
    ///
    /// # Errors
    /// If it does not come up, with what it said.
    pub fn start_at(place: Place<'_>, http: &str, dir: &Path, arguments: &[&str]) -> Result<Self> {
        let ip = http.rsplit_once(':').map_or(http, |(ip, _)| ip);
        let mut command = place.run("server", &program("warren-relay")?);
        command.arg("--state-dir").arg(dir.join("relay-state"));
        command.args(["--http-address", http]);
        for flag in ["--stun-address", "--metrics-address"] {
            command.args([flag, &format!("{ip}:0")]);
        }
        let file = dir.join("relay-ready.json");
        let _ = std::fs::remove_file(&file);
        command.arg("--ready-file").arg(&file).args(arguments);
        let mut process = Running::start(command, dir.join("relay.log"))?;
        let ready =
            process.wait("warren-relay", || serde_json::from_slice(&std::fs::read(&file).ok()?).ok())?;
        Ok(Self { process, ready })
    }

    /// Where it listens; `name` as in its ready file, such as `http_address`.
    ///
    /// # Errors
    /// If it does not listen there.
    pub fn address(&self, name: &str) -> Result<SocketAddr> {
        let text = self.ready[name].as_str().and_then(|text| text.parse().ok());
        text.ok_or_else(|| format!("the relay has no {name}: {}", self.ready))
    }
}

impl Relay {
    /// One of its numbers, by its name and labels.
    ///
    /// # Errors
    /// If the relay does not answer or has no such number.
    pub fn number(&self, name: &str) -> Result<u64> {
        let failed = |e: std::io::Error| format!("metrics: {e}");
        let mut tcp = TcpStream::connect(self.address("metrics_address")?).map_err(failed)?;
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").map_err(failed)?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).map_err(failed)?;
        metric(&answer, name)
    }
}

/// One number, by its name and labels, of a page in Prometheus's text form.
///
/// # Errors
/// If it is not there.
pub fn metric(page: &str, name: &str) -> Result<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.ok_or_else(|| format!("no {name} in {page}"))?;
    line.trim().parse().map_err(|e| format!("{name} {line}: {e}"))
}

//! Load for a DERP relay, ours or anybody's: `relay_load ADDRESS MODE [name=value ...]` prints one line of JSON.
//!
//! One thread plays all clients, so that `taskset` gives the relay one core and this program another. It is a
//! program of its own, apart from the relay, so that neither's memory or time is counted for the other.
//!
//! | mode | what it does |
//! | --- | --- |
//! | `pairs` | `peers` clients in disjoint pairs: the first of each sends, the second receives |
//! | `random` | every client sends to random others |
//! | `latency` | one quiet pair: a packet a millisecond, and how long each was under way |
//! | `idle` | `peers` clients log in and stay; the relay's memory before and after |
//! | `logins` | clients log in and leave, `peers` at a time |
//! | `bad` | bad neighbours of the kind named by `kind=` |
//!
//! `relay_load certificate FOLDER` makes `cert.pem` and `key.pem` for a relay on 127.0.0.1.
//!
//! Settings: `tls=1`, `peers=20`, `seconds=3`, `size=1400` (bytes of payload), `offered=GBIT` (all senders
//! together; without it they send whenever they can), `pid=NUMBER` (the relay's, to count its CPU time).
//!
//! Of TLS, one receiver in sixteen opens what it gets and looks at each byte; the others count what the records carry
//! ([`records`]). `load_core` is this program's share of its core: at 1 it was the clients that could no more.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a benchmark")]

mod bad;
mod client;
mod crowd;
mod flood;
mod latency;
mod records;
mod relay;

use io_adapters::relay_stream::tls::Trust;
use proto_core::machine::TlsCheck;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// What is asked of the program.
#[derive(Clone)]
struct Load {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    peers: usize,
    seconds: f64,
    size: usize,
    /// Bits per second of all senders together.
    offered: Option<f64>,
    relay: relay::Process,
    kind: Option<bad::Kind>,
}

impl Load {
    fn parse(address: &str, settings: &[String]) -> Result<Self, String> {
        let value = |name: &str| settings.iter().find_map(|s| s.strip_prefix(name)?.strip_prefix('='));
        let tls = match value("tls") {
            Some("1") => Some(tls()?),
            _ => None,
        };
        Ok(Self {
            address: number(address)?,
            tls,
            peers: value("peers").map_or(Ok(20), number)?,
            seconds: value("seconds").map_or(Ok(3.0), number)?,
            size: value("size").map_or(Ok(1_400), number)?,
            offered: value("offered").map(number::<f64>).transpose()?.map(|gbit| gbit * 1e9),
            relay: relay::Process::new(value("pid").map(number).transpose()?),
            kind: value("kind").map(kind).transpose()?,
        })
    }

    const fn window(&self) -> Duration {
        Duration::from_millis((self.seconds * 1e3) as u64)
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not what is wanted here"))
}

fn kind(name: &str) -> Result<bad::Kind, String> {
    let known = bad::Kind::ALL.iter().find(|(known, _)| *known == name);
    known.map(|(_, kind)| *kind).ok_or_else(|| format!("there are no bad neighbours of a kind {name}"))
}

/// TLS that trusts anybody, by AES-128 as Go's clients prefer it where the processor helps, and never resumed.
fn tls() -> Result<TlsConnector, String> {
    let config = Trust::only(Vec::new()).config(&TlsCheck::Unchecked).map_err(|e| e.to_string())?;
    let mut config = (*config).clone();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(std::sync::Arc::new(config)))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [certificate, folder] if certificate == "certificate" => make_certificate(folder.as_ref()),
        [address, mode, settings @ ..] => Load::parse(address, settings).and_then(|load| run(mode, load)),
        _ => Err("usage: relay_load ADDRESS pairs|random|latency|idle|logins|bad [name=value ...]".into()),
    };
    match result {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// ECDSA with P-256, the usual kind.
fn make_certificate(folder: &Path) -> Result<Value, String> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(|e| e.to_string())?;
    for (name, text) in [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())] {
        std::fs::write(folder.join(name), text).map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(json!({ "folder": folder }))
}

fn run(mode: &str, load: Load) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    let local = tokio::task::LocalSet::new();
    let mut report = local.block_on(&runtime, async {
        match mode {
            "pairs" => flood::run(&load, false).await,
            "random" => flood::run(&load, true).await,
            "latency" => latency::run(&load).await,
            "idle" => crowd::idle(&load).await,
            "logins" => crowd::logins(&load).await,
            "bad" => neighbours(&load).await,
            other => Err(format!("there is no mode {other}")),
        }
    })?;
    report["mode"] = json!(mode);
    Ok(report)
}

async fn neighbours(load: &Load) -> Result<Value, String> {
    let work = bad::Work::new(load.address, load.kind.ok_or("bad needs kind=NAME")?);
    let _ = tokio::time::timeout(load.window(), work.run()).await;
    Ok(json!({ "connections": work.connections.get(), "sent": work.sent.get() }))
}

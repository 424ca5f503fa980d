//! What an IDE shows of a connection: a file that says how it is, written anew every few seconds while it lasts.
//!
//! The names are those that IDEs know from other clients of this kind.

use crate::error::{CliError, Exit, Result};
use crate::tunnel::{Client, Tunnel};
use io_adapters::handle::{PeerHandle, TunnelStream};
use io_adapters::private_file;
use proto_core::route::Traffic;
use proto_core::stream::Header;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long a round trip may take to be told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where, and how often.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// While connected, keep a file here that says how the connection is: PROCESS.json, by the number of this process,
    /// with --stdio of the one that started it
    #[arg(long, env = "WARREN_SSH_NETWORK_INFO_DIR", value_name = "DIR")]
    network_info_dir: Option<PathBuf>,
    /// Seconds from one writing of that file to the next
    #[arg(long, env = "WARREN_SSH_NETWORK_INFO_INTERVAL", value_name = "SECONDS", default_value_t = 5.0,
          value_parser = seconds)]
    network_info_interval: f64,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("from 0.1 to 3600 seconds are allowed".to_owned()),
    }
}

/// How a connection is.
#[derive(Serialize, PartialEq, Debug)]
struct Info {
    /// Whether packets travel directly.
    p2p: bool,
    /// The round trip to the workspace, in milliseconds.
    latency: f64,
    /// The home relay, by its region's code.
    preferred_derp: String,
    /// The round trips to the relays, in milliseconds.
    derp_latency: BTreeMap<String, f64>,
    upload_bytes_sec: u64,
    download_bytes_sec: u64,
    /// A way of another client.
    using_coder_connect: bool,
}

/// The file, for as long as this is held.
pub(crate) struct NetworkInfo {
    path: PathBuf,
    writing: JoinHandle<()>,
}

impl NetworkInfo {
    /// Writes the file and keeps it new, if it is wanted.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub(crate) fn keep(args: &Args, for_another: bool, tunnel: &Tunnel) -> Result<Option<Self>> {
        let Some(folder) = &args.network_info_dir else { return Ok(None) };
        // An IDE knows the process that it has started, which is another SSH client if there is one.
        let process = if for_another { std::os::unix::process::parent_id() } else { std::process::id() };
        let path = folder.join(format!("{process}.json"));
        std::fs::create_dir_all(folder).map_err(|error| {
            let sentence = format!("can't make the folder {}: {error}", folder.display());
            CliError::new(Exit::NoSession, "NETWORK_INFO", sentence)
                .hint("name a folder that you may write with --network-info-dir")
        })?;
        let mut watch = Watch::new(tunnel.client.clone(), tunnel.peer.clone());
        let every = Duration::from_secs_f64(args.network_info_interval);
        let writing = tokio::spawn({
            let path = path.clone();
            async move {
                loop {
                    if let Err(error) = write(&path, &watch.look().await) {
                        tracing::warn!(%error, "can't write {}", path.display());
                    }
                    tokio::time::sleep(every).await;
                }
            }
        });
        Ok(Some(Self { path, writing }))
    }
}

impl Drop for NetworkInfo {
    fn drop(&mut self) {
        self.writing.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn write(path: &Path, info: &Info) -> io::Result<()> {
    // The session's own thread does it: a slow disk must not hold up what is typed.
    private_file::write_for_now(path, &serde_json::to_vec(info).unwrap_or_default())
}

/// Looks at a connection again and again.
struct Watch {
    client: Client,
    peer: PeerHandle,
    ping: Option<TunnelStream>,
    seen: Traffic,
    at: Instant,
    latency: f64,
}

impl Watch {
    fn new(client: Client, peer: PeerHandle) -> Self {
        Self { client, peer, ping: None, seen: Traffic::default(), at: Instant::now(), latency: 0.0 }
    }

    async fn look(&mut self) -> Info {
        if let Ok(Ok(latency)) = timeout(PATIENCE, self.round_trip()).await {
            self.latency = latency;
        } else {
            self.ping = None;
        }
        let status = self.client.node.status().await.ok();
        let peers = status.iter().flat_map(|status| &status.peers);
        let traffic = peers.filter(|peer| peer.id == *self.peer.id()).map(|peer| peer.traffic).next();
        let traffic = traffic.unwrap_or(self.seen);
        let (before, since) = (std::mem::replace(&mut self.seen, traffic), self.at.elapsed().as_secs_f64());
        self.at = Instant::now();
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / since.max(1e-3)) as u64;
        let latencies = status.iter().flat_map(|status| &status.report.latencies);
        let latencies = latencies.filter_map(|(region, latency)| Some((*region, latency.best()?)));
        Info {
            p2p: self.peer.path().is_direct(),
            latency: self.latency,
            preferred_derp: status
                .as_ref()
                .and_then(|status| status.home)
                .map_or_else(String::new, |home| self.client.region(home)),
            derp_latency: latencies.map(|(region, l)| (self.client.region(region), millis(l))).collect(),
            upload_bytes_sec: rate(traffic.sent_bytes, before.sent_bytes),
            download_bytes_sec: rate(traffic.received_bytes, before.received_bytes),
            using_coder_connect: false,
        }
    }

    /// The round trip to the workspace, in milliseconds.
    async fn round_trip(&mut self) -> io::Result<f64> {
        let stream = match &mut self.ping {
            Some(stream) => stream,
            none => none.insert(self.peer.open(&Header::Ping).await.map_err(io::Error::other)?),
        };
        let sent = Instant::now();
        stream.write_u8(0).await?;
        stream.read_u8().await?;
        Ok(millis(sent.elapsed()))
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_as_ides_read_it() {
        let info = Info {
            p2p: true,
            latency: 12.5,
            preferred_derp: "fra".into(),
            derp_latency: [("fra".to_owned(), 9.0)].into(),
            upload_bytes_sec: 1,
            download_bytes_sec: 2,
            using_coder_connect: false,
        };
        insta::assert_snapshot!(serde_json::to_string(&info).unwrap());
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(["0", "NaN", "-1", "3601", "x"].iter().all(|text| seconds(text).is_err()));
    }
}

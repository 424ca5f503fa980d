//! What has been forwarded so far, and a line of it on a terminal.

use super::link::Link;
use crate::output;
use io_adapters::handle::PeerHandle;
use io_adapters::splice::Traffic;
use proto_core::stream::Header;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// How often the line is drawn anew.
const EVERY: Duration = Duration::from_secs(1);
/// How long a round trip may take to be shown.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has been forwarded.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    open: AtomicUsize,
    all: AtomicU64,
    /// Datagrams that were dropped here.
    pub dropped: AtomicU64,
    /// Bytes.
    pub traffic: Traffic,
}

/// A connection that is open.
pub(crate) struct Open<'a>(&'a Totals);

impl Totals {
    /// A connection, or a client of a UDP port, counted until this is dropped.
    pub(crate) fn connection(&self) -> Open<'_> {
        self.open.fetch_add(1, Relaxed);
        self.all.fetch_add(1, Relaxed);
        Open(self)
    }

    /// Them in words: `3 connections open of 17 · 1.2 MB out · 40 kB in`.
    fn words(&self) -> String {
        let (open, all) = (self.open.load(Relaxed), self.all.load(Relaxed));
        let (sent, received) = (self.traffic.sent.load(Relaxed), self.traffic.received.load(Relaxed));
        let mut words =
            format!("{open} of {all} connections open · {} out · {} in", bytes(sent), bytes(received));
        let dropped = self.dropped.load(Relaxed);
        if dropped > 0 {
            words.push_str(&format!(" · {dropped} datagrams dropped"));
        }
        words
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Bytes for people: `999 B`, `1.2 MB`.
fn bytes(n: u64) -> String {
    let (mut whole, mut tenth) = (n, 0);
    for unit in ["B", "kB", "MB", "GB"] {
        if whole < 1_000 {
            return if unit == "B" || whole >= 100 {
                format!("{whole} {unit}")
            } else {
                format!("{whole}.{tenth} {unit}")
            };
        }
        tenth = whole % 1_000 / 100;
        whole /= 1_000;
    }
    format!("{whole}.{tenth} TB")
}

/// Draws the line for ever.
pub(crate) async fn show(link: &Link) {
    let mut latency = None;
    loop {
        let (path, gone, peer) = link
            .with_tunnel(|tunnel| (tunnel.path(), tunnel.peer.path().gone.is_some(), tunnel.peer.clone()))
            .await;
        let way = match (gone, latency) {
            (true, _) => "away".to_owned(),
            (false, None) => path,
            (false, Some(latency)) => format!("{path} {}", output::latency(latency)),
        };
        output::status(&format!("{way} · {}", link.totals.words()));
        sleep(EVERY).await;
        latency = if gone { None } else { timeout(PATIENCE, round_trip(&peer)).await.ok().flatten() };
    }
}

/// The time to the agent and back, in microseconds.
async fn round_trip(peer: &PeerHandle) -> Option<u64> {
    let mut stream = peer.open(&Header::Ping).await.ok()?;
    let sent = Instant::now();
    stream.write_u8(0).await.ok()?;
    stream.read_u8().await.ok()?;
    u64::try_from(sent.elapsed().as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_read_well() {
        let totals = Totals::default();
        let open = totals.connection();
        drop(totals.connection());
        totals.traffic.sent.store(1_240_000, Relaxed);
        totals.traffic.received.store(999, Relaxed);
        assert_eq!(totals.words(), "1 of 2 connections open · 1.2 MB out · 999 B in");
        totals.dropped.store(3, Relaxed);
        drop(open);
        assert_eq!(totals.words(), "0 of 2 connections open · 1.2 MB out · 999 B in · 3 datagrams dropped");
    }

    #[test]
    fn bytes_have_units() {
        let said = [0, 999, 1_000, 12_345, 123_456, 999_999_999, 5_000_000_000, 7_100_000_000_000].map(bytes);
        assert_eq!(said, ["0 B", "999 B", "1.0 kB", "12.3 kB", "123 kB", "999 MB", "5.0 GB", "7.1 TB"]);
    }
}

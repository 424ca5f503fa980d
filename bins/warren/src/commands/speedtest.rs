//! `warren speedtest`: throughput between this machine and a workspace, and the path that carried it.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use crate::tunnel::{self, Tunnel};
use io_adapters::speedtest::{self, Carried};
use proto_core::stream::Header;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Measure throughput to a workspace
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren speedtest dev --direct             wait for a direct path first
  warren speedtest dev --direction up --time 10")]
pub(crate) struct Args {
    /// The workspace, NAME or OWNER/NAME
    workspace: String,
    /// Wait for a direct path first
    #[arg(long, env = "WARREN_SPEEDTEST_DIRECT", value_parser = clap::builder::BoolishValueParser::new())]
    direct: bool,
    /// Which way data flows, seen from here
    #[arg(long, env = "WARREN_SPEEDTEST_DIRECTION", value_enum, default_value_t)]
    direction: Direction,
    /// Seconds of each test
    #[arg(short, long, env = "WARREN_SPEEDTEST_TIME", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    time: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
enum Direction {
    /// From the workspace
    #[default]
    Down,
    /// To the workspace
    Up,
    /// One after the other
    Both,
}

/// How long `--direct` waits.
const DIRECT_PATIENCE: Duration = Duration::from_secs(15);

#[derive(Serialize)]
struct Interval {
    start_seconds: f64,
    end_seconds: f64,
    bytes: u64,
    bits_per_second: f64,
}

#[derive(Serialize)]
struct Test {
    direction: &'static str,
    path: String,
    latency_ms: f64,
    intervals: Vec<Interval>,
    total: Interval,
}

/// Measures.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    if args.direct && global.direct_forbidden.is_some() {
        let sentence = "can't wait for a direct path: direct connections are turned off";
        return Err(CliError::new(Exit::Usage, "DIRECT_FORBIDDEN", sentence)
            .hint("leave out --direct, or say --disable-direct-connections=false"));
    }
    let tunnel = tunnel::open(global, &args.workspace).await?;
    if args.direct {
        tunnel.wait_direct(DIRECT_PATIENCE).await?;
    }
    let uploads: &[bool] = match args.direction {
        Direction::Down => &[false],
        Direction::Up => &[true],
        Direction::Both => &[false, true],
    };
    let mut tests = Vec::new();
    for upload in uploads {
        tests.push(measure(global, &tunnel, *upload, Duration::from_secs(args.time)).await?);
    }
    tunnel.client.node.shutdown().await;
    if global.output == Format::Json {
        match tests.as_slice() {
            [test] => output::json(test),
            tests => output::json(&tests),
        }
    }
    Ok(())
}

async fn measure(global: &Global, tunnel: &Tunnel, upload: bool, time: Duration) -> Result<Test> {
    let table = global.output == Format::Table;
    let latency = latency(tunnel).await?;
    let name = if upload { "upload" } else { "download" };
    if table {
        output::line(tunnel::headline(
            u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
            &tunnel.path(),
        ));
        output::line(format!("Starting a {}s {name} test...", time.as_secs()));
        output::line(row("INTERVAL", "TRANSFER", "BANDWIDTH"));
    }
    let mut intervals = Vec::new();
    let each = |start: Duration, carried: Carried| {
        let interval = Interval::new(start, carried);
        if table {
            output::line(interval.words());
        }
        intervals.push(interval);
    };
    let carried = speedtest::within(time, transfer(tunnel, upload, time, each)).await.map_err(|e| {
        let sentence = format!("the speed test with \"{}\" broke off: {e}", tunnel.workspace.name);
        CliError::new(Exit::Failed, "SPEEDTEST_FAILED", sentence)
            .hint("is the agent still running? See `warren status`")
    })?;
    let total = Interval::new(Duration::ZERO, carried);
    if table {
        output::line("-".repeat(52));
        output::line(total.words());
    }
    let latency_ms = (latency.as_secs_f64() * 1e6).round() / 1e3;
    Ok(Test { direction: name, path: tunnel.path(), latency_ms, intervals, total })
}

async fn transfer(
    tunnel: &Tunnel,
    upload: bool,
    time: Duration,
    each: impl FnMut(Duration, Carried),
) -> std::io::Result<Carried> {
    let duration_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let header = Header::Speedtest { upload, duration_ms };
    let mut stream = tunnel.peer.open(&header).await.map_err(std::io::Error::other)?;
    if upload {
        speedtest::send(&mut stream, time, each).await?;
        // What counts is what arrived: the agent says how much, and in what time.
        let bytes = stream.read_u64().await?;
        let time = Duration::from_micros(stream.read_u64().await?);
        Ok(Carried { bytes, time })
    } else {
        // Nothing of ours follows the header.
        stream.shutdown().await?;
        speedtest::receive(&mut stream, each).await
    }
}

/// The best of a few echoes, so that the first packet's handshakes are not counted.
async fn latency(tunnel: &Tunnel) -> Result<Duration> {
    let gone = |e: &dyn std::fmt::Display| tunnel.gone(&e.to_string());
    let mut stream = tunnel.peer.open(&Header::Ping).await.map_err(|e| gone(&e))?;
    let mut best = Duration::MAX;
    for sequence in 0..3 {
        let sent = Instant::now();
        let echo = async {
            stream.write_u32(sequence).await?;
            stream.read_u32().await
        };
        match tokio::time::timeout(DIRECT_PATIENCE, echo).await {
            Ok(echo) => echo.map_err(|e| gone(&e))?,
            Err(_) => return Err(gone(&"no reply")),
        };
        best = best.min(sent.elapsed());
    }
    Ok(best)
}

impl Interval {
    fn new(start: Duration, carried: Carried) -> Self {
        Self {
            start_seconds: start.as_secs_f64(),
            end_seconds: (start + carried.time).as_secs_f64(),
            bytes: carried.bytes,
            bits_per_second: carried.bits_per_second(),
        }
    }

    fn words(&self) -> String {
        let megabits = self.bytes as f64 * 8.0 / 1e6;
        row(
            &format!("{:.2}-{:.2} sec", self.start_seconds, self.end_seconds),
            &format!("{megabits:.4} MBits"),
            &format!("{:.4} Mbits/sec", self.bits_per_second / 1e6),
        )
    }
}

fn row(interval: &str, transfer: &str, bandwidth: &str) -> String {
    format!("{interval:<17}{transfer:<17}{bandwidth}").trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_keeps_the_columns_that_people_know() {
        let second = Carried { bytes: 78_848_000, time: Duration::from_micros(1_000_063) };
        let short = Carried { bytes: 1_696_000, time: Duration::from_micros(16_370) };
        let lines = [
            row("INTERVAL", "TRANSFER", "BANDWIDTH"),
            Interval::new(Duration::ZERO, second).words(),
            Interval::new(Duration::from_secs(5), short).words(),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        INTERVAL         TRANSFER         BANDWIDTH
        0.00-1.00 sec    630.7840 MBits   630.7443 Mbits/sec
        5.00-5.02 sec    13.5680 MBits    828.8332 Mbits/sec
        ");
    }
}

//! `warren speedtest`: throughput between this machine and a workspace, and the path that carried it.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use crate::tunnel::{self, Tunnel};
use clap::builder::NonEmptyStringValueParser;
use futures_util::future::try_join_all;
use io_adapters::pcap::{CAPTURE_MAX, Summary, Tap};
use io_adapters::speedtest::{self, Carried, Second};
use proto_core::stream::Header;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Measure throughput to a workspace
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren speedtest dev --direct             wait for a direct path first
  warren speedtest dev --direction up --time 10
  warren speedtest dev --parallel 4         by four streams at once
  warren speedtest dev --pcap-file dev.pcap

The capture holds what travels inside the tunnel, decrypted: read it with Wireshark, and keep it to yourself.")]
pub(crate) struct Args {
    /// The workspace, NAME or OWNER/NAME
    #[arg(value_parser = NonEmptyStringValueParser::new())]
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
    /// Streams at once
    #[arg(short, long, env = "WARREN_SPEEDTEST_PARALLEL", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    /// Write the decrypted packets of the test to this file, for Wireshark
    #[arg(long, env = "WARREN_SPEEDTEST_PCAP_FILE", value_name = "FILE")]
    pcap_file: Option<PathBuf>,
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
    /// Why packets went through a relay, if they did.
    why_relayed: Option<String>,
    latency_ms: f64,
    parallel: u8,
    /// Whether a person ended it early: the total is of the seconds that were over by then.
    #[serde(rename = "interrupted", skip_serializing_if = "std::ops::Not::not")]
    is_interrupted: bool,
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
    let capture = args.pcap_file.as_deref().map(Capture::begin).transpose()?;
    let tap = capture.as_ref().map(|capture| capture.tap.clone());
    let tunnel = tunnel::open_tapped(global, &args.workspace, tap).await?;
    let measured = tests(global, &args, &tunnel).await;
    tunnel.client.node.shutdown().await;
    // What was captured of a test that failed is what one wants to look at.
    let captured = capture.map_or(Ok(()), Capture::end);
    let tests = measured?;
    if global.output == Format::Json {
        // One document of the same form, whether it went on to the end or not.
        match (args.direction, tests.as_slice()) {
            (Direction::Down | Direction::Up, [test]) => output::json(test),
            (_, tests) => output::json(&tests),
        }
    }
    captured
}

async fn tests(global: &Global, args: &Args, tunnel: &Tunnel) -> Result<Vec<Test>> {
    if args.direct {
        if !tunnel.peer.path().is_direct() && global.output == Format::Table {
            output::note("waiting for a direct path...");
        }
        tunnel.wait_direct(DIRECT_PATIENCE).await?;
    }
    let uploads: &[bool] = match args.direction {
        Direction::Down => &[false],
        Direction::Up => &[true],
        Direction::Both => &[false, true],
    };
    let mut tests = Vec::new();
    for upload in uploads {
        let plan = Plan { upload: *upload, time: Duration::from_secs(args.time), streams: args.parallel };
        let test = measure(global, tunnel, plan).await?;
        let is_interrupted = test.is_interrupted;
        tests.push(test);
        if is_interrupted {
            break;
        }
    }
    Ok(tests)
}

/// What is to be measured.
#[derive(Clone, Copy)]
struct Plan {
    upload: bool,
    time: Duration,
    streams: u8,
}

/// A capture, and where it is.
struct Capture {
    tap: Tap,
    file: PathBuf,
}

impl Capture {
    fn begin(file: &Path) -> Result<Self> {
        let tap = Tap::create(file).map_err(|e| Self::failed(file, &e))?;
        output::warning(
            "DECRYPTED",
            &format!(
                "{} will hold what travels inside the tunnel, decrypted; only you can read it",
                file.display()
            ),
        );
        Ok(Self { tap, file: file.to_owned() })
    }

    fn end(self) -> Result {
        let Summary { packets, left_out } = self.tap.finish().map_err(|e| Self::failed(&self.file, &e))?;
        let file = self.file.display();
        output::note(format!(
            "{packets} packets are in {file}: `wireshark {file}` or `tshark -r {file}` shows them"
        ));
        if left_out > 0 {
            let most = output::bytes(CAPTURE_MAX);
            output::warning(
                "CAPTURE_CUT",
                &format!("{left_out} packets found no room: a capture has {most} at most"),
            );
        }
        Ok(())
    }

    fn failed(file: &Path, error: &io::Error) -> CliError {
        CliError::new(Exit::Failed, "CAPTURE_FAILED", format!("can't write {}: {error}", file.display()))
            .hint("name a file that you may write, on a disk with room, with --pcap-file")
    }
}

async fn measure(global: &Global, tunnel: &Tunnel, plan: Plan) -> Result<Test> {
    let Plan { upload, time, streams } = plan;
    let table = global.output == Format::Table;
    let latency = latency(tunnel).await?;
    let name = if upload { "upload" } else { "download" };
    let before = tunnel.path();
    if table {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        output::line(tunnel::headline(micros, &before));
        let by = if streams > 1 { format!(" by {streams} streams") } else { String::new() };
        output::line(format!("Starting a {}s {name} test{by}...", time.as_secs()));
        output::line(row("INTERVAL", "TRANSFER", "BANDWIDTH"));
    }
    let seconds = RefCell::new(Seconds::new(streams));
    let show = |interval: &Interval| {
        if table {
            output::line(interval.words());
        }
    };
    let one = |stream: usize| {
        let (seconds, show) = (&seconds, &show);
        async move {
            let each = |second: Second| {
                seconds.borrow_mut().add(stream, second.start, second.carried, show);
            };
            let carried = transfer(tunnel, upload, time, each).await?;
            seconds.borrow_mut().end(stream, show);
            io::Result::Ok(carried)
        }
    };
    let all = try_join_all((0..usize::from(streams)).map(one));
    let carried = tokio::select! {
        biased;
        // What was measured so far is a result as well.
        _ = tokio::signal::ctrl_c() => None,
        carried = speedtest::within(time, all) => Some(carried.map_err(|e| broke_off(tunnel, &e))?),
    };
    let is_interrupted = carried.is_none();
    let carried = match carried {
        Some(carried) => together(&carried),
        None => seconds.borrow().so_far().ok_or_else(interrupted)?,
    };
    let total = Interval::new(Duration::ZERO, carried);
    let (path, why_relayed) = (tunnel.path(), tunnel.why_relayed().await);
    if table {
        output::line("-".repeat(52));
        output::line(total.words());
        if path != before {
            output::line(format!("The path changed meanwhile: {path}"));
        }
        if let Some(why) = &why_relayed {
            output::line(why);
        }
    }
    let intervals = seconds.into_inner().done;
    let latency_ms = (latency.as_secs_f64() * 1e6).round() / 1e3;
    Ok(Test {
        direction: name,
        path,
        why_relayed,
        latency_ms,
        parallel: streams,
        is_interrupted,
        intervals,
        total,
    })
}

fn broke_off(tunnel: &Tunnel, error: &io::Error) -> CliError {
    if let Some(error) = tunnel.shut_out() {
        return error;
    }
    let sentence = format!("the speed test with \"{}\" broke off: {error}", tunnel.workspace.name);
    CliError::new(Exit::Failed, "SPEEDTEST_FAILED", sentence)
        .hint("is the agent still running? See `warren status`")
}

fn interrupted() -> CliError {
    CliError::new(Exit::Failed, "INTERRUPTED", "interrupted before a second was measured")
}

async fn transfer(
    tunnel: &Tunnel,
    upload: bool,
    time: Duration,
    each: impl FnMut(Second),
) -> std::io::Result<Carried> {
    let duration_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let header = Header::Speedtest { upload, duration_ms, tell: true };
    let mut stream = tunnel.peer.open(&header).await.map_err(std::io::Error::other)?;
    if upload {
        // What counts is what arrived: the agent says how much, and in what time.
        speedtest::send_told(&mut stream, time, each).await
    } else {
        // Nothing of ours follows the header.
        stream.shutdown().await?;
        speedtest::receive(&mut stream, time, each).await
    }
}

/// What several streams carried at the same time.
fn together(carried: &[Carried]) -> Carried {
    let time = carried.iter().map(|c| c.time).max().unwrap_or_default();
    Carried { bytes: carried.iter().map(|c| c.bytes).sum(), time }
}

/// The seconds of several streams put together: each is shown once every stream that goes on has told of it.
struct Seconds {
    /// Those that not all have told of, the oldest first, with what each stream carried.
    open: VecDeque<(Duration, Vec<Carried>)>,
    /// How many seconds each stream has told of; none once it has ended.
    told: Vec<Option<usize>>,
    done: Vec<Interval>,
}

impl Seconds {
    fn new(streams: u8) -> Self {
        Self { open: VecDeque::new(), told: vec![Some(0); streams.into()], done: Vec::new() }
    }

    fn add(&mut self, stream: usize, start: Duration, carried: Carried, show: impl Fn(&Interval)) {
        let Some(Some(told)) = self.told.get_mut(stream) else { return };
        let at = *told - self.done.len().min(*told);
        *told += 1;
        match self.open.get_mut(at) {
            Some((_, all)) => all.push(carried),
            None => self.open.push_back((start, vec![carried])),
        }
        self.close(show);
    }

    /// What the seconds carried that all have told of; none if there is none.
    fn so_far(&self) -> Option<Carried> {
        let end = self.done.last()?.end_seconds;
        let bytes = self.done.iter().map(|interval| interval.bytes).sum();
        Some(Carried { bytes, time: Duration::from_secs_f64(end) })
    }

    fn end(&mut self, stream: usize, show: impl Fn(&Interval)) {
        if let Some(told) = self.told.get_mut(stream) {
            *told = None;
        }
        self.close(show);
    }

    fn close(&mut self, show: impl Fn(&Interval)) {
        while self.told.iter().flatten().all(|told| *told > self.done.len()) {
            let Some((start, all)) = self.open.pop_front() else { return };
            let interval = Interval::new(start, together(&all));
            show(&interval);
            self.done.push(interval);
        }
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
    fn the_seconds_of_several_streams_are_one_table() {
        let carried = |bytes, ms| Carried { bytes, time: Duration::from_millis(ms) };
        let shown = RefCell::new(Vec::new());
        let show = |interval: &Interval| {
            shown.borrow_mut().push((interval.bytes, interval.start_seconds, interval.end_seconds));
        };
        let mut seconds = Seconds::new(2);
        let second = Duration::from_secs(1);
        seconds.add(0, Duration::ZERO, carried(10, 1_000), show);
        seconds.add(0, second, carried(20, 1_000), show);
        assert!(shown.borrow().is_empty(), "the second stream has told nothing yet");
        assert!(seconds.so_far().is_none());
        seconds.add(1, Duration::ZERO, carried(1, 1_010), show);
        assert_eq!(*shown.borrow(), [(11, 0.0, 1.01)]);
        assert_eq!(
            seconds.so_far().map(|carried| (carried.bytes, carried.time.as_millis())),
            Some((11, 1_010))
        );
        seconds.add(1, second, carried(2, 1_000), show);
        seconds.add(1, second * 2, carried(3, 20), show);
        seconds.end(1, show);
        assert_eq!(shown.borrow().len(), 2, "the first stream goes on");
        seconds.add(0, second * 2, carried(30, 10), show);
        seconds.end(0, show);
        assert_eq!(shown.borrow()[1..], [(22, 1.0, 2.0), (33, 2.0, 2.02)]);
        assert_eq!(seconds.done.iter().map(|interval| interval.bytes).sum::<u64>(), 66);
    }

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

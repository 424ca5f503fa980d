//! `warren ping`: what happens on the way to a workspace, each pong with the path that carried it, and why the
//! path is not direct if it is not.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use crate::tunnel::{self, Tunnel};
use clap::builder::NonEmptyStringValueParser;
use proto_core::node::SessionState;
use proto_core::stream::Header;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

/// Reach a workspace and say by which path
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren ping dev                  ten pings, a second apart
  warren ping dev --until-direct   stop as soon as the path is direct")]
pub(crate) struct Args {
    /// The workspace, NAME or OWNER/NAME
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    workspace: String,
    /// How many pings
    #[arg(short, long, env = "WARREN_PING_COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Seconds between two pings
    #[arg(short, long, env = "WARREN_PING_INTERVAL", default_value = "1", value_parser = seconds)]
    interval: Duration,
    /// Seconds to wait for each answer, and for a direct path with --until-direct
    #[arg(short, long, env = "WARREN_PING_TIMEOUT", default_value = "5", value_parser = patience)]
    timeout: Duration,
    /// Stop at the first pong that came directly; failing that, fail
    #[arg(long, env = "WARREN_PING_UNTIL_DIRECT", value_parser = clap::builder::BoolishValueParser::new())]
    until_direct: bool,
}

#[derive(Serialize)]
struct Pong {
    sequence: u32,
    latency_ms: Option<f64>,
    path: String,
    error: Option<String>,
}

impl Pong {
    /// Whether it came, and directly.
    fn is_direct(&self) -> bool {
        self.error.is_none() && self.path.starts_with("direct")
    }
}

#[derive(Serialize)]
struct Summary {
    sent: usize,
    received: usize,
    loss_percent: f64,
    min_ms: Option<f64>,
    avg_ms: Option<f64>,
    max_ms: Option<f64>,
}

#[derive(Serialize)]
struct Report {
    workspace: String,
    pongs: Vec<Pong>,
    /// Milliseconds from the start of the process until packets went directly.
    direct_after_ms: Option<f64>,
    summary: Summary,
    path: String,
    why_relayed: Option<String>,
}

/// Pings.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let began = crate::started();
    let (interval, timeout) = (args.interval, args.timeout);
    let table = global.output == Format::Table;
    let tunnel = tunnel::open(global, &args.workspace).await?;
    let reachable = tokio::time::timeout(timeout, tunnel.peer.wait_reachable()).await;
    if table {
        steps(&tunnel).await;
    }
    if reachable.is_err() {
        return Err(tunnel.gone("no relay and no path leads to it"));
    }
    let mut direct_after = None;
    let mut watch = tunnel.peer.watch_path();
    let mut pongs = Vec::new();
    let mut stream = tunnel.peer.open(&Header::Ping).await.map_err(|e| tunnel.gone(&e.to_string()))?;
    let until = Instant::now() + timeout;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| {
        CliError::new(Exit::Failed, "NO_SIGNALS", format!("signals cannot be caught here: {e}"))
    })?;
    let mut interrupted = false;
    let mut lost = None;
    for sequence in 1.. {
        let pong = tokio::select! {
            biased;
            // What was found out so far is a result as well.
            _ = interrupt.recv() => {
                interrupted = true;
                break;
            }
            pong = ping(&tunnel, &mut stream, sequence, timeout) => match pong {
                Ok(pong) => pong,
                Err(error) => {
                    let path = pongs.last().map_or_else(|| tunnel.path(), |last: &Pong| last.path.clone());
                    pongs.push(Pong { sequence, latency_ms: None, path, error: Some(error.message.clone()) });
                    lost = Some(error);
                    break;
                }
            },
        };
        if direct_after.is_none() && watch.borrow_and_update().is_direct() {
            direct_after = Some(began.elapsed());
        }
        if table {
            if sequence == 1 {
                handshake(pong.error.is_none());
            }
            let turned = direct_after.filter(|_| pong.is_direct() && !pongs.iter().any(Pong::is_direct));
            output::line(words(&tunnel, &pong, turned));
        }
        let direct = pong.is_direct();
        pongs.push(pong);
        let last = if args.until_direct { direct || Instant::now() >= until } else { sequence >= args.count };
        if last {
            break;
        }
        // With --until-direct the next ping goes out when the path changes, not a second later.
        let pause = tokio::time::sleep(interval);
        tokio::pin!(pause);
        interrupted = loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => break true,
                changed = watch.changed() => {
                    let now_direct = changed.is_ok() && watch.borrow_and_update().is_direct();
                    if now_direct && direct_after.is_none() {
                        direct_after = Some(began.elapsed());
                    }
                    if changed.is_err() || (now_direct && args.until_direct) {
                        break false;
                    }
                }
                () = &mut pause => break false,
            }
        };
        if interrupted {
            break;
        }
    }
    let report = Report {
        workspace: args.workspace,
        summary: summary(&pongs),
        pongs,
        direct_after_ms: direct_after.map(millis),
        path: lost.as_ref().map_or_else(|| tunnel.path(), |_| "none".to_owned()),
        why_relayed: if lost.is_some() { None } else { tunnel.why_relayed().await },
    };
    tunnel.client.node.shutdown().await;
    if interrupted && report.pongs.is_empty() {
        return Err(CliError::new(Exit::Failed, "INTERRUPTED", "interrupted before any answer came"));
    }
    show(&report, table);
    // What was found out before that is a result as well.
    lost.map_or_else(|| judge(&report, args.until_direct), Err)
}

/// What has happened before the first ping can go out.
async fn steps(tunnel: &Tunnel) {
    let Ok(status) = tunnel.client.node.status().await else { return };
    let relay = status.home.map_or_else(|| "none yet".into(), |home| tunnel.region(home));
    let latency = status.home.and_then(|home| status.report.latencies.get(&home)?.best());
    let latency = latency.map_or_else(String::new, |l| {
        format!(" ({})", output::latency(u64::try_from(l.as_micros()).unwrap_or(u64::MAX)))
    });
    let connected: Vec<String> = status.relays.iter().map(|relay| tunnel.region(*relay)).collect();
    if let Some(home) = status.home.filter(|home| !connected.is_empty() && !status.relays.contains(home)) {
        let (others, home) = (connected.join(", "), tunnel.region(home));
        step(true, "relay", &format!("{others}, while {home}, the nearest or chosen one, is not connected"));
    } else if status.relays.is_empty() && tunnel.peer.path().is_direct() {
        // Not a fault: it is still connecting, and nobody waits for it.
        step(true, "relay", &format!("{relay}{latency}, not needed: the direct path came first"));
    } else {
        step(!status.relays.is_empty(), "relay", &format!("{relay}{latency}"));
    }
    for (region, why) in tunnel.client.relay_troubles() {
        step(false, "relay", &format!("{} cannot be used: {why}", tunnel.region(region)));
    }
    let up = matches!(status.session, SessionState::Up(_));
    step(up, "coordinator", if up { "sent and received peer data" } else { "lost; the tunnel goes on" });
}

fn handshake(done: bool) {
    step(done, "wireguard", if done { "handshake done" } else { "nothing has come back yet" });
}

fn step(good: bool, name: &str, what: &str) {
    output::marked(good, &format!("{name:<14} {what}"));
}

async fn ping(
    tunnel: &Tunnel,
    stream: &mut io_adapters::handle::TunnelStream,
    sequence: u32,
    timeout: Duration,
) -> Result<Pong> {
    let sent = Instant::now();
    stream.write_u32(sequence).await.map_err(|e| tunnel.gone(&e.to_string()))?;
    let answer = tokio::time::timeout(timeout, async {
        // An answer that came after its time was up belongs to an earlier ping.
        while stream.read_u32().await? != sequence {}
        std::io::Result::Ok(())
    })
    .await;
    let path = tunnel.path();
    match answer {
        Ok(Ok(())) => Ok(Pong { sequence, latency_ms: Some(millis(sent.elapsed())), path, error: None }),
        Ok(Err(e)) => Err(tunnel.gone(&e.to_string())),
        Err(_) => {
            let error = Some(format!("no reply after {}s", timeout.as_secs_f64()));
            Ok(Pong { sequence, latency_ms: None, path, error })
        }
    }
}

/// A pong in words. The first one that came directly tells when the path turned direct.
fn words(tunnel: &Tunnel, pong: &Pong, turned: Option<Duration>) -> String {
    let name = &tunnel.workspace.name;
    match (pong.latency_ms, &pong.error) {
        (Some(latency), _) => {
            let via = if pong.path.starts_with("relay") { "via " } else { "" };
            let turned =
                turned.map_or_else(String::new, |t| format!("     (direct after {}ms)", t.as_millis()));
            let latency = output::latency((latency * 1_000.0) as u64);
            format!("pong from {name} {via}{} in {latency}{turned}", pong.path)
        }
        (None, error) => format!("{} from {name} by {}", error.as_deref().unwrap_or("no reply"), pong.path),
    }
}

fn summary(pongs: &[Pong]) -> Summary {
    let times: Vec<f64> = pongs.iter().filter_map(|p| p.latency_ms).collect();
    let (sent, received) = (pongs.len(), times.len());
    Summary {
        sent,
        received,
        loss_percent: 100.0 * (sent - received) as f64 / sent.max(1) as f64,
        min_ms: times.iter().copied().reduce(f64::min),
        avg_ms: (received > 0).then(|| times.iter().sum::<f64>() / received as f64),
        max_ms: times.iter().copied().reduce(f64::max),
    }
}

fn show(report: &Report, table: bool) {
    let s = &report.summary;
    if table {
        match (&report.why_relayed, report.direct_after_ms) {
            (Some(why), None) => output::line(format!("not direct: {why}")),
            (Some(why), Some(after)) => {
                output::line(format!("direct {after:.0}ms after the start, and no longer: {why}"));
            }
            (None, _) => {}
        }
        let times = match (s.min_ms, s.avg_ms, s.max_ms) {
            (Some(min), Some(avg), Some(max)) => format!(" · min/avg/max {min:.1}/{avg:.1}/{max:.1} ms"),
            _ => String::new(),
        };
        output::line(format!(
            "{} sent, {} received, {:.0}% loss{times} · {}",
            s.sent, s.received, s.loss_percent, report.path
        ));
    } else {
        output::json(report);
    }
}

/// Whether what was wanted came.
fn judge(report: &Report, until_direct: bool) -> Result {
    if report.summary.received == 0 {
        return Err(CliError::new(
            Exit::Failed,
            "NO_REPLY",
            format!("no reply from \"{}\"", report.workspace),
        )
        .hint("is the agent still running? See `warren status`"));
    }
    if until_direct && !report.path.starts_with("direct") {
        let mut error = CliError::new(Exit::Failed, "NOT_DIRECT", "no direct path was found in time");
        if let Some(why) = &report.why_relayed {
            error = error.fact("why", why);
        }
        return Err(error.hint("give it more time with --timeout, or see `warren netcheck`"));
    }
    Ok(())
}

/// The longest time that may be asked for: whoever wants to wait longer has mistyped.
const LONGEST: Duration = Duration::from_secs(3_600);

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| *time <= LONGEST).ok_or_else(|| "from 0 to 3600 seconds are allowed".to_owned())
}

/// As [`seconds`], and not none at all: no answer comes in no time.
fn patience(text: &str) -> std::result::Result<Duration, String> {
    let longer = seconds(text).ok().filter(|time| !time.is_zero());
    longer.ok_or_else(|| "more than 0 and up to 3600 seconds are allowed".to_owned())
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

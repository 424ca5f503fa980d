//! `warren-relay` among bad neighbours: each kind of them is counted by name and costs bounded memory, and those who
//! behave lose nothing, neither a packet nor a login.
//!
//! How much later their packets come is measured by `cargo xtask bench relay`.
#![allow(clippy::print_stdout, reason = "what was seen, for whoever looks")]

#[path = "../../io-adapters/examples/relay_load/bad.rs"]
mod bad;
#[path = "relay_payloads/client.rs"]
#[allow(dead_code, reason = "another test uses the rest")]
mod client;

use bad::{CROWD, Kind, SLOW, Work};
use client::{Client, Way};
use proto_core::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::Place;
use tests::relay::{Relay, metric};

/// From one packet of a good client to the next.
const EVERY: Duration = Duration::from_millis(5);
/// From one login of a good client to the next.
const LOGIN_EVERY: Duration = Duration::from_millis(250);
/// How long a packet or a login of a good client may take on a busy machine, with a relay that was built to be
/// debugged: far less than any of the relay's deadlines, and far more than it takes.
const GENEROUS: Duration = Duration::from_secs(3);
/// How long it may take until the relay has counted a kind: its longest deadline is 15 seconds.
const COUNTED_WITHIN: Duration = Duration::from_secs(30);
/// At least so long each kind is at work, so that the good ones are seen beside it.
const PHASE: Duration = Duration::from_secs(1);
/// How long the relay may take to give memory back: it looks every five seconds.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(12);
/// Keys that are not there.
const STRANGERS: u64 = 1_000_000;
/// The relay's clients at once, of which all bad ones together are fewer.
const CLIENTS: usize = 40;
/// A client's rate, in bytes a second: more than any honest one of this test needs.
const RATE: u64 = 50_000_000;

/// The most that a client may make the relay keep, in KiB: its queue's lanes, each of which may take twice what it
/// holds, what is being written, and an unfinished frame.
const CLIENT_KIB: usize =
    ((2 * (limits::RELAY_QUEUE_DATA.1 + limits::RELAY_QUEUE_DISCO.1 + limits::RELAY_QUEUE_CONTROL.1)) >> 10)
        + 160
        + 128;
/// The same of a connection that has not logged in: an unfinished request or login, and what TLS keeps.
const WAITING_KIB: usize = (limits::DERP_CLIENT_INFO_MAX >> 10) + 8;
/// What the relay's threads keep for the next packets.
const KEPT_KIB: usize = 2 * 32 * 512;
/// What the relay does not give back to the system: it looks only now and then, and whether it is worth it.
const LEFT_KIB: u64 = 17 * 1_024;
/// What it may keep more of after the same has happened once more.
const AGAIN_KIB: u64 = 4 * 1_024;

/// Bad neighbours at work in a thread of their own, until they are dropped.
struct Neighbours {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    sent: Arc<AtomicU64>,
}

impl Neighbours {
    fn start(at: SocketAddr, kind: Kind) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, sent_there) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let work = Work::new(at, kind);
                let watching = async {
                    while !stopped.load(Ordering::Relaxed) {
                        sent_there.store(work.sent.get(), Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::select! {
                    () = work.run() => {}
                    () = watching => {}
                }
            });
        });
        Self { stop, thread: Some(thread), sent }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A pair that exchanges packets at an even pace, and a client that comes and goes.
struct Good {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    seen: Arc<std::sync::Mutex<Seen>>,
}

/// How long it took: round trips, logins.
#[derive(Default)]
struct Seen {
    trips: Vec<Duration>,
    logins: Vec<Duration>,
}

impl Good {
    fn start(at: SocketAddr) -> Self {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<std::sync::Mutex<Seen>>::default());
        let (stopped, noted) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let going = || !stopped.load(Ordering::Relaxed);
            let note = |change: &dyn Fn(&mut Seen)| {
                if let Ok(mut seen) = noted.lock() {
                    change(&mut seen);
                }
            };
            runtime.block_on(async {
                let (mut a, mut b) =
                    (Client::log_in(at, Way::Plain, 1).await?, Client::log_in(at, Way::Plain, 2).await?);
                let (a_key, b_key) = (a.key, b.key);
                let talking = async {
                    let mut tick = tokio::time::interval(EVERY);
                    for number in 0_u64.. {
                        tick.tick().await;
                        if !going() {
                            break;
                        }
                        let began = Instant::now();
                        a.send(b_key, &number.to_be_bytes()).await?;
                        in_time("a packet", b.packet(), (a_key, number)).await?;
                        b.send(a_key, &number.to_be_bytes()).await?;
                        in_time("a packet back", a.packet(), (b_key, number)).await?;
                        note(&|seen| seen.trips.push(began.elapsed()));
                    }
                    Ok(())
                };
                let coming = async {
                    while going() {
                        let began = Instant::now();
                        let client = tokio::time::timeout(GENEROUS, Client::log_in(at, Way::Plain, 3)).await;
                        drop(client.map_err(|_| std::io::Error::other("a login takes too long"))??);
                        note(&|seen| seen.logins.push(began.elapsed()));
                        tokio::time::sleep(LOGIN_EVERY).await;
                    }
                    Ok(())
                };
                tokio::try_join!(talking, coming).map(|_: ((), ())| ())
            })
        });
        Self { stop, thread: Some(thread), seen }
    }

    /// What was seen since the last look; an error if something was lost or late.
    fn look(&mut self) -> Result<Seen> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(self.end().err().unwrap_or_else(|| "the good clients have ended".into()));
        }
        Ok(std::mem::take(&mut *self.seen.lock().map_err(|e| e.to_string())?))
    }

    fn end(&mut self) -> Result {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = thread.join().map_err(|_| "the good clients panicked")?;
        ended.map_err(|e| format!("good clients: {e}"))
    }
}

/// The next packet must be the one that was sent, and come in time.
async fn in_time(
    what: &str,
    packet: impl Future<Output = std::io::Result<(proto_core::key::NodePublic, Vec<u8>)>>,
    (from, number): (proto_core::key::NodePublic, u64),
) -> std::io::Result<()> {
    let lost = |how: &str| Err(std::io::Error::other(format!("{what} {how}")));
    match tokio::time::timeout(GENEROUS, packet).await {
        Err(_) => lost("is lost or late"),
        Ok(Err(error)) => Err(error),
        Ok(Ok((sender, bytes))) if sender == from && bytes == number.to_be_bytes() => Ok(()),
        Ok(Ok(_)) => lost("is another than the next"),
    }
}

/// The relay, and what its metrics say.
struct Bench {
    relay: Relay,
    good: Good,
    quiet: [Duration; 2],
}

/// Where a kind works, and the counters that it must move, each by this much.
struct Case {
    kind: Kind,
    tls: bool,
    counters: &'static [(&'static str, u64)],
}

const fn case(kind: Kind, counters: &'static [(&'static str, u64)]) -> Case {
    Case { kind, tls: false, counters }
}

/// Those who hold on to what they have until a deadline: they are there beside all the others.
const SLOW_ONES: [Case; 5] = [
    Case {
        kind: Kind::SlowTls,
        tls: true,
        counters: &[("warren_relay_http_failed_total{reason=\"slow_tls_handshake\"}", SLOW as u64)],
    },
    case(Kind::SlowRequest, &[("warren_relay_http_failed_total{reason=\"slow_request\"}", SLOW as u64)]),
    case(Kind::SlowLogin, &[("warren_relay_closed_total{reason=\"late_login\"}", SLOW as u64)]),
    case(Kind::DeafRequest, &[("warren_relay_http_failed_total{reason=\"unread_answer\"}", 4)]),
    case(Kind::HalfOpen, &[("warren_relay_closed_total{reason=\"unreachable\"}", 4)]),
];

const QUICK_ONES: [Case; 9] = [
    case(Kind::TooLong, &[("warren_relay_closed_total{reason=\"frame_too_long\"}", 100)]),
    case(Kind::Truncated, &[("warren_relay_truncated_frames_total", 100)]),
    case(Kind::WrongKey, &[("warren_relay_closed_total{reason=\"wrong_key\"}", 100)]),
    case(Kind::NoLogin, &[("warren_relay_closed_total{reason=\"broken_protocol\"}", 100)]),
    case(Kind::NoRequest, &[("warren_relay_http_failed_total{reason=\"malformed\"}", 100)]),
    case(Kind::Pings, &[("warren_relay_words_limited_total", 1), ("warren_relay_pings_total", 10_000)]),
    case(
        Kind::Strangers,
        &[
            (
                "warren_relay_packets_dropped_total{reason=\"unknown_destination\",kind=\"data\"}",
                STRANGERS * 7 / 8,
            ),
            (
                "warren_relay_packets_dropped_total{reason=\"unknown_destination\",kind=\"disco\"}",
                STRANGERS / 8,
            ),
            ("warren_relay_peer_gone_total{reason=\"not_here\"}", 1),
        ],
    ),
    case(Kind::Flood, &[("warren_relay_rate_limited_total", 100)]),
    case(
        Kind::Stalled,
        &[
            ("warren_relay_closed_total{reason=\"stalled_reader\"}", 4),
            ("warren_relay_packets_dropped_total{reason=\"queue_full\",kind=\"data\"}", 1_000),
        ],
    ),
];

/// Alone at the end, since it pushes the slow ones out.
const CROWDED: Case = case(
    Kind::Crowd,
    &[
        ("warren_relay_http_failed_total{reason=\"crowded_out\"}", 1),
        ("warren_relay_http_failed_total{reason=\"no_place\"}", 1),
    ],
);

const WAITING: &str = "warren_relay_waiting_connections";

impl Bench {
    fn page(&self) -> Result<String> {
        let failed = |e: std::io::Error| format!("metrics: {e}");
        let mut tcp = TcpStream::connect(self.relay.address("metrics_address")?).map_err(failed)?;
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").map_err(failed)?;
        let mut page = String::new();
        tcp.read_to_string(&mut page).map_err(failed)?;
        Ok(page)
    }

    fn counts(&self, case: &Case) -> Result<Vec<u64>> {
        let page = self.page()?;
        case.counters.iter().map(|(name, _)| metric(&page, name)).collect()
    }

    fn start(&self, case: &Case) -> Result<(Neighbours, Vec<u64>)> {
        let at = self.relay.address(if case.tls { "tls_address" } else { "http_address" })?;
        let before = self.counts(case)?;
        Ok((Neighbours::start(at, case.kind), before))
    }

    /// Waits until all counters of a kind have moved by what they must; what they have done instead.
    fn counted(&mut self, case: &Case, before: &[u64]) -> Result<Option<String>> {
        let began = Instant::now();
        loop {
            let now = self.counts(case)?;
            let moved: Vec<u64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
            if moved.iter().zip(case.counters).all(|(moved, (_, wanted))| moved >= wanted) {
                return Ok(None);
            }
            if self.good.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return self.good.look().map(|_| None);
            }
            if began.elapsed() > COUNTED_WITHIN {
                return Ok(Some(format!("{}: {:?} moved by {moved:?} only", name(case.kind), case.counters)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// More connections that do not log in than there are places, while those who behave come in beside them.
    fn crowd(&mut self) -> Result {
        let (neighbours, before) = self.start(&CROWDED)?;
        let missed = self.counted(&CROWDED, &before)?;
        assert!(missed.is_none(), "{missed:?}");
        std::thread::sleep(PHASE);
        let waiting = metric(&self.page()?, WAITING)?;
        assert!((1_000..=limits::RELAY_WAITING_MAX as u64).contains(&waiting), "{waiting} wait");
        drop(neighbours);
        self.say("crowd")
    }

    /// Waits until the relay has closed what the bad ones have left, and has given their memory back; how much it uses
    /// then. The good pair is there, and perhaps who comes and goes.
    fn given_back(&self, wanted: u64) -> Result<u64> {
        let began = Instant::now();
        loop {
            let (page, resident) = (self.page()?, self.memory("VmRSS")?);
            let gone = metric(&page, WAITING)? <= 2 && metric(&page, "warren_relay_clients")? <= 3;
            if gone && (resident <= wanted || began.elapsed() > GIVEN_BACK_WITHIN) {
                return Ok(resident);
            }
            if began.elapsed() > COUNTED_WITHIN {
                return Err(format!("the bad ones are still there: {page}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the good ones saw meanwhile, in words for the log.
    fn say(&mut self, name: &str) -> Result {
        let mut seen = self.good.look()?;
        assert!(!seen.trips.is_empty(), "{name}: the good pair has said nothing");
        let [p50, p99] = [50, 99].map(|share| percentile(&mut seen.trips, share));
        if name == "quiet" {
            self.quiet = [p50, p99];
        }
        let ratio = p99.as_secs_f64() / self.quiet[1].as_secs_f64();
        println!(
            "{name:>14}: {:>4} round trips, p50 {p50:?}, p99 {p99:?} ({ratio:.1} x quiet); {} logins, slowest {:?}; {} KiB",
            seen.trips.len(),
            seen.logins.len(),
            seen.logins.iter().max().unwrap_or(&Duration::ZERO),
            self.memory("VmHWM")?,
        );
        Ok(())
    }

    /// The relay's memory in KiB, now (`VmRSS`) or at its highest (`VmHWM`).
    fn memory(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.relay.process.id());
        let status = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse().map_err(|e| format!("{line}: {e}"))
    }
}

fn name(kind: Kind) -> &'static str {
    Kind::ALL.iter().find(|(_, known)| *known == kind).map_or("?", |(name, _)| name)
}

fn percentile(times: &mut [Duration], share: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * share).div_ceil(100).max(1) - 1]
}

fn relay(dir: &Path) -> Result<Relay> {
    let certified =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(|e| e.to_string())?;
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| dir.join(name).display().to_string());
    std::fs::write(&certificate, certified.cert.pem()).map_err(|e| e.to_string())?;
    std::fs::write(&key, certified.signing_key.serialize_pem()).map_err(|e| e.to_string())?;
    let (clients, rate) = (CLIENTS.to_string(), RATE.to_string());
    let mut arguments =
        vec!["--tls-address", "127.0.0.1:0", "--tls-cert-file", &certificate, "--tls-key-file", &key];
    arguments.extend(["--max-clients", &clients, "--rate-limit-client", &rate]);
    Relay::start(Place::Here, "127.0.0.1", dir, &arguments)
}

/// Some kilobytes for each of thousands of connections, here and in the relay: more than a shell allows by itself.
fn open_files() -> Result {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    if maximum < 3 * CROWD as u64 {
        return Err(format!("this test opens {} files and may open {maximum}", 3 * CROWD));
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|e| format!("the number of open files: {e}"))
}

#[test]
fn each_kind_of_bad_neighbour_is_counted_and_bounded_and_harms_nobody() -> Result {
    open_files()?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let relay = relay(dir.path())?;
    let good = Good::start(relay.address("http_address")?);
    let mut bench = Bench { relay, good, quiet: [Duration::ZERO; 2] };
    std::thread::sleep(Duration::from_secs(2));
    bench.say("quiet")?;
    let quiet = bench.memory("VmRSS")?;

    let mut slow = Vec::new();
    for case in &SLOW_ONES {
        slow.push((case, bench.start(case)?));
    }
    let mut missed = Vec::new();
    for case in &QUICK_ONES {
        let (began, resident) = (Instant::now(), bench.memory("VmHWM")?);
        let (neighbours, before) = bench.start(case)?;
        missed.extend(bench.counted(case, &before)?);
        std::thread::sleep(PHASE.saturating_sub(began.elapsed()));
        if case.kind == Kind::Strangers {
            let (sent, grown) =
                (neighbours.sent.load(Ordering::Relaxed), bench.memory("VmHWM")?.saturating_sub(resident));
            assert!(sent >= STRANGERS && grown < 1_024, "{sent} keys took {grown} KiB");
        }
        drop(neighbours);
        bench.say(name(case.kind))?;
    }
    for (case, (neighbours, before)) in slow {
        missed.extend(bench.counted(case, &before)?);
        drop(neighbours);
    }
    bench.say("slow ones")?;
    assert!(missed.is_empty(), "not counted:\n{}\n{}", missed.join("\n"), bench.page()?);
    bench.crowd()?;
    let highest = bench.memory("VmHWM")?;
    let bound = quiet + (CLIENTS * CLIENT_KIB + limits::RELAY_WAITING_MAX * WAITING_KIB + KEPT_KIB) as u64;
    assert!(highest <= bound, "the relay used {highest} KiB, and may use {bound}");
    let after = bench.given_back(quiet + LEFT_KIB)?;
    bench.say("afterwards")?;
    assert!(after <= quiet + LEFT_KIB, "{after} KiB are left, and were {quiet}");
    // What the allocator keeps is used again: nothing grows with each time.
    bench.crowd()?;
    let again = bench.given_back(after + AGAIN_KIB)?;
    assert!(again <= after + AGAIN_KIB, "{again} KiB after the second crowd, {after} after the first");
    println!(
        "memory: {quiet} KiB quiet, {highest} of {bound} KiB at most, {after} KiB after, {again} KiB again"
    );
    bench.good.end()
}

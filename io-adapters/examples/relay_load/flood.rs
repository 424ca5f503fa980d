//! Clients that send as much as they can or are told to.

use crate::client::{Client, Stream};
use crate::records::Records;
use crate::{Load, crowd, relay};
use proto_core::key::NodePublic;
use proto_core::seed::{Rng, Seed};
use proto_core::wire::derp::{FrameKind, packet_header, peek};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Frames of one write.
const BURST: usize = 45;
/// Bytes of one read.
const READ: usize = 256 * 1024;
/// Bytes that one client reads, and that it writes, before the others get their turn. TLS hands out a record at
/// a time, so that a count of reads would favour those who write.
const TURN: usize = 128 * 1024;
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(700);
/// Bytes before the payload of a frame: its header and a key.
const HEADER: usize = 5 + 32;
/// One receiver of so many opens its TLS; for the others the length of what came is enough.
const OPENED: usize = 16;
/// A paced client makes up for this much time in which it could not send.
const BACKLOG: Duration = Duration::from_millis(10);
/// A paced client sleeps at least this long, and sends then what has become due.
const TICK: Duration = Duration::from_millis(1);

/// What all clients share.
struct Shared {
    keys: Vec<NodePublic>,
    sent: Cell<u64>,
    received: Cell<u64>,
    /// Packets that are not what was sent.
    wrong: Cell<u64>,
    payload: Vec<u8>,
    /// `BURST` frames; only their destinations change.
    burst: RefCell<Vec<u8>>,
    read: RefCell<Vec<u8>>,
}

/// Where a client sends to.
enum Targets {
    Nobody,
    One(usize),
    Random(Rng),
}

struct Peer {
    io: Box<dyn Stream>,
    targets: Targets,
    /// Bytes a second.
    rate: Option<f64>,
    began: Instant,
    /// Bytes sent so far, of a paced client.
    spent: f64,
    timer: Pin<Box<Sleep>>,
    /// What is left of the last write.
    rest: Vec<u8>,
    /// The beginning of a frame that has not come whole.
    kept: Vec<u8>,
    /// What comes is not opened but counted.
    records: Option<Records>,
    /// Packets counted in records.
    counted: u64,
}

pub(crate) async fn run(load: &Load, random: bool) -> Result<Value, String> {
    let clients = crowd::assemble(load).await?;
    let senders = if random { clients.len() } else { clients.len() / 2 };
    let shared = Rc::new(Shared::new(load, clients.iter().map(|c| c.key).collect()));
    let mut tasks = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        let targets = match number {
            _ if random => Targets::Random(Seed::from_u64(number as u64).fork("targets").rng()),
            _ if number % 2 == 0 && number + 1 < load.peers => Targets::One(number + 1),
            _ => Targets::Nobody,
        };
        let frame_share = (load.size + HEADER) as f64 / load.size as f64;
        let rate = load.offered.map(|bits| bits / 8.0 * frame_share / senders as f64);
        // Odd numbers receive, whatever the mode.
        let records = (number / 2 % OPENED != 0).then(Records::default);
        let mut peer = Peer { records, ..Peer::new(client, targets, rate) };
        let shared = shared.clone();
        tasks.push(tokio::task::spawn_local(async move { poll_fn(|cx| peer.poll(cx, &shared)).await }));
    }
    tokio::time::sleep(WARM_UP).await;
    let own = relay::Process::new(Some(std::process::id()));
    let (began, cpu, own_cpu) = (Instant::now(), load.relay.cpu(), own.cpu());
    let (sent, received) = (shared.sent.get(), shared.received.get());
    tokio::time::sleep(load.window()).await;
    let took = began.elapsed().as_secs_f64();
    let since = |before, after: Option<u64>| after.zip(before).map(|(after, before)| (after - before) as f64);
    let (spent, own_spent) = (since(cpu, load.relay.cpu()), since(own_cpu, own.cpu()));
    let (sent, received) = (shared.sent.get() - sent, shared.received.get() - received);
    for task in tasks {
        if task.is_finished() {
            let ended = task.await.map_err(|e| e.to_string())?;
            return Err(format!("a client's connection ended: {ended:?}"));
        }
        task.abort();
    }
    if shared.wrong.get() > 0 {
        return Err(format!("{} packets were not what was sent", shared.wrong.get()));
    }
    let gbit = |packets: u64| packets as f64 * load.size as f64 * 8.0 / 1e9 / took;
    Ok(json!({
        "peers": load.peers,
        "delivered_gbit": gbit(received),
        "sent_gbit": gbit(sent),
        "packets": received,
        "relay_ns_per_packet": spent.map(|ns| ns / received as f64),
        "relay_core": spent.map(|ns| ns / 1e9 / took),
        "load_core": own_spent.map(|ns| ns / 1e9 / took),
    }))
}

impl Shared {
    fn new(load: &Load, keys: Vec<NodePublic>) -> Self {
        let payload: Vec<u8> = (0..load.size).map(|n| (n * 7 + n / 251) as u8).collect();
        let mut burst = Vec::with_capacity(BURST * (HEADER + load.size));
        for _ in 0..BURST {
            burst.extend_from_slice(&packet_header(FrameKind::SendPacket, &keys[0], load.size));
            burst.extend_from_slice(&payload);
        }
        let zero = Cell::new(0);
        Self {
            keys,
            sent: zero.clone(),
            received: zero.clone(),
            wrong: zero,
            payload,
            burst: RefCell::new(burst),
            read: RefCell::new(vec![0; READ + (1 << 17)]),
        }
    }

    /// Takes whole frames; how many bytes they had.
    fn take(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while let Some(header) = peek(&bytes[at..]) {
            if header.check().is_err() || !header.is_known() {
                return Err(io::Error::other(format!("{header:?} is no frame's, after {at} bytes")));
            }
            let Some(frame) = bytes.get(at..at + header.frame_len()) else { break };
            at += frame.len();
            if header.kind == FrameKind::RecvPacket as u8 {
                self.received.set(self.received.get() + 1);
                if frame.get(HEADER..) != Some(&self.payload[..]) {
                    self.wrong.set(self.wrong.get() + 1);
                }
            }
        }
        Ok(at)
    }
}

impl Peer {
    fn new(client: Client, targets: Targets, rate: Option<f64>) -> Self {
        Self {
            io: client.io,
            targets,
            rate,
            began: Instant::now(),
            spent: 0.0,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            rest: Vec::new(),
            kept: client.read,
            records: None,
            counted: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<io::Result<()>> {
        let mut again = self.read(cx, shared)?;
        if !matches!(self.targets, Targets::Nobody) {
            again |= self.write(cx, shared)?;
        }
        if again {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Whether more may be there.
    fn read(&mut self, cx: &mut Context<'_>, shared: &Shared) -> io::Result<bool> {
        if let (Some(records), Some(io)) = (&mut self.records, self.io.sealed()) {
            let mut buffer = shared.read.borrow_mut();
            let mut read = ReadBuf::new(&mut buffer[..TURN]);
            if Pin::new(io).poll_read(cx, &mut read)?.is_pending() {
                return Ok(false);
            }
            if read.filled().is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let carried = records.take(read.filled());
            let carried =
                carried.ok_or_else(|| io::Error::other(format!("no record of TLS: {records:?}")))?;
            let counted = carried / (HEADER + shared.payload.len()) as u64;
            shared.received.set(shared.received.get() + counted - self.counted);
            self.counted = counted;
            return Ok(true);
        }
        let mut buffer = shared.read.borrow_mut();
        let mut turn = 0;
        while turn < TURN {
            let room = self.kept.len() + READ;
            let mut read = ReadBuf::new(&mut buffer[..room]);
            read.put_slice(&self.kept);
            match Pin::new(&mut self.io).poll_read(cx, &mut read) {
                Poll::Pending => return Ok(false),
                Poll::Ready(result) => result?,
            }
            let bytes = read.filled();
            if bytes.len() == self.kept.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            turn += bytes.len() - self.kept.len();
            let taken = shared.take(bytes)?;
            self.kept.clear();
            self.kept.extend_from_slice(&bytes[taken..]);
        }
        Ok(true)
    }

    /// Whether more can be sent.
    fn write(&mut self, cx: &mut Context<'_>, shared: &Shared) -> io::Result<bool> {
        let (mut more, mut turn) = (true, 0);
        while turn < TURN {
            more = if self.rest.is_empty() {
                let frames = self.due(cx, shared);
                turn += frames * (HEADER + shared.payload.len());
                frames > 0 && self.burst(cx, shared, frames)?
            } else {
                match Pin::new(&mut self.io).poll_write(cx, &self.rest) {
                    Poll::Pending => false,
                    Poll::Ready(written) => {
                        let written = written?;
                        turn += written;
                        self.rest.drain(..written);
                        true
                    }
                }
            };
            if !more {
                break;
            }
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx)?;
        Ok(more && flushed.is_ready())
    }

    /// How many frames may be sent now; if none, a timer is set.
    fn due(&mut self, cx: &mut Context<'_>, shared: &Shared) -> usize {
        let Some(rate) = self.rate else { return BURST };
        let frame = (HEADER + shared.payload.len()) as f64;
        loop {
            // Whoever was held up for long does not send all of it at once later.
            let allowed = self.began.elapsed().as_secs_f64() * rate;
            let patience = (rate * BACKLOG.as_secs_f64()).max(BURST as f64 * frame);
            self.spent = self.spent.max(allowed - patience);
            let frames = ((allowed - self.spent) / frame) as usize;
            if frames > 0 {
                let frames = frames.min(BURST);
                self.spent += frames as f64 * frame;
                return frames;
            }
            let wait = Duration::from_secs_f64(frame / rate).max(TICK);
            self.timer.as_mut().reset(tokio::time::Instant::now() + wait);
            if self.timer.as_mut().poll(cx).is_pending() {
                return 0;
            }
        }
    }

    /// Writes frames; false if the connection takes no more for now.
    fn burst(&mut self, cx: &mut Context<'_>, shared: &Shared, frames: usize) -> io::Result<bool> {
        let mut burst = shared.burst.borrow_mut();
        let frame = HEADER + shared.payload.len();
        for n in 0..frames {
            let to = match &mut self.targets {
                Targets::Random(rng) => rng.range(0..shared.keys.len() as u64) as usize,
                Targets::One(to) => *to,
                Targets::Nobody => return Ok(false),
            };
            burst[n * frame + 5..n * frame + HEADER].copy_from_slice(&shared.keys[to].0);
        }
        let bytes = &burst[..frames * frame];
        let written = match Pin::new(&mut self.io).poll_write(cx, bytes) {
            Poll::Pending if self.rate.is_none() => return Ok(false),
            Poll::Pending => 0,
            Poll::Ready(written) => written?,
        };
        self.rest.extend_from_slice(&bytes[written..]);
        shared.sent.set(shared.sent.get() + frames as u64);
        Ok(written > 0)
    }
}

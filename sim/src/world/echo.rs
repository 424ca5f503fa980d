//! What the nodes of a world do with their tunnel: the client sends numbered, signed frames and the agent
//! sends them back; besides, perhaps, one long transfer. Everything is checked as it is read.

use io_adapters::stack::{FlowId, Stack, StackEvent};
use io_adapters::streams::StreamError;
use proto_core::id::NodeId;
use proto_core::key::NodePublic;
use proto_core::stream::Header;
use proto_core::time::{Duration, Time};
use proto_core::wg::WgEngine;
use std::collections::BTreeMap;

/// What every frame begins with; it must never be seen on a wire.
pub const MARK: [u8; 16] = *b"WARREN PLAINTEXT";
/// A frame: mark, sender, receiver, number, padding.
pub const FRAME: usize = 112;
/// Frames under way before the client waits.
const PENDING_MAX: usize = 256;
/// Pieces of the long transfer.
const CHUNK: usize = 16 << 10;

/// What came of the echoes and the transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EchoStats {
    /// Frames sent.
    pub sent: u64,
    /// Frames that came back.
    pub answered: u64,
    /// When the first came back, by the client's clock.
    pub first: Option<Time>,
    /// When the latest came back.
    pub last: Option<Time>,
    /// The longest time from one answer to the next; at a run's end, also from the latest to the end.
    pub gap: Duration,
    /// The longest round trip, of what has come back.
    pub slowest: Duration,
    /// The shortest round trip.
    pub fastest: Option<Duration>,
    /// Bytes of the transfer that have come back acknowledged: written and taken by the stream.
    pub transferred: u64,
    /// Streams lost with their connection.
    pub lost_flows: u64,
}

impl EchoStats {
    /// As they stand at `end`, for a process that began at `began`: silence up to the end is a gap, too.
    #[must_use]
    pub fn ending(self, began: Time, end: Time) -> Self {
        let silence = end.since(self.last.unwrap_or(began));
        Self { gap: self.gap.max(silence), ..self }
    }
}

/// The application on a node.
#[derive(Debug)]
pub struct App {
    us: NodePublic,
    agent: Option<NodeId>,
    interval: Duration,
    transfer: u64,
    peer: Option<NodePublic>,
    flow: Option<Pipe>,
    /// The transfer's stream and what it has taken.
    bulk: Option<(FlowId, u64)>,
    served: BTreeMap<FlowId, Served>,
    next: Option<Time>,
    number: u64,
    pending: BTreeMap<u64, Time>,
    /// What came of it.
    pub stats: EchoStats,
    /// What must never happen and did.
    pub violations: Vec<String>,
}

#[derive(Debug)]
struct Pipe {
    id: FlowId,
    out: Vec<u8>,
    incoming: Vec<u8>,
}

#[derive(Debug)]
struct Served {
    peer: NodePublic,
    incoming: Vec<u8>,
    out: Vec<u8>,
    header: Option<Header>,
    swallowed: u64,
}

impl App {
    /// An application that talks to `agent`, or without one answers.
    #[must_use]
    pub fn new(us: NodePublic, agent: Option<NodeId>, interval: Duration, transfer: u64) -> Self {
        Self {
            us,
            agent,
            interval,
            transfer,
            peer: None,
            flow: None,
            bulk: None,
            served: BTreeMap::new(),
            next: None,
            number: 0,
            pending: BTreeMap::new(),
            stats: EchoStats::default(),
            violations: Vec::new(),
        }
    }

    /// Measures the gap from here on, as if the latest answer had come at `now`.
    pub fn mark(&mut self, now: Time) {
        self.stats.gap = Duration::ZERO;
        self.stats.slowest = Duration::ZERO;
        self.stats.last = self.stats.last.map(|_| now);
    }

    /// The peer that the client talks to, once it is there.
    #[must_use]
    pub const fn peer(&self) -> Option<NodePublic> {
        self.peer
    }

    /// A peer may be talked to.
    pub fn peer_up(&mut self, id: &NodeId, key: NodePublic, now: Time) {
        if self.agent.as_ref() == Some(id) {
            // Whatever ran to an earlier process is over; the stack says so of the streams.
            self.peer = Some(key);
            if self.interval > Duration::ZERO {
                self.next.get_or_insert(now);
            }
        }
    }

    /// A peer is gone.
    pub fn peer_down(&mut self, key: &NodePublic) {
        if self.peer == Some(*key) {
            self.peer = None;
            self.flow = None;
            self.bulk = None;
            self.next = None;
            self.pending.clear();
        }
    }

    /// When it wants to run next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.next
    }

    /// Something of a stream was said.
    pub fn event<W: WgEngine>(&mut self, event: &StackEvent, stack: &mut Stack<W>) {
        match event {
            StackEvent::Incoming { peer, flow } => {
                let served =
                    Served { peer: *peer, incoming: Vec::new(), out: Vec::new(), header: None, swallowed: 0 };
                self.served.insert(*flow, served);
                self.serve(*flow, stack);
            }
            StackEvent::Readable(flow) | StackEvent::Writable(flow) => self.serve(*flow, stack),
            _ => {}
        }
    }

    /// Does what is due.
    pub fn run<W: WgEngine>(&mut self, stack: &mut Stack<W>, now: Time) {
        if self.agent.is_some() {
            self.talk(stack, now);
        }
    }

    fn talk<W: WgEngine>(&mut self, stack: &mut Stack<W>, now: Time) {
        let Some(peer) = self.peer else { return };
        if self.next.is_some_and(|at| at <= now) {
            self.next = Some(now + self.interval);
            self.ask(&peer, stack, now);
        }
        self.send_bulk(&peer, stack, now);
        let Some(pipe) = &mut self.flow else { return };
        let alive = write_out(pipe.id, &mut pipe.out, stack) && read_in(pipe.id, &mut pipe.incoming, stack);
        self.answers(&peer, now);
        if !alive && let Some(pipe) = self.flow.take() {
            stack.release(pipe.id);
            self.stats.lost_flows += 1;
            self.pending.clear();
        }
    }

    fn ask<W: WgEngine>(&mut self, peer: &NodePublic, stack: &mut Stack<W>, now: Time) {
        if self.flow.is_none() {
            let Ok(id) = stack.open(peer, now) else { return };
            self.flow = Some(Pipe { id, out: Header::Ping.encode(), incoming: Vec::new() });
        }
        let Some(pipe) = &mut self.flow else { return };
        if self.pending.len() >= PENDING_MAX {
            return;
        }
        self.number += 1;
        self.stats.sent += 1;
        self.pending.insert(self.number, now);
        pipe.out.extend(frame(&self.us, peer, self.number));
    }

    fn answers(&mut self, peer: &NodePublic, now: Time) {
        let Some(pipe) = &mut self.flow else { return };
        let frames: Vec<Vec<u8>> = split_frames(&mut pipe.incoming);
        for bytes in frames {
            match check(&bytes, &self.us, peer) {
                Ok(number) => self.answered(number, now),
                Err(why) => self.violations.push(why),
            }
        }
    }

    fn answered(&mut self, number: u64, now: Time) {
        let Some(sent) = self.pending.remove(&number) else {
            self.violations.push(format!("the answer {number} was not asked for"));
            return;
        };
        let stats = &mut self.stats;
        stats.answered += 1;
        stats.gap = stats.gap.max(now.since(stats.last.unwrap_or(now)));
        stats.first.get_or_insert(now);
        stats.last = Some(now);
        let rtt = now.since(sent);
        stats.slowest = stats.slowest.max(rtt);
        stats.fastest = Some(stats.fastest.map_or(rtt, |f| f.min(rtt)));
    }

    fn send_bulk<W: WgEngine>(&mut self, peer: &NodePublic, stack: &mut Stack<W>, now: Time) {
        if self.stats.transferred >= self.transfer {
            return;
        }
        if self.bulk.is_none() {
            let Ok(id) = stack.open(peer, now) else { return };
            let header = Header::Speedtest { upload: true, duration_ms: 0, tell: false }.encode();
            if stack.write(id, &header) != Ok(header.len()) {
                return;
            }
            self.bulk = Some((id, 0));
        }
        let Some((id, at)) = &mut self.bulk else { return };
        let id = *id;
        while self.stats.transferred < self.transfer {
            let left = usize::try_from(self.transfer - self.stats.transferred).unwrap_or(CHUNK).min(CHUNK);
            let chunk: Vec<u8> = (*at..).take(left).map(pattern).collect();
            match stack.write(id, &chunk) {
                Ok(taken) => {
                    *at += taken as u64;
                    self.stats.transferred += taken as u64;
                }
                Err(StreamError::Blocked) => return,
                Err(_) => {
                    self.bulk = None;
                    self.stats.lost_flows += 1;
                    return;
                }
            }
        }
        // The end of the stream follows; if it fails the connection is gone, and the count says so.
        let _ = stack.finish(id);
    }

    fn serve<W: WgEngine>(&mut self, flow: FlowId, stack: &mut Stack<W>) {
        let Some(served) = self.served.get_mut(&flow) else { return };
        let alive = read_in(flow, &mut served.incoming, stack);
        if served.header.is_none()
            && let Ok(Some((header, len))) = Header::decode(&served.incoming)
        {
            served.header = Some(header);
            served.incoming.drain(..len);
        }
        match &served.header {
            Some(Header::Ping) => {
                for bytes in split_frames(&mut served.incoming) {
                    match check(&bytes, &served.peer, &self.us) {
                        Ok(_) => served.out.extend(bytes),
                        Err(why) => self.violations.push(why),
                    }
                }
            }
            Some(_) => {
                if (served.swallowed..).zip(&served.incoming).any(|(at, byte)| pattern(at) != *byte) {
                    let what = format!("the transfer arrived changed after {} bytes", served.swallowed);
                    self.violations.push(what);
                }
                served.swallowed += served.incoming.len() as u64;
                self.stats.transferred += served.incoming.len() as u64;
                served.incoming.clear();
            }
            None => {}
        }
        let writable = write_out(flow, &mut served.out, stack);
        if !alive || !writable {
            self.served.remove(&flow);
            stack.release(flow);
        }
    }
}

/// The transfer's byte at a position: a piece that is lost, doubled or moved shows.
const fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn frame(from: &NodePublic, to: &NodePublic, number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME);
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&from.0);
    bytes.extend_from_slice(&to.0);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.resize(FRAME, 0xa5);
    bytes
}

/// A frame's number, if it was sent from `from` to `to`.
fn check(bytes: &[u8], from: &NodePublic, to: &NodePublic) -> Result<u64, String> {
    let (mark, rest) = bytes.split_at(16);
    let (sender, rest) = rest.split_at(32);
    let (receiver, rest) = rest.split_at(32);
    if mark != MARK || rest[8..].iter().any(|b| *b != 0xa5) {
        return Err("a frame was damaged inside the tunnel".into());
    }
    if sender != from.0 || receiver != to.0 {
        return Err(format!("a frame reached the wrong node: it was not from {from:?} to {to:?}"));
    }
    Ok(rest.first_chunk().map_or(0, |b| u64::from_be_bytes(*b)))
}

fn split_frames(incoming: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let whole = incoming.len() / FRAME * FRAME;
    let frames = incoming[..whole].chunks(FRAME).map(<[u8]>::to_vec).collect();
    incoming.drain(..whole);
    frames
}

/// Writes what waits; false if the stream is over.
fn write_out<W: WgEngine>(flow: FlowId, out: &mut Vec<u8>, stack: &mut Stack<W>) -> bool {
    while !out.is_empty() {
        match stack.write(flow, out) {
            Ok(taken) => drop(out.drain(..taken)),
            Err(StreamError::Blocked) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// Reads what there is; false if the stream is over.
fn read_in<W: WgEngine>(flow: FlowId, incoming: &mut Vec<u8>, stack: &mut Stack<W>) -> bool {
    loop {
        match stack.read_chunk(flow, 64 << 10) {
            Ok(bytes) if bytes.is_empty() => return false,
            Ok(bytes) => incoming.extend_from_slice(&bytes),
            Err(StreamError::Blocked) => return true,
            Err(_) => return false,
        }
    }
}

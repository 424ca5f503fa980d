//! The streams inside tunnels: bytes between their users' pipes and the stack.

use crate::handle::TunnelStream;
use crate::handle::pipe::Pipe;
use crate::handle::shared::Shared;
use crate::stack::{FlowId, Stack};
use crate::streams::StreamError;
use bytes::Bytes;
use proto_core::key::NodePublic;
use proto_core::stream::{CODE_BAD_HEADER, CODE_CANCELLED, Header};
use proto_core::time::{Duration, Time};
use proto_core::wg::WgEngine;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Bytes of one read while the header is awaited; what comes after it is kept.
const HEADER_READ: usize = 4 * 1024;

/// How long a peer may take for a stream's header, which travels in the first packet of it.
const HEADER_PATIENCE: Duration = Duration::from_secs(30);

/// A stream that somebody wants to open.
pub(super) struct Opening {
    pub key: NodePublic,
    pub header: Vec<u8>,
    pub reply: oneshot::Sender<Result<TunnelStream, StreamError>>,
}

/// The streams of all peers.
#[derive(Default)]
pub(super) struct Flows {
    flows: BTreeMap<FlowId, Flow>,
    by_peer: BTreeMap<NodePublic, usize>,
    /// A peer got its first stream or lost its last.
    changed: bool,
    /// Those that must wait because very many are open.
    openings: VecDeque<Opening>,
    /// What is on its way from the stack to a pipe.
    chunks: VecDeque<Bytes>,
}

struct Flow {
    peer: NodePublic,
    pipe: Arc<Pipe>,
    /// What the user wrote and the stack has not taken yet.
    sending: VecDeque<Bytes>,
    /// Nothing more goes out.
    out_over: bool,
    /// Nothing more comes in.
    in_over: bool,
    /// The header's first bytes, while it is awaited, and since when it is.
    header: Option<(Vec<u8>, Time)>,
}

/// What a peer opened, once its header is known.
pub(super) type Arrived = (NodePublic, Header, Arc<Pipe>);

impl Flows {
    /// How many streams each peer has.
    pub(super) fn by_peer(&self) -> &BTreeMap<NodePublic, usize> {
        &self.by_peer
    }

    /// Whether a peer got its first stream or lost its last since this was asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Opens a stream for a user.
    pub(super) fn open<W: WgEngine>(
        &mut self,
        opening: Opening,
        stack: &mut Stack<W>,
        shared: &Arc<Shared>,
        now: Time,
    ) {
        match stack.open(&opening.key, now) {
            Ok(flow) => {
                let pipe = Arc::new(Pipe::new(flow, &opening.header));
                self.insert(flow, opening.key, pipe.clone(), None);
                let _ = opening.reply.send(Ok(TunnelStream::new(shared.clone(), pipe)));
                // Arms the word that something has come.
                self.pump_in(flow, stack);
            }
            Err(StreamError::TooMany | StreamError::Blocked) => self.openings.push_back(opening),
            Err(error) => {
                let _ = opening.reply.send(Err(error));
            }
        }
    }

    /// Another stream to this peer may be opened.
    pub(super) fn openable<W: WgEngine>(
        &mut self,
        peer: &NodePublic,
        stack: &mut Stack<W>,
        shared: &Arc<Shared>,
        now: Time,
    ) {
        for opening in std::mem::take(&mut self.openings) {
            // Whoever gave up waiting wants no stream.
            if opening.key == *peer && !opening.reply.is_closed() {
                self.open(opening, stack, shared, now);
            } else if opening.key != *peer {
                self.openings.push_back(opening);
            }
        }
    }

    /// A peer opened a stream.
    pub(super) fn incoming(&mut self, flow: FlowId, peer: NodePublic, now: Time) {
        self.insert(flow, peer, Arc::new(Pipe::new(flow, &[])), Some((Vec::new(), now)));
    }

    fn insert(&mut self, id: FlowId, peer: NodePublic, pipe: Arc<Pipe>, header: Option<(Vec<u8>, Time)>) {
        let flow = Flow { peer, pipe, sending: VecDeque::new(), out_over: false, in_over: false, header };
        if self.flows.insert(id, flow).is_none() {
            let count = self.by_peer.entry(peer).or_default();
            *count += 1;
            self.changed |= *count == 1;
        }
    }

    fn remove(&mut self, id: FlowId) {
        let Some(flow) = self.flows.remove(&id) else { return };
        if let Some(count) = self.by_peer.get_mut(&flow.peer) {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(&flow.peer);
                self.changed = true;
            }
        }
    }

    /// The user has done something.
    pub(super) fn touched<W: WgEngine>(&mut self, flow: FlowId, stack: &mut Stack<W>) {
        self.pump_out(flow, stack);
        self.pump_in(flow, stack);
    }

    /// The stack takes more.
    pub(super) fn writable<W: WgEngine>(&mut self, id: FlowId, stack: &mut Stack<W>) {
        self.pump_out(id, stack);
        // The peer may have said that it reads no more, to somebody who has nothing to write.
        let quiet = self.flows.get_mut(&id).filter(|flow| !flow.out_over && flow.sending.is_empty());
        if let Some((flow, code)) = quiet.and_then(|flow| Some((flow, stack.stopped(id)?))) {
            flow.pipe.fail_out(StreamError::Stopped(code));
        }
    }

    /// The stack has more: what the peer opened, if this completes its header.
    pub(super) fn readable<W: WgEngine>(&mut self, id: FlowId, stack: &mut Stack<W>) -> Option<Arrived> {
        let arrived = self.read_header(id, stack);
        self.pump_in(id, stack);
        arrived
    }

    pub(super) fn delivered(&self, flow: FlowId) {
        if let Some(flow) = self.flows.get(&flow) {
            flow.pipe.delivered();
        }
    }

    fn read_header<W: WgEngine>(&mut self, id: FlowId, stack: &mut Stack<W>) -> Option<Arrived> {
        let flow = self.flows.get_mut(&id)?;
        let (read, _) = flow.header.as_mut()?;
        let refused = loop {
            match stack.read_chunk(id, HEADER_READ) {
                Ok(chunk) if chunk.is_empty() => break CODE_CANCELLED,
                Ok(chunk) => read.extend_from_slice(&chunk),
                Err(StreamError::Blocked) => return None,
                Err(_) => break CODE_CANCELLED,
            }
            match Header::decode(read) {
                Ok(None) => {}
                Ok(Some((header, len))) => {
                    let rest = Bytes::copy_from_slice(&read[len..]);
                    flow.header = None;
                    if !rest.is_empty() {
                        flow.pipe.deliver(&mut VecDeque::from([rest]));
                    }
                    return Some((flow.peer, header, flow.pipe.clone()));
                }
                Err(error) => {
                    tracing::debug!(%error, peer = ?flow.peer, "a stream was refused");
                    break CODE_BAD_HEADER;
                }
            }
        };
        self.refuse(id, refused, stack);
        None
    }

    /// Ends a stream that nobody has been told of.
    fn refuse<W: WgEngine>(&mut self, id: FlowId, code: u32, stack: &mut Stack<W>) {
        stack.reset(id, code);
        stack.stop(id, code);
        stack.release(id);
        self.remove(id);
    }

    /// Moves what the user wrote into the stack, and does what else the user wants.
    fn pump_out<W: WgEngine>(&mut self, id: FlowId, stack: &mut Stack<W>) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        loop {
            let wanted = flow.pipe.look(&mut flow.sending);
            if let Some(code) = wanted.reset.filter(|_| !flow.out_over) {
                stack.reset(id, code);
                flow.give_up_sending();
            }
            if let Some(code) = wanted.stop.filter(|_| !flow.in_over) {
                stack.stop(id, code);
                flow.in_over = true;
            }
            if flow.out_over {
                flow.sending.clear();
            }
            if flow.sending.is_empty() {
                if wanted.finish && !flow.out_over {
                    flow.out_over = true;
                    if let Err(error) = stack.finish(id) {
                        flow.pipe.fail_out(error);
                    }
                }
                if wanted.dropped && flow.out_over {
                    stack.release(id);
                    self.remove(id);
                }
                return;
            }
            match stack.write_chunks(id, &mut flow.sending) {
                Ok(()) => {}
                Err(StreamError::Blocked) => return,
                Err(error) => {
                    flow.pipe.fail_out(error);
                    flow.give_up_sending();
                }
            }
        }
    }

    /// Moves what the stack has into the user's pipe, as far as there is room.
    fn pump_in<W: WgEngine>(&mut self, id: FlowId, stack: &mut Stack<W>) {
        while self.fill_pipe(id, stack) {}
    }

    /// Fills the pipe, all at once, so that the reader wakes once and finds much. True if it got full: the
    /// reader may have emptied it before it could know that it must tell.
    fn fill_pipe<W: WgEngine>(&mut self, id: FlowId, stack: &mut Stack<W>) -> bool {
        let Some(flow) = self.flows.get_mut(&id) else { return false };
        if flow.in_over || flow.header.is_some() {
            return false;
        }
        let mut room = flow.pipe.room();
        if room == 0 {
            return false;
        }
        let ended = loop {
            match stack.read_chunk(id, room) {
                Ok(chunk) if chunk.is_empty() => break Some(Ok(())),
                Ok(chunk) => {
                    room = room.saturating_sub(chunk.len());
                    self.chunks.push_back(chunk);
                }
                Err(StreamError::Blocked) => break None,
                Err(error) => break Some(Err(error)),
            }
            if room == 0 {
                break None;
            }
        };
        if !self.chunks.is_empty() {
            flow.pipe.deliver(&mut self.chunks);
        }
        match ended {
            Some(Ok(())) => flow.pipe.end(),
            Some(Err(error)) => flow.pipe.fail_in(error),
            None => return room == 0,
        }
        flow.in_over = true;
        false
    }

    /// To be called now and then: quiet streams keep no buffers, and those that never say what they are for are
    /// ended, since they would keep the path to their peer warm for ever.
    pub(super) fn relax<W: WgEngine>(&mut self, stack: &mut Stack<W>, now: Time) {
        let silent =
            |flow: &Flow| flow.header.as_ref().is_some_and(|(_, since)| now.since(*since) >= HEADER_PATIENCE);
        let late: Vec<_> = self.flows.iter().filter(|(_, flow)| silent(flow)).map(|(id, _)| *id).collect();
        for id in late {
            self.refuse(id, CODE_BAD_HEADER, stack);
        }
        for flow in self.flows.values_mut() {
            if flow.sending.is_empty() {
                flow.sending = VecDeque::new();
            }
            flow.pipe.relax();
        }
    }

    /// A peer is gone: whoever waits to open a stream to it is told.
    pub(super) fn peer_down(&mut self, peer: &NodePublic) {
        for opening in std::mem::take(&mut self.openings) {
            if opening.key == *peer {
                let _ = opening.reply.send(Err(StreamError::NoPeer));
            } else {
                self.openings.push_back(opening);
            }
        }
    }

    /// The node has stopped.
    pub(super) fn fail_all(&mut self) {
        self.openings.clear();
        for flow in std::mem::take(&mut self.flows).into_values() {
            flow.pipe.fail_in(StreamError::Lost);
            flow.pipe.fail_out(StreamError::Lost);
        }
    }
}

impl Flow {
    fn give_up_sending(&mut self) {
        self.out_over = true;
        self.sending = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::tests::world::{Net, World};

    /// A stream of which the peer has sent these bytes so far: the opener's end and ours.
    fn opened(world: &mut World, bytes: &[u8]) -> (FlowId, FlowId) {
        let (peer, now) = (world.key(1), world.now);
        let theirs = world.stacks[0].open(&peer, now).unwrap();
        assert_eq!(world.stacks[0].write(theirs, bytes), Ok(bytes.len()));
        world.run(Duration::from_millis(500));
        (theirs, world.incoming(1).unwrap())
    }

    #[test]
    fn a_stream_that_does_not_say_what_it_is_for_is_ended() {
        let mut world = World::new(Net::PERFECT, 1);
        let (peer, header) = (world.key(0), Header::Ping.encode());
        let (silent, awaited) = opened(&mut world, &header[..header.len() - 1]);
        let (quiet, known) = opened(&mut world, &header);
        let (mut flows, now) = (Flows::default(), world.now);
        for id in [awaited, known] {
            flows.incoming(id, peer, now);
        }
        assert!(flows.readable(awaited, &mut world.stacks[1]).is_none(), "a part is no header");
        assert!(flows.readable(known, &mut world.stacks[1]).is_some());
        flows.relax(&mut world.stacks[1], now + HEADER_PATIENCE - Duration::from_micros(1));
        assert_eq!(flows.by_peer().get(&peer), Some(&2), "it still has time");
        flows.relax(&mut world.stacks[1], now + HEADER_PATIENCE);
        assert_eq!(flows.by_peer().get(&peer), Some(&1), "it keeps no path warm any more");
        world.run(Duration::from_millis(500));
        let mut buffer = [0; 16];
        let code = CODE_BAD_HEADER.into();
        assert_eq!(world.stacks[0].read(silent, &mut buffer), Err(StreamError::Reset(code)));
        assert_eq!(world.stacks[0].write(silent, b"late"), Err(StreamError::Stopped(code)));
        assert_eq!(world.stacks[0].read(quiet, &mut buffer), Err(StreamError::Blocked), "the other goes on");
    }
}

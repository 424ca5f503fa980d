//! The data plane around the node machine, without sockets, clocks or tasks: WireGuard engine, streams inside
//! the tunnel, relayed packets. The async driver runs it in production and in lane 2 of the simulation, lane 1
//! calls it directly.
//!
//! How to drive it: give it what happened ([`Stack::handle`], [`Stack::datagram`]), say
//! [`Stack::end_of_batch`], then drain [`Stack::poll`] and [`Stack::poll_batch`] until both have nothing left,
//! and wait for the network, a command or [`Stack::deadline`]. Stream calls ([`Stack::write`] and the like)
//! may come at any time; drain after them too.
//!
//! Data travels in three ways. Sealed packets to an address leave by [`Stack::poll_batch`], many equal
//! segments a call, ready for one GSO send. Sealed packets to a relay leave by [`Stack::poll`] as
//! [`Output::Write`], whole SendPacket frames, as long as the stream has credit
//! ([`Input::StreamWritable`]). Everything that is not data goes through the node machine.

use crate::streams::StreamError;
use bytes::Bytes;
use core::net::SocketAddr;
use proto_core::id::LinkId;
use proto_core::key::NodePublic;
use proto_core::machine::{Input, Machine, Output};
use proto_core::node::{Node, NodeCommand, NodeConfig, NodeEvent};
use proto_core::seed::Seed;
use proto_core::time::Time;
use proto_core::wg::WgEngine;

mod batch;

pub use batch::{BATCH_BYTES, BATCH_SEGMENTS, SendBatch};

/// What a stack is made of.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// The node machine's own configuration.
    pub node: NodeConfig,
    /// What the kernel keeps of datagrams that nobody has read yet, in bytes: the smallest `SO_RCVBUF`
    /// obtained among the node's sockets. Peers are told, so that near zero round-trip time they never keep
    /// more in flight than half of it. See [`Stack::set_receive_buffer`].
    pub receive_buffer: usize,
}

/// A stream inside a tunnel, named by this stack; never used again for another stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowId(pub u64);

/// What a stack tells its owner.
#[derive(Clone, PartialEq, Debug)]
pub enum StackEvent {
    /// A word of the node machine.
    Node(NodeEvent),
    /// A peer opened a stream to us. Nothing of it has been read: the first bytes are its header
    /// (`proto_core::stream`).
    Incoming {
        /// Who.
        peer: NodePublic,
        /// The stream.
        flow: FlowId,
    },
    /// A read that would have blocked may give something now. Comes once for each such read.
    Readable(FlowId),
    /// A write that would have blocked may take something now. Comes once for each such write.
    Writable(FlowId),
    /// An open that would have blocked ([`StreamError::TooMany`]) may work now.
    Openable(NodePublic),
    /// Everything written to a finished stream has arrived.
    Delivered(FlowId),
    /// Datagrams of this peer can be read.
    Datagrams(NodePublic),
}

/// The data plane of one node.
pub struct Stack<W> {
    node: Node,
    engine: W,
}

impl<W: WgEngine> Stack<W> {
    /// A stack that waits for [`NodeCommand::Start`].
    #[must_use]
    pub fn new(config: StackConfig, engine: W, seed: &Seed, now: Time) -> Self {
        Self { node: Node::new(config.node, seed.fork("node"), now), engine }
    }

    /// What happened to a stream, a name, a link, or what the owner wants. Datagrams go to
    /// [`Stack::datagram`]; [`Input::Activity`] is the stack's own business and ignored here.
    pub fn handle(&mut self, input: Input<'_, NodeCommand>, now: Time) {
        self.node.handle(input, now);
    }

    /// A datagram from a UDP socket. The buffer may be scribbled on.
    pub fn datagram(&mut self, link: LinkId, from: SocketAddr, bytes: &mut [u8], now: Time) {
        self.node.handle(Input::Datagram { link, from, bytes }, now);
    }

    /// Nothing more has been received for now: reports activity to the core, lets QUIC answer.
    pub fn end_of_batch(&mut self, now: Time) {
        let _ = (&self.engine, now);
    }

    /// The next output that is not bulk data: drain it to `None` after every call that gives something.
    pub fn poll(&mut self) -> Option<Output<StackEvent>> {
        None
    }

    /// The next batch of sealed packets for one address, put into `batch`; false if there is none now.
    /// Whoever cannot send at once (the socket's buffer is full) stops calling: what is not polled waits
    /// inside, and its writers with it.
    pub fn poll_batch(&mut self, batch: &mut SendBatch, now: Time) -> bool {
        let _ = now;
        batch.clear();
        false
    }

    /// When to call [`Stack::handle`] with [`Input::Deadline`], and why.
    pub fn deadline(&self) -> Option<(Time, &'static str)> {
        self.node.deadline()
    }

    /// The node machine, to ask it for its status.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The sockets changed: what the smallest of them keeps unread, in bytes (`SO_RCVBUF` as obtained).
    /// Connections made from now on tell their peers.
    pub fn set_receive_buffer(&mut self, bytes: usize) {
        let _ = bytes;
    }

    /// Opens a stream to `peer`. Nothing is sent until something is written; the first bytes travel in the
    /// first datagram, even if the connection is new.
    ///
    /// # Errors
    /// [`StreamError::NoPeer`] if the node has no tunnel to it, [`StreamError::TooMany`] if too many streams
    /// are open: [`StackEvent::Openable`] tells when another may be opened.
    pub fn open(&mut self, peer: &NodePublic, now: Time) -> Result<FlowId, StreamError> {
        let _ = (peer, now);
        Err(StreamError::NoPeer)
    }

    /// Writes to a stream: how many bytes were taken, at least one unless `bytes` is empty.
    ///
    /// # Errors
    /// [`StreamError::Blocked`] if it takes nothing now ([`StackEvent::Writable`] tells when it does),
    /// [`StreamError::Stopped`] if the peer wants no more, [`StreamError::Lost`] if the connection is over,
    /// [`StreamError::Closed`] after `finish` or `reset`.
    pub fn write(&mut self, flow: FlowId, bytes: &[u8]) -> Result<usize, StreamError> {
        let _ = (flow, bytes);
        Err(StreamError::Closed)
    }

    /// Reads from a stream: how many bytes were put into `buffer`; 0 at its end (if `buffer` is not empty).
    ///
    /// # Errors
    /// [`StreamError::Blocked`] if there is nothing now ([`StackEvent::Readable`] tells when there is),
    /// [`StreamError::Reset`] if the peer reset it, [`StreamError::Lost`] if the connection is over,
    /// [`StreamError::Closed`] after `stop`.
    pub fn read(&mut self, flow: FlowId, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let _ = (flow, buffer);
        Err(StreamError::Closed)
    }

    /// The next bytes of a stream without copying them, at most `max`; empty at its end.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub fn read_chunk(&mut self, flow: FlowId, max: usize) -> Result<Bytes, StreamError> {
        let _ = (flow, max);
        Err(StreamError::Closed)
    }

    /// Ends our half of a stream: the peer reads what was written, then the end.
    ///
    /// # Errors
    /// [`StreamError::Closed`], [`StreamError::Stopped`] or [`StreamError::Lost`].
    pub fn finish(&mut self, flow: FlowId) -> Result<(), StreamError> {
        let _ = flow;
        Err(StreamError::Closed)
    }

    /// Abandons our half of a stream: the peer reads [`StreamError::Reset`] with this code.
    pub fn reset(&mut self, flow: FlowId, code: u32) {
        let _ = (flow, code);
    }

    /// Reads no more of a stream: the peer's writes fail with [`StreamError::Stopped`] and this code.
    pub fn stop(&mut self, flow: FlowId, code: u32) {
        let _ = (flow, code);
    }

    /// Nobody holds the stream any more: halves still open are reset and stopped with code 0 (a half that
    /// was finished goes on delivering), and the name is forgotten.
    pub fn release(&mut self, flow: FlowId) {
        let _ = flow;
    }

    /// Streams of higher priority send first; 0 is what a stream begins with.
    pub fn set_priority(&mut self, flow: FlowId, priority: i32) {
        let _ = (flow, priority);
    }

    /// The peer at the other end of a stream.
    pub fn peer_of(&self, flow: FlowId) -> Option<NodePublic> {
        let _ = flow;
        None
    }

    /// Sends a datagram inside the tunnel, unreliable but congestion controlled; the oldest waiting are
    /// dropped when too many wait.
    ///
    /// # Errors
    /// [`StreamError::NoPeer`], [`StreamError::TooLong`] or, before the connection stands,
    /// [`StreamError::Blocked`].
    pub fn send_datagram(&mut self, peer: &NodePublic, bytes: Bytes, now: Time) -> Result<(), StreamError> {
        let _ = (peer, bytes, now);
        Err(StreamError::NoPeer)
    }

    /// The next datagram of this peer; [`StackEvent::Datagrams`] tells when there is one again.
    pub fn receive_datagram(&mut self, peer: &NodePublic) -> Option<Bytes> {
        let _ = peer;
        None
    }
}

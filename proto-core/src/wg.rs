//! The tunnel's engine as a port: boringtun fills it in production, a model in simulation. The core never
//! seals; it decides when to shake hands anew, since no engine revives an expired session by itself.

use crate::key::NodePublic;
use crate::time::Time;
use core::net::IpAddr;

mod supervisor;

pub use supervisor::{HandshakeCommand, HandshakeEvent, HandshakeSupervisor};

/// Bytes that WireGuard adds to an inner packet (whitepaper, 5.4.6): header 16, tag 16.
pub const OVERHEAD: usize = 32;
/// The longest message an engine makes besides data: a handshake initiation (whitepaper, 5.4.2).
pub const INITIATION_LEN: usize = 148;

/// A WireGuard engine with many peers.
pub trait WgEngine {
    /// Lets `peer` in. A peer already known stays as it is.
    fn add_peer(&mut self, peer: NodePublic);

    /// Forgets `peer` and its session.
    fn remove_peer(&mut self, peer: &NodePublic);

    /// Seals `inner`, an IPv6 packet, for `peer` into `out`, which has room for `inner.len() + OVERHEAD` and at
    /// least [`INITIATION_LEN`] bytes. Without a session it waits, and if there has been one since the peer
    /// was added or reset, a handshake begins; the first is begun by [`WgEngine::initiate`] alone.
    fn seal(&mut self, peer: &NodePublic, inner: &[u8], out: &mut [u8], now: Time) -> Sealed;

    /// Where the datagrams given to [`WgEngine::open`] from now on come from, if it is an address: under load
    /// an engine asks the senders of handshakes to prove that they receive there (cookies; whitepaper, 5.3).
    fn source(&mut self, from: Option<IpAddr>) {
        let _ = from;
    }

    /// Opens a datagram into `out`, which has room for `datagram.len()` and at least [`INITIATION_LEN`] bytes.
    fn open(&mut self, datagram: &[u8], out: &mut [u8], now: Time) -> Opened;

    /// After [`Opened::Reply`] and [`Opened::Established`]: the next packet that had waited for the session.
    fn flush(&mut self, peer: &NodePublic, out: &mut [u8], now: Time) -> Option<usize>;

    /// Begins a handshake with `peer`, or repeats the initiation of one under way: its length in `out`, none if
    /// the peer is unknown. The engine repeats it by itself every 5 s for 90 s.
    fn initiate(&mut self, peer: &NodePublic, out: &mut [u8], now: Time) -> Option<usize>;

    /// Forgets `peer`'s sessions: packets wait until a handshake is complete. One under way goes on.
    fn reset(&mut self, peer: &NodePublic);

    /// Runs the engine's timers (retransmission, keepalive, renewal): call until `None`; the peer and the
    /// length of a packet to send in `out`.
    fn tick(&mut self, out: &mut [u8], now: Time) -> Option<(NodePublic, usize)>;

    /// When to call [`WgEngine::tick`] next.
    fn next_tick(&self) -> Option<Time>;
}

/// What sealing gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sealed {
    /// A data packet of this length, to send.
    Data(usize),
    /// No session yet: the packet waits inside the engine, and this is an initiation to send.
    Initiation(usize),
    /// No session yet: the packet waits inside the engine.
    Waiting,
    /// The peer is unknown, or too much waits already.
    Dropped,
}

/// What opening gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// An inner packet of this length, from this peer.
    Data(NodePublic, usize),
    /// A keepalive of this peer: it proves the way, nothing more.
    Keepalive(NodePublic),
    /// A handshake message of this peer, and an answer of this length to send back the same way.
    Reply(NodePublic, usize),
    /// A handshake with this peer is complete (its response has arrived); what waited can be flushed.
    /// The length is that of a keepalive to send that confirms it, if any.
    Established(NodePublic, Option<usize>),
    /// Too many handshakes at once: a cookie of this length, to send back the same way. The sender is not
    /// known to be anybody.
    Cookie(usize),
    /// Not for us, not authentic, or a replay.
    Refused(&'static str),
}

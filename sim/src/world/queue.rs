//! What will happen, in order.

use crate::step::Role;
use crate::topology::HostId;
use crate::topology::fabric::Flight;
use crate::world::tcp::TcpEvent;
use proto_core::id::LinkId;
use proto_core::time::Time;
use std::cmp::Ordering;
use std::net::SocketAddr;

/// What will happen.
#[derive(Debug)]
pub(super) enum Event {
    Flight(Flight),
    Tcp(TcpEvent),
    Wake(HostId),
    Resolved(HostId, u64, String),
    Step(usize),
    /// A roaming node is plugged in again.
    Landed(Role),
    /// A process's datagram could not leave.
    Unreachable(HostId, u64, (LinkId, SocketAddr)),
}

pub(super) struct Entry {
    pub(super) at: Time,
    pub(super) sequence: u64,
    pub(super) event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

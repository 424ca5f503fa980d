//! The sockets of a STUN server: one at the address it is known by, one at another port, and the same two at a second
//! address of this machine if it may use one.

use crate::transport::{Datagrams, UdpLink};
use core::net::{IpAddr, SocketAddr};
use proto_core::wire::stun::{Change, Place};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Attempts at finding a port that is free at both addresses.
const PORT_TRIES: u32 = 16;

/// The sockets, each named by what differs from the main one.
pub(super) struct Sockets<U> {
    slots: [Slot<U>; 4],
}

struct Slot<U> {
    address: Option<SocketAddr>,
    /// None while it is dead.
    socket: Mutex<Option<Arc<U>>>,
}

impl<U> Slot<U> {
    fn of(address: Option<SocketAddr>, socket: Option<U>) -> Self {
        Self { address, socket: Mutex::new(socket.map(Arc::new)) }
    }
}

impl<U: UdpLink> Sockets<U> {
    /// All that there can be, the main one first.
    pub(super) const ALL: [Change; 4] = [
        Change { address: false, port: false },
        Change { address: false, port: true },
        Change { address: true, port: false },
        Change { address: true, port: true },
    ];

    /// Binds them.
    pub(super) async fn bind(
        address: SocketAddr,
        other: Option<IpAddr>,
        bind: impl AsyncFn(SocketAddr) -> io::Result<U>,
    ) -> io::Result<Self> {
        let main = bind(address).await?;
        let port = main.local_addr().port();
        let third = match other {
            Some(ip) => Some(bind(SocketAddr::new(ip, port)).await?),
            None => None,
        };
        for attempt in 1.. {
            let second = bind(SocketAddr::new(address.ip(), 0)).await?;
            let Some(ip) = other else {
                return Ok(Self::of([Some(main), Some(second), None, None]));
            };
            match bind(SocketAddr::new(ip, second.local_addr().port())).await {
                Ok(fourth) => return Ok(Self::of([Some(main), Some(second), third, Some(fourth)])),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < PORT_TRIES => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// A server that has one socket only.
    #[cfg(test)]
    pub(super) fn one(socket: U) -> Self {
        Self::of([Some(socket), None, None, None])
    }

    fn of(sockets: [Option<U>; 4]) -> Self {
        Self { slots: sockets.map(|socket| Slot::of(socket.as_ref().map(UdpLink::local_addr), socket)) }
    }

    /// The address that the server is known by.
    pub(super) fn main(&self) -> SocketAddr {
        self.address(Change::default()).unwrap_or_else(|| ([0, 0, 0, 0], 0).into())
    }

    pub(super) fn address(&self, which: Change) -> Option<SocketAddr> {
        self.slots[index(which)].address
    }

    pub(super) fn get(&self, which: Change) -> Option<Arc<U>> {
        self.slots[index(which)].socket.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, which: Change, socket: U) {
        *self.slots[index(which)].socket.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(socket));
    }

    pub(super) fn close(&self, which: Change) {
        *self.slots[index(which)].socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Where a request came to that one of them received at the address `asked`, if that is known.
    pub(super) fn place(&self, which: Change, asked: Option<IpAddr>) -> Place {
        let bound = self.address(which).unwrap_or_else(|| self.main());
        let ip = if bound.ip().is_unspecified() { asked.unwrap_or(bound.ip()) } else { bound.ip() };
        let other = |change| self.address(step(which, change));
        Place {
            origin: SocketAddr::new(ip, bound.port()),
            other_ip: other(Change { address: true, port: false }).map(|a| a.ip()),
            other_port: other(Change::PORT).map(|a| a.port()),
        }
    }

    /// Sends from the socket that differs so from `which`.
    pub(super) fn send(&self, which: Change, change: Change, datagram: &Datagrams<'_>) -> io::Result<usize> {
        let socket = self.get(step(which, change)).ok_or(io::ErrorKind::NotConnected)?;
        socket.try_send(datagram)
    }
}

const fn index(which: Change) -> usize {
    which.port as usize + 2 * which.address as usize
}

/// The socket that differs from `which` by `change`.
const fn step(which: Change, change: Change) -> Change {
    Change { address: which.address != change.address, port: which.port != change.port }
}

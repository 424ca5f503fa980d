//! How a TCP connection travels: the way is found once, at the SYN; afterwards its bytes pass along it, as
//! long as links, partitions and the NATs' TCP tables let them.

use super::{HostId, NatId, Owner, PortId, Topology};
use crate::nat::{Protocol, Verdict};
use proto_core::time::{Duration, Time};
use std::net::SocketAddr;

/// The retransmission timeout that a lost segment costs (RFC 6298's minimum as Linux has it).
const RTO: Duration = Duration::from_millis(200);

/// The way of a connection, from the client's side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    legs: Vec<Leg>,
    /// The server's host.
    pub server: HostId,
    /// The client's address as the server sees it.
    pub seen: SocketAddr,
}

/// From one port to another on their segment, and through the NAT that the latter belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Leg {
    from: PortId,
    to: PortId,
    crossing: Option<Crossing>,
}

/// A connection in a NAT's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Crossing {
    nat: NatId,
    inside: SocketAddr,
    outside: SocketAddr,
    remote: SocketAddr,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Heading {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

impl Heading {
    /// The other way.
    #[must_use]
    pub const fn back(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

/// Why bytes did not pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// Silence: a cut link, a partition, a table that forgot. TCP tries again.
    Stalled,
    /// Somebody answered with a reset.
    Reset,
}

impl Topology {
    /// The way from a host to a server, made known to the NATs on it.
    ///
    /// # Errors
    /// [`Obstacle::Stalled`] if there is none, [`Obstacle::Reset`] if somebody says so at once.
    pub fn connect(
        &mut self,
        now: Time,
        host: HostId,
        local: u16,
        dst: SocketAddr,
    ) -> Result<Route, Obstacle> {
        let mut from = self.hosts[host.0].port.ok_or(Obstacle::Stalled)?;
        let mut src = SocketAddr::new(self.ports[from.0].address, local);
        let mut legs = Vec::new();
        loop {
            let to = self.next_port(from, dst.ip()).ok_or(Obstacle::Stalled)?;
            match self.ports[to.0].owner {
                Owner::Host(server) => {
                    legs.push(Leg { from, to, crossing: None });
                    return Ok(Route { legs, server, seen: src });
                }
                Owner::Inside(nat) => {
                    let b = &mut self.nats[nat.0];
                    let outside = match b.nat.outbound(now, Protocol::Tcp, (src, dst), true) {
                        Verdict::Forward { src, .. } => src,
                        Verdict::Reject => return Err(Obstacle::Reset),
                        Verdict::Hairpin { .. } | Verdict::Drop(_) => return Err(Obstacle::Stalled),
                    };
                    let crossing = Crossing { nat, inside: src, outside, remote: dst };
                    legs.push(Leg { from, to, crossing: Some(crossing) });
                    (from, src) = (self.nats[nat.0].outside, outside);
                }
                // Nobody behind a NAT listens in these worlds.
                Owner::Outside(_) => return Err(Obstacle::Reset),
            }
        }
    }

    /// How long `len` bytes take along `route`.
    ///
    /// # Errors
    /// If they do not pass.
    pub fn carry(
        &mut self,
        now: Time,
        route: &Route,
        heading: Heading,
        len: usize,
    ) -> Result<Duration, Obstacle> {
        let mut at = now;
        let count = route.legs.len();
        for n in 0..count {
            let (leg, from, to) = match heading {
                Heading::ToServer => (route.legs[n], route.legs[n].from, route.legs[n].to),
                Heading::ToClient => {
                    let leg = route.legs[count - 1 - n];
                    (leg, leg.to, leg.from)
                }
            };
            if heading == Heading::ToClient {
                self.cross(now, leg, heading)?;
            }
            if !self.is_plugged(from) || !self.is_plugged(to) || self.is_partitioned(from, to) {
                return Err(Obstacle::Stalled);
            }
            at += self.ports[from.0].up.pass_stream(at, len, RTO).ok_or(Obstacle::Stalled)?;
            at += self.ports[to.0].down.pass_stream(at, len, RTO).ok_or(Obstacle::Stalled)?;
            if heading == Heading::ToServer {
                self.cross(now, leg, heading)?;
            }
        }
        Ok(at.since(now))
    }

    /// The NATs on the way forget the connection.
    pub fn disconnect(&mut self, route: &Route) {
        for crossing in route.legs.iter().filter_map(|leg| leg.crossing) {
            self.nats[crossing.nat.0].nat.closed(crossing.inside, crossing.remote);
        }
    }

    fn is_plugged(&self, port: PortId) -> bool {
        match self.ports[port.0].owner {
            Owner::Host(host) => self.hosts[host.0].port == Some(port),
            Owner::Inside(_) | Owner::Outside(_) => true,
        }
    }

    fn cross(&mut self, now: Time, leg: Leg, heading: Heading) -> Result<(), Obstacle> {
        let Some(Crossing { nat, inside, outside, remote }) = leg.crossing else { return Ok(()) };
        let nat = &mut self.nats[nat.0].nat;
        let (verdict, expected) = match heading {
            Heading::ToServer => {
                (nat.outbound(now, Protocol::Tcp, (inside, remote), false), (outside, remote))
            }
            Heading::ToClient => (nat.inbound(now, Protocol::Tcp, remote, outside), (remote, inside)),
        };
        match verdict {
            Verdict::Forward { src, dst } if (src, dst) == expected => Ok(()),
            // Another port than the server knows, or another host: whoever gets it resets it.
            Verdict::Forward { .. } | Verdict::Hairpin { .. } | Verdict::Reject => Err(Obstacle::Reset),
            Verdict::Drop(_) => Err(Obstacle::Stalled),
        }
    }
}

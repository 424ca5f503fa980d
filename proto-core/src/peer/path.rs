//! Which of two working paths is the better one, and when it is worth a move.

use crate::limits;
use crate::time::Duration;
use core::net::{IpAddr, SocketAddr};

/// What we know of a path that answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quality {
    /// The peer's address.
    pub addr: SocketAddr,
    /// Its round trip.
    pub latency: Duration,
}

impl Quality {
    /// A direct path.
    #[must_use]
    pub const fn direct(addr: SocketAddr, latency: Duration) -> Self {
        Self { addr, latency }
    }

    /// The points of an address for being near: the nearer network is less likely to change or to cost.
    pub(super) fn points(ip: IpAddr) -> u64 {
        let near = if ip.is_loopback() {
            50
        } else if is_link_local(ip) {
            30
        } else if is_private(ip) {
            20
        } else {
            0
        };
        near + if ip.is_ipv6() { 10 } else { 0 }
    }

    /// Whether this path is better than `other` by Tailscale's rule (`betterAddr`): a gain in latency
    /// counts in per cent of the slower one, nearness and IPv6 in points.
    #[must_use]
    pub fn better_than(&self, other: Option<&Self>) -> bool {
        let Some(other) = other else { return true };
        if self.addr == other.addr {
            return false;
        }
        let (ours, theirs) = (self.latency.as_nanos(), other.latency.as_nanos());
        let (mut mine, mut its) = (0, 0);
        if ours > theirs {
            its = gain(ours, theirs);
        } else if theirs > 0 {
            mine = gain(theirs, ours);
        }
        mine += Self::points(self.addr.ip());
        its += Self::points(other.addr.ip());
        // One per cent is noise.
        if mine <= 1 && its == 0 {
            return false;
        }
        mine > its
    }

    /// Whether this path gains enough on `current` to be worth a move. Latencies of neighbours differ by
    /// chance.
    pub(super) fn worth_moving(&self, current: &Self) -> bool {
        let gain = current.latency.saturating_sub(self.latency);
        let worth = gain >= limits::PATH_GAIN.max(current.latency / 10)
            || Self::points(self.addr.ip()) > Self::points(current.addr.ip());
        worth && self.better_than(Some(current))
    }
}

/// By how many per cent `fast` is faster than `slow`, rounded as the rule's source does.
fn gain(slow: u128, fast: u128) -> u64 {
    100 - u64::try_from(fast * 100 / slow).unwrap_or(100)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quality(ip: &str, millis: u64) -> Quality {
        Quality::direct(SocketAddr::new(ip.parse().unwrap(), 555), Duration::from_millis(millis))
    }

    #[test]
    fn tailscales_vectors_hold() {
        let (public, other) = ("1.1.1.1", "2.2.2.2");
        let rows = [
            (quality(public, 5), quality(other, 10), true, None),
            (quality(public, 100), quality(other, 100), false, None),
            (quality(public, 100), quality(other, 101), false, None),
            (quality(public, 100), quality(other, 103), true, None),
            (quality(public, 0), quality(other, 0), false, None),
            (quality("10.0.0.2", 100), quality(public, 91), true, Some(false)),
            (quality("10.0.0.2", 100), quality(public, 30), false, Some(true)),
            (quality("2001::5", 100), quality(public, 91), true, Some(false)),
            (quality("2001::5", 100), quality(public, 30), false, Some(true)),
            (quality(public, 10), quality(public, 30), false, None),
            (quality("10.0.0.2", 100), quality("2001::5", 101), true, None),
            (quality("fe80::1", 101), quality("fd00::1", 100), true, None),
            (quality("fe80::1", 101), quality("::1", 100), false, None),
        ];
        for (a, b, better, reverse) in rows {
            assert_eq!(a.better_than(Some(&b)), better, "{a:?} {b:?}");
            if let Some(reverse) = reverse {
                assert_eq!(b.better_than(Some(&a)), reverse, "{b:?} {a:?}");
            }
        }
        assert!(quality(public, 900).better_than(None));
    }

    #[test]
    fn a_move_needs_a_gain() {
        let current = quality("1.1.1.1", 20);
        assert!(quality("2.2.2.2", 10).worth_moving(&current));
        assert!(!quality("2.2.2.2", 19).worth_moving(&current));
        assert!(quality("10.0.0.2", 20).worth_moving(&current));
        // On one host, microseconds of difference are no reason.
        let local = Quality { latency: Duration::from_micros(150), ..quality("10.0.0.2", 0) };
        let twin = Quality { latency: Duration::from_micros(50), ..quality("10.0.0.3", 0) };
        assert!(!twin.worth_moving(&local));
    }

    proptest! {
        #[test]
        fn of_two_paths_at_most_one_is_better(
            a in 0_u64..400, b in 0_u64..400, i in 0_usize..6, j in 0_usize..6,
        ) {
            let ips = ["1.1.1.1", "10.0.0.2", "2001::5", "fd00::1", "::1", "fe80::1"];
            let a = quality(ips[i], a);
            let b = quality(ips[j], b);
            prop_assert!(!(a.better_than(Some(&b)) && b.better_than(Some(&a))));
        }
    }
}

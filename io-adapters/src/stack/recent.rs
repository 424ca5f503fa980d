//! What went to a peer directly a moment ago, to be sent once more through a relay when the path is found doubtful:
//! the peer's streams would else wait for QUIC to miss it, a round trip and three packets later. WireGuard refuses
//! what arrives twice.

use proto_core::time::{Duration, Time};
use std::collections::VecDeque;

/// How long a packet is kept: the patience with an echo at a round trip of 300 ms, after which doubt begins.
const KEPT: Duration = Duration::from_millis(500);
/// The most packets kept, far below WireGuard's replay window, which also has to hold those that come after them.
const PACKETS_MAX: usize = 64;
/// The most bytes kept of a peer. What sends more within [`KEPT`] is no person at a keyboard, and copying it costs more
/// than it gains: QUIC has enough packets under way to find its losses soon.
const BYTES_MAX: usize = 64 << 10;

/// The packets of one peer, sealed, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    packets: VecDeque<(Time, Vec<u8>)>,
    bytes: usize,
    /// Too much is being sent until then for any of it to be kept.
    busy_until: Option<Time>,
}

impl Recent {
    /// Keeps packets that have just been sent, `bytes` together.
    pub(super) fn keep<'a>(&mut self, packets: impl Iterator<Item = &'a [u8]>, bytes: usize, now: Time) {
        if self.busy_until.is_some_and(|until| now < until) {
            return;
        }
        self.forget(now);
        let before = self.packets.len();
        if self.bytes + bytes <= BYTES_MAX {
            self.packets.extend(packets.take(PACKETS_MAX + 1).map(|packet| (now, packet.to_vec())));
        }
        if self.packets.len() == before || self.packets.len() > PACKETS_MAX {
            *self = Self { busy_until: Some(now + KEPT), ..Self::default() };
            return;
        }
        self.bytes += bytes;
    }

    /// Those that may be under way still, each given once.
    pub(super) fn take(&mut self, now: Time) -> impl Iterator<Item = Vec<u8>> + use<> {
        self.forget(now);
        std::mem::take(self).packets.into_iter().map(|(_, packet)| packet)
    }

    fn forget(&mut self, now: Time) {
        while let Some((_, packet)) = self.packets.front().filter(|(at, _)| now.since(*at) > KEPT) {
            self.bytes -= packet.len();
            self.packets.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn keep(recent: &mut Recent, packets: &[&[u8]], millis: u64) {
        let bytes = packets.iter().map(|packet| packet.len()).sum();
        recent.keep(packets.iter().copied(), bytes, at(millis));
    }

    #[test]
    fn what_went_lately_is_given_once_in_its_order() {
        let mut recent = Recent::default();
        keep(&mut recent, &[b"old"], 0);
        keep(&mut recent, &[b"a", b"bc"], 200);
        keep(&mut recent, &[b"d"], 600);
        assert_eq!(recent.take(at(600)).collect::<Vec<_>>(), [&b"a"[..], b"bc", b"d"]);
        assert_eq!(recent.take(at(600)).count(), 0);
        assert_eq!(recent.bytes, 0);
    }

    #[test]
    fn of_much_nothing_is_kept_until_it_is_little_again() {
        let long = vec![0; 1_400];
        let mut recent = Recent::default();
        for n in 0..100 {
            keep(&mut recent, &[&long], n);
            assert!(recent.bytes <= BYTES_MAX && recent.packets.len() <= PACKETS_MAX);
        }
        assert_eq!(recent.take(at(100)).count(), 0);
        keep(&mut recent, &[b"key"], 1_000);
        assert_eq!(recent.take(at(1_000)).count(), 1);
        let many = vec![&b"x"[..]; PACKETS_MAX + 1];
        keep(&mut recent, &many, 2_000);
        assert_eq!(recent.take(at(2_000)).count(), 0);
    }
}

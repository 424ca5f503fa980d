//! Who has received packets from a key, and so is told when it leaves.
//!
//! Whoever remembers more than it may forgets those that it was told of longest ago, half of all at a time: which
//! costs little, and a busy sender tells of those that it still sends to again.

use crate::key::NodePublic;
use crate::limits;
use std::collections::BTreeSet;

/// The receivers of one key. They are not to be dropped, but given back by [`Room::release`].
#[derive(Debug, Default)]
pub(super) struct Receivers {
    recent: BTreeSet<NodePublic>,
    before: BTreeSet<NodePublic>,
}

impl Receivers {
    /// How many there are beyond what each key may have without asking.
    fn shared(&self) -> usize {
        (self.recent.len() + self.before.len()).saturating_sub(limits::RELAY_SEEN_OWN)
    }
}

/// What the receivers of all keys share.
#[derive(Debug)]
pub(super) struct Room {
    total: usize,
    taken: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { total: limits::RELAY_SEEN_SHARED, taken: 0 }
    }
}

impl Room {
    /// One more has received a packet.
    pub(super) fn add(&mut self, receivers: &mut Receivers, to: NodePublic) {
        let before = receivers.shared();
        let most = if self.taken < self.total { limits::RELAY_SEEN_MAX } else { limits::RELAY_SEEN_OWN };
        if receivers.recent.len() >= most && !receivers.recent.contains(&to) {
            receivers.before = core::mem::take(&mut receivers.recent);
        }
        receivers.before.remove(&to);
        receivers.recent.insert(to);
        self.taken = self.taken - before + receivers.shared();
    }

    /// All of them; nothing is remembered any more.
    pub(super) fn release(&mut self, mut receivers: Receivers) -> BTreeSet<NodePublic> {
        self.taken -= receivers.shared();
        receivers.recent.append(&mut receivers.before);
        receivers.recent
    }

    /// Those of one key are now those of another.
    pub(super) fn inherit(&mut self, heir: &mut Receivers, receivers: Receivers) {
        for to in self.release(receivers) {
            self.add(heir, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> NodePublic {
        let mut bytes = [0; 32];
        bytes[24..].copy_from_slice(&n.to_be_bytes());
        NodePublic(bytes)
    }

    #[test]
    fn the_latest_are_remembered_and_those_told_of_again() {
        let (mut room, mut receivers) = (Room::default(), Receivers::default());
        let max = limits::RELAY_SEEN_MAX;
        for n in 0..5 * max + 7 {
            room.add(&mut receivers, key(n));
            if n % (max / 2) == 0 {
                room.add(&mut receivers, key(0));
            }
            assert!(room.taken <= 2 * max);
        }
        let all = room.release(receivers);
        assert!(all.contains(&key(0)));
        assert!((4 * max + 7..5 * max + 7).all(|n| all.contains(&key(n))));
        assert!(all.len() <= 2 * max);
        assert_eq!(room.taken, 0);
    }

    #[test]
    fn those_who_have_much_leave_the_others_their_own() {
        let own = limits::RELAY_SEEN_OWN;
        let mut room = Room { total: 4 * own, taken: 0 };
        let mut greedy = Receivers::default();
        (0..1_000).for_each(|n| room.add(&mut greedy, key(n)));
        let mut many: Vec<_> = (0..10).map(|_| Receivers::default()).collect();
        for receivers in &mut many {
            (0..own).for_each(|n| room.add(receivers, key(n)));
        }
        (1_000..2_000).for_each(|n| room.add(&mut greedy, key(n)));
        assert!(room.taken <= 4 * own + own, "{}", room.taken);
        let first = many.remove(0);
        room.inherit(&mut many[0], first);
        for receivers in many {
            assert_eq!(room.release(receivers), (0..own).map(key).collect());
        }
        room.release(greedy);
        assert_eq!(room.taken, 0);
    }
}

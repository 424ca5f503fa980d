//! One session: keys of both directions, a counter, a replay window.

use super::{HEADER_LEN, TAG_LEN, cipher};
use proto_core::time::Time;
use proto_core::wg::OVERHEAD;

/// Packets that may come later than others, as in boringtun.
const WINDOW: u64 = 1_024;

/// Why a repeated packet is refused.
pub(super) const REPLAY: &str = "a packet that was seen before";

#[derive(Debug)]
pub(super) struct Session {
    pub(super) ours: u32,
    theirs: u32,
    send_key: u64,
    receive_key: u64,
    /// When it was begun, by the peer's timers.
    pub(super) begun: Time,
    counter: u64,
    next: u64,
    seen: [u64; (WINDOW / 64) as usize],
}

impl Session {
    /// A session of the secret and both sides' numbers; `indices` are ours and theirs.
    pub(super) fn new(secrets: [u64; 3], indices: (u32, u32), initiator: bool) -> Self {
        let key = secrets.into_iter().fold(0, cipher::mix);
        let (first, second) = (cipher::mix(key, 1), cipher::mix(key, 2));
        let (send_key, receive_key) = if initiator { (first, second) } else { (second, first) };
        Self {
            ours: indices.0,
            theirs: indices.1,
            send_key,
            receive_key,
            begun: Time::ZERO,
            counter: 0,
            next: 0,
            seen: [0; (WINDOW / 64) as usize],
        }
    }

    /// Seals `inner` into `out`; its length, or none if `out` is too short.
    pub(super) fn seal(&mut self, inner: &[u8], out: &mut [u8]) -> Option<usize> {
        let len = inner.len() + OVERHEAD;
        let out = out.get_mut(..len)?;
        out[..4].copy_from_slice(&[4, 0, 0, 0]);
        out[4..8].copy_from_slice(&self.theirs.to_le_bytes());
        out[8..HEADER_LEN].copy_from_slice(&self.counter.to_le_bytes());
        out[HEADER_LEN..HEADER_LEN + inner.len()].copy_from_slice(inner);
        let key = cipher::mix(self.send_key, self.counter);
        cipher::apply(key, &mut out[HEADER_LEN..HEADER_LEN + inner.len()]);
        let tag = cipher::tag(key, &out[..len - TAG_LEN]);
        out[len - TAG_LEN..].copy_from_slice(&tag);
        self.counter += 1;
        Some(len)
    }

    /// Opens a data message of at least [`OVERHEAD`] bytes into `out`.
    pub(super) fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, &'static str> {
        let counter = word(&datagram[8..HEADER_LEN]);
        let (text, tag) = datagram.split_at(datagram.len() - TAG_LEN);
        let key = cipher::mix(self.receive_key, counter);
        if cipher::tag(key, text) != tag {
            return Err("a packet that is not authentic");
        }
        if !self.is_new(counter) {
            return Err(REPLAY);
        }
        let inner = &text[HEADER_LEN..];
        let out = out.get_mut(..inner.len()).ok_or("no room for the packet")?;
        out.copy_from_slice(inner);
        cipher::apply(key, out);
        Ok(inner.len())
    }

    fn is_new(&mut self, counter: u64) -> bool {
        if counter + WINDOW < self.next {
            return false;
        }
        // What lies between has not come yet: its places still tell of packets of a window ago.
        let skipped = self.next.max(counter.saturating_sub(WINDOW - 1))..counter;
        for missing in skipped {
            let (slot, bit) = place(missing);
            self.seen[slot] &= !bit;
        }
        let (slot, bit) = place(counter);
        let new = counter >= self.next || self.seen[slot] & bit == 0;
        self.seen[slot] |= bit;
        self.next = self.next.max(counter + 1);
        new
    }
}

/// Where a counter is kept.
const fn place(counter: u64) -> (usize, u64) {
    ((counter % WINDOW / 64) as usize, 1 << (counter % 64))
}

/// Eight bytes as a number.
pub(super) fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

//! What happened, as a rolling hash always and as text when asked.
//!
//! The hash takes (time, from, to, kind, length) and never ciphertext, so that it is the same wherever the
//! machines decide the same.

use proto_core::time::Time;
use std::fmt;

/// Lines kept of a text trace; the last ones are those that explain a failure.
const LINES_MAX: usize = 200_000;

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Happening {
    /// A datagram left a host.
    Sent = 1,
    /// A datagram reached a host.
    Arrived,
    /// A datagram was lost on a link.
    Lost,
    /// A NAT, a route or a host dropped a datagram.
    Dropped,
    /// Bytes of a stream were sent.
    StreamBytes,
    /// A stream was asked for, opened or closed.
    Stream,
    /// A fault or a workload step.
    Step,
    /// A node said something.
    Said,
}

/// A trace.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    count: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// A trace; with text if `text`.
    #[must_use]
    pub const fn new(text: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, count: 0, lines: if text { Some(Vec::new()) } else { None } }
    }

    /// The hash of all that happened so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// How much happened so far.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether text is kept: ask before making some that is costly.
    #[must_use]
    pub const fn has_text(&self) -> bool {
        self.lines.is_some()
    }

    /// The last `n` lines.
    #[must_use]
    pub fn tail(&self, n: usize) -> &[String] {
        let lines = self.lines.as_deref().unwrap_or_default();
        &lines[lines.len().saturating_sub(n)..]
    }

    /// Notes that something happened: `from` and `to` are small numbers of whatever took part, `detail`
    /// (a kind of datagram, a reason) goes into the hash as well, `text` does not.
    pub fn note(&mut self, now: Time, what: Happening, numbers: [u64; 4], text: impl FnOnce() -> String) {
        self.count += 1;
        for n in [now.as_micros(), what as u64].into_iter().chain(numbers) {
            self.hash = (self.hash ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        if let Some(lines) = &mut self.lines {
            if lines.len() >= LINES_MAX {
                lines.drain(..LINES_MAX / 2);
            }
            lines.push(format!("{now} {:<11} {}", format!("{what:?}"), text()));
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.tail(LINES_MAX) {
            writeln!(f, "{line}")?;
        }
        write!(f, "trace hash {:016x} over {} happenings", self.hash, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(numbers: &[[u64; 4]]) -> u64 {
        let mut trace = Trace::new(false);
        for n in numbers {
            trace.note(Time::from_secs(1), Happening::Sent, *n, String::new);
        }
        trace.hash()
    }

    #[test]
    fn the_hash_knows_every_number_and_their_order() {
        let (a, b) = ([1, 2, 3, 4], [1, 2, 3, 5]);
        assert_eq!(hash(&[a, b]), hash(&[a, b]));
        assert_ne!(hash(&[a, b]), hash(&[b, a]));
        assert_ne!(hash(&[a]), hash(&[b]));
        assert_ne!(hash(&[a]), hash(&[a, [0; 4]]));
    }
}

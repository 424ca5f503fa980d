//! The only source of randomness: a seed given at construction, forked by label.
//!
//! In production the seed is 32 bytes from the operating system, so what is drawn here is fit for keys and
//! nonces; in a simulation it is chosen, so that a run repeats. Forks are independent: a new draw in one
//! room never moves the draws of another.

use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use core::fmt;
use core::ops::Range;
use core::time::Duration;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

/// A seed of 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed of these bytes; in production they come from the operating system.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A seed for simulations and tests.
    #[must_use]
    pub fn from_u64(n: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        Self(bytes).fork("from_u64")
    }

    /// An independent seed, named by `label`.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        self.fork_bytes(label.as_bytes())
    }

    /// An independent seed, named by bytes (a key, for example).
    #[must_use]
    pub fn fork_bytes(&self, label: &[u8]) -> Self {
        let mut mac = <Blake2sMac256 as KeyInit>::new((&self.0).into());
        mac.update(label);
        Self(mac.finalize_fixed().into())
    }

    /// The generator of this seed.
    #[must_use]
    pub fn rng(&self) -> Rng {
        Rng(ChaCha12Rng::from_seed(self.0))
    }

    /// The seed's bytes, for adapters that must seed a library.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// A stream of random numbers (ChaCha12).
#[derive(Clone)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// Random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }

    /// Any 64-bit number.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `range`; its start if the range is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start);
        if width == 0 { range.start } else { range.start + self.0.next_u64() % width }
    }

    /// True `permille` times out of a thousand.
    pub fn permille(&mut self, permille: u32) -> bool {
        self.range(0..1_000) < u64::from(permille)
    }

    /// `base` with up to `percent` per cent more or less.
    pub fn jitter(&mut self, base: Duration, percent: u32) -> Duration {
        let micros = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        let swing = micros.saturating_mul(u64::from(percent)) / 100;
        Duration::from_micros(
            micros
                .saturating_sub(swing)
                .saturating_add(self.range(0..swing.saturating_mul(2).saturating_add(1))),
        )
    }
}

impl fmt::Debug for Rng {
    /// The position in the stream: two generators of one seed print alike exactly if they drew alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rng@{}", self.0.get_word_pos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_are_stable_and_independent() {
        let seed = Seed::from_u64(7);
        assert_eq!(seed.fork("punch").rng().u64(), seed.fork("punch").rng().u64());
        assert_ne!(seed.fork("punch").rng().u64(), seed.fork("netcheck").rng().u64());
        assert_ne!(seed.rng().u64(), Seed::from_u64(8).rng().u64());
    }

    #[test]
    fn ranges_hold_their_bounds() {
        let mut rng = Seed::from_u64(1).rng();
        for _ in 0..1_000 {
            assert!((3..9).contains(&rng.range(3..9)));
            let d = rng.jitter(Duration::from_millis(100), 10);
            assert!((90..=110).contains(&(d.as_micros() / 1_000)), "{d:?}");
        }
        assert_eq!(rng.range(5..5), 5);
    }
}

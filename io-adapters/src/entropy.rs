//! Where seeds come from in production: 32 bytes of the operating system.

use proto_core::seed::Seed;

/// A fresh seed, fit for keys.
///
/// # Panics
/// If the operating system has no randomness to give, which happens only on a broken system: nothing that
/// needs a key may go on there.
#[must_use]
pub fn seed() -> Seed {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    Seed::new(bytes)
}

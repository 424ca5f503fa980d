//! Where seeds come from in production: 32 bytes of the operating system.

use proto_core::seed::Seed;
use std::io;

/// A fresh seed, fit for keys.
///
/// # Errors
/// If the operating system has no randomness to give, which only happens on a broken or very early system.
pub fn seed() -> io::Result<Seed> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| io::Error::other(format!("no randomness from the system: {e}")))?;
    Ok(Seed::new(bytes))
}

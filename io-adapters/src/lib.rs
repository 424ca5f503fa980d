//! The only code of Warren that touches the world: sockets, TLS, clocks, entropy, interfaces, WireGuard and
//! streams inside the tunnel. It decides nothing: decisions are `proto-core`'s machines, driven from here.
//!
//! # The rooms
//!
//! | room | what it is |
//! | --- | --- |
//! | [`transport`] | the seam to a network: tokio's here, turmoil's in `sim` |
//! | [`clock`], [`entropy`] | where time and seeds come from |
#![deny(unsafe_op_in_unsafe_fn)]

pub mod clock;
pub mod entropy;
pub mod transport;

//! The simulated world, in two lanes over the same NATs, links, networks and oracle.
#![forbid(unsafe_code)]

pub mod nat;
pub mod netem;
pub mod oracle;
pub mod trace;
pub mod wg_model;

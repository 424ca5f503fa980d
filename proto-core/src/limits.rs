//! Every cap and every interval of a decision, with its unit, its reason and its source: a number that changes
//! how nodes and servers behave lives here. What only an adapter knows of (its buffers, its patience with a
//! socket) stands beside the code that it bounds.

mod coordination;
mod guesses;
mod handshakes;
mod netcheck;
mod nodes;
mod paths;
mod relays;
mod wire;

pub use coordination::*;
pub use guesses::*;
pub use handshakes::*;
pub use netcheck::*;
pub use nodes::*;
pub use paths::*;
pub use relays::*;
pub use wire::*;

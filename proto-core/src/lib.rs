//! Warren's decisions, as pure state machines.
//!
//! Nothing in this crate reads a clock, opens a socket, spawns a thread or asks the operating system for
//! anything. Every machine has one shape ([`machine::Machine`]): inputs and the time go in by `handle`,
//! outputs come out by `poll`, and `deadline` says when it wants to be woken, and why. The same machines run
//! behind real sockets (`io-adapters`) and in the simulator (`sim`).
//!
//! # The rooms
//!
//! | room | what it decides |
//! | --- | --- |
//! | [`machine`] | the contract and its seven laws |
//! | [`time`], [`seed`], [`id`], [`key`], [`limits`] | what everything is made of |
//! | [`route`] | where a peer's packets travel |
//! | [`wire`] | what bytes mean: STUN, disco, DERP, coordination messages |
//! | [`relay_map`] | which relays there are: read, check, merge, compare |
//! | [`stream`] | what streams inside a tunnel begin with, and how their pieces are put in order |
//! | [`wg`] | the tunnel's engine as a port; who shakes hands, when |
//! | [`explain`] | from evidence to a verdict: why a pair is direct or not |
//! | [`peer`] | one peer: its candidates, punching, the path in use |
//! | [`relay`] | relays, both ends: links, the server's membership, the forwarding table and queues |
//! | [`coord`] | coordination, both ends: the session and the coordinator |
//! | [`nat`] | what our own network is like: UDP, mapping, home relay |
//! | [`node`] | the composition: everything an agent, a client or a server's own node is |
#![forbid(unsafe_code)]

mod backoff;
pub mod coord;
pub mod explain;
pub mod id;
pub mod key;
pub mod limits;
pub mod machine;
pub mod nat;
pub mod node;
pub mod peer;
pub mod relay;
pub mod relay_map;
pub mod route;
pub mod seed;
pub mod stream;
pub mod time;
pub mod wg;
pub mod wire;

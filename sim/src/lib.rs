//! The simulated world, in two lanes over the same NATs, links, networks and oracle.
//!
//! | room | what it is |
//! | --- | --- |
//! | [`nat`], [`netem`], [`topology`] | NATs after RFC 4787 and Linux, links, networks with names |
//! | [`world`] | lane 1: pure, jumps from deadline to deadline; thousands of worlds a minute |
//! | [`turmoil`] | lane 2: the production drivers and servers on turmoil's network |
//! | [`wg_model`] | WireGuard's messages and timers without its cipher |
//! | [`step`], [`oracle`], [`checks`] | what may happen, what must come of it, what must always hold |
//! | [`scenarios`] | worlds with a name |
//! | [`verdict`] | what both lanes say of a run |
//! | [`scorecard`] | which pairs of networks go direct, how fast, and how right `explain` is, what faults cost; a page of it |
//! | [`swarm`] | worlds whose networks and faults the seed draws, thousands a minute |
//! | [`trace`] | what happened: a hash always, text on demand |
#![forbid(unsafe_code)]

pub mod checks;
pub mod nat;
pub mod netem;
pub mod oracle;
mod relay_map;
pub mod scenarios;
pub mod scorecard;
pub mod step;
pub mod swarm;
pub mod topology;
pub mod trace;
pub mod turmoil;
pub mod verdict;
pub mod wg_model;
pub mod world;

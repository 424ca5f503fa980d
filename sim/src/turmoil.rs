//! Lane 2: the production drivers and servers on turmoil's network, behind NATs that are turmoil hosts.
//!
//! turmoil's network is a flat mesh without NATs, loss or hop limits, so inside hosts speak to their gateway
//! alone, in envelopes that carry source, destination and hop limit, and the gateway rewrites them by the same
//! [`crate::nat::Nat`] that lane 1 uses. TCP passes through a gateway by terminate-and-splice. turmoil's own faults are used only as explicit partitions and crashes;
//! loss lives in the gateways' [`crate::netem::Direction`]s.

pub mod envelope;
pub mod gateway;
pub mod lab;
pub mod matrix;
pub mod program;
pub mod scenarios;
pub mod server;
pub mod socket;
pub mod verdict;
pub mod wire;

/// The port of envelopes between a gateway and its inside.
pub(crate) const ENVELOPE_PORT: u16 = 4_242;
/// The port at which a gateway takes TCP connections for its inside.
pub(crate) const SPLICE_PORT: u16 = 4_243;
/// Routers on the internet: what an opener with a low hop limit dies of.
pub(crate) const INTERNET_HOPS: u8 = 8;

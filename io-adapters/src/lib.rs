//! The only code of Warren that touches the world: sockets, TLS, clocks, entropy, interfaces, WireGuard and
//! streams inside the tunnel. It decides nothing: decisions are `proto-core`'s machines, driven from here.
//!
//! # The rooms
//!
//! | room | what it is |
//! | --- | --- |
//! | [`transport`] | the seam to a network: tokio's here, turmoil's in `sim` |
//! | [`clock`], [`entropy`] | where time and seeds come from |
//! | [`access_url`], [`private_file`] | what a person gave: the server's address, keys in files |
//! | [`handle`] | a running node as programs use it |
//! | [`relay_stream`], [`control`] | streams to relays and to the coordinator, and the coordinator's server |
//! | [`relay_listener`], [`stun_listener`] | a relay's and a STUN server's end |
//! | [`relay_admission`], [`certificate`] | who may use a relay, by the world's word; a server's certificate in files |
//! | [`driver`] | the one event loop of a node |
//! | [`store`] | the ports to the product: who is this, may they talk |
//! | [`http`] | a small HTTP client for the few requests that programs make |
//! | [`speedtest`], [`pcap`] | the two ends of a speed test, over any stream; a capture of what travels in tunnels |
//! | [`dial`], [`local`] | connections to this host's programs, and sockets where they come in |
//! | [`splice`] | a connection of this host and a stream in the tunnel, joined |
//! | [`stack`] | the data plane around the node machine, without sockets or tasks |
//! | [`udp`], [`udp_flow`] | a UDP socket that sends and receives in batches; UDP of programs, in the tunnel |
//! | [`wg`] | WireGuard by boringtun |
//! | [`process`], [`words`] | this process to the system, and those it starts; others' errors in our sentences |
//! | [`streams`] | QUIC streams inside the tunnel |
#![deny(unsafe_op_in_unsafe_fn)]

pub mod access_url;
pub mod certificate;
pub mod clock;
pub mod control;
pub mod dial;
pub mod driver;
pub mod entropy;
pub mod frames;
pub mod handle;
pub mod http;
pub mod input;
pub mod local;
pub mod metrics;
pub mod pcap;
pub mod portmap;
pub mod private_file;
pub mod process;
pub mod relay_admission;
pub mod relay_listener;
pub mod relay_stream;
pub mod resolver;
pub mod speedtest;
pub mod splice;
pub mod stack;
pub mod store;
pub mod streams;
pub mod stun_listener;
pub mod transport;
pub mod udp;
pub mod udp_flow;
pub mod wg;
pub mod words;

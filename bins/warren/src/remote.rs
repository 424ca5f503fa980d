//! A program of the workspace on this side: its terminal, input, output and errors, signals and status.
//!
//! It is a service of its own ([`Header::Exec`](proto_core::stream::Header::Exec)) and not SSH, though `warren ssh --stdio`
//! carries that for others. The tunnel has settled who both ends are and seals what passes, so an SSH client would do it
//! all again, and take its time: version, key exchange, new keys and service, authentication, channel, command are six
//! round trips, of which the library's client lets nobody send one before the answer to the one before. Here everything
//! goes with the first datagram, and the answer is the program's.

pub(crate) mod escape;
pub(crate) mod keys;
pub(crate) mod session;
pub(crate) mod terminal;

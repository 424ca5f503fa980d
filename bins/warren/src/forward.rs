//! Forwarding ports to a workspace: what a person asks for, and the connections that come of it.

pub(crate) mod carry;
pub(crate) mod link;
pub(crate) mod reverse;
pub(crate) mod spec;
pub(crate) mod totals;
pub(crate) mod udp;

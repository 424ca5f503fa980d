//! Forwarding ports to a workspace: what a person asks for, and the connections that come of it.

pub(crate) mod spec;
pub(crate) mod tcp;

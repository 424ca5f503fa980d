//! One file a command.

pub(crate) mod login;
pub(crate) mod netcheck;
pub(crate) mod ping;
pub(crate) mod port_forward;
pub(crate) mod speedtest;
pub(crate) mod ssh;
pub(crate) mod status;
pub(crate) mod version;
pub(crate) mod workspaces;

//! One file a command.

pub(crate) mod completion;
pub(crate) mod config_ssh;
pub(crate) mod context;
pub(crate) mod login;
pub(crate) mod netcheck;
pub(crate) mod open;
pub(crate) mod ping;
pub(crate) mod port_forward;
pub(crate) mod ports;
pub(crate) mod speedtest;
pub(crate) mod ssh;
pub(crate) mod status;
pub(crate) mod support_bundle;
pub(crate) mod version;
pub(crate) mod workspaces;

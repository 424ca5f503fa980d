//! Warren's server.
#![cfg_attr(not(test), forbid(unsafe_code))]

mod auth;
mod fault;
mod names;
mod settings;
mod store;

pub use fault::Fault;
pub use settings::{AccessUrl, HostPort, Listen, LogFormat, Reading, Settings, command};

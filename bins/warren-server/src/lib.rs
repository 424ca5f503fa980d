//! Warren's server.
#![cfg_attr(not(test), forbid(unsafe_code))]

mod api;
mod app;
mod auth;
mod clock;
mod fault;
mod hub;
mod listen;
mod maps;
mod names;
mod settings;
mod store;

pub use clock::Clock;
pub use fault::Fault;
pub use settings::{AccessUrl, HostPort, Listen, LogFormat, Reading, Settings, command};

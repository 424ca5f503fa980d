//! A workspace reached by the programs of OpenSSH and by those that start them, through `warren ssh --stdio`; and by
//! `warren ssh` itself.

mod config;
mod far;
mod files;
mod forwarding;
mod many;
mod native;
mod native_ends;
mod native_terminal;
#[path = "../old_agent/mod.rs"]
mod old_agent;
mod screen;
mod sessions;
mod shut_out;
mod terminals;
mod workspace;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

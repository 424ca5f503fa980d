//! A workspace reached by the programs of OpenSSH and by those that start them, through `warren ssh --stdio`.

mod config;
mod files;
mod forwarding;
mod many;
mod sessions;
mod terminals;
mod workspace;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

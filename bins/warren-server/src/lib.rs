//! Warren's server: coordination, the embedded relay and STUN server, and the API.
//!
//! | room | what it is |
//! | --- | --- |
//! | `settings` | flags, variables and the file, declared once |
//! | `server` | what is started in which order, reloaded, and stopped |
//! | `listen` | HTTP, HTTPS and STUN sockets |
//! | `api` | what is answered over HTTP |
//! | `dashboard` | the pages of `warren-dashboard`, with their headers |
//! | `health`, `tunnels`, `changes` | is all well; how paths are; what those are told who follow live |
//! | `hub` | the coordinator, the relay, and who is there |
//! | `apps` | web apps: from a browser through a tunnel to a port of a workspace |
//! | `node` | the server as a node of its own, which reaches workspaces for browsers |
//! | `places` | so much of what lasts for each, and no more |
//! | `metrics` | what is counted, for Prometheus |
//! | `maps` | the relay map that nodes are given |
//! | `auth`, `store` | tokens and passwords; what is remembered |
//!
//! [`run`] is the whole program; [`Server::start`] is the part that tests start in their own process.

#![forbid(unsafe_code)]

mod announce;
mod api;
mod app;
mod apps;
mod auth;
mod changes;
mod clock;
mod dashboard;
mod fault;
mod health;
mod hub;
mod listen;
mod maps;
mod metrics;
mod names;
mod node;
mod places;
mod server;
mod settings;
mod store;
mod tunnels;

pub use announce::{text as announcement, write_ready_file};
pub use apps::address::WildcardUrl;
pub use clock::Clock;
pub use fault::Fault;
pub use server::{Addresses, Server};
pub use settings::{AccessUrl, HostPort, Listen, LogFormat, MaxSharing, Network, Reading, Settings, command};

use std::io::Write as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Starts a server, says so, and runs it until SIGTERM or SIGINT; a second one of them stops it at once.
///
/// # Errors
/// If it does not start.
pub async fn run(settings: Settings) -> Result<(), Fault> {
    let listen = |kind| signal(kind).map_err(|error| no_signals(&error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hang_up = listen(SignalKind::hangup())?;
    let ready_file = settings.ready_file.clone();
    if let Some(path) = &ready_file {
        // What an earlier server left says nothing about this one.
        let _ = std::fs::remove_file(path);
    }
    let server = Server::start(settings).await?;
    if let Some(path) = &ready_file {
        write_ready_file(&server, path)?;
    }
    // Nobody may be listening on stdout: that is no reason to stop.
    let _ = std::io::stdout().write_all(announcement(&server).as_bytes());
    loop {
        tokio::select! {
            biased;
            _ = hang_up.recv() => {
                // A relay map's server may take its time: whoever wants this one to end does not wait for it.
                let ended = tokio::select! {
                    biased;
                    () = either(&mut terminate, &mut interrupt) => true,
                    () = server.reload() => false,
                };
                if ended {
                    break;
                }
            }
            () = either(&mut terminate, &mut interrupt) => break,
        }
    }
    tracing::info!("draining");
    tokio::select! {
        biased;
        () = server.stop() => tracing::info!("stopped"),
        () = either(&mut terminate, &mut interrupt) => tracing::warn!("stopped at once"),
    }
    Ok(())
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! {
        biased;
        _ = a.recv() => {}
        _ = b.recv() => {}
    }
}

fn no_signals(error: &std::io::Error) -> Fault {
    Fault::new("NO_SIGNALS", format!("can't wait for signals: {}", fault::io_words(error)), "try again")
}

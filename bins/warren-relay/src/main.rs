//! `warren-relay`: a DERP relay and STUN server on its own.
//!
//! | room | what it is |
//! | --- | --- |
//! | `settings` | flags, variables and the file, declared once |
//! | `relay` | what is started in which order, reloaded, drained and stopped |
//! | `metrics` | what has been counted, for Prometheus |
//! | `notify` | words to the service manager |
//! | `announce` | words to people, and the ready file |

#![forbid(unsafe_code)]

mod announce;
mod metrics;
mod notify;
mod relay;
mod settings;

use relay::Relay;
use settings::{Reading, Settings};
use std::io::Write as _;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use warren_settings::{Fault, io_words};

/// After so many turns of tasks it is looked whose sockets have something to read. Tokio's 61 are milliseconds when
/// each turn passes 128 KiB on, or when thousands connect at once.
const EVENT_INTERVAL: u32 = 16;

fn main() -> ExitCode {
    let settings = match Settings::read(std::env::args_os()) {
        Reading::Start(settings) => *settings,
        Reading::Print(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Reading::Usage(error) => error.exit(),
        Reading::Fault(fault) => return failed(&fault),
    };
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => failed(&fault),
    }
}

fn failed(fault: &Fault) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{fault}");
    ExitCode::FAILURE
}

fn start(settings: Settings) -> Result<(), Fault> {
    warren_settings::log(&settings.log, settings.log_format)?;
    io_adapters::relay_stream::tls::install();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().event_interval(EVENT_INTERVAL);
    let runtime = runtime.build().map_err(|error| {
        Fault::new("NO_THREADS", format!("the system gives no threads: {error}"), "raise the process limit")
    })?;
    runtime.block_on(run(settings))
}

/// Starts a relay, says so, and runs it until SIGTERM or SIGINT; a second one of them stops it at once.
async fn run(settings: Settings) -> Result<(), Fault> {
    let listen = |kind| {
        let no_signals = |error| {
            Fault::new("NO_SIGNALS", format!("can't wait for signals: {}", io_words(&error)), "try again")
        };
        signal(kind).map_err(no_signals)
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hang_up = listen(SignalKind::hangup())?;
    let ready_file = settings.ready_file.clone();
    if let Some(path) = &ready_file {
        // What an earlier relay left says nothing about this one.
        let _ = std::fs::remove_file(path);
    }
    let mut relay = Relay::start(settings).await?;
    if let Some(path) = &ready_file {
        announce::write_ready_file(&relay, path)?;
    }
    // Nobody may be listening on stdout: that is no reason to stop.
    let _ = std::io::stdout().write_all(announce::text(&relay).as_bytes());
    notify::ready();
    loop {
        tokio::select! {
            biased;
            () = either(&mut terminate, &mut interrupt) => break,
            why = relay.failed() => {
                let message = format!("a part of the relay failed: {why}");
                return Err(Fault::new("PART_FAILED", message, "the log above says where; start it again"));
            }
            _ = hang_up.recv() => {
                notify::reloading();
                relay.reload().await;
                notify::ready();
            }
        }
    }
    notify::stopping();
    tokio::select! {
        biased;
        () = relay.stop() => tracing::info!("stopped"),
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

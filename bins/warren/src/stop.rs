//! The signals by which a person says that they have had enough.

use crate::error::{CliError, Exit, Result};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, and being told to end. From the moment that there is one, neither ends the process by itself.
pub(crate) struct Stop(Signal, Signal);

impl Stop {
    /// Listens for them.
    ///
    /// # Errors
    /// If the system lets nobody listen.
    pub(crate) fn new() -> Result<Self> {
        let no_signals = |error: io::Error| {
            CliError::new(Exit::Failed, "NO_SIGNALS", format!("signals cannot be caught here: {error}"))
        };
        let catch = |kind| signal(kind).map_err(no_signals);
        Ok(Self(catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?))
    }

    /// Waits for one of them.
    pub(crate) async fn wanted(&mut self) {
        tokio::select! {
            biased;
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

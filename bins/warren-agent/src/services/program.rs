//! Programs that run for a visitor, whichever way the visitor came: what they find, how they begin and end.

pub(crate) mod environment;
pub(crate) mod inbox;
pub(crate) mod keys;
pub(crate) mod process;
pub(crate) mod silence;
pub(crate) mod terminal;
pub(crate) mod user;

use std::time::Duration;

/// For how long a visitor may be silent: a machine that slept over night finds its sessions as they were, and the
/// programs of one that never comes back end some day.
pub(crate) const PATIENCE: Duration = Duration::from_secs(16 * 3_600);
/// Exit statuses of a shell for a program that cannot be started, and for one that is not there.
const NOT_STARTED: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Why a program could not be started, in words for where its own errors would have come, and the status for that.
pub(crate) fn not_started(error: &std::io::Error) -> (String, u8) {
    let sentence = format!("warren-agent: can't start the program: {error}\r\n");
    (sentence, if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED })
}

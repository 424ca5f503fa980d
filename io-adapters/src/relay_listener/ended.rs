//! How connections end, and how often each way.

use proto_core::limits::RELAY_WRITE_TIMEOUT;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client closed it.
    Left,
    /// The relay closed it.
    Closed,
    /// Whoever served it gave it up, to make room for others.
    GivenUp,
    /// The relay has stopped.
    Stopped,
    /// The client took nothing for too long.
    Stalled,
    /// It broke.
    Broke(io::Error),
}

/// How often connections ended in ways that no good client has.
#[derive(Debug, Default)]
pub(super) struct Endings {
    stalled: AtomicU64,
    unreachable: AtomicU64,
    truncated: AtomicU64,
}

/// How often connections ended in ways that no good client has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EndedCounters {
    /// The client took nothing of what was written to it.
    pub stalled: u64,
    /// The client's machine did not acknowledge anything any more.
    pub unreachable: u64,
    /// The client left in the middle of a frame.
    pub truncated: u64,
}

impl Endings {
    /// Counts an end; `inside` a frame, if there was one of which not all had come.
    pub(super) fn count(&self, why: &Ended, inside: bool) {
        let counter = match why {
            Ended::Stalled => &self.stalled,
            // What the system says when retransmissions or keepalives stay without an answer.
            Ended::Broke(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::TimedOut
                        | io::ErrorKind::HostUnreachable
                        | io::ErrorKind::NetworkUnreachable
                ) =>
            {
                &self.unreachable
            }
            Ended::Left | Ended::Broke(_) if inside => &self.truncated,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn status(&self) -> EndedCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EndedCounters {
            stalled: read(&self.stalled),
            unreachable: read(&self.unreachable),
            truncated: read(&self.truncated),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("the client closed the connection"),
            Self::Closed => f.write_str("closed by the relay"),
            Self::GivenUp => f.write_str("given up to make room for others"),
            Self::Stopped => f.write_str("the relay has stopped"),
            Self::Stalled => write!(f, "the client took nothing for {} s", RELAY_WRITE_TIMEOUT.as_secs()),
            Self::Broke(error) => error.fmt(f),
        }
    }
}

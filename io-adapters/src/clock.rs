//! Where a node's time comes from: an origin, taken once, and tokio's clock since then, so that a paused or
//! simulated runtime's time is the machines' time too.

use proto_core::time::Time;
use tokio::time::Instant;

/// A node's origin of time.
#[derive(Clone, Copy, Debug)]
pub struct Origin(Instant);

impl Origin {
    /// The origin is now.
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// How far the node's time has come.
    #[must_use]
    pub fn time(&self) -> Time {
        Time::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The runtime's instant of a node's moment, rounded up to it, for `sleep_until`.
    #[must_use]
    pub fn instant(&self, at: Time) -> Instant {
        let since = at.since(Time::ZERO);
        // A moment beyond what the platform can express is as good as never: a year from the origin.
        self.0.checked_add(since).unwrap_or_else(|| self.0 + std::time::Duration::from_secs(31_536_000))
    }
}

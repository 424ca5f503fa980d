//! How fast clients may send. Whoever is too fast is not read for a while, so that TCP slows it; nothing is dropped.

use proto_core::relay::Bucket;
use proto_core::time::{Duration, Time};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The rates of a relay, for connections that begin from now on. Clones share what all clients share.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    client: u64,
    total: Option<Arc<Mutex<Bucket>>>,
}

impl Rates {
    /// Bytes a second of each client, and of all together, which share them evenly; 0 for no limit.
    #[must_use]
    pub fn new(client: u64, total: u64, now: Time) -> Self {
        Self { client, total: Bucket::new(total, now).map(|bucket| Arc::new(Mutex::new(bucket))) }
    }

    /// The pace of a new connection; none if it may go as fast as it likes.
    pub(super) fn pace(&self, now: Time) -> Option<Pace> {
        let own = Bucket::new(self.client, now);
        (own.is_some() || self.total.is_some()).then(|| Pace { own, total: self.total.clone() })
    }
}

/// One connection's pace.
#[derive(Debug)]
pub(super) struct Pace {
    own: Option<Bucket>,
    total: Option<Arc<Mutex<Bucket>>>,
}

impl Pace {
    /// How many bytes to read at a time. All have the same, so that sharing is fair.
    pub(super) fn piece(&self) -> usize {
        let total = self.total.as_ref().map(|total| lock(total).piece());
        self.own.as_ref().map(Bucket::piece).into_iter().chain(total).min().unwrap_or(usize::MAX)
    }

    /// Charges for bytes that were read: how long not to read.
    pub(super) fn charge(&mut self, bytes: usize, now: Time) -> Duration {
        let own = self.own.as_mut().map(|own| own.charge(bytes, now));
        let total = self.total.as_ref().map(|total| lock(total).charge(bytes, now));
        own.into_iter().chain(total).max().unwrap_or_default()
    }
}

fn lock(bucket: &Mutex<Bucket>) -> std::sync::MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often and how long clients were not read.
#[derive(Debug, Default)]
pub(super) struct Held {
    times: AtomicU64,
    micros: AtomicU64,
}

impl Held {
    pub(super) fn add(&self, wait: Duration) {
        self.times.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn status(&self) -> (u64, Duration) {
        let micros = self.micros.load(Ordering::Relaxed);
        (self.times.load(Ordering::Relaxed), Duration::from_micros(micros))
    }
}

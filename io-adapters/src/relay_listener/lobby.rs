//! The lobby of a relay's front door: places for connections that have not logged in, and the word to those that
//! must give theirs up.

use crate::clock::Origin;
use proto_core::limits::RELAY_WAITING_MAX;
use proto_core::relay::{self, Entered};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// A lobby. Clones are the same one: all doors of a relay share it.
#[derive(Clone, Debug)]
pub struct Lobby(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Origin,
    state: Mutex<State>,
    crowded_out: AtomicU64,
    turned_away: AtomicU64,
}

#[derive(Debug)]
struct State {
    places: relay::Lobby,
    /// By the place's number: how to tell who sits there that it must go.
    calls: BTreeMap<u64, (oneshot::Sender<()>, Arc<Seat>)>,
}

/// What a lobby has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LobbyStatus {
    /// Connections that have not logged in.
    pub waiting: usize,
    /// Connections closed to make room for others.
    pub crowded_out: u64,
    /// Connections closed at once since there was no place.
    pub turned_away: u64,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    lobby: Lobby,
    number: u64,
    seat: Arc<Seat>,
}

/// What is known of a place wherever it is asked.
#[derive(Debug, Default)]
pub(super) struct Seat {
    left: AtomicBool,
    called: AtomicBool,
}

/// Tells who has a place that it must give it up.
#[derive(Debug)]
pub struct Call(oneshot::Receiver<()>);

impl Default for Lobby {
    fn default() -> Self {
        Self::new(RELAY_WAITING_MAX)
    }
}

impl Lobby {
    /// A lobby with this many places.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let state = State { places: relay::Lobby::new(places), calls: BTreeMap::new() };
        Self(Arc::new(Shared {
            clock: Origin::now(),
            state: Mutex::new(state),
            crowded_out: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        }))
    }

    /// A place for a connection from there; none if nobody has to make room for it.
    #[must_use]
    pub fn enter(&self, from: IpAddr) -> Option<(Place, Call)> {
        let now = self.0.clock.time();
        let mut state = self.lock();
        let number = match state.places.enter(from, now) {
            Entered::Placed(place) => place,
            Entered::Instead { place, gone } => {
                if let Some((call, seat)) = state.calls.remove(&gone) {
                    seat.called.store(true, Ordering::Relaxed);
                    // Who does not listen any more is about to go by itself.
                    let _ = call.send(());
                }
                self.0.crowded_out.fetch_add(1, Ordering::Relaxed);
                place
            }
            Entered::Full => {
                self.0.turned_away.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        };
        let (call, called) = oneshot::channel();
        let seat = Arc::new(Seat::default());
        state.calls.insert(number, (call, seat.clone()));
        Some((Place { lobby: self.clone(), number, seat }, Call(called)))
    }

    /// Whether all places are taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lock().places.is_full()
    }

    /// What it has counted.
    #[must_use]
    pub fn status(&self) -> LobbyStatus {
        LobbyStatus {
            waiting: self.lock().places.len(),
            crowded_out: self.0.crowded_out.load(Ordering::Relaxed),
            turned_away: self.0.turned_away.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What is known of it, also when it has been left.
    pub(super) fn seat(&self) -> Arc<Seat> {
        self.seat.clone()
    }
}

impl Seat {
    /// Whether nobody has left it.
    pub(super) fn is_taken(&self) -> bool {
        !self.left.load(Ordering::Relaxed)
    }

    /// Whether who had it had to go.
    pub(super) fn is_called(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seat.left.store(true, Ordering::Relaxed);
        let mut state = self.lobby.lock();
        state.places.leave(self.number);
        state.calls.remove(&self.number);
    }
}

impl Call {
    /// Waits until the place is needed; for ever if it has been left.
    pub async fn wait(&mut self) {
        if (&mut self.0).await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_must_go_is_called_and_who_has_left_never_is() {
        let lobby = Lobby::new(2);
        let [crowd, other] = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let (_first, mut first_call) = lobby.enter(crowd).unwrap();
        let (second, mut second_call) = lobby.enter(crowd).unwrap();
        assert!(lobby.enter(crowd).is_none());
        let (_third, _third_call) = lobby.enter(other).unwrap();
        first_call.wait().await;
        drop(second);
        assert_eq!(lobby.status(), LobbyStatus { waiting: 1, crowded_out: 1, turned_away: 1 });
        let never = tokio::time::timeout(std::time::Duration::from_millis(20), second_call.wait());
        assert!(never.await.is_err());
    }
}

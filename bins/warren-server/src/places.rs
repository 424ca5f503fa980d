//! Places for what lasts, such as open terminals: so many in all, and so many for each, so that nobody can take those of
//! all others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places, and who has how many.
#[derive(Debug)]
pub(crate) struct Places<K> {
    all_max: usize,
    own_max: usize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    each: BTreeMap<K, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// Whoever asks has as many as one may have.
    Own(usize),
    /// All are taken.
    All(usize),
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Ord> {
    places: Arc<Places<K>>,
    whose: K,
}

impl<K: Ord + Clone> Places<K> {
    /// So many in all, and for each.
    pub(crate) fn new(all_max: usize, own_max: usize) -> Arc<Self> {
        let taken = Mutex::new(Taken { all: 0, each: BTreeMap::new() });
        Arc::new(Self { all_max, own_max, taken })
    }

    /// Takes one.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) fn take(self: &Arc<Self>, whose: K) -> Result<Place<K>, Full> {
        self.take_at_most(whose, self.own_max)
    }

    /// As [`Places::take`], for somebody who may have another number of them.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) fn take_at_most(self: &Arc<Self>, whose: K, own_max: usize) -> Result<Place<K>, Full> {
        let mut taken = self.lock();
        let own = taken.each.get(&whose).copied().unwrap_or(0);
        if own >= own_max {
            return Err(Full::Own(own));
        }
        if taken.all >= self.all_max {
            return Err(Full::All(taken.all));
        }
        taken.all += 1;
        taken.each.insert(whose.clone(), own + 1);
        drop(taken);
        Ok(Place { places: Arc::clone(self), whose })
    }
}

impl<K> Places<K> {
    /// How many are taken.
    pub(crate) fn count(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(own) = taken.each.get_mut(&self.whose) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.each.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_places_of_all_others() {
        let places = Places::new(5, 3);
        let mut eve: Vec<_> = (0..3).map(|_| places.take("eve").unwrap()).collect();
        assert_eq!(places.take("eve").unwrap_err(), Full::Own(3));
        let bob = [places.take("bob").unwrap(), places.take("bob").unwrap()];
        assert_eq!((places.take("sam").unwrap_err(), places.count()), (Full::All(5), 5));
        eve.pop();
        assert!(places.take_at_most("eve", 2).is_err());
        let sam = places.take("sam").unwrap();
        drop((eve, bob, sam));
        assert_eq!((places.count(), places.lock().each.len()), (0, 0), "nobody is remembered who has none");
    }
}

//! A map from keys that cannot be walked through: for tables that every packet asks and whose order must never
//! matter.

use super::NodePublic;
use crate::seed::Seed;
use core::fmt;
use core::hash::{BuildHasher, Hasher};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// How keys are spread over a [`KeyMap`]. Others choose the keys, so what the places depend on is a secret, drawn
/// from the seed: nobody can pick keys that crowd into one place.
#[derive(Clone, Copy)]
pub struct KeyHash([u64; 4]);

impl KeyHash {
    /// The spreading of this seed.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        let mut rng = seed.fork("key hash").rng();
        // An even factor would lose the highest bit.
        Self(core::array::from_fn(|_| rng.u64() | 1))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

impl BuildHasher for KeyHash {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher { factors: self.0, state: self.0[3], words: 0 }
    }
}

/// The hash of one key: each word is multiplied by a secret factor to 128 bits, whose halves are folded.
#[derive(Debug)]
pub struct KeyHasher {
    factors: [u64; 4],
    state: u64,
    words: usize,
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            self.write_u64(u64::from_le_bytes(whole));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let factor = self.factors[self.words % 4];
        self.words += 1;
        let product = u128::from(self.state ^ word) * u128::from(factor);
        self.state = product as u64 ^ (product >> 64) as u64;
    }

    // The length, which is every key's.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}

/// A map from keys to anything, with no way to see its order.
#[derive(Clone)]
pub struct KeyMap<V> {
    hash: KeyHash,
    places: HashTable<(NodePublic, V)>,
}

impl<V> KeyMap<V> {
    /// An empty map.
    #[must_use]
    pub fn new(hash: KeyHash) -> Self {
        Self { hash, places: HashTable::new() }
    }

    /// What is kept for a key.
    #[must_use]
    pub fn get(&self, key: &NodePublic) -> Option<&V> {
        self.places.find(self.hash.hash_one(key), |(kept, _)| kept == key).map(|(_, value)| value)
    }

    /// Whether anything is kept for a key.
    #[must_use]
    pub fn contains(&self, key: &NodePublic) -> bool {
        self.get(key).is_some()
    }

    /// Keeps a value; what was kept before.
    pub fn insert(&mut self, key: NodePublic, value: V) -> Option<V> {
        let hash = self.hash;
        match self.places.entry(hash.hash_one(key), |(kept, _)| *kept == key, |(kept, _)| hash.hash_one(kept))
        {
            Entry::Occupied(mut place) => Some(core::mem::replace(&mut place.get_mut().1, value)),
            Entry::Vacant(place) => {
                place.insert((key, value));
                None
            }
        }
    }

    /// Forgets a key; what was kept.
    pub fn remove(&mut self, key: &NodePublic) -> Option<V> {
        let place = self.places.find_entry(self.hash.hash_one(key), |(kept, _)| kept == key).ok()?;
        let ((_, value), _) = place.remove();
        Some(value)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.places.clear();
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl<V> fmt::Debug for KeyMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.len())
    }
}

/// A set of keys that keeps a quarter of each, its hash: two of a set are taken for one once in 2^64 pairs.
#[derive(Clone)]
pub struct KeyMarks {
    hash: KeyHash,
    places: HashTable<u64>,
}

impl KeyMarks {
    /// An empty set.
    #[must_use]
    pub fn new(hash: KeyHash) -> Self {
        Self { hash, places: HashTable::new() }
    }

    /// Whether a key is in it.
    #[must_use]
    pub fn contains(&self, key: &NodePublic) -> bool {
        let hash = self.hash.hash_one(key);
        self.places.find(hash, |kept| *kept == hash).is_some()
    }

    /// Puts a key in; whether it was not there.
    pub fn insert(&mut self, key: &NodePublic) -> bool {
        let hash = self.hash.hash_one(key);
        match self.places.entry(hash, |kept| *kept == hash, |kept| *kept) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(hash);
                true
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.places.clear();
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl fmt::Debug for KeyMarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> NodePublic {
        let mut bytes = [0; 32];
        bytes[24..].copy_from_slice(&n.to_be_bytes());
        NodePublic(bytes)
    }

    #[test]
    fn keys_are_found_and_forgotten() {
        let mut map = KeyMap::new(KeyHash::new(&Seed::from_u64(1)));
        for n in 0..1_000 {
            assert_eq!(map.insert(key(n), n), None);
        }
        assert_eq!(map.insert(key(7), 8), Some(7));
        assert_eq!((map.len(), map.get(&key(7)), map.get(&key(1_000))), (1_000, Some(&8), None));
        assert_eq!(map.remove(&key(7)), Some(8));
        assert!(!map.contains(&key(7)) && map.contains(&key(8)));
        map.clear();
        assert!(map.is_empty());
    }

    #[test]
    fn marks_are_found_and_forgotten() {
        let mut marks = KeyMarks::new(KeyHash::new(&Seed::from_u64(1)));
        assert!((0..10_000).all(|n| marks.insert(&key(n))));
        assert!(!marks.insert(&key(7)));
        assert!(marks.contains(&key(9_999)) && !marks.contains(&key(10_000)));
        assert_eq!(marks.len(), 10_000);
        marks.clear();
        assert!(marks.is_empty() && !marks.contains(&key(7)));
    }

    /// Keys that differ in one bit each land far apart, and elsewhere for another seed.
    #[test]
    fn near_keys_are_spread_and_a_seed_decides_where() {
        let spread = |seed| {
            let hash = KeyHash::new(&Seed::from_u64(seed));
            (0..4_096).map(|n| hash.hash_one(key(n)) >> 57).collect::<Vec<_>>()
        };
        let (one, other) = (spread(1), spread(2));
        let mut places = [0; 128];
        one.iter().for_each(|place| places[*place as usize] += 1);
        assert!(places.iter().all(|crowd| (8..=64).contains(crowd)), "{places:?}");
        assert!(one.iter().zip(&other).filter(|(a, b)| a == b).count() < 200);
    }
}

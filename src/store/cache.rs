//! A bounded cache that never keeps what was read before a change: a value is inserted only if nothing was invalidated since its read began.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;

const SHARDS: usize = 64;

/// See the module; `K` is hashed twice on a miss, once on a hit.
pub(super) struct GuardedCache<K, V> {
    cache: Cache<K, V>,
    epochs: [Mutex<u64>; SHARDS],
    hasher: RandomState,
}

/// Taken before the read whose result is to be inserted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket(u64);

impl<K: Hash + Eq + Clone, V: Clone> GuardedCache<K, V> {
    /// Holds up to `capacity` values.
    pub fn new(capacity: usize) -> Self {
        Self { cache: Cache::new(capacity), epochs: std::array::from_fn(|_| Mutex::new(0)), hasher: RandomState::new() }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        self.cache.get(key)
    }

    pub fn begin(&self, key: &K) -> Ticket {
        Ticket(*self.epoch(key))
    }

    /// Inserts a value, unless its key was invalidated since the ticket was taken.
    pub fn fill(&self, key: &K, value: V, ticket: Ticket) {
        let epoch = self.epoch(key);
        if *epoch == ticket.0 {
            self.cache.insert(key.clone(), value);
        }
    }

    pub fn invalidate(&self, key: &K) {
        let mut epoch = self.epoch(key);
        *epoch = epoch.wrapping_add(1);
        self.cache.remove(key);
    }

    pub fn clear(&self) {
        let mut epochs: Vec<_> =
            self.epochs.iter().map(|epoch| epoch.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        for epoch in &mut epochs {
            **epoch = epoch.wrapping_add(1);
        }
        self.cache.clear();
    }

    fn epoch(&self, key: &K) -> MutexGuard<'_, u64> {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        // The remainder is below SHARDS.
        #[allow(clippy::indexing_slicing, reason = "the index is a remainder of the array's length")]
        self.epochs[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let cache = GuardedCache::new(8);
        let ticket = cache.begin(&1);
        cache.invalidate(&1);
        cache.fill(&1, "old", ticket);
        assert_eq!(cache.get(&1), None);
        let ticket = cache.begin(&1);
        cache.fill(&1, "new", ticket);
        assert_eq!(cache.get(&1), Some("new"));
        let ticket = cache.begin(&2);
        cache.clear();
        cache.fill(&2, "old", ticket);
        assert_eq!((cache.get(&1), cache.get(&2)), (None, None));
    }

    #[test]
    fn it_stays_within_its_bound() {
        let cache = GuardedCache::new(100);
        for key in 0..10_000 {
            cache.fill(&key, key, cache.begin(&key));
        }
        assert!(cache.cache.len() <= 100);
    }
}

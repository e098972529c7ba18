//! A map whose entries expire.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::runtime::lock;

/// A map whose entries expire a fixed time after they were inserted.
#[derive(Debug)]
pub(crate) struct TtlCache<K, V> {
    ttl: Duration,
    entries: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K: Eq + Hash, V: Clone> TtlCache<K, V> {
    /// An empty cache.
    #[must_use]
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            entries: Mutex::default(),
        }
    }

    /// The value, unless it is missing or expired. Removes all expired entries.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q, now: Instant) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let mut entries = lock(&self.entries);
        entries.retain(|_, (_, inserted)| now.saturating_duration_since(*inserted) < self.ttl);
        entries.get(key).map(|(value, _)| value.clone())
    }

    /// Removes the values of some keys.
    pub(crate) fn remove_if(&self, is_outdated: impl Fn(&K) -> bool) {
        lock(&self.entries).retain(|key, _| !is_outdated(key));
    }

    /// Inserts a value that expires after the cache's time to live.
    pub(crate) fn insert(&self, key: K, value: V, now: Instant) {
        lock(&self.entries).insert(key, (value, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_expire() {
        let (cache, inserted) = (TtlCache::new(Duration::from_secs(2)), Instant::now());
        cache.insert("a", 1, inserted);
        assert_eq!(cache.get("a", inserted + Duration::from_secs(1)), Some(1));
        assert_eq!(cache.get("a", inserted + Duration::from_secs(2)), None);
        assert!(lock(&cache.entries).is_empty());
    }
}

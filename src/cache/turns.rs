//! Turns: whoever does the same thing waits for the one who does it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::runtime::lock;

/// A lock for each key, kept while somebody holds it or waits for it.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    by_key: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    /// Waits until nobody else has the turn of this key. The turn ends when the guard is dropped.
    pub(crate) async fn wait(&self, key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut by_key = lock(&self.by_key);
            by_key.retain(|_, turn| turn.strong_count() > 0);
            let existing = by_key.get(key).and_then(Weak::upgrade);
            existing.unwrap_or_else(|| {
                let turn = Arc::default();
                by_key.insert(key.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_has_the_turn_of_a_key() {
        let turns = Turns::default();
        let first = turns.wait("a").await;
        assert!(turns.wait("b").now_or_never().is_some(), "another key");
        let mut second = Box::pin(turns.wait("a"));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        let second = second.now_or_never();
        assert!(second.is_some());
        drop(second);
        drop(turns.wait("c").await);
        assert_eq!(lock(&turns.by_key).len(), 1, "those of others are removed");
    }
}

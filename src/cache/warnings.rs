//! The warnings that the cluster's own controllers recorded in a namespace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::runtime::lock;
use crate::state::StartBlocker;

/// How long warnings are kept: of a thousand tests that wait for a quota, one request serves all.
const WARNINGS_CACHE_TTL: Duration = Duration::from_secs(60);

/// How long warnings are kept that do not mention the object that is looked for.
const WARNINGS_NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// The warnings of a namespace.
#[derive(Debug)]
pub(crate) struct NamespaceWarnings {
    /// What keeps Jobs and pods from starting, by their UID.
    pub blockers: HashMap<String, StartBlocker>,
    /// When they were listed.
    pub listed_at: Instant,
}

impl NamespaceWarnings {
    /// Whether they are recent enough to answer for the object with this UID.
    #[must_use]
    pub(crate) fn is_fresh(&self, uid: &str, now: Instant) -> bool {
        let ttl = if self.blockers.contains_key(uid) {
            WARNINGS_CACHE_TTL
        } else {
            WARNINGS_NEGATIVE_TTL
        };
        now.duration_since(self.listed_at) < ttl
    }
}

/// The slot of a namespace. Whoever lists the warnings holds it; others wait for the answer.
pub(crate) type WarningsSlot = Arc<tokio::sync::Mutex<Option<NamespaceWarnings>>>;

/// The warnings by namespace.
#[derive(Debug, Default)]
pub(crate) struct WarningsCache(Mutex<HashMap<String, WarningsSlot>>);

impl WarningsCache {
    /// The slot of a namespace. Drops the expired slots of others.
    pub(crate) fn warnings_in(&self, namespace: &str, now: Instant) -> WarningsSlot {
        let mut slots = lock(&self.0);
        let is_expired = |slot: &WarningsSlot| {
            slot.try_lock().is_ok_and(|warnings| {
                warnings
                    .as_ref()
                    .is_none_or(|w| now.duration_since(w.listed_at) > WARNINGS_CACHE_TTL)
            })
        };
        slots.retain(|name, slot| name == namespace || !is_expired(slot));
        slots.entry(namespace.to_owned()).or_default().clone()
    }
}

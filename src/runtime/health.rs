//! The state behind the liveness and readiness probes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::lock;

/// The health of this replica.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
    watch_failures: Mutex<Option<Failures>>,
}

/// A series of watch failures, each within [`FAILURE_WINDOW`] of the previous one.
#[derive(Clone, Copy, Debug)]
struct Failures {
    first: Instant,
    last: Instant,
}

/// Watches count as recovered after this long without a failure. It is longer than the maximum retry delay of a watch.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// The cached state of the cluster counts as stale after watches have failed for this long.
const STALE_AFTER: Duration = Duration::from_secs(180);

impl Health {
    /// Marks this replica as ready, either to lead or to stand by.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Returns whether this replica is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Records a failure of a watch.
    pub(crate) fn watch_failed(&self, now: Instant) {
        let mut failures = lock(&self.watch_failures);
        let first = failures
            .filter(|f| now.duration_since(f.last) < FAILURE_WINDOW)
            .map_or(now, |f| f.first);
        *failures = Some(Failures { first, last: now });
    }

    /// Returns whether watches have failed for [`STALE_AFTER`] and still fail.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        let failures = lock(&self.watch_failures);
        failures.is_some_and(|f| {
            f.last.duration_since(f.first) >= STALE_AFTER
                && now.duration_since(f.last) < FAILURE_WINDOW
        })
    }
}

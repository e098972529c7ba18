//! What the probes report.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::lock;

/// What the probes tell.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
    watch_failures: Mutex<Option<Failures>>,
}

/// A row of failures of watches with no long pause in between.
#[derive(Clone, Copy, Debug)]
struct Failures {
    first: Instant,
    last: Instant,
}

/// A watch that fails is tried again within half a minute or so: without a failure for this long, it works again.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// After watches have failed for this long, what is known of the cluster is stale.
const STALE_AFTER: Duration = Duration::from_secs(180);

impl Health {
    /// Notes that this replica can do its part: to work, or to stand by.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Whether this replica can do its part.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Notes that a watch has failed.
    pub fn watch_failed(&self, now: Instant) {
        let mut failures = lock(&self.watch_failures);
        let first = failures
            .filter(|f| now.duration_since(f.last) < FAILURE_WINDOW)
            .map_or(now, |f| f.first);
        *failures = Some(Failures { first, last: now });
    }

    /// Whether watches have failed again and again, and still do.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        let failures = lock(&self.watch_failures);
        failures.is_some_and(|f| {
            f.last.duration_since(f.first) >= STALE_AFTER
                && now.duration_since(f.last) < FAILURE_WINDOW
        })
    }
}

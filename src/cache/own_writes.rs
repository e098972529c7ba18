//! What this process wrote and the watch may not show yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use loadtest_api::v1alpha1::LoadTest;

use super::key::{ObjectRef, object_ref, shrink_if_sparse};
use crate::runtime::lock;

/// What this process recorded and wrote about tests that have not finished.
///
/// Entries of an earlier test of the same name do no harm: neither event identities nor resource versions are ever reused.
#[derive(Debug, Default)]
pub(crate) struct OwnWrites(Mutex<HashMap<ObjectRef, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    recorded_events: Vec<u64>,
    failed_events: Option<Box<FailedEvents>>,
    written: Option<Written>,
}

/// Attempts to record events that failed, one after the other.
#[derive(Debug)]
struct FailedEvents {
    error: String,
    delay: Duration,
    retry_at: Instant,
}

/// The delay after the first attempt to record an event that failed. It doubles up to [`MAX_EVENT_DELAY`].
const MIN_EVENT_DELAY: Duration = Duration::from_secs(1);
const MAX_EVENT_DELAY: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Written {
    test: Arc<LoadTest>,
    /// The versions that were replaced. While the watch shows one of these, it lags behind.
    replaced_versions: Vec<String>,
}

impl OwnWrites {
    fn with<T>(&self, key: &ObjectRef, f: impl FnOnce(&mut Entry) -> T) -> T {
        f(lock(&self.0).entry(key.clone()).or_default())
    }

    /// The latest state of a test: as watched, or as written where the watch lags behind.
    ///
    /// A test is forgotten only when the watch itself shows it as finished, with all events. Until then an older view might still
    /// arrive.
    pub(crate) fn latest(&self, key: &ObjectRef, watched: &Arc<LoadTest>) -> Arc<LoadTest> {
        if watched.is_finished() && !watched.misses_events() {
            self.forget(key);
            return watched.clone();
        }
        let version = watched.metadata.resource_version.as_ref();
        self.with(key, |entry| match &entry.written {
            Some(written) if written.replaced_versions.iter().any(|v| Some(v) == version) => {
                written.test.clone()
            }
            _ => {
                entry.written = None;
                watched.clone()
            }
        })
    }

    /// Forgets a test that is finished or deleted.
    pub(crate) fn forget(&self, key: &ObjectRef) {
        let mut entries = lock(&self.0);
        entries.remove(key);
        shrink_if_sparse(&mut entries);
    }

    /// Records a successful write of a test. Returns the test as written.
    pub(crate) fn record_write(&self, before: &LoadTest, after: LoadTest) -> Arc<LoadTest> {
        let after = Arc::new(after);
        self.with(&object_ref(&before.metadata), |entry| {
            let earlier = entry.written.take();
            let mut replaced_versions = earlier.map(|w| w.replaced_versions).unwrap_or_default();
            replaced_versions.extend(before.resource_version());
            entry.written = Some(Written {
                test: after.clone(),
                replaced_versions,
            });
        });
        after
    }

    /// Whether this process has recorded the event with this identity.
    pub(crate) fn has_recorded(&self, key: &ObjectRef, event_id: u64) -> bool {
        self.with(key, |entry| entry.recorded_events.contains(&event_id))
    }

    /// Notes that the event with this identity exists.
    pub fn record_event(&self, key: &ObjectRef, event_id: u64) {
        self.with(key, |entry| {
            entry.recorded_events.push(event_id);
            entry.failed_events = None;
        });
    }

    /// Notes that an event could not be recorded.
    pub fn record_failed_event(&self, key: &ObjectRef, error: &str, now: Instant) {
        self.with(key, |entry| {
            let earlier = entry.failed_events.as_ref().map(|e| e.delay * 2);
            let delay = earlier.unwrap_or(MIN_EVENT_DELAY).min(MAX_EVENT_DELAY);
            entry.failed_events = Some(Box::new(FailedEvents {
                error: error.to_owned(),
                delay,
                retry_at: now + delay,
            }));
        });
    }

    /// Whether events may be recorded now.
    ///
    /// # Errors
    /// Why the last attempt failed, until the next one is due.
    pub fn check_events(&self, key: &ObjectRef, now: Instant) -> Result<(), String> {
        self.with(key, |entry| match &entry.failed_events {
            Some(failed) if now < failed.retry_at => Err(failed.error.clone()),
            _ => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use loadtest_api::v1alpha1::{LoadTestStatus, Phase};

    use super::*;
    use crate::fixtures::load_test;

    fn test(version: &str) -> LoadTest {
        let mut test = load_test().build();
        test.metadata.resource_version = Some(version.into());
        test
    }

    fn version(test: &LoadTest) -> &str {
        test.metadata.resource_version.as_deref().unwrap()
    }

    #[test]
    fn a_lagging_watch_does_not_hide_a_write() {
        let writes = OwnWrites::default();
        let [first, second, third] = ["1", "2", "3"].map(|v| Arc::new(test(v)));
        writes.record_write(&first, (*second).clone());
        writes.record_write(&second, (*third).clone());
        for lagging in [&first, &second] {
            let latest = writes.latest(&object_ref(&lagging.metadata), lagging);
            assert_eq!(version(&latest), "3");
        }
        let newer = Arc::new(test("9"));
        let latest = writes.latest(&object_ref(&newer.metadata), &newer);
        assert_eq!(version(&latest), "9");
    }

    #[test]
    fn a_written_end_is_remembered_until_the_watch_shows_it() {
        let writes = OwnWrites::default();
        let mut ended = test("2");
        ended.status = Some(LoadTestStatus {
            phase: Some(Phase::Completed),
            ..LoadTestStatus::default()
        });
        let (lagging, shown) = (Arc::new(test("1")), Arc::new(ended.clone()));
        let key = object_ref(&lagging.metadata);
        writes.record_write(&lagging, ended);
        for _ in 0..2 {
            assert!(writes.latest(&key, &lagging).is_finished());
        }
        assert!(writes.latest(&key, &shown).is_finished());
        assert!(lock(&writes.0).is_empty(), "the watch has caught up");
    }

    #[test]
    fn a_finished_test_is_remembered_while_its_events_are_missing() {
        let writes = OwnWrites::default();
        let finished = |version, conditions: serde_json::Value| {
            let mut test = test(version);
            let status = serde_json::json!({"phase": "Completed", "conditions": conditions});
            test.status = Some(serde_json::from_value(status).unwrap());
            Arc::new(test)
        };
        let missing = serde_json::json!([{"type": "EventsRecorded", "status": "False", "reason": "RequestFailed",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let (lagging, recorded) = (finished("1", missing), finished("2", serde_json::json!([])));
        let key = object_ref(&lagging.metadata);
        writes.record_event(&key, 7);
        assert!(writes.latest(&key, &lagging).misses_events());
        assert!(writes.has_recorded(&key, 7));
        writes.record_write(&lagging, (*recorded).clone());
        assert!(!writes.latest(&key, &lagging).misses_events());
        assert!(!writes.latest(&key, &recorded).misses_events());
        assert!(lock(&writes.0).is_empty(), "the watch has caught up");
    }
}

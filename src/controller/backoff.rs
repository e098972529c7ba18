//! How long a test waits after a failed reconcile.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use loadtest_api::v1alpha1::LoadTest;

use crate::runtime::lock;

/// How long after its delay a failure without a successor is kept. Then the test no longer exists.
const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(600);

/// The delays of tests whose last reconcile failed, by their UID.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<HashMap<String, Failures>>);

/// The UID of a test, and the generation of its spec.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revision<'a> {
    pub(super) uid: &'a str,
    pub(super) generation: Option<i64>,
}

impl<'a> Revision<'a> {
    pub(super) fn of(test: &'a LoadTest) -> Self {
        Self {
            uid: test.metadata.uid.as_deref().unwrap_or_default(),
            generation: test.metadata.generation,
        }
    }
}

/// Consecutive failures of a test.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    generation: Option<i64>,
    until: Instant,
}

impl Backoff {
    /// Records one more failure of a test. Returns the delay until the next attempt, `at_most` where that is shorter.
    pub(super) fn record_failure(
        &self,
        test: Revision,
        now: Instant,
        at_most: Option<Duration>,
    ) -> Duration {
        let mut all = lock(&self.0);
        all.retain(|_, failures| {
            now.saturating_duration_since(failures.until) < BACKOFF_RESET_AFTER
        });
        let failures = all.entry(test.uid.to_owned()).or_insert(Failures {
            count: 0,
            generation: None,
            until: now,
        });
        // A deadline that has passed is no reason to hurry: what it asks for has just failed.
        let at_most = at_most.filter(|at_most| !at_most.is_zero());
        let delay = delay(failures.count).min(at_most.unwrap_or(Duration::MAX));
        failures.generation = test.generation;
        failures.count = failures.count.saturating_add(1);
        failures.until = now + delay;
        delay
    }

    /// How long a test still has to wait. Only a change of its spec ends the wait early: other events are most frequent just when
    /// the API server is overloaded.
    pub(super) fn remaining(&self, test: Revision, now: Instant) -> Option<Duration> {
        let all = lock(&self.0);
        let failures = all.get(test.uid)?;
        failures
            .until
            .checked_duration_since(now)
            .filter(|_| failures.generation == test.generation)
            .filter(|remaining| !remaining.is_zero())
    }

    /// Forgets the failures of a test after a successful reconcile.
    pub(super) fn forget(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }
}

/// The delay after `failures` earlier failures: from half a second, doubling, to a minute.
fn delay(failures: u32) -> Duration {
    Duration::from_millis(500)
        .saturating_mul(1 << failures.min(7))
        .min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: Revision = Revision {
        uid: "u",
        generation: Some(1),
    };

    #[test]
    fn the_delay_doubles_up_to_a_minute() {
        let delays: Vec<_> = [0, 1, 2, 6, 7, u32::MAX]
            .map(|n| delay(n).as_millis())
            .into();
        assert_eq!(delays, [500, 1000, 2000, 32_000, 60_000, 60_000]);
    }

    #[test]
    fn events_neither_shorten_nor_extend_a_delay() {
        let (backoff, begin) = (Backoff::default(), Instant::now());
        let at = |millis| begin + Duration::from_millis(millis);
        assert_eq!(backoff.remaining(U, at(0)), None);
        backoff.record_failure(U, at(0), None);
        // Every event in between finds that the test still waits, so it fails no more often.
        assert_eq!(
            backoff.remaining(U, at(200)),
            Some(Duration::from_millis(300))
        );
        assert_eq!(backoff.remaining(U, at(500)), None);
        assert_eq!(backoff.record_failure(U, at(500), None).as_millis(), 1000);
        backoff.forget("u");
        assert_eq!(backoff.record_failure(U, at(2000), None).as_millis(), 500);
    }

    #[test]
    fn a_deadline_shortens_a_delay() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        let deadline = Duration::from_millis(70);
        assert_eq!(backoff.record_failure(U, now, Some(deadline)), deadline);
        assert_eq!(backoff.remaining(U, now + deadline), None);
        let passed = Some(Duration::ZERO);
        assert_eq!(backoff.record_failure(U, now, passed).as_millis(), 1000);
    }

    #[test]
    fn a_spec_change_ends_a_delay() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        backoff.record_failure(U, now, None);
        assert!(backoff.remaining(U, now).is_some());
        let edited = Revision {
            generation: Some(2),
            ..U
        };
        assert_eq!(backoff.remaining(edited, now), None);
    }
}

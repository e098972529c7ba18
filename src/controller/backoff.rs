//! How long a test waits after a failed reconcile.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::runtime::lock;

/// How long after its delay a failure without a successor is kept. Then the test no longer exists.
const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(600);

/// The delays of tests whose last reconcile failed, by their UID.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<HashMap<String, Failures>>);

/// Consecutive failures of a test.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    until: Instant,
}

impl Backoff {
    /// Records one more failure of a test. Returns the delay until the next attempt, `at_most` where that is shorter.
    pub(super) fn record_failure(
        &self,
        uid: &str,
        now: Instant,
        at_most: Option<Duration>,
    ) -> Duration {
        let mut all = lock(&self.0);
        all.retain(|_, failures| {
            now.saturating_duration_since(failures.until) < BACKOFF_RESET_AFTER
        });
        let failures = all.entry(uid.to_owned()).or_insert(Failures {
            count: 0,
            until: now,
        });
        let delay = delay(failures.count).min(at_most.unwrap_or(Duration::MAX));
        failures.count = failures.count.saturating_add(1);
        failures.until = now + delay;
        delay
    }

    /// How long a test still has to wait. Events do not shorten the wait: many arrive just when the API server is overloaded.
    pub(super) fn remaining(&self, uid: &str, now: Instant) -> Option<Duration> {
        let until = lock(&self.0).get(uid)?.until;
        until
            .checked_duration_since(now)
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
        assert_eq!(backoff.remaining("u", at(0)), None);
        backoff.record_failure("u", at(0), None);
        // Every event in between finds that the test still waits, so it fails no more often.
        assert_eq!(
            backoff.remaining("u", at(200)),
            Some(Duration::from_millis(300))
        );
        assert_eq!(backoff.remaining("u", at(500)), None);
        assert_eq!(backoff.record_failure("u", at(500), None).as_millis(), 1000);
        backoff.forget("u");
        assert_eq!(backoff.record_failure("u", at(2000), None).as_millis(), 500);
    }

    #[test]
    fn a_deadline_shortens_a_delay() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        let deadline = Duration::from_millis(70);
        assert_eq!(backoff.record_failure("u", now, Some(deadline)), deadline);
        assert_eq!(backoff.remaining("u", now + deadline), None);
    }
}

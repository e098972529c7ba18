//! Workers that begin their load together: each says that it is ready, and once all are, all are told one instant.
//!
//! The instant is kept nowhere but on the workers' pods. So an operator that is ended while it tells them finds it on the
//! first of them when it comes back, and tells the rest the same.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{Scene, StartWorkers, named};
use crate::progress::Worker;

/// So far ahead is the instant, for the kubelets to bring it to the workers: it takes them a quarter of a second.
const LEAD: SignedDuration = SignedDuration::from_secs(1);

/// And so much further for each worker that is to be told.
const LEAD_OF_EACH: SignedDuration = SignedDuration::from_millis(2);

/// So long after the instant all are told again. A busy kubelet sometimes passes over a change of a pod that comes close to
/// another, until it looks at the pod a minute or more later: seen with 16 workers on two cores. Whoever has begun does not heed it.
const AGAIN: [SignedDuration; 2] = [SignedDuration::from_secs(1), SignedDuration::from_secs(6)];

/// How far the workers are that wait for each other.
pub(super) enum Gathering {
    /// None waits any more.
    Begun {
        /// When they were to begin, if they were told.
        at: Option<Timestamp>,
    },
    /// Some are not ready, which this names.
    Waits(String),
    /// All are to be told, or the rest is.
    Tell(StartWorkers),
}

impl Gathering {
    /// What is waited for, if anything is.
    pub(super) fn told(&self) -> Option<String> {
        match self {
            Self::Begun { .. } => None,
            Self::Waits(missing) => Some(format!("waiting until {missing} is ready")),
            Self::Tell(start) => Some(format!("all are ready, and {} of them to be told when to begin", start.pods.len())),
        }
    }
}

impl Scene<'_> {
    /// How far workers are all of which have started.
    pub(super) fn gathering(&self, workers: &[Worker]) -> Gathering {
        let told = workers.iter().filter_map(|w| w.start_at).min();
        // Nobody waits for one that has ended before the others were ready: whether the test goes on is the Job's matter.
        let untold: Vec<&Worker> = workers.iter().filter(|w| w.start_at.is_none() && goes_on(w)).collect();
        if untold.is_empty() || !self.test.spec.starts_together() {
            return Gathering::Begun { at: told };
        }
        let missing: Vec<&Worker> = untold.iter().copied().filter(|w| !w.ready).collect();
        if told.is_none() && !missing.is_empty() {
            return Gathering::Waits(named(&missing));
        }
        let pods = untold.into_iter().map(|w| (w.pod.clone(), w.uid.clone())).collect::<Vec<_>>();
        Gathering::Tell(StartWorkers { at: told.unwrap_or_else(|| start(self.now, pods.len())), times: 1, pods })
    }

    /// Who is to be told again of those that were told, and when the next time comes.
    pub(super) fn telling_again(&self, workers: &[Worker]) -> (Option<StartWorkers>, Option<Timestamp>) {
        let Some(at) = workers.iter().filter_map(|w| w.start_at).min().filter(|_| self.test.spec.starts_together()) else {
            return (None, None);
        };
        let due = AGAIN.iter().filter(|after| super::later(at, **after) <= self.now).count();
        let times = u8::try_from(due).unwrap_or_default().saturating_add(1);
        let late = workers.iter().filter(|w| goes_on(w) && w.start_at.is_some() && w.told < times);
        let pods: Vec<_> = late.map(|w| (w.pod.clone(), w.uid.clone())).collect();
        let next = AGAIN
            .get(due)
            .map(|after| super::later(at, *after))
            .filter(|_| workers.iter().any(|w| goes_on(w) && w.told <= times));
        ((!pods.is_empty()).then_some(StartWorkers { at, times, pods }), next)
    }
}

/// Whether a worker has not ended, and is not about to.
fn goes_on(worker: &Worker) -> bool {
    !worker.has_ended() && worker.deleted.is_none()
}

/// The instant for so many workers, in whole milliseconds, which is what they read.
fn start(now: Timestamp, workers: usize) -> Timestamp {
    let each = LEAD_OF_EACH.saturating_mul(i32::try_from(workers).unwrap_or(i32::MAX));
    let at = super::later(now, LEAD.saturating_add(each));
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

//! Workers that begin their load at one instant: each reports when it is ready; when all are, the operator sends all of them the
//! same instant.
//!
//! The instant is stored only on the workers' pods. An operator that restarts while it sends the instant finds it on the first of
//! them and sends the others the same.

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::messages::{self, list_workers};
use super::{Decision, PodRef, SendStartTime, saturating_add};
use crate::state::{StartState, WorkerStatus};

/// How far ahead the instant lies: time for kubelets to deliver it, and for workers to acknowledge it.
const START_LEAD_TIME: SignedDuration = SignedDuration::from_millis(1800);

/// The lead time for each worker to patch. A worker that learns of the instant later than that begins late.
const LEAD_TIME_PER_WORKER: SignedDuration = SignedDuration::from_millis(8);

/// When the instant is sent again to workers that have not acknowledged it, in milliseconds after the instant; the first time
/// while they can still begin with the others.
///
/// A kubelet can pass over a change of a pod until its next periodic sync: its volume manager may have listed the volumes with
/// the pod as it was, remounts those, and takes the change for done (Kubernetes 1.34, `pkg/kubelet/volumemanager`, the populator
/// runs between the two halves of reconcile).
const RETRY_OFFSETS_MS: [i64; 6] = [-350, 1500, 3000, 7000, 15_000, 30_000];

/// How long after the instant a missing acknowledgement is reported.
const ACK_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(10);

/// How far the workers are that wait for each other.
pub(super) enum StartBarrier {
    /// No worker waits any more.
    Released {
        /// The start instant, if one was sent.
        at: Option<Timestamp>,
    },
    /// Some workers are not ready.
    Waiting {
        /// Their pods, for a message.
        workers: String,
        /// How many are ready.
        ready: usize,
    },
    /// All workers are ready: the instant must be sent to those that do not have it.
    Release(SendStartTime),
}

impl StartBarrier {
    /// What is waited for, for a message.
    pub(super) fn waiting_for(&self) -> Option<String> {
        match self {
            Self::Released { .. } => None,
            Self::Waiting { workers, ready } => Some(messages::barrier_not_ready(workers, *ready)),
            Self::Release(start) => Some(messages::barrier_sending(start.pods.len())),
        }
    }
}

impl Decision<'_> {
    /// How far workers are, all of which have started.
    pub(super) fn start_barrier(&self, workers: &[Arc<WorkerStatus>]) -> StartBarrier {
        let instant = workers.iter().filter_map(|w| w.start.instant).min();
        // A worker that ended before the others were ready is not waited for: whether the test goes on is the Job's decision.
        let waiting: Vec<&WorkerStatus> = workers
            .iter()
            .map(Arc::as_ref)
            .filter(|w| w.start.instant.is_none() && is_alive(w))
            .collect();
        if waiting.is_empty() || !self.test.spec.starts_together() {
            return StartBarrier::Released { at: instant };
        }
        let loading: Vec<&WorkerStatus> = waiting
            .iter()
            .copied()
            .filter(|w| w.start.state == StartState::Loading)
            .collect();
        if instant.is_none() && !loading.is_empty() {
            return StartBarrier::Waiting {
                workers: list_workers(&loading),
                ready: workers.len() - loading.len(),
            };
        }
        StartBarrier::Release(SendStartTime {
            at: instant.unwrap_or_else(|| start_instant(self.now, waiting.len())),
            attempt: 1,
            pods: waiting.into_iter().map(pod_ref).collect(),
        })
    }

    /// The workers to which the instant is sent again, and when to check this next.
    pub(super) fn start_retries(
        &self,
        workers: &[Arc<WorkerStatus>],
    ) -> (Option<SendStartTime>, Option<Timestamp>) {
        let instant = workers.iter().filter_map(|w| w.start.instant).min();
        let Some(at) = instant.filter(|_| self.test.spec.starts_together()) else {
            return (None, None);
        };
        let retry_time = |ms: &i64| saturating_add(at, SignedDuration::from_millis(*ms));
        // Where no worker has acknowledged, delivery as a whole is slow: a retry would not help.
        let too_early = self.now < at
            && !workers
                .iter()
                .any(|w| w.start.state == StartState::Acknowledged);
        let due = RETRY_OFFSETS_MS
            .iter()
            .filter(|ms| retry_time(ms) <= self.now)
            .count();
        let attempt = u8::try_from(due).unwrap_or_default().saturating_add(1);
        let overdue = |w: &&WorkerStatus| w.start.ack_deadline.is_some_and(|due| due <= self.now);
        let pods: Vec<_> = without_ack(workers)
            .filter(overdue)
            .filter(|w| w.start.attempt < attempt && !too_early)
            .map(pod_ref)
            .collect();
        let next_ack = without_ack(workers)
            .filter_map(|w| w.start.ack_deadline)
            .filter(|due| *due > self.now)
            .min();
        let next_retry = RETRY_OFFSETS_MS
            .get(due)
            .map(retry_time)
            .filter(|_| without_ack(workers).next().is_some());
        let retry = (!pods.is_empty()).then_some(SendStartTime { at, attempt, pods });
        (retry, [next_retry, next_ack].into_iter().flatten().min())
    }

    /// The message about workers that have not acknowledged the instant although it has passed.
    pub(super) fn unacknowledged_after_start(
        &self,
        workers: &[Arc<WorkerStatus>],
    ) -> Option<String> {
        let at = self.current.load_start_time.as_ref()?.0;
        let is_late = |w: &&WorkerStatus| {
            w.start
                .ack_deadline
                .is_some_and(|due| saturating_add(due.max(at), ACK_GRACE_PERIOD) <= self.now)
        };
        let late: Vec<_> = without_ack(workers).filter(is_late).collect();
        (!late.is_empty()).then(|| messages::start_not_acknowledged(&late, at))
    }
}

/// Workers that the instant was sent to and that have not acknowledged it.
fn without_ack(workers: &[Arc<WorkerStatus>]) -> impl Iterator<Item = &WorkerStatus> {
    workers.iter().map(Arc::as_ref).filter(|w| {
        is_alive(w) && w.start.instant.is_some() && w.start.state < StartState::Acknowledged
    })
}

/// Whether a worker has not ended and is not being deleted.
fn is_alive(worker: &WorkerStatus) -> bool {
    !worker.has_ended() && worker.deleted.is_none()
}

fn pod_ref(worker: &WorkerStatus) -> PodRef {
    PodRef {
        name: worker.pod.clone(),
        uid: worker.uid.clone(),
    }
}

/// The instant for this number of workers, in whole milliseconds, which is what workers read.
fn start_instant(now: Timestamp, workers: usize) -> Timestamp {
    let count = i32::try_from(workers).unwrap_or(i32::MAX);
    let lead = START_LEAD_TIME.saturating_add(LEAD_TIME_PER_WORKER.saturating_mul(count));
    let at = saturating_add(now, lead);
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

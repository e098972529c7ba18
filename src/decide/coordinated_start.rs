//! Workers that begin their load at one instant: each reports when it is ready; when all are, the operator sends all of them the
//! same instant.
//!
//! The instant is recorded in the status before it is sent, and the record is its only source: an annotation with another value is
//! not the operator's. An operator that restarts while it sends the instant sends the remaining workers what is recorded. A recorded
//! instant that no worker has received in time is replaced.

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::messages::{self, list_workers};
use super::{Decision, PodRef, SendStartTime, saturating_add};
use crate::build::READINESS_PERIOD;
use crate::state::{StartState, WorkerStatus};

/// How far ahead the instant lies: time for kubelets to deliver it, and for workers to acknowledge it.
const START_LEAD_TIME: SignedDuration = SignedDuration::from_millis(1800);

/// The time for the record, which is written before the instant is sent.
const RECORD_TIME: SignedDuration = SignedDuration::from_millis(200);

/// The lead time for each worker to patch. A worker that learns of the instant later than that begins late.
const LEAD_TIME_PER_WORKER: SignedDuration = SignedDuration::from_millis(8);

/// When the instant is sent again to workers that have not acknowledged it, in milliseconds after the instant; the first time
/// while they can still begin with the others.
///
/// A kubelet can pass over a change of a pod until its next periodic sync: its volume manager may have listed the volumes with
/// the pod as it was, remounts those, and takes the change for done (Kubernetes 1.34, `pkg/kubelet/volumemanager`, the populator
/// runs between the two halves of reconcile).
const RETRY_OFFSETS_MS: [i64; 6] = [-350, 1500, 3000, 7000, 15_000, 30_000];

/// How long after the instant a missing acknowledgement is reported, and after the time by which the kubelet must have run the
/// readiness probe.
const ACK_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(10);

/// How far the workers are that wait for each other.
pub(super) enum StartBarrier {
    /// No worker waits any more.
    Released,
    /// Some workers are not ready.
    Waiting {
        /// Their pods, for a message.
        workers: String,
        /// How many are ready.
        ready: usize,
    },
    /// All workers are ready, or were: the instant must be recorded, and sent to those that do not have it.
    Release(SendStartTime),
}

impl StartBarrier {
    /// What is waited for, for a message.
    pub(super) fn waiting_for(&self) -> Option<String> {
        match self {
            Self::Waiting { workers, ready } => Some(messages::barrier_not_ready(workers, *ready)),
            Self::Released | Self::Release(_) => None,
        }
    }
}

impl Decision<'_> {
    /// How far workers are, all of which have started.
    pub(super) fn start_barrier(&self, workers: &[Arc<WorkerStatus>]) -> StartBarrier {
        if !self.test.spec.starts_together() {
            return StartBarrier::Released;
        }
        let recorded = self.recorded_start();
        // A worker that ended before the others were ready is not waited for: whether the test goes on is the Job's decision. One
        // that acknowledged an instant of others has begun.
        let waiting: Vec<&WorkerStatus> = workers
            .iter()
            .map(Arc::as_ref)
            .filter(|w| is_alive(w) && w.start.state < StartState::Acknowledged)
            .filter(|w| recorded.is_none() || w.start.instant != recorded)
            .collect();
        if waiting.is_empty() {
            return StartBarrier::Released;
        }
        let loading: Vec<&WorkerStatus> = waiting
            .iter()
            .copied()
            .filter(|w| w.start.state == StartState::Loading)
            .collect();
        if recorded.is_none() && !loading.is_empty() {
            return StartBarrier::Waiting {
                workers: list_workers(&loading),
                ready: workers.len() - loading.len(),
            };
        }
        let lead = lead_time(waiting.len());
        let is_sent = workers.iter().any(|w| w.start.instant == recorded);
        let at = recorded
            .filter(|at| is_sent || saturating_add(self.now, lead) <= *at)
            .unwrap_or_else(|| start_instant(self.now, lead));
        StartBarrier::Release(SendStartTime {
            at,
            attempt: 1,
            pods: waiting.into_iter().map(pod_ref).collect(),
        })
    }

    /// The instant of the start, as recorded.
    fn recorded_start(&self) -> Option<Timestamp> {
        self.current.load_start_time.as_ref().map(|at| at.0)
    }

    /// The workers to which the instant is sent again, and when to check this next.
    pub(super) fn start_retries(
        &self,
        workers: &[Arc<WorkerStatus>],
    ) -> (Option<SendStartTime>, Option<Timestamp>) {
        let Some(at) = self.recorded_start() else {
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
        let pods: Vec<_> = without_ack(workers, at)
            .filter(overdue)
            .filter(|w| w.start.attempt < attempt && !too_early)
            .map(pod_ref)
            .collect();
        let next_ack = without_ack(workers, at)
            .filter_map(|w| w.start.ack_deadline)
            .filter(|due| *due > self.now)
            .min();
        let next_retry = RETRY_OFFSETS_MS
            .get(due)
            .map(retry_time)
            .filter(|_| without_ack(workers, at).next().is_some());
        let retry = (!pods.is_empty()).then_some(SendStartTime { at, attempt, pods });
        (retry, [next_retry, next_ack].into_iter().flatten().min())
    }

    /// The message about workers that have not acknowledged the instant although it has passed.
    pub(super) fn unacknowledged_after_start(
        &self,
        workers: &[Arc<WorkerStatus>],
    ) -> Option<String> {
        let at = self.recorded_start()?;
        let is_late = |w: &&WorkerStatus| {
            // A kubelet that was started recently, as that of a new node, delays the first probe.
            let probed = w
                .running_since
                .map(|since| saturating_add(since, READINESS_PERIOD));
            let due = |ack: Timestamp| ack.max(at).max(probed.unwrap_or(at));
            let deadline = w.start.ack_deadline.map(due);
            deadline.is_some_and(|due| saturating_add(due, ACK_GRACE_PERIOD) <= self.now)
        };
        let late: Vec<_> = without_ack(workers, at).filter(is_late).collect();
        (!late.is_empty()).then(|| messages::start_not_acknowledged(&late, at))
    }
}

/// Workers that the instant was sent to and that have not acknowledged it.
fn without_ack(
    workers: &[Arc<WorkerStatus>],
    instant: Timestamp,
) -> impl Iterator<Item = &WorkerStatus> {
    workers.iter().map(Arc::as_ref).filter(move |w| {
        is_alive(w) && w.start.instant == Some(instant) && w.start.state < StartState::Acknowledged
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

/// How long before the instant sending it to this number of workers must begin.
fn lead_time(workers: usize) -> SignedDuration {
    let count = i32::try_from(workers).unwrap_or(i32::MAX);
    START_LEAD_TIME.saturating_add(LEAD_TIME_PER_WORKER.saturating_mul(count))
}

/// A new instant, in whole milliseconds, which is what workers read.
fn start_instant(now: Timestamp, lead: SignedDuration) -> Timestamp {
    let at = saturating_add(now, RECORD_TIME.saturating_add(lead));
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

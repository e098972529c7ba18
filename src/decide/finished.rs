//! How tests end.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use loadtest_api::duration;
use loadtest_api::v1alpha1::{FailedWorker, FailurePolicy, LoadTestStatus, Phase, Reason};

use super::log_line::most_informative_line;
use super::messages;
use super::{Decision, FinalPhase, Plan};
use crate::state::{JobOutcome, JobStatus, WorkerState, WorkerStatus};

/// How many failed workers a status lists at most.
const MAX_FAILED_WORKERS: usize = 10;

/// The reason of a failed worker whose pod was deleted.
const DELETED: &str = "Deleted";

/// Why a Job failed.
pub(super) struct Failure {
    pub(super) end: FinalPhase,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Failure {
    fn new(end: FinalPhase, reason: Reason, message: String) -> Self {
        Self {
            end,
            reason,
            message,
        }
    }
}

impl Decision<'_> {
    /// The Job has ended.
    pub(super) fn job_finished(
        &self,
        job: &JobStatus,
        outcome: &JobOutcome,
        workers: &[Arc<WorkerStatus>],
    ) -> Plan {
        if self.was_resumed(job) {
            return self.with_suspended_job(job, workers);
        }
        let start_events = self.start_events(workers);
        let workers = blame_first_deleted(workers, job, outcome);
        let mut plan = match outcome {
            JobOutcome::Complete { at } => {
                let message = messages::all_succeeded(self.test.spec.count);
                let (end, reason) = (FinalPhase::Completed, Reason::Completed);
                self.finish(end, reason, &message, Some(job), &workers, *at)
            }
            JobOutcome::Failed {
                at,
                reason,
                message,
            } => {
                let failure = self.classify_failure(reason, message, &workers);
                let Failure {
                    end,
                    reason,
                    message,
                } = failure;
                self.finish(end, reason, &message, Some(job), &workers, *at)
            }
        };
        plan.events.splice(..0, start_events);
        plan
    }

    /// Ends a test that has no Job, or whose Job does not matter any more.
    pub(super) fn finish_without_job(
        &self,
        end: FinalPhase,
        reason: Reason,
        message: &str,
    ) -> Plan {
        self.finish(end, reason, message, None, &[], self.now)
    }

    /// The Job was deleted before it ended. It is not created again: its workers may have sent load.
    pub(super) fn job_deleted(
        &self,
        job: Option<&JobStatus>,
        workers: &[Arc<WorkerStatus>],
    ) -> Plan {
        let (end, reason, message) = if self.test.spec.stop == Some(true) {
            let message = messages::STOPPED_AND_JOB_DELETED.to_owned();
            (FinalPhase::Stopped, Reason::Stopped, message)
        } else {
            let message = messages::job_deleted(&self.test.name_any());
            (FinalPhase::Failed, Reason::JobDeleted, message)
        };
        self.finish(end, reason, &message, job, workers, self.now)
    }

    /// Ends a test: how, why, and with what results.
    pub(super) fn finish(
        &self,
        end: FinalPhase,
        reason: Reason,
        message: &str,
        job: Option<&JobStatus>,
        workers: &[Arc<WorkerStatus>],
        at: Timestamp,
    ) -> Plan {
        let mut status = self.status(end.phase(), Vec::new());
        if let Some(job) = job {
            status = self.with_counts(status, job, workers);
        }
        let mut status = self.with_times(status, job.and_then(|j| j.started), at);
        let mut events = vec![end.event(message)];
        let mut conditions = end.conditions(reason, message);
        conditions.extend(self.evaluate(end, &mut status, workers, &mut events));
        status.conditions = self.conditions(conditions);
        Plan {
            events,
            status: Some(status),
            ..Plan::default()
        }
    }

    /// Why a Job failed: because of which worker, with the end of its log; or because the Job was to end.
    pub(super) fn classify_failure(
        &self,
        job_reason: &str,
        job_message: &str,
        workers: &[Arc<WorkerStatus>],
    ) -> Failure {
        if job_reason == "DeadlineExceeded" {
            return self.classify_deadline(job_message);
        }
        let failed = failed_workers(workers);
        let Some(first) = failed.first() else {
            let by_worker = matches!(job_reason, "BackoffLimitExceeded" | "FailedIndexes");
            let reason = if by_worker {
                Reason::WorkerFailed
            } else {
                Reason::JobFailed
            };
            let message = messages::worker_lost(job_reason, job_message);
            return Failure::new(FinalPhase::Failed, reason, message);
        };
        let aborted = workers
            .iter()
            .filter(|w| w.state == WorkerState::Aborted)
            .count();
        let namespace = self.test.namespace().unwrap_or_default();
        let has_logs = !first.deleted.as_ref().is_some_and(|d| d.removed);
        let logs = has_logs.then_some(namespace.as_str());
        let name = self.test.name_any();
        let message = messages::worker_failed(first, failed.len() - 1, aborted, logs, &name);
        Failure::new(FinalPhase::Failed, failure_reason(first), message)
    }

    /// A Job that reached its deadline: the operator stopped it for a recorded cause, or it ran too long.
    fn classify_deadline(&self, job_message: &str) -> Failure {
        match self.stop_cause() {
            Some((Reason::Stopping, _)) => {
                let message = messages::stopped(self.current.succeeded, self.test.spec.count);
                Failure::new(FinalPhase::Stopped, Reason::Stopped, message)
            }
            Some((reason, message)) => Failure::new(FinalPhase::Failed, reason, message.to_owned()),
            None => Failure::new(
                FinalPhase::Failed,
                Reason::DeadlineExceeded,
                messages::deadline_exceeded(self.test.spec.active_deadline_seconds, job_message),
            ),
        }
    }

    fn with_times(
        &self,
        mut status: LoadTestStatus,
        job_started: Option<Timestamp>,
        at: Timestamp,
    ) -> LoadTestStatus {
        let started = status.start_time.as_ref().map(|t| t.0).or(job_started);
        let begin = started.unwrap_or(at).min(at);
        status.start_time = started.map(|_| Time(begin));
        status.completion_time = Some(Time(at));
        status.duration = Some(duration::format(at.duration_since(begin)));
        status.active = 0;
        if started.is_some() && status.phase != Some(Phase::Completed) {
            status.aborted = self
                .test
                .spec
                .count
                .saturating_sub(status.succeeded)
                .saturating_sub(status.failed)
                .max(0);
        }
        status
    }

    /// Takes the counts from the Job and the workers. They never decrease, whatever an old view shows.
    pub(super) fn with_counts(
        &self,
        mut status: LoadTestStatus,
        job: &JobStatus,
        workers: &[Arc<WorkerStatus>],
    ) -> LoadTestStatus {
        let failed = failed_workers(workers);
        // Where the failed pods are gone, the Job's count is all there is. With FailFast it includes workers that were stopped.
        let failed_by_job = match self.test.spec.failure_policy {
            FailurePolicy::FailFast => job.failed.min(i32::from(job.failed_by_workers())),
            FailurePolicy::Continue => job.failed,
        };
        let aborted = workers
            .iter()
            .filter(|w| w.state == WorkerState::Aborted)
            .count();
        let number = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        status.job = Some(self.test.name_any());
        status.active = job.active;
        status.succeeded = job.succeeded.max(self.current.succeeded);
        status.failed = number(failed.len())
            .max(failed_by_job)
            .max(self.current.failed);
        status.aborted = number(aborted).max(self.current.aborted);
        status.completions = Some(format!("{}/{}", status.succeeded, self.test.spec.count));
        for worker in failed {
            let listed = &mut status.failed_workers;
            let is_new = !listed.iter().any(|f| f.pod == worker.pod);
            if is_new && listed.len() < MAX_FAILED_WORKERS {
                listed.extend(failed_worker(worker));
            }
        }
        status
    }
}

impl JobStatus {
    /// Whether the Job failed because of its workers, and not because of its deadline.
    fn failed_by_workers(&self) -> bool {
        matches!(&self.outcome, Some(JobOutcome::Failed { reason, .. }) if reason != "DeadlineExceeded")
    }
}

/// The workers that failed, by their index.
fn failed_workers(workers: &[Arc<WorkerStatus>]) -> Vec<&WorkerStatus> {
    let failed = workers
        .iter()
        .map(Arc::as_ref)
        .filter(|w| matches!(w.state, WorkerState::Failed { .. }));
    let mut failed: Vec<_> = failed.collect();
    failed.sort_by_key(|w| w.index);
    failed
}

/// Counts the worker whose pod was deleted first as failed, where a Job failed because of a deletion: the others were stopped
/// because of it.
fn blame_first_deleted(
    workers: &[Arc<WorkerStatus>],
    job: &JobStatus,
    outcome: &JobOutcome,
) -> Vec<Arc<WorkerStatus>> {
    let mut workers = workers.to_vec();
    let by_workers = matches!(outcome, JobOutcome::Failed { reason, .. }
        if matches!(reason.as_str(), "BackoffLimitExceeded" | "FailedIndexes"));
    if !by_workers || job.failed == 0 || !failed_workers(&workers).is_empty() {
        return workers;
    }
    let deleted = workers
        .iter_mut()
        .filter(|w| w.state == WorkerState::Aborted && w.deleted.is_some());
    if let Some(first) = deleted.min_by_key(|w| w.deleted.as_ref().map(|d| d.version)) {
        Arc::make_mut(first).state = WorkerState::Failed {
            exit_code: None,
            reason: DELETED.into(),
            message: Some(messages::POD_DELETED.to_owned()),
            container: None,
        };
    }
    workers
}

/// The reason of a test that failed because of this worker.
///
/// Source: Kubernetes, "Pod disruption conditions", `pkg/kubelet/eviction` and `pkg/kubelet/container`.
fn failure_reason(worker: &WorkerStatus) -> Reason {
    let WorkerState::Failed { reason, .. } = &worker.state else {
        return Reason::WorkerFailed;
    };
    match reason.as_str() {
        "OOMKilled" => Reason::OutOfMemory,
        "Evicted" | "EvictionByEvictionAPI" | "TerminationByKubelet" => Reason::WorkerEvicted,
        "PreemptionByScheduler" | "Preempting" => Reason::WorkerPreempted,
        "DeletionByTaintManager"
        | "DeletionByPodGC"
        | "NodeLost"
        | "NodeShutdown"
        | "Terminated" => Reason::NodeLost,
        "StartError" | "ContainerCannotRun" => Reason::ContainerNotStarting,
        DELETED => Reason::WorkerDeleted,
        _ => Reason::WorkerFailed,
    }
}

fn failed_worker(worker: &WorkerStatus) -> Option<FailedWorker> {
    let WorkerState::Failed {
        exit_code,
        reason,
        message,
        container,
    } = &worker.state
    else {
        return None;
    };
    let output = container.as_ref().and_then(|c| c.output.as_deref());
    Some(FailedWorker {
        index: worker.index.and_then(|i| i32::try_from(i).ok()),
        pod: worker.pod.clone(),
        reason: reason.clone(),
        exit_code: *exit_code,
        message: most_informative_line(output.or(message.as_deref())),
    })
}

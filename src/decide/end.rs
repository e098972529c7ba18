//! The ends of tests, and what comes after.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::sync::Arc;

use super::run::LINGER;
use super::{AT_ONCE, Change, Ending, Plan, Say, Scene, SeenJob, Setting, Steer, later, workers};
use crate::api::v1alpha1::{FailedWorker, FailurePolicy, LoadTestStatus, Phase, Reason};
use crate::duration;
use crate::progress::{Outcome, TestJob, Worker, WorkerState};

/// The most failed workers that a status names.
const MOST_FAILED: usize = 10;

/// The most characters of a worker's last line that a message takes.
const MOST_LINE: usize = 300;

impl Scene<'_> {
    pub(super) fn ended(&self, job: &TestJob, outcome: &Outcome, workers: &[Arc<Worker>]) -> Plan {
        let begun = self.beginnings(workers);
        let workers = with_culprit(workers, job, outcome);
        let (ending, reason, message, at) = match outcome {
            Outcome::Complete { at } => {
                let message = match self.test.spec.count {
                    1 => "the worker succeeded".to_owned(),
                    n => format!("all {n} workers succeeded"),
                };
                (Ending::Completed, Reason::Completed, message, *at)
            }
            Outcome::Failed {
                at,
                reason,
                message,
            } => {
                let (ending, reason, message) = self.failure(reason, message, &workers);
                (ending, reason, message, *at)
            }
        };
        let mut plan = self.end(ending, reason, &message, Some(job), &workers, at);
        plan.events.splice(..0, begun);
        plan
    }

    /// The end of a test that has no Job, or whose Job does not matter any more.
    pub(super) fn end_now(&self, ending: Ending, reason: Reason, message: &str) -> Plan {
        self.end(ending, reason, message, None, &[], self.now)
    }

    /// The Job was deleted before it ended. It is not created again: its workers may have sent load.
    pub(super) fn lost(&self, job: Option<&TestJob>, workers: &[Arc<Worker>]) -> Plan {
        let (ending, reason, message) = if self.test.spec.stop == Some(true) {
            (
                Ending::Stopped,
                Reason::Stopped,
                "it was stopped, and its Job deleted".to_owned(),
            )
        } else {
            let message = format!(
                "the Job {} was deleted before the test ended; to run the test again, delete the LoadTest and create it again",
                self.test.name_any()
            );
            (Ending::Failed, Reason::JobDeleted, message)
        };
        self.end(ending, reason, &message, job, workers, self.now)
    }

    /// The end of a test: how, why, and what its workers have measured.
    pub(super) fn end(
        &self,
        ending: Ending,
        reason: Reason,
        message: &str,
        job: Option<&TestJob>,
        workers: &[Arc<Worker>],
        at: Timestamp,
    ) -> Plan {
        let mut status = self.status(ending.phase(), Vec::new());
        if let Some(job) = job {
            status = self.counted(status, job, workers);
        }
        let mut status = self.finished(status, job.and_then(|j| j.started), at);
        let mut events = vec![ending.event(message)];
        let mut wanted = ending.wanted(reason, message);
        wanted.extend(self.judged(ending, &mut status, workers, &mut events));
        status.conditions = self.conditions(wanted);
        Plan {
            events,
            status: Some(status),
            ..Plan::default()
        }
    }

    /// Of an ended test only its Job is looked after: that it does not run on, and that it goes when its time is over.
    pub(super) fn after_the_end(&self, job: &SeenJob, workers: &[Arc<Worker>]) -> Plan {
        let ours = match job {
            SeenJob::Ours(job) => Some(job),
            _ => None,
        };
        // A creation that was on its way when the test ended, or a Job that was suspended: it must not send load later.
        let runs_on = ours
            .filter(|job| job.outcome.is_none() && !job.failing && job.deadline != Some(AT_ONCE));
        let completed = self.current.phase == Some(Phase::Completed);
        if completed && runs_on.is_some() && workers.iter().any(|w| w.lingers && !self.lingers(w)) {
            return Plan {
                look_again: Some(later(self.now, LINGER)),
                ..Plan::default()
            };
        }
        if let Some(job) = runs_on.filter(|_| !completed || workers.iter().any(|w| self.lingers(w)))
        {
            let steer = Steer {
                uid: job.uid.clone(),
                to: Setting::Deadline(Some(AT_ONCE)),
            };
            return Plan {
                change: Some(Change::SteerJob(steer)),
                ..Plan::default()
            };
        }
        let Some(ttl) = self.test.spec.ttl_seconds_after_finished else {
            return Plan::default();
        };
        let ended = self
            .current
            .completion_time
            .as_ref()
            .map_or(self.now, |t| t.0);
        let due = later(ended, SignedDuration::from_secs(i64::from(ttl)));
        if due <= self.now {
            return Plan {
                change: Some(Change::DeleteTest),
                ..Plan::default()
            };
        }
        let change = ours
            .filter(|job| job.outcome.is_some() && job.ttl != Some(ttl))
            .map(|job| {
                Change::SteerJob(Steer {
                    uid: job.uid.clone(),
                    to: Setting::Ttl(ttl),
                })
            });
        Plan {
            change,
            look_again: Some(due),
            ..Plan::default()
        }
    }

    /// Why a Job failed: by which workers, and what they said last; or because it was to end.
    pub(super) fn failure(
        &self,
        job_reason: &str,
        job_message: &str,
        all: &[Arc<Worker>],
    ) -> (Ending, Reason, String) {
        if job_reason == "DeadlineExceeded" {
            return match self
                .progress_so_far("True")
                .or(self.progress_so_far("False"))
            {
                Some((_, Reason::Stopping, _)) => {
                    let (done, count) = (self.current.succeeded, self.test.spec.count);
                    let message =
                        format!("it was stopped; {done} of {} had succeeded", workers(count));
                    (Ending::Stopped, Reason::Stopped, message)
                }
                Some((_, reason, message)) if self.current.phase == Some(Phase::Stopping) => {
                    (Ending::Failed, reason, message.to_owned())
                }
                _ => {
                    let seconds = self.test.spec.active_deadline_seconds.unwrap_or_default();
                    let message = format!(
                        "the test ran longer than its activeDeadlineSeconds, {seconds} s: {job_message}"
                    );
                    (Ending::Failed, Reason::DeadlineExceeded, message)
                }
            };
        }
        let failed = failed(all);
        let namespace = self.test.namespace().unwrap_or_default();
        let Some(first) = failed.first() else {
            let message = format!(
                "a worker's pod was deleted or lost before it ended ({job_reason}: {job_message})"
            );
            let worker = matches!(job_reason, "BackoffLimitExceeded" | "FailedIndexes");
            return (
                Ending::Failed,
                if worker {
                    Reason::WorkerFailed
                } else {
                    Reason::JobFailed
                },
                message,
            );
        };
        let more = failed.len() - 1;
        let aborted = all
            .iter()
            .filter(|w| w.state == WorkerState::Aborted)
            .count();
        let there = !first.deleted.as_ref().is_some_and(|d| d.gone);
        let parts = [
            Some(format!("worker {}", told(first))),
            (more > 0).then(|| format!("{} failed too", workers(more))),
            (aborted > 0).then(|| format!("{} stopped because of it", workers(aborted))),
            there.then(|| format!("see: kubectl logs -n {namespace} {}", first.pod)),
        ];
        (
            Ending::Failed,
            reason_of(first),
            parts.into_iter().flatten().collect::<Vec<_>>().join("; "),
        )
    }

    fn finished(
        &self,
        mut status: LoadTestStatus,
        started: Option<Timestamp>,
        at: Timestamp,
    ) -> LoadTestStatus {
        let started = status.start_time.as_ref().map(|t| t.0).or(started);
        let begun = started.unwrap_or(at).min(at);
        // A test that was never started has neither, as it has run for no time.
        status.start_time = started.map(|_| Time(begun));
        status.completion_time = Some(Time(at));
        status.duration = Some(duration::format(at.duration_since(begun)));
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

    /// Takes the counts from the Job and the workers. They never run backwards, whatever an old view shows.
    pub(super) fn counted(
        &self,
        mut status: LoadTestStatus,
        job: &TestJob,
        workers: &[Arc<Worker>],
    ) -> LoadTestStatus {
        let failed = failed(workers);
        // Where no pod is left to tell, one worker at least has failed; each that did, where none is stopped for another.
        let told_by_job = match self.test.spec.failure_policy {
            FailurePolicy::FailFast => job.failed.min(i32::from(job.outcome_is_of_workers())),
            FailurePolicy::Continue => job.failed,
        };
        let seen = i32::try_from(failed.len()).unwrap_or(i32::MAX);
        let aborted = workers
            .iter()
            .filter(|w| w.state == WorkerState::Aborted)
            .count();
        status.active = job.active;
        status.succeeded = job.succeeded.max(self.current.succeeded);
        status.failed = seen.max(told_by_job).max(self.current.failed);
        status.aborted = i32::try_from(aborted)
            .unwrap_or(i32::MAX)
            .max(self.current.aborted);
        status.completions = Some(format!("{}/{}", status.succeeded, self.test.spec.count));
        for worker in failed {
            let known = status.failed_workers.iter().any(|f| f.pod == worker.pod);
            if let (false, true, Some(entry)) = (
                known,
                status.failed_workers.len() < MOST_FAILED,
                entry(worker),
            ) {
                status.failed_workers.push(entry);
            }
        }
        status
    }
}

impl TestJob {
    /// Whether it has failed by its workers, and not by its deadline or because it was to end.
    fn outcome_is_of_workers(&self) -> bool {
        matches!(&self.outcome, Some(Outcome::Failed { reason, .. }) if reason != "DeadlineExceeded")
    }
}

impl Ending {
    fn phase(self) -> Phase {
        match self {
            Self::Completed => Phase::Completed,
            Self::Stopped => Phase::Stopped,
            Self::Failed => Phase::Failed,
        }
    }

    fn event(self, message: &str) -> Say {
        match self {
            Self::Completed => {
                Say::normal(Reason::Completed, format!("Completed Load Test: {message}"))
            }
            Self::Stopped => Say::normal(Reason::Stopped, format!("Stopped Load Test: {message}")),
            Self::Failed => Say::warning(Reason::Failed, format!("Failed Load Test: {message}")),
        }
    }
}

/// The workers that failed, by their numbers.
fn failed(workers: &[Arc<Worker>]) -> Vec<&Worker> {
    let failed = workers
        .iter()
        .filter(|w| matches!(w.state, WorkerState::Failed { .. }));
    let mut failed: Vec<&Worker> = failed.map(Arc::as_ref).collect();
    failed.sort_by_key(|w| w.index);
    failed
}

/// The workers, with the one as failed whose pod was deleted first, where the Job has failed for a deletion: the others
/// were stopped because of it.
fn with_culprit(workers: &[Arc<Worker>], job: &TestJob, outcome: &Outcome) -> Vec<Arc<Worker>> {
    let mut workers = workers.to_vec();
    let by_workers = matches!(outcome, Outcome::Failed { reason, .. } if matches!(reason.as_str(), "BackoffLimitExceeded" | "FailedIndexes"));
    if by_workers && failed(&workers).is_empty() && job.failed > 0 {
        let aborted = workers
            .iter_mut()
            .filter(|w| w.state == WorkerState::Aborted && w.deleted.is_some());
        if let Some(first) = aborted.min_by_key(|w| w.deleted.as_ref().map(|d| d.version)) {
            let message = Some("its pod was deleted".to_owned());
            Arc::make_mut(first).state = WorkerState::Failed {
                exit_code: None,
                reason: DELETED.into(),
                message,
            };
        }
    }
    workers
}

/// The reason of a failed worker whose pod was deleted.
const DELETED: &str = "Deleted";

/// The reason of a test that failed by this worker.
///
/// Source of the words: Kubernetes, "Pod disruption conditions", and the kubelet (`pkg/kubelet/eviction`,
/// `pkg/kubelet/container`).
fn reason_of(worker: &Worker) -> Reason {
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

/// Of what a worker wrote last the line that tells most: the last that names an error, or else the last with a word in
/// it. An error that Node.js prints ends with its stack and its properties.
fn telling_line(message: Option<&str>) -> Option<String> {
    let lines = || message.unwrap_or_default().lines().map(str::trim).rev();
    let error = lines().find(|line| {
        line.contains("Error: ") || line.starts_with("Error") || line.starts_with("error")
    });
    let line = error.or_else(|| lines().find(|line| line.chars().any(char::is_alphanumeric)))?;
    Some(line.chars().take(MOST_LINE).collect())
}

fn entry(worker: &Worker) -> Option<FailedWorker> {
    let WorkerState::Failed {
        exit_code,
        reason,
        message,
    } = &worker.state
    else {
        return None;
    };
    Some(FailedWorker {
        index: worker.index.and_then(|i| i32::try_from(i).ok()),
        pod: worker.pod.clone(),
        reason: reason.clone(),
        exit_code: *exit_code,
        message: telling_line(message.as_deref()),
    })
}

/// A failed worker in words: `1 (pod t-1-abcde) failed with exit code 11: <its last line>`.
fn told(worker: &Worker) -> String {
    let index = worker
        .index
        .map_or_else(|| "?".to_owned(), |i| i.to_string());
    let WorkerState::Failed {
        exit_code,
        reason,
        message,
    } = &worker.state
    else {
        return index;
    };
    let code = exit_code.map(|code| format!(" with exit code {code}"));
    let word = (reason != "Error").then(|| format!(" ({reason})"));
    let line = telling_line(message.as_deref()).map(|line| format!(": {line}"));
    let hint = (reason == "OOMKilled")
        .then_some("; it needs more memory, or fewer virtual users a worker");
    let parts = [code, word, line, hint.map(str::to_owned)]
        .into_iter()
        .flatten()
        .collect::<String>();
    format!("{index} (pod {}) failed{parts}", worker.pod)
}

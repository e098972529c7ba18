//! How far a test with a running Job is: a chain of checks, of which the first that applies decides.

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use loadtest_api::duration;
use loadtest_api::v1alpha1::{FailurePolicy, OnNoData, Phase, Reason};

use super::coordinated_start::StartBarrier;
use super::running::refresh_interval;
use super::{Decision, messages, saturating_add};
use crate::state::{JobStatus, Observed, WorkerState, WorkerStatus};

/// How long after the Job's start pods may be missing or waiting before that is reported. Where few tests run it is half of the
/// refresh interval.
const NORMAL_STARTUP: SignedDuration = SignedDuration::from_secs(30);

/// How long a condition of `spec.abort` may be unknown before the test ends: the target is protected even if nothing can be measured.
const MAX_TIME_WITHOUT_DATA: SignedDuration = SignedDuration::from_secs(60);

/// How far a test is: its phase and the condition Progressing.
pub(super) struct Progress {
    pub(super) phase: Phase,
    pub(super) progressing: bool,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Progress {
    fn stopping(progressing: bool, reason: Reason, message: String) -> Self {
        Self {
            phase: Phase::Stopping,
            progressing,
            reason,
            message,
        }
    }

    fn starting(reason: Reason, message: String) -> Self {
        Self {
            phase: Phase::Starting,
            progressing: true,
            reason,
            message,
        }
    }

    /// Whether people may have to do something.
    pub(super) fn is_warning(&self) -> bool {
        !matches!(
            self.reason,
            Reason::Starting | Reason::WaitingForWorkers | Reason::Running | Reason::Stopping
        )
    }
}

/// The facts about a running Job that the checks share.
pub(super) struct Run<'a> {
    decision: &'a Decision<'a>,
    job: &'a JobStatus,
    workers: &'a [Arc<WorkerStatus>],
    /// Set once all workers have started.
    pub(super) barrier: Option<StartBarrier>,
    all_started: bool,
    blocker: Option<Blocker>,
    /// The call that keeps the workers from starting.
    failed_call: Option<String>,
    pub(super) start_deadline: Timestamp,
    /// Until then missing or waiting pods are normal.
    pub(super) startup_ends: Timestamp,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        decision: &'a Decision<'a>,
        job: &'a JobStatus,
        observed: &'a Observed,
    ) -> Self {
        let workers = &observed.workers;
        let has_run = decision.current.phase == Some(Phase::Running);
        let started = workers.iter().filter(|w| w.started).count();
        // `Running` is recorded together with the start instant, before that is sent.
        let may_wait = if has_run {
            decision.current.load_start_time.is_some()
        } else {
            started >= decision.count()
        };
        let barrier = may_wait.then(|| decision.start_barrier(workers));
        let all_started = match &barrier {
            Some(barrier) => !matches!(barrier, StartBarrier::Waiting { .. }),
            None => has_run,
        };
        let phase = if has_run {
            Phase::Running
        } else {
            Phase::Starting
        };
        // Not since the record of the start: the Job may have been created long after it.
        let begun = job.started.or(job.created).unwrap_or(decision.now);
        let startup = normal_startup(observed.running_jobs);
        Self {
            decision,
            job,
            workers,
            barrier,
            all_started,
            blocker: start_blocker(decision, observed),
            failed_call: decision.failed_call(observed, phase, true),
            start_deadline: saturating_add(begun, decision.start_deadline()),
            startup_ends: saturating_add(begun, startup),
        }
    }

    /// The first check that applies.
    pub(super) fn progress(&self) -> Progress {
        let checks: [fn(&Self) -> Option<Progress>; 8] = [
            Self::stopping,
            Self::stop_requested,
            Self::parallelism_reduced,
            Self::abort_condition_met,
            Self::start_deadline_exceeded,
            Self::failed_with_live_pod,
            Self::running,
            Self::waiting_for_barrier,
        ];
        checks
            .iter()
            .find_map(|check| check(self))
            .unwrap_or_else(|| self.starting())
    }

    /// A test that is being stopped stays so, for the recorded cause.
    fn stopping(&self) -> Option<Progress> {
        let (reason, message) = self.decision.stop_cause()?;
        let progressing = self.decision.recorded_progress("True").is_some();
        Some(Progress::stopping(progressing, reason, message.to_owned()))
    }

    fn stop_requested(&self) -> Option<Progress> {
        (self.decision.test.spec.stop == Some(true))
            .then(|| Progress::stopping(true, Reason::Stopping, messages::STOPPING.to_owned()))
    }

    /// The workers would run one after another: a queue admitted a part of the Job, or somebody changed it.
    fn parallelism_reduced(&self) -> Option<Progress> {
        let count = self.decision.test.spec.count;
        let parallelism = self.job.parallelism;
        (parallelism < count).then(|| {
            let name = self.decision.test.name_any();
            let message = messages::parallelism_reduced(&name, parallelism, count);
            Progress::stopping(false, Reason::JobFailed, message)
        })
    }

    /// A condition of `spec.abort` has held for long enough, or could not be evaluated for too long.
    fn abort_condition_met(&self) -> Option<Progress> {
        let decision = self.decision;
        let lasts = |since: Option<Timestamp>, at_least: SignedDuration| {
            since.is_some_and(|since| decision.now.duration_since(since) >= at_least)
        };
        let conditions = decision.test.spec.abort.iter().zip(&decision.live?.aborts);
        conditions.into_iter().find_map(|(condition, state)| {
            let duration = condition.r#for.as_deref().and_then(duration::parse);
            if lasts(state.held_since, duration.unwrap_or_default()) {
                let message = messages::abort_condition_met(condition, &state.observed);
                return Some(Progress::stopping(
                    false,
                    Reason::AbortConditionMet,
                    message,
                ));
            }
            let is_unknown = condition.on_no_data == OnNoData::Abort
                && lasts(state.unknown_since, MAX_TIME_WITHOUT_DATA);
            is_unknown.then(|| {
                let message = messages::abort_condition_unknown(condition, &state.observed);
                Progress::stopping(false, Reason::AbortConditionUnknown, message)
            })
        })
    }

    fn start_deadline_exceeded(&self) -> Option<Progress> {
        // Workers that are all ready are started, however late: the operator may have been away.
        let starts = match self.barrier {
            Some(StartBarrier::Release(_)) => self.failed_call.is_none(),
            _ => self.all_started,
        };
        if starts || self.start_deadline > self.decision.now {
            return None;
        }
        let test = self.decision.test;
        let namespace = test.namespace().unwrap_or_default();
        let seconds = test.spec.start_deadline_seconds;
        if let Some(failed) = &self.failed_call {
            let message = messages::workers_not_started(seconds, Some(failed));
            return Some(Progress::stopping(false, Reason::RequestFailed, message));
        }
        let waiting_for = self.barrier.as_ref().and_then(StartBarrier::waiting_for);
        let (reason, message) = match (waiting_for, &self.blocker) {
            (Some(waiting_for), blocker) => {
                let message = messages::barrier_deadline_exceeded(
                    seconds,
                    &waiting_for,
                    &namespace,
                    &test.name_any(),
                );
                let cause = blocker
                    .as_ref()
                    .map(|b| (b.reason, b.final_message.as_str()));
                with_cause(Reason::StartDeadlineExceeded, message, cause)
            }
            (None, Some(blocker)) => (
                blocker.reason,
                messages::workers_not_started(seconds, Some(&blocker.final_message)),
            ),
            (None, None) => {
                let silent = self.silent_node();
                (
                    Reason::StartDeadlineExceeded,
                    messages::workers_not_started(seconds, silent.as_deref()),
                )
            }
        };
        Some(Progress::stopping(false, reason, message))
    }

    /// A node that has a worker's pod and does not report about it.
    fn silent_node(&self) -> Option<String> {
        let waiting = |w: &&Arc<WorkerStatus>| matches!(w.state, WorkerState::Pending { .. });
        let worker = self
            .workers
            .iter()
            .filter(waiting)
            .find(|w| w.node.is_some())?;
        Some(messages::silent_node(worker.node.as_deref()?, &worker.pod))
    }

    /// Workers have failed, and the Job cannot know: other containers keep their pods running.
    fn failed_with_live_pod(&self) -> Option<Progress> {
        let decision = self.decision;
        let failed = self
            .workers
            .iter()
            .any(|w| matches!(w.state, WorkerState::Failed { .. }) && decision.outlives_grace(w));
        let ended = self.workers.iter().filter(|w| w.ended.is_some()).count();
        let fail_fast = decision.test.spec.failure_policy == FailurePolicy::FailFast;
        let decided = failed && (fail_fast || ended >= decision.count());
        (decided && !self.job.failing).then(|| {
            let failure = decision.classify_failure("BackoffLimitExceeded", "", self.workers);
            Progress::stopping(false, failure.reason, failure.message)
        })
    }

    fn running(&self) -> Option<Progress> {
        self.all_started.then(|| Progress {
            phase: Phase::Running,
            progressing: true,
            reason: Reason::Running,
            message: messages::all_running(self.decision.test.spec.count),
        })
    }

    fn waiting_for_barrier(&self) -> Option<Progress> {
        let waiting_for = self.barrier.as_ref()?.waiting_for()?;
        (self.startup_ends <= self.decision.now).then(|| {
            let count = self.decision.test.spec.count;
            let message = messages::waiting_for_barrier(count, &waiting_for);
            self.starting_with(Reason::WaitingForWorkers, message)
        })
    }

    fn starting(&self) -> Progress {
        let test = self.decision.test;
        let message = messages::waiting_for_workers(test.spec.count, &test.name_any());
        self.starting_with(Reason::Starting, message)
    }

    fn starting_with(&self, reason: Reason, message: String) -> Progress {
        let blocker = self.blocker.as_ref();
        let cause = blocker.map(|b| (b.reason, b.message.as_str()));
        let (reason, message) = with_cause(reason, message, cause);
        Progress::starting(reason, message)
    }
}

/// A reason and its message; where the cause is known, with that.
fn with_cause(reason: Reason, message: String, cause: Option<(Reason, &str)>) -> (Reason, String) {
    match cause {
        Some((reason, cause)) => (reason, messages::joined(&message, cause)),
        None => (reason, message),
    }
}

/// How long missing or waiting pods are normal: the more tests run, the longer.
pub(super) fn normal_startup(running_jobs: usize) -> SignedDuration {
    NORMAL_STARTUP.min(refresh_interval(running_jobs) / 2)
}

/// What keeps the workers from starting.
struct Blocker {
    reason: Reason,
    /// The message while the pods exist.
    message: String,
    /// The message for the end of the test, which deletes them.
    final_message: String,
}

/// What keeps the workers from starting: what one of them reports, or what events do.
fn start_blocker(decision: &Decision, observed: &Observed) -> Option<Blocker> {
    let mut blocked: Vec<_> = observed
        .workers
        .iter()
        .filter_map(|worker| match &worker.state {
            WorkerState::Pending {
                blocker: Some(blocker),
            } => Some((worker, blocker)),
            _ => None,
        })
        .collect();
    blocked.sort_by_key(|(worker, _)| worker.index);
    let (first, message) = if let Some(((worker, own), others)) = blocked.split_first() {
        let why = messages::blocker(own);
        (*own, messages::pod_blocked(&worker.pod, others.len(), &why))
    } else {
        let reported = observed.blocker.as_ref()?;
        (reported, reported.message.clone())
    };
    let namespace = decision.test.namespace().unwrap_or_default();
    let pod = blocked.first().map(|(worker, _)| worker.pod.as_str());
    let with_advice = |pod| match messages::advice(first, &namespace, pod) {
        Some(advice) => messages::with_advice(&message, &advice),
        None => message.clone(),
    };
    Some(Blocker {
        reason: first.reason,
        message: with_advice(pod),
        final_message: with_advice(None),
    })
}

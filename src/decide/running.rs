//! Tests whose Job exists and has not ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use loadtest_api::duration;
use loadtest_api::v1alpha1::{LoadTest, LoadTestStatus, Phase, Reason, StopCause};

use super::coordinated_start::StartBarrier;
use super::messages;
use super::progress::{Run, normal_startup};
use super::verdict::load_event;
use super::{
    Action, Decision, EventRecord, FinalPhase, JobField, Plan, progressing_conditions,
    saturating_add,
};
use crate::build;
use crate::runtime::hash::fnv1a;
use crate::state::{
    JobOutcome, JobState, JobStatus, Observed, StartState, WorkerFiles, WorkerState, WorkerStatus,
};

/// The label that names a queue of Kueue (Kueue, `pkg/controller/constants`).
const KUEUE_QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";

/// How often the counts and the duration of a running test are written, where few tests run.
pub const STATUS_REFRESH_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

/// How long after a period of the load its workers have been read.
const READING_SECONDS: i64 = 2;

/// How many writes per second only refresh tests at most, over all running tests.
const MAX_REFRESHES_PER_SECOND: usize = 40;

/// Up to this number of workers, each has an event of its own when it runs.
pub const MAX_WORKER_EVENTS: usize = 50;

/// How long a worker may load before the events about its probes are read: on a busy node they fail for a while.
const SLOW_LOADING: SignedDuration = SignedDuration::from_secs(20);

/// How much longer than the script's phases a worker may run: for its own start, and for the last virtual users.
const OVERRUN_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(60);

/// The difference of clocks from which it is reported, in seconds. Start times are precise to one second.
const MIN_CLOCK_OFFSET: i64 = 3;

/// How long a status stays unchanged when only the text of a message differs. More than the one second in which the recorded
/// duration is precise.
const MESSAGE_INTERVAL: SignedDuration = SignedDuration::from_secs(3);

/// How long after the end of a pod's grace period its node counts as lost.
const NODE_LOST_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(30);

/// How long other containers, such as a service mesh's, may keep a pod after its worker has ended.
pub(super) const SIDECAR_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(10);

/// The UID of the Job or pod whose events may explain why workers do not start: the Job where pods are missing, otherwise a pod
/// that does not explain itself.
#[must_use]
pub fn object_to_explain(
    test: &LoadTest,
    job: &JobState,
    workers: &[Arc<WorkerStatus>],
    running_jobs: usize,
    now: Timestamp,
) -> Option<String> {
    let JobState::Owned(job) = job else {
        return None;
    };
    let half_deadline = SignedDuration::from_secs(test.spec.start_deadline_seconds / 2);
    let started = job
        .started
        .filter(|_| job.outcome.is_none() && !job.failing && !job.suspended)?;
    if test.phase().is_some_and(|p| p != Phase::Starting)
        || saturating_add(started, normal_startup(running_jobs).min(half_deadline)) > now
    {
        return None;
    }
    if workers.len() < usize::try_from(test.spec.count).ok()? {
        return Some(job.uid.clone());
    }
    let may_be_slow = saturating_add(started, SLOW_LOADING.min(half_deadline)) > now;
    let is_loading = |w: &&Arc<WorkerStatus>| {
        test.spec.starts_together()
            && !may_be_slow
            && w.state == WorkerState::Running
            && w.start.state == StartState::Loading
    };
    workers
        .iter()
        .find(|w| w.state == WorkerState::Pending { blocker: None })
        .or_else(|| workers.iter().find(is_loading))
        .map(|w| w.uid.clone())
}

impl Decision<'_> {
    pub(super) fn with_running_job(&self, job: &JobStatus, observed: &Observed) -> Plan {
        let workers = &observed.workers;
        let has_started = self.current.start_time.is_some() || job.started.is_some();
        if let Some(at) = self.all_succeeded(workers).filter(|_| has_started) {
            // This is final, and the Job controller reports it only seconds later.
            let job = JobStatus {
                succeeded: self.test.spec.count,
                ..job.clone()
            };
            let at = at.max(job.started.unwrap_or(at));
            return self.job_finished(&job, &JobOutcome::Complete { at }, workers);
        }
        // A Job that is failing ends by itself, suspended or not.
        if job.suspended && !job.failing || self.was_resumed(job) {
            return self.with_suspended_job(job, workers);
        }
        let run = Run::new(self, job, observed);
        let mut progress = run.progress();
        let stop_cause = (progress.phase == Phase::Stopping).then(|| StopCause {
            reason: progress.reason.as_str().to_owned(),
            message: progress.message.clone(),
        });
        if let Some((reason, problem)) = self.running_problem(workers) {
            if progress.phase == Phase::Running {
                progress.reason = reason;
            }
            if matches!(progress.phase, Phase::Running | Phase::Stopping) {
                progress.message = messages::joined(&progress.message, &problem);
            }
        }
        let phase = progress.phase;
        let (retry, next_retry) = match phase {
            Phase::Running => self.start_retries(workers),
            _ => (None, None),
        };
        let release = match run.barrier {
            Some(StartBarrier::Release(start)) if phase == Phase::Running => Some(start),
            _ => None,
        };
        let load_start = release.as_ref().map(|start| MicroTime(start.at));
        // First of all: the instant that this status records is sent at once.
        let action = match release {
            Some(start) => Some(Action::SendStartTime(start)),
            None if phase == Phase::Stopping => Action::terminate(job),
            None => self
                .deadline_patch(job)
                .or_else(|| missing_worker_files(observed))
                .or(retry.map(Action::SendStartTime)),
        };
        let failed_call = self.failed_call(observed, phase, action.is_some());
        if let Some(message) = &failed_call {
            progress.reason = Reason::RequestFailed;
            progress.message.clone_from(message);
        }
        let mut events = self.start_events(workers);
        if let Some(requested) = job.requested_deadline
            && job.deadline != Some(requested)
            && phase != Phase::Stopping
        {
            let message =
                messages::deadline_overridden(&self.test.name_any(), requested, job.deadline);
            events.push(EventRecord::normal(Reason::DeadlineOverridden, message));
        }
        let in_startup = failed_call.is_none()
            && progress.phase == Phase::Starting
            && run.startup_ends > self.now;
        // The event about a call that failed earlier exists.
        let is_repeated = failed_call.is_some() && observed.failed_call.is_none();
        if progress.is_warning() && !in_startup && !is_repeated {
            let event = EventRecord::warning(progress.reason, progress.message.clone());
            events.push(match &observed.failed_call {
                Some(failed) => event.about(failed.what),
                None => event,
            });
        }
        let mut conditions = progressing_conditions(
            Some(progress.progressing),
            progress.reason,
            progress.message,
        );
        let mut results = None;
        if let Some(live) = self.live {
            let about_results;
            (results, about_results) = self.live_results(live);
            events.extend(about_results.iter().filter_map(load_event));
            conditions.extend(about_results);
        }
        let mut status = self.with_counts(self.status(phase, conditions), job, workers);
        status.duration = Some(duration::format(
            self.now.duration_since(job.started.unwrap_or(self.now)),
        ));
        status.start_time = status.start_time.or_else(|| job.started.map(Time));
        status.stop_cause = status.stop_cause.or(stop_cause);
        status.load_start_time = load_start.or(status.load_start_time);
        status.results = results.map(Box::new).or(status.results);

        let refresh = self.refresh(&status, observed.running_jobs);
        let write_at = self.write_at(&status, job.started, refresh);
        let is_due = write_at <= self.now;
        let next_write = if is_due {
            refresh.after(self.now)
        } else {
            write_at
        };
        // The store knows what is sent at once; no watch event announces it. Nor does one announce that a call succeeds again.
        let at_once = action
            .as_ref()
            .is_some_and(|action| failed_call.is_some() || !matches!(action, Action::PatchJob(_)))
            .then_some(self.now);
        let requeue_at = [
            Some(next_write),
            next_retry,
            (phase == Phase::Starting).then_some(run.start_deadline),
            in_startup.then_some(run.startup_ends),
            at_once,
        ];
        Plan {
            events,
            requeue_at: requeue_at.into_iter().flatten().min(),
            status: is_due.then_some(status),
            action,
            ..Plan::default()
        }
    }

    /// When a status is due: at once, unless only the progress of the test or the text of a message has changed.
    fn write_at(
        &self,
        status: &LoadTestStatus,
        started: Option<Timestamp>,
        refresh: Refresh,
    ) -> Timestamp {
        let recorded = self.current.duration.as_deref().and_then(duration::parse);
        let written = saturating_add(started.unwrap_or(self.now), recorded.unwrap_or_default());
        if self.differs_only_in_progress(status) {
            refresh.after(written)
        } else if self.differs_only_in_messages(status) {
            saturating_add(written, MESSAGE_INTERVAL)
        } else {
            self.now
        }
    }

    /// When the progress of this test is written. With few tests just after its workers were read, which happens in the rhythm of its
    /// load; with many tests each has its own second within the interval, by its UID, so that tests that started together are not all
    /// written at once.
    fn refresh(&self, status: &LoadTestStatus, running_jobs: usize) -> Refresh {
        let interval = refresh_interval(running_jobs).as_secs().max(1);
        let is_rhythm_of_load = running_jobs <= MAX_REFRESHES_PER_SECOND;
        let load = status
            .load_start_time
            .as_ref()
            .filter(|_| is_rhythm_of_load);
        let offset = if let Some(load) = load {
            load.0.as_second().saturating_add(READING_SECONDS)
        } else {
            let hash = fnv1a(self.test.metadata.uid.iter().flat_map(|uid| uid.bytes()));
            i64::try_from(hash >> 1).unwrap_or_default()
        };
        Refresh {
            interval,
            offset: offset.rem_euclid(interval),
        }
    }

    /// Whether other containers keep a worker's pod for long after the worker has ended, and nobody has deleted the pod.
    pub(super) fn outlives_grace(&self, worker: &WorkerStatus) -> bool {
        worker.pod_outlives_worker
            && worker.deleted.is_none()
            && worker
                .ended
                .is_some_and(|at| saturating_add(at, SIDECAR_GRACE_PERIOD) <= self.now)
    }

    /// Whether the Job was suspended and resumed unnoticed: Kubernetes then starts it anew, at a later time.
    pub(super) fn was_resumed(&self, job: &JobStatus) -> bool {
        let recorded = self.current.start_time.as_ref().map(|at| at.0);
        // A Job that is being ended fails for the recorded cause.
        self.current.phase != Some(Phase::Stopping)
            && recorded.is_some_and(|recorded| job.started.is_some_and(|at| at > recorded))
    }

    /// The Job is suspended: before its start by a queueing system, which is fine, or later, when resuming it would repeat the
    /// load of its workers.
    pub(super) fn with_suspended_job(
        &self,
        job: &JobStatus,
        workers: &[Arc<WorkerStatus>],
    ) -> Plan {
        let name = self.test.name_any();
        let namespace = self.test.namespace().unwrap_or_default();
        if self.current.start_time.is_some() || workers.iter().any(|w| w.started) {
            let stopped =
                self.current.phase == Some(Phase::Stopping) || self.test.spec.stop == Some(true);
            let (end, reason, message) = if stopped {
                (
                    FinalPhase::Stopped,
                    Reason::Stopped,
                    messages::STOPPED_AND_JOB_SUSPENDED.to_owned(),
                )
            } else {
                let message = if job.suspended {
                    messages::job_suspended_after_start(&name, &namespace)
                } else {
                    messages::job_resumed(&name)
                };
                (FinalPhase::Failed, Reason::JobSuspended, message)
            };
            return self.finish(end, reason, &message, Some(job), workers, self.now);
        }
        if self.test.spec.stop == Some(true) {
            return self.finish_without_job(
                FinalPhase::Stopped,
                Reason::Stopped,
                messages::STOPPED_BEFORE_START,
            );
        }
        let message = match self.test.labels().get(KUEUE_QUEUE_LABEL) {
            Some(queue) => messages::job_queued(&name, queue, &namespace, &job.uid),
            None => messages::job_suspended_by_queue(&name),
        };
        Plan {
            events: self.start_events(workers),
            ..self.suspended(message, Some(name))
        }
    }

    /// The patch that gives the Job the deadline it should have. What was asked for is not asked for again, whatever a policy of the
    /// cluster made of it.
    fn deadline_patch(&self, job: &JobStatus) -> Option<Action> {
        let deadline = build::active_deadline(self.test, self.expected_duration());
        let is_set = [job.deadline, job.requested_deadline].contains(&Some(deadline));
        let field = JobField::ActiveDeadline(deadline);
        (!is_set && !job.failing).then(|| Action::patch_job(job, field))
    }

    /// The problem of workers that have started: a lost node, no acknowledgement of the start, or no end.
    fn running_problem(&self, workers: &[Arc<WorkerStatus>]) -> Option<(Reason, String)> {
        let on_lost_node = |w: &&WorkerStatus| {
            let deleted = w.deleted.as_ref().filter(|_| !w.has_ended());
            deleted.is_some_and(|d| {
                saturating_add(d.grace_deadline, NODE_LOST_GRACE_PERIOD) <= self.now
            })
        };
        let all = || workers.iter().map(Arc::as_ref);
        let lost: Vec<_> = all().filter(on_lost_node).collect();
        if let Some(first) = lost.first() {
            return Some((Reason::NodeLost, messages::node_lost(&lost, &first.pod)));
        }
        if let Some(message) = self.unacknowledged_after_start(workers) {
            return Some((Reason::StartNotAcknowledged, message));
        }
        self.overrun(workers).or_else(|| {
            let skewed = all().find(|w| w.clock_offset.abs() >= MIN_CLOCK_OFFSET)?;
            let node = skewed.node.as_deref().unwrap_or("of a worker");
            let message = messages::clock_skew(node, skewed.clock_offset);
            Some((Reason::ClockSkew, message))
        })
    }

    /// Workers that run longer than the script's phases can explain.
    fn overrun(&self, workers: &[Arc<WorkerStatus>]) -> Option<(Reason, String)> {
        let expected = self.expected_duration()?;
        let load_start = match &self.current.load_start_time {
            Some(at) => at.0,
            // The workers still wait, or waited while the operator was away.
            None if self.test.spec.starts_together() => return None,
            None => Timestamp::MIN,
        };
        let runs_too_long = |w: &&WorkerStatus| {
            w.running_since.is_some_and(|since| {
                let end = saturating_add(since.max(load_start), expected);
                saturating_add(end, OVERRUN_GRACE_PERIOD) <= self.now
            })
        };
        let late: Vec<_> = workers
            .iter()
            .map(Arc::as_ref)
            .filter(runs_too_long)
            .collect();
        let first = late.first()?;
        let namespace = self.test.namespace().unwrap_or_default();
        Some((
            Reason::RunningTooLong,
            messages::running_too_long(&late, expected, &namespace, &first.pod),
        ))
    }

    /// When the last worker ended, if every worker of the test has succeeded.
    fn all_succeeded(&self, workers: &[Arc<WorkerStatus>]) -> Option<Timestamp> {
        let succeeded = workers.iter().filter(|w| w.state == WorkerState::Succeeded);
        let indexes: BTreeSet<u32> = succeeded
            .clone()
            .filter_map(|w| w.index.filter(|_| w.ended.is_some()))
            .collect();
        if indexes.len() < usize::try_from(self.test.spec.count).ok()? {
            return None;
        }
        succeeded.filter_map(|w| w.ended).max()
    }

    /// The events of a test's start. When `Running` is recorded, all of them exist.
    pub(super) fn start_events(&self, workers: &[Arc<WorkerStatus>]) -> Vec<EventRecord> {
        if self.current.phase == Some(Phase::Running) && !self.test.misses_events() {
            return Vec::new();
        }
        let created = messages::created_event(&self.test.name_any());
        let mut events = vec![EventRecord::normal(Reason::Created, created)];
        let started = workers.iter().filter(|w| w.started);
        if self.count() <= MAX_WORKER_EVENTS {
            events.extend(started.map(|w| {
                EventRecord::normal(Reason::Running, messages::running_event(&w.pod))
                    .about(w.uid.clone())
            }));
        } else if started.clone().count() >= self.count() {
            let message = messages::all_running_event(started.count());
            events.push(EventRecord::normal(Reason::Running, message));
        }
        events
    }

    /// Whether a status reports nothing new but how far the test is, which is written only now and then.
    fn differs_only_in_progress(&self, status: &LoadTestStatus) -> bool {
        *status
            == LoadTestStatus {
                active: status.active,
                succeeded: status.succeeded,
                failed: status.failed,
                aborted: status.aborted,
                failed_workers: status.failed_workers.clone(),
                completions: status.completions.clone(),
                duration: status.duration.clone(),
                start_time: status.start_time.clone(),
                // The first ones are written at once.
                results: status
                    .results
                    .clone()
                    .filter(|_| self.current.results.is_some()),
                ..self.current.clone()
            }
    }

    /// Whether a status reports besides nothing new but the text of its messages.
    fn differs_only_in_messages(&self, status: &LoadTestStatus) -> bool {
        let mut status = status.clone();
        for (condition, current) in status.conditions.iter_mut().zip(&self.current.conditions) {
            condition.message.clone_from(&current.message);
        }
        self.differs_only_in_progress(&status)
    }
}

/// Somebody may have deleted the worker files, which are among the volumes of pods.
fn missing_worker_files(observed: &Observed) -> Option<Action> {
    let blocker = observed.blocker.as_ref()?;
    (blocker.reason == Reason::VolumeNotMounted && observed.worker_files == WorkerFiles::Unknown)
        .then_some(Action::CreateWorkerFiles)
}

/// The turns of a test to write its progress, in seconds.
#[derive(Clone, Copy)]
struct Refresh {
    interval: i64,
    offset: i64,
}

impl Refresh {
    /// The next turn. A write that was late does not postpone it.
    fn after(self, written: Timestamp) -> Timestamp {
        let due = written.as_second().saturating_add(self.interval / 2);
        let wait = (self.offset - due).rem_euclid(self.interval);
        Timestamp::from_second(due.saturating_add(wait)).unwrap_or(Timestamp::MAX)
    }
}

/// How often the progress of a running test is written: the more tests run, the less often.
pub(super) fn refresh_interval(running_jobs: usize) -> SignedDuration {
    let seconds = i64::try_from(running_jobs.div_ceil(MAX_REFRESHES_PER_SECOND));
    STATUS_REFRESH_INTERVAL.max(SignedDuration::from_secs(seconds.unwrap_or(i64::MAX)))
}

//! Tests whose Job is there and has not ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::{
    AT_ONCE, Change, Ending, MOST_WORKER_EVENTS, Observed, Plan, Say, Scene, SeenJob, Setting,
    Steer, later, named, phase, together::Gathering, workers,
};
use crate::api::v1alpha1::{FailurePolicy, LoadTest, LoadTestStatus, Phase, Reason};
use crate::duration;
use crate::progress::{Obstacle, Outcome, TestJob, Worker, WorkerState};
use crate::report::fnv1a;

/// So long after a Job's start, at most, its pods are usually there and their containers created, however many tests run. Where
/// few do it is half of the time between two refreshes: five seconds.
const MOST_USUAL_START: SignedDuration = SignedDuration::from_secs(30);

/// So long after a Job's start events are asked, or after half of its time to start: the API server reads all events of a
/// namespace to answer, which many tests that start at once must not ask of it.
const DOUBT: SignedDuration = SignedDuration::from_secs(20);

/// How much longer than its script's phases a worker may take: for its own start, and for the virtual users that came last.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// So long a status stays as it is when nothing but the words of a message change: one that counts pods that wait would be
/// written for each of a thousand. Two seconds at least: when it was written is known by the duration, in whole ones.
const CALM: SignedDuration = SignedDuration::from_secs(3);

/// So long after a pod was to be gone its node is taken to be lost.
const LOST: SignedDuration = SignedDuration::from_secs(30);

/// So long after a worker's end its pod goes on only where a container keeps it that somebody else has put into it, such
/// as a service mesh's.
pub(super) const LINGER: SignedDuration = SignedDuration::from_secs(10);

/// Between why a test is where it is, and what is wrong with its workers besides.
const BESIDES: &str = "; but ";

/// The Job or the pod, by its UID, whose events may tell why workers do not start: the Job where it has too few pods, or
/// else a pod that does not say by itself what it waits for.
#[must_use]
pub fn object_in_doubt(
    test: &LoadTest,
    job: &SeenJob,
    workers: &[Arc<Worker>],
    now: Timestamp,
) -> Option<String> {
    let SeenJob::Ours(job) = job else { return None };
    let doubt = DOUBT.min(SignedDuration::from_secs(
        test.spec.start_deadline_seconds / 2,
    ));
    let begun = job
        .started
        .filter(|_| job.outcome.is_none() && !job.failing && !job.suspended)?;
    if phase(test).is_some_and(|p| p != Phase::Starting) || later(begun, doubt) > now {
        return None;
    }
    if workers.len() < usize::try_from(test.spec.count).ok()? {
        return Some(job.uid.clone());
    }
    let silent = |w: &&Arc<Worker>| w.state == WorkerState::Pending { obstacle: None };
    workers.iter().find(silent).map(|w| w.uid.clone())
}

impl Scene<'_> {
    pub(super) fn underway(&self, job: &TestJob, seen: &Observed) -> Plan {
        let workers = &seen.workers;
        let has_begun = self.current.start_time.is_some() || job.started.is_some();
        if let Some(at) = self.all_succeeded(workers).filter(|_| has_begun) {
            // Nothing can take this back, and the Job controller says it only some two seconds later.
            let job = TestJob {
                succeeded: self.test.spec.count,
                ..job.clone()
            };
            return self.ended(
                &job,
                &Outcome::Complete {
                    at: at.max(job.started.unwrap_or(at)),
                },
                workers,
            );
        }
        // A Job that is failing ends by itself, suspended or not.
        if job.suspended && !job.failing {
            return self.held(job, workers);
        }
        let count = self.test.spec.count;
        let started =
            i32::try_from(workers.iter().filter(|w| w.started).count()).unwrap_or(i32::MAX);
        let has_run = self.current.phase == Some(Phase::Running);
        let gathering = (!has_run && started >= count).then(|| self.gathering(workers));
        let all_begun = has_run || matches!(gathering, Some(Gathering::Begun { .. }));
        let begun = job
            .started
            .or(self.progress_so_far("True").map(|(since, ..)| since))
            .unwrap_or(self.now);
        let start_deadline = later(begun, self.start_deadline());
        // A pod may wait a moment for its node or its image, or for the other workers, which is nothing to be told of.
        let settled = later(begun, MOST_USUAL_START.min(seen.refresh / 2));
        let obstacle = obstacle(seen);

        let (phase, holds, reason, message) = if let Some(ending) = self.ending(
            all_begun,
            gathering.as_ref(),
            start_deadline,
            obstacle.as_ref(),
        ) {
            ending
        } else if let Some((reason, message)) = self.failed_in_vain(job, workers) {
            (Phase::Stopping, false, reason, message)
        } else if all_begun {
            let message = match count {
                1 => "the worker has started".to_owned(),
                n => format!("all {n} workers have started"),
            };
            (Phase::Running, true, Reason::Running, message)
        } else if let Some(waits) = gathering
            .as_ref()
            .and_then(Gathering::told)
            .filter(|_| settled <= self.now)
        {
            (
                Phase::Starting,
                true,
                Reason::WaitingForWorkers,
                format!("all {count} workers run, to begin together; {waits}"),
            )
        } else {
            let message = format!(
                "starting {} in the Job {}",
                self::workers(count),
                self.test.name_any()
            );
            match obstacle {
                Some(Obstacle {
                    reason,
                    message: why,
                }) => (Phase::Starting, true, reason, format!("{message}; {why}")),
                None => (Phase::Starting, true, Reason::Starting, message),
            }
        };
        let (reason, message) = match self.trouble(workers) {
            Some((trouble, why)) if phase == Phase::Running => {
                (trouble, format!("{message}{BESIDES}{why}"))
            }
            Some((_, why)) if phase == Phase::Stopping => {
                (reason, format!("{message}{BESIDES}{why}"))
            }
            _ => (reason, message),
        };
        let mut events = self.beginnings(workers);
        let unsettled = phase == Phase::Starting && settled > self.now;
        if reason.is_trouble() && !unsettled {
            events.push(Say::warning(reason, message.clone()));
        }
        let mut status = self.counted(
            self.status(phase, Self::progressing(Some(holds), reason, message)),
            job,
            workers,
        );
        let started_at = job.started.unwrap_or(self.now);
        status.duration = Some(duration::format(self.now.duration_since(started_at)));
        status.start_time = status.start_time.or_else(|| job.started.map(Time));
        if let Some(Gathering::Begun { at }) = gathering {
            status.load_start_time = status.load_start_time.or(at.map(MicroTime));
        }

        let written = self
            .current
            .duration
            .as_deref()
            .and_then(duration::parse)
            .unwrap_or_default();
        let written = later(started_at, written);
        let due = if self.same_but_for_progress(&status) {
            self.refresh_after(written, seen.refresh)
        } else if self.same_but_for_words(&status) {
            later(written, CALM)
        } else {
            self.now
        };
        let write = due <= self.now;
        let refresh = if write {
            self.refresh_after(self.now, seen.refresh)
        } else {
            due
        };
        let (tell_again, next) = if phase == Phase::Running {
            self.telling_again(workers)
        } else {
            (None, None)
        };
        let refresh = next.map_or(refresh, |next| refresh.min(next));
        let look_again = if phase == Phase::Starting {
            refresh.min(start_deadline)
        } else {
            refresh
        };
        Plan {
            events,
            look_again: Some(if unsettled {
                look_again.min(settled)
            } else {
                look_again
            }),
            status: write.then_some(status),
            change: self
                .steer(job, phase == Phase::Stopping)
                .or(match gathering {
                    Some(Gathering::Tell(start)) if phase == Phase::Starting => {
                        Some(Change::StartWorkers(start))
                    }
                    _ => tell_again.map(Change::StartWorkers),
                }),
            ..Plan::default()
        }
    }

    /// When the progress is to be written next. Each test has its own time in the round, by its UID, so that tests that
    /// started together are not all written in the same second.
    fn refresh_after(&self, written: Timestamp, every: SignedDuration) -> Timestamp {
        let (every, due) = (every.as_secs().max(1), later(written, every).as_second());
        let hash = fnv1a(self.test.metadata.uid.iter().flat_map(|uid| uid.bytes()));
        let turn = i64::try_from(hash >> 1)
            .unwrap_or_default()
            .rem_euclid(every);
        let wait = (turn - due).rem_euclid(every);
        Timestamp::from_second(due.saturating_add(wait)).unwrap_or(Timestamp::MAX)
    }

    /// Whether and why the test is being ended before its time.
    fn ending(
        &self,
        all_begun: bool,
        gathering: Option<&Gathering>,
        start_deadline: Timestamp,
        obstacle: Option<&Obstacle>,
    ) -> Option<(Phase, bool, Reason, String)> {
        if self.current.phase == Some(Phase::Stopping) {
            // For good; and the reason that it has is the one that it ends with.
            let said = self
                .progress_so_far("True")
                .or(self.progress_so_far("False"))?;
            let holds = self.progress_so_far("True").is_some();
            let words = said.2.split(BESIDES).next().unwrap_or_default();
            return Some((Phase::Stopping, holds, said.1, words.to_owned()));
        }
        if self.test.spec.stop == Some(true) {
            return Some((
                Phase::Stopping,
                true,
                Reason::Stopping,
                "the workers are being stopped, as spec.stop asks".into(),
            ));
        }
        if all_begun || start_deadline > self.now {
            return None;
        }
        let seconds = self.test.spec.start_deadline_seconds;
        if let Some(waits) = gathering.and_then(Gathering::told) {
            let message = format!(
                "not all workers began within {seconds} s: {waits}; see their logs, or let each begin when it can (spec.start: Immediate)"
            );
            return Some((
                Phase::Stopping,
                false,
                Reason::StartDeadlineExceeded,
                message,
            ));
        }
        let late = format!("not all workers ran within {seconds} s");
        let (reason, message) = match obstacle {
            Some(obstacle) => (obstacle.reason, format!("{late}: {}", obstacle.message)),
            None => (
                Reason::StartDeadlineExceeded,
                format!("{late}, for a reason that neither their pods nor events tell"),
            ),
        };
        Some((Phase::Stopping, false, reason, message))
    }

    /// Why the test has failed, if workers have that the Job does not know of, since their pods go on.
    fn failed_in_vain(&self, job: &TestJob, workers: &[Arc<Worker>]) -> Option<(Reason, String)> {
        let failed = workers
            .iter()
            .any(|w| matches!(w.state, WorkerState::Failed { .. }) && self.lingers(w));
        let ended = workers.iter().filter(|w| w.ended.is_some()).count();
        let all = usize::try_from(self.test.spec.count).is_ok_and(|count| ended >= count);
        let decided = failed && (self.test.spec.failure_policy == FailurePolicy::FailFast || all);
        (decided && !job.failing).then(|| {
            let (_, reason, message) = self.failure("BackoffLimitExceeded", "", workers);
            (reason, message)
        })
    }

    /// Whether a worker's pod goes on for long though the worker has ended, and nobody has asked it to end.
    pub(super) fn lingers(&self, worker: &Worker) -> bool {
        worker.lingers
            && worker.deleted.is_none()
            && worker.ended.is_some_and(|at| later(at, LINGER) <= self.now)
    }

    /// The Job is suspended: by a queueing system before it started, which is well, or later, which would send the load of
    /// its workers a second time when it goes on.
    fn held(&self, job: &TestJob, workers: &[Arc<Worker>]) -> Plan {
        let name = self.test.name_any();
        if self.current.start_time.is_some() || workers.iter().any(|w| w.started) {
            let stopped =
                self.current.phase == Some(Phase::Stopping) || self.test.spec.stop == Some(true);
            let (ending, reason, message) = if stopped {
                (
                    Ending::Stopped,
                    Reason::Stopped,
                    "it was stopped, and its Job suspended".to_owned(),
                )
            } else {
                let message = format!(
                    "the Job {name} was suspended after it had started; it is not taken up again, as workers would send their load twice: create the test anew"
                );
                (Ending::Failed, Reason::JobSuspended, message)
            };
            return self.end(ending, reason, &message, Some(job), workers, self.now);
        }
        if self.test.spec.stop == Some(true) {
            return self.end_now(
                Ending::Stopped,
                Reason::Stopped,
                "it was stopped before it started",
            );
        }
        let plan = self.suspended(format!(
            "the Job {name} is suspended, by a queueing system or by hand; the test starts when the Job is resumed (kubectl describe job {name})"
        ));
        Plan {
            events: self.beginnings(workers),
            ..plan
        }
    }

    /// What is to be changed of the Job.
    fn steer(&self, job: &TestJob, end: bool) -> Option<Change> {
        let deadline = if end {
            Some(AT_ONCE)
        } else {
            self.test.spec.active_deadline_seconds
        };
        let settled = job.deadline == deadline || job.failing;
        (!settled).then(|| {
            Change::SteerJob(Steer {
                uid: job.uid.clone(),
                to: Setting::Deadline(deadline),
            })
        })
    }

    /// What is wrong with workers that have started: a lost node, no begin when it is time, or no end when their load is over.
    fn trouble(&self, workers: &[Arc<Worker>]) -> Option<(Reason, String)> {
        let lost: Vec<_> = workers
            .iter()
            .map(Arc::as_ref)
            .filter(|w| {
                !w.has_ended()
                    && w.deleted
                        .as_ref()
                        .is_some_and(|d| later(d.due, LOST) <= self.now)
            })
            .collect();
        if !lost.is_empty() {
            let pods = named(&lost);
            return Some((
                Reason::NodeLost,
                format!(
                    "worker {pods} was to have ended, but the node does not say so: the test ends when the node is back, or when the pod is removed (kubectl delete pod --force {})",
                    lost[0].pod
                ),
            ));
        }
        if let Some(late) = self.late(workers) {
            return Some((Reason::WorkersLate, late));
        }
        let expected = self
            .current
            .expected_duration
            .as_deref()
            .and_then(duration::parse)?;
        let load_start = self
            .current
            .load_start_time
            .as_ref()
            .map_or(Timestamp::MIN, |t| t.0);
        let overdue: Vec<_> = workers
            .iter()
            .map(Arc::as_ref)
            .filter(|w| {
                w.running_since.is_some_and(|since| {
                    later(later(since.max(load_start), expected), OVERDUE) <= self.now
                })
            })
            .collect();
        (!overdue.is_empty()).then(|| {
            let namespace = self.test.namespace().unwrap_or_default();
            let message = format!(
                "worker {} still runs, though the phases of the script take only {}: see kubectl logs -n {namespace} {}; to end the test, set spec.stop to true",
                named(&overdue),
                duration::format(expected),
                overdue[0].pod,
            );
            (Reason::Overdue, message)
        })
    }

    /// When the last worker ended, if every worker of the test has succeeded.
    fn all_succeeded(&self, workers: &[Arc<Worker>]) -> Option<Timestamp> {
        let succeeded = workers.iter().filter(|w| w.state == WorkerState::Succeeded);
        let indexes: BTreeSet<u32> = succeeded
            .clone()
            .filter_map(|w| w.index.filter(|_| w.ended.is_some()))
            .collect();
        let count = usize::try_from(self.test.spec.count).ok()?;
        if indexes.len() < count {
            None
        } else {
            succeeded.filter_map(|w| w.ended).max()
        }
    }

    /// The events of a test's beginning. Once `Running` is written they have all been said.
    pub(super) fn beginnings(&self, workers: &[Arc<Worker>]) -> Vec<Say> {
        if self.current.phase == Some(Phase::Running) {
            return Vec::new();
        }
        let mut events = vec![Say::normal(
            Reason::Created,
            format!(
                "Created Load Test worker master job: {}",
                self.test.name_any()
            ),
        )];
        let started: Vec<_> = workers.iter().filter(|w| w.started).collect();
        if usize::try_from(self.test.spec.count).is_ok_and(|count| count > MOST_WORKER_EVENTS) {
            if started.len() >= usize::try_from(self.test.spec.count).unwrap_or(usize::MAX) {
                events.push(Say::normal(
                    Reason::Running,
                    format!("Running {} Load Test worker pods", started.len()),
                ));
            }
        } else {
            events.extend(started.into_iter().map(|w| Say {
                about: w.uid.clone(),
                ..Say::normal(
                    Reason::Running,
                    format!("Running Load Test worker pod: {}", w.pod),
                )
            }));
        }
        events
    }

    /// Whether a status says nothing new but how far the test is, which is worth a write only now and then.
    fn same_but_for_progress(&self, status: &LoadTestStatus) -> bool {
        let current = &self.current;
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
                ..current.clone()
            }
    }

    /// Whether a status says besides nothing new but the words of its messages.
    fn same_but_for_words(&self, status: &LoadTestStatus) -> bool {
        let mut status = status.clone();
        for (condition, current) in status.conditions.iter_mut().zip(&self.current.conditions) {
            condition.message.clone_from(&current.message);
        }
        self.same_but_for_progress(&status)
    }
}

impl Reason {
    /// Whether it tells of something that people may have to do something about.
    fn is_trouble(self) -> bool {
        !matches!(
            self,
            Self::Starting | Self::WaitingForWorkers | Self::Running | Self::Stopping
        )
    }
}

/// What keeps the workers from starting: what one of them says of itself, or what events tell.
fn obstacle(seen: &Observed) -> Option<Obstacle> {
    let told = |w: &Arc<Worker>| match &w.state {
        WorkerState::Pending {
            obstacle: Some(obstacle),
        } => Some((w.index, w.pod.clone(), obstacle.clone())),
        _ => None,
    };
    let mut stuck: Vec<_> = seen.workers.iter().filter_map(told).collect();
    stuck.sort_by_key(|(index, ..)| *index);
    let others = stuck.len().saturating_sub(1);
    let (reason, message) = match stuck.into_iter().next() {
        Some((_, pod, obstacle)) => {
            let more = if others > 0 {
                format!(" (and {others} more)")
            } else {
                String::new()
            };
            (
                obstacle.reason,
                format!("{pod}{more} waits: {}", obstacle.message),
            )
        }
        None => seen.obstacle.clone().map(|o| (o.reason, o.message))?,
    };
    let message = match advice(reason) {
        Some(advice) => format!("{}: {advice}", message.trim_end_matches(['.', ' '])),
        None => message,
    };
    Some(Obstacle { reason, message })
}

/// What a user can do about an obstacle.
fn advice(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Unschedulable => "make room, add nodes, or ask for fewer workers",
        Reason::ImageNotPullable => {
            "check the workers' image (status.image) and that the nodes can pull it"
        }
        Reason::VolumeNotMounted => "check that the ConfigMap of the script is still there",
        Reason::PodsRefused => "raise the namespace's quota, or relax what refuses the pods",
        Reason::ContainerNotStarting => {
            "check the workers' image and what their container refers to"
        }
        _ => return None,
    })
}

//! What is to be done about a test: pure. [`decide`] takes the test, what is seen of its Job, its workers and its
//! script, and the time, and gives a [`Plan`].
//!
//! A test goes `Pending -> Starting -> Running -> Completed | Failed` and never back. `Starting` is written before the
//! Job is created, so a test without it has had no Job, and a test with it is never given a second one by mistake.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::v1alpha1::{ConditionType, LoadTest, LoadTestStatus, Phase, Reason, TEST_SCRIPT_KEY};
use crate::conditions::{Wanted, conditions};
use crate::duration;
use crate::job::job;
use crate::progress::{Outcome, TestJob, Worker, WorkerState};
use crate::settings::WorkerSettings;

/// How often the counts and the duration of a running test are written.
pub const REFRESH: SignedDuration = SignedDuration::from_secs(10);

/// Up to this number of workers, each has an event of its own when it runs.
pub const MOST_WORKER_EVENTS: usize = 50;

/// What is seen of a test in the cluster.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What has the name of the test's Job.
    pub job: SeenJob,
    /// The test's workers.
    pub workers: Vec<Worker>,
    /// The test's script. Looked at only while there is no Job.
    pub script: Script,
}

/// What has the name of a test's Job.
#[derive(Clone, Debug, PartialEq)]
pub enum SeenJob {
    /// Nothing, and as far as can be known there never was a Job of this test.
    None,
    /// The test's Job.
    Ours(TestJob),
    /// The test's Job, which has been deleted; as it was seen last, where it was seen.
    Gone(Option<TestJob>),
    /// A Job that the test does not control. Never touched.
    Foreign,
    /// The API server refused to create the Job, with this message.
    Refused(String),
}

/// What is seen of a test's script.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    /// Not looked at.
    Unknown,
    /// It is there.
    Found,
    /// There is no such `ConfigMap`.
    NoConfigMap,
    /// The `ConfigMap` lacks the key; these it has.
    NoKey(Vec<String>),
}

/// What is to be done about a test, in the order of the fields: first the events, which tell what is seen and are
/// said once each; then the status, as the record of it; then the change, which the record now allows.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The events to say, if they have not been said.
    pub events: Vec<Say>,
    /// The status to write, if it is to be written.
    pub status: Option<LoadTestStatus>,
    /// The Job to create.
    pub create: Option<Box<Job>>,
    /// What to wait for, besides the test, its Job and its pods.
    pub wait_for: Option<WaitFor>,
    /// When to look again, if nothing happens before.
    pub look_again: Option<Timestamp>,
}

/// An object to wait for: a change of it is a reason to look at the test again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WaitFor {
    /// The `ConfigMap` of this name appears or changes.
    ConfigMap(String),
    /// The Job of this name changes or goes.
    Job(String),
}

/// An event to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Say {
    /// Whether it is a warning.
    pub warning: bool,
    /// Why.
    pub reason: Reason,
    /// What happened, in a sentence for people.
    pub message: String,
    /// What tells it from other events of this test with the same reason: a pod's UID, or what is missing.
    pub about: String,
}

impl Say {
    fn normal(reason: Reason, message: String) -> Self {
        Self { warning: false, reason, message, about: String::new() }
    }

    fn warning(reason: Reason, message: String) -> Self {
        Self { warning: true, ..Self::normal(reason, message) }
    }
}

/// Whether nothing is ever to be done about a test any more: it has ended, or is being deleted.
#[must_use]
pub fn needs_nothing(test: &LoadTest) -> bool {
    test.metadata.deletion_timestamp.is_some() || test.status.as_ref().and_then(|s| s.phase).is_some_and(Phase::is_terminal)
}

/// Decides what is to be done about a test.
#[must_use]
pub fn decide(test: &LoadTest, seen: &Observed, settings: &WorkerSettings, now: Timestamp) -> Plan {
    if needs_nothing(test) {
        return Plan::default();
    }
    let current = test.status.clone().unwrap_or_default();
    let scene = Scene { test, current, settings, now };
    match &seen.job {
        SeenJob::None => scene.without_job(&seen.script),
        SeenJob::Foreign => scene.blocked(
            Reason::NameConflict,
            format!(
                "there is a Job {0} that this test does not own: delete it (kubectl delete job {0}), or use another name",
                test.name_any()
            ),
            Some(WaitFor::Job(test.name_any())),
        ),
        SeenJob::Refused(why) => scene.blocked(Reason::JobRefused, format!("the Job was refused: {why}"), None),
        SeenJob::Ours(job) => match &job.outcome {
            None => scene.underway(job, &seen.workers),
            Some(outcome) => scene.ended(job, outcome, &seen.workers),
        },
        SeenJob::Gone(Some(job)) if let Some(outcome) = &job.outcome => scene.ended(job, outcome, &seen.workers),
        SeenJob::Gone(job) => scene.lost(job.as_ref()),
    }
}

/// What every branch of a decision needs.
struct Scene<'a> {
    test: &'a LoadTest,
    current: LoadTestStatus,
    settings: &'a WorkerSettings,
    now: Timestamp,
}

impl Scene<'_> {
    fn without_job(&self, script: &Script) -> Plan {
        let name = &self.test.spec.test_script.config.config_map;
        let namespace = self.test.namespace().unwrap_or_default();
        let missing = match script {
            Script::Found | Script::Unknown => None,
            Script::NoConfigMap => Some(format!(
                "there is no ConfigMap {name} in the namespace {namespace}: create it, with the test script under the key {TEST_SCRIPT_KEY}"
            )),
            Script::NoKey(keys) => Some(format!(
                "the ConfigMap {name} has no key {TEST_SCRIPT_KEY} (it has: {}): add the test script under this key",
                if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
            )),
        };
        if let Some(message) = missing {
            return self.blocked(Reason::MissingTestScript, message, Some(WaitFor::ConfigMap(name.clone())));
        }
        let message = format!("starting {} in the Job {}", workers(self.test.spec.count), self.test.name_any());
        let status = self.status(Phase::Starting, Self::progressing(true, Reason::Starting, message));
        Plan {
            // Written even where nothing changes: that it can be written proves that the test was not seen too late.
            status: Some(status),
            create: Some(Box::new(job(self.test, self.settings))),
            ..Plan::default()
        }
    }

    /// Something keeps the test from starting.
    fn blocked(&self, reason: Reason, message: String, wait_for: Option<WaitFor>) -> Plan {
        let status = self.status(Phase::Pending, Self::progressing(false, reason, message.clone()));
        Plan {
            events: vec![Say { about: message.clone(), ..Say::warning(reason, message) }],
            status: self.if_changed(status),
            wait_for,
            ..Plan::default()
        }
    }

    fn underway(&self, job: &TestJob, workers: &[Worker]) -> Plan {
        let count = self.test.spec.count;
        if let Some(at) = self.all_succeeded(workers) {
            // Nothing can take this back, and the Job controller says it only some two seconds later.
            let job = TestJob { succeeded: count, ..job.clone() };
            return self.ended(&job, &Outcome::Complete { at: at.max(job.started.unwrap_or(at)) }, workers);
        }
        let started = i32::try_from(workers.iter().filter(|w| w.started).count()).unwrap_or(i32::MAX);
        let all_started = self.current.phase == Some(Phase::Running) || started >= count;
        let (phase, condition) = if all_started {
            let message = match count {
                1 => "the worker has started".to_owned(),
                n => format!("all {n} workers have started"),
            };
            (Phase::Running, Self::progressing(true, Reason::Running, message))
        } else {
            let obstacle = workers.iter().find_map(|w| match &w.state {
                WorkerState::Pending { obstacle: Some(obstacle) } => Some(format!("; {} waits: {obstacle}", w.pod)),
                _ => None,
            });
            let message =
                format!("starting {} in the Job {}{}", self::workers(count), self.test.name_any(), obstacle.unwrap_or_default());
            (Phase::Starting, Self::progressing(true, Reason::Starting, message))
        };
        let mut status = self.counted(self.status(phase, condition), job, workers);
        let started_at = job.started.unwrap_or(self.now);
        status.duration = Some(duration::format(self.now.duration_since(started_at)));
        status.start_time = status.start_time.or_else(|| job.started.map(Time));

        let written = self.current.duration.as_deref().and_then(duration::parse).unwrap_or_default();
        let due = started_at + written + REFRESH;
        let write = !self.same_but_for_progress(&status) || due <= self.now;
        Plan {
            events: self.beginnings(workers),
            look_again: Some(if write { self.now + REFRESH } else { due }),
            status: write.then_some(status),
            ..Plan::default()
        }
    }

    /// When the last worker ended, if every worker of the test has succeeded.
    fn all_succeeded(&self, workers: &[Worker]) -> Option<Timestamp> {
        let succeeded = workers.iter().filter(|w| w.state == WorkerState::Succeeded);
        let indexes: BTreeSet<u32> = succeeded.clone().filter_map(|w| w.index.filter(|_| w.ended.is_some())).collect();
        let count = usize::try_from(self.test.spec.count).ok()?;
        if indexes.len() < count { None } else { succeeded.filter_map(|w| w.ended).max() }
    }

    /// The events of a test's beginning. Once `Running` is written they have all been said.
    fn beginnings(&self, workers: &[Worker]) -> Vec<Say> {
        if self.current.phase == Some(Phase::Running) {
            return Vec::new();
        }
        let mut events =
            vec![Say::normal(Reason::Created, format!("Created Load Test worker master job: {}", self.test.name_any()))];
        let started: Vec<_> = workers.iter().filter(|w| w.started).collect();
        if usize::try_from(self.test.spec.count).is_ok_and(|count| count > MOST_WORKER_EVENTS) {
            if started.len() >= usize::try_from(self.test.spec.count).unwrap_or(usize::MAX) {
                events.push(Say::normal(Reason::Running, format!("Running {} Load Test worker pods", started.len())));
            }
        } else {
            events.extend(started.into_iter().map(|w| Say {
                about: w.uid.clone(),
                ..Say::normal(Reason::Running, format!("Running Load Test worker pod: {}", w.pod))
            }));
        }
        events
    }

    fn ended(&self, job: &TestJob, outcome: &Outcome, workers: &[Worker]) -> Plan {
        let mut events = self.beginnings(workers);
        let count = self.test.spec.count;
        let (phase, wanted, at) = match outcome {
            Outcome::Complete { at } => {
                let message = match count {
                    1 => "the worker succeeded".to_owned(),
                    n => format!("all {n} workers succeeded"),
                };
                events.push(Say::normal(Reason::Completed, format!("Completed Load Test: {message}")));
                (Phase::Completed, Self::completed(&message), *at)
            }
            Outcome::Failed { at, reason, message } => {
                let (reason, message) = self.failure(reason, message, workers);
                events.push(Say::warning(Reason::Failed, format!("Failed Load Test: {message}")));
                (Phase::Failed, Self::failed(reason, &message), *at)
            }
        };
        let mut status = self.counted(self.status(phase, wanted), job, workers);
        let started = status.start_time.as_ref().map(|t| t.0).or(job.started).unwrap_or(at);
        status.start_time = Some(Time(started));
        status.completion_time = Some(Time(at));
        status.duration = Some(duration::format(at.duration_since(started)));
        status.active = 0;
        Plan { events, status: Some(status), ..Plan::default() }
    }

    /// The Job was deleted before it ended. It is not created again: its workers may have sent load.
    fn lost(&self, job: Option<&TestJob>) -> Plan {
        let message = format!(
            "the Job {} was deleted before the test ended; to run the test again, delete the LoadTest and create it again",
            self.test.name_any()
        );
        let mut status = self.status(Phase::Failed, Self::failed(Reason::JobDeleted, &message));
        if let Some(job) = job {
            status = self.counted(status, job, &[]);
        }
        let started = status.start_time.as_ref().map(|t| t.0).or(job.and_then(|j| j.started)).unwrap_or(self.now);
        status.start_time = Some(Time(started));
        status.completion_time = Some(Time(self.now));
        status.duration = Some(duration::format(self.now.duration_since(started)));
        status.active = 0;
        Plan {
            events: vec![Say::warning(Reason::Failed, format!("Failed Load Test: {message}"))],
            status: Some(status),
            ..Plan::default()
        }
    }

    /// Why a test failed: which workers, and what they said last.
    fn failure(&self, job_reason: &str, job_message: &str, workers: &[Worker]) -> (Reason, String) {
        let mut failed: Vec<&Worker> = workers.iter().filter(|w| matches!(w.state, WorkerState::Failed { .. })).collect();
        failed.sort_by_key(|w| w.index);
        let namespace = self.test.namespace().unwrap_or_default();
        if job_reason == "DeadlineExceeded" {
            return (Reason::DeadlineExceeded, format!("the test ran longer than its deadline: {job_message}"));
        }
        let Some(first) = failed.first() else {
            let message = format!("a worker's pod was deleted or lost before it ended ({job_reason}: {job_message})");
            return (if job_reason == "BackoffLimitExceeded" { Reason::WorkerFailed } else { Reason::JobFailed }, message);
        };
        let more = failed.len() - 1;
        let aborted = workers.iter().filter(|w| w.state == WorkerState::Aborted).count();
        let parts = [
            Some(format!("worker {}", told(first))),
            (more > 0).then(|| format!("{} failed too", self::workers(more))),
            (aborted > 0).then(|| format!("{} stopped because of it", self::workers(aborted))),
            Some(format!("see: kubectl logs -n {namespace} {}", first.pod)),
        ];
        (Reason::WorkerFailed, parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }

    /// Takes the counts from the Job and the workers. They never run backwards, whatever an old view shows.
    fn counted(&self, mut status: LoadTestStatus, job: &TestJob, workers: &[Worker]) -> LoadTestStatus {
        let known = workers.iter().filter(|w| matches!(w.state, WorkerState::Failed { .. })).count();
        // Where no pod is left to tell, one worker at least has failed.
        let failed = if known == 0 { job.failed.min(1) } else { i32::try_from(known).unwrap_or(i32::MAX) };
        status.active = job.active;
        status.succeeded = job.succeeded.max(self.current.succeeded);
        status.failed = failed.max(self.current.failed);
        status.completions = Some(format!("{}/{}", status.succeeded, self.test.spec.count));
        status
    }

    fn status(&self, phase: Phase, wanted: [Wanted; ConditionType::ALL.len()]) -> LoadTestStatus {
        let generation = self.test.metadata.generation;
        LoadTestStatus {
            observed_generation: generation,
            phase: Some(phase),
            conditions: conditions(&self.current.conditions, wanted, generation, self.now),
            completions: Some(format!("{}/{}", self.current.succeeded, self.test.spec.count)),
            image: self.current.image.clone().or_else(|| Some(self.settings.image.clone())),
            ..self.current.clone()
        }
    }

    fn progressing(holds: bool, reason: Reason, message: String) -> [Wanted; 3] {
        let not_yet = || Wanted { holds: false, reason: Reason::NotEnded, message: "the test has not ended".into() };
        [Wanted { holds, reason, message }, not_yet(), not_yet()]
    }

    fn completed(message: &str) -> [Wanted; 3] {
        [false, true, false].map(|holds| Wanted { holds, reason: Reason::Completed, message: message.into() })
    }

    fn failed(reason: Reason, message: &str) -> [Wanted; 3] {
        [false, false, true].map(|holds| Wanted { holds, reason, message: message.into() })
    }

    fn if_changed(&self, status: LoadTestStatus) -> Option<LoadTestStatus> {
        (status != self.current).then_some(status)
    }

    /// Whether a status says nothing new but how far the test is, which is worth a write only now and then.
    fn same_but_for_progress(&self, status: &LoadTestStatus) -> bool {
        let current = &self.current;
        *status
            == LoadTestStatus {
                active: status.active,
                succeeded: status.succeeded,
                failed: status.failed,
                completions: status.completions.clone(),
                duration: status.duration.clone(),
                start_time: status.start_time.clone(),
                ..current.clone()
            }
    }
}

fn workers(count: impl std::fmt::Display) -> String {
    match count.to_string().as_str() {
        "1" => "1 worker".into(),
        n => format!("{n} workers"),
    }
}

/// A failed worker in words: `1 (pod t-1-abcde) failed with exit code 11: <its last line>`.
fn told(worker: &Worker) -> String {
    let index = worker.index.map_or_else(|| "?".to_owned(), |i| i.to_string());
    let WorkerState::Failed { exit_code, reason, message } = &worker.state else { return index };
    let code = exit_code.map(|code| format!(" with exit code {code}"));
    let reason = (reason != "Error").then(|| format!(" ({reason})"));
    let line = message.as_deref().and_then(|m| m.trim_end().lines().next_back());
    let line = line.map(|l| format!(": {}", l.trim().chars().take(MOST_LINE).collect::<String>()));
    let parts = [code, reason, line].into_iter().flatten().collect::<String>();
    format!("{index} (pod {}) failed{parts}", worker.pod)
}

/// The most characters of a worker's last line that a message takes.
const MOST_LINE: usize = 300;

#[cfg(test)]
mod tests;

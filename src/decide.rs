//! What is to be done about a test: pure. [`decide`] takes the test, what is seen of its Job, its workers and its
//! script, and the time, and gives a [`Plan`].
//!
//! A test goes `Pending | Suspended -> Starting -> Running -> Completed | Failed | Stopped`, by `Stopping` where it is
//! ended before its time, and never back to one of the first two once its workers may have started. `Starting` is written
//! before the Job is created, so a test without it has had no Job, and a test with it is never given a second one by
//! mistake.

mod end;
mod run;
mod start;
mod together;
mod verdict;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::v1alpha1::{ConditionType, LoadTest, LoadTestStatus, Phase, Reason};
use crate::conditions::{Wanted, conditions};
use crate::progress::{Obstacle, TestJob, Worker};
use crate::script::Found;
use crate::settings::WorkerSettings;

pub use run::object_in_doubt;

/// How often the counts and the duration of a running test are written, where few tests run.
pub const REFRESH: SignedDuration = SignedDuration::from_secs(10);

/// The most writes a second that only refresh tests, over all that run.
const MOST_REFRESHES: usize = 40;

/// How often the counts and the duration of each of so many running tests are written: the more there are, the less often.
#[must_use]
pub fn refresh_every(running: usize) -> SignedDuration {
    REFRESH.max(SignedDuration::from_secs(
        i64::try_from(running.div_ceil(MOST_REFRESHES)).unwrap_or(i64::MAX),
    ))
}

/// Up to this number of workers, each has an event of its own when it runs.
pub const MOST_WORKER_EVENTS: usize = 50;

/// What is seen of a test in the cluster.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What has the name of the test's Job.
    pub job: SeenJob,
    /// The test's workers.
    pub workers: Vec<Arc<Worker>>,
    /// The test's script. Looked at only while there is no Job.
    pub script: Script,
    /// What events tell of a worker that does not come forward, where nothing else does.
    pub obstacle: Option<Obstacle>,
    /// How often its progress is written, by [`refresh_every`].
    pub refresh: SignedDuration,
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
    /// It is there, and all files beside it that can be looked at.
    Found(Found),
    /// There is no `ConfigMap` of this name.
    NoConfigMap(String),
    /// The `ConfigMap` lacks the key.
    NoKey {
        /// The `ConfigMap`.
        config_map: String,
        /// The keys that it has.
        keys: Vec<String>,
    },
    /// It cannot be run as it is, for this reason; a change of this `ConfigMap` may mend that.
    Faulty {
        /// What is wrong.
        fault: String,
        /// The `ConfigMap` at fault, unless that is the test itself.
        config_map: Option<String>,
    },
}

/// What is to be done about a test, in the order of the fields: first the events, which tell what is seen and are
/// said once each; then the status, as the record of it; then the change, which the record now allows.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The events to say, if they have not been said.
    pub events: Vec<Say>,
    /// The status to write, if it is to be written.
    pub status: Option<LoadTestStatus>,
    /// The change to make.
    pub change: Option<Change>,
    /// What to wait for, besides the test, its Job and its pods.
    pub wait_for: Option<WaitFor>,
    /// When to look again, if nothing happens before.
    pub look_again: Option<Timestamp>,
}

/// A change in the cluster.
#[derive(Clone, Debug)]
pub enum Change {
    /// Create the Job.
    CreateJob(Box<Job>),
    /// Change what can be changed of the Job.
    SteerJob(Steer),
    /// Tell workers when to begin their load.
    StartWorkers(StartWorkers),
    /// Delete the test itself, and with it all that is its own.
    DeleteTest,
}

/// What of a Job is to be other than it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Steer {
    /// The Job's UID: no other Job of the name is meant.
    pub uid: String,
    /// What is to be set.
    pub to: Setting,
}

/// Workers that are to begin their load together.
#[derive(Clone, Debug, PartialEq)]
pub struct StartWorkers {
    /// When, in whole milliseconds.
    pub at: Timestamp,
    /// How many times they have been told then.
    pub times: u8,
    /// The names and UIDs of the pods that are to be told.
    pub pods: Vec<(String, String)>,
}

/// A setting of a Job that can be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting {
    /// The seconds that it may run, or no limit.
    Deadline(Option<i64>),
    /// The seconds after its end until it is deleted.
    Ttl(i32),
}

/// The deadline of a Job that is to end now. Unlike a suspended Job it never goes on, and unlike a deleted one it is
/// still there to be looked at.
pub const AT_ONCE: i64 = 1;

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
        Self {
            warning: false,
            reason,
            message,
            about: String::new(),
        }
    }

    fn warning(reason: Reason, message: String) -> Self {
        Self {
            warning: true,
            ..Self::normal(reason, message)
        }
    }
}

/// Whether a test has ended, or is being deleted: nothing is told of it any more.
#[must_use]
pub fn is_over(test: &LoadTest) -> bool {
    test.metadata.deletion_timestamp.is_some() || phase(test).is_some_and(Phase::is_terminal)
}

/// Whether a test has ended, is to end, or is held, so that its script does not matter.
#[must_use]
pub fn ends_or_waits(test: &LoadTest) -> bool {
    is_over(test) || test.spec.stop == Some(true) || test.spec.suspend == Some(true)
}

/// What is known of the Job of a test that has been recorded, where there is none of its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MissingJob {
    /// It was there.
    WasThere,
    /// It may have been created and deleted since the record was written: only the API server's history tells.
    AskHistory,
    /// It was never created.
    NeverWas,
}

/// What the record of a test says of a Job that is not there.
#[must_use]
pub fn missing_job(test: &LoadTest) -> MissingJob {
    let started = test.status.as_ref().is_some_and(|s| s.start_time.is_some());
    match phase(test) {
        Some(Phase::Running | Phase::Stopping) => MissingJob::WasThere,
        Some(Phase::Starting | Phase::Suspended) if started => MissingJob::WasThere,
        Some(Phase::Starting) => MissingJob::AskHistory,
        _ => MissingJob::NeverWas,
    }
}

/// Whether the last attempt to create the Job of a test was refused: it never had one.
#[must_use]
pub fn was_refused(test: &LoadTest) -> bool {
    let pending = test
        .status
        .as_ref()
        .filter(|s| s.phase == Some(Phase::Pending));
    pending
        .and_then(progressing_of)
        .is_some_and(|c| c.reason == Reason::JobRefused.as_str())
}

/// The condition Progressing.
fn progressing_of(status: &LoadTestStatus) -> Option<&Condition> {
    status
        .conditions
        .iter()
        .find(|c| c.type_ == ConditionType::Progressing.as_str())
}

fn phase(test: &LoadTest) -> Option<Phase> {
    test.status.as_ref().and_then(|s| s.phase)
}

/// Decides what is to be done about a test.
#[must_use]
pub fn decide(test: &LoadTest, seen: &Observed, settings: &WorkerSettings, now: Timestamp) -> Plan {
    if test.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let current = test.status.clone().unwrap_or_default();
    let scene = Scene {
        test,
        current,
        settings,
        now,
    };
    if is_over(test) {
        return scene.after_the_end(&seen.job, &seen.workers);
    }
    match &seen.job {
        SeenJob::None | SeenJob::Foreign | SeenJob::Refused(_) => scene.without_job(seen),
        SeenJob::Ours(job) => match &job.outcome {
            None => scene.underway(job, seen),
            Some(outcome) => scene.ended(job, outcome, &seen.workers),
        },
        SeenJob::Gone(Some(job)) if let Some(outcome) = &job.outcome => {
            scene.ended(job, outcome, &seen.workers)
        }
        SeenJob::Gone(job) => scene.lost(job.as_ref(), &seen.workers),
    }
}

/// How a test ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Completed,
    Failed,
    Stopped,
}

impl Ending {
    /// The conditions that say so.
    fn wanted(self, reason: Reason, message: &str) -> Vec<Wanted> {
        let own = match self {
            Self::Completed => ConditionType::Completed,
            Self::Failed => ConditionType::Failed,
            Self::Stopped => ConditionType::Stopped,
        };
        let mut shown = vec![
            ConditionType::Progressing,
            ConditionType::Completed,
            ConditionType::Failed,
        ];
        if self == Self::Stopped {
            shown.push(own);
        }
        shown
            .into_iter()
            .map(|type_| Wanted::new(type_, Some(type_ == own), reason, message))
            .collect()
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
    fn status(&self, phase: Phase, wanted: Vec<Wanted>) -> LoadTestStatus {
        let generation = self.test.metadata.generation;
        LoadTestStatus {
            observed_generation: generation,
            phase: Some(phase),
            conditions: self.conditions(wanted),
            completions: Some(format!(
                "{}/{}",
                self.current.succeeded, self.test.spec.count
            )),
            image: self
                .current
                .image
                .clone()
                .or_else(|| Some(crate::job::image(self.test, self.settings))),
            ..self.current.clone()
        }
    }

    fn conditions(&self, wanted: Vec<Wanted>) -> Vec<Condition> {
        conditions(
            &self.current.conditions,
            wanted,
            self.test.metadata.generation,
            self.now,
        )
    }

    /// The conditions of a test that has not ended.
    fn progressing(holds: Option<bool>, reason: Reason, message: String) -> Vec<Wanted> {
        let not_yet = |type_| {
            Wanted::new(
                type_,
                Some(false),
                Reason::NotEnded,
                "the test has not ended",
            )
        };
        vec![
            Wanted::new(ConditionType::Progressing, holds, reason, message),
            not_yet(ConditionType::Completed),
            not_yet(ConditionType::Failed),
        ]
    }

    /// What the condition Progressing says now, if it is the given status: since when, why and in which words.
    fn progress_so_far(&self, status: &str) -> Option<(Timestamp, Reason, &str)> {
        let condition = progressing_of(&self.current).filter(|c| c.status == status)?;
        Some((
            condition.last_transition_time.0,
            Reason::parse(&condition.reason)?,
            &condition.message,
        ))
    }

    fn start_deadline(&self) -> SignedDuration {
        SignedDuration::from_secs(self.test.spec.start_deadline_seconds.max(1))
    }

    fn if_changed(&self, status: LoadTestStatus) -> Option<LoadTestStatus> {
        (status != self.current).then_some(status)
    }
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// The most workers, or broken thresholds, that a message names.
const MOST_NAMED: usize = 5;

/// The pods of workers, with their nodes, for a message.
fn named(chosen: &[&Worker]) -> String {
    let names = chosen.iter().take(MOST_NAMED).map(|w| match &w.node {
        Some(node) => format!("{} on {node}", w.pod),
        None => w.pod.clone(),
    });
    let more = chosen.len().saturating_sub(MOST_NAMED);
    names.collect::<Vec<_>>().join(", ")
        + &if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        }
}

fn workers(count: impl std::fmt::Display) -> String {
    match count.to_string().as_str() {
        "1" => "1 worker".into(),
        n => format!("{n} workers"),
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

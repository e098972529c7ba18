//! What a decision asks for.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use loadtest_api::v1alpha1::{LoadTestStatus, Reason};

use super::messages;
use crate::state::{FailedCall, JobStatus};

/// What to do about a test. The fields are carried out in this order: events describe what was observed, the status records it,
/// and the record allows the action.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The events to record, unless they exist.
    pub events: Vec<EventRecord>,
    /// The status to write, if it is to change.
    pub status: Option<LoadTestStatus>,
    /// The one change to make.
    pub action: Option<Action>,
    /// An object besides the test, its Job and its pods whose change matters.
    pub watch: Option<Dependency>,
    /// When to reconcile the test again, if nothing happens before.
    pub requeue_at: Option<Timestamp>,
    /// Whether the same attempt is repeated with a growing delay, until `requeue_at` at the latest.
    pub back_off: bool,
}

/// A change in the cluster.
#[derive(Clone, Debug)]
pub enum Action {
    /// Create the files that workers in the test's namespace mount.
    CreateWorkerFiles,
    /// Create the Job.
    CreateJob(Box<Job>),
    /// Change a mutable field of the Job.
    PatchJob(JobPatch),
    /// Send workers the instant at which their load begins.
    SendStartTime(SendStartTime),
    /// Record the generation of a finished test's spec, and nothing else.
    RecordGeneration(i64),
    /// Delete the test, and with it everything it owns.
    DeleteTest,
}

impl Action {
    /// Changes a field of a Job.
    pub(super) fn patch_job(job: &JobStatus, field: JobField) -> Self {
        Self::PatchJob(JobPatch {
            uid: job.uid.clone(),
            field,
        })
    }

    /// Ends a Job, unless it ends already. The deadline of a suspended Job begins when it is resumed, and until then it must not
    /// create pods.
    pub(super) fn terminate(job: &JobStatus) -> Option<Self> {
        let has_deadline = job.deadline == Some(TERMINATE_NOW_SECONDS);
        let is_emptied = !job.suspended || job.parallelism == 0;
        let ends = job.outcome.is_some() || job.failing || has_deadline && is_emptied;
        let field = if job.suspended {
            JobField::EndWithoutPods
        } else {
            JobField::ActiveDeadline(TERMINATE_NOW_SECONDS)
        };
        (!ends).then(|| Self::patch_job(job, field))
    }

    /// Whether the action does nothing but end load. Such an action needs no record.
    #[must_use]
    pub fn ends_load(&self) -> bool {
        let terminate = JobField::ActiveDeadline(TERMINATE_NOW_SECONDS);
        matches!(self, Self::PatchJob(patch) if [terminate, JobField::EndWithoutPods].contains(&patch.field))
    }
}

/// A patch of a Job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPatch {
    /// The UID of the Job; no other Job of the name is patched.
    pub uid: String,
    /// The field and its new value.
    pub field: JobField,
}

/// A field of a Job that can change while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JobField {
    /// `activeDeadlineSeconds`: seconds the Job may run.
    ActiveDeadline(i64),
    /// `activeDeadlineSeconds` of a Job that is to end now, and `parallelism: 0`: a suspended Job creates no pods when it is resumed.
    EndWithoutPods,
    /// `ttlSecondsAfterFinished`: seconds from its end until it is deleted.
    Ttl(i32),
}

/// A start instant for workers.
#[derive(Clone, Debug, PartialEq)]
pub struct SendStartTime {
    /// The instant, in whole milliseconds.
    pub at: Timestamp,
    /// How often it has been sent, this time included.
    pub attempt: u8,
    /// The pods to send it to.
    pub pods: Vec<PodRef>,
}

/// A pod, by its name and UID.
#[derive(Clone, Debug, PartialEq)]
pub struct PodRef {
    /// The name.
    pub name: String,
    /// The UID; no other pod of the name is patched.
    pub uid: String,
}

/// The `activeDeadlineSeconds` of a Job that is to end now. Unlike a suspended Job it cannot be resumed, and unlike a deleted one
/// it can still be inspected.
pub const TERMINATE_NOW_SECONDS: i64 = 1;

/// Objects whose change is a reason to reconcile a test.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dependency {
    /// Any of these `ConfigMap`s in the test's namespace.
    ConfigMaps(Vec<String>),
    /// A Job in the test's namespace.
    Job(String),
}

/// An event to record.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// Whether it is a warning.
    pub warning: bool,
    /// The reason.
    pub reason: Reason,
    /// The message for people.
    pub message: String,
    /// Distinguishes events of one test with the same reason: the UID of a pod, or what is missing.
    pub dedup_key: String,
}

impl EventRecord {
    /// The event about a call that failed.
    #[must_use]
    pub fn of_failed_call(failed: &FailedCall) -> Self {
        Self::warning(Reason::RequestFailed, messages::request_failed(failed)).about(failed.what)
    }

    pub(super) fn normal(reason: Reason, message: String) -> Self {
        Self {
            warning: false,
            reason,
            message,
            dedup_key: String::new(),
        }
    }

    pub(super) fn warning(reason: Reason, message: String) -> Self {
        Self {
            warning: true,
            ..Self::normal(reason, message)
        }
    }

    pub(super) fn about(self, dedup_key: impl Into<String>) -> Self {
        Self {
            dedup_key: dedup_key.into(),
            ..self
        }
    }
}

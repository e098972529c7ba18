//! The state of a test's Job.

use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::jiff::Timestamp;
use loadtest_api::labels::DEADLINE_ANNOTATION;

use super::partial::owning_load_test;
use super::{PartialJob, clip};

/// The fields of a Job that decisions depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct JobStatus {
    /// The Job's UID.
    pub uid: String,
    /// The UID of the LoadTest of the Job's name that controls the Job, if one does.
    pub owner_uid: Option<String>,
    /// The creation time.
    pub created: Option<Timestamp>,
    /// The start time.
    pub started: Option<Timestamp>,
    /// The number of pods that are pending or running.
    pub active: i32,
    /// The number of workers that succeeded.
    pub succeeded: i32,
    /// The number of pods that failed or were stopped.
    pub failed: i32,
    /// Whether the Job is suspended.
    pub suspended: bool,
    /// How many pods the Job creates at most at a time.
    pub parallelism: i32,
    /// The `activeDeadlineSeconds` that the operator asked for.
    pub requested_deadline: Option<i64>,
    /// `activeDeadlineSeconds`.
    pub deadline: Option<i64>,
    /// `ttlSecondsAfterFinished`.
    pub ttl: Option<i32>,
    /// Whether the Job is deleted, and finalizers keep it.
    pub deleting: bool,
    /// Whether the Job has failed while some of its pods may still run.
    pub failing: bool,
    /// The outcome, once the Job has finished.
    pub outcome: Option<JobOutcome>,
}

/// The outcome of a Job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobOutcome {
    /// All workers succeeded.
    Complete {
        /// The completion time.
        at: Timestamp,
    },
    /// Not all workers succeeded.
    Failed {
        /// The completion time.
        at: Timestamp,
        /// The reason of the Job's condition, such as `BackoffLimitExceeded`.
        reason: String,
        /// The message of the Job's condition.
        message: String,
    },
}

impl JobStatus {
    /// Reads a Job. Only the conditions `Complete` and `Failed` with the status True finish a Job. `SuccessCriteriaMet`
    /// and `FailureTarget` are set while pods still run (Kubernetes, `pkg/controller/job`).
    #[must_use]
    pub fn from_job(job: &PartialJob) -> Self {
        let status = &job.status;
        let condition = |type_: &str| {
            status
                .conditions
                .iter()
                .flatten()
                .find(|c| c.type_ == type_ && c.status == "True")
        };
        let at = |c: &JobCondition| {
            let time = status
                .completion_time
                .as_ref()
                .or(c.last_transition_time.as_ref());
            time.map_or(Timestamp::UNIX_EPOCH, |t| t.0)
        };
        let outcome = if let Some(c) = condition("Complete") {
            Some(JobOutcome::Complete { at: at(c) })
        } else {
            condition("Failed").map(|c| JobOutcome::Failed {
                at: at(c),
                reason: clip::reason(c.reason.as_deref().unwrap_or_default()),
                message: clip::message(c.message.as_deref().unwrap_or_default()),
            })
        };
        let annotations = job.metadata.annotations.as_ref();
        let annotation = annotations.and_then(|a| a.get(DEADLINE_ANNOTATION));
        Self {
            uid: job.metadata.uid.clone().unwrap_or_default(),
            owner_uid: owning_load_test(&job.metadata).map(|o| o.uid.clone()),
            created: job.metadata.creation_timestamp.as_ref().map(|t| t.0),
            started: status.start_time.as_ref().map(|t| t.0),
            active: status.active.unwrap_or_default(),
            succeeded: status.succeeded.unwrap_or_default(),
            failed: status.failed.unwrap_or_default(),
            suspended: job.spec.suspend.unwrap_or_default(),
            parallelism: job.spec.parallelism.unwrap_or(1),
            requested_deadline: annotation.and_then(|seconds| seconds.parse().ok()),
            deadline: job.spec.active_deadline_seconds,
            ttl: job.spec.ttl_seconds_after_finished,
            deleting: job.metadata.deletion_timestamp.is_some(),
            failing: condition("FailureTarget").is_some(),
            outcome,
        }
    }
}

//! The Job of a test, as far as it is read and decided on.

use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::jiff::Timestamp;

use super::{PartialJob, controller_owner};

/// The Job of a test, as far as decisions need it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobStatus {
    /// The Job's UID.
    pub uid: String,
    /// The UID of the object that controls it, if any does.
    pub owner_uid: Option<String>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// Its pods that are pending or running.
    pub active: i32,
    /// Its workers that succeeded.
    pub succeeded: i32,
    /// Its pods that failed or were stopped.
    pub failed: i32,
    /// Whether it is held.
    pub suspended: bool,
    /// The seconds that it may run.
    pub deadline: Option<i64>,
    /// The seconds after its end until it is deleted.
    pub ttl: Option<i32>,
    /// Whether it has failed, even if pods of it still run.
    pub failing: bool,
    /// How it ended, once it has.
    pub outcome: Option<JobOutcome>,
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum JobOutcome {
    /// All workers succeeded.
    Complete {
        /// When.
        at: Timestamp,
    },
    /// Not all workers succeeded.
    Failed {
        /// When.
        at: Timestamp,
        /// The reason of the Job's condition, such as `BackoffLimitExceeded`.
        reason: String,
        /// The message of the Job's condition.
        message: String,
    },
}

impl JobStatus {
    /// Reads a Job. A condition counts only where its status is True, and only `Complete` and `Failed` end a Job:
    /// `SuccessCriteriaMet` and `FailureTarget` come while pods still run (Kubernetes, `pkg/controller/job`).
    #[must_use]
    pub fn from_job(job: &PartialJob) -> Self {
        let status = &job.status;
        let ended = |type_: &str| {
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
        let outcome = if let Some(c) = ended("Complete") {
            Some(JobOutcome::Complete { at: at(c) })
        } else {
            ended("Failed").map(|c| JobOutcome::Failed {
                at: at(c),
                reason: c.reason.clone().unwrap_or_default(),
                message: c.message.clone().unwrap_or_default(),
            })
        };
        Self {
            uid: job.metadata.uid.clone().unwrap_or_default(),
            owner_uid: controller_owner(&job.metadata).map(|o| o.uid.clone()),
            started: status.start_time.as_ref().map(|t| t.0),
            active: status.active.unwrap_or_default(),
            succeeded: status.succeeded.unwrap_or_default(),
            failed: status.failed.unwrap_or_default(),
            suspended: job.spec.suspend.unwrap_or_default(),
            deadline: job.spec.active_deadline_seconds,
            ttl: job.spec.ttl_seconds_after_finished,
            failing: ended("FailureTarget").is_some(),
            outcome,
        }
    }
}

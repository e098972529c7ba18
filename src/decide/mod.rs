//! What to do about a test. Pure: no client, no clock. [`decide`] is the whole behavior of the operator.
//!
//! A test goes `Pending | Suspended -> Starting -> Running -> Completed | Failed | Stopped`, through `Stopping` where it is ended
//! early, and never back to one of the first two once its workers may have started. `Starting` is recorded before the Job is
//! created, so a test without it never had a Job, and a test with it never gets a second one by mistake.
//!
//! Start with [`decide`]; [`messages`] holds every sentence that users read.

mod clean_up;
mod coordinated_start;
mod delivery;
mod finished;
mod live;
mod log_line;
mod messages;
mod pending;
mod plan;
mod progress;
mod readiness;
mod running;
mod script;
mod set_aside;
mod verdict;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::conditions::{ConditionUpdate, set_conditions};
use loadtest_api::duration;
use loadtest_api::v1alpha1::{ConditionType, LoadTest, LoadTestStatus, Phase, Reason};

use crate::build;
use crate::config::WorkerConfig;
use crate::state::{JobState, LiveResults, Observed};
use readiness::insert_readiness;

pub use plan::{
    Action, Dependency, EventRecord, JobField, JobPatch, Plan, PodRef, SendStartTime,
    TERMINATE_NOW_SECONDS,
};
pub use running::{MAX_WORKER_EVENTS, STATUS_REFRESH_INTERVAL, object_to_explain};
pub use script::{ScriptProblem, judge_script};
pub use set_aside::{SetAsideCause, set_aside};

/// Decides what to do about a test.
#[must_use]
pub fn decide(test: &LoadTest, observed: &Observed, config: &WorkerConfig, now: Timestamp) -> Plan {
    let decision = Decision {
        test,
        current: test.status.clone().unwrap_or_default(),
        failed_events: observed.failed_events.as_deref(),
        live: observed.live.as_deref(),
        config,
        now,
    };
    if test.metadata.deletion_timestamp.is_some() {
        return Decision::deleted(observed);
    }
    if test.is_finished() {
        return decision.clean_up(observed);
    }
    match &observed.job {
        JobState::Absent | JobState::NotOwned | JobState::Rejected(_) => {
            decision.without_job(observed)
        }
        JobState::Unknown => decision.with_unknown_job(observed),
        JobState::Owned(job) => match &job.outcome {
            None if job.deleting => decision.job_deleted(Some(job), &observed.workers),
            None => decision.with_running_job(job, observed),
            Some(outcome) => decision.job_finished(job, outcome, &observed.workers),
        },
        JobState::Deleted(Some(job)) if let Some(outcome) = &job.outcome => {
            decision.job_finished(job, outcome, &observed.workers)
        }
        JobState::Deleted(job) => decision.job_deleted(job.as_ref(), &observed.workers),
    }
}

/// What every branch of a decision needs.
struct Decision<'a> {
    test: &'a LoadTest,
    current: LoadTestStatus,
    /// What the running workers reported, if they were read.
    live: Option<&'a LiveResults>,
    /// Why events of this decision could not be recorded.
    failed_events: Option<&'a str>,
    config: &'a WorkerConfig,
    now: Timestamp,
}

/// The condition Progressing as it is recorded.
struct Recorded<'a> {
    since: Timestamp,
    reason: Reason,
    message: &'a str,
}

impl Decision<'_> {
    fn status(&self, phase: Phase, conditions: Vec<ConditionUpdate>) -> LoadTestStatus {
        LoadTestStatus {
            observed_generation: self.test.metadata.generation,
            phase: Some(phase),
            conditions: self.conditions(conditions),
            completions: Some(format!(
                "{}/{}",
                self.current.succeeded, self.test.spec.count
            )),
            image: self
                .current
                .image
                .clone()
                .or_else(|| Some(build::image(self.test, self.config))),
            ..self.current.clone()
        }
    }

    fn conditions(&self, mut updates: Vec<ConditionUpdate>) -> Vec<Condition> {
        insert_readiness(&mut updates);
        if let Some(error) = self.failed_events {
            let recorded = self.current.condition(ConditionType::EventsRecorded);
            // The first error stays: the text of later ones may differ each time.
            let message = recorded.map_or_else(
                || messages::events_not_recorded(error),
                |c| c.message.clone(),
            );
            updates.push(ConditionUpdate::new(
                ConditionType::EventsRecorded,
                Some(false),
                Reason::RequestFailed,
                message,
            ));
        }
        set_conditions(
            &self.current.conditions,
            updates,
            self.test.metadata.generation,
            self.now,
        )
    }

    /// The condition Progressing, if it is recorded with this status.
    fn recorded_progress(&self, status: &str) -> Option<Recorded<'_>> {
        let condition = self.current.progressing().filter(|c| c.status == status)?;
        Some(Recorded {
            since: condition.last_transition_time.0,
            reason: Reason::parse(&condition.reason)?,
            message: &condition.message,
        })
    }

    /// The message about a call that failed: in this reconcile, or in an earlier one, where it is about to be repeated.
    fn failed_call(&self, observed: &Observed, phase: Phase, retries: bool) -> Option<String> {
        if let Some(failed) = &observed.failed_call {
            return Some(messages::request_failed(failed));
        }
        let recorded = self.current.progressing().filter(|c| {
            c.reason == Reason::RequestFailed.as_str() && self.current.phase == Some(phase)
        });
        recorded.filter(|_| retries).map(|c| c.message.clone())
    }

    /// Why a test is being stopped, as recorded. Older versions recorded it in the condition alone.
    fn stop_cause(&self) -> Option<(Reason, &str)> {
        let current = &self.current;
        let condition = current
            .progressing()
            .filter(|_| current.phase == Some(Phase::Stopping))?;
        let (reason, message) = match &current.stop_cause {
            Some(cause) => (&cause.reason, &cause.message),
            None => (&condition.reason, &condition.message),
        };
        Some((Reason::parse(reason)?, message))
    }

    /// How long the script's phases take, as recorded.
    fn expected_duration(&self) -> Option<SignedDuration> {
        let recorded = self.current.expected_duration.as_deref();
        recorded.and_then(duration::parse)
    }

    fn start_deadline(&self) -> SignedDuration {
        SignedDuration::from_secs(self.test.spec.start_deadline_seconds.max(1))
    }

    fn if_changed(&self, status: LoadTestStatus) -> Option<LoadTestStatus> {
        (status != self.current).then_some(status)
    }

    /// The number of workers.
    fn count(&self) -> usize {
        usize::try_from(self.test.spec.count).unwrap_or_default()
    }
}

/// The conditions of a test that has not finished.
fn progressing_conditions(
    progressing: Option<bool>,
    reason: Reason,
    message: impl Into<String>,
) -> Vec<ConditionUpdate> {
    let in_progress = |type_| {
        ConditionUpdate::new(
            type_,
            Some(false),
            Reason::InProgress,
            messages::IN_PROGRESS,
        )
    };
    vec![
        ConditionUpdate::new(ConditionType::Progressing, progressing, reason, message),
        in_progress(ConditionType::Completed),
        in_progress(ConditionType::Failed),
    ]
}

/// How a test ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum FinalPhase {
    Completed,
    Failed,
    Stopped,
}

impl FinalPhase {
    fn phase(self) -> Phase {
        match self {
            Self::Completed => Phase::Completed,
            Self::Failed => Phase::Failed,
            Self::Stopped => Phase::Stopped,
        }
    }

    /// The end that a recorded phase is.
    fn of(phase: Phase) -> Option<Self> {
        [Self::Completed, Self::Failed, Self::Stopped]
            .into_iter()
            .find(|end| end.phase() == phase)
    }

    /// The condition that is True after this end.
    fn condition_type(self) -> ConditionType {
        match self {
            Self::Completed => ConditionType::Completed,
            Self::Failed => ConditionType::Failed,
            Self::Stopped => ConditionType::Stopped,
        }
    }

    fn conditions(self, reason: Reason, message: &str) -> Vec<ConditionUpdate> {
        let own = self.condition_type();
        let mut types = vec![
            ConditionType::Progressing,
            ConditionType::Completed,
            ConditionType::Failed,
        ];
        if self == Self::Stopped {
            types.push(own);
        }
        types
            .into_iter()
            .map(|type_| ConditionUpdate::new(type_, Some(type_ == own), reason, message))
            .collect()
    }

    fn event(self, message: &str) -> EventRecord {
        let phase = self.phase();
        let text = messages::finished_event(phase.as_str(), message);
        match self {
            Self::Completed => EventRecord::normal(Reason::Completed, text),
            Self::Stopped => EventRecord::normal(Reason::Stopped, text),
            Self::Failed => EventRecord::warning(Reason::Failed, text),
        }
    }
}

fn saturating_add(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod model_check;
#[cfg(test)]
mod tests;

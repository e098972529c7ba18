//! The lifecycle of a LoadTest, as its own spec and status show it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::{ConditionType, LoadTest, LoadTestStatus, Phase, Reason};

/// What the status of a test proves about its Job when no Job of its name exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobRecord {
    /// The Job existed.
    Existed,
    /// The Job may have been created and deleted since the status was written. Only the API server's watch history can answer.
    Unclear,
    /// The Job was never created.
    NeverExisted,
}

impl LoadTest {
    /// The phase, if the operator has written one. A test whose conditions record its end has ended, also where a backup or an
    /// older version left the phase out.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        let status = self.status.as_ref()?;
        let ended = |(type_, phase): (ConditionType, Phase)| {
            let condition = status.condition(type_)?;
            (condition.status == "True").then_some(phase)
        };
        status.phase.or_else(|| {
            [
                (ConditionType::Completed, Phase::Completed),
                (ConditionType::Failed, Phase::Failed),
                (ConditionType::Stopped, Phase::Stopped),
            ]
            .into_iter()
            .find_map(ended)
        })
    }

    /// How long ago the test was created.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Duration {
        let created = self.metadata.creation_timestamp.as_ref();
        created
            .and_then(|c| Duration::try_from(now.duration_since(c.0)).ok())
            .unwrap_or_default()
    }

    /// Whether the test has ended or is being deleted. Nothing is reported about such a test.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.metadata.deletion_timestamp.is_some() || self.phase().is_some_and(Phase::is_terminal)
    }

    /// Whether the script does not matter: the test is finished, stopping or suspended.
    #[must_use]
    pub fn needs_no_script(&self) -> bool {
        self.is_finished() || self.spec.stop == Some(true) || self.spec.suspend == Some(true)
    }

    /// What the status proves about the test's Job, for a Job that does not exist.
    #[must_use]
    pub fn recorded_job(&self) -> JobRecord {
        let started = self.status.as_ref().is_some_and(|s| s.start_time.is_some());
        match self.phase() {
            Some(Phase::Running | Phase::Stopping) => JobRecord::Existed,
            Some(Phase::Starting | Phase::Suspended) if started => JobRecord::Existed,
            Some(Phase::Starting) => JobRecord::Unclear,
            _ => JobRecord::NeverExisted,
        }
    }

    /// Whether the status records that this generation of the test is set aside.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        let recorded = self.status.as_ref().and_then(LoadTestStatus::progressing);
        recorded.is_some_and(|c| {
            c.reason == Reason::SetAside.as_str()
                && c.observed_generation == self.metadata.generation
        })
    }

    /// Whether the status records that events of the test are missing.
    #[must_use]
    pub fn misses_events(&self) -> bool {
        let recorded = |s: &LoadTestStatus| s.condition(ConditionType::EventsRecorded).is_some();
        self.status.as_ref().is_some_and(recorded)
    }

    /// Whether the API server rejected the last attempt to create the Job. Such a test never had one.
    #[must_use]
    pub fn last_create_was_rejected(&self) -> bool {
        self.is_pending_for(Reason::JobRejected)
    }

    /// Whether the test is recorded as pending for this reason.
    #[must_use]
    pub fn is_pending_for(&self, reason: Reason) -> bool {
        let pending = self
            .status
            .as_ref()
            .filter(|s| s.phase == Some(Phase::Pending));
        pending
            .and_then(LoadTestStatus::progressing)
            .is_some_and(|c| c.reason == reason.as_str())
    }
}

impl LoadTestStatus {
    /// The condition Progressing.
    #[must_use]
    pub fn progressing(&self) -> Option<&Condition> {
        self.condition(ConditionType::Progressing)
    }

    /// A condition, if it is set.
    #[must_use]
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == type_.as_str())
    }
}

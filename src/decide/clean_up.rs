//! What tests that have ended, or are deleted, still need.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::conditions::ConditionUpdate;
use loadtest_api::v1alpha1::{ConditionType, LoadTestStatus, Phase, Reason};

use super::running::SIDECAR_GRACE_PERIOD;
use super::verdict::{load_event, verdict_event};
use super::{Action, Decision, EventRecord, FinalPhase, JobField, Plan, saturating_add};
use crate::state::{JobState, Observed, WorkerStatus};

/// How long after its end missing events of a test are recorded.
const FINAL_EVENT_PERIOD: SignedDuration = SignedDuration::from_mins(10);

impl Decision<'_> {
    /// What a finished test still needs: its Job must not run on, and both are deleted when their time to live is over.
    pub(super) fn clean_up(&self, observed: &Observed) -> Plan {
        let mut plan = self.remaining_change(observed);
        if plan.action.is_none()
            && self.current.observed_generation != self.test.metadata.generation
        {
            // A field that matters after the end was edited. Everything else stays as it was recorded.
            plan.action = self.test.metadata.generation.map(Action::RecordGeneration);
        }
        if self.test.misses_events() && self.now < self.final_event_deadline() {
            let events = self.final_events(&observed.workers);
            let status = LoadTestStatus {
                conditions: self.with_events_recorded(),
                ..self.current.clone()
            };
            plan = Plan {
                events,
                status: self.if_changed(status),
                back_off: self.failed_events.is_some(),
                ..plan
            };
        }
        if let Some(failed) = &observed.failed_call {
            plan.events.push(EventRecord::of_failed_call(failed));
        }
        plan
    }

    /// The test is deleted, and finalizers may keep it, or its Job. It sends no more load.
    pub(super) fn deleted(observed: &Observed) -> Plan {
        let action = match &observed.job {
            JobState::Owned(job) => Action::terminate(job),
            _ => None,
        };
        let failed = observed.failed_call.as_ref();
        Plan {
            events: failed
                .map(EventRecord::of_failed_call)
                .into_iter()
                .collect(),
            action,
            ..Plan::default()
        }
    }

    fn remaining_change(&self, observed: &Observed) -> Plan {
        let (job, workers) = (&observed.job, &observed.workers);
        let owned = match job {
            JobState::Owned(job) => Some(job),
            _ => None,
        };
        // A creation that was in flight when the test ended, or a Job that was suspended: it must not send load later.
        if let Some(terminate) = owned.and_then(Action::terminate) {
            let completed = self.current.phase == Some(Phase::Completed);
            let in_grace = |w: &Arc<WorkerStatus>| w.pod_outlives_worker && !self.outlives_grace(w);
            if completed && workers.iter().any(in_grace) {
                return Plan {
                    requeue_at: Some(saturating_add(self.now, SIDECAR_GRACE_PERIOD)),
                    ..Plan::default()
                };
            }
            if !completed || workers.iter().any(|w| self.outlives_grace(w)) {
                return Plan {
                    action: Some(terminate),
                    ..Plan::default()
                };
            }
        }
        let spec = &self.test.spec;
        let job_ttl = spec
            .job_ttl_seconds_after_finished
            .or(spec.ttl_seconds_after_finished);
        let ended = owned.filter(|job| job.outcome.is_some());
        let set_ttl = ended
            .zip(job_ttl)
            .filter(|(job, ttl)| job.ttl != Some(*ttl))
            .map(|(job, ttl)| Action::patch_job(job, JobField::Ttl(ttl)));
        let Some(ttl) = spec.ttl_seconds_after_finished else {
            return Plan {
                action: set_ttl,
                ..Plan::default()
            };
        };
        let completion = self.current.completion_time.as_ref();
        let due = saturating_add(
            completion.map_or(self.now, |t| t.0),
            SignedDuration::from_secs(i64::from(ttl)),
        );
        if due <= self.now {
            return Plan {
                action: Some(Action::DeleteTest),
                ..Plan::default()
            };
        }
        Plan {
            action: set_ttl,
            requeue_at: Some(due),
            ..Plan::default()
        }
    }

    /// Until when missing events of a finished test are recorded.
    fn final_event_deadline(&self) -> Timestamp {
        let failed_since = self.current.condition(ConditionType::EventsRecorded);
        let since = [
            self.current.completion_time.as_ref().map(|t| t.0),
            failed_since.map(|c| c.last_transition_time.0),
        ];
        let since = since.into_iter().flatten().max();
        saturating_add(since.unwrap_or(Timestamp::MIN), FINAL_EVENT_PERIOD)
    }

    /// The conditions once all events are recorded; those of now, if one cannot be.
    fn with_events_recorded(&self) -> Vec<Condition> {
        let recorded = |c: &&Condition| {
            self.failed_events.is_some() || c.type_ != ConditionType::EventsRecorded.as_str()
        };
        let conditions = self.current.conditions.iter();
        conditions.filter(recorded).cloned().collect()
    }

    /// The events about the start of a test, as far as its workers are known, and about its end and verdict, as its status
    /// records them.
    fn final_events(&self, workers: &[Arc<WorkerStatus>]) -> Vec<EventRecord> {
        let end = self.current.phase.and_then(FinalPhase::of).and_then(|end| {
            let condition = self.current.condition(end.condition_type())?;
            Some(end.event(&condition.message))
        });
        let recorded = |type_: ConditionType| {
            let condition = self.current.condition(type_)?;
            let status = match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            };
            let reason = Reason::parse(&condition.reason)?;
            let message = condition.message.clone();
            Some(ConditionUpdate::new(type_, status, reason, message))
        };
        let load = recorded(ConditionType::LoadDelivered).and_then(|load| load_event(&load));
        let verdict = recorded(ConditionType::Passed)
            .and_then(|passed| verdict_event(&self.current, &passed));
        let mut events = match &self.current.start_time {
            Some(_) => self.start_events(workers),
            None => Vec::new(),
        };
        events.extend(end.into_iter().chain(load).chain(verdict));
        events
    }
}

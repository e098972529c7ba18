//! Tests that have no Job yet: what blocks them, and how they start.

use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;
use loadtest_api::duration;
use loadtest_api::v1alpha1::{Phase, Reason, Threshold};
use loadtest_results::thresholds::MAX_THRESHOLDS;
use loadtest_script::ScriptInfo;

use super::script::{ScriptProblem, judge_script};
use super::{
    Action, Decision, Dependency, EventRecord, FinalPhase, Plan, messages, progressing_conditions,
    saturating_add,
};
use crate::build;
use crate::state::abridged::is_abridged;
use crate::state::{FailedCall, JobState, Observed, WorkerFiles};

/// How long a blocked test waits before it is reconciled again by itself. It is triggered by what it waits for, so this only bounds
/// the effect of a fault; thousands of tests may wait.
const RESYNC_INTERVAL: SignedDuration = SignedDuration::from_secs(300);

impl Decision<'_> {
    /// No Job exists that the test owns.
    pub(super) fn without_job(&self, observed: &Observed) -> Plan {
        let name = self.test.name_any();
        if self.test.spec.stop == Some(true) {
            return self.finish_without_job(
                FinalPhase::Stopped,
                Reason::Stopped,
                messages::STOPPED_BEFORE_START,
            );
        }
        if self.test.spec.suspend == Some(true) {
            return self.suspended(messages::suspended_by_spec(&name), None);
        }
        let no_watch = |reason, message| ScriptProblem {
            reason,
            message,
            watch: None,
        };
        if !observed.missing_fields.is_empty() {
            let message = messages::crd_outdated(&observed.missing_fields);
            return self.blocked(no_watch(Reason::CrdOutdated, message));
        }
        if let Some(failed) = &observed.failed_call {
            return self.blocked_by_failed_call(failed);
        }
        // Reading the whole test failed, and the failure is reported elsewhere.
        if is_abridged(self.test) {
            return Plan::default();
        }
        match &observed.job {
            JobState::NotOwned => self.blocked(ScriptProblem {
                watch: Some(Dependency::Job(name.clone())),
                ..no_watch(Reason::NameConflict, messages::name_conflict(&name))
            }),
            JobState::Rejected(error) => {
                let message = messages::job_rejected(error);
                with_back_off(self.blocked(no_watch(Reason::JobRejected, message)))
            }
            _ => match judge_script(self.test, self.config, &observed.script) {
                Err(problem) => self.blocked(problem),
                Ok(script) => match observed.worker_files {
                    WorkerFiles::Unknown => Plan {
                        action: Some(Action::CreateWorkerFiles),
                        requeue_at: Some(self.now),
                        ..Plan::default()
                    },
                    WorkerFiles::Foreign => self.blocked(self.foreign_worker_files()),
                    WorkerFiles::Verified => self.start(&script),
                },
            },
        }
    }

    /// Somebody else's files would run in the workers.
    fn foreign_worker_files(&self) -> ScriptProblem {
        let namespace = self.test.namespace().unwrap_or_default();
        let name = build::config_map_name();
        ScriptProblem {
            reason: Reason::NameConflict,
            message: messages::foreign_worker_files(&namespace, &name),
            watch: Some(Dependency::ConfigMaps(vec![name])),
        }
    }

    /// The Job cannot be read, and may exist.
    pub(super) fn with_unknown_job(&self, observed: &Observed) -> Plan {
        let has_run = matches!(self.current.phase, Some(Phase::Running | Phase::Stopping));
        match &observed.failed_call {
            Some(_) if self.test.spec.stop == Some(true) && !has_run => self.finish_without_job(
                FinalPhase::Stopped,
                Reason::Stopped,
                messages::STOPPED_BEFORE_START,
            ),
            Some(failed) if !has_run => self.blocked_by_failed_call(failed),
            Some(failed) => self.with_failed_call(failed),
            None => Plan::default(),
        }
    }

    /// A call fails that the start needs. The time until it succeeds is limited, like any other wait for a prerequisite.
    fn blocked_by_failed_call(&self, failed: &FailedCall) -> Plan {
        let problem = ScriptProblem {
            reason: Reason::RequestFailed,
            message: messages::request_failed(failed),
            watch: None,
        };
        // The text of the error may differ with each attempt.
        with_back_off(self.blocked_about(problem, failed.what.to_owned()))
    }

    /// A test whose state is unclear until the call succeeds. Nothing but the failure is recorded.
    fn with_failed_call(&self, failed: &FailedCall) -> Plan {
        let phase = self.current.phase.unwrap_or(Phase::Starting);
        let message = messages::request_failed(failed);
        let conditions = progressing_conditions(Some(true), Reason::RequestFailed, message);
        Plan {
            events: vec![EventRecord::of_failed_call(failed)],
            status: self.if_changed(self.status(phase, conditions)),
            back_off: true,
            ..Plan::default()
        }
    }

    /// The test is suspended by its spec, or its Job is, which has this name then.
    pub(super) fn suspended(&self, message: String, job: Option<String>) -> Plan {
        let mut status = self.status(
            Phase::Suspended,
            progressing_conditions(None, Reason::Suspended, message),
        );
        status.job = job;
        Plan {
            status: self.if_changed(status),
            ..Plan::default()
        }
    }

    fn start(&self, script: &ScriptInfo) -> Plan {
        let conditions = match self.recorded_progress("False") {
            // A retry: what the test waits for, and since when, stays recorded until the Job exists.
            Some(recorded)
                if matches!(recorded.reason, Reason::JobRejected | Reason::RequestFailed) =>
            {
                progressing_conditions(Some(false), recorded.reason, recorded.message)
            }
            _ => progressing_conditions(
                Some(true),
                Reason::Starting,
                messages::waiting_for_workers(self.test.spec.count, &self.test.name_any()),
            ),
        };
        let mut status = self.status(Phase::Starting, conditions);
        status.job = Some(self.test.name_any());
        status.expected_duration = script.expected_duration.map(duration::format);
        let thresholds = self.thresholds(script);
        status.thresholds =
            (!thresholds.is_empty() || status.thresholds.is_some()).then_some(thresholds);
        let job = build::build_job(self.test, self.config, script);
        let warning = |warning: &String| {
            EventRecord::warning(Reason::ScriptWarning, warning.clone()).about(warning.clone())
        };
        Plan {
            events: script.warnings.iter().map(warning).collect(),
            // Written even where nothing changes: the write fails if the test was observed too late.
            status: Some(status),
            action: Some(Action::CreateJob(Box::new(job))),
            ..Plan::default()
        }
    }

    /// The thresholds as they are at the start, whatever becomes of the script later.
    fn thresholds(&self, script: &ScriptInfo) -> Vec<Threshold> {
        let own = self.test.spec.thresholds.iter().map(Threshold::strict);
        let all = script.ensure.iter().flatten().cloned().chain(own);
        // One more than are evaluated, so that an excess is noticed.
        all.take(MAX_THRESHOLDS + 1).collect()
    }

    /// Something keeps the test from starting.
    fn blocked(&self, problem: ScriptProblem) -> Plan {
        let about = problem.message.clone();
        self.blocked_about(problem, about)
    }

    /// The same, with an event that is recorded once for each `dedup_key`.
    fn blocked_about(&self, problem: ScriptProblem, dedup_key: String) -> Plan {
        let ScriptProblem {
            reason,
            message,
            watch,
        } = problem;
        let since = self
            .recorded_progress("False")
            .map_or(self.now, |recorded| recorded.since);
        let deadline = saturating_add(since, self.start_deadline());
        if deadline <= self.now {
            let seconds = self.test.spec.start_deadline_seconds;
            return self.finish_without_job(
                FinalPhase::Failed,
                reason,
                &messages::start_deadline_exceeded(seconds, &message),
            );
        }
        let event = EventRecord::warning(reason, message.clone()).about(dedup_key);
        // What is recorded about the Job must stay: it may exist, created by the call that failed or held by a queue.
        let phase = match self.current.phase {
            Some(phase)
                if reason == Reason::RequestFailed
                    && (phase == Phase::Starting || self.current.job.is_some()) =>
            {
                phase
            }
            _ => Phase::Pending,
        };
        let mut status = self.status(phase, progressing_conditions(Some(false), reason, message));
        if phase == Phase::Pending {
            status.job = None;
        }
        Plan {
            events: vec![event],
            status: self.if_changed(status),
            watch,
            requeue_at: Some(deadline.min(saturating_add(self.now, RESYNC_INTERVAL))),
            ..Plan::default()
        }
    }
}

/// The same attempt is repeated with a growing delay, unless the test ends.
fn with_back_off(plan: Plan) -> Plan {
    Plan {
        back_off: plan.requeue_at.is_some(),
        ..plan
    }
}

//! Tests that have not started: what they wait for, and their start.

use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

use super::{Change, Ending, Observed, Plan, Say, Scene, Script, SeenJob, WaitFor, later, workers};
use crate::api::v1alpha1::{Phase, Reason, Threshold};
use crate::duration;
use crate::job::job;
use crate::script::Found;
use crate::verdict::{MOST_RULES, Rule};

/// How long a test waits to be woken before it looks again by itself: what woke it may have come too early.
const SAFETY_LOOK: SignedDuration = SignedDuration::from_secs(30);

impl Scene<'_> {
    /// There is no Job that is the test's.
    pub(super) fn without_job(&self, seen: &Observed) -> Plan {
        let name = self.test.name_any();
        if self.test.spec.stop == Some(true) {
            return self.end_now(
                Ending::Stopped,
                Reason::Stopped,
                "it was stopped before it started",
            );
        }
        if self.test.spec.suspend == Some(true) {
            let message = format!(
                "held by its own spec: to start it, set spec.suspend to false (kubectl edit loadtest {name})"
            );
            return self.suspended(message);
        }
        match &seen.job {
            SeenJob::Foreign => self.blocked(
                Reason::NameConflict,
                format!(
                    "there is a Job {name} that this test does not own: delete it (kubectl delete job {name}), or use another name"
                ),
                Some(WaitFor::Job(name)),
            ),
            SeenJob::Refused(why) => self.blocked(Reason::JobRefused, format!("the Job was refused: {why}"), None),
            _ => self.with_script(&seen.script),
        }
    }

    pub(super) fn suspended(&self, message: String) -> Plan {
        let status = self.status(
            Phase::Suspended,
            Self::progressing(None, Reason::Suspended, message),
        );
        Plan {
            status: self.if_changed(status),
            ..Plan::default()
        }
    }

    fn with_script(&self, script: &Script) -> Plan {
        let (namespace, own) = (
            self.test.namespace().unwrap_or_default(),
            &self.test.spec.test_script,
        );
        let script = match script {
            Script::Found(script) => script.clone(),
            Script::Unknown => Found::default(),
            Script::NoConfigMap(name) => {
                let message = if own.config_map() == Some(name) {
                    let key = own.file();
                    format!(
                        "there is no ConfigMap {name} in the namespace {namespace}: create it, with the test script under the key {key}"
                    )
                } else {
                    format!(
                        "there is no ConfigMap {name} in the namespace {namespace}, which testScript.external names: create it"
                    )
                };
                return self.blocked(
                    Reason::MissingTestScript,
                    message,
                    Some(WaitFor::ConfigMap(name.clone())),
                );
            }
            Script::NoKey {
                config_map: name,
                keys,
            } => {
                let (key, keys) = (
                    own.file(),
                    if keys.is_empty() {
                        "none".to_owned()
                    } else {
                        keys.join(", ")
                    },
                );
                let message = format!(
                    "the ConfigMap {name} has no key {key} (it has: {keys}): add the test script under this key"
                );
                return self.blocked(
                    Reason::MissingTestScript,
                    message,
                    Some(WaitFor::ConfigMap(name.clone())),
                );
            }
            Script::Faulty { fault, config_map } => {
                let wait_for = config_map.clone().map(WaitFor::ConfigMap);
                return self.blocked(Reason::InvalidTestScript, fault.clone(), wait_for);
            }
        };
        let wanted = if let Some((_, Reason::JobRefused, message)) = self.progress_so_far("False") {
            // Tried again: what it waits for, and since when, stays as it is until the Job is there.
            Self::progressing(Some(false), Reason::JobRefused, message.to_owned())
        } else {
            let message = format!(
                "starting {} in the Job {}",
                workers(self.test.spec.count),
                self.test.name_any()
            );
            Self::progressing(Some(true), Reason::Starting, message)
        };
        let mut status = self.status(Phase::Starting, wanted);
        status.expected_duration = script.expected_duration.map(duration::format);
        let thresholds = self.thresholds(&script);
        status.thresholds =
            (!thresholds.is_empty() || status.thresholds.is_some()).then_some(thresholds);
        Plan {
            // Written even where nothing changes: that it can be written proves that the test was not seen too late.
            status: Some(status),
            change: Some(Change::CreateJob(Box::new(job(
                self.test,
                self.settings,
                &script,
            )))),
            ..Plan::default()
        }
    }

    /// What has to hold for the test to pass: as it is when the test starts, whatever becomes of the script then.
    fn thresholds(&self, script: &Found) -> Vec<Threshold> {
        let own = self.test.spec.thresholds.iter().map(Rule::strict);
        let all = script.ensure.iter().flatten().cloned().chain(own);
        // One more than are judged, so that there are seen to be too many.
        all.take(MOST_RULES + 1).map(Threshold::from).collect()
    }

    /// Something keeps the test from starting.
    fn blocked(&self, reason: Reason, message: String, wait_for: Option<WaitFor>) -> Plan {
        let since = self
            .progress_so_far("False")
            .map_or(self.now, |(since, ..)| since);
        let deadline = later(since, self.start_deadline());
        if deadline <= self.now {
            let seconds = self.test.spec.start_deadline_seconds;
            return self.end_now(
                Ending::Failed,
                reason,
                &format!("it could not start within {seconds} s: {message}"),
            );
        }
        let status = self.status(
            Phase::Pending,
            Self::progressing(Some(false), reason, message.clone()),
        );
        Plan {
            events: vec![Say {
                about: message.clone(),
                ..Say::warning(reason, message)
            }],
            status: self.if_changed(status),
            wait_for,
            look_again: Some(deadline.min(later(self.now, SAFETY_LOOK))),
            ..Plan::default()
        }
    }
}

//! Runs in which a call never succeeds.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::invariants::{Violation, created};
use crate::permanent::{Course, Permanent, TOLERANCE};
use crate::plan::Scenario;
use crate::run::{Execution, NAME};
use crate::supervisor::SupervisedOperator;
use crate::support::pods::{self, now};
use crate::third_party;
use crate::view::View;

/// How often the state of the run is examined.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long the workers run before the test is stopped, where no failure is reported.
const RUN_TIME: Duration = Duration::from_secs(1);

/// What the run has done so far.
#[derive(Default)]
struct Done {
    script: bool,
    started: BTreeSet<String>,
    ended: BTreeSet<String>,
    running_since: Option<Instant>,
    stopped_at: Option<Duration>,
}

impl Execution<'_> {
    /// Plays a test until everything has happened that must, or until the limit. Returns when it was stopped.
    pub(crate) async fn play_permanent(
        &mut self,
        permanent: &Permanent,
        operator: &SupervisedOperator,
    ) -> Option<Duration> {
        let watches = [("watch", "loadtests"), ("watch", "jobs"), ("watch", "pods")];
        self.proxy
            .until_requested(&watches, self.timings.heal)
            .await;
        let mut done = Done::default();
        if self.run.scenario != Scenario::Waits {
            self.create_script().await;
            done.script = true;
        }
        let mut fields = json!({"startDeadlineSeconds": permanent.start_deadline().as_secs()});
        if permanent.course == Course::Expires {
            fields["ttlSecondsAfterFinished"] = json!(3);
        }
        if permanent.fails_in_cluster() {
            third_party::reject_pods(self.client, self.namespace, permanent.cause).await;
        }
        self.create_test_with(fields).await;
        let begun = Instant::now();
        while begun.elapsed() < self.timings.limit {
            tokio::time::sleep(POLL_INTERVAL).await;
            let (view, log) = (self.history.view(), operator.log());
            if !done.script && view.phase(NAME) == "Pending" {
                self.create_script().await;
                done.script = true;
            }
            self.act_as_kubelet(permanent, &view, &mut done).await;
            if permanent.course == Course::Stops && done.stopped_at.is_none() {
                self.stop_when_due(permanent, &view, &log, &mut done).await;
                continue;
            }
            let checked = self.check_permanent(permanent, &log, done.stopped_at);
            if checked.is_empty() && self.has_ended(permanent, &view) {
                break;
            }
        }
        if permanent.fails_in_cluster() {
            third_party::accept_pods(self.client, self.namespace, permanent.cause).await;
        }
        done.stopped_at
    }

    /// When the call failed first.
    fn failed_at(&self, permanent: &Permanent) -> Option<Duration> {
        if permanent.fails_in_cluster() {
            let history = self.history.all();
            return created(&history, "Job").map(|job| job.at).min();
        }
        self.proxy.failed().map(|at| self.history.at(at))
    }

    /// Whether nothing more can happen to the test.
    fn has_ended(&self, permanent: &Permanent, view: &View) -> bool {
        if permanent.course == Course::Expires {
            let is_deleted = view.get("LoadTest", NAME).is_none();
            return self.failed_at(permanent).is_some() && (is_deleted || permanent.keeps_test());
        }
        !permanent.can_end() && self.failed_at(permanent).is_some()
            || matches!(view.phase(NAME), "Completed" | "Failed" | "Stopped")
    }

    pub(crate) fn check_permanent(
        &self,
        permanent: &Permanent,
        log: &str,
        stopped_at: Option<Duration>,
    ) -> Vec<Violation> {
        let (history, lines) = (self.history.all(), self.history.lines(log));
        permanent.check(&history, &lines, self.failed_at(permanent), stopped_at)
    }

    /// Starts the workers, and ends them once the test runs.
    async fn act_as_kubelet(&self, permanent: &Permanent, view: &View, done: &mut Done) {
        if permanent.keeps_workers_pending() {
            return;
        }
        let pods: Vec<Pod> = self.pods(view);
        for pod in &pods {
            if done.started.insert(pod.name_any()) {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
                let (state, ready) = (
                    json!({"running": {"startedAt": now()}}),
                    !permanent.keeps_workers_loading(),
                );
                let _ = pods::set_pod(&pods, pod, "Running", state, [ready; 2]).await;
            }
        }
        if view.phase(NAME) == "Running" && permanent.course != Course::Stops {
            for pod in &pods {
                if done.ended.insert(pod.name_any()) {
                    self.exit(pod, 0).await;
                }
            }
        }
    }

    async fn stop_when_due(&self, permanent: &Permanent, view: &View, log: &str, done: &mut Done) {
        if view.phase(NAME) == "Running" {
            done.running_since.get_or_insert_with(Instant::now);
        }
        let has_run = done.running_since.is_some_and(|at| at.elapsed() > RUN_TIME);
        let is_reported = self.failed_at(permanent).is_some_and(|at| {
            let (history, lines) = (self.history.all(), self.history.lines(log));
            permanent.check_report(&history, &lines, at).is_none()
        });
        let is_late = self
            .failed_at(permanent)
            .is_some_and(|at| self.history.now() > at + TOLERANCE);
        if has_run || is_reported || is_late {
            let tests: Api<LoadTest> = Api::namespaced(self.client.clone(), self.namespace);
            let stop = Patch::Merge(json!({"spec": {"stop": true}}));
            let stopped = tests.patch(NAME, &PatchParams::default(), &stop).await;
            stopped.expect("a test can be stopped");
            done.stopped_at = Some(self.history.now());
        }
    }
}

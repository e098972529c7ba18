//! One run: a namespace, an operator and a proxy of its own, a test that goes through its scenario, and one fault.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::cluster_faults::Next;
use crate::end;
use crate::history::History;
use crate::invariants::{
    self, ObjectVersion, Violation, is_foreign, misses_events, owner, violation,
};
use crate::permanent::Permanent;
use crate::plan::{ClusterFault, Fault, Point, Run, Scenario, Stage};
use crate::proxy::{FaultProxy, Sent};
use crate::supervisor::{self, Killer, Standby, SupervisedOperator};
use crate::support::cluster::{create_namespace, forbid_by_quota};
use crate::support::live_worker::{Worker, final_message};
use crate::support::load_test;
use crate::support::objects::from;
use crate::support::pods::{self, now};
use crate::third_party;
use crate::view::View;

/// The name of every test. Each run has its own namespace.
pub const NAME: &str = "t";

/// How long a run waits.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// How long temporary faults last.
    pub heal: Duration,
    /// The maximum of every wait.
    pub limit: Duration,
    /// How long nothing may be written after the end.
    pub quiet: Duration,
}

/// How long requests in flight may still arrive after the end.
const SETTLE_TIME: Duration = Duration::from_millis(1500);

/// The requests in the termination message of a worker that succeeds.
const FINAL_REQUESTS: u32 = 50;

/// The result of a run.
pub struct RunResult {
    pub run: Run,
    pub namespace: String,
    pub reached: bool,
    pub violations: Vec<Violation>,
    pub history: Vec<ObjectVersion>,
    pub log: String,
    pub points: Vec<Point>,
    pub sent: Vec<Sent>,
    /// The end, in a form that is equal in all runs.
    pub end: Value,
    pub took: Duration,
}

/// A run that is being executed.
pub struct Execution<'a> {
    pub(crate) client: &'a Client,
    pub(crate) namespace: &'a str,
    pub(crate) run: &'a Run,
    pub(crate) timings: Timings,
    pub(crate) history: History,
    pub(crate) proxy: FaultProxy,
    pub(crate) killer: Killer,
    pub(crate) ports: Vec<Worker>,
    freed: BTreeSet<String>,
    uid: String,
}

/// Executes a run. `permit` is dropped as soon as the run only waits for silence. Its end is compared with that of the clean
/// run, if there is one.
pub async fn execute<T>(
    client: &Client,
    namespace: &str,
    run: &Run,
    timings: Timings,
    clean: Option<&Value>,
    permit: T,
) -> RunResult {
    let begun = Instant::now();
    create_namespace(client, namespace, json!({})).await;
    let (killer, kills) = supervisor::killer();
    let proxy = FaultProxy::start(
        client.clone(),
        run.fault.clone(),
        timings.heal,
        killer.clone(),
    )
    .await;
    let history = History::follow(client, namespace).await;
    let (kubeconfig, (freed, uid)) = (proxy.kubeconfig(), Default::default());
    let mut execution = Execution {
        client,
        namespace,
        run,
        timings,
        history,
        proxy,
        killer,
        ports: Vec::new(),
        freed,
        uid,
    };
    if let Fault::Cluster(Stage::Before, ClusterFault::PermissionsRevoked) = run.fault {
        execution.proxy.forbid(true);
    }
    let elects = run.scenario == Scenario::Leads;
    let operator = SupervisedOperator::start(kubeconfig, namespace, elects, kills);
    let standby = if elects {
        execution
            .proxy
            .until_requested(&[("watch", "loadtests")], timings.heal)
            .await;
        Some(Standby::start(client, namespace, timings.heal).await)
    } else {
        None
    };
    let mut violations = Vec::new();
    let permanent = Permanent::of(run);
    let mut stopped_at = None;
    let played = match &permanent {
        Some(permanent) => {
            stopped_at = execution.play_permanent(permanent, &operator).await;
            Ok(())
        }
        None => execution.play().await,
    };
    match played {
        // Some events never are.
        Ok(()) if permanent.is_some() => {}
        // The run ends only when the events that failed have been recorded.
        Ok(()) => {
            let recorded = execution.until_events_are_recorded().await;
            violations.extend(recorded.err().map(|waited| violation("I11", waited)));
        }
        Err(waited) => violations.push(violation("I11", waited)),
    }
    execution.proxy.until_over(timings.limit).await;
    tokio::time::sleep(SETTLE_TIME).await;
    drop(permit);
    let quiet_from = Instant::now();
    tokio::time::sleep(timings.quiet).await;
    let (mut sent, mut log) = (execution.proxy.sent(), operator.log());
    if let Some(standby) = &standby {
        sent.extend(standby.proxy.sent());
        log = format!(
            "{log}--- the second operator's:\n{}",
            standby.operator.log()
        );
    }
    if let Some(permanent) = &permanent {
        violations.extend(execution.check_permanent(permanent, &log, stopped_at));
    }
    // A test that has not ended may still cause writes.
    if violations.is_empty() && permanent.as_ref().is_none_or(Permanent::can_end) {
        let keeps_test = permanent.as_ref().is_some_and(Permanent::keeps_test);
        violations.extend(writes_after_the_end(&sent, quiet_from, keeps_test));
    }
    let (history, view) = (execution.history.all(), execution.history.view());
    execution.freed.extend(execution.proxy.freed());
    violations.extend(invariants::check(&history, &execution.freed));
    if let Some(line) = log.lines().find(|l| l.contains("panicked")) {
        violations.push(violation("panic", line));
    }
    let end = end::normalized(&view, &history, NAME, &execution.uid, namespace);
    if violations.is_empty() && permanent.is_none() {
        violations.extend(end::check(run, &end, clean));
    }
    let reached = matches!(run.fault, Fault::None | Fault::Cluster(..) | Fault::Port(_))
        || permanent.is_some_and(|p| p.fails_in_cluster())
        || execution.proxy.was_reached();
    let points = execution.proxy.points();
    drop((operator, standby));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let _ = namespaces
        .delete(namespace, &DeleteParams::background())
        .await;
    let (namespace, run) = (namespace.to_owned(), run.clone());
    RunResult {
        run,
        namespace,
        reached,
        violations,
        history,
        log,
        points,
        sent,
        end,
        took: begun.elapsed(),
    }
}

/// I10: the writes after the end of the run.
///
/// Where a test cannot be deleted, the event about that is sent again with each attempt.
fn writes_after_the_end(sent: &[Sent], quiet_from: Instant, keeps_test: bool) -> Option<Violation> {
    let is_repeated = |s: &&Sent| keeps_test && s.point.is("create", "events") && s.code == 409;
    let late: Vec<String> = sent
        .iter()
        .filter(|s| s.at > quiet_from && s.point.is_write() && s.point.resource != "leases")
        .filter(|s| !is_repeated(s))
        .map(|s| {
            format!(
                "{}: {}, after {:.1} s",
                s.point,
                s.code,
                (s.at - quiet_from).as_secs_f64()
            )
        })
        .collect();
    (!late.is_empty()).then(|| violation("I10", format!("written after the end: {late:?}")))
}

impl Execution<'_> {
    /// Plays the scenario to its end.
    async fn play(&mut self) -> Result<(), String> {
        let watches = [("watch", "loadtests"), ("watch", "jobs"), ("watch", "pods")];
        let before = match self.run.fault {
            Fault::Cluster(Stage::Before, fault) => Some(fault),
            _ => None,
        };
        match before {
            // Without permissions the operator repeats its first request.
            Some(ClusterFault::PermissionsRevoked) => {
                self.proxy
                    .until_requested(&[("get", "version")], self.timings.limit)
                    .await;
            }
            _ => {
                self.proxy
                    .until_requested(&watches, self.timings.heal)
                    .await;
            }
        }
        if self.run.scenario != Scenario::Waits {
            self.create_script().await;
        }
        match before {
            Some(ClusterFault::NoJobs) => {
                forbid_by_quota(self.client, self.namespace, "count/jobs.batch").await;
            }
            Some(ClusterFault::NoPods) => {
                forbid_by_quota(self.client, self.namespace, "pods").await;
            }
            Some(ClusterFault::ForeignJob | ClusterFault::ForeignJobStays) => {
                let job = third_party::foreign_job(self.client, self.namespace, NAME).await;
                self.create_test().await;
                self.until_reason("NameConflict").await?;
                if before == Some(ClusterFault::ForeignJobStays) {
                    return Ok(());
                }
                self.freed.insert(job.uid.clone());
                third_party::delete(self.client, &job).await;
                return self.go_through().await;
            }
            _ => {}
        }
        self.create_test().await;
        match before {
            Some(ClusterFault::NoJobs) => {
                self.until_reason("JobRejected").await?;
                third_party::delete_quota(self.client, self.namespace).await;
            }
            Some(ClusterFault::NoPods) => {
                self.until("a Job", |run, view| run.job(view).map(|_| ()))
                    .await?;
                third_party::delete_quota(self.client, self.namespace).await;
            }
            Some(ClusterFault::PermissionsRevoked) => {
                tokio::time::sleep(self.timings.heal).await;
                self.proxy.forbid(false);
            }
            Some(ClusterFault::OperatorKilled) => supervisor::kill(&self.killer).await,
            _ => {}
        }
        if self.run.scenario == Scenario::Waits {
            self.until_reason("MissingTestScript").await?;
            self.create_script().await;
        }
        self.go_through().await
    }

    /// Takes a test from its creation to its end, or to the end that a fault of the cluster causes.
    async fn go_through(&mut self) -> Result<(), String> {
        let mut restarted = false;
        'again: loop {
            for stage in [
                Stage::Starting,
                Stage::Running,
                Stage::OneDone,
                Stage::Ended,
            ] {
                self.reach(stage).await?;
                if let (Stage::Running, Fault::Port(fault)) = (stage, &self.run.fault) {
                    self.run_with_ports(*fault).await?;
                }
                let Fault::Cluster(at, fault) = self.run.fault else {
                    continue;
                };
                if at != stage || restarted {
                    continue;
                }
                match self.inject(stage, fault).await? {
                    Next::Continue => {}
                    Next::End => return Ok(()),
                    Next::Restart => {
                        restarted = true;
                        continue 'again;
                    }
                }
            }
            return Ok(());
        }
    }

    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut check: impl FnMut(&Self, &View) -> Option<T>,
    ) -> Result<T, String> {
        self.history
            .until(what, self.timings.limit, |view| check(self, view))
            .await
    }

    pub(crate) async fn until_reason(&self, reason: &str) -> Result<(), String> {
        self.until(reason, |_, view| {
            let conditions = view
                .get("LoadTest", NAME)?
                .pointer("/status/conditions")?
                .as_array()?;
            conditions
                .iter()
                .any(|c| c["reason"] == reason)
                .then_some(())
        })
        .await
    }

    /// The Job of the current test.
    pub(crate) fn job<'v>(&self, view: &'v View) -> Option<&'v Value> {
        view.get("Job", NAME)
            .filter(|job| owner(job) == Some(&self.uid))
    }

    /// The pods of the current test, by the index of their worker.
    pub(crate) fn pods(&self, view: &View) -> Vec<Pod> {
        let Some(job) = self.job(view) else {
            return Vec::new();
        };
        let mut pods: Vec<Pod> = view
            .all("Pod")
            .filter(|p| owner(p) == job["metadata"]["uid"].as_str() && !is_foreign(p))
            .cloned()
            .map(from)
            .collect();
        pods.sort_by_key(|p| {
            p.annotations()
                .get("batch.kubernetes.io/job-completion-index")
                .cloned()
        });
        pods
    }

    async fn reach(&self, stage: Stage) -> Result<(), String> {
        match stage {
            Stage::Before => {}
            Stage::Starting => {
                self.until("two pods", |run, view| {
                    (run.pods(view).len() == 2).then_some(())
                })
                .await?;
            }
            Stage::Running => {
                for pod in self.pods(&self.history.view()) {
                    self.set_pod(&pod, "Running", json!({"running": {"startedAt": now()}}))
                        .await;
                }
                self.until("phase Running", |_, view| {
                    (view.phase(NAME) == "Running").then_some(())
                })
                .await?;
            }
            Stage::OneDone => {
                if let Some(first) = self.pods(&self.history.view()).first() {
                    self.exit(first, 0).await;
                }
                let succeeded = |p: &Pod| {
                    p.status
                        .as_ref()
                        .is_some_and(|s| s.phase.as_deref() == Some("Succeeded"))
                };
                self.until("the first worker's end", |w, view| {
                    w.pods(view).iter().any(succeeded).then_some(())
                })
                .await?;
            }
            Stage::Ended => {
                if let Some(last) = self.pods(&self.history.view()).last() {
                    self.exit(last, i32::from(self.run.scenario == Scenario::Fails))
                        .await;
                }
                self.until_ended().await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn until_ended(&self) -> Result<(), String> {
        self.until("the end", |_, view| {
            matches!(view.phase(NAME), "Completed" | "Failed").then_some(())
        })
        .await
    }

    async fn until_events_are_recorded(&self) -> Result<(), String> {
        self.until("the missing events", |_, view| {
            let misses_events = view.get("LoadTest", NAME).is_some_and(misses_events);
            (!misses_events).then_some(())
        })
        .await
    }

    pub(crate) async fn create_script(&self) {
        // Without phases the test has no expected duration, which a fault might exceed.
        let script: ConfigMap = from(json!({"metadata": {"name": "test-script"},
            "data": {"test-script.yaml": "config: {target: x}\nscenarios: [{flow: []}]"}}));
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        maps.create(&PostParams::default(), &script).await.unwrap();
    }

    pub(crate) async fn create_test(&mut self) {
        self.create_test_with(json!({})).await;
    }

    /// Creates the test with these fields of its spec besides.
    pub(crate) async fn create_test_with(&mut self, fields: Value) {
        let mut test = load_test(NAME, 2);
        let spec = test["spec"].as_object_mut().unwrap();
        spec.extend(fields.as_object().unwrap().clone());
        let test: LoadTest = from(test);
        let tests: Api<LoadTest> = Api::namespaced(self.client.clone(), self.namespace);
        let created = tests.create(&PostParams::default(), &test).await.unwrap();
        self.uid = created.uid().unwrap();
    }

    pub(crate) async fn exit(&self, pod: &Pod, code: i32) {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let message = if code == 0 {
            final_message(FINAL_REQUESTS)
        } else {
            "Error: ensure failed".to_owned()
        };
        let terminated = json!({"exitCode": code, "message": message, "reason": if code == 0 { "Completed" } else { "Error" },
            "startedAt": pod.metadata.creation_timestamp, "finishedAt": now()});
        self.set_pod(pod, phase, json!({"terminated": terminated}))
            .await;
    }

    /// Sets the state of a pod. One that was deleted is ignored.
    async fn set_pod(&self, pod: &Pod, phase: &str, state: Value) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let _ = pods::set_pod(&pods, pod, phase, state, [phase == "Running"; 2]).await;
    }
}

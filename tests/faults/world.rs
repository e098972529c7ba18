//! One run: a namespace, an operator and a proxy of its own, a test that goes through its scenario, and one fault.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Client, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::end;
use crate::history::History;
use crate::judge::{Seen, Violation, judge, owner, violation};
use crate::others;
use crate::plan::{Fault, Point, Run, Scenario, Stage, WorldDeed};
use crate::process::{self, Operator, StandBy};
use crate::proxy::{Killer, Proxy, Sent};
use crate::view::View;

/// The name of every test; each has a namespace of its own.
const NAME: &str = "t";

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Until what heals has healed.
    pub heal: Duration,
    /// The longest wait for anything.
    pub limit: Duration,
    /// How long nothing may be written after the end.
    pub quiet: Duration,
}

/// After the end, so long may what is on its way still arrive.
const SETTLE: Duration = Duration::from_millis(1500);

/// What came of a run.
pub struct Verdict {
    pub run: Run,
    pub namespace: String,
    pub reached: bool,
    pub violations: Vec<Violation>,
    pub history: Vec<Seen>,
    pub log: String,
    pub points: Vec<Point>,
    pub sent: Vec<Sent>,
    /// The end, in words that are the same in all runs.
    pub end: Value,
    pub took: Duration,
}

/// What is left of a scenario after something has befallen the world.
enum Rest {
    All,
    Nothing,
    /// Everything, with another test.
    Anew,
}

struct World<'a> {
    client: &'a Client,
    namespace: &'a str,
    run: &'a Run,
    pace: Pace,
    history: History,
    proxy: Proxy,
    killer: Killer,
    freed: BTreeSet<String>,
    uid: String,
}

/// Carries out a run. `busy` is given back as soon as there is nothing but to see whether it stays quiet. Judged by the
/// clean run's end, if there is one.
pub async fn carry_out<T>(
    client: &Client,
    namespace: &str,
    run: &Run,
    pace: Pace,
    clean: Option<&Value>,
    busy: T,
) -> Verdict {
    let begun = Instant::now();
    make_namespace(client, namespace).await;
    let (killer, kills) = process::killer();
    let proxy = Proxy::start(client.clone(), run.fault.clone(), pace.heal, killer.clone()).await;
    let history = History::follow(client, namespace).await;
    let (kubeconfig, (freed, uid)) = (proxy.kubeconfig(), Default::default());
    let mut world = World {
        client,
        namespace,
        run,
        pace,
        history,
        proxy,
        killer,
        freed,
        uid,
    };
    if let Fault::World(Stage::Before, WorldDeed::RightsTakenAway) = run.fault {
        world.proxy.forbid(true);
    }
    let leads = run.scenario == Scenario::Leads;
    let operator = Operator::start(kubeconfig, namespace, leads, kills);
    let stands_by = if leads {
        world
            .proxy
            .until_asked(&[("watch", "loadtests")], pace.heal)
            .await;
        Some(StandBy::start(client, namespace, pace.heal).await)
    } else {
        None
    };
    let mut violations = Vec::new();
    match world.play().await {
        Ok(()) => {}
        Err(waited) => violations.push(violation("I11", waited)),
    }
    world.proxy.until_over(pace.limit).await;
    tokio::time::sleep(SETTLE).await;
    drop(busy);
    let quiet_from = Instant::now();
    tokio::time::sleep(pace.quiet).await;
    let (mut sent, mut log) = (world.proxy.sent(), operator.log());
    if let Some(stands_by) = &stands_by {
        sent.extend(stands_by.proxy.sent());
        log = format!(
            "{log}--- the other operator's:\n{}",
            stands_by.operator.log()
        );
    }
    // One that has not ended may well go on.
    if violations.is_empty() {
        violations.extend(noise(&sent, quiet_from));
    }
    let (history, view) = (world.history.all(), world.history.view());
    world.freed.extend(world.proxy.freed());
    violations.extend(judge(&history, &world.freed));
    if let Some(line) = log.lines().find(|l| l.contains("panicked")) {
        violations.push(violation("panic", line));
    }
    let end = end::normal(&view, &history, NAME, &world.uid, namespace);
    if violations.is_empty() {
        violations.extend(end::judge(run, &end, clean));
    }
    let reached = matches!(run.fault, Fault::None | Fault::World(..)) || world.proxy.was_reached();
    let points = world.proxy.points();
    drop((operator, stands_by));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let _ = namespaces
        .delete(namespace, &DeleteParams::background())
        .await;
    let (namespace, run) = (namespace.to_owned(), run.clone());
    Verdict {
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

async fn make_namespace(client: &Client, namespace: &str) {
    let object = from(json!({"metadata": {"name": namespace}}));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
    // Pods are refused until it is there.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    await_condition(accounts, "default", |account: Option<&ServiceAccount>| {
        account.is_some()
    })
    .await
    .unwrap();
}

/// I10: the writes that came when all was over.
fn noise(sent: &[Sent], quiet_from: Instant) -> Option<Violation> {
    let late: Vec<String> = sent
        .iter()
        .filter(|s| s.at > quiet_from && s.point.is_write() && s.point.resource != "leases")
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

impl World<'_> {
    /// Goes through the scenario, to its end.
    async fn play(&mut self) -> Result<(), String> {
        let watches = [("watch", "loadtests"), ("watch", "jobs"), ("watch", "pods")];
        let before = match self.run.fault {
            Fault::World(Stage::Before, deed) => Some(deed),
            _ => None,
        };
        match before {
            // Without rights it gets no further than its first request.
            Some(WorldDeed::RightsTakenAway) => {
                self.proxy
                    .until_asked(&[("get", "version")], self.pace.limit)
                    .await;
            }
            _ => self.proxy.until_asked(&watches, self.pace.heal).await,
        }
        if self.run.scenario != Scenario::Waits {
            self.create_script().await;
        }
        match before {
            Some(WorldDeed::NoJobs) => {
                others::allow_none(self.client, self.namespace, "count/jobs.batch").await;
            }
            Some(WorldDeed::NoPods) => {
                others::allow_none(self.client, self.namespace, "pods").await;
            }
            Some(WorldDeed::ForeignJob | WorldDeed::ForeignJobStays) => {
                let job = others::foreign_job(self.client, self.namespace, NAME).await;
                self.create_test().await;
                self.until_told("NameConflict").await?;
                if before == Some(WorldDeed::ForeignJobStays) {
                    return Ok(());
                }
                self.freed.insert(job.uid.clone());
                others::delete(self.client, &job).await;
                return self.go_through().await;
            }
            _ => {}
        }
        self.create_test().await;
        match before {
            Some(WorldDeed::NoJobs) => {
                self.until_told("JobRejected").await?;
                others::allow_again(self.client, self.namespace).await;
            }
            Some(WorldDeed::NoPods) => {
                self.until("a Job", |world, view| world.job(view).map(|_| ()))
                    .await?;
                others::allow_again(self.client, self.namespace).await;
            }
            Some(WorldDeed::RightsTakenAway) => {
                tokio::time::sleep(self.pace.heal).await;
                self.proxy.forbid(false);
            }
            Some(WorldDeed::OperatorKilled) => process::kill(&self.killer).await,
            _ => {}
        }
        if self.run.scenario == Scenario::Waits {
            self.until_told("MissingTestScript").await?;
            self.create_script().await;
        }
        self.go_through().await
    }

    /// Goes from a test that is created to its end, or what is the end where something befalls the world.
    async fn go_through(&mut self) -> Result<(), String> {
        let mut anew = false;
        'again: loop {
            for stage in [
                Stage::Starting,
                Stage::Running,
                Stage::OneDone,
                Stage::Ended,
            ] {
                self.reach(stage).await?;
                let Fault::World(at, deed) = self.run.fault else {
                    continue;
                };
                if at != stage || anew {
                    continue;
                }
                match self.befall(stage, deed).await? {
                    Rest::All => {}
                    Rest::Nothing => return Ok(()),
                    Rest::Anew => {
                        anew = true;
                        continue 'again;
                    }
                }
            }
            return Ok(());
        }
    }

    async fn until<T>(
        &self,
        what: &str,
        mut check: impl FnMut(&Self, &View) -> Option<T>,
    ) -> Result<T, String> {
        self.history
            .until(what, self.pace.limit, |view| check(self, view))
            .await
    }

    async fn until_told(&self, reason: &str) -> Result<(), String> {
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

    /// The Job of the test that there is now.
    fn job<'v>(&self, view: &'v View) -> Option<&'v Value> {
        view.get("Job", NAME)
            .filter(|job| owner(job) == Some(&self.uid))
    }

    /// The pods of the test that there is now, by the number of their worker.
    fn pods(&self, view: &View) -> Vec<Pod> {
        let Some(job) = self.job(view) else {
            return Vec::new();
        };
        let mut pods: Vec<Pod> = view
            .all("Pod")
            .filter(|p| owner(p) == job["metadata"]["uid"].as_str())
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
                self.until("two pods", |world, view| {
                    (world.pods(view).len() == 2).then_some(())
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

    async fn until_ended(&self) -> Result<(), String> {
        self.until("the end", |_, view| {
            matches!(view.phase(NAME), "Completed" | "Failed").then_some(())
        })
        .await
    }

    /// Lets something befall the world.
    async fn befall(&mut self, stage: Stage, deed: WorldDeed) -> Result<Rest, String> {
        let background = DeleteParams::background();
        let tests: Api<LoadTest> = Api::namespaced(self.client.clone(), self.namespace);
        match deed {
            WorldDeed::OperatorKilled => process::kill(&self.killer).await,
            WorldDeed::BackInTime => {
                self.come_back_to_the_past(&["loadtests", "jobs", "pods"])
                    .await;
            }
            WorldDeed::JobsBackInTime => self.come_back_to_the_past(&["jobs", "pods"]).await,
            WorldDeed::RecreatedBackInTime => {
                tests
                    .delete(NAME, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.create_test().await;
                self.come_back_to_the_past(&["loadtests", "jobs", "pods"])
                    .await;
                return Ok(Rest::Anew);
            }
            WorldDeed::RightsTakenAway => {
                self.proxy.forbid(true);
                tokio::time::sleep(self.pace.heal).await;
                self.proxy.forbid(false);
            }
            WorldDeed::JobDeleted => {
                let jobs: Api<Job> = Api::namespaced(self.client.clone(), self.namespace);
                jobs.delete(NAME, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.until("no Job", |world, view| {
                    world.job(view).is_none().then_some(())
                })
                .await?;
                self.until_ended().await?;
                return Ok(Rest::Nothing);
            }
            WorldDeed::PodDeleted => {
                if let Some(pod) = self.pods(&self.history.view()).first() {
                    let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
                    pods.delete(&pod.name_any(), &background)
                        .await
                        .map_err(|e| e.to_string())?;
                }
                if matches!(stage, Stage::Starting | Stage::Running) {
                    self.until_ended().await?;
                    return Ok(Rest::Nothing);
                }
            }
            WorldDeed::TestDeleted => {
                tests
                    .delete(NAME, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.until_nothing().await?;
                return Ok(Rest::Nothing);
            }
            WorldDeed::NamespaceDeleted => {
                let namespaces: Api<Namespace> = Api::all(self.client.clone());
                namespaces
                    .delete(self.namespace, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.until_nothing().await?;
                return Ok(Rest::Nothing);
            }
            WorldDeed::TestRecreated => {
                tests
                    .delete(NAME, &background)
                    .await
                    .map_err(|e| e.to_string())?;
                self.create_test().await;
                return Ok(Rest::Anew);
            }
            WorldDeed::NoJobs
            | WorldDeed::NoPods
            | WorldDeed::ForeignJob
            | WorldDeed::ForeignJobStays => {
                return Err(format!("{deed:?} is only for the time before a test"));
            }
        }
        Ok(Rest::All)
    }

    /// Kills the operator, and lets the next one see the past of these resources for a while.
    async fn come_back_to_the_past(&self, resources: &[&str]) {
        self.proxy.go_back_in_time(resources);
        process::kill(&self.killer).await;
        self.proxy.until_caught_up(self.pace.limit).await;
        // What it has then seen of the past it has acted on.
        tokio::time::sleep(self.pace.heal).await;
    }

    /// I8: the test is gone, and with it its Job and pods.
    async fn until_nothing(&self) -> Result<(), String> {
        self.until("nothing to be left", |_, view| {
            ["LoadTest", "Job", "Pod"]
                .into_iter()
                .all(|kind| view.all(kind).next().is_none())
                .then_some(())
        })
        .await
    }

    async fn create_script(&self) {
        let script: ConfigMap = from(
            json!({"metadata": {"name": "test-script"}, "data": {"test-script.yaml": "config: {target: x}\nscenarios: [{flow: []}]"}}),
        );
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace);
        maps.create(&PostParams::default(), &script).await.unwrap();
    }

    async fn create_test(&mut self) {
        let test: LoadTest = from(
            json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
            "metadata": {"name": NAME},
            "spec": {"count": 2, "environment": "dev", "testScript": {"config": {"configMap": "test-script"}}}}),
        );
        let tests: Api<LoadTest> = Api::namespaced(self.client.clone(), self.namespace);
        let created = tests.create(&PostParams::default(), &test).await.unwrap();
        self.uid = created.uid().unwrap();
    }

    async fn exit(&self, pod: &Pod, code: i32) {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let message = if code == 0 {
            ""
        } else {
            "Error: ensure failed"
        };
        let terminated = json!({"exitCode": code, "message": message, "reason": if code == 0 { "Completed" } else { "Error" },
            "startedAt": pod.metadata.creation_timestamp, "finishedAt": now()});
        self.set_pod(pod, phase, json!({"terminated": terminated}))
            .await;
    }

    /// Sets the state of a pod, as a kubelet would. One that has gone is left alone.
    async fn set_pod(&self, pod: &Pod, phase: &str, state: Value) {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let status = json!({"metadata": {"uid": pod.uid()}, "status": {"phase": phase, "startTime": now(),
            "containerStatuses": [{"name": container.name, "image": container.image, "imageID": "",
                "started": phase == "Running", "ready": phase == "Running", "restartCount": 0, "state": state}]}});
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.namespace);
        let _ = pods
            .patch_status(
                &pod.name_any(),
                &PatchParams::default(),
                &Patch::Merge(status),
            )
            .await;
    }
}

/// The time in whole seconds, as kubelets write it.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Turns what is written here as JSON into an object.
fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

//! Tests that wait in queues of Kueue itself. `hack/kueue.sh --test` starts a control plane with Kueue, and runs them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures::TryStreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{TestEnv, condition, control_plane, load_test, phase_of};

const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";
const PRIORITY_LABEL: &str = "kueue.x-k8s.io/priority-class";

/// A namespace with the queue `load-tests`, which has room for one test of two workers.
struct Queue {
    env: TestEnv,
    /// The UIDs of all pods that ever existed, by test.
    pods: Arc<Mutex<BTreeSet<(String, String)>>>,
    watch: JoinHandle<()>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Queue {
    async fn new() -> Self {
        let env = TestEnv::with_operator(control_plane()).await;
        let name = env.namespace.clone();
        let queue = Self {
            pods: Arc::default(),
            watch: tokio::spawn(async {}),
            env,
        };
        let flavor = json!({"kind": "ResourceFlavor", "metadata": {"name": name}});
        queue.create("resourceflavors", flavor).await;
        let quota = json!({"coveredResources": ["pods"],
            "flavors": [{"name": name, "resources": [{"name": "pods", "nominalQuota": 2}]}]});
        let cluster_queue = json!({"kind": "ClusterQueue", "metadata": {"name": name}, "spec": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "preemption": {"withinClusterQueue": "LowerPriority"}, "resourceGroups": [quota]}});
        queue.create("clusterqueues", cluster_queue).await;
        for local in ["load-tests", "other"] {
            let local = json!({"kind": "LocalQueue", "metadata": {"name": local}, "spec": {"clusterQueue": name}});
            queue
                .create(&format!("namespaces/{name}/localqueues"), local)
                .await;
        }
        queue.watching_pods()
    }

    /// Remembers every pod. The watch begins before the first test.
    fn watching_pods(mut self) -> Self {
        let (api, pods) = (self.env.api::<Pod>(), self.pods.clone());
        self.watch = tokio::spawn(async move {
            let mut seen = std::pin::pin!(
                watcher(api, watcher::Config::default())
                    .default_backoff()
                    .touched_objects()
            );
            while let Ok(Some(pod)) = seen.try_next().await {
                let test = pod.labels().get("artillery.io/test-name").cloned();
                let seen = (test.unwrap_or_default(), pod.uid().unwrap());
                pods.lock().unwrap().insert(seen);
            }
        });
        self
    }

    /// How many pods a test ever had.
    fn pods_of(&self, test: &str) -> usize {
        let pods = self.pods.lock().unwrap();
        pods.iter().filter(|(of, _)| of == test).count()
    }

    /// Creates an object of Kueue.
    async fn create(&self, resource: &str, mut object: Value) {
        object["apiVersion"] = json!("kueue.x-k8s.io/v1beta2");
        let path = format!("/apis/kueue.x-k8s.io/v1beta2/{resource}");
        // The webhooks may still start.
        let created = self.env.until("an object of Kueue is created", async || {
            let request = http::Request::post(&path)
                .header("content-type", "application/json")
                .body(object.to_string().into_bytes())
                .unwrap();
            match self.env.client.request::<Value>(request).await {
                Ok(_) => Some(()),
                Err(kube::Error::Api(status)) if status.code == 409 => Some(()),
                Err(error) if error.to_string().contains("connect") => None,
                Err(error) => panic!("{resource}: {error}"),
            }
        });
        created.await;
    }

    /// The name of a priority class above that of other tests.
    async fn priority_class(&self) -> String {
        let name = format!("{}-urgent", self.env.namespace);
        let class =
            json!({"kind": "WorkloadPriorityClass", "metadata": {"name": name}, "value": 1000});
        self.create("workloadpriorityclasses", class).await;
        name
    }

    /// A test of two workers in the queue, with further labels.
    async fn load_test(&self, name: &str, labels: &[(&str, &str)]) -> LoadTest {
        let mut test = load_test(name, 2);
        test["metadata"]["labels"] = json!({QUEUE_LABEL: "load-tests"});
        for (label, value) in labels {
            test["metadata"]["labels"][label] = json!(value);
        }
        self.env.create(test).await
    }

    /// The Workload that Kueue made for the Job of a test, once it meets a condition.
    async fn workload(&self, test: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let job: Job = self.env.until_exists(test).await;
        let path = format!(
            "/apis/kueue.x-k8s.io/v1beta2/namespaces/{}/workloads?labelSelector=kueue.x-k8s.io/job-uid%3D{}",
            self.env.namespace,
            job.uid().unwrap()
        );
        let what = format!("the Workload of {test}: {what}");
        self.env
            .until(&what, async || {
                let request = http::Request::get(&path).body(vec![]).unwrap();
                let list: Value = self.env.client.request(request).await.unwrap();
                list["items"].get(0).filter(|w| check(w)).cloned()
            })
            .await
    }

    /// Waits until a test is held, and Kueue has queued it.
    async fn until_held(&self, test: &str) -> LoadTest {
        self.workload(test, "it has no quota", |w| {
            workload_condition(w, "QuotaReserved").is_some_and(|c| c["status"] == "False")
        })
        .await;
        self.env.until_phase(test, "Suspended").await
    }

    /// Waits until the second in which Kueue queued the last test is over: Kueue orders by seconds.
    async fn until_next_second(&self) {
        let second = Timestamp::now().as_second();
        self.env
            .until("the next second begins", async || {
                (Timestamp::now().as_second() > second).then_some(())
            })
            .await;
    }

    async fn until_running(&self, test: &str) {
        for pod in self.env.pods(test, 2).await {
            self.env.set_running(&pod).await;
        }
        self.env.until_phase(test, "Running").await;
    }

    async fn until_completed(&self, test: &str) {
        for pod in self.env.pods(test, 2).await {
            self.env.set_exited(&pod, 0, "").await;
        }
        self.env.until_phase(test, "Completed").await;
    }
}

fn workload_condition<'a>(workload: &'a Value, type_: &str) -> Option<&'a Value> {
    let conditions = workload["status"]["conditions"].as_array()?;
    conditions.iter().find(|c| c["type"] == type_)
}

fn is_finished(workload: &Value) -> bool {
    workload_condition(workload, "Finished").is_some_and(|c| c["status"] == "True")
}

async fn patch<K>(env: &TestEnv, name: &str, patch: Value) -> kube::Result<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let params = PatchParams::default();
    env.api::<K>()
        .patch(name, &params, &Patch::Merge(patch))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kueue: hack/kueue.sh --test"]
async fn kueue_runs_three_tests_of_a_queue_with_room_for_one_once_each_and_in_order() {
    let queue = Queue::new().await;
    let env = &queue.env;
    let names = ["first", "second", "third"];
    queue.load_test("first", &[]).await;
    env.pods("first", 2).await;
    for name in &names[1..] {
        queue.until_next_second().await;
        queue.load_test(name, &[]).await;
        let held = queue.until_held(name).await;
        let (status, reason, message) = condition(&held, "Progressing");
        assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "Suspended"));
        let job = env.api::<Job>().get(name).await.unwrap().uid().unwrap();
        let expected = format!(
            "Job {name} is suspended: it waits in the queue load-tests of Kueue. The test starts when Kueue admits it. For the \
             reason, see: kubectl describe workloads -n {} -l kueue.x-k8s.io/job-uid={job}",
            env.namespace
        );
        assert_eq!(message, expected);
        assert_eq!(queue.pods_of(name), 0);
    }
    queue.until_running("first").await;
    for (index, name) in names.iter().enumerate() {
        queue.until_running(name).await;
        for later in &names[index + 1..] {
            assert_eq!(queue.pods_of(later), 0, "{later} waits for {name}");
        }
        queue.until_completed(name).await;
        queue.workload(name, "it has finished", is_finished).await;
    }
    for name in names {
        assert_eq!(queue.pods_of(name), 2, "{name} runs once");
        assert_eq!(
            env.event_reasons(name).await,
            ["Created", "Running", "Running", "Completed"]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kueue: hack/kueue.sh --test"]
async fn test_that_kueue_preempts_fails_and_never_runs_again() {
    let queue = Queue::new().await;
    let env = &queue.env;
    let urgent = queue.priority_class().await;
    queue.load_test("low", &[]).await;
    queue.until_running("low").await;
    queue.load_test("high", &[(PRIORITY_LABEL, &urgent)]).await;
    let failed = env.until_phase("low", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "JobSuspended");
    assert!(
        message.starts_with("Job low was suspended after it had started, by a queueing system"),
        "{message}"
    );
    env.until_none::<Pod>("artillery.io/test-name=low").await;
    queue.until_running("high").await;
    // Another test waits behind the one that was preempted.
    queue.until_next_second().await;
    queue.load_test("next", &[]).await;
    queue.until_completed("high").await;
    // Kueue admits the preempted Job again. It ends without pods.
    env.until("the Job of low has failed", async || {
        let status = env.api::<Job>().get("low").await.unwrap().status?;
        let failed = |c: &k8s_openapi::api::batch::v1::JobCondition| {
            c.type_ == "Failed" && c.status == "True"
        };
        status.conditions?.iter().any(failed).then_some(())
    })
    .await;
    queue.workload("low", "it has finished", is_finished).await;
    queue.until_running("next").await;
    queue.until_completed("next").await;
    for test in ["low", "high", "next"] {
        assert_eq!(queue.pods_of(test), 2, "{test} runs once");
    }
    assert_eq!(
        env.event_reasons("low").await,
        ["Created", "Running", "Running", "Failed"]
    );
    assert_eq!(
        phase_of(&env.api::<LoadTest>().get("low").await.unwrap()),
        "Failed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kueue: hack/kueue.sh --test"]
async fn test_that_is_preempted_and_admitted_again_without_an_operator_fails() {
    let mut queue = Queue::new().await;
    queue.load_test("low", &[]).await;
    queue.until_running("low").await;
    queue.env.operator(0).kill().await;
    queue.until_next_second().await;
    // A Job of somebody else preempts the test.
    let urgent = queue.priority_class().await;
    let labels = json!({QUEUE_LABEL: "load-tests", PRIORITY_LABEL: urgent});
    let job: Job = queue.env.until_exists("low").await;
    let template = json!({"spec": job.spec.unwrap().template.spec});
    let urgent =
        json!({"metadata": {"name": "urgent", "labels": labels}, "spec": {"template": template}});
    queue.env.create::<Job>(urgent).await;
    let of_low = "artillery.io/test-name=low";
    queue.env.until_none::<Pod>(of_low).await;
    queue.env.delete::<Job>("urgent").await;
    for pod in queue.env.pods("low", 2).await {
        queue.env.set_running(&pod).await;
    }
    queue.env.start_operator(&[]).await;
    let failed = queue.env.until_phase("low", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "JobSuspended");
    assert!(
        message.starts_with("Job low was suspended after it had started, and then resumed."),
        "{message}"
    );
    queue.workload("low", "it has finished", is_finished).await;
    queue.env.until_none::<Pod>(of_low).await;
    assert_eq!(queue.pods_of("low"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kueue: hack/kueue.sh --test"]
async fn test_that_kueue_holds_rejects_edits_and_can_be_moved_stopped_and_deleted() {
    let queue = Queue::new().await;
    let env = &queue.env;
    queue.load_test("first", &[]).await;
    queue.until_running("first").await;
    for name in ["stopped", "deleted"] {
        queue.load_test(name, &[]).await;
        queue.until_held(name).await;
        for spec in [
            json!({"target": "http://other"}),
            json!({"count": 1}),
            json!({"suspend": true}),
        ] {
            let edit = patch::<LoadTest>(env, name, json!({"spec": spec}));
            let error = edit.await.unwrap_err().to_string();
            assert!(error.contains("the test has a Job"), "{error}");
        }
    }
    // A label of the LoadTest changes nothing. One of the Job moves it.
    let label = json!({"metadata": {"labels": {QUEUE_LABEL: "other"}}});
    patch::<LoadTest>(env, "stopped", label.clone())
        .await
        .unwrap();
    let job = env.api::<Job>().get("stopped").await.unwrap();
    assert_eq!(job.labels()[QUEUE_LABEL], "load-tests");
    patch::<Job>(env, "stopped", label).await.unwrap();
    queue
        .workload("stopped", "it is in the other queue", |w| {
            w["spec"]["queueName"] == "other"
        })
        .await;

    patch::<LoadTest>(env, "stopped", json!({"spec": {"stop": true}}))
        .await
        .unwrap();
    let stopped = env.until_phase("stopped", "Stopped").await;
    assert_eq!(
        condition(&stopped, "Stopped").2,
        "Stopped by spec.stop before it started."
    );
    env.delete::<LoadTest>("deleted").await;
    env.until_deleted::<Job>("deleted").await;

    // The Job that was stopped needs no quota, so Kueue admits it beside the first one.
    queue
        .workload("stopped", "it has finished", is_finished)
        .await;
    queue.until_completed("first").await;
    for (test, pods) in [("first", 2), ("stopped", 0), ("deleted", 0)] {
        assert_eq!(queue.pods_of(test), pods, "the pods of {test}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Kueue: hack/kueue.sh --test"]
async fn job_that_kueue_admits_only_partly_is_ended() {
    let queue = Queue::new().await;
    let env = &queue.env;
    let mut large = load_test("large", 3);
    large["metadata"]["labels"] = json!({QUEUE_LABEL: "load-tests"});
    large["metadata"]["annotations"] = json!({"kueue.x-k8s.io/job-min-parallelism": "1"});
    large["spec"]["load"] = json!("Divide");
    large["spec"]["start"] = json!("Immediate");
    env.create::<LoadTest>(large).await;
    // The annotation is not copied, so nothing is admitted partly.
    queue.until_held("large").await;
    let annotation =
        json!({"metadata": {"annotations": {"kueue.x-k8s.io/job-min-parallelism": "1"}}});
    patch::<Job>(env, "large", annotation).await.unwrap();
    let failed = env.until_phase("large", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "JobFailed");
    assert!(
        message.starts_with("Job large may run only 2 of 3 workers at a time"),
        "{message}"
    );
    queue
        .workload("large", "it has finished", is_finished)
        .await;
}

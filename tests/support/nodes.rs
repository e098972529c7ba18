//! Simulated nodes: `Node` objects, and one kubelet for all of them. The real scheduler binds pods to them, and each pod
//! starts and ends according to its [`Fate`]. No container runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use loadtest_api::labels::START_ANNOTATION;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use super::pods::now;

/// What happens to a pod after it is bound to a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// It never starts.
    StayPending,
    /// It runs until it is deleted.
    RunOn,
    /// It runs, and then exits with 0.
    Succeed { after: Duration },
    /// It runs, and then exits with this code.
    Fail { code: i32, after: Duration },
}

/// The number of nodes, and what happens to the pods.
#[derive(Clone)]
pub struct Options {
    pub nodes: usize,
    /// The maximum number of concurrent writes.
    pub in_flight: usize,
    fate: Arc<dyn Fn(&BoundPod) -> Fate + Send + Sync>,
}

impl Options {
    /// `fate` is called once for each pod.
    pub fn new(nodes: usize, fate: impl Fn(&BoundPod) -> Fate + Send + Sync + 'static) -> Self {
        Self {
            nodes,
            in_flight: 64,
            fate: Arc::new(fate),
        }
    }
}

/// The fields of a pod that the simulated kubelet reads. The others are skipped while parsing, because thousands of pods must
/// cost little on a machine that is being measured.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = "Pod")]
pub struct BoundPod {
    #[serde(deserialize_with = "partial_metadata")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    image: Option<String>,
    startup_probe: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    start_time: Option<String>,
}

/// Metadata without the managed fields, which are most of an object's JSON.
pub fn partial_metadata<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Partial {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        deletion_timestamp: Option<Time>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let partial = Partial::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: partial.name,
        namespace: partial.namespace,
        uid: partial.uid,
        resource_version: partial.resource_version,
        deletion_timestamp: partial.deletion_timestamp,
        labels: partial.labels,
        annotations: partial.annotations,
        ..ObjectMeta::default()
    })
}

impl BoundPod {
    /// A number in `0..below` that is fixed for a pod and evenly distributed over pods.
    pub fn spread(&self, below: u64) -> u64 {
        let uid = self.metadata.uid.as_deref().unwrap_or_default();
        (artillery_operator::runtime::hash::fnv1a(uid.bytes()) >> 16) % below.max(1)
    }

    fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or("Pending")
    }

    /// Whether its worker waits for a start time.
    fn waits_for_start(&self) -> bool {
        self.spec
            .containers
            .iter()
            .any(|c| c.startup_probe.is_some())
            && !self.has_start_time()
    }

    fn has_start_time(&self) -> bool {
        self.annotations().contains_key(START_ANNOTATION)
    }

    fn has_ended(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }
}

/// Running simulated nodes. They stop when this is dropped. Only [`SimulatedNodes::remove`] deletes the `Node` objects.
pub struct SimulatedNodes {
    client: Client,
    names: Vec<String>,
    kubelet: JoinHandle<()>,
}

impl SimulatedNodes {
    /// Creates the nodes, and then starts and ends the pods that are bound to them.
    pub async fn start(client: Client, options: Options) -> Self {
        let names: Vec<String> = (0..options.nodes)
            .map(|i| format!("simulated-{i}"))
            .collect();
        let api: Api<Node> = Api::all(client.clone());
        stream::iter(&names)
            .for_each_concurrent(8, |name| {
                let api = api.clone();
                async move {
                    match api.create(&PostParams::default(), &node(name)).await {
                        Ok(_) => {}
                        Err(kube::Error::Api(status)) if status.code == 409 => {}
                        Err(error) => panic!("cannot create the node {name}: {error}"),
                    }
                }
            })
            .await;
        let kubelet = Kubelet {
            client: client.clone(),
            nodes: names.iter().cloned().collect(),
            permits: Semaphore::new(options.in_flight),
            next_address: AtomicU32::new(1),
            fate: options.fate,
        };
        Self {
            client,
            names,
            kubelet: tokio::spawn(Arc::new(kubelet).run()),
        }
    }

    /// Stops the kubelet, and deletes the `Node` objects.
    pub async fn remove(self) {
        self.kubelet.abort();
        let api: Api<Node> = Api::all(self.client.clone());
        for name in &self.names {
            let _ = api.delete(name, &DeleteParams::default()).await;
        }
    }
}

impl Drop for SimulatedNodes {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}

fn node(name: &str) -> Node {
    let resources =
        json!({"cpu": "1000", "memory": "1000Gi", "ephemeral-storage": "1000Gi", "pods": "5000"});
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {"allocatable": resources, "capacity": resources, "conditions": [{"type": "Ready", "status": "True",
            "reason": "KubeletReady", "message": "simulated", "lastHeartbeatTime": now(), "lastTransitionTime": now()}]},
    }))
    .expect("this is a Node")
}

struct Kubelet {
    client: Client,
    nodes: HashSet<String>,
    permits: Semaphore,
    next_address: AtomicU32,
    fate: Arc<dyn Fn(&BoundPod) -> Fate + Send + Sync>,
}

/// A change of a pod.
enum Change {
    Patch(Value),
    Delete,
}

/// The task that handles a pod.
struct PodTask {
    task: AbortHandle,
    terminating: bool,
    start_sent: Arc<Notify>,
}

impl Kubelet {
    async fn run(self: Arc<Self>) {
        let bound = Config::default().fields("spec.nodeName!=");
        let mut events = watcher(Api::<BoundPod>::all(self.client.clone()), bound)
            .default_backoff()
            .boxed();
        let mut pods: HashMap<String, PodTask> = HashMap::new();
        // Aborts all tasks when this one is aborted.
        let mut tasks = JoinSet::new();
        loop {
            let event = match events.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    eprintln!("simulated nodes: the watch of pods failed, restarting: {error}");
                    continue;
                }
            };
            while tasks.try_join_next().is_some() {}
            match event {
                Event::Init | Event::InitDone => {}
                Event::Delete(pod) => {
                    if let Some(running) = pods.remove(&pod.uid().unwrap_or_default()) {
                        running.task.abort();
                    }
                }
                Event::InitApply(pod) | Event::Apply(pod) => {
                    if !pod
                        .spec
                        .node_name
                        .as_ref()
                        .is_some_and(|n| self.nodes.contains(n))
                    {
                        continue;
                    }
                    let uid = pod.uid().unwrap_or_default();
                    let terminating = pod.metadata.deletion_timestamp.is_some();
                    if let Some(running) = pods.get(&uid).filter(|_| pod.has_start_time()) {
                        running.start_sent.notify_one();
                    }
                    match pods.get(&uid) {
                        Some(running) if running.terminating || !terminating => continue,
                        Some(running) => running.task.abort(),
                        None => {}
                    }
                    let start_sent = Arc::<Notify>::default();
                    let task = if terminating {
                        tasks.spawn(self.clone().remove_pod(pod))
                    } else {
                        tasks.spawn(self.clone().run_pod(pod, start_sent.clone()))
                    };
                    pods.insert(
                        uid,
                        PodTask {
                            task,
                            terminating,
                            start_sent,
                        },
                    );
                }
            }
        }
    }

    async fn run_pod(self: Arc<Self>, mut pod: BoundPod, start_sent: Arc<Notify>) {
        let fate = (self.fate)(&pod);
        if fate == Fate::StayPending || pod.has_ended() {
            return;
        }
        if pod.phase() != "Running" {
            pod.status.start_time = Some(now());
            if !self.write(&pod, self.first_status(&pod)).await {
                return;
            }
        }
        let (code, after) = match fate {
            Fate::Succeed { after } => (0, after),
            Fate::Fail { code, after } => (code, after),
            Fate::RunOn | Fate::StayPending => (0, Duration::MAX),
        };
        let begun = Instant::now();
        if pod.waits_for_start()
            && tokio::time::timeout(after, start_sent.notified())
                .await
                .is_ok()
        {
            self.write(&pod, running_status(&pod, true)).await;
        }
        tokio::time::sleep(after.saturating_sub(begun.elapsed())).await;
        self.write(&pod, terminated_status(&pod, code)).await;
    }

    /// Stops a pod that is being deleted, and then removes it.
    async fn remove_pod(self: Arc<Self>, pod: BoundPod) {
        if !pod.has_ended() {
            self.write(&pod, terminated_status(&pod, 143)).await;
        }
        self.persist(&pod, &Change::Delete).await;
    }

    async fn write(&self, pod: &BoundPod, status: Value) -> bool {
        // The UID protects another pod of the same name.
        self.persist(
            pod,
            &Change::Patch(json!({"metadata": {"uid": pod.uid()}, "status": status})),
        )
        .await
    }

    /// Makes a change, in up to three attempts. Returns whether it succeeded.
    async fn persist(&self, pod: &BoundPod, change: &Change) -> bool {
        for delay in [100, 1000, 5000] {
            let permit = self.permits.acquire().await;
            let result = self.make(pod, change).await;
            drop(permit);
            match result {
                Ok(()) => return true,
                // The pod was deleted.
                Err(kube::Error::Api(status)) if status.code == 404 => return false,
                Err(error) => eprintln!("simulated nodes: the pod {}: {error}", pod.name_any()),
            }
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        false
    }

    async fn make(&self, pod: &BoundPod, change: &Change) -> kube::Result<()> {
        let pods: Api<BoundPod> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        match change {
            Change::Patch(patch) => pods
                .patch_status(
                    &pod.name_any(),
                    &PatchParams::default(),
                    &Patch::Strategic(patch),
                )
                .await
                .map(|_| ()),
            Change::Delete => {
                let at_once = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: pod.uid(),
                        resource_version: None,
                    }),
                    ..DeleteParams::default().grace_period(0)
                };
                pods.delete(&pod.name_any(), &at_once).await.map(|_| ())
            }
        }
    }

    fn first_status(&self, pod: &BoundPod) -> Value {
        let address = Ipv4Addr::from(
            0x0a00_0000 | (self.next_address.fetch_add(1, Ordering::Relaxed) & 0x00ff_ffff),
        );
        let mut status = running_status(pod, !pod.waits_for_start());
        status["hostIP"] = json!(Ipv4Addr::LOCALHOST);
        status["podIP"] = json!(address);
        status["podIPs"] = json!([{"ip": address}]);
        status
    }
}

/// The status of a pod whose containers run.
fn running_status(pod: &BoundPod, ready: bool) -> Value {
    let started = &pod.status.start_time;
    let mut conditions = conditions(["Ready", "ContainersReady"], ready, None);
    conditions.extend(self::conditions(["Initialized"], true, None));
    json!({"phase": "Running", "startTime": started, "conditions": conditions,
        "containerStatuses": containers(pod, true, ready, &json!({"running": {"startedAt": started}}))})
}

/// The status of a pod whose containers have exited. A pod that never ran has no container statuses.
fn terminated_status(pod: &BoundPod, code: i32) -> Value {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let mut status = json!({"phase": phase, "conditions": conditions(["Ready", "ContainersReady"], false, Some("PodCompleted"))});
    if let Some(started) = &pod.status.start_time {
        let reason = if code == 0 { "Completed" } else { "Error" };
        let message = if code == 0 { results() } else { "" };
        let state = json!({"terminated":
            {"exitCode": code, "reason": reason, "message": message, "startedAt": started, "finishedAt": now()}});
        status["containerStatuses"] = containers(pod, false, false, &state);
    }
    status
}

/// The termination message of a worker of a real test.
pub fn results() -> &'static str {
    static RESULTS: LazyLock<String> = LazyLock::new(|| {
        let runs: Value = serde_json::from_str(include_str!(
            "../../worker/test/fixtures/artillery-2.0.34.json"
        ))
        .expect("this is JSON");
        runs[0]["messages"][0]
            .as_str()
            .expect("a worker has a message")
            .to_owned()
    });
    &RESULTS
}

fn conditions<const N: usize>(types: [&str; N], hold: bool, reason: Option<&str>) -> Vec<Value> {
    let status = if hold { "True" } else { "False" };
    types
        .iter()
        .map(
            |t| json!({"type": t, "status": status, "reason": reason, "lastTransitionTime": now()}),
        )
        .collect()
}

fn containers(pod: &BoundPod, started: bool, ready: bool, state: &Value) -> Value {
    let status = |c: &Container| {
        json!({"name": c.name, "image": c.image, "imageID": "simulated", "restartCount": 0, "ready": ready, "started": started,
            "state": state})
    };
    pod.spec.containers.iter().map(status).collect()
}

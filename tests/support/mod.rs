//! What the tests against a real API server share: a namespace and an operator process of their own, and waiting for a
//! state with a deadline. When a test fails, the objects, the events and the operator's log are printed.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, ResourceQuota};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config, Resource, ResourceExt};
use loadtest_api::{crd::crd, v1alpha1::LoadTest};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How long a test waits for a state, unless it says otherwise. Far more than it takes: only a fault waits this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The kubeconfig of the operators, where it is not that of the tests.
pub static OPERATOR_KUBECONFIG: OnceLock<PathBuf> = OnceLock::new();

/// The file of the workers' defaults that operators are given, where there is one.
static WORKER_DEFAULTS: OnceLock<&str> = OnceLock::new();

/// A namespace of its own, and an operator process that works in it alone.
pub struct Bed {
    pub client: Client,
    pub namespace: String,
    kubeconfig: PathBuf,
    operators: Vec<Operator>,
}

/// An operator process.
pub struct Operator {
    process: Child,
    log: PathBuf,
    pub probes: u16,
    pub metrics: u16,
}

/// A client of the cluster whose kubeconfig is given. The CRD is installed by the first who asks.
pub async fn connect(kubeconfig: &Path) -> Client {
    let read = Kubeconfig::read_from(kubeconfig)
        .unwrap_or_else(|e| panic!("cannot read {}: {e}", kubeconfig.display()));
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .unwrap();
    let client = Client::try_from(config).unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crd();
    let params = PatchParams::apply("tests").force();
    crds.patch(&crd.name_any(), &params, &Patch::Apply(&crd))
        .await
        .expect("the CRD is accepted");
    await_condition(crds, &crd.name_any(), conditions::is_crd_established())
        .await
        .unwrap();
    client
}

impl Operator {
    fn start(kubeconfig: &Path, namespace: &str, args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = std::env::temp_dir().join(format!(
            "operator-{}-{}-{namespace}.log",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        ));
        let process = Command::new(env!("CARGO_BIN_EXE_artillery-operator"))
            // Free ones, which it names in its log: those that were looked for before could be taken in between.
            .args([
                "--health-probe-bind-address=127.0.0.1:0",
                "--metrics-bind-address=127.0.0.1:0",
            ])
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            // As variables, so that a test can say otherwise by arguments.
            .env("NAMESPACES", namespace)
            .env("LEADER_ELECT_NAMESPACE", namespace)
            .env("RUST_LOG", "info,artillery_operator=debug")
            .envs(WORKER_DEFAULTS.get().map(|file| ("WORKER_DEFAULTS", file)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .expect("the operator's program starts");
        Self {
            process,
            log,
            probes: 0,
            metrics: 0,
        }
    }

    /// The port where something is served, once its log says so.
    fn port(&self, what: &str) -> Option<u16> {
        let log = self.log();
        // The last line may be half written.
        let (whole, _) = log.rsplit_once('\n')?;
        let line = whole
            .lines()
            .find(|line| line.contains(&format!("serving {what}")))?;
        line.rsplit_once(':')?.1.trim().parse().ok()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends the process at once, as a crash does.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks the process to end, and gives its exit code.
    pub async fn terminate(&mut self) -> i32 {
        let killed = Command::new("kill")
            .arg(self.process.id().to_string())
            .status()
            .unwrap();
        assert!(killed.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(begun.elapsed() < DEADLINE, "the operator does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

impl Bed {
    /// A namespace that enforces Pod Security `restricted`, with a test script in it, and no operator yet.
    pub async fn new(kubeconfig: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let client = connect(kubeconfig).await;
        let namespace = format!(
            "t{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let object: Namespace = from(json!({"metadata": {"name": namespace, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted"}}}));
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let bed = Self {
            client,
            namespace,
            kubeconfig: kubeconfig.to_owned(),
            operators: Vec::new(),
        };
        // Pods are refused until the controller manager has made this.
        bed.until_exists::<k8s_openapi::api::core::v1::ServiceAccount>("default")
            .await;
        bed
    }

    /// A namespace that is there and stays.
    pub async fn adopt(kubeconfig: &Path, namespace: &str) -> Self {
        let client = connect(kubeconfig).await;
        Self {
            client,
            namespace: namespace.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            operators: Vec::new(),
        }
    }

    /// The same as [`Bed::new`], with a script for `load_test` and an operator at work.
    pub async fn with_operator(kubeconfig: &Path) -> Self {
        let mut bed = Self::new(kubeconfig).await;
        bed.create_script("test-script").await;
        bed.start_operator(&[]).await;
        bed
    }

    pub async fn start_operator(&mut self, args: &[&str]) -> usize {
        let kubeconfig = OPERATOR_KUBECONFIG
            .get()
            .unwrap_or(&self.kubeconfig)
            .clone();
        self.start_operator_by(&kubeconfig, args).await
    }

    /// Starts an operator with a kubeconfig other than that of the tests.
    pub async fn start_operator_by(&mut self, kubeconfig: &Path, args: &[&str]) -> usize {
        self.operators
            .push(Operator::start(kubeconfig, &self.namespace, args));
        let index = self.operators.len() - 1;
        for what in ["probes", "metrics"] {
            let port = self
                .until(&format!("serving {what}"), async || {
                    self.operators[index].port(what)
                })
                .await;
            let operator = &mut self.operators[index];
            *(if what == "probes" {
                &mut operator.probes
            } else {
                &mut operator.metrics
            }) = port;
        }
        let port = self.operators[index].probes;
        self.until("the operator is ready", async || {
            (http_get(port, "/readyz").await?.0 == 200).then_some(())
        })
        .await;
        index
    }

    /// Waits until an operator has ended by itself.
    pub async fn until_operator_ends(&mut self, index: usize) {
        let begun = Instant::now();
        while self.operators[index].process.try_wait().unwrap().is_none() {
            assert!(
                begun.elapsed() < DEADLINE,
                "the operator goes on:\n{}",
                self.operators[index].log()
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    pub fn operator(&mut self, index: usize) -> &mut Operator {
        &mut self.operators[index]
    }

    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn create_script(&self, name: &str) {
        self.create::<ConfigMap>(json!({"metadata": {"name": name}, "data": {"test-script.yaml":
            "config: {target: 'http://target', phases: [{duration: 1, arrivalRate: 1}]}\nscenarios: [{flow: [{get: {url: /}}]}]\n"}}))
            .await;
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
    {
        self.try_create::<K>(object).await.unwrap()
    }

    /// Sends the object as it is, also where the types here would not take it.
    pub async fn try_create<K>(&self, object: Value) -> kube::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
    {
        let request = http::Request::post(K::url_path(&(), Some(&self.namespace)))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        self.client.request(request).await
    }

    /// Creates a `LoadTest` of so many workers, with the script `test-script`.
    pub async fn load_test(&self, name: &str, count: i32) -> LoadTest {
        self.create(load_test(name, count)).await
    }

    /// A test whose spec has these fields besides.
    pub async fn load_test_with(&self, name: &str, count: i32, fields: Value) -> LoadTest {
        let mut test = load_test(name, count);
        for (field, value) in fields.as_object().unwrap() {
            test["spec"][field] = value.clone();
        }
        self.create(test).await
    }

    /// From now on none of these is allowed, by a quota of the name `none`.
    pub async fn allow_none(&self, of: &str) {
        self.create::<ResourceQuota>(
            json!({"metadata": {"name": "none"}, "spec": {"hard": {of: "0"}}}),
        )
        .await;
        self.until("the quota is known", async || {
            self.api::<ResourceQuota>()
                .get("none")
                .await
                .unwrap()
                .status?
                .hard
                .map(drop)
        })
        .await;
    }

    /// Waits until something holds, asked again and again.
    pub async fn until<T>(&self, what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
        self.until_within(DEADLINE, what, check).await
    }

    /// The same, for what takes longer by its nature.
    pub async fn until_within<T>(
        &self,
        deadline: Duration,
        what: &str,
        mut check: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = check().await {
                return found;
            }
            assert!(
                begun.elapsed() < deadline,
                "waited {deadline:?} in vain until {what}\n{}",
                self.picture().await
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits for a state of a `LoadTest`, watching it, so that no state in between is missed.
    pub async fn until_test(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&LoadTest) -> bool,
    ) -> LoadTest {
        let selector = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut shown = std::pin::pin!(
            watcher(self.api::<LoadTest>(), selector)
                .default_backoff()
                .applied_objects()
        );
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                if let Ok(Some(test)) = shown.try_next().await
                    && check(&test)
                {
                    return test;
                }
            }
        });
        if let Ok(test) = found.await {
            return test;
        }
        panic!(
            "waited {DEADLINE:?} in vain until {name}: {what}\n{}",
            self.picture().await
        )
    }

    pub async fn until_phase(&self, name: &str, phase: &str) -> LoadTest {
        self.until_test(name, phase, |t| phase_of(t) == phase).await
    }

    pub async fn until_exists<K>(&self, name: &str) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = self.api();
        self.until(&format!("{} {name} exists", K::kind(&())), async || {
            api.get_opt(name).await.unwrap()
        })
        .await
    }

    /// Waits until nothing of this kind is left that the label names.
    pub async fn until_none<K>(&self, selector: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = self.api();
        let params = ListParams::default().labels(selector);
        self.until(&format!("no {} is left", K::kind(&())), async || {
            api.list(&params)
                .await
                .unwrap()
                .items
                .is_empty()
                .then_some(())
        })
        .await;
    }

    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::background())
            .await
            .unwrap();
    }

    /// The workers' pods of a test, by index, once there are so many.
    pub async fn pods(&self, test: &str, count: usize) -> Vec<Pod> {
        let api: Api<Pod> = self.api();
        let params = ListParams::default().labels(&format!("artillery.io/test-name={test}"));
        let mut pods = self
            .until(&format!("{test} has {count} pods"), async || {
                let pods = api.list(&params).await.unwrap().items;
                (pods.len() == count).then_some(pods)
            })
            .await;
        pods.sort_by_key(|p| {
            p.annotations()["batch.kubernetes.io/job-completion-index"]
                .parse::<u32>()
                .unwrap()
        });
        pods
    }

    /// Sets the state of a pod, as a kubelet would.
    pub async fn set_pod(&self, pod: &Pod, phase: &str, container_state: Value) {
        self.set_pod_and(pod, phase, container_state, [phase == "Running"; 2])
            .await;
    }

    async fn set_pod_and(
        &self,
        pod: &Pod,
        phase: &str,
        container_state: Value,
        [started, ready]: [bool; 2],
    ) {
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let status = json!({"status": {"phase": phase, "startTime": "2026-01-01T00:00:00Z", "containerStatuses": [{
            "name": container.name, "image": container.image, "imageID": "", "started": started, "ready": ready, "restartCount": 0,
            "state": container_state}]}});
        self.api::<Pod>()
            .patch_status(
                &pod.name_any(),
                &PatchParams::default(),
                &Patch::Merge(status),
            )
            .await
            .unwrap();
    }

    pub async fn set_running(&self, pod: &Pod) {
        self.set_running_and(pod, [true, true]).await;
    }

    /// Its container runs, and could begin its load or not, and knows when to or not.
    pub async fn set_running_and(&self, pod: &Pod, probes: [bool; 2]) {
        let since = k8s_openapi::jiff::Timestamp::now()
            .strftime("%FT%TZ")
            .to_string();
        self.set_pod_and(
            pod,
            "Running",
            json!({"running": {"startedAt": since}}),
            probes,
        )
        .await;
    }

    pub async fn set_exited(&self, pod: &Pod, code: i32, message: &str) {
        let (phase, reason) = if code == 0 {
            ("Succeeded", "Completed")
        } else {
            ("Failed", "Error")
        };
        let terminated = json!({"exitCode": code, "reason": reason, "message": message,
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:09Z"});
        self.set_pod(pod, phase, json!({"terminated": terminated}))
            .await;
    }

    /// The events of a test as `(type, reason, message)`, in the order of their creation.
    pub async fn events(&self, test: &str) -> Vec<(String, String, String)> {
        self.events_where(|e| e.involved_object.name.as_deref() == Some(test))
            .await
    }

    /// The events of this test alone, not of others that had its name.
    pub async fn events_of(&self, test: &LoadTest) -> Vec<(String, String, String)> {
        self.events_where(|e| e.involved_object.uid == test.uid())
            .await
    }

    async fn events_where(&self, about: impl Fn(&Event) -> bool) -> Vec<(String, String, String)> {
        let mut events = self
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        events.retain(|e| e.involved_object.kind.as_deref() == Some("LoadTest") && about(e));
        events.sort_by_key(|e| {
            e.metadata
                .resource_version
                .as_ref()
                .map(|v| v.parse::<u64>().unwrap())
        });
        for event in &events {
            assert_eq!(
                event.source.as_ref().unwrap().component.as_deref(),
                Some("loadtest-controller")
            );
            assert_eq!(event.count, Some(1));
        }
        events
            .into_iter()
            .map(|e| (e.type_.unwrap(), e.reason.unwrap(), e.message.unwrap()))
            .collect()
    }

    pub async fn event_reasons(&self, test: &str) -> Vec<String> {
        self.events(test)
            .await
            .into_iter()
            .map(|(_, reason, _)| reason)
            .collect()
    }

    /// Everything that helps to see why a test failed.
    pub async fn picture(&self) -> String {
        let mut text = String::new();
        for test in self
            .api::<LoadTest>()
            .list(&ListParams::default())
            .await
            .map(|l| l.items)
            .unwrap_or_default()
        {
            let status = serde_json::to_string_pretty(&test.status).unwrap();
            writeln!(text, "--- LoadTest {}: {status}", test.name_any()).unwrap();
        }
        for job in self
            .api::<Job>()
            .list(&ListParams::default())
            .await
            .map(|l| l.items)
            .unwrap_or_default()
        {
            writeln!(
                text,
                "--- Job {}: {}",
                job.name_any(),
                serde_json::to_string(&job.status).unwrap()
            )
            .unwrap();
        }
        for pod in self
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .map(|l| l.items)
            .unwrap_or_default()
        {
            writeln!(
                text,
                "--- Pod {}: {}",
                pod.name_any(),
                serde_json::to_string(&pod.status).unwrap()
            )
            .unwrap();
        }
        for event in self
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .map(|l| l.items)
            .unwrap_or_default()
        {
            let about = event.involved_object.name.unwrap_or_default();
            writeln!(
                text,
                "--- Event {about}: {:?} {:?}",
                event.reason, event.message
            )
            .unwrap();
        }
        for operator in &self.operators {
            writeln!(text, "--- the operator's log:\n{}", operator.log()).unwrap();
        }
        text
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // What the test left is removed by the namespace's deletion, which the API server carries out by itself.
        self.operators.clear();
        let (client, namespace) = (self.client.clone(), std::mem::take(&mut self.namespace));
        if namespace == "default" {
            return;
        }
        let delete = async move {
            let _ = Api::<Namespace>::all(client)
                .delete(&namespace, &DeleteParams::background())
                .await;
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(delete));
    }
}

pub fn load_test(name: &str, count: i32) -> Value {
    json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": name},
        "spec": {"count": count, "environment": "dev", "testScript": {"config": {"configMap": "test-script"}}}})
}

pub fn phase_of(test: &LoadTest) -> &str {
    test.status
        .as_ref()
        .and_then(|s| s.phase)
        .map_or("", |p| p.as_str())
}

/// The reason of a test's condition Progressing, which is its first; nothing while there is none.
pub fn condition_reason(test: &LoadTest) -> &str {
    test.status
        .as_ref()
        .and_then(|s| s.conditions.first())
        .map_or("", |c| c.reason.as_str())
}

/// The condition of a test as `(status, reason, message)`.
pub fn condition(test: &LoadTest, type_: &str) -> (String, String, String) {
    let conditions = test
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    let c = conditions
        .iter()
        .find(|c| c.type_ == type_)
        .unwrap_or_else(|| panic!("no condition {type_} in {conditions:?}"));
    (c.status.clone(), c.reason.clone(), c.message.clone())
}

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A GET on the loopback: the status and the body, or nothing if nobody listens.
pub async fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// The kubeconfig of a control plane that is started for the tests, if it is not up yet. It has no node, so the tests set the
/// states of pods; nobody else does, however long a test takes to do so.
pub fn control_plane() -> &'static Path {
    static KUBECONFIG: OnceLock<PathBuf> = OnceLock::new();
    KUBECONFIG.get_or_init(|| {
        WORKER_DEFAULTS.get_or_init(|| {
            concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/support/worker-defaults.yaml"
            )
        });
        let name = std::env::var("CLUSTER_NAME").unwrap_or_else(|_| "tests".to_owned());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/local-cluster/cluster.sh");
        let run = |command: &str| {
            let output = Command::new(script)
                .args(["control-plane", command, &name])
                .stderr(Stdio::inherit())
                .output();
            let output = output.unwrap_or_else(|e| panic!("cannot run {script}: {e}"));
            assert!(
                output.status.success(),
                "{script} control-plane {command} {name} failed: its messages are above"
            );
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        run("up");
        run("kubeconfig").into()
    })
}

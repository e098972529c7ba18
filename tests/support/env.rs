//! The environment of one test: a namespace and its operator processes. When a wait fails, the objects, the events and the
//! operators' logs are printed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use loadtest_api::v1alpha1::LoadTest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::DEADLINE;
use super::cluster::{self, connect, create_namespace, http_get};
use super::objects::{load_test, phase_of, script_config_map};
use super::process::{self, LogFile};

/// The kubeconfig of the operators, if it is not that of the tests.
pub static OPERATOR_KUBECONFIG: OnceLock<PathBuf> = OnceLock::new();

/// A namespace, and operator processes that work in it alone.
pub struct TestEnv {
    pub client: Client,
    pub namespace: String,
    kubeconfig: PathBuf,
    pub(super) operators: Vec<Operator>,
}

/// An operator process, and the ports it listens on.
pub struct Operator {
    process: process::Operator,
    pub probes: u16,
    pub metrics: u16,
}

impl Operator {
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends the process at once, as a crash does.
    pub async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Terminates the process, and returns its exit code.
    pub async fn terminate(&mut self) -> i32 {
        self.process.terminate().await
    }
}

impl TestEnv {
    /// A namespace that enforces Pod Security `restricted`, without a script and an operator.
    pub async fn new(kubeconfig: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{number}", std::process::id());
        let env = Self::adopt(kubeconfig, &name).await;
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        create_namespace(&env.client, &name, labels).await;
        env
    }

    /// An existing namespace.
    pub async fn adopt(kubeconfig: &Path, namespace: &str) -> Self {
        Self {
            client: connect(kubeconfig).await,
            namespace: namespace.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            operators: Vec::new(),
        }
    }

    /// The same as [`TestEnv::new`], with a script for `load_test` and an operator.
    pub async fn with_operator(kubeconfig: &Path) -> Self {
        let mut env = Self::new(kubeconfig).await;
        env.create_script("test-script").await;
        env.start_operator(&[]).await;
        env
    }

    pub async fn start_operator(&mut self, args: &[&str]) -> usize {
        let kubeconfig = OPERATOR_KUBECONFIG
            .get()
            .unwrap_or(&self.kubeconfig)
            .clone();
        self.start_operator_by(&kubeconfig, args).await
    }

    /// Starts an operator with another kubeconfig than that of the tests.
    pub async fn start_operator_by(&mut self, kubeconfig: &Path, args: &[&str]) -> usize {
        let mut command = process::command(kubeconfig, &self.namespace);
        // The operator logs which free ports it got. A port that is chosen here could be taken in between.
        command
            .args([
                "--health-probe-bind-address=127.0.0.1:0",
                "--metrics-bind-address=127.0.0.1:0",
            ])
            .args(args);
        let mut process = process::Operator::spawn(command, LogFile::new());
        let (probes, metrics) = (
            process.until_serving("probes").await,
            process.until_serving("metrics").await,
        );
        self.operators.push(Operator {
            process,
            probes,
            metrics,
        });
        self.until("the operator is ready", async || {
            (http_get(probes, "/readyz").await?.0 == 200).then_some(())
        })
        .await;
        self.operators.len() - 1
    }

    /// Waits until an operator has ended by itself.
    pub async fn until_operator_ends(&mut self, index: usize) {
        let operator = &mut self.operators[index];
        let ended = tokio::time::timeout(DEADLINE, operator.process.wait()).await;
        assert!(
            ended.is_ok(),
            "the operator does not end:\n{}",
            operator.log()
        );
    }

    /// Waits until an operator has logged a text.
    pub async fn until_logged(&self, index: usize, text: &str) {
        let operator = &self.operators[index];
        self.until(&format!("the log contains {text:?}"), async || {
            operator.log().contains(text).then_some(())
        })
        .await;
    }

    pub fn operator(&mut self, index: usize) -> &mut Operator {
        &mut self.operators[index]
    }

    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn create_script(&self, name: &str) {
        self.create::<ConfigMap>(script_config_map(name)).await;
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
    {
        self.try_create::<K>(object).await.unwrap()
    }

    /// Sends the JSON as it is, even where the Rust type would not accept it.
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

    /// Creates a `LoadTest` of `count` workers, with the script `test-script`.
    pub async fn load_test(&self, name: &str, count: i32) -> LoadTest {
        self.create(load_test(name, count)).await
    }

    /// The same, with further fields of the spec.
    pub async fn load_test_with(&self, name: &str, count: i32, fields: Value) -> LoadTest {
        let mut test = load_test(name, count);
        for (field, value) in fields.as_object().unwrap() {
            test["spec"][field] = value.clone();
        }
        self.create(test).await
    }

    /// Forbids objects of a resource, such as `pods`, by a quota of the name `none`.
    pub async fn forbid_by_quota(&self, resource: &str) {
        cluster::forbid_by_quota(&self.client, &self.namespace, resource).await;
    }

    /// Polls until `check` returns something.
    pub async fn until<T>(&self, what: &str, check: impl AsyncFnMut() -> Option<T>) -> T {
        self.until_within(DEADLINE, what, check).await
    }

    /// The same, with a deadline of its own.
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
                self.dump().await
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits for a state of a `LoadTest`. It is watched, so no intermediate state is missed.
    pub async fn until_test(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&LoadTest) -> bool,
    ) -> LoadTest {
        let selector = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut versions = std::pin::pin!(
            watcher(self.api::<LoadTest>(), selector)
                .default_backoff()
                .applied_objects()
        );
        let found = tokio::time::timeout(DEADLINE, async {
            loop {
                if let Ok(Some(test)) = versions.try_next().await
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
            self.dump().await
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

    /// A test as the API server gives it to kubectl get: a `Table`.
    pub async fn table(&self, name: &str) -> Value {
        let path = format!(
            "/apis/loadtest.artillery.io/v1alpha1/namespaces/{}/loadtests/{name}",
            self.namespace
        );
        let request = http::Request::get(path)
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(vec![])
            .unwrap();
        self.client.request(request).await.unwrap()
    }

    /// Waits until no object of this kind has the label.
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

    /// Waits until the object no longer exists.
    pub async fn until_deleted<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api: Api<K> = self.api();
        self.until(&format!("{} {name} is deleted", K::kind(&())), async || {
            api.get_opt(name).await.unwrap().is_none().then_some(())
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
}

impl Drop for TestEnv {
    fn drop(&mut self) {
        // The API server deletes the rest of the namespace by itself.
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

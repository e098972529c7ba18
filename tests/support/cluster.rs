//! Clients of the cluster, and what the tests install and create in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ResourceQuota, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Config, ResourceExt};
use loadtest_api::{crd::crd, v1alpha1::LoadTest};
use serde_json::{Value, json};

use super::DEADLINE;
use super::objects::from;
use super::process::WORKER_DEFAULTS;

/// The client configuration of a kubeconfig.
pub async fn client_config(kubeconfig: &Path) -> Config {
    let read = Kubeconfig::read_from(kubeconfig)
        .unwrap_or_else(|e| panic!("cannot read {}: {e}", kubeconfig.display()));
    Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .expect("the kubeconfig is usable")
}

/// A client of a cluster that serves `LoadTests`: it installs the CRD.
pub async fn connect(kubeconfig: &Path) -> Client {
    let client = Client::try_from(client_config(kubeconfig).await).unwrap();
    install_crd(&client).await;
    client
}

/// A client that does not retry requests: hidden retries would be uncounted requests, and slow ones.
pub async fn client_without_retries(kubeconfig: &Path) -> Client {
    let mut config = client_config(kubeconfig).await;
    config.default_retry = false;
    Client::try_from(config).expect("the kubeconfig is usable")
}

/// Applies the CRD, and waits until `LoadTests` can be watched.
pub async fn install_crd(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = crd();
    let params = PatchParams::apply("tests").force();
    crds.patch(&crd.name_any(), &params, &Patch::Apply(&crd))
        .await
        .expect("the CRD is accepted");
    let served = async {
        await_condition(crds, &crd.name_any(), conditions::is_crd_established())
            .await
            .unwrap();
        // The API server rejects watches of a new kind with 429 at first.
        let tests: Api<LoadTest> = Api::all(client.clone());
        let short = WatchParams::default().timeout(1);
        while tests.watch(&short, "0").await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, served)
        .await
        .expect("LoadTests can be watched");
}

/// Creates a namespace, and waits until pods can be created in it.
pub async fn create_namespace(client: &Client, name: &str, labels: Value) {
    let namespace: Namespace = from(json!({"metadata": {"name": name, "labels": labels}}));
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap_or_else(|e| panic!("cannot create the namespace {name}: {e}"));
    // Pods are rejected until the controller manager has created this.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    let exists = |account: Option<&ServiceAccount>| account.is_some();
    tokio::time::timeout(DEADLINE, await_condition(accounts, "default", exists))
        .await
        .expect("the default service account exists")
        .unwrap();
}

/// The name of the quota that [`forbid_by_quota`] creates.
pub const QUOTA: &str = "none";

/// Forbids objects of a resource in a namespace, such as `count/jobs.batch`. Returns when the quota is enforced.
pub async fn forbid_by_quota(client: &Client, namespace: &str, resource: &str) {
    let quota: ResourceQuota =
        from(json!({"metadata": {"name": QUOTA}, "spec": {"hard": {resource: "0"}}}));
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    quotas
        .create(&PostParams::default(), &quota)
        .await
        .expect("the quota is created");
    let enforced = |q: Option<&ResourceQuota>| {
        q.is_some_and(|q| q.status.as_ref().is_some_and(|s| s.hard.is_some()))
    };
    tokio::time::timeout(DEADLINE, await_condition(quotas, QUOTA, enforced))
        .await
        .expect("the quota is enforced")
        .unwrap();
}

/// A GET on the loopback interface: the status and the body, or nothing if nobody listens.
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

/// The kubeconfig of the control plane of the tests, which is started unless it is up. It has no node: the tests set the
/// states of pods, and nobody else does.
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

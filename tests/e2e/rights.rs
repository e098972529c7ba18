//! The operators of these tests have the rights of the installed one and no others. Here are the tests that need what no
//! other test uses; `replay` then compares what was granted with what was used.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use artillery_operator::runtime::leader_election::DEFAULT_LEASE_NAME;
use http::Request;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DeleteParams;
use kube::config::Kubeconfig;
use kube::{Api, Client, Config};
use loadtest_api::v1alpha1::LoadTest;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Bed, DEADLINE, OPERATOR_KUBECONFIG, load_test};
use crate::{cluster, kubectl, requests, script, target};

/// Where the operator is installed.
pub const NAMESPACE: &str = "artillery-operator-system";
/// The operator's service account, and its Deployment.
pub const NAME: &str = "artillery-operator-controller-manager";

/// Installs the operator without a running replica, and lets the operators of these tests be its service account.
pub fn take_those_of_the_installed_operator(admin: &Path) {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        apply(&manifests("config/default"));
        let user = format!("--as=system:serviceaccount:{NAMESPACE}:{NAME}");
        until_it_may(&["list", "pods", "--all-namespaces", &user]);
        until_it_may(&[
            "create",
            "subjectaccessreviews.authorization.k8s.io",
            "--all-namespaces",
            &user,
        ]);
        OPERATOR_KUBECONFIG
            .set(become_service_account(admin, NAMESPACE))
            .unwrap();
    });
}

/// The objects of a kustomization. The operator's Deployment has no replicas: a process of the tests takes its place.
pub fn manifests(folder: &str) -> Vec<Value> {
    let text = kubectl(&["kustomize", folder]);
    let objects =
        serde_yaml::Deserializer::from_str(&text).map(|object| Value::deserialize(object).unwrap());
    objects
        .map(|mut object| {
            if object["kind"] == "Deployment" {
                object["spec"]["replicas"] = json!(0);
            }
            object
        })
        .collect()
}

/// Applies objects as an administrator does.
pub fn apply(objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let mut child = Command::new("kubectl")
        .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("kubectl runs");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(list.to_string().as_bytes())
        .unwrap();
    assert!(
        child.wait().unwrap().success(),
        "kubectl apply: its message is above"
    );
}

/// A kubeconfig of the operator's service account in a namespace, with a token that ends by itself.
pub fn become_service_account(admin: &Path, namespace: &str) -> PathBuf {
    let user = format!("--as=system:serviceaccount:{namespace}:{NAME}");
    until_it_may(&[
        "update",
        &format!("leases.coordination.k8s.io/{DEFAULT_LEASE_NAME}"),
        "-n",
        namespace,
        &user,
    ]);
    let token = kubectl(&["create", "token", NAME, "-n", namespace, "--duration=4h"]);
    let kubeconfig = Kubeconfig::read_from(admin).unwrap();
    // The same in each run, so that no tokens pile up.
    let name = format!(
        "{}-{namespace}.kubeconfig",
        kubeconfig.current_context.clone().unwrap_or_default()
    );
    let mut kubeconfig = serde_json::to_value(kubeconfig).unwrap();
    for user in kubeconfig["users"].as_array_mut().unwrap() {
        user["user"] = json!({"token": token.trim()});
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name.replace('/', "_"));
    std::fs::write(&file, "").unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    file
}

/// Whether somebody may do something, as `kubectl auth can-i` is asked.
pub fn may(question: &[&str]) -> bool {
    Command::new("kubectl")
        .args(["auth", "can-i", "-q"])
        .args(question)
        .status()
        .expect("kubectl runs")
        .success()
}

/// The API server learns of a new binding by a watch: an operator that was quicker would be refused.
pub fn until_it_may(question: &[&str]) {
    let begun = Instant::now();
    while !may(question) {
        assert!(
            begun.elapsed() < DEADLINE,
            "the right does not come: {question:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_somebody_else_is_waited_for_and_left_alone() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    script(&bed, requests("/taken", 1)).await;
    let container = json!({"name": "c", "image": "artilleryio/artillery:latest"});
    bed.create::<Job>(
        json!({"metadata": {"name": "taken"}, "spec": {"suspend": true, "template": {"spec": {
        "restartPolicy": "Never", "containers": [container]}}}}),
    )
    .await;
    bed.start_operator(&[]).await;
    bed.create::<LoadTest>(load_test("taken", 1)).await;
    bed.until_test("taken", "it waits for the name", |test| {
        test.status
            .iter()
            .flat_map(|s| &s.conditions)
            .any(|c| c.type_ == "Progressing" && c.reason == "NameConflict")
    })
    .await;
    bed.delete::<Job>("taken").await;
    bed.until_phase("taken", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_is_taken_renewed_and_given_up() {
    let mut bed = Bed::new(&cluster()).await;
    let leases: Api<Lease> = Api::namespaced(bed.client.clone(), NAMESPACE);
    // One that an earlier run has left would be taken over instead of being created.
    let _ = leases
        .delete(DEFAULT_LEASE_NAME, &DeleteParams::default())
        .await;
    let operator = bed
        .start_operator(&[
            "--leader-elect",
            &format!("--leader-elect-namespace={NAMESPACE}"),
        ])
        .await;
    let lease = async || leases.get_opt(DEFAULT_LEASE_NAME).await.unwrap()?.spec;
    let taken = bed
        .until("the lease is taken", async || lease().await?.renew_time)
        .await;
    bed.until("the lease is renewed", async || {
        (lease().await?.renew_time? != taken).then_some(())
    })
    .await;
    assert_eq!(bed.operator(operator).terminate().await, 0);
    assert_eq!(lease().await.unwrap().holder_identity.as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_are_for_those_who_may_read_them() {
    let mut bed = Bed::new(&cluster()).await;
    let operator = bed.start_operator(&["--metrics-secure"]).await;
    let mut config = Config::new(
        format!("https://127.0.0.1:{}", bed.operator(operator).metrics)
            .parse()
            .unwrap(),
    );
    // Made by the operator at its start.
    config.accept_invalid_certs = true;
    config.default_retry = false;
    config.auth_info.token = Some(
        kubectl(&["create", "token", "default", "-n", &bed.namespace])
            .trim()
            .to_owned()
            .into(),
    );
    let prometheus = Client::try_from(config).unwrap();
    let scrape = async || {
        prometheus
            .request_text(Request::get("/metrics").body(Vec::new()).unwrap())
            .await
    };
    let refused = scrape().await.unwrap_err();
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.code == 403),
        "{refused}"
    );

    let account = format!("--serviceaccount={}:default", bed.namespace);
    let role = "--clusterrole=artillery-operator-metrics-reader";
    kubectl(&[
        "create",
        "clusterrolebinding",
        &bed.namespace,
        role,
        &account,
    ]);
    let metrics = bed
        .until("the right is seen", async || scrape().await.ok())
        .await;
    assert!(metrics.contains("artillery_operator_leader 1"), "{metrics}");
    kubectl(&["delete", "clusterrolebinding", &bed.namespace]);
}

//! The operators of these tests run as the service account of the installed operator. The tests in
//! this file use permissions that no other test uses; `rbac_audit` compares the granted permissions
//! with the used ones.

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

use crate::support::{DEADLINE, OPERATOR_KUBECONFIG, TestEnv, load_test};
use crate::{cluster, create_script, deploy_target, kubectl, script_with_requests};

/// The namespace of the installed operator.
pub const NAMESPACE: &str = "artillery-operator-system";
/// The name of the operator's service account and of its Deployment.
pub const NAME: &str = "artillery-operator-controller-manager";

/// Installs the operator without replicas, and makes the operators of these tests use its service
/// account.
pub fn use_installed_service_account(admin: &Path) {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        apply(&manifests("config/default"));
        let user = format!("--as=system:serviceaccount:{NAMESPACE}:{NAME}");
        until_allowed(&["list", "pods", "--all-namespaces", &user]);
        until_allowed(&[
            "create",
            "subjectaccessreviews.authorization.k8s.io",
            "--all-namespaces",
            &user,
        ]);
        OPERATOR_KUBECONFIG
            .set(service_account_kubeconfig(admin, NAMESPACE))
            .unwrap();
    });
}

/// Returns the objects of a kustomization. The operator's Deployment has no replicas, because the
/// tests start the operator as a process.
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

/// Applies objects with the permissions of an administrator.
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
        "kubectl apply failed; see its message above"
    );
}

/// Writes a kubeconfig for the operator's service account in a namespace, with a token that
/// expires.
pub fn service_account_kubeconfig(admin: &Path, namespace: &str) -> PathBuf {
    let user = format!("--as=system:serviceaccount:{namespace}:{NAME}");
    until_allowed(&[
        "update",
        &format!("leases.coordination.k8s.io/{DEFAULT_LEASE_NAME}"),
        "-n",
        namespace,
        &user,
    ]);
    let token = kubectl(&["create", "token", NAME, "-n", namespace, "--duration=4h"]);
    let kubeconfig = Kubeconfig::read_from(admin).unwrap();
    // The name is the same in each run, so that files with tokens do not accumulate.
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

/// Returns the answer of `kubectl auth can-i`.
pub fn can_i(args: &[&str]) -> bool {
    Command::new("kubectl")
        .args(["auth", "can-i", "-q"])
        .args(args)
        .status()
        .expect("kubectl runs")
        .success()
}

/// Waits until the API server has seen a new binding in its watch. Earlier requests are forbidden.
pub fn until_allowed(args: &[&str]) {
    let start = Instant::now();
    while !can_i(args) {
        assert!(start.elapsed() < DEADLINE, "still not allowed: {args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_waits_until_a_foreign_job_of_its_name_is_deleted() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    create_script(&env, script_with_requests("/taken", 1)).await;
    let container = json!({"name": "c", "image": "artilleryio/artillery:latest"});
    env.create::<Job>(
        json!({"metadata": {"name": "taken"}, "spec": {"suspend": true, "template": {"spec": {
        "restartPolicy": "Never", "containers": [container]}}}}),
    )
    .await;
    env.start_operator(&[]).await;
    env.create::<LoadTest>(load_test("taken", 1)).await;
    env.until_test("taken", "the conflict is reported", |test| {
        test.status
            .iter()
            .flat_map(|s| &s.conditions)
            .any(|c| c.type_ == "Progressing" && c.reason == "NameConflict")
    })
    .await;
    env.delete::<Job>("taken").await;
    env.until_phase("taken", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_is_acquired_renewed_and_released() {
    let mut env = TestEnv::new(&cluster()).await;
    let leases: Api<Lease> = Api::namespaced(env.client.clone(), NAMESPACE);
    // The operator would take over a lease of an earlier run, and not create one.
    let _ = leases
        .delete(DEFAULT_LEASE_NAME, &DeleteParams::default())
        .await;
    let operator = env
        .start_operator(&[
            "--leader-elect",
            &format!("--leader-elect-namespace={NAMESPACE}"),
        ])
        .await;
    let lease = async || leases.get_opt(DEFAULT_LEASE_NAME).await.unwrap()?.spec;
    let acquired = env
        .until("the lease is acquired", async || lease().await?.renew_time)
        .await;
    env.until("the lease is renewed", async || {
        (lease().await?.renew_time? != acquired).then_some(())
    })
    .await;
    assert_eq!(env.operator(operator).terminate().await, 0);
    assert_eq!(lease().await.unwrap().holder_identity.as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_require_the_metrics_reader_role() {
    let mut env = TestEnv::new(&cluster()).await;
    let operator = env.start_operator(&["--metrics-secure"]).await;
    let mut config = Config::new(
        format!("https://127.0.0.1:{}", env.operator(operator).metrics)
            .parse()
            .unwrap(),
    );
    // The operator creates its certificate at startup.
    config.accept_invalid_certs = true;
    config.default_retry = false;
    config.auth_info.token = Some(
        kubectl(&["create", "token", "default", "-n", &env.namespace])
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
    let error = scrape().await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 403),
        "{error}"
    );

    let account = format!("--serviceaccount={}:default", env.namespace);
    let role = "--clusterrole=artillery-operator-metrics-reader";
    kubectl(&[
        "create",
        "clusterrolebinding",
        &env.namespace,
        role,
        &account,
    ]);
    let metrics = env
        .until("the permission is effective", async || scrape().await.ok())
        .await;
    assert!(metrics.contains("artillery_operator_leader 1"), "{metrics}");
    kubectl(&["delete", "clusterrolebinding", &env.namespace]);
}

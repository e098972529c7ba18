//! Runs the operator's binary against a real node, with real Artillery and a target in the cluster.
//! The tests need the network of the cluster, so `make test` runs them by
//! `hack/local-cluster/cluster.sh exec cargo test --test e2e`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod delivery;
mod failures;
mod fake_kubectl;
mod installation;
mod kustomize;
mod live;
mod messages;
mod operator_identity;
mod pipelines;
mod pod_monitor;
mod published;
mod rbac_audit;
mod results;
mod screen;
mod security;
mod workers;

use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use support::{TestEnv, condition, load_test, phase_of};

fn cluster() -> PathBuf {
    let missing = "KUBECONFIG is not set. Run these tests with `make test`, or in the network of a cluster with \
                   `hack/local-cluster/cluster.sh exec cargo test --test e2e`.";
    let kubeconfig: PathBuf = std::env::var_os("KUBECONFIG").expect(missing).into();
    operator_identity::use_installed_service_account(&kubeconfig);
    kubeconfig
}

/// Runs kubectl in the root of the repository, and returns its output.
fn kubectl(args: &[&str]) -> String {
    let output = Command::new("kubectl")
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("kubectl runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "kubectl {}: {out}{err}",
        args.join(" ")
    );
    out.into_owned()
}

/// Locked by a test that applies an example to the namespace `default`, because the examples share
/// the name of their `ConfigMap`.
static DEFAULT_NAMESPACE: Mutex<()> = Mutex::const_new(());

/// Deploys the target of the examples to the namespace `default`, and waits until it is ready.
async fn deploy_target(env: &TestEnv) {
    static TARGET: OnceCell<()> = OnceCell::const_new();
    TARGET
        .get_or_init(async || {
            kubectl(&["apply", "-k", "hack/examples/target"]);
            until_target_is_ready(env, "default").await;
        })
        .await;
}

/// Applies the target of the examples to the namespace of the test, and waits until it is ready. On a busy node the workers can start
/// before it, and their requests would fail.
async fn apply_target(env: &TestEnv) {
    kubectl(&[
        "apply",
        "-n",
        &env.namespace,
        "-k",
        "hack/examples/target/in-any-namespace",
    ]);
    until_target_is_ready(env, &env.namespace).await;
}

/// Applies an example and its target to the namespace of the test.
async fn apply_with_target(env: &TestEnv, example: &str) {
    apply_target(env).await;
    kubectl(&[
        "apply",
        "-n",
        &env.namespace,
        "-k",
        &format!("hack/examples/{example}-loadtest"),
    ]);
}

/// Waits until a test has completed, and asserts that its workers sent the planned load.
async fn until_completed_as_planned(env: &TestEnv, name: &str) -> LoadTest {
    let test = env.until_phase(name, "Completed").await;
    let (delivered, reason, message) = condition(&test, "LoadDelivered");
    assert_eq!(
        (delivered.as_str(), reason.as_str()),
        ("True", "AsPlanned"),
        "{name}: {message}"
    );
    test
}

/// Waits until the target in a namespace is a ready endpoint of its Service.
async fn until_target_is_ready(env: &TestEnv, namespace: &str) {
    until_service_is_ready(env, namespace, "target").await;
}

/// Waits until a Service has a ready endpoint.
async fn until_service_is_ready(env: &TestEnv, namespace: &str, name: &str) {
    let slices: kube::Api<EndpointSlice> = kube::Api::namespaced(env.client.clone(), namespace);
    let endpoints = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    env.until(&format!("{name} is ready"), async || {
        let slices = slices.list(&endpoints).await.unwrap().items;
        slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .any(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
            .then_some(())
    })
    .await;
}

/// Returns the number of requests that the target has answered, by path.
fn requests_answered() -> Value {
    serde_json::from_str(&kubectl(&[
        "get",
        "--raw",
        "/api/v1/namespaces/default/services/target/proxy/requests",
    ]))
    .unwrap()
}

/// Creates the `ConfigMap` `test-script` with these files.
async fn create_script(env: &TestEnv, files: Value) {
    env.create::<ConfigMap>(json!({"metadata": {"name": "test-script"}, "data": files}))
        .await;
}

/// Returns a script that sends `count` requests to a path of the target.
fn script_with_requests(path: &str, count: u32) -> Value {
    json!({"test-script.yaml": format!(
        "config: {{target: 'http://target.default', phases: [{{duration: 1, arrivalCount: {count}}}], environments: {{dev: {{}}}}}}\n\
         scenarios: [{{flow: [{{get: {{url: {path}}}}}]}}]\n")})
}

/// Returns a script that sends one request per second to a path of the target.
fn script_with_constant_rate(path: &str, seconds: u32) -> Value {
    let text = script_with_requests(path, 1)["test-script.yaml"]
        .as_str()
        .unwrap()
        .to_owned();
    json!({"test-script.yaml": text.replace("duration: 1, arrivalCount: 1", &format!("duration: {seconds}, arrivalRate: 1"))})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_example_completes_and_sends_exactly_its_load() {
    let _lock = DEFAULT_NAMESPACE.lock().await;
    let mut env = TestEnv::adopt(&cluster(), "default").await;
    deploy_target(&env).await;
    if env
        .api::<LoadTest>()
        .get_opt("basic-test")
        .await
        .unwrap()
        .is_some()
    {
        kubectl(&["delete", "loadtest", "basic-test", "--wait"]);
        env.until_none::<Pod>("artillery.io/test-name=basic-test")
            .await;
    }
    env.start_operator(&[]).await;
    let before = requests_answered()["/"].as_u64().unwrap_or(0);

    let applied = kubectl(&["apply", "-k", "hack/examples/basic-loadtest"]);
    assert!(applied.contains("configmap/test-script "), "{applied}");
    assert!(
        applied.contains("loadtest.loadtest.artillery.io/basic-test created"),
        "{applied}"
    );
    env.until_phase("basic-test", "Running").await;
    let pods = env.pods("basic-test", 2).await;
    let shown = kubectl(&["get", "loadtests", "basic-test", "-o", "wide"]);
    let columns = |line: usize| {
        shown
            .lines()
            .nth(line)
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        columns(0),
        [
            "NAME",
            "STATUS",
            "COMPLETIONS",
            "DURATION",
            "AGE",
            "ENVIRONMENT",
            "VERDICT",
            "P95",
            "ERRORS",
            "RPS",
            "P99",
            "SENT",
            "IMAGE"
        ]
    );
    assert_eq!(
        (columns(1)[1], columns(1)[2], columns(1)[5]),
        ("Running", "0/2", "dev"),
        "{shown}"
    );

    kubectl(&[
        "wait",
        "--for=condition=Completed",
        "loadtest/basic-test",
        "--timeout=180s",
    ]);
    let test = until_completed_as_planned(&env, "basic-test").await;
    assert_eq!(
        test.status.as_ref().unwrap().completions.as_deref(),
        Some("2/2")
    );
    // Two workers send 3 requests per second for 60 s.
    assert_eq!(requests_answered()["/"].as_u64().unwrap() - before, 360);
    assert_eq!(
        test.status
            .as_ref()
            .unwrap()
            .results
            .as_ref()
            .unwrap()
            .requests,
        360,
        "the results agree with the target"
    );
    let mut messages: Vec<_> = env
        .events_of(&test)
        .await
        .into_iter()
        .map(|(_, _, message)| message)
        .collect();
    messages[1..3].sort();
    let mut expected = vec![
        "Created Load Test worker master job: basic-test".to_owned(),
        format!("Running Load Test worker pod: {}", pods[0].name_any()),
        format!("Running Load Test worker pod: {}", pods[1].name_any()),
        "Completed Load Test: all 2 workers succeeded.".to_owned(),
    ];
    expected[1..3].sort();
    assert_eq!(messages, expected);
    let log = env
        .api::<Pod>()
        .logs(&pods[0].name_any(), &LogParams::default())
        .await
        .unwrap();
    assert!(
        log.contains("http.codes.200: ") && log.contains("Summary report"),
        "{log}"
    );
    assert!(!log.contains("Telemetry is on"), "{log}");
    assert!(
        kubectl(&["describe", "loadtests", "basic-test"])
            .contains("loadtest-controller  Completed Load Test")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_script_fails_the_test_and_refers_to_the_worker_log() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let mut files = script_with_requests("/broken", 1);
    let text = files["test-script.yaml"]
        .as_str()
        .unwrap()
        .replace("config: {", "config: {processor: ./nowhere.js, ");
    files["test-script.yaml"] = json!(text);
    create_script(&env, files).await;
    env.start_operator(&[]).await;
    env.create::<LoadTest>(load_test("broken", 2)).await;
    let failed = env.until_phase("broken", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "WorkerFailed");
    assert!(
        message.starts_with("Worker ") && message.contains("failed with exit code "),
        "{message}"
    );
    assert!(
        message.contains(&format!("kubectl logs -n {} broken-", env.namespace)),
        "{message}"
    );
    let reasons = env.event_reasons("broken").await;
    assert_eq!(
        (reasons[0].as_str(), reasons.last().unwrap().as_str()),
        ("Created", "Failed"),
        "{reasons:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_starts_when_its_script_is_created() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let before = requests_answered()["/later"].as_u64().unwrap_or(0);
    env.start_operator(&[]).await;
    env.create::<LoadTest>(load_test("later", 1)).await;
    let waiting = env.until_phase("later", "Pending").await;
    assert_eq!(condition(&waiting, "Progressing").1, "MissingTestScript");
    // A ConfigMap that is created earlier may already be in the initial list, so that the
    // permission to watch is not used.
    let metrics = env.operator(0).metrics;
    env.until("the ConfigMap is watched", async || {
        let text = support::http_get(metrics, "/metrics").await?.1;
        text.lines()
            .any(|l| l.contains("verb=\"watch\",resource=\"configmaps\",code=\"200\""))
            .then_some(())
    })
    .await;
    create_script(&env, script_with_requests("/later", 5)).await;
    env.until_phase("later", "Completed").await;
    assert_eq!(requests_answered()["/later"].as_u64().unwrap() - before, 5);
    assert_eq!(
        env.event_reasons("later").await,
        ["MissingTestScript", "Created", "Running", "Completed"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_running_test_stops_its_load() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let before = requests_answered()["/deleted"].as_u64().unwrap_or(0);
    create_script(&env, script_with_constant_rate("/deleted", 600)).await;
    env.start_operator(&[]).await;
    env.create::<LoadTest>(load_test("deleted", 1)).await;
    env.until("the load has started", async || {
        (requests_answered()["/deleted"].as_u64()? > before).then_some(())
    })
    .await;
    assert_eq!(
        phase_of(&env.api::<LoadTest>().get("deleted").await.unwrap()),
        "Running"
    );
    env.delete::<LoadTest>("deleted").await;
    env.until_none::<Job>("artillery.io/test-name=deleted")
        .await;
    env.until_none::<Pod>("artillery.io/test-name=deleted")
        .await;
}

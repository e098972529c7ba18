//! Real workers: the operator's program, a real node, real Artillery, real requests to a target in the cluster. Run in a
//! cluster's network: `hack/local-cluster/cluster.sh exec cargo test --test e2e`, as `make test` does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod published;
mod replay;
mod results;
mod rights;
mod security;
mod told;
mod truth;
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

use support::{Bed, condition, load_test, phase_of};

fn cluster() -> PathBuf {
    let missing = "KUBECONFIG is not set: run these tests by `make test`, or in a cluster's network by \
                   `hack/local-cluster/cluster.sh exec cargo test --test e2e`";
    let kubeconfig: PathBuf = std::env::var_os("KUBECONFIG").expect(missing).into();
    rights::take_those_of_the_installed_operator(&kubeconfig);
    kubeconfig
}

/// Runs kubectl in the folder of the examples' readers, and gives what it prints.
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

/// Held by a test that applies an example: the `ConfigMap` `test-script` in `default` is of one at a time.
static EXAMPLE: Mutex<()> = Mutex::const_new(());

/// The target of the examples, in the namespace `default`, up and answering.
async fn target(bed: &Bed) {
    static TARGET: OnceCell<()> = OnceCell::const_new();
    TARGET
        .get_or_init(async || {
            kubectl(&["apply", "-k", "hack/examples/target"]);
            until_target_is_ready(bed, "default").await;
        })
        .await;
}

/// Applies an example that brings its target along to the test's own namespace.
async fn apply_with_target(bed: &Bed, example: &str) {
    // A node that is busy with other tests can take longer to start the target than the workers, whose requests are refused then.
    kubectl(&[
        "apply",
        "-n",
        &bed.namespace,
        "-k",
        "hack/examples/target/in-any-namespace",
    ]);
    until_target_is_ready(bed, &bed.namespace).await;
    kubectl(&[
        "apply",
        "-n",
        &bed.namespace,
        "-k",
        &format!("hack/examples/{example}-loadtest"),
    ]);
}

/// The examples' target in a namespace accepts requests, and is what its service leads to.
async fn until_target_is_ready(bed: &Bed, namespace: &str) {
    let slices: kube::Api<EndpointSlice> = kube::Api::namespaced(bed.client.clone(), namespace);
    let of_target = ListParams::default().labels("kubernetes.io/service-name=target");
    bed.until("the target is ready", async || {
        let slices = slices.list(&of_target).await.unwrap().items;
        slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .any(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
            .then_some(())
    })
    .await;
}

/// How many requests the target has answered, by path.
fn requests_answered() -> Value {
    serde_json::from_str(&kubectl(&[
        "get",
        "--raw",
        "/api/v1/namespaces/default/services/target/proxy/requests",
    ]))
    .unwrap()
}

async fn script(bed: &Bed, files: Value) {
    bed.create::<ConfigMap>(json!({"metadata": {"name": "test-script"}, "data": files}))
        .await;
}

/// A script that sends so many requests to a path of the target.
fn requests(path: &str, count: u32) -> Value {
    json!({"test-script.yaml": format!(
        "config: {{target: 'http://target.default', phases: [{{duration: 1, arrivalCount: {count}}}], environments: {{dev: {{}}}}}}\n\
         scenarios: [{{flow: [{{get: {{url: {path}}}}}]}}]\n")})
}

/// A script that sends one request a second to a path of the target for so long.
fn load(path: &str, seconds: u32) -> Value {
    let text = requests(path, 1)["test-script.yaml"]
        .as_str()
        .unwrap()
        .to_owned();
    json!({"test-script.yaml": text.replace("duration: 1, arrivalCount: 1", &format!("duration: {seconds}, arrivalRate: 1"))})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_basic_example_runs_to_its_end() {
    let _alone = EXAMPLE.lock().await;
    let mut bed = Bed::adopt(&cluster(), "default").await;
    target(&bed).await;
    if bed
        .api::<LoadTest>()
        .get_opt("basic-test")
        .await
        .unwrap()
        .is_some()
    {
        kubectl(&["delete", "loadtest", "basic-test", "--wait"]);
        bed.until_none::<Pod>("artillery.io/test-name=basic-test")
            .await;
    }
    bed.start_operator(&[]).await;
    let before = requests_answered()["/"].as_u64().unwrap_or(0);

    let applied = kubectl(&["apply", "-k", "hack/examples/basic-loadtest"]);
    assert!(applied.contains("configmap/test-script "), "{applied}");
    assert!(
        applied.contains("loadtest.loadtest.artillery.io/basic-test created"),
        "{applied}"
    );
    bed.until_phase("basic-test", "Running").await;
    let pods = bed.pods("basic-test", 2).await;
    let shown = kubectl(&["get", "loadtests", "basic-test", "-o", "wide"]);
    let words = |line: usize| {
        shown
            .lines()
            .nth(line)
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(0),
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
            "IMAGE"
        ]
    );
    assert_eq!(
        (words(1)[1], words(1)[2], words(1)[5]),
        ("Running", "0/2", "dev"),
        "{shown}"
    );

    kubectl(&[
        "wait",
        "--for=condition=Completed",
        "loadtest/basic-test",
        "--timeout=180s",
    ]);
    let test = bed.until_phase("basic-test", "Completed").await;
    assert_eq!(
        test.status.as_ref().unwrap().completions.as_deref(),
        Some("2/2")
    );
    // Two workers, 60 s at 3 a second each.
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
        "as the target has counted"
    );
    let mut told: Vec<_> = bed
        .events_of(&test)
        .await
        .into_iter()
        .map(|(_, _, message)| message)
        .collect();
    told[1..3].sort();
    let mut expected = vec![
        "Created Load Test worker master job: basic-test".to_owned(),
        format!("Running Load Test worker pod: {}", pods[0].name_any()),
        format!("Running Load Test worker pod: {}", pods[1].name_any()),
        "Completed Load Test: all 2 workers succeeded.".to_owned(),
    ];
    expected[1..3].sort();
    assert_eq!(told, expected);
    let log = bed
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
async fn a_script_that_fails_ends_the_test_with_the_workers_words() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    let mut files = requests("/broken", 1);
    let text = files["test-script.yaml"]
        .as_str()
        .unwrap()
        .replace("config: {", "config: {processor: ./nowhere.js, ");
    files["test-script.yaml"] = json!(text);
    script(&bed, files).await;
    bed.start_operator(&[]).await;
    bed.create::<LoadTest>(load_test("broken", 2)).await;
    let failed = bed.until_phase("broken", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "WorkerFailed");
    assert!(
        message.starts_with("Worker ") && message.contains("failed with exit code "),
        "{message}"
    );
    assert!(
        message.contains(&format!("kubectl logs -n {} broken-", bed.namespace)),
        "{message}"
    );
    let reasons = bed.event_reasons("broken").await;
    assert_eq!(
        (reasons[0].as_str(), reasons.last().unwrap().as_str()),
        ("Created", "Failed"),
        "{reasons:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_comes_later_is_waited_for() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    let before = requests_answered()["/later"].as_u64().unwrap_or(0);
    bed.start_operator(&[]).await;
    bed.create::<LoadTest>(load_test("later", 1)).await;
    let waiting = bed.until_phase("later", "Pending").await;
    assert_eq!(condition(&waiting, "Progressing").1, "MissingTestScript");
    // Before, its coming might be seen by the list that the watch begins with, and the right to watch not be used.
    let metrics = bed.operator(0).metrics;
    bed.until("the ConfigMap is watched", async || {
        let text = support::http_get(metrics, "/metrics").await?.1;
        text.lines()
            .any(|l| l.contains("verb=\"watch\",resource=\"configmaps\",code=\"200\""))
            .then_some(())
    })
    .await;
    script(&bed, requests("/later", 5)).await;
    bed.until_phase("later", "Completed").await;
    assert_eq!(requests_answered()["/later"].as_u64().unwrap() - before, 5);
    assert_eq!(
        bed.event_reasons("later").await,
        ["MissingTestScript", "Created", "Running", "Completed"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_while_running_stops_the_load() {
    let mut bed = Bed::new(&cluster()).await;
    target(&bed).await;
    let before = requests_answered()["/deleted"].as_u64().unwrap_or(0);
    script(&bed, load("/deleted", 600)).await;
    bed.start_operator(&[]).await;
    bed.create::<LoadTest>(load_test("deleted", 1)).await;
    bed.until("its load has begun", async || {
        (requests_answered()["/deleted"].as_u64()? > before).then_some(())
    })
    .await;
    assert_eq!(
        phase_of(&bed.api::<LoadTest>().get("deleted").await.unwrap()),
        "Running"
    );
    bed.delete::<LoadTest>("deleted").await;
    bed.until_none::<Job>("artillery.io/test-name=deleted")
        .await;
    bed.until_none::<Pod>("artillery.io/test-name=deleted")
        .await;
}

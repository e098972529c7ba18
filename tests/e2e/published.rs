//! The example whose workers publish their metrics, with a real Pushgateway and a real Prometheus.
//! The published metrics must agree with the requests that the target has answered.

use std::collections::BTreeSet;
use std::process::Command;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use loadtest_api::v1alpha1::LoadTest;
use serde_json::Value;

use super::support::TestEnv;
use super::{
    DEFAULT_NAMESPACE, cluster, deploy_target, kubectl, requests_answered,
    until_completed_as_planned,
};

const TEST: &str = "test-378dbbbd-03eb-4d0e-8a66-39033a76d0f3";
const PUSHGATEWAY: &str =
    "/api/v1/namespaces/default/services/prometheus-pushgateway:9091/proxy/metrics";
const PROMETHEUS: &str =
    "/api/v1/namespaces/monitoring/services/prometheus-k8s:9090/proxy/api/v1/query?query=";

/// Runs a script of hack/prom-pushgateway, and returns its output.
fn run_script(script: &str, args: &[&str]) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/prom-pushgateway");
    let output = Command::new(format!("{folder}/{script}"))
        .args(args)
        .output()
        .expect("the script runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{script}: {out}{err}");
    out.into_owned()
}

/// Returns the names of the Pushgateway's groups that contain a metric.
fn groups_with(metric: &str) -> BTreeSet<String> {
    let text = kubectl(&["get", "--raw", PUSHGATEWAY]);
    let job = |line: &str| {
        Some(
            line.strip_prefix(metric)?
                .split_once("job=\"")?
                .1
                .split_once('"')?
                .0
                .to_owned(),
        )
    };
    text.lines().filter_map(job).collect()
}

/// Queries Prometheus. Returns the labels and the value of each series.
fn query(expression: &str) -> Vec<(Value, String)> {
    let encoded = expression
        .bytes()
        .fold(String::new(), |text, byte| text + &format!("%{byte:02X}"));
    let response: Value = serde_json::from_str(&kubectl(&[
        "get",
        "--raw",
        &format!("{PROMETHEUS}{encoded}"),
    ]))
    .unwrap();
    let series = response["data"]["result"]
        .as_array()
        .unwrap_or_else(|| panic!("{expression}: {response}"));
    series
        .iter()
        .map(|s| {
            (
                s["metric"].clone(),
                s["value"][1].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// Returns the number of requests of this example that the target has answered.
fn answered() -> u64 {
    let requests = requests_answered();
    ["/", "/dino"]
        .iter()
        .map(|path| requests[path].as_u64().unwrap_or(0))
        .sum()
}

/// Returns the queries of the dashboard, with its variables set for this test.
fn dashboard_queries() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_str(include_str!("../../hack/prom-pushgateway/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let with_variables = |text: &str| {
        text.replace("${prefix}", "artillery_k8s")
            .replace("$load_test_id", TEST)
    };
    targets
        .map(|target| with_variables(target["expr"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_metrics_add_up_in_prometheus() {
    let _lock = DEFAULT_NAMESPACE.lock().await;
    let mut env = TestEnv::adopt(&cluster(), "default").await;
    deploy_target(&env).await;
    run_script("up.sh", &["--no-forward"]);
    if env.api::<LoadTest>().get_opt(TEST).await.unwrap().is_some() {
        kubectl(&["delete", "loadtest", TEST, "--wait"]);
        env.until_none::<Pod>(&format!("artillery.io/test-name={TEST}"))
            .await;
    }
    // The Pushgateway may still have metrics of an earlier run.
    run_script("clean.sh", &[TEST]);
    env.start_operator(&[]).await;
    let before = answered();

    let applied = kubectl(&["apply", "-k", "hack/examples/published-metrics-loadtest"]);
    assert!(applied.contains("configmap/test-script "), "{applied}");
    assert!(
        applied.contains(&format!("loadtest.loadtest.artillery.io/{TEST} created")),
        "{applied}"
    );
    let pods: BTreeSet<_> = env
        .pods(TEST, 4)
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    kubectl(&[
        "wait",
        "--for=condition=Completed",
        &format!("loadtest/{TEST}"),
        "--timeout=180s",
    ]);
    until_completed_as_planned(&env, TEST).await;
    // Four workers send 3 requests per second for 60 s.
    assert_eq!(answered() - before, 720);

    for metric in [
        "artillery_k8s_counters{",
        "artillery_k8s_rates{",
        "artillery_k8s_summaries{",
    ] {
        assert_eq!(groups_with(metric), pods, "{metric}");
    }

    let requests =
        format!("artillery_k8s_counters{{load_test_id=\"{TEST}\", metric=\"http_requests\"}}");
    let total = format!("sum({requests})");
    env.until("Prometheus has the sum", async || {
        (query(&total).first()?.1 == "720").then_some(())
    })
    .await;
    let series = query(&requests);
    assert_eq!(
        series
            .iter()
            .map(|(labels, _)| labels["job"].as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>(),
        pods
    );
    assert!(
        series
            .iter()
            .all(|(labels, requests)| labels["type"] == "loadtest" && requests == "180"),
        "{series:?}"
    );
    for expression in dashboard_queries() {
        // Some panels show a worker only while it pushes.
        let shown = query(&format!("last_over_time(({expression})[2m:1s])"));
        assert!(
            !shown.is_empty(),
            "a panel of the dashboard is empty: {expression}"
        );
    }

    // A worker of another test, whose name starts with the name of this test.
    let other = format!("{TEST}-0-0-abcde");
    let file = std::env::temp_dir().join(format!("pushed-{}", std::process::id()));
    std::fs::write(&file, "other 1\n").unwrap();
    kubectl(&[
        "create",
        "--raw",
        &format!("{PUSHGATEWAY}/job/{other}"),
        "-f",
        file.to_str().unwrap(),
    ]);
    std::fs::remove_file(&file).unwrap();
    let removed = run_script("clean.sh", &[TEST]);
    assert_eq!(
        removed.lines().collect::<BTreeSet<_>>().len(),
        4,
        "{removed}"
    );
    let left = groups_with("push_time_seconds{");
    assert!(left.is_disjoint(&pods) && left.contains(&other), "{left:?}");
    run_script("clean.sh", &[&format!("{TEST}-0")]);
    assert!(!groups_with("push_time_seconds{").contains(&other));
    env.until("the series are stale in Prometheus", async || {
        query(&total).is_empty().then_some(())
    })
    .await;
}

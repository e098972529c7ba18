//! Measures the operator against a control plane with simulated nodes: how soon a test starts and is reported as finished,
//! how many requests the operator sends, also without changes, and its CPU time and memory. `hack/bench.sh` runs it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::doc_markdown
)]

mod baseline;
mod degraded_api_server;
mod existing_load;
mod instructions;
mod large_test;
mod life;
mod plan;
mod resource_usage;
mod seed;
mod table;
mod tenants;
mod watch_recorder;

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use plan::Plan;
use support::audit::Request;
use support::cluster::{client_without_retries, create_namespace, install_crd};
use support::nodes::{BoundPod, Fate, Options, SimulatedNodes};
use support::objects::{from, script_config_map};
use watch_recorder::WatchRecorder;

const USAGE: &str = "usage: bench N COUNT CONCURRENCY -- operator command...
       bench --case CASE[,CASE] N CONCURRENCY -- operator command...

Creates N LoadTests of COUNT workers, CONCURRENCY at a time, and measures the operator. Or measures a case:
  depth         one LoadTest of N workers
  memory        N finished LoadTests with their Jobs and two pods each: memory
  rest          the same: requests and CPU time
  restart       the same: a restart, and a takeover after the leader was killed
  refresh       N running LoadTests of which only DURATION changes
  foreign       N pods and Jobs of others: memory and CPU time
  degraded      429 for a minute, 2 s more for each request, and N LoadTests in a namespace whose quota forbids Jobs
  tenants       N suspended LoadTests with inline scripts of 60 KiB, and other inputs in proportion: memory, and the wait of others
  instructions  CPU instructions of a decision and of an event, with valgrind; needs no control plane
memory, rest and restart can be combined with commas and then measure the same LoadTests.

The baseline of LoadTest -> Job is a bare client, which is measured after the operator. It creates LoadTests with the same
concurrency, and each Job right after its LoadTest, with the same pods, scheduler and nodes, but writes no status and no event.

The control plane must be new, since nothing of an earlier run is removed. Environment:
  KUBECONFIG           the administrator's kubeconfig (one file)
  OPERATOR_KUBECONFIG  the operator's kubeconfig, with a user of its own
  OPERATOR_USER        the name of this user (operator)
  AUDIT_LOG            the API server's audit log (audit.log beside KUBECONFIG)
  RUN_S                seconds that a worker runs, plus 0 to 5 (30)
  QUIET_S              seconds that are observed after the end (20)
  LIMIT_S              maximum of seconds until the end (900)
  NODES                number of simulated nodes (20)";

/// The namespaces of the measured tests, of the tests that measure the start of the operator, and of the baseline.
const NAMESPACE: &str = "bench";
const START: &str = "bench-start";
const BASELINE: &str = "bench-baseline";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    if instructions::is_requested() {
        return instructions::measure();
    }
    let Some(plan) = Plan::from_args() else {
        println!("{USAGE}");
        return;
    };
    println!(
        "{} LoadTests of {} workers, {} at a time; load average {}",
        plan.tests,
        plan.count,
        plan.concurrency,
        load_average()
    );
    let kubeconfig = std::env::var_os("KUBECONFIG").expect("KUBECONFIG is set");
    let client = client_without_retries(Path::new(&kubeconfig)).await;
    install_crd(&client).await;
    prepare(&client).await;
    let cases: Vec<&str> = plan.cases.iter().map(String::as_str).collect();
    match cases.as_slice() {
        [] => life::measure(&client, &plan).await,
        ["depth"] => {
            let _nodes = start_nodes(&client, &plan).await;
            large_test::measure(&client, &plan).await;
        }
        ["degraded"] => {
            let _nodes = start_nodes(&client, &plan).await;
            degraded_api_server::measure(&client, &plan).await;
        }
        ["tenants"] => tenants::measure(&client, &plan).await,
        ["foreign"] => existing_load::foreign(&client, &plan).await,
        ["refresh"] => existing_load::refresh(&client, &plan).await,
        parts
            if parts
                .iter()
                .all(|p| ["memory", "rest", "restart"].contains(p)) =>
        {
            existing_load::finished(&client, &plan, parts).await;
        }
        _ => println!("{USAGE}"),
    }
    println!("load average at the end {}", load_average());
}

async fn start_nodes(client: &Client, plan: &Plan) -> SimulatedNodes {
    let run = plan.run;
    let fate = move |pod: &BoundPod| Fate::Succeed {
        after: run + Duration::from_millis(pod.spread(5000)),
    };
    SimulatedNodes::start(client.clone(), Options::new(plan.nodes, fate)).await
}

/// Creates the namespaces, each with the script.
async fn prepare(client: &Client) {
    for name in [NAMESPACE, START, BASELINE] {
        create_namespace(client, name, json!({})).await;
        let script: ConfigMap = from(script_config_map("test-script"));
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), name);
        maps.create(&PostParams::default(), &script)
            .await
            .expect("the test script is created");
    }
}

async fn create_all(client: &Client, plan: &Plan, recorder: &WatchRecorder) {
    create_all_in(client, plan, recorder, NAMESPACE, "lt").await;
}

/// Creates LoadTests as fast as the API server accepts them, with the concurrency of the plan.
async fn create_all_in(
    client: &Client,
    plan: &Plan,
    recorder: &WatchRecorder,
    namespace: &str,
    prefix: &str,
) {
    let api: Api<LoadTest> = Api::namespaced(client.clone(), namespace);
    stream::iter(0..plan.tests)
        .for_each_concurrent(plan.concurrency, |i| {
            let api = api.clone();
            async move {
                let name = format!("{prefix}-{i:05}");
                let test: LoadTest = from(load_test(&name, plan.count));
                recorder.record_created(&name);
                if let Err(error) = api.create(&PostParams::default(), &test).await {
                    println!("cannot create {name}: {error}");
                }
            }
        })
        .await;
}

/// Whether a request concerns one test, as far as the log shows: no lease, watch or list, and nothing of the server itself.
fn is_for_one_test(request: &Request) -> bool {
    !request.is_lease()
        && !request.namespace.is_empty()
        && !matches!(request.verb.as_str(), "list" | "watch")
}

/// A LoadTest with the script `test-script`.
fn load_test(name: &str, count: usize) -> Value {
    json!({"metadata": {"name": name},
        "spec": {"count": count, "environment": "bench", "testScript": {"config": {"configMap": "test-script"}}}})
}

/// Polls until a check holds.
async fn until(what: &str, limit: Duration, mut check: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !check().await {
        assert!(
            begun.elapsed() < limit,
            "waited {limit:?} in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The load average, since other load of this machine affects every figure.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// The parameters of one page of a list.
fn page(token: Option<String>) -> ListParams {
    ListParams {
        limit: Some(500),
        continue_token: token,
        ..ListParams::default()
    }
}

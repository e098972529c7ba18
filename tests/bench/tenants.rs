//! Tenants that create what one of them may create: memory of the operator, and how long tests of another namespace wait.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::plan::Plan;
use crate::resource_usage::ResourceUsage;
use crate::support::objects::from;
use crate::support::process::Operator;
use crate::table::{Line, print, quantile};
use crate::watch_recorder::WatchRecorder;
use crate::{NAMESPACE, START, load_average, until};

/// What is created, how many of it for `n` of the first input, and one of it.
type Input = (&'static str, fn(usize) -> usize, fn(usize) -> Value);

/// The inputs, for `n` tests of the first. The objects of the others are in the proportion of a first measurement: as many as ended
/// an operator that bounded nothing.
const INPUTS: [Input; 4] = [
    (
        "suspended LoadTests with inline scripts of 60 KiB",
        |n| n,
        |i| {
            let script = format!("# {}\nscenarios: []\n", "x".repeat(60 << 10));
            json!({"metadata": {"name": format!("inline-{i}")},
                "spec": {"suspend": true, "testScript": {"inline": script}}})
        },
    ),
    (
        "suspended LoadTests with variables of 1.25 MB",
        |n| (n * 90).div_ceil(1500),
        |i| {
            let value = "x".repeat(5 << 10);
            let variables: Value = (0..250).map(|v| (format!("v{v}"), value.clone())).collect();
            json!({"metadata": {"name": format!("variables-{i}")},
                "spec": {"suspend": true, "variables": variables, "testScript": {"config": {"configMap": "none"}}}})
        },
    ),
    (
        "LoadTests that wait for ConfigMaps that do not exist",
        |n| (n * 2500).div_ceil(1500),
        |i| {
            json!({"metadata": {"name": format!("waiting-{i}")},
                "spec": {"startDeadlineSeconds": 7200, "testScript": {"config": {"configMap": format!("none-{i}")}}}})
        },
    ),
    (
        "pods with the label of workers and 1.25 MB of environment",
        |n| (n * 120).div_ceil(1500),
        |i| {
            let env = json!([{"name": "A", "value": "x".repeat(1_250_000)}]);
            json!({"metadata": {"name": format!("foreign-{i}"), "labels": {"artillery.io/component": "loadtest-worker"}},
                "spec": {"nodeSelector": {"no": "node"}, "containers": [{"name": "c", "image": "none", "env": env}]}})
        },
    ),
];

pub async fn measure(client: &Client, plan: &Plan) {
    for (what, count, object) in INPUTS {
        let mut lines = Vec::new();
        let n = count(plan.tests);
        // Twice as many pods are too many for the API server.
        let reference = if is_pod(&object(0)) {
            Vec::new()
        } else {
            watch_delay_without_operator(client, plan, n, object).await
        };
        let mut operator = plan.start_operator();
        wait_until_it_works(client, plan, n).await;
        let recorder = WatchRecorder::follow(client, START).await;
        let Created {
            accepted,
            others,
            posts,
        } = create_all(client, plan, n, object, &recorder).await;
        lines.push(Line::info(
            &format!("{n} {what}: accepted"),
            accepted.to_string(),
        ));
        until("the Jobs of the others", plan.limit, async || {
            recorder.jobs() == others + 1
        })
        .await;
        tokio::time::sleep(plan.quiet).await;
        record(&mut lines, "  memory, at most, MiB", &operator);
        let p95 = quantile(&recorder.create_to_job(), 0.95);
        lines.push(Line::at_most(
            "  LoadTest -> Job of others, p95 s",
            p95,
            2,
            2.0,
        ));
        for (what, took) in [
            ("    until the API server has stored the LoadTest", posts),
            (
                "    until a watch delivers the LoadTest",
                recorder.create_to_test(),
            ),
            (
                "  without an operator, until a watch delivers it",
                reference,
            ),
        ]
        .into_iter()
        .filter(|(_, took)| !took.is_empty())
        {
            let p95 = format!("{:.2}", quantile(&took, 0.95));
            lines.push(Line::info(&format!("{what}, p95 s"), p95));
        }
        operator.terminate().await;

        create_other(client, &recorder, &format!("restart-{n}")).await;
        let (begun, jobs) = (Instant::now(), recorder.jobs());
        let mut operator = plan.start_operator();
        until("a Job after the restart", plan.limit, async || {
            recorder.jobs() > jobs
        })
        .await;
        let took = begun.elapsed().as_secs_f64();
        tokio::time::sleep(plan.quiet).await;
        record(
            &mut lines,
            "  memory after a restart, at most, MiB",
            &operator,
        );
        lines.push(Line::at_most(
            "  restart -> Job of another, s",
            took,
            2,
            10.0,
        ));
        assert!(
            operator.is_alive(),
            "the operator ended: {}",
            operator.log()
        );
        operator.terminate().await;
        println!("{what}: done; load average {}", load_average());
        print("what one tenant can create", &lines);
        delete_all(client).await;
    }
}

/// Returns how long a watch takes to deliver the tests of the others while the objects are created, in seconds.
async fn watch_delay_without_operator(
    client: &Client,
    plan: &Plan,
    n: usize,
    object: fn(usize) -> Value,
) -> Vec<f64> {
    let recorder = WatchRecorder::follow(client, START).await;
    let Created { others, .. } = create_all(client, plan, n, object, &recorder).await;
    until("the watch of the reference", plan.limit, async || {
        recorder.tests() == others
    })
    .await;
    delete_all(client).await;
    recorder.create_to_test()
}

/// Waits until the operator has created a Job, so that its start is not measured.
async fn wait_until_it_works(client: &Client, plan: &Plan, n: usize) {
    let recorder = WatchRecorder::follow(client, START).await;
    create_other(client, &recorder, &format!("before-{n}")).await;
    until("the first Job", plan.limit, async || recorder.jobs() == 1).await;
}

fn record(lines: &mut Vec<Line>, what: &str, operator: &Operator) {
    lines.push(Line::at_most(what, operator.memory().peak, 1, 64.0));
}

fn is_pod(object: &Value) -> bool {
    !object["spec"]["containers"].is_null()
}

/// What [`create_all`] created.
struct Created {
    /// How many of the objects the API server accepted.
    accepted: usize,
    /// How many tests of the other namespace.
    others: usize,
    /// How long the requests for those took, in seconds.
    posts: Vec<f64>,
}

/// Creates the objects, and during this one test of another namespace per second.
async fn create_all(
    client: &Client,
    plan: &Plan,
    n: usize,
    object: fn(usize) -> Value,
    recorder: &WatchRecorder,
) -> Created {
    let (tests, pods): (Api<LoadTest>, Api<Pod>) = (
        Api::namespaced(client.clone(), NAMESPACE),
        Api::namespaced(client.clone(), NAMESPACE),
    );
    let creations = stream::iter(0..n)
        .map(async |i| {
            let (object, how) = (object(i), PostParams::default());
            usize::from(if is_pod(&object) {
                pods.create(&how, &from(object)).await.is_ok()
            } else {
                tests.create(&how, &from(object)).await.is_ok()
            })
        })
        .buffer_unordered(plan.concurrency)
        .fold(0, async |sum, one| sum + one);
    let others_created = AtomicUsize::new(0);
    let posts = RefCell::new(Vec::new());
    let others = async {
        loop {
            let i = others_created.fetch_add(1, Ordering::Relaxed);
            let begun = Instant::now();
            create_other(client, recorder, &format!("other-{n}-{i}")).await;
            posts.borrow_mut().push(begun.elapsed().as_secs_f64());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        accepted = creations => Created { accepted, others: others_created.load(Ordering::Relaxed), posts: posts.take() },
        () = others => unreachable!("it has no end"),
    }
}

async fn create_other(client: &Client, recorder: &WatchRecorder, name: &str) {
    recorder.record_created(name);
    let test: LoadTest = from(crate::load_test(name, 1));
    let api = Api::namespaced(client.clone(), START);
    api.create(&PostParams::default(), &test)
        .await
        .expect("a LoadTest is created");
}

async fn delete_all(client: &Client) {
    delete_all_of::<LoadTest>(client, NAMESPACE).await;
    delete_all_of::<LoadTest>(client, START).await;
    delete_all_of::<Pod>(client, NAMESPACE).await;
}

async fn delete_all_of<K>(client: &Client, namespace: &str)
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    loop {
        let Ok(page) = api.list_metadata(&ListParams::default().limit(100)).await else {
            continue;
        };
        if page.items.is_empty() {
            return;
        }
        // One request for all of them would take longer than the API server allows.
        stream::iter(page.items)
            .for_each_concurrent(20, async |object| {
                let now = DeleteParams::default().grace_period(0);
                if let Err(error) = api.delete(&object.name_any(), &now).await {
                    println!("cannot delete {}: {error}", object.name_any());
                }
            })
            .await;
    }
}

//! Measures a `LoadTest` and a bare Indexed Job with the same workers on a real node, alternately: the time until pods exist and
//! run, until the load begins, between the first and the last worker's load, and until the end is reported.
//! `hack/bench-node.sh` runs it in a cluster's network, with an installed operator.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use artillery_operator::build::build_job;
use artillery_operator::config::WorkerConfig;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Api, DeleteParams, LogParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use loadtest_api::v1alpha1::{LoadTest, Phase, Start};
use loadtest_script::ScriptInfo;
use serde_json::json;

const WORKERS: i32 = 4;
const ROUNDS: usize = 3;
/// The timeout of one run.
const TIMEOUT: Duration = Duration::from_secs(180);

const SCRIPT: &str = "config: {target: 'http://target', phases: [{duration: 15, arrivalRate: 5}]}\n\
                      scenarios: [{flow: [{get: {url: /bench}}]}]\n";

/// The times of one run, in seconds since the creation.
#[derive(Debug)]
struct Run {
    pods_exist: f64,
    running: f64,
    /// The begin of the first worker's first phase.
    load: f64,
    /// The time between the first phases of the first and the last worker.
    skew: f64,
    last_pod_ended: f64,
    /// The time from the end of the last pod until the Job or the `LoadTest` reports it.
    reported_after: f64,
}

#[tokio::main]
async fn main() {
    let client = Client::try_default()
        .await
        .expect("a cluster: run hack/bench-node.sh");
    let scripts: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let script = json!({"metadata": {"name": "bench-node"}, "data": {"test-script.yaml": SCRIPT}});
    let _ = scripts.delete("bench-node", &DeleteParams::default()).await;
    scripts
        .create(
            &PostParams::default(),
            &serde_json::from_value(script).unwrap(),
        )
        .await
        .unwrap();
    // The bare Job needs the worker files too. The operator may have created them already.
    let _ = scripts
        .create(
            &PostParams::default(),
            &artillery_operator::build::config_map("default"),
        )
        .await;

    println!(
        "{WORKERS} workers, 15 s at 5 requests/s each; seconds since the creation; {ROUNDS} alternating rounds"
    );
    println!(
        "{:<12} {:>10} {:>8} {:>10} {:>6} {:>14} {:>14}",
        "", "pods exist", "all run", "first load", "skew", "last pod ended", "reported after"
    );
    let mut runs: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    for round in 0..ROUNDS {
        for kind in ["bare Job", "LoadTest"] {
            let run = measure(
                &client,
                kind,
                &format!("bench-node-{}-{round}", &kind[..4].trim().to_lowercase()),
            )
            .await;
            show(kind, &run);
            runs.entry(kind).or_default().push(run);
        }
    }
    for (kind, runs) in &runs {
        let median = |value: fn(&Run) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let run = Run {
            pods_exist: median(|r| r.pods_exist),
            running: median(|r| r.running),
            load: median(|r| r.load),
            skew: median(|r| r.skew),
            last_pod_ended: median(|r| r.last_pod_ended),
            reported_after: median(|r| r.reported_after),
        };
        show(&format!("{kind}, p50"), &run);
    }
    scripts
        .delete("bench-node", &DeleteParams::default())
        .await
        .unwrap();
}

fn show(kind: &str, r: &Run) {
    println!(
        "{kind:<14} {:>8.2} {:>8.2} {:>10.2} {:>6.2} {:>14.2} {:>14.3}",
        r.pods_exist, r.running, r.load, r.skew, r.last_pod_ended, r.reported_after
    );
}

async fn measure(client: &Client, kind: &str, name: &str) -> Run {
    let mut test: LoadTest = serde_json::from_value(json!({
        "apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": name, "namespace": "default"},
        "spec": {"count": WORKERS, "testScript": {"config": {"configMap": "bench-node"}}}}))
    .unwrap();
    let (tests, jobs): (Api<LoadTest>, Api<Job>) = (
        Api::namespaced(client.clone(), "default"),
        Api::namespaced(client.clone(), "default"),
    );
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let in_background = DeleteParams::background();
    let _ = tests.delete(name, &in_background).await;
    let _ = jobs.delete(name, &in_background).await;

    let selector = watcher::Config::default().labels(&format!("artillery.io/test-name={name}"));
    let by_name = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut pod_events = watcher(pods.clone(), selector).default_backoff().boxed();
    let mut test_events = watcher(tests.clone(), by_name.clone())
        .default_backoff()
        .applied_objects()
        .boxed();
    let mut job_events = watcher(jobs.clone(), by_name)
        .default_backoff()
        .applied_objects()
        .boxed();
    // The watch begins before the creation.
    while !matches!(
        pod_events.try_next().await.unwrap(),
        Some(watcher::Event::InitDone)
    ) {}

    let (begun, begun_at) = (Instant::now(), Timestamp::now());
    if kind == "LoadTest" {
        tests.create(&PostParams::default(), &test).await.unwrap();
    } else {
        // Without the operator these workers get no start time.
        test.spec.start = Some(Start::Immediate);
        let mut bare = build_job(&test, &WorkerConfig::default(), &ScriptInfo::default());
        bare.metadata.owner_references = None;
        jobs.create(&PostParams::default(), &bare).await.unwrap();
    }
    let (mut exist, mut run, mut ended) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut pods_exist, mut running, mut last_pod_ended, mut reported) = (None, None, None, None);
    let all = usize::try_from(WORKERS).unwrap();
    let watching = async {
        while last_pod_ended.is_none() || reported.is_none() {
            tokio::select! {
                Ok(Some(event)) = pod_events.try_next() => {
                    let (watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event else { continue };
                    let now = begun.elapsed();
                    exist.insert(pod.name_any());
                    let states = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).filter_map(|c| c.state.clone());
                    for state in states {
                        if state.running.is_some() {
                            run.insert(pod.name_any());
                        }
                        if state.terminated.is_some() {
                            ended.insert(pod.name_any());
                        }
                    }
                    for (set, at) in [(&exist, &mut pods_exist), (&run, &mut running), (&ended, &mut last_pod_ended)] {
                        if set.len() == all && at.is_none() {
                            *at = Some(now);
                        }
                    }
                }
                Ok(Some(test)) = test_events.try_next() => {
                    let phase = test.status.and_then(|s| s.phase);
                    assert_ne!(phase, Some(Phase::Failed), "the LoadTest failed");
                    if phase == Some(Phase::Completed) && reported.is_none() {
                        reported = Some(begun.elapsed());
                    }
                }
                Ok(Some(job)) = job_events.try_next(), if kind != "LoadTest" => {
                    let conditions = job.status.and_then(|s| s.conditions).unwrap_or_default();
                    if conditions.iter().any(|c| c.type_ == "Complete" && c.status == "True") && reported.is_none() {
                        reported = Some(begun.elapsed());
                    }
                }
            }
        }
    };
    tokio::time::timeout(TIMEOUT, watching)
        .await
        .expect("the run ends in time");

    let mut begins = Vec::new();
    for pod in &exist {
        let log = pods
            .logs(
                pod,
                &LogParams {
                    timestamps: true,
                    ..LogParams::default()
                },
            )
            .await
            .unwrap();
        let line = log
            .lines()
            .find(|l| l.contains("Phase started"))
            .unwrap_or_else(|| panic!("no phase in the log of {pod}:\n{log}"));
        begins.push(
            line.split(' ')
                .next()
                .and_then(|t| t.parse::<Timestamp>().ok())
                .expect("each line begins with a timestamp"),
        );
    }
    begins.sort();
    let seconds = |d: SignedDuration| d.as_secs_f64();
    let at = |d: Option<Duration>| d.map_or(f64::NAN, |d| d.as_secs_f64());
    let result = Run {
        pods_exist: at(pods_exist),
        running: at(running),
        load: seconds(begins[0].duration_since(begun_at)),
        skew: seconds(begins[begins.len() - 1].duration_since(begins[0])),
        last_pod_ended: at(last_pod_ended),
        reported_after: at(reported) - at(last_pod_ended),
    };
    let _ = tests.delete(name, &in_background).await;
    let _ = jobs.delete(name, &in_background).await;
    while !pods
        .list(&kube::api::ListParams::default().labels(&format!("artillery.io/test-name={name}")))
        .await
        .unwrap()
        .items
        .is_empty()
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    result
}

//! Tests as the operator leaves them.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use loadtest_api::v1alpha1::{Generators, LoadTest, Threshold, WorstGenerator};
use loadtest_results::{summarize, thresholds};
use serde_json::{Value, json};

use super::simulation::{Sizes, run};
use crate::report::Report;
use crate::view::{EventLine, View, Worker};

const SCRIPT: &str = "\
config:
  target: http://shop.default.svc
  phases:
    - name: steady
      duration: 5m
      arrivalRate: 10
  plugins:
    metrics-by-endpoint: {}
scenarios:
  - name: buy
    flow:
      - get:
          url: /api/products
      - post:
          url: /api/cart
          json: { product: 7 }
      - think: 1
      - post:
          url: /api/checkout
";

pub(super) fn now() -> Timestamp {
    "2026-01-01T12:07:00Z".parse().unwrap()
}

pub(super) fn report(view: &View) -> Report {
    Report::new(view, now(), "0.1.0")
}

fn condition(type_: &str, status: &str, reason: &str, message: &str, time: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": format!("2026-01-01T12:{time}Z"), "observedGeneration": 1
    })
}

fn event(time: &str, type_: &str, reason: &str, message: &str) -> EventLine {
    let event: Event = serde_json::from_value(json!({
        "metadata": {}, "involvedObject": {}, "type": type_, "reason": reason, "message": message,
        "lastTimestamp": format!("2026-01-01T12:{time}Z")
    }))
    .unwrap();
    EventLine::from_event(&event)
}

fn pod(name: &str, index: usize, message: &str, exit_code: i32) -> Worker {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": format!("{name}-{index}-x7k2{index}"),
            "labels": { "artillery.io/test-name": name },
            "annotations": { "batch.kubernetes.io/job-completion-index": index.to_string() }
        },
        "spec": { "nodeName": format!("node-{}", ["a", "b", "c"][index % 3]), "containers": [] },
        "status": { "phase": if exit_code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [{
            "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": {
                "exitCode": exit_code, "message": message, "reason": if exit_code == 0 { "Completed" } else { "Error" },
                "startedAt": format!("2026-01-01T12:00:{:02}Z", 5 + index % 3), "finishedAt": "2026-01-01T12:05:19Z"
            } }
        }] }
    }))
    .unwrap();
    Worker::from_pod(&pod)
}

fn test(name: &str, spec: &Value, status: &Value) -> LoadTest {
    serde_json::from_value(json!({
        "apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
        "metadata": { "name": name, "namespace": "shop", "creationTimestamp": "2026-01-01T12:00:00Z" },
        "spec": spec, "status": status
    }))
    .unwrap()
}

/// A test that ran for five minutes, without its verdict.
fn ran(name: &str, sizes: Sizes, expressions: &[&str]) -> View {
    let run = run(sizes);
    let workers: Vec<_> = run
        .messages
        .iter()
        .enumerate()
        .map(|(index, message)| pod(name, index, message, 0))
        .collect();
    let spec = json!({
        "count": sizes.workers, "target": "http://shop.default.svc", "environment": "staging",
        "testScript": { "config": { "configMap": "shop-script" } }, "thresholds": expressions,
        "worker": { "resources": { "limits": { "cpu": "500m", "memory": "512Mi" } } }
    });
    let status = json!({
        "observedGeneration": 1, "phase": "Completed", "job": name,
        "startTime": "2026-01-01T12:00:03Z", "loadStartTime": "2026-01-01T12:00:15.000000Z",
        "completionTime": "2026-01-01T12:05:21Z", "duration": "5m18s", "expectedDuration": "5m0s",
        "completions": format!("{0}/{0}", sizes.workers), "succeeded": sizes.workers, "image": "artilleryio/artillery:2.0.34"
    });
    let mut view = View {
        test: test(name, &spec, &status),
        workers,
        events: vec![
            event(
                "00:02",
                "Normal",
                "Created",
                &format!("Created Job {name} with {} workers.", sizes.workers),
            ),
            event(
                "00:08",
                "Normal",
                "Running",
                "The first worker has started.",
            ),
        ],
        script: Some(SCRIPT.to_owned()),
        missing: Vec::new(),
    };
    let (measured, _) = view.measured().unwrap();
    let mut results = summarize(&measured, u32::try_from(sizes.workers).unwrap(), 0);
    let load = results.load.as_mut().unwrap();
    load.sent = Some(format!(
        "{}%",
        (sizes.arrived / sizes.planned * 100.0).round()
    ));
    results.series = Some(run.series);
    results.generators = Some(Generators {
        saturated: format!("0 of {}", sizes.workers),
        worst: Some(WorstGenerator {
            worker: i32::try_from(sizes.workers).unwrap() - 1,
            planned_rate: Some(sizes.planned),
            arrival_rate: Some(sizes.arrived),
            threads: Some(1),
            utilization: Some("43%".into()),
            event_loop_delay: Some("12.4ms".into()),
            cpu: Some("318m".into()),
            cpu_limit: Some("500m".into()),
            memory: Some("139Mi".into()),
            memory_limit: Some("512Mi".into()),
            ..WorstGenerator::default()
        }),
        advice: None,
    });
    let all: Vec<_> = expressions
        .iter()
        .map(|one| Threshold::strict(*one))
        .collect();
    let judged = thresholds::evaluate(&all, &measured)
        .into_iter()
        .map(|one| Threshold {
            held: Some(one.outcome == thresholds::Outcome::Met),
            message: Some(one.observed_values()),
            ..one.threshold
        });
    let status = view.test.status.as_mut().unwrap();
    status.thresholds = Some(judged.collect());
    status.results = Some(Box::new(results));
    view
}

fn set(view: &mut View, verdict: &str, conditions: &Value) {
    let status = view.test.status.as_mut().unwrap();
    status.verdict = serde_json::from_value(json!(verdict)).unwrap();
    status.conditions = serde_json::from_value(conditions.clone()).unwrap();
}

/// Eight workers; the target becomes slow halfway.
pub(super) fn slow() -> View {
    static VIEW: LazyLock<View> = LazyLock::new(slow_view);
    VIEW.clone()
}

fn slow_view() -> View {
    let sizes = Sizes {
        workers: 8,
        planned: 10.0,
        arrived: 10.0,
        slow_from: 150,
    };
    let expressions = [
        "http.response_time.p95 < 500",
        "http.response_time.p99 < 2000",
        "http.codes.503 < 100",
        "maxErrorRate < 5",
    ];
    let mut view = ran("shop", sizes, &expressions);
    let results = view.test.status.as_ref().unwrap().results.as_ref().unwrap();
    let load = results.load.as_ref().unwrap();
    let why = format!(
        "Thresholds not met: http.response_time.p95 is {}, not < 500; http.codes.503 is {}, not < 100.",
        results.histograms[0].p95.unwrap(),
        results
            .codes
            .iter()
            .find(|one| one.name == "503")
            .unwrap()
            .count
    );
    let delivered = format!(
        "{} of {} planned virtual users were created, 99% of them at most 4.1ms late.",
        load.created_vusers,
        load.planned_vusers.unwrap()
    );
    view.events.push(event(
        "05:21",
        "Normal",
        "Completed",
        "All 8 workers succeeded.",
    ));
    view.events.push(event(
        "05:21",
        "Warning",
        "ThresholdsNotMet",
        &format!("Load test did not pass: {why}"),
    ));
    set(
        &mut view,
        "Failed",
        &json!([
            condition(
                "Progressing",
                "False",
                "Completed",
                "All 8 workers succeeded.",
                "05:21"
            ),
            condition(
                "Completed",
                "True",
                "Completed",
                "All 8 workers succeeded.",
                "05:21"
            ),
            condition(
                "Failed",
                "False",
                "Completed",
                "All 8 workers succeeded.",
                "00:00"
            ),
            condition("Passed", "False", "ThresholdsNotMet", &why, "05:21"),
            condition(
                "ResultsComplete",
                "True",
                "AllWorkersReported",
                "All workers reported.",
                "05:21"
            ),
            condition("LoadDelivered", "True", "AsPlanned", &delivered, "05:21"),
        ]),
    );
    view
}

/// Two workers; the target stays fast.
pub(super) fn passed() -> View {
    static VIEW: LazyLock<View> = LazyLock::new(passed_view);
    VIEW.clone()
}

fn passed_view() -> View {
    let sizes = Sizes {
        workers: 2,
        planned: 4.0,
        arrived: 4.0,
        slow_from: usize::MAX,
    };
    let mut view = ran("shop-fast", sizes, &["http.response_time.p95 < 500"]);
    set(
        &mut view,
        "Passed",
        &json!([
            condition(
                "Completed",
                "True",
                "Completed",
                "All 2 workers succeeded.",
                "05:21"
            ),
            condition(
                "Passed",
                "True",
                "ThresholdsMet",
                "The threshold is met.",
                "05:21"
            ),
            condition(
                "LoadDelivered",
                "True",
                "AsPlanned",
                "2400 of 2400 planned virtual users were created.",
                "05:21"
            ),
        ]),
    );
    view
}

/// Four workers that were too small, of which the pods of two no longer exist.
pub(super) fn inconclusive() -> View {
    let sizes = Sizes {
        workers: 4,
        planned: 40.0,
        arrived: 23.6,
        slow_from: usize::MAX,
    };
    let mut view = ran("shop-small", sizes, &["http.response_time.p95 < 500"]);
    view.workers.truncate(2);
    let advice = "One worker with 500m CPU sent 24 virtual users/s; 40/s needs 900m, or 7 workers with load: Divide.";
    let status = view.test.status.as_mut().unwrap();
    let generators = status
        .results
        .as_mut()
        .unwrap()
        .generators
        .as_mut()
        .unwrap();
    generators.advice = Some(advice.to_owned());
    generators.saturated = "4 of 4".to_owned();
    let worst = generators.worst.as_mut().unwrap();
    worst.worker = 1;
    worst.throttled = Some("96%".to_owned());
    worst.throttled_time = Some("201.4s".to_owned());
    worst.cpu = Some("498m".to_owned());
    let short = "All 4 workers were saturated: the load took 508.5s instead of 300s. Worker 1 was throttled in 96% of its CPU periods.";
    set(
        &mut view,
        "Inconclusive",
        &json!([
            condition(
                "Completed",
                "True",
                "Completed",
                "All 4 workers succeeded.",
                "05:21"
            ),
            condition(
                "Passed",
                "Unknown",
                "LoadNotDelivered",
                "The threshold is met, but the load was not delivered: all 4 workers were saturated: the load took 508.5s instead of 300s.",
                "05:21"
            ),
            condition(
                "ResultsComplete",
                "True",
                "AllWorkersReported",
                "All workers reported.",
                "05:21"
            ),
            condition(
                "LoadDelivered",
                "False",
                "WorkersSaturated",
                &format!("{short} {advice}"),
                "05:21"
            ),
        ]),
    );
    view
}

/// A test whose image could not be pulled.
pub(super) fn not_started() -> View {
    let spec = json!({ "count": 3, "testScript": { "config": { "configMap": "shop-script" } }, "thresholds": ["http.response_time.p95 < 500"] });
    let why = "Did not start within 60s (startDeadlineSeconds): Image registry.example/artillery:missing of pod shop-missing-0-abcde cannot be pulled: \
        not found. Check the image name and spec.worker.imagePullSecrets.";
    let status = json!({
        "phase": "Failed", "verdict": "Failed", "completionTime": "2026-01-01T12:01:04Z", "image": "registry.example/artillery:missing",
        "thresholds": [{ "expression": "http.response_time.p95 < 500" }],
        "conditions": [
            condition("Progressing", "False", "ImageNotPullable", why, "01:04"),
            condition("Completed", "False", "ImageNotPullable", why, "00:00"),
            condition("Failed", "True", "ImageNotPullable", why, "01:04"),
            condition("Passed", "False", "NotCompleted", "The test failed.", "01:04"),
        ]
    });
    View {
        test: test("shop-missing", &spec, &status),
        workers: Vec::new(),
        events: vec![
            event("00:02", "Normal", "Created", "Created Job shop-missing with 3 workers."),
            event("01:04", "Warning", "Failed", why),
        ],
        script: None,
        missing: vec![
            "Cannot read ConfigMap shop/shop-script: configmaps \"shop-script\" is forbidden: User \"jane\" cannot get resource \"configmaps\"".to_owned(),
        ],
    }
}

/// A test that runs, and was read once.
pub(super) fn running() -> View {
    let mut view = passed();
    view.test.metadata.name = Some("shop-running".to_owned());
    view.workers.clear();
    let status = view.test.status.as_mut().unwrap();
    status.phase = serde_json::from_value(json!("Running")).unwrap();
    status.completion_time = None;
    status.duration = Some("2m22s".to_owned());
    status.verdict = None;
    status.conditions = serde_json::from_value(json!([condition(
        "Progressing",
        "True",
        "Running",
        "All 2 workers are running.",
        "00:15"
    )]))
    .unwrap();
    for threshold in status.thresholds.iter_mut().flatten() {
        (threshold.held, threshold.message) = (None, None);
    }
    let results = status.results.as_mut().unwrap();
    results.live = true;
    results.as_of = serde_json::from_value(json!("2026-01-01T12:02:25Z")).unwrap();
    let series = results.series.as_mut().unwrap();
    for counts in [
        &mut series.requests,
        &mut series.errors,
        &mut series.vusers_created,
        &mut series.vusers_planned,
        &mut series.vusers_active,
    ] {
        counts.truncate(13);
    }
    for times in [&mut series.p50, &mut series.p95, &mut series.p99] {
        times.truncate(13);
        times[4] = None;
        times[5] = None;
    }
    view
}

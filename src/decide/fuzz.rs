//! Fuzz tests: arbitrary cluster state must not cause a panic in parsing or in [`decide`]. Other programs write pods
//! and their statuses, and users can edit a LoadTest's status.
#![allow(clippy::unwrap_used)]

use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::cache::store::Store;
use std::sync::Arc;

use crate::cache::NamespacedName;
use crate::state::{PartialJob, PartialPod, ScriptState, WorkerFiles};

const LATE: &str = "loadtest.v1 eNo1jtEKgzAMRf8lz2FU2zrrrxQfimZO5qy0VRjivy8Z7CGXcG/uISc85jUs0JW0E8ISwwidr5RCGatYnIjqEUZawodTjQrNL+HF2xpd06Pv+WKilVIoMQkDnWNKy7EwsJVGfWfRQjcabVVzZ4j7Wihl6E449szbbUgUCvEjrsG/l1/ztolnLoTnnEucUnhL67q+mVQ4zg==";
const FORGED: &str = "loadtest.v1 eNpdTu0KgzAMfJf+zkbqx1x9leKPosHJOittFYb47ktXNsYIXJIjd5ddWGcG0WqF2EilirpqKuQOCJJkkUGRrDsQA1nz5NsSTpJKvMIvIujygojw79SB7lg80kzeROfZYF6tBZmOc0aqb9h7Y0Hv1jmSD6LdxbYGns69JxOJ382RHzrcp2VJdH7rAHGbQnSjN4+kPo4X6Q5ApA==";

/// Generates plausible and unexpected values.
fn value() -> BoxedStrategy<Value> {
    let word = prop::sample::select(vec![
        "",
        "True",
        "False",
        "Unknown",
        "Running",
        "Failed",
        "Succeeded",
        "Pending",
        "Stopping",
        "Suspended",
        "Starting",
        "Complete",
        "FailureTarget",
        "Progressing",
        "DeadlineExceeded",
        "BackoffLimitExceeded",
        "OOMKilled",
        "DisruptionTarget",
        "t",
        "1",
        "-1",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "-009998-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z",
        "99999999999999999999h",
        "\u{0}\n}",
        "words\nloadtest.v1 eJyrVkrOL80rSS1SsqqujtVRysgsLskvyiyuBAsAABVfCr0=",
        "loadtest.v1 x",
        // A worker that was late and skipped virtual users, and one with forged numbers.
        LATE,
        FORGED,
        "Together",
    ]);
    prop_oneof![
        4 => word.prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        2 => prop::sample::select(vec![i64::MIN, -1, 0, 1, 2, 137, 143, i64::from(i32::MAX), i64::MAX]).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
    .boxed()
}

/// Generates an object with a subset of `fields`.
fn object(fields: &[&'static str], value: &BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    let fields: Vec<_> = fields
        .iter()
        .copied()
        .map(|f| prop::option::weighted(0.8, value.clone()).prop_map(move |v| (f, v)))
        .collect();
    fields
        .prop_map(|fields| {
            fields
                .into_iter()
                .filter_map(|(f, v)| Some((f.to_owned(), v?)))
                .collect::<Value>()
        })
        .boxed()
}

fn conditions() -> BoxedStrategy<Value> {
    let condition = object(
        &[
            "type",
            "status",
            "reason",
            "message",
            "lastTransitionTime",
            "observedGeneration",
        ],
        &value(),
    );
    prop::collection::vec(condition, 0..4)
        .prop_map(Value::from)
        .boxed()
}

fn pod() -> BoxedStrategy<Value> {
    let terminated = object(
        &["exitCode", "reason", "message", "startedAt", "finishedAt"],
        &value(),
    );
    let waiting = object(&["reason", "message"], &value());
    let running = object(&["startedAt"], &value());
    let state =
        (terminated, waiting, running, 0..4).prop_map(|(terminated, waiting, running, which)| {
            match which {
                0 => json!({"terminated": terminated}),
                1 => json!({"waiting": waiting}),
                2 => json!({"running": running}),
                _ => json!({}),
            }
        });
    let meta = object(&["deletionTimestamp", "resourceVersion"], &value());
    (state, conditions(), object(&["phase", "reason", "message"], &value()), meta, value(), "[a-c]")
        .prop_map(|(state, conditions, mut status, mut meta, index, name)| {
            status["conditions"] = conditions;
            status["containerStatuses"] = json!([{"name": "t", "state": state, "ready": name == "a", "started": index}]);
            meta["name"] = json!(name);
            meta["namespace"] = json!("n");
            meta["uid"] = json!(name);
            meta["annotations"] =
                json!({"batch.kubernetes.io/job-completion-index": index, "loadtest.artillery.io/start-at": index});
            meta["labels"] = json!({"batch.kubernetes.io/controller-uid": "j", "batch.kubernetes.io/job-name": "t"});
            meta["ownerReferences"] =
                json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "t", "uid": "j", "controller": true}]);
            json!({"metadata": meta, "status": status})
        })
        .boxed()
}

fn job() -> BoxedStrategy<Value> {
    let spec = object(
        &[
            "suspend",
            "activeDeadlineSeconds",
            "ttlSecondsAfterFinished",
        ],
        &value(),
    );
    let status = object(
        &[
            "startTime",
            "completionTime",
            "active",
            "succeeded",
            "failed",
        ],
        &value(),
    );
    (spec, status, conditions())
        .prop_map(|(spec, mut status, conditions)| {
            status["conditions"] = conditions;
            json!({"metadata": {"name": "t", "namespace": "n", "uid": "j", "ownerReferences": [
                {"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "name": "t", "uid": "u", "controller": true}]}, "spec": spec, "status": status})
        })
        .boxed()
}

fn load_test() -> BoxedStrategy<Value> {
    let spec = object(
        &[
            "count",
            "stop",
            "suspend",
            "startDeadlineSeconds",
            "activeDeadlineSeconds",
            "ttlSecondsAfterFinished",
            "environment",
            "start",
        ],
        &value(),
    );
    let status = object(
        &[
            "phase",
            "startTime",
            "completionTime",
            "duration",
            "expectedDuration",
            "succeeded",
            "failed",
            "aborted",
        ],
        &value(),
    );
    (spec, status, conditions())
        .prop_map(|(mut spec, mut status, conditions)| {
            spec["testScript"] = json!({"config": {"configMap": "s"}});
            status["conditions"] = conditions;
            status["thresholds"] = json!([{"expression": spec["environment"].as_str().unwrap_or("http.codes.200 > 0")}]);
            json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
                "metadata": {"name": "t", "namespace": "n", "uid": "u"}, "spec": spec, "status": status})
        })
        .boxed()
}

/// Parses an object after dropping the fields of `part` that do not parse.
fn parse_leniently<T: serde::de::DeserializeOwned>(mut object: Value, part: &str) -> Option<T> {
    let fields: Vec<String> = object[part].as_object()?.keys().cloned().collect();
    for field in fields {
        let mut only = object.clone();
        let kept = object[part][&field].clone();
        only[part] = json!({"testScript": {"config": {"configMap": "s"}}});
        only[part][&field] = kept;
        if part != "spec" {
            only[part].as_object_mut()?.remove("testScript");
        }
        if serde_json::from_value::<T>(only).is_err() {
            object[part].as_object_mut()?.remove(&field);
        }
    }
    serde_json::from_value(object).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decide_never_panics_on_arbitrary_cluster_state(
        pods in prop::collection::vec(pod(), 0..4), job in job(), test in load_test(), gone in any::<bool>(), seconds in value(),
    ) {
        let now = seconds.as_i64().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or_else(|| "2026-01-01T00:00:00Z".parse().unwrap());
        let mut store = Store::default();
        if let Some(job) = parse_leniently::<PartialJob>(job, "status") {
            store.apply_job_event(Event::Apply(job));
        }
        for (i, pod) in pods.into_iter().enumerate() {
            let Some(pod) = parse_leniently::<PartialPod>(pod, "status") else { continue };
            store.apply_pod_event(if i == 2 { Event::Delete(pod) } else { Event::Apply(pod) }, now);
        }
        let Some(test) = parse_leniently::<LoadTest>(test.clone(), "status").or_else(|| parse_leniently(test, "spec")) else { return Ok(()) };
        let key = Arc::new(NamespacedName { namespace: "n".into(), name: "t".into() });
        let job = store.job(&key, "u").unwrap_or(JobState::Absent);
        let job = match job {
            JobState::Owned(job) if gone => JobState::Deleted(Some(job)),
            other => other,
        };
        let observed = Observed { job, workers: store.workers(&key, "j"), script: ScriptState::NotRead, worker_files: WorkerFiles::Verified, ..Observed::default() };
        let _ = object_to_explain(&test, &observed.job, &observed.workers, 0, now);
        let plan = decide(&test, &observed, &WorkerConfig::default(), now);
        if let Some(status) = plan.status {
            prop_assert!(serde_json::to_string(&status).unwrap().len() < 40_000, "the status stays small");
        }
    }

    #[test]
    fn analyze_never_panics_on_arbitrary_scripts(text in "(config|phases|duration|pause|environments|ensure|thresholds|conditions|expression|[-:{}\\[\\],&*!|> \\n'\"0-9a-z.])*") {
        let _ = loadtest_script::analyze(&text, "a.yaml", Some("a"));
    }
}
